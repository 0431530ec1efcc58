//! `wasm+process`: the engine behind the walls around processes. A component does there what it does in the
//! host's process, every right works, and what ends is told as what it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

#[path = "../../palisade-egress/tests/common/mod.rs"]
mod net;
mod support;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use net::{Rights, guard_for, ok, rights, web_server};
use palisade_egress::{
    Guard,
    proxy::{Limits as ProxyLimits, Sockets, serve_way_out},
};
use palisade_model::{
    CapabilitySet, ErrorCode as C, Failure, Guarantee, GuaranteeSet, Level, Payload,
};
use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{
    Backend, BoxFuture, Calls, Exit, ExitCause, ExtismOutput, HostCalls, HostRequest, Instance,
    KillReason, OutputStream, RightsChange, Runtime, SandboxError, WayOut,
};
use palisade_wasm::walled::{EngineProgram, NAME, WalledBackend};
use support::{Bench, GUEST, bench, code, component, guest, initialize, quick, tool};

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
    let args = r#"{"text":"h\u00e9 \"x\" é","n":12345678901234567890}"#;
    assert_eq!(tool(&instance, "echo", args, TIME).await.unwrap(), args);
    let large = format!("{{\"x\":\"{}\"}}", "a".repeat(1 << 20));
    assert_eq!(tool(&instance, "echo", &large, TIME).await.unwrap(), large);
    assert_eq!(quick(&instance, "count").await.unwrap(), "1");
    assert_eq!(quick(&instance, "count").await.unwrap(), "2");
    // What it asks goes to the host, with the answer and the refusal.
    let found = r#"{"found":true,"value":{"a":1},"version":3}"#.to_owned();
    *walled.bench.host.answer.lock().unwrap() = Some(Ok(found));
    assert_eq!(quick(&instance, "key").await.unwrap(), "0");
    *walled.bench.host.answer.lock().unwrap() = Some(Err(Failure::new(C::Denied, "no")));
    assert_eq!(quick(&instance, "key").await.unwrap(), "1");
    assert_eq!(walled.bench.host.requests.lock().unwrap().len(), 2);
    // Its own errors keep their code; it cannot claim another.
    let failure = quick(&instance, "failure").await.unwrap_err();
    assert_eq!((failure.code, failure.message.as_str()), (C::Conflict, "not today"));
    assert_eq!(code(quick(&instance, "json").await), C::PluginError);
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
    let cases = [
        ("trap", C::Crashed, "unreachable"),
        ("memory", C::LimitExceeded, "out of memory"),
        ("deep", C::LimitExceeded, "stack overflow"),
        ("giant", C::Crashed, "failed"),
    ];
    for (name, code, says) in cases {
        assert_eq!(quick(&instance, "count").await.unwrap(), "1", "before {name}");
        let failure = quick(&instance, name).await.unwrap_err();
        assert_eq!(failure.code, code, "{name}: {failure}");
        assert!(failure.message.contains(says), "{name}: {failure}");
        assert!(instance.recovers());
    }
    for name in ["spin", "long"] {
        let begun = Instant::now();
        let short = Duration::from_millis(150);
        let failure = tool(&instance, name, "{}", short).await.unwrap_err();
        assert_eq!(failure.code, C::Deadline, "{name}: {failure}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{name}: {:?}", begun.elapsed());
        assert_eq!(tool(&instance, "count", "{}", TIME).await.unwrap(), "1", "after {name}");
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
    assert_eq!(refused.code(), C::Denied, "{refused}");
    let words = refused.to_string();
    assert!(words.contains("palisade:plugin/storage@0.1.0"), "{words}");
    assert!(words.contains("storage.kv"), "{words}");
    let hint = Failure::from(refused).hint.unwrap();
    assert!(hint.contains("--grant 'storage.kv:"), "{hint}");
    assert!(walled.is_gone().await);
    // What walls or engine cannot make true is refused before anything is launched.
    for right in ["exec:/usr/bin/git", "fs.read:/proc/**", "net.tcp:example.org:22"] {
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
async fn compiled_code_stays_behind_the_walls_and_is_made_anew_where_it_was_touched() {
    let walled = walled(&guest(), Calls::Stateful);
    walled.started().await;
    let [kept] = walled.kept().try_into().unwrap();
    let before = fs::read(&kept).unwrap();
    // Nothing of it lies where the engine of the host would find it.
    assert!(!walled.bench.dir.path().join("wasm").exists());
    // Another host on the same folder takes it.
    let again = backend();
    again.keep_in(&walled.bench.dir.path().canonicalize().unwrap());
    let second = Walled { backend: again, bench: walled.bench };
    let made = fs::metadata(&kept).unwrap().ino();
    second.started().await;
    assert_eq!(fs::metadata(&kept).unwrap().ino(), made);
    // What was changed does not count: it is compiled anew.
    let mut forged = before.clone();
    let middle = forged.len() / 2;
    forged[middle] ^= 1;
    fs::write(&kept, &forged).unwrap();
    let third = Walled { backend: backend(), bench: second.bench };
    third.backend.keep_in(&third.bench.dir.path().canonicalize().unwrap());
    third.started().await;
    let [kept] = third.kept().try_into().unwrap();
    assert_eq!(fs::read(&kept).unwrap(), before);
    // Code that is gone when an instance is launched is made again.
    let prepared = third.backend.prepare(&third.bench.artifact).await.unwrap();
    fs::remove_file(&kept).unwrap();
    let host: Arc<dyn HostCalls> = Arc::clone(&third.bench.host) as _;
    let instance = prepared.launch(third.bench.spec.clone(), host).await.unwrap();
    initialize(&instance, "{}").await.unwrap();
    // Another file under the same name is not what was compiled.
    let other =
        component(&GUEST.replace("not today", "not later"), &["clock", "storage", "random"]);
    fs::write(third.bench.artifact.content.root.join("plugin.wasm"), other).unwrap();
    let host: Arc<dyn HostCalls> = Arc::clone(&third.bench.host) as _;
    let refused = prepared.launch(third.bench.spec.clone(), host).await.err().unwrap();
    assert!(refused.to_string().contains("not the one"), "{refused}");
}

#[tokio::test]
async fn what_cannot_be_compiled_or_run_is_refused_with_words() {
    for (wasm, word) in [
        (&b"no wasm at all"[..], "WebAssembly"),
        (b"\0asm\x01\0\0\0", "component"),
        (b"", "WebAssembly"),
    ] {
        let walled = walled(wasm, Calls::Stateful);
        let refused = walled.launch().await.err().unwrap();
        assert!(matches!(refused, SandboxError::Artifact { .. }), "{refused}");
        assert!(refused.to_string().contains(word), "{refused}");
    }
    // A program that is no engine says nothing that an engine says.
    let walled = walled(&guest(), Calls::Stateful);
    let wall = Arc::new(ProcessBackend::new(Options::default()));
    for program in ["/bin/true", "/bin/cat"] {
        let backend = WalledBackend::new(wall.clone(), EngineProgram::at(program));
        let refused = backend.prepare(&walled.bench.artifact).await.err().unwrap();
        assert!(refused.to_string().contains("compiling"), "{program}: {refused}");
    }
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

/// A host whose way out is served by a guard.
struct Net {
    lines: Mutex<Vec<String>>,
    guard: Guard,
    rights: Arc<Rights>,
}

impl HostCalls for Net {
    fn request(&self, _request: HostRequest) -> BoxFuture<'static, Result<Payload, Failure>> {
        Box::pin(std::future::ready(Err(Failure::new(C::Denied, "no"))))
    }

    fn output(&self, _stream: OutputStream, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }

    fn output_dropped(&self, _bytes: u64) {}

    fn egress(&self, way: WayOut) -> BoxFuture<'static, ()> {
        let sockets = Sockets { proxy: way.proxy, names: way.names, direct: way.direct };
        let rights = Arc::clone(&self.rights) as _;
        Box::pin(serve_way_out(self.guard.clone(), ProxyLimits::default(), sockets, rights))
    }
}

/// The WASI program of the tests, as `src/testing.rs` builds it.
fn wasi_guest() -> Vec<u8> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = here.join("../../target/guests");
    let added = Command::new("rustup").args(["target", "add", "wasm32-wasip2"]).output().unwrap();
    assert!(added.status.success(), "{added:?}");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--target", "wasm32-wasip2", "--target-dir"])
        .arg(&target)
        .current_dir(here.join("tests/guests/wasi"))
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    fs::read(target.join("wasm32-wasip2/release/wasi-guest.wasm")).unwrap()
}

/// What the WASI program writes when it does one thing.
async fn does(walled: &mut Walled, net: &Arc<Net>, task: &str, what: &str) -> Vec<String> {
    walled.bench.spec.env =
        BTreeMap::from([("TASK", task), ("WHAT", what), ("LD_PRELOAD", "/none.so")])
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
    let instance = walled.launch_for(Arc::clone(net) as _).await.unwrap_or_else(|e| panic!("{e}"));
    initialize(&instance, "{}").await.unwrap();
    let answer = tool(&instance, "run", "{}", TIME).await;
    assert_eq!(answer.as_deref(), Ok("null"), "{:?}", net.lines.lock().unwrap());
    // Lines come by a pipe of their own.
    instance.stop(Duration::from_secs(5)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    std::mem::take(&mut *net.lines.lock().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_variables_streams_and_requests_work_through_the_walls() {
    let (port, heads) = web_server(|_| ok("hello")).await;
    let granted = format!("net.http:shop.example:{port}");
    let mut walled = walled(&wasi_guest(), Calls::Stateful);
    walled.bench.spec.limits.memory = 64 << 20;
    let root = walled.bench.dir.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("texts/inner")).unwrap();
    fs::create_dir(root.join("out")).unwrap();
    fs::write(root.join("texts/one"), "first").unwrap();
    fs::write(root.join("private"), "secret").unwrap();
    std::os::unix::fs::symlink("../private", root.join("texts/link")).unwrap();
    std::os::unix::fs::symlink("one", root.join("texts/within")).unwrap();
    let at = |name: &str| root.join(name).display().to_string();
    let (reads, writes) =
        (format!("fs.read:{}/**", at("texts")), format!("fs.write:{}/**", at("out")));
    walled.bench.rights(&[&granted, &reads, &writes]);
    let net = Arc::new(Net {
        lines: Mutex::default(),
        guard: guard_for(&["shop.example", "other.example"]),
        rights: rights(&[&granted]),
    });

    let net = &net;
    let mut walled = walled;
    let mut does = async |task: &str, what: &str| does(&mut walled, net, task, what).await;
    let seen = does("environment", "").await;
    assert!(seen[0].contains("(\"TASK\", \"environment\")"), "{seen:?}");
    assert!(seen[0].contains("LD_PRELOAD") && !seen[0].contains("PALISADE"), "{seen:?}");
    assert_eq!(seen[2], "stdin Ok(0)");
    assert_eq!(does("read", &at("texts/one")).await, ["Ok(\"first\")"]);
    assert_eq!(does("read", &at("texts/within")).await, ["Ok(\"first\")"]);
    for path in
        [at("texts/link"), at("private"), "/etc/passwd".into(), "/plugin/plugin.wasm".into()]
    {
        let seen = does("read", &path).await;
        assert!(seen[0].starts_with("Err("), "{path}: {seen:?}");
    }
    assert_eq!(does("write", &at("out/new")).await, ["Ok(())"]);
    assert_eq!(fs::read_to_string(root.join("out/new")).unwrap(), "written");
    let seen = does("write", &at("texts/new")).await;
    assert!(seen[0].starts_with("Err("), "{seen:?}");

    let url = format!("http://shop.example:{port}/a?b=c");
    assert_eq!(does("get", &url).await, ["status 200 body 5 \"hello\" whole true"]);
    assert_eq!(net.rights.recorded("allow net.http:shop.example"), 1);
    let head = heads.lock().unwrap().pop().unwrap().to_lowercase();
    assert!(head.starts_with("get /a?b=c http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: shop.example:{port}\r\n")), "{head}");
    let seen = does("get", &format!("http://other.example:{port}/")).await;
    assert!(seen[0].contains("HttpRequestDenied"), "{seen:?}");
    assert_eq!(net.rights.recorded("deny net.http:other.example"), 1);
    // An address of the machine itself, past the guard: there is no network to reach it by.
    let seen = does("get", &format!("http://127.0.0.1:{port}/")).await;
    assert!(!seen[0].starts_with("status"), "{seen:?}");
    assert!(heads.lock().unwrap().is_empty());
}

mod by_policy {
    use palisade_host::Host;
    use palisade_policy::OperatorPolicy;
    use palisade_wasm::WasmBackend;

    use super::*;

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
        assert_eq!(
            plugin.achieved().unwrap().guarantees.level(Guarantee::EngineWalled),
            Level::Kernel
        );
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
        let host =
            host(&tmp.path().join("there"), OperatorPolicy::default(), Some(program())).await;
        let plugin = host.load(&dir).await.unwrap();
        plugin.grant_requested().await.unwrap();
        plugin.start().await.unwrap();
        assert_eq!(plugin.call("echo", &()).await.unwrap().bytes(), "{}");
        host.shutdown().await.unwrap();
    }
}
