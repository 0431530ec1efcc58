//! Whoever demands a walled engine gets one, by policy or by manifest.

use std::{fs, path::Path, sync::Arc};

use palisade_host::Host;
use palisade_model::{ErrorCode as C, Guarantee, GuaranteeSet, Level};
use palisade_policy::OperatorPolicy;
use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::Backend;
use palisade_wasm::{
    WasmBackend,
    walled::{EngineProgram, NAME},
};

use super::{program, support::guest};

fn folder(dir: &Path, more: &str) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("plugin.wasm"), guest()).unwrap();
    let manifest = format!(
        "api: palisade/1\nid: small\nversion: 1.0.0\nentry: {{ kind: wasm, file: plugin.wasm }}\n\
         capabilities: {{ required: [{{ capability: 'storage.kv:*', reason: Counts. }}] }}\n\
         contributes: {{ tools: [{{ name: echo, description: Echoes. }}, {{ name: count, description: Counts. }},\n\
         {{ name: key, description: Asks. }}, {{ name: trap, description: Traps. }}] }}\n{more}"
    );
    fs::write(dir.join("plugin.yaml"), manifest).unwrap();
}

fn policy() -> OperatorPolicy {
    let floor = GuaranteeSet::default_floor().with(Guarantee::EngineWalled, Level::Kernel);
    let lines: Vec<String> = floor.iter().map(|(g, l)| format!("{g} = \"{l}\"")).collect();
    palisade_policy::parse(&format!("[floor]\n{}", lines.join("\n"))).unwrap()
}

async fn host(state: &Path, policy: OperatorPolicy, engine: Option<EngineProgram>) -> Host {
    let mut backends: Vec<Arc<dyn Backend>> =
        vec![Arc::new(ProcessBackend::new(Options::default()))];
    let walled = engine.and_then(|engine| palisade_wasm::walled::behind(&backends, engine));
    let options = palisade_wasm::Options::default().instances(64);
    backends.push(Arc::new(WasmBackend::new(options)));
    backends.extend(walled);
    Host::builder().state_dir(state).policy(policy).backends(backends).build().await.unwrap()
}

#[tokio::test]
async fn who_demands_a_walled_engine_gets_one_and_who_does_not_gets_the_cheaper() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("plugin");
    folder(&dir, "");
    let state = tmp.path().join("state");
    let lax = host(&tmp.path().join("lax"), OperatorPolicy::default(), Some(program())).await;
    let plugin = lax.load(&dir).await.unwrap();
    plugin.grant_requested().await.unwrap();
    assert_eq!(plugin.plan().await.unwrap().wall.unwrap().backend, "wasm");

    let strict = host(&state, policy(), Some(program())).await;
    let plugin = strict.load(&dir).await.unwrap();
    plugin.grant_requested().await.unwrap();
    let plan = plugin.plan().await.unwrap();
    let wall = plan.wall.as_ref().unwrap_or_else(|| panic!("{:?}", plan.no_wall));
    assert_eq!(wall.backend, NAME);
    plugin.start().await.unwrap();
    assert_eq!(plugin.achieved().unwrap().guarantees.level(Guarantee::EngineWalled), Level::Kernel);
    // Storage through the gate and the service; a trap is the failure of its call.
    assert_eq!(plugin.call("key", &()).await.unwrap().bytes(), "0");
    assert_eq!(plugin.call("count", &()).await.unwrap().bytes(), "1");
    let failure = plugin.call("trap", &()).await.unwrap_err();
    assert_eq!(failure.code, C::Crashed, "{failure}");
    assert_eq!(plugin.call("count", &()).await.unwrap().bytes(), "1");
    plugin.stop().await.unwrap();
    assert!(state.join(NAME).join("key").exists());
    assert!(!state.join("wasm").join("key").exists());
    strict.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_manifest_can_demand_it_and_without_it_nothing_starts() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("plugin");
    folder(&dir, "guarantees: [engine-walled]\n");
    for (state, engine) in [("none", None), ("lost", Some(EngineProgram::at("/no/engine")))] {
        let host = host(&tmp.path().join(state), OperatorPolicy::default(), engine).await;
        let plugin = host.load(&dir).await.unwrap();
        plugin.grant_requested().await.unwrap();
        let failure = plugin.start().await.unwrap_err();
        assert_eq!(failure.code, C::NoBackend, "{failure}");
        assert!(failure.message.contains("engine-walled"), "{failure}");
        host.shutdown().await.unwrap();
    }
    let host = host(&tmp.path().join("there"), OperatorPolicy::default(), Some(program())).await;
    let plugin = host.load(&dir).await.unwrap();
    plugin.grant_requested().await.unwrap();
    plugin.start().await.unwrap();
    assert_eq!(plugin.call("echo", &()).await.unwrap().bytes(), "{}");
    host.shutdown().await.unwrap();
}
