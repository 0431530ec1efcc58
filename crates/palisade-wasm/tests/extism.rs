//! Modules for Extism the whole way: a manifest, a grant, the gate, the module, and back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{path::Path, sync::Arc};

use palisade_broker::{Context, Service};
use palisade_conformance::components;
use palisade_host::{Host, LoadOptions, State};
use palisade_model::{ErrorCode as C, Failure};
use palisade_wasm::{Options, WasmBackend};
use serde_json::{Value, json};

/// A folder with the reference plugin of the conformance suite.
fn folder(dir: &Path, entry: &str, rest: &str) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::copy(components::extism("wasm32-wasip1"), dir.join("it.wasm")).unwrap();
    let tools: Vec<String> = ["add", "echo", "config", "host", "fail", "sleep", "fetch", "noise"]
        .iter()
        .map(|name| format!("{{ name: {name}, description: Does it. }}"))
        .collect();
    let manifest = format!(
        "api: palisade/1\nid: reference\nversion: 1.0.0\n\
         entry: {{ kind: extism, file: it.wasm, output: json{entry} }}\n\
         capabilities: {{ required: [{{ capability: 'host.call:get_user_profile', reason: Asks. }}, {{ capability: 'host.call:slow', reason: Asks. }}, {{ capability: 'host.call:busy', reason: Asks. }}] }}\n\
         config: {{ schema: {{ type: object }}, defaults: {{ greeting: Hello }} }}\n\
         contributes: {{ tools: [{}] }}\n{rest}",
        tools.join(", ")
    );
    std::fs::write(dir.join("plugin.yaml"), manifest).unwrap();
}

async fn host(state: &Path) -> Host {
    let profile = Service::new("get_user_profile", |_: Context, params: Value| async move {
        Ok::<Value, Failure>(json!({ "asked": params }))
    });
    let busy = Service::new("busy", |_: Context, _: Value| async move {
        Err::<Value, Failure>(Failure::new(C::RateLimited, "slow down"))
    });
    Host::builder()
        .state_dir(state)
        .backend(Arc::new(WasmBackend::new(Options::default().instances(64))))
        .service(profile)
        .service(busy)
        .build()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_module_is_a_plugin_like_any_other() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("plugin");
    folder(&dir, "", "resources: { timeouts: { call: 300ms } }\n");
    let host = host(&tmp.path().join("state")).await;
    let options = LoadOptions::new().config(json!({ "n": [1, 2] }));
    let plugin = host.load_with(&dir, options).await.unwrap();
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, C::Denied, "{failure}");
    plugin.grant_requested().await.unwrap();
    assert_eq!(plugin.plan().await.unwrap().wall.as_ref().unwrap().backend, "wasm");
    plugin.start().await.unwrap();

    let call = async |tool: &str, args: Value| -> Result<Value, Failure> {
        Ok(plugin.call(tool, &args).await?.parse().unwrap())
    };
    assert_eq!(call("add", json!({ "a": 40, "b": 2 })).await.unwrap(), 42);
    assert_eq!(call("echo", json!({ "value": ["ü", null] })).await.unwrap(), json!(["ü", null]));
    let config = call("config", json!({})).await.unwrap();
    assert_eq!(config, json!({ "greeting": "Hello", "n": [1, 2] }));
    let asked = json!({ "method": "get_user_profile", "params": { "user": 7 } });
    assert_eq!(call("host", asked).await.unwrap(), json!({ "asked": { "user": 7 } }));

    // A failure is the call's; what ends the instance is the call's too, and the plugin goes on.
    for (tool, args, code) in [
        ("fail", json!({ "message": "no luck" }), C::PluginError),
        ("host", json!({ "method": "busy" }), C::RateLimited),
        ("fetch", json!({ "url": "http://127.0.0.1:9/" }), C::Denied),
        ("sleep", json!({ "ms": 60_000 }), C::Deadline),
    ] {
        let failure = call(tool, args).await.unwrap_err();
        assert_eq!(failure.code, code, "{tool}: {failure}");
        assert_eq!(plugin.status().state, State::Running);
        assert_eq!(call("add", json!({ "a": 1 })).await.unwrap(), 2);
    }
    // What only its module exports, and the manifest does not offer.
    assert_eq!(call("shape", json!({})).await.unwrap_err().code, C::NotFound);
    plugin.stop().await.unwrap();
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn stateless_calls_of_a_module_run_beside_each_other() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("plugin");
    folder(&dir, ", calls: stateless, instances: 4", "");
    let host = host(&tmp.path().join("state")).await;
    let plugin = host.load(&dir).await.unwrap();
    plugin.grant_requested().await.unwrap();
    plugin.start().await.unwrap();
    let begun = std::time::Instant::now();
    let args = json!({ "ms": 1500 });
    let sleep = || plugin.call("sleep", &args);
    let (a, b, c, d) = tokio::join!(sleep(), sleep(), sleep(), sleep());
    for answer in [a, b, c, d] {
        assert_eq!(answer.unwrap().parse::<Value>().unwrap(), json!({ "slept": 1500 }));
    }
    assert!(begun.elapsed().as_secs_f64() < 5.0, "they did not wait for each other");
    host.shutdown().await.unwrap();
}
