//! `wasm+process`: the engine behind the walls around processes. A component does there what it does in the
//! host's process, every right works, and what ends is told as what it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

#[path = "../../../palisade-egress/tests/common/mod.rs"]
mod net;
#[path = "../support/mod.rs"]
mod support;

mod code;
mod engines;
mod files;
mod https;
mod policy;
mod rights;
mod winch;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_model::{CapabilitySet, ErrorCode as C, Guarantee, GuaranteeSet, Level};
use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{
    Backend as _, Calls, Exit, ExitCause, ExtismOutput, HostCalls, Instance, KillReason,
    RightsChange, Runtime, SandboxError,
};
use palisade_wasm::walled::{EngineProgram, NAME, WalledBackend};
use support::{
    Bench, TOO_FAR, answers, asks_its_host, bench, code, fails_in_words, goes_too_far, guest,
    initialize, is_refused_for_its_import, quick, tool,
};

const TIME: Duration = Duration::from_secs(20);

fn program() -> EngineProgram {
    EngineProgram::at(env!("CARGO_BIN_EXE_palisade-engine"))
}

fn backend() -> WalledBackend {
    WalledBackend::new(Arc::new(ProcessBackend::new(Options::default())), program())
}

/// A plugin's folders and the backend, which keeps compiled code in the same folder.
struct Walled {
    bench: Bench,
    backend: WalledBackend,
}

fn walled(wasm: &[u8], calls: Calls) -> Walled {
    let mut bench = bench(wasm, calls);
    let demand = std::mem::take(&mut bench.spec.demand);
    bench.spec.demand = demand.with(Guarantee::EngineWalled, Level::Kernel);
    let backend = backend();
    backend.keep_in(&bench.dir.path().canonicalize().unwrap());
    Walled { bench, backend }
}

impl Walled {
    async fn launch(&self) -> Result<Arc<dyn Instance>, SandboxError> {
        let host: Arc<dyn HostCalls> = Arc::clone(&self.bench.host) as _;
        self.launch_for(host).await
    }

    async fn launch_for(
        &self,
        host: Arc<dyn HostCalls>,
    ) -> Result<Arc<dyn Instance>, SandboxError> {
        let prepared = self.backend.prepare(&self.bench.artifact).await?;
        prepared.launch(self.bench.spec.clone(), host).await
    }

    async fn started(&self) -> Arc<dyn Instance> {
        let instance = self.launch().await.unwrap_or_else(|e| panic!("{e}"));
        initialize(&instance, "{}").await.unwrap();
        instance
    }

    fn folder(&self) -> PathBuf {
        self.bench.dir.path().join(NAME)
    }

    /// The files of compiled code.
    fn kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder()).unwrap().flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|e| e == "cwasm")).collect()
    }

    /// The processes that are shown this plugin's folder.
    fn processes(&self) -> Vec<i32> {
        let file = self.bench.artifact.content.root.join("plugin.wasm");
        let ours = fs::metadata(file).map(|meta| (meta.dev(), meta.ino())).unwrap();
        let numbers = fs::read_dir("/proc").unwrap().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let shown = |pid: &i32| {
            let meta = fs::metadata(format!("/proc/{pid}/root/plugin/plugin.wasm"));
            meta.is_ok_and(|meta| (meta.dev(), meta.ino()) == ours)
        };
        numbers.filter(shown).collect()
    }

    async fn is_gone(&self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            if self.processes().is_empty() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

#[tokio::test]
async fn a_component_does_behind_walls_what_it_does_without() {
    let walled = walled(&guest(), Calls::Stateful);
    let instance = walled.launch().await.unwrap();
    let achieved = &instance.achieved().guarantees;
    assert_eq!(achieved.level(Guarantee::EngineWalled), Level::Kernel);
    assert_eq!(achieved.level(Guarantee::NoJit), Level::None);
    assert!(achieved.covers(&GuaranteeSet::default_floor()));
    initialize(&instance, r#"{"v":7}"#).await.unwrap();
    assert_eq!(quick(&instance, "initialized").await.unwrap(), "7");
    answers(&instance).await;
    asks_its_host(&instance, &walled.bench.host).await;
    fails_in_words(&instance).await;
    let used = instance.usage().await;
    assert!(used.pids.is_some_and(|pids| pids > 0) || used.cpu.is_some(), "{used:?}");
    assert!(!walled.processes().is_empty());
    let exit = instance.stop(Duration::from_secs(5)).await;
    assert!(exit.is_clean(), "{exit}");
    assert!(walled.is_gone().await);
}

#[tokio::test]
async fn what_goes_too_far_is_told_apart_and_the_next_call_finds_a_fresh_instance() {
    let walled = walled(&guest(), Calls::Stateful);
    let instance = walled.started().await;
    goes_too_far(&instance, TOO_FAR).await;
    takes_too_long(&instance).await;
}

#[tokio::test]
async fn an_instance_for_each_call_behind_walls() {
    let walled = walled(&guest(), Calls::PerCall { instances: 2 });
    let instance = walled.started().await;
    for _ in 0..3 {
        assert_eq!(quick(&instance, "count").await.unwrap(), "1");
    }
    assert_eq!(quick(&instance, "trap").await.unwrap_err().code, C::Crashed);
    assert_eq!(quick(&instance, "count").await.unwrap(), "1");
    answers(&instance).await;
}

/// Deadlines, and that the call after them finds a fresh instance.
async fn takes_too_long(instance: &Arc<dyn Instance>) {
    for name in ["spin", "long"] {
        let begun = Instant::now();
        let short = Duration::from_millis(150);
        let failure = tool(instance, name, "{}", short).await.unwrap_err();
        assert_eq!(failure.code, C::Deadline, "{name}: {failure}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{name}: {:?}", begun.elapsed());
        assert_eq!(tool(instance, "count", "{}", TIME).await.unwrap(), "1", "after {name}");
    }
}

#[tokio::test]
async fn the_end_of_an_engine_is_told_with_its_cause_and_leaves_nothing() {
    let walled = walled(&guest(), Calls::Stateful);
    let instance = walled.started().await;
    let waiting = {
        let instance = Arc::clone(&instance);
        tokio::spawn(async move { tool(&instance, "long", "{}", TIME).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The engine, and not the pid 1 before it, which has the lowest number.
    let engine = *walled.processes().iter().max().unwrap();
    let killed = Command::new("kill").args(["-9", &engine.to_string()]).status().unwrap();
    assert!(killed.success());
    let failure = waiting.await.unwrap().unwrap_err();
    assert_eq!(failure.code, C::Crashed, "{failure}");
    assert!(failure.message.contains("signal 9"), "{failure}");
    let exit: Exit = instance.wait().await;
    assert_eq!(exit.cause, ExitCause::Signalled(9));
    assert!(quick(&instance, "count").await.is_err());
    assert!(walled.is_gone().await);

    let instance = walled.started().await;
    let exit = instance.kill(KillReason::Asked).await;
    assert_eq!(exit.cause, ExitCause::Killed(KillReason::Asked));
    assert!(walled.is_gone().await);
    // Who holds the lane alone does not keep it.
    let instance = walled.started().await;
    let lane = instance.lane();
    drop(instance);
    assert!(walled.is_gone().await);
    drop(lane);
}

#[tokio::test]
async fn an_import_without_its_right_is_refused_by_name() {
    let mut walled = walled(&guest(), Calls::Stateful);
    walled.bench.rights(&[]);
    let refused = walled.launch().await.err().unwrap();
    is_refused_for_its_import(refused);
    assert!(walled.is_gone().await);
    // What walls or engine cannot make true is refused before anything is launched.
    for right in ["exec:/usr/bin/git", "fs.read:/proc/**"] {
        walled.bench.rights(&["storage.kv:a", right]);
        let refused = walled.launch().await.err().unwrap();
        assert!(matches!(refused, SandboxError::Unsupported { .. }), "{right}: {refused}");
    }
    // So is a demand that does not hold.
    walled.bench.rights(&["storage.kv:a"]);
    walled.bench.spec.demand = GuaranteeSet::default_floor().with(Guarantee::NoJit, Level::Kernel);
    let refused = walled.launch().await.err().unwrap();
    assert!(matches!(refused, SandboxError::WallTooWeak(_)), "{refused}");
    assert!(walled.is_gone().await);
}

#[tokio::test]
async fn limits_count_for_the_guest_and_can_be_changed() {
    let mut walled = walled(&guest(), Calls::Stateless { instances: 3 });
    // Three pages: two that it begins with, and one more.
    walled.bench.spec.limits.memory = 3 * 65536 + 4096;
    let instance = walled.started().await;
    // The number of pages before, and one: 0 is a refusal.
    assert_eq!(quick(&instance, "hold").await.unwrap(), "3");
    assert_eq!(quick(&instance, "hold").await.unwrap(), "0");
    let mut limits = walled.bench.spec.limits.clone();
    limits.memory = 16 << 20;
    instance.set_limits(&limits).await.unwrap();
    assert_eq!(quick(&instance, "hold").await.unwrap(), "4");

    let same = |rights: &[&str]| -> RightsChange {
        let rights: CapabilitySet = rights.iter().map(|right| right.parse().unwrap()).collect();
        instance.set_rights(Arc::new(rights))
    };
    assert_eq!(same(&["storage.kv:b"]), RightsChange::Applied);
    assert_eq!(same(&["net.http:example.org:443"]), RightsChange::NeedsRestart);
    assert_eq!(same(&["fs.read:/srv/**"]), RightsChange::NeedsRestart);

    instance.freeze().await.unwrap();
    let short = Duration::from_millis(200);
    // It is asked to stand still, and may answer a call that is quicker.
    let mut stands = false;
    for _ in 0..20 {
        if let Err(failure) = tool(&instance, "echo", "{}", short).await {
            assert_eq!(failure.code, C::Deadline);
            stands = true;
            break;
        }
    }
    assert!(stands, "it goes on");
    instance.thaw().await.unwrap();
    assert_eq!(tool(&instance, "echo", "{}", TIME).await.unwrap(), "{}");
}

#[tokio::test]
async fn a_module_for_extism_runs_behind_walls() {
    let wasm = wat::parse_str(
        r#"(module
            (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
            (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
            (import "extism:host/env" "output_set" (func $output (param i64 i64)))
            (func (export "answer") (result i32) (local $at i64)
                (local.set $at (call $alloc (i64.const 2)))
                (call $store (local.get $at) (i32.const 52))
                (call $store (i64.add (local.get $at) (i64.const 1)) (i32.const 50))
                (call $output (local.get $at) (i64.const 2))
                (i32.const 0)))"#,
    )
    .unwrap();
    let mut walled = walled(&wasm, Calls::Stateful);
    walled.bench.artifact.program.runtime =
        Runtime::Extism { calls: Calls::Stateful, output: ExtismOutput::Json };
    walled.bench.rights(&[]);
    let instance = walled.started().await;
    assert_eq!(quick(&instance, "answer").await.unwrap(), "42");
    assert_eq!(code(quick(&instance, "nothing").await), C::NotFound);
}
