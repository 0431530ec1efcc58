//! What an engine of Palisade's own finds behind the walls: itself, the libraries that it is linked with, the
//! content, and what was granted. Everything else is tried from the inside, by a program that was built for
//! nothing else, as somebody would who has taken the engine over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use palisade_model::{Guarantee, GuaranteeSet, Level};
use palisade_process::{LandlockBackend, Options, ProcessBackend};
use palisade_sandbox::{
    Backend, Exit, ExitCause, HostCalls, Runtime, SandboxError, Wire, stream::ByteWire,
};
use support::{Bench, bench};
use tokio::io::AsyncReadExt as _;

/// Tries one thing after the other and prints `name: result`.
const ATTACKER: &str = include_str!("support/engine_attacker.rs");

/// The attacker, built once for its text.
fn attacker() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("engine-attacker");
    std::fs::create_dir_all(&folder).unwrap();
    let lock = std::fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let (source, program) = (folder.join("attacker.rs"), folder.join("attacker"));
    if std::fs::read_to_string(&source).ok().as_deref() != Some(ATTACKER) || !program.exists() {
        std::fs::write(&source, ATTACKER).unwrap();
        let made = Command::new("rustc")
            .args(["--edition", "2024", "-O", "-o"])
            .arg(&program)
            .arg(&source)
            .status()
            .unwrap();
        assert!(made.success());
    }
    program
}

/// Launches the attacker as the engine with these arguments; gives what it printed, and its end.
async fn attacks(bench: &mut Bench, what: &[&str]) -> (BTreeMap<String, String>, Exit) {
    let (wire, arriving) = ByteWire::new();
    bench.spec.wire = Wire::Bytes(wire);
    bench.artifact.program.args = what.iter().map(|word| (*word).to_owned()).collect();
    let backend = ProcessBackend::new(Options::default());
    let instance = bench.launch(&backend).await.unwrap_or_else(|e| panic!("{e}"));
    let mut ends = arriving.await.unwrap();
    let mut said = String::new();
    let reading = ends.from.read_to_string(&mut said);
    tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap().unwrap();
    drop(ends);
    let exit = instance.wait().await;
    let said = said.lines().filter_map(|line| line.split_once(": "));
    (said.map(|(name, result)| (name.to_owned(), result.to_owned())).collect(), exit)
}

fn engine() -> Bench {
    let mut bench = bench(Runtime::Engine, "module.wasm", b"a module");
    bench.artifact.program.file = attacker().display().to_string();
    bench
}

#[tokio::test]
async fn an_engine_finds_itself_its_libraries_and_the_content_and_nothing_else() {
    let mut bench = engine();
    std::fs::write(bench.spec.data.join("kept"), "the plugin's own").unwrap();
    let (found, exit) = attacks(&mut bench, &["look"]).await;
    assert_eq!(exit.cause, ExitCause::Exited(0), "{found:?}");
    let program = attacker().canonicalize().unwrap().display().to_string();
    let mounts: Vec<&str> = found["mounts"].split(' ').collect();
    let is_library = |path: &str| path.contains(".so") && Path::new(path).is_file();
    let rest: Vec<&str> =
        mounts.iter().filter(|path| !is_library(path) && **path != program).copied().collect();
    let expected = [
        "/",
        "/proc",
        "/dev/full",
        "/dev/null",
        "/dev/random",
        "/dev/urandom",
        "/dev/zero",
        "/plugin",
    ];
    for path in &rest {
        assert!(expected.contains(path), "{path} is mounted: {mounts:?}");
    }
    assert!(mounts.contains(&program.as_str()), "{mounts:?}");
    let libraries = mounts.iter().filter(|path| is_library(path)).count();
    assert!((2..16).contains(&libraries), "one by one: {mounts:?}");
    // The folders of the way to the attacker may be there, empty; nothing of the machine is in them.
    let way = attacker().ancestors().nth(attacker().ancestors().count() - 2).unwrap().to_owned();
    let others = found["there"].split_whitespace().filter(|path| Path::new(path) != way);
    assert_eq!(others.count(), 0, "{}", found["there"]);
    assert_eq!(found["content"], "a module");
    assert!(found["environment"].contains("PALISADE=1"), "{}", found["environment"]);
    for secret in ["CARGO", "HOST", "USER"] {
        assert!(!found["environment"].contains(secret), "{}", found["environment"]);
    }
}

#[tokio::test]
async fn who_takes_the_engine_over_reaches_nothing_beyond_the_walls() {
    let mut bench = engine();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let (found, exit) = attacks(&mut bench, &["attack", &port]).await;
    assert_eq!(exit.cause, ExitCause::Exited(0), "{found:?}");
    let refused = [
        // Files.
        "write the content",
        "write itself",
        "write /tmp",
        "write /data",
        "write /dev/shm",
        "write /etc/passwd",
        "read /etc/shadow",
        "read /proc/1/mem",
        "make a memory file",
        // Code and processes.
        "run the content",
        "run /bin/sh",
        "fork",
        "vfork",
        "signal pid 1",
        "trace pid 1",
        "memory to write and run",
        "make memory to write and run",
        // Other ways.
        "connect to the host",
        "listen",
        "unix socket",
        "datagram socket",
        "netlink",
        "netlink of another kind",
        "packet socket",
        "mount",
        "user namespace",
        "io_uring",
        "keyring",
        "bpf of one's own filter",
        "chmod",
        "openat2",
        "message queue",
        "shared memory",
    ];
    for name in refused {
        let result = found.get(name).unwrap_or_else(|| panic!("{name} was not tried: {found:?}"));
        assert!(result.starts_with("refused"), "{name}: {result}");
    }
    // The controls: what the engine lives from.
    for name in ["a thread", "read the content", "code from a file's pages", "a socket pair"] {
        assert_eq!(found.get(name).map(String::as_str), Some("done"), "{name}: {found:?}");
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody came");
}

#[tokio::test]
async fn an_engine_that_calls_what_nobody_calls_is_ended_for_it() {
    let mut bench = engine();
    let (_, exit) = attacks(&mut bench, &["reboot"]).await;
    assert_eq!(exit.cause, ExitCause::PolicyKill { syscall: Some("reboot".into()) });
    let (_, exit) = attacks(&mut bench, &["signal"]).await;
    assert_eq!(exit.cause, ExitCause::Signalled(11));
}

#[tokio::test]
async fn granted_folders_are_there_for_an_engine_with_just_their_rights() {
    let mut bench = engine();
    let root = bench.dir.path().canonicalize().unwrap();
    for name in ["read", "write"] {
        std::fs::create_dir(root.join(name)).unwrap();
        std::fs::write(root.join(name).join("file"), name).unwrap();
    }
    let folder = |name: &str| root.join(name).display().to_string();
    bench.grant(&format!("fs.read:{}/**", folder("read")));
    bench.grant(&format!("fs.write:{}/**", folder("write")));
    let (found, _) = attacks(&mut bench, &["folders", &folder("read"), &folder("write")]).await;
    assert_eq!(found["read 1"], "read");
    assert_eq!(found["read 2"], "write");
    assert!(found["write 1"].starts_with("refused"), "{found:?}");
    assert_eq!(found["write 2"], "done");
    assert!(found["run 2"].starts_with("refused"), "{found:?}");
    assert_eq!(std::fs::read_to_string(root.join("write/new")).unwrap(), "new");
}

#[tokio::test]
async fn a_file_that_the_host_shows_and_removes_is_not_counted_as_the_engines() {
    let mut bench = engine();
    let code = bench.spec.data.canonicalize().unwrap().join("code.cwasm");
    std::fs::write(&code, vec![1; 2 << 20]).unwrap();
    bench.artifact.code = vec![code.clone()];
    bench.spec.limits.disk = 1 << 20;
    let (wire, arriving) = ByteWire::new();
    bench.spec.wire = Wire::Bytes(wire);
    bench.artifact.program.args = vec!["hold".into(), code.display().to_string()];
    let instance = bench.launch(&ProcessBackend::new(Options::default())).await.unwrap();
    let mut ends = arriving.await.unwrap();
    assert_eq!(ends.from.read_u8().await.unwrap(), b'h', "it has opened the file");
    std::fs::remove_file(code).unwrap();
    let exit = tokio::time::timeout(Duration::from_secs(20), instance.wait()).await.unwrap();
    assert_eq!(exit.cause, ExitCause::Exited(0));
    let mut said = String::new();
    ends.from.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "eld: 2097152\nlinks: 0\n", "it was removed while it was open");
}

#[tokio::test]
async fn an_engine_is_a_program_of_this_machine_and_cannot_be_held_to_no_jit() {
    let backend = ProcessBackend::new(Options::default());
    assert!(backend.runs(&Runtime::Engine) && backend.runs(&Runtime::Native));
    let landlock = LandlockBackend::new(Options::default());
    assert!(!landlock.runs(&Runtime::Engine) && landlock.runs(&Runtime::Native));
    for file in ["module.wasm", "/no/such/engine", "engine"] {
        let mut bench = engine();
        bench.artifact.program.file = file.into();
        let refused = backend.prepare(&bench.artifact).await.err().unwrap();
        assert!(matches!(refused, SandboxError::Artifact { .. }), "{file}: {refused}");
    }
    let mut bench = engine();
    bench.spec.demand = GuaranteeSet::default_floor().with(Guarantee::NoJit, Level::Kernel);
    let host: Arc<dyn HostCalls> = Arc::clone(&bench.host) as _;
    let prepared = backend.prepare(&bench.artifact).await.unwrap();
    assert!(prepared.launch(bench.spec.clone(), host).await.is_err());
}
