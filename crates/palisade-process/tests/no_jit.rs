//! The guarantee `no-jit`: what was written never becomes code.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod support;

use palisade_model::{Guarantee, Level};
use palisade_process::{LandlockBackend, Options, ProcessBackend};
use palisade_sandbox::{Backend, Runtime, SandboxError};
use serde_json::{Value, json};
use support::{Bench, EVAL, bench, eval};

fn python() -> Bench {
    bench(Runtime::Python { interpreter: None, version: None }, "main.py", EVAL.as_bytes())
}

fn demanding(mut bench: Bench) -> Bench {
    bench.spec.demand = bench.spec.demand.clone().with(Guarantee::NoJit, Level::Kernel);
    bench
}

/// Whether this kernel has it; CI's has.
async fn is_here(backend: &dyn Backend) -> bool {
    let here = backend.probe().await.guarantees.level(Guarantee::NoJit) == Level::Kernel;
    if !here {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing may be skipped");
        println!("SKIPPED: this kernel has no PR_SET_MDWE");
    }
    here
}

/// Every way from written bytes to code that we know; the errno of each, 0 where it worked.
const WAYS: &str = r"
import ctypes, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.shmat.restype = ctypes.c_void_p
R, W, X = 1, 2, 4
FAILED = ctypes.c_void_p(-1).value
def done(result, failed=-1):
    return ctypes.get_errno() if result == failed else 0
def anonymous(prot):
    return libc.mmap(None, 4096, prot, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
def later(prot):
    return done(libc.mprotect(anonymous(R | W), 4096, prot))
def of_file(path):
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o755)
    os.write(fd, b'\xc3' * 4096)
    return done(libc.mmap(None, 4096, R | X, mmap.MAP_PRIVATE, fd, 0), FAILED)
def of_memfd():
    fd = libc.memfd_create(b'm', 8)
    if fd < 0:
        return ctypes.get_errno()
    os.write(fd, b'\xc3' * 4096)
    return done(libc.mmap(None, 4096, R | X, mmap.MAP_SHARED, fd, 0), FAILED)
def of_segment():
    key = libc.shmget(0, 4096, 0o1700)
    if key < 0:
        return ctypes.get_errno()
    return done(libc.shmat(key, None, 0o110000), FAILED)
def of_itself():
    try:
        with open('/proc/self/mem', 'r+b'):
            return 0
    except OSError as e:
        return e.errno
result = {
    'written, then code': later(R | X),
    'code and written at once': done(anonymous(R | W | X), FAILED),
    'changed to both': later(R | W | X),
    'a file of the data folder': of_file('/data/code'),
    'a file of /tmp': of_file('/tmp/code'),
    'a file of /dev/shm': of_file('/dev/shm/code'),
    'a memory file': of_memfd(),
    'a System V segment': of_segment(),
    '/proc/self/mem': of_itself(),
}";

#[tokio::test]
async fn nothing_that_was_written_becomes_code() {
    let backend = ProcessBackend::new(Options::default());
    if !is_here(&backend).await {
        return;
    }
    let bench = demanding(python());
    let instance = bench.launch(&backend).await.unwrap();
    assert_eq!(instance.achieved().guarantees.level(Guarantee::NoJit), Level::Kernel);
    let ways = eval(&instance, WAYS).await.unwrap();
    for (way, errno) in ways.as_object().unwrap() {
        assert_ne!(errno, &json!(0), "{way} worked");
    }
    assert_eq!(ways["written, then code"], json!(13), "EACCES, by the kernel");
    // What it starts is held to the same, and it cannot be undone.
    let child = format!(
        "import subprocess, sys\nresult = subprocess.run([sys.executable, '-c', {code:?} + '; print(json.dumps(result))'], capture_output=True, text=True).stdout",
        code = format!("import json\n{WAYS}")
    );
    let said = eval(&instance, &child).await.unwrap();
    let of_child: Value = said.as_str().unwrap().parse().unwrap_or_else(|_| panic!("{said}"));
    assert_eq!(of_child, ways);
    let undo = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); result = [libc.prctl(65, 0, 0, 0, 0), ctypes.get_errno()]";
    assert_eq!(eval(&instance, undo).await.unwrap(), json!([-1, 1]));
}

/// Without the demand the same ways lead somewhere: what the test above sees is not the machine's doing.
#[tokio::test]
async fn without_the_demand_programs_may_compile_as_they_run() {
    let backend = ProcessBackend::new(Options::default());
    let bench = python();
    let instance = bench.launch(&backend).await.unwrap();
    assert_eq!(instance.achieved().guarantees.level(Guarantee::NoJit), Level::None);
    let ways = eval(&instance, WAYS).await.unwrap();
    for way in ["written, then code", "code and written at once", "changed to both"] {
        assert_eq!(ways[way], json!(0), "{way}");
    }
    assert_eq!(ways["a file of the data folder"], json!(1), "{ways}");
}

#[tokio::test]
async fn runtimes_that_compile_as_they_run_are_refused_with_words() {
    let backend = ProcessBackend::new(Options::default());
    if !is_here(&backend).await {
        return;
    }
    let bench = demanding(bench(Runtime::Node { interpreter: None }, "main.js", b"0"));
    match bench.launch(&backend).await {
        Err(SandboxError::WallTooWeak(why)) => assert!(why.contains("Node.js"), "{why}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("Node.js ran without its compiler"),
    }
}

#[tokio::test]
async fn without_mounts_it_is_not_promised() {
    let backend = LandlockBackend::new(Options::default());
    assert_eq!(backend.probe().await.guarantees.level(Guarantee::NoJit), Level::None);
    assert!(demanding(python()).launch(&backend).await.is_err());
}
