//! The whole way: a manifest, a grant, the gate, the component, and back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{path::Path, sync::Arc};

use palisade_host::{Host, State};
use palisade_model::{ErrorCode as C, Guarantee, Level};
use palisade_wasm::{Options, WasmBackend};
use serde_json::json;
use support::guest;

fn folder(dir: &Path, entry: &str, more: &str) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("plugin.wasm"), guest()).unwrap();
    let manifest = format!(
        "api: palisade/1\nid: small\nversion: 1.0.0\nentry: {{ kind: wasm, file: plugin.wasm{entry} }}\n\
         capabilities: {{ required: [{{ capability: 'storage.kv:*', reason: Counts. }}] }}\n\
         contributes: {{ tools: [{{ name: echo, description: Echoes. }}, {{ name: count, description: Counts. }},\n\
         {{ name: key, description: Asks. }}, {{ name: trap, description: Traps. }}, {{ name: spin, description: Spins. }}] }}\n{more}"
    );
    std::fs::write(dir.join("plugin.yaml"), manifest).unwrap();
}

async fn host(state: &Path) -> Host {
    Host::builder()
        .state_dir(state)
        .backend(Arc::new(WasmBackend::new(Options::default().instances(64))))
        .build()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_component_is_a_plugin_like_any_other() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("plugin");
    folder(&dir, "", "resources: { timeouts: { call: 200ms } }\n");
    let host = host(&tmp.path().join("state")).await;
    let plugin = host.load(&dir).await.unwrap();
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, C::Denied, "{failure}");
    plugin.grant_requested().await.unwrap();
    let plan = plugin.plan().await.unwrap();
    assert_eq!(plan.wall.as_ref().unwrap().backend, "wasm");
    plugin.start().await.unwrap();
    let achieved = plugin.achieved().unwrap().guarantees;
    assert_eq!(achieved.level(Guarantee::MemoryCapped), Level::Kernel);
    assert_eq!(achieved.level(Guarantee::EngineWalled), Level::None);

    let answer = plugin.call("echo", &json!({"a": [1, "ü"]})).await.unwrap();
    assert_eq!(answer.parse::<serde_json::Value>().unwrap(), json!({"a": [1, "ü"]}));
    // storage.get through the gate and the service, with a key that the grant covers.
    assert_eq!(plugin.call("key", &()).await.unwrap().bytes(), "0");
    assert_eq!(plugin.call("count", &()).await.unwrap().bytes(), "1");

    // A trap and a deadline are failures of their calls, and the plugin goes on.
    for (tool, code) in [("trap", C::Crashed), ("spin", C::Deadline)] {
        let failure = plugin.call(tool, &()).await.unwrap_err();
        assert_eq!(failure.code, code, "{failure}");
        assert_eq!(plugin.status().state, State::Running);
        assert_eq!(plugin.call("count", &()).await.unwrap().bytes(), "1");
    }

    plugin.revoke("storage.kv:*".parse().unwrap()).await.unwrap();
    plugin.stop().await.unwrap();
    assert!(tmp.path().join("state/wasm/key").exists(), "compiled code is kept with the host");
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_right_that_is_taken_back_counts_at_the_next_request() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("plugin");
    folder(&dir, ", calls: stateless, instances: 2", "");
    let host = host(&tmp.path().join("state")).await;
    let plugin = host.load(&dir).await.unwrap();
    plugin.grant_requested().await.unwrap();
    plugin.start().await.unwrap();
    assert_eq!(plugin.call("key", &()).await.unwrap().bytes(), "0");
    let effect = plugin.revoke("storage.kv:*".parse().unwrap()).await.unwrap();
    // A required right: the plugin ends or goes on without, but nothing passes.
    match plugin.call("key", &()).await {
        Ok(answer) => assert_eq!(answer.bytes(), "1", "{effect:?}"),
        Err(failure) => assert_ne!(failure.code, C::Crashed, "{effect:?}: {failure}"),
    }
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_backend_that_runs_no_components_is_not_asked() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("plugin");
    folder(&dir, "", "");
    std::fs::write(dir.join("main.py"), "").unwrap();
    let manifest = std::fs::read_to_string(dir.join("plugin.yaml")).unwrap();
    let python =
        manifest.replace("{ kind: wasm, file: plugin.wasm }", "{ kind: python, file: main.py }");
    std::fs::write(dir.join("plugin.yaml"), python).unwrap();
    let host = host(&tmp.path().join("state")).await;
    let plugin = host.load(&dir).await.unwrap();
    plugin.grant_requested().await.unwrap();
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, C::NoBackend);
    assert!(failure.message.contains("no backend runs python entries"), "{failure}");
}

#[tokio::test]
async fn many_calls_are_counted_in_the_record_and_failures_stand_alone() {
    let tmp = tempfile::tempdir().unwrap();
    let (dir, file) = (tmp.path().join("plugin"), tmp.path().join("record.jsonl"));
    folder(&dir, "", "");
    let host = Host::builder()
        .state_dir(tmp.path().join("state"))
        .backend(Arc::new(WasmBackend::new(Options::default().instances(64))))
        .recorder(Arc::new(palisade_audit::JsonLinesRecorder::open(&file).unwrap()))
        .build()
        .await
        .unwrap();
    let plugin = host.load(&dir).await.unwrap();
    plugin.grant_requested().await.unwrap();
    plugin.start().await.unwrap();
    const CALLS: u64 = 1000;
    for _ in 0..CALLS {
        assert_eq!(plugin.call("echo", &json!({"a": 1})).await.unwrap().bytes(), r#"{"a":1}"#);
    }
    let trapped = plugin.call("trap", &()).await.unwrap_err();
    assert_eq!(trapped.code, C::Crashed);
    plugin.stop().await.unwrap();
    // The stop was recorded first, and everything that was counted before it.
    let text = std::fs::read_to_string(&file).unwrap();
    let all: Vec<palisade_audit::Record> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |tool: &str| -> Vec<_> {
        let called = |r: &&palisade_audit::Record| {
            r.kind == palisade_audit::RecordKind::Call
                && r.phase != palisade_audit::Phase::Intent
                && r.target.as_deref() == Some(tool)
        };
        all.iter().filter(called).collect()
    };
    let echoed = of("echo");
    let total: u64 = echoed.iter().map(|r| r.repeats.unwrap_or(1)).sum();
    assert_eq!(total, CALLS);
    let alone = echoed.iter().filter(|r| r.repeats.is_none()).count();
    // A hundred of each second, and the one that was the first of all.
    assert!((101..1000).contains(&alone), "{alone} lines");
    assert!(echoed.iter().all(|r| r.plugin.as_deref() == Some("small") && r.serial.is_some()));
    let trap = of("trap");
    assert_eq!((trap.len(), trap[0].code), (1, Some(C::Crashed)));
    host.shutdown().await.unwrap();
}
