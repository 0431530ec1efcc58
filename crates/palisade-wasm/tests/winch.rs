//! First starts with code of Winch: what it can do, what ends it, and what comes after it. Everything that holds for
//! code of Cranelift (`limits.rs`) is asked of it again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_model::ErrorCode as C;
use palisade_sandbox::{
    Backend as _, Calls, ExtismOutput, HostCalls, Instance, KillReason, Prepared as _, Runtime,
};
use palisade_wasm::{CompiledBy, Options, PreparedCode, WasmBackend};
use support::{
    ALL_RIGHTS, Bench, FILES, GUEST, TOO_FAR, answers, asks_its_host, bench_with, code, component,
    fails_in_words, goes_too_far, guest, initialize, quick, rust_guest, tool,
};

const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_secs(20);

fn options() -> Options {
    Options::default().instances(64).winch_from(0)
}

/// A plugin that is small, and started with Winch all the same.
fn bench(wasm: &[u8], calls: Calls) -> Bench {
    bench_with(options(), wasm, calls)
}

impl Bench {
    async fn code(&self) -> PreparedCode {
        self.backend.prepare_code(&self.artifact).await.unwrap_or_else(|e| panic!("{e}"))
    }

    async fn unspoken(&self, code: &PreparedCode) -> Arc<dyn Instance> {
        let host: Arc<dyn HostCalls> = Arc::clone(&self.host) as _;
        code.launch(self.spec.clone(), host).await.unwrap_or_else(|e| panic!("{e}"))
    }

    async fn launched(&self, code: &PreparedCode) -> Arc<dyn Instance> {
        let instance = self.unspoken(code).await;
        initialize(&instance, "{}").await.unwrap();
        instance
    }

    /// An instance of Winch's code.
    async fn by_winch(&self) -> Arc<dyn Instance> {
        let code = self.code().await;
        assert_eq!(code.compiled_by(), CompiledBy::Winch);
        self.launched(&code).await
    }

    /// The files of compiled code.
    fn kept(&self) -> Vec<PathBuf> {
        let folder = self.dir.path().join("wasm");
        let files = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
        files.filter(|path| path.extension().is_some_and(|e| e == "cwasm")).collect()
    }

    /// Another host on the same folder.
    fn another(&self) -> WasmBackend {
        let backend = WasmBackend::new(options());
        backend.keep_in(&self.dir.path().canonicalize().unwrap());
        backend
    }
}

/// Waits until Cranelift is done.
async fn replaced(code: &PreparedCode) {
    let begun = Instant::now();
    while code.compiled_by() == CompiledBy::Winch {
        assert!(begun.elapsed() < Duration::from_secs(60), "Cranelift does not come to an end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_first_start_takes_code_of_winch_and_the_next_one_cranelifts() {
    let bench = bench(&guest(), Calls::Stateful);
    let code = bench.code().await;
    assert_eq!(code.compiled_by(), CompiledBy::Winch);
    let [winchs] = bench.kept().try_into().unwrap();
    let first = bench.unspoken(&code).await;
    // A host that comes meanwhile takes what is there, and makes nothing anew.
    let made = fs::metadata(&winchs).unwrap().ino();
    let meanwhile = bench.another().prepare_code(&bench.artifact).await.unwrap();
    assert_eq!(meanwhile.compiled_by(), CompiledBy::Winch);
    assert_eq!(fs::metadata(&winchs).unwrap().ino(), made);

    initialize(&first, "{}").await.unwrap();
    answers(&first).await;
    asks_its_host(&first, &bench.host).await;
    fails_in_words(&first).await;
    replaced(&code).await;
    let [cranelifts] = bench.kept().try_into().unwrap();
    assert_ne!(cranelifts, winchs, "Winch's is not kept any longer");
    // The same plugin's next start, while the first instance goes on with what it has.
    let second = bench.launched(&code).await;
    assert_eq!(quick(&second, "count").await.unwrap(), "1");
    answers(&second).await;
    assert_eq!(quick(&first, "count").await.unwrap(), "3");
    assert_eq!(quick(&first, "trap").await.unwrap_err().code, C::Crashed);
    assert_eq!(quick(&first, "count").await.unwrap(), "1", "and a fresh one of it");

    // Another host finds it, and the one that came in between has it too.
    let made = fs::metadata(&cranelifts).unwrap().ino();
    let next = bench.another().prepare_code(&bench.artifact).await.unwrap();
    assert_eq!(next.compiled_by(), CompiledBy::Cranelift);
    replaced(&meanwhile).await;
    let [kept] = bench.kept().try_into().unwrap();
    assert_eq!((&kept, fs::metadata(&kept).unwrap().ino()), (&cranelifts, made), "made once");
}

#[tokio::test]
async fn only_large_code_that_is_kept_is_worth_it() {
    let wasm = guest();
    let default = bench_with(Options::default(), &wasm, Calls::Stateful);
    assert_eq!(default.code().await.compiled_by(), CompiledBy::Cranelift, "it is small");
    let exact = options().winch_from(wasm.len() as u64);
    let exact = bench_with(exact, &wasm, Calls::Stateful);
    assert_eq!(exact.code().await.compiled_by(), CompiledBy::Winch);
    let larger = options().winch_from(wasm.len() as u64 + 1);
    let larger = bench_with(larger, &wasm, Calls::Stateful);
    assert_eq!(larger.code().await.compiled_by(), CompiledBy::Cranelift);
    // Where nothing is kept, there is no next start for which Cranelift would work.
    let nowhere = WasmBackend::new(options()).prepare_code(&exact.artifact).await.unwrap();
    assert_eq!(nowhere.compiled_by(), CompiledBy::Cranelift);
}

#[tokio::test]
async fn what_winch_does_not_know_is_compiled_by_cranelift_at_once() {
    for (what, more) in [
        ("tail calls", "(func $tail (return_call $tail))"),
        ("vectors", "(func (drop (v128.const i64x2 0 0)))"),
        ("memories of 64 bits", "(memory $large i64 1)"),
    ] {
        let text = GUEST.trim_end();
        let text = format!("{}\n{more})", text.strip_suffix(')').unwrap());
        let bench = bench(&component(&text, &["clock", "storage", "random"]), Calls::Stateful);
        let code = bench.code().await;
        assert_eq!(code.compiled_by(), CompiledBy::Cranelift, "{what}");
        answers(&bench.launched(&code).await).await;
        assert_eq!(bench.kept().len(), 1, "{what}");
    }
    // What no compiler takes is refused as ever.
    let broken = bench(b"\0asm\x0d\0\x01\0nonsense", Calls::Stateful);
    assert!(broken.backend.prepare_code(&broken.artifact).await.is_err());
}

#[tokio::test]
async fn what_goes_too_far_is_told_apart_and_the_next_call_finds_a_fresh_instance() {
    let bench = bench(&guest(), Calls::Stateful);
    let instance = bench.by_winch().await;
    // Where there is no pool, nothing else bounds a table.
    let table = ("big-table", C::LimitExceeded, Some("memory"), "largest size");
    goes_too_far(&instance, TOO_FAR.into_iter().chain([table])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_a_loop_and_a_wait_and_no_sibling() {
    let bench = bench(&guest(), Calls::Stateful);
    let (first, second) = (bench.by_winch().await, bench.by_winch().await);
    for name in ["spin", "long"] {
        let other = {
            let second = second.clone();
            tokio::spawn(async move {
                let begun = Instant::now();
                let mut calls = 0;
                while begun.elapsed() < 3 * SHORT {
                    quick(&second, "echo").await.unwrap();
                    calls += 1;
                    tokio::task::yield_now().await;
                }
                calls
            })
        };
        let begun = Instant::now();
        let failure = tool(&first, name, "{}", SHORT).await.unwrap_err();
        let took = begun.elapsed();
        assert_eq!(failure.code, C::Deadline, "{name}: {failure}");
        assert!(took >= SHORT && took < SHORT + Duration::from_millis(500), "{name}: {took:?}");
        assert!(other.await.unwrap() > 50, "{name}");
        assert_eq!(quick(&first, "echo").await.unwrap(), "{}");
    }
    // A call that computes for longer than others may is not touched by their deadlines.
    let long = {
        let second = second.clone();
        tokio::spawn(async move { tool(&second, "work", "{}", LONG).await })
    };
    assert_eq!(code(tool(&first, "spin", "{}", Duration::from_millis(20)).await), C::Deadline);
    assert_eq!(long.await.unwrap().unwrap(), "{}");
}

/// The clock of Winch's engine sleeps with the others, and wakes for a call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_is_ended_after_the_clock_has_slept_and_by_a_kill() {
    let bench = bench(&guest(), Calls::Stateful);
    let instance = bench.by_winch().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(code(tool(&instance, "spin", "{}", SHORT).await), C::Deadline);
    let spinning = {
        let instance = instance.clone();
        tokio::spawn(async move { tool(&instance, "spin", "{}", LONG).await })
    };
    tokio::time::sleep(SHORT).await;
    let begun = Instant::now();
    instance.kill(KillReason::Asked).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(spinning.await.unwrap().unwrap_err().code, C::Unavailable);
}

#[tokio::test]
async fn memory_is_counted_over_all_instances_of_a_launch() {
    let mut bench = bench(&guest(), Calls::Stateless { instances: 3 });
    // Three pages: two that it begins with, and one more.
    bench.spec.limits.memory = 3 * 65536 + 4096;
    let instance = bench.by_winch().await;
    // The number of pages before, and one: 0 is a refusal.
    assert_eq!(quick(&instance, "hold").await.unwrap(), "3");
    assert_eq!(quick(&instance, "hold").await.unwrap(), "0");
    let mut limits = bench.spec.limits.clone();
    limits.memory = 16 << 20;
    instance.set_limits(&limits).await.unwrap();
    assert_eq!(quick(&instance, "hold").await.unwrap(), "4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_holds_its_instances_and_shares_their_time() {
    let mut bench = bench(&guest(), Calls::Stateless { instances: 2 });
    bench.spec.limits.cpu = 2.0;
    let pool = bench.by_winch().await;
    let work = {
        let pool = pool.clone();
        tokio::spawn(async move { tool(&pool, "work", r#"{"n":7}"#, LONG).await })
    };
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(code(tool(&pool, "spin", "{}", Duration::from_millis(20)).await), C::Deadline);
    assert_eq!(work.await.unwrap().unwrap(), r#"{"n":7}"#);
}

/// Instances of both compilers have their places in one count.
#[tokio::test]
async fn a_host_has_no_more_instances_with_winch_than_without() {
    // No other test has this number.
    let options = Options::default().instances(3).winch_from(0);
    let bench = bench_with(options, &guest(), Calls::Stateful);
    let code = bench.code().await;
    assert_eq!(code.compiled_by(), CompiledBy::Winch);
    let mut there = vec![bench.unspoken(&code).await, bench.unspoken(&code).await];
    replaced(&code).await;
    there.push(bench.launched(&code).await);
    let host: Arc<dyn HostCalls> = Arc::clone(&bench.host) as _;
    let refused = code.launch(bench.spec.clone(), host).await.err().unwrap();
    assert_eq!(refused.code(), C::LimitExceeded, "{refused}");
    there.swap_remove(0).kill(KillReason::Asked).await;
    bench.launched(&code).await;
}

/// What the count of mappings takes for granted (`engine.rs`): an idle instance with one memory has six at most.
#[tokio::test]
async fn an_instance_outside_of_the_pool_takes_no_more_mappings_than_one_inside() {
    let bench = bench(&guest(), Calls::Stateful);
    let code = bench.code().await;
    assert_eq!(code.compiled_by(), CompiledBy::Winch);
    let mappings = || fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    let mut there = vec![bench.launched(&code).await];
    let before = mappings();
    while there.len() <= 40 {
        there.push(bench.launched(&code).await);
    }
    let more = mappings().saturating_sub(before);
    assert!(more <= 6 * 40, "{more} for 40");
    assert_eq!(code.compiled_by(), CompiledBy::Winch, "until the last");
}

#[tokio::test]
async fn a_plugin_in_rust_does_with_it_what_it_does_without() {
    let mut rust = bench(&rust_guest(), Calls::Stateful);
    rust.rights(&ALL_RIGHTS);
    let code = rust.code().await;
    assert_eq!(code.compiled_by(), CompiledBy::Winch);
    let by_winch = rust.launched(&code).await;
    replaced(&code).await;
    let by_cranelift = rust.launched(&code).await;
    let args = r#"{"text":"one two two"}"#;
    let asked = [("echo", args), ("trap", "{}"), ("deep", r#"{"depth":9}"#), ("answer-deep", "{}")];
    for (name, args) in asked {
        let answer = tool(&by_winch, name, args, LONG).await;
        assert_eq!(answer, tool(&by_cranelift, name, args, LONG).await, "{name}");
        assert!(name != "echo" || answer.as_deref() == Ok(args), "{answer:?}");
    }
}

/// They are linked with memories of 64 bits, for which Winch is not used.
#[tokio::test]
async fn modules_for_extism_are_compiled_by_cranelift() {
    let mut files = bench(&wat::parse_str(FILES).unwrap(), Calls::Stateful);
    files.artifact.program.runtime =
        Runtime::Extism { calls: Calls::Stateful, output: ExtismOutput::Json };
    files.rights(&[]);
    let code = files.code().await;
    assert_eq!(code.compiled_by(), CompiledBy::Cranelift);
    let instance = files.unspoken(&code).await;
    assert_eq!(quick(&instance, "nothing").await.unwrap_err().code, C::NotFound);
}
