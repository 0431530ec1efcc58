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
