//! How an instance ended: each cause produced by a real plugin, by root and by an ordinary user, with and
//! without namespaces.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_model::{Guarantee, GuaranteeSet, Level};
use palisade_process::{LandlockBackend, Options, ProcessBackend};
use palisade_sandbox::{Backend, Deadline, Exit, ExitCause, Instance, KillReason, Runtime};
use support::{Bench, EVAL, bench as bench_of, children, eval};

/// Number of bpf(2), which no profile lets anybody call.
#[cfg(target_arch = "x86_64")]
const BPF: u32 = 321;
#[cfg(target_arch = "aarch64")]
const BPF: u32 = 280;

fn python() -> Bench {
    bench_of(Runtime::Python { interpreter: None, version: None }, "main.py", EVAL.as_bytes())
}

fn process() -> ProcessBackend {
    ProcessBackend::new(Options::default())
}

fn policy_kill(call: &str) -> ExitCause {
    ExitCause::PolicyKill { syscall: Some(call.to_owned()) }
}

async fn end_of(bench: &Bench, backend: &dyn Backend, code: &str) -> Exit {
    let instance = bench.launch(backend).await.unwrap();
    ending(&instance, code).await
}

async fn ending(instance: &Arc<dyn Instance>, code: &str) -> Exit {
    let pending = eval(instance, code);
    tokio::time::timeout(Duration::from_secs(30), async {
        let _ = pending.await;
        instance.wait().await
    })
    .await
    .expect("it should have ended")
}

/// Python that makes a call by number.
fn call(number: u32) -> String {
    format!("__import__('ctypes').CDLL(None).syscall({number}, 0, 0, 0, 0)")
}

async fn causes_by_the_program(bench: &Bench, backend: &dyn Backend) {
    let cause = async |code: &str| end_of(bench, backend, code).await.cause;
    assert_eq!(cause("os._exit(0)").await, ExitCause::Exited(0));
    assert_eq!(cause("os._exit(3)").await, ExitCause::Exited(3));
    assert_eq!(cause("os.kill(os.getpid(), 11)").await, ExitCause::Signalled(11), "a crash");
    assert_eq!(cause("os.kill(os.getpid(), 9)").await, ExitCause::Signalled(9));
    // What looks like the filter's signal is the program's own.
    assert_eq!(cause("os.kill(os.getpid(), 31)").await, ExitCause::Signalled(31));
    assert_eq!(cause(&call(BPF)).await, policy_kill("bpf"));
    // From another thread than the first.
    let thread = format!(
        "t = __import__('threading').Thread(target=lambda: {}); t.start(); t.join()",
        call(BPF)
    );
    assert_eq!(cause(&thread).await, policy_kill("bpf"));
    #[cfg(target_arch = "x86_64")]
    {
        assert_eq!(cause(&call(0x4000_0000 | 169)).await, policy_kill("x32:reboot"));
        // mov eax, 88 (reboot); int 0x80
        let int80 = r"
import ctypes, mmap
m = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
m.write(b'\xb8\x58\x00\x00\x00\xcd\x80\xc3')
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()";
        assert_eq!(cause(int80).await, policy_kill("i386:#88"));
    }
    let garbage = cause("os.write(3, b'garbage\\n') and __import__('time').sleep(20)").await;
    assert!(matches!(garbage, ExitCause::Killed(KillReason::Breach(_))), "{garbage:?}");
}

/// A process that the program started is ended alone, and told of.
async fn causes_by_a_child(bench: &Bench, backend: &dyn Backend) {
    let instance = bench.launch(backend).await.unwrap();
    let child = format!(
        "pid = os.fork()\nif pid == 0:\n    {}\n    os._exit(7)\nresult = os.waitpid(pid, 0)[1]",
        call(BPF)
    );
    let started = Instant::now();
    assert_eq!(eval(&instance, &child).await.unwrap(), 9, "it dies of SIGKILL");
    assert!(started.elapsed() < Duration::from_secs(5), "at once: {:?}", started.elapsed());
    // Its parent lives on, and its own end has its own name.
    assert_eq!(ending(&instance, "os._exit(4)").await.cause, ExitCause::Exited(4));
    let told = bench.host.violations.lock().unwrap().clone();
    assert_eq!(told.last(), Some(&("bpf".to_owned(), false)), "{told:?}");
}

async fn causes_by_the_host(bench: &Bench, backend: &dyn Backend) {
    let instance = bench.launch(backend).await.unwrap();
    assert_eq!(instance.kill(KillReason::Asked).await.cause, ExitCause::Killed(KillReason::Asked));
    let instance = bench.launch(backend).await.unwrap();
    let deadline = KillReason::Deadline(Deadline::Watchdog);
    let exit = instance.kill(deadline.clone()).await;
    assert_eq!(exit.cause, ExitCause::Killed(deadline));
    let instance = bench.launch(backend).await.unwrap();
    let deaf = "__import__('signal').signal(15, 1) and None";
    eval(&instance, deaf).await.unwrap();
    let stuck = eval(&instance, "__import__('time').sleep(60)");
    let _ = tokio::time::timeout(Duration::from_millis(100), stuck).await;
    let exit = instance.stop(Duration::from_millis(300)).await;
    assert_eq!(exit.cause, ExitCause::Killed(KillReason::Deadline(Deadline::Stop)));
}

async fn out_of_memory(cgroups: bool) {
    let mut bench = python();
    bench.spec.limits.memory = 64 << 20;
    let backend = ProcessBackend::new(Options { cgroups, ..Options::default() });
    let kernel = backend.probe().await.guarantees.level(Guarantee::MemoryCapped) == Level::Kernel;
    let bomb = "kept = []\nwhile True: kept.append(bytearray(1 << 20))";
    let cause = end_of(&bench, &backend, bomb).await.cause;
    if kernel {
        assert_eq!(cause, ExitCause::OutOfMemory);
    } else {
        let limit = matches!(&cause, ExitCause::Killed(KillReason::Limit(what)) if what.starts_with("memory"));
        assert!(limit, "{cause:?}");
    }
}

/// Where pid 1 itself is killed by somebody else, nobody saw how the program ended.
async fn nobody_saw_it(bench: &Bench, backend: &dyn Backend) {
    let instance = bench.launch(backend).await.unwrap();
    eval(&instance, "1").await.unwrap();
    let own = std::process::id();
    // The spawner is our child, pid 1 of the plugin is the spawner's.
    let pid_1 = children(own).into_iter().flat_map(children).max().expect("pid 1");
    assert!(Command::new("kill").args(["-9", &pid_1.to_string()]).status().unwrap().success());
    assert_eq!(instance.wait().await.cause, ExitCause::Unknown);
}

async fn all() {
    let bench = python();
    let backend = process();
    causes_by_the_program(&bench, &backend).await;
    causes_by_a_child(&bench, &backend).await;
    causes_by_the_host(&bench, &backend).await;
    nobody_saw_it(&bench, &backend).await;
    out_of_memory(true).await;
    out_of_memory(false).await;
    // Without namespaces a user of its own cannot walk to an interpreter in somebody's home.
    let interpreter = Some("/usr/bin/python3".to_owned());
    let runtime = Runtime::Python { interpreter, version: None };
    let mut bench = bench_of(runtime, "main.py", EVAL.as_bytes());
    bench.spec.demand = GuaranteeSet::new();
    let backend = LandlockBackend::new(Options::default());
    if backend.probe().await.unavailable.is_none() {
        causes_by_the_program(&bench, &backend).await;
        causes_by_a_child(&bench, &backend).await;
        causes_by_the_host(&bench, &backend).await;
    }
}

#[tokio::test]
async fn ends_have_their_cause() {
    all().await;
}

/// Root runs this test program again as user 1000; anybody else has made the same test above.
#[tokio::test]
async fn ends_have_their_cause_for_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(place.path(), Some(1000), Some(1000)).unwrap();
    // The target folder may be closed to others.
    let program = place.path().join("ends");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let status = Command::new("setpriv")
        .args(["--reuid=1000", "--regid=1000", "--clear-groups", "--inh-caps=-all"])
        .arg(&program)
        .args(["--exact", "ends_have_their_cause", "--nocapture"])
        .env("TMPDIR", place.path())
        .env("HOME", place.path())
        .current_dir(place.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(
        status.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&status.stderr)
    );
}

/// Set where this program runs below a filter with a listener.
const LISTENED: &str = "PALISADE_TEST_LISTENED";

/// One process can have one listener. Where another one has it already, as in some containers, the kernel
/// kills, and the exit says that it does not tell for what.
#[tokio::test]
async fn below_somebody_elses_listener_the_kernel_itself_kills() {
    if std::env::var_os(LISTENED).is_some() {
        let bench = python();
        let cause = end_of(&bench, &process(), &call(BPF)).await.cause;
        assert_eq!(cause, ExitCause::PolicyKill { syscall: None });
        assert_eq!(end_of(&bench, &process(), "os._exit(3)").await.cause, ExitCause::Exited(3));
        return;
    }
    // A filter that allows everything, loaded with a listener that stays open.
    let script = r"
import ctypes, fcntl, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
code = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000), 8)
program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', 1, ctypes.addressof(code)), 16)
number = {'x86_64': 317, 'aarch64': 277}[os.uname().machine]
listener = libc.syscall(number, 1, 8, program)
assert listener >= 0, ctypes.get_errno()
fcntl.fcntl(listener, fcntl.F_SETFD, 0)
os.execv(sys.argv[1], sys.argv[1:])";
    let output = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "below_somebody_elses_listener_the_kernel_itself_kills", "--nocapture"])
        .env(LISTENED, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
