//! The tier without namespaces: fewer guarantees, and those hold.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{fs, sync::Arc, time::Duration};

use palisade_model::{Guarantee, GuaranteeSet, Level};
use palisade_process::{LandlockBackend, Options, ProcessBackend};
use palisade_sandbox::{Backend, Instance, Resolver, Runtime};
use serde_json::json;
use support::{Bench, EVAL, bench, eval};

fn python() -> Bench {
    // The system's Python: without mounts, an interpreter in somebody's home is out of the plugin's reach.
    let interpreter = Some("/usr/bin/python3".to_owned());
    let mut bench =
        bench(Runtime::Python { interpreter, version: None }, "main.py", EVAL.as_bytes());
    bench.spec.demand = GuaranteeSet::new()
        .with(Guarantee::NetIsolated, Level::Kernel)
        .with(Guarantee::SyscallsFiltered, Level::Kernel);
    bench
}

fn landlock() -> LandlockBackend {
    LandlockBackend::new(Options::default())
}

async fn refused(instance: &Arc<dyn Instance>, code: &str) {
    let failure = eval(instance, code).await.expect_err(code);
    let denied = ["Permission", "not permitted", "not supported"];
    assert!(denied.iter().any(|e| failure.message.contains(e)), "{code}: {failure}");
}

#[tokio::test]
async fn it_is_never_chosen_for_the_default_demand() {
    let mut bench = python();
    bench.spec.demand = GuaranteeSet::default_floor();
    let weak: Arc<dyn Backend> = Arc::new(landlock());
    let only_weak = Resolver::new(vec![Arc::clone(&weak)]);
    let refused =
        only_weak.resolve(&bench.spec, None).await.err().expect("it does not cover the floor");
    let words = refused.to_string();
    assert!(words.contains("fs-isolated"), "{words}");
    let strong: Arc<dyn Backend> = Arc::new(ProcessBackend::new(Options::default()));
    let both = Resolver::new(vec![strong, weak]);
    let chosen = both.resolve(&bench.spec, None).await.map(|r| r.backend.name());
    assert_eq!(chosen.ok(), Some("process"));
}

#[tokio::test]
async fn who_cannot_pass_a_folder_is_told_what_to_open() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only a plugin that root starts has a user of its own");
        return;
    }
    let bench = python();
    fs::set_permissions(bench.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    let error = bench.launch(&landlock()).await.err().expect("it cannot reach its files");
    let words = error.to_string();
    assert!(words.contains("applying Landlock to /") && words.contains("chmod o+x"), "{words}");
}

#[tokio::test]
async fn files_sockets_and_processes_of_the_host_are_out_of_reach() {
    let mut bench = python();
    let place = bench.dir.path().canonicalize().unwrap();
    fs::write(place.join("secret"), "secret").unwrap();
    let texts = place.join("texts");
    fs::create_dir(&texts).unwrap();
    fs::write(texts.join("a.txt"), "one").unwrap();
    // This tier cannot show files under another owner, so they must be readable as they are.
    bench.grant(&format!("fs.read:{}/**", texts.display()));
    let instance = bench.launch(&landlock()).await.unwrap();
    assert_eq!(eval(&instance, "1 + 1").await.unwrap(), json!(2));
    assert_eq!(
        eval(&instance, &format!("open('{}/a.txt').read()", texts.display())).await.unwrap(),
        json!("one")
    );
    eval(&instance, "open(os.environ['HOME'] + '/x', 'w').write('mine')").await.unwrap();
    refused(&instance, &format!("open('{}/secret').read()", place.display())).await;
    refused(&instance, &format!("open('{}/new', 'w')", texts.display())).await;
    refused(&instance, "open('/proc/1/environ')").await;
    refused(&instance, "socket.socket()").await;
    refused(&instance, "socket.socket(socket.AF_UNIX)").await;
    // From ABI 6 on Landlock keeps signals in; before, only a user of the plugin's own does.
    let promised = landlock().probe().await.guarantees.clone();
    let kept_in = [Guarantee::DiesWithHost, Guarantee::OwnUid];
    if kept_in.into_iter().any(|g| promised.level(g) > Level::None) {
        refused(&instance, &format!("os.kill({}, 0)", std::process::id())).await;
    }
    refused(&instance, "os.unshare(0x10000000) if hasattr(os, 'unshare') else __import__('ctypes').CDLL(None, use_errno=True).unshare(0x10000000) and (_ for _ in ()).throw(PermissionError('not permitted'))").await;
    let exit = instance.stop(Duration::from_secs(3)).await;
    assert!(exit.is_clean(), "{exit}");
}

#[tokio::test]
async fn orphans_are_ended_with_the_instance() {
    let bench = python();
    let instance = bench.launch(&landlock()).await.unwrap();
    let beacon = bench.spec.data.join("beacon");
    let touch = "
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            open(os.environ['HOME'] + '/beacon', 'a').write('x'); __import__('time').sleep(0.01)
    os._exit(0)
result = 1";
    eval(&instance, touch).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(beacon.exists());
    instance.kill(palisade_sandbox::KillReason::Asked).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = fs::metadata(&beacon).unwrap().len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(fs::metadata(&beacon).unwrap().len(), before, "something lives on");
}

#[tokio::test]
async fn only_its_own_processes_are_counted() {
    let bench = python();
    // Without a pid namespace and without cgroups nothing but their ancestry tells them from others.
    let backend = LandlockBackend::new(Options { cgroups: false, ..Options::default() });
    let mut somebody = std::process::Command::new("/bin/sleep").arg("30").spawn().unwrap();
    let instance = bench.launch(&backend).await.unwrap();
    assert_eq!(instance.usage().await.pids, Some(1));
    let forks = "
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        __import__('time').sleep(30); os._exit(0)
    os.wait()
result = 1";
    eval(&instance, forks).await.unwrap();
    let usage = instance.usage().await;
    somebody.kill().unwrap();
    somebody.wait().unwrap();
    assert_eq!(usage.pids, Some(4), "it, and three orphans");
    let memory = usage.memory.unwrap();
    assert!((1 << 20..256 << 20).contains(&memory), "{memory} bytes");
}
