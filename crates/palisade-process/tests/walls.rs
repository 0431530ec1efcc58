//! The process backend's walls, seen from inside by a Python plugin.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{fs, os::unix::fs::MetadataExt, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{
    Backend, Exit, ExitCause, Instance, KillReason, Runtime, SandboxError, Wire,
};
use serde_json::json;
use support::{Bench, EVAL, bench, eval};

fn python() -> Bench {
    bench(Runtime::Python { interpreter: None, version: None }, "main.py", EVAL.as_bytes())
}

fn process() -> ProcessBackend {
    ProcessBackend::new(Options::default())
}

async fn refused(instance: &Arc<dyn Instance>, code: &str, errors: &[&str]) {
    let failure = eval(instance, code).await.expect_err(code);
    assert!(errors.iter().any(|e| failure.message.contains(e)), "{code}: {failure}");
}

#[tokio::test]
async fn a_plugin_runs_and_sees_only_its_own_world() {
    let bench = python();
    let instance = bench.launch(&process()).await.unwrap();
    assert_eq!(eval(&instance, "os.getpid()").await.unwrap(), json!(2));
    assert_eq!(eval(&instance, "os.getuid()").await.unwrap(), json!(1000));
    let pids = "sorted(p for p in os.listdir('/proc') if p.isdigit())";
    assert_eq!(eval(&instance, pids).await.unwrap(), json!(["1", "2"]));
    let place = "os.environ['HOME'] + ' ' + os.getcwd() + ' ' + os.uname().nodename";
    assert_eq!(eval(&instance, place).await.unwrap(), json!("/data /plugin palisade"));
    let written = "open('/data/x', 'w').write('hello') and open('/data/x').read()";
    assert_eq!(eval(&instance, written).await.unwrap(), json!("hello"));
    assert_eq!(fs::read_to_string(bench.spec.data.join("x")).unwrap(), "hello");
    refused(&instance, "open('/plugin/x', 'w')", &["Read-only", "Permission"]).await;
    refused(&instance, "open('/etc/shadow')", &["No such file", "Permission"]).await;
    refused(&instance, "os.mkdir('/new')", &["Read-only", "Permission"]).await;
    assert_eq!(
        eval(&instance, "sorted(os.listdir('/sys')) if os.path.exists('/sys') else []")
            .await
            .unwrap(),
        json!([])
    );
    let open = "sorted(os.readlink(f'/proc/self/fd/{f}').split(':')[0] for f in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{f}'))";
    assert_eq!(
        eval(&instance, open).await.unwrap(),
        json!(["/dev/null", "pipe", "pipe", "socket"])
    );
    let exit = instance.stop(Duration::from_secs(5)).await;
    assert!(exit.is_clean(), "{exit}");
}

#[tokio::test]
async fn the_environment_holds_nothing_of_the_host() {
    let bench = python();
    let instance = bench.launch(&process()).await.unwrap();
    let names = eval(&instance, "sorted(os.environ)").await.unwrap();
    assert_eq!(
        names,
        json!([
            "HOME",
            "LANG",
            "PALISADE",
            "PATH",
            "PYTHONDONTWRITEBYTECODE",
            "PYTHONUNBUFFERED",
            "TMPDIR"
        ])
    );
}

#[tokio::test]
async fn granted_folders_are_there_with_just_their_rights() {
    let mut bench = python();
    let place = bench.dir.path().canonicalize().unwrap();
    let (texts, out) = (place.join("texts"), place.join("out"));
    fs::create_dir(&texts).unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(texts.join("a.txt"), "one").unwrap();
    fs::set_permissions(&texts, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o700)).unwrap();
    bench.grant(&format!("fs.read:{}/**", texts.display()));
    bench.grant(&format!("fs.write:{}/**", out.display()));
    let instance = bench.launch(&process()).await.unwrap();
    assert_eq!(
        eval(&instance, &format!("open('{}/a.txt').read()", texts.display())).await.unwrap(),
        json!("one")
    );
    refused(
        &instance,
        &format!("open('{}/b', 'w')", texts.display()),
        &["Read-only", "Permission"],
    )
    .await;
    eval(&instance, &format!("open('{}/b', 'w').write('two')", out.display())).await.unwrap();
    let made = fs::metadata(out.join("b")).unwrap();
    assert_eq!(
        made.uid(),
        fs::metadata(&out).unwrap().uid(),
        "what the plugin makes belongs to the folder's owner"
    );
    // The siblings of what was granted do not exist inside.
    let listing = format!("sorted(os.listdir('{}'))", place.display());
    match eval(&instance, &listing).await {
        Ok(names) => assert_eq!(names, json!(["out", "texts"])),
        Err(denied) => assert!(denied.message.contains("Permission"), "{denied}"),
    }
    let mode = format!("os.chmod('{}/b', 0o4755)", out.display());
    refused(&instance, &mode, &["not permitted"]).await;
    assert_eq!(fs::metadata(out.join("b")).unwrap().mode() & 0o6000, 0);
    refused(&instance, &format!("os.execv('{}/b', ['b'])", out.display()), &["Permission"]).await;
}

#[tokio::test]
async fn what_cannot_be_held_is_refused_with_words() {
    for right in ["fs.read:/**", "fs.write:/tmp/**", "fs.read:/proc/**", "gpu:*"] {
        let mut bench = python();
        bench.grant(right);
        match bench.launch(&process()).await {
            Err(SandboxError::Unsupported { .. }) => {}
            Err(other) => panic!("{right}: {other}"),
            Ok(_) => panic!("{right} was accepted"),
        }
    }
}

#[tokio::test]
async fn a_granted_path_that_changed_is_refused() {
    let mut bench = python();
    let place = bench.dir.path().canonicalize().unwrap();
    std::os::unix::fs::symlink("/etc", place.join("link")).unwrap();
    bench.grant(&format!("fs.read:{}/link/**", place.display()));
    let refused = bench.launch(&process()).await.err().expect("a link must not be bound");
    assert!(matches!(refused, SandboxError::Path { .. }), "{refused}");
}

async fn end_of(bench: &Bench, backend: &dyn Backend, code: &str) -> Exit {
    let instance = bench.launch(backend).await.unwrap();
    let pending = eval(&instance, code);
    tokio::time::timeout(Duration::from_secs(30), async {
        let _ = pending.await;
        instance.wait().await
    })
    .await
    .expect("it should have ended")
}

#[tokio::test]
async fn ends_are_told_apart() {
    let bench = python();
    let backend = process();
    assert_eq!(end_of(&bench, &backend, "os._exit(3)").await.cause, ExitCause::Exited(3));
    assert_eq!(
        end_of(&bench, &backend, "os.kill(os.getpid(), 11)").await.cause,
        ExitCause::Signalled(11)
    );
    let forbidden = "import ctypes; ctypes.CDLL(None).syscall(169, 0, 0, 0, 0)"; // reboot(2)
    let named = ExitCause::PolicyKill { syscall: Some("reboot".into()) };
    assert_eq!(end_of(&bench, &backend, forbidden).await.cause, named);
    let garbage =
        end_of(&bench, &backend, "os.write(3, b'garbage\\n') and __import__('time').sleep(20)")
            .await;
    assert!(matches!(garbage.cause, ExitCause::Killed(KillReason::Breach(_))), "{garbage}");
    let closed = end_of(&bench, &backend, "(os.close(3), __import__('time').sleep(20))").await;
    assert!(matches!(closed.cause, ExitCause::Killed(KillReason::Breach(_))), "{closed}");
}

#[tokio::test]
async fn memory_is_capped_by_cgroup_or_by_samples() {
    const BOMB: &str = "kept = []\nwhile True: kept.append(bytearray(1 << 20))";
    for cgroups in [true, false] {
        let mut bench = python();
        bench.spec.limits.memory = 64 << 20;
        let backend = ProcessBackend::new(Options { cgroups, ..Options::default() });
        let exit = end_of(&bench, &backend, BOMB).await;
        let by_kernel = exit.cause == ExitCause::OutOfMemory;
        let by_sample = matches!(&exit.cause, ExitCause::Killed(KillReason::Limit(what)) if what.starts_with("memory"));
        assert!(by_kernel || by_sample, "cgroups {cgroups}: {exit}");
        if !cgroups {
            assert!(by_sample, "{exit}");
        }
    }
}

#[tokio::test]
async fn processes_are_capped_with_and_without_cgroups() {
    const FORKS: &str = "
n = 0
try:
    while n < 500:
        if os.fork() == 0:
            __import__('time').sleep(30); os._exit(0)
        n += 1
except OSError:
    pass
result = n";
    for cgroups in [true, false] {
        let mut bench = python();
        bench.spec.limits.pids = 16;
        let backend = ProcessBackend::new(Options { cgroups, ..Options::default() });
        let instance = bench.launch(&backend).await.unwrap();
        let reached = eval(&instance, FORKS).await.unwrap().as_u64().unwrap();
        assert_eq!(reached, 15, "cgroups {cgroups}: the plugin itself is one of 16");
    }
}

#[tokio::test]
async fn the_data_folder_is_measured_and_tmp_is_capped() {
    let mut bench = python();
    bench.spec.limits.disk = 4 << 20;
    let backend = process();
    let instance = bench.launch(&backend).await.unwrap();
    let fill = "
n = 0
try:
    for i in range(64):
        open(f'/tmp/f{i}', 'wb').write(b'x' * (1 << 20)); n += 1
except OSError as e:
    pass
result = n";
    let reached = eval(&instance, fill).await.unwrap().as_u64().unwrap();
    assert!(reached <= 4, "{reached} MiB fitted into a /tmp of 4 MiB");
    let fill = fill.replace("/tmp", "/data") + "\n__import__('time').sleep(5)";
    let _ = eval(&instance, &fill).await;
    let exit = instance.wait().await;
    assert!(
        matches!(&exit.cause, ExitCause::Killed(KillReason::Limit(what)) if what.starts_with("disk")),
        "{exit}"
    );
}

#[tokio::test]
async fn a_stopped_or_deaf_plugin_is_ended_in_time() {
    let bench = python();
    let backend = process();
    let instance = bench.launch(&backend).await.unwrap();
    eval(&instance, "__import__('signal').signal(15, __import__('signal').SIG_IGN) and None")
        .await
        .unwrap();
    let _ = tokio::time::timeout(
        Duration::from_millis(300),
        eval(&instance, "os.kill(os.getpid(), 19)"),
    )
    .await;
    let started = std::time::Instant::now();
    let exit = instance.stop(Duration::from_millis(400)).await;
    assert!(matches!(exit.cause, ExitCause::Killed(KillReason::Deadline(_))), "{exit}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn dropping_the_last_handle_kills() {
    let bench = python();
    let instance = bench.launch(&process()).await.unwrap();
    let beacon = bench.spec.data.join("beacon");
    let touch = "
if os.fork() == 0:
    os.setsid()
    while True:
        open('/data/beacon', 'a').write('x'); __import__('time').sleep(0.01)
result = 1";
    eval(&instance, touch).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(beacon.exists());
    drop(instance);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = fs::metadata(&beacon).unwrap().len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(fs::metadata(&beacon).unwrap().len(), before, "something lives on");
}

#[tokio::test]
async fn output_is_handed_on_and_floods_are_dropped_and_counted() {
    let mut bench = python();
    bench.spec.limits.log_bytes_per_second = 10_000;
    let instance = bench.launch(&process()).await.unwrap();
    eval(&instance, "print('hello', flush=True)").await.unwrap();
    eval(
        &instance,
        "[sys.stdout.write('y' * 99 + chr(10)) for _ in range(20000)] and sys.stdout.flush()",
    )
    .await
    .unwrap();
    instance.stop(Duration::from_secs(2)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let lines = bench.host.lines.lock().unwrap();
    assert_eq!(lines.first().map(String::as_str), Some("hello"));
    assert!(lines.len() < 1000, "{} lines came through", lines.len());
    assert!(*bench.host.dropped.lock().unwrap() > 1_500_000);
}

#[tokio::test]
async fn frozen_plugins_stand_still_and_run_on() {
    let bench = python();
    let instance = bench.launch(&process()).await.unwrap();
    instance.freeze().await.unwrap();
    let stuck = tokio::time::timeout(Duration::from_millis(200), eval(&instance, "1")).await;
    assert!(stuck.is_err(), "a frozen plugin answered");
    instance.thaw().await.unwrap();
    assert_eq!(eval(&instance, "2").await.unwrap(), json!(2));
    let usage = instance.usage().await;
    assert!(usage.memory.is_some_and(|m| m > 1 << 20), "{usage:?}");
    assert_eq!(usage.pids, Some(1), "{usage:?}");
}

#[tokio::test]
async fn a_jsonl_plugin_talks_on_its_standard_streams() {
    const ECHO: &str = "
import sys, json
print('a banner')
for line in sys.stdin:
    m = json.loads(line)
    if m['method'] == 'initialize':
        print(json.dumps({'id': m['id'], 'error': 'unknown method'}))
    elif m['method'] == 'boom':
        print(json.dumps({'id': m['id'], 'error': 'boom'}))
    else:
        print(json.dumps({'id': m['id'], 'result': m['params']}))
    sys.stdout.flush()
";
    let mut bench =
        bench(Runtime::Python { interpreter: None, version: None }, "main.py", ECHO.as_bytes());
    bench.spec.wire = Wire::Jsonl(palisade_dialect::jsonl::Jsonl::default());
    let instance = bench.launch(&process()).await.unwrap();
    support::call(&instance, "initialize", "{}").await.unwrap();
    let echoed = support::call(&instance, "call", r#"{"tool":"t","args":[1,2]}"#).await.unwrap();
    assert_eq!(echoed.parse::<serde_json::Value>().unwrap(), json!({"tool": "t", "args": [1, 2]}));
    let failed = support::call(&instance, "boom", "{}").await.unwrap_err();
    assert!(failed.message.contains("boom"));
    assert!(instance.stop(Duration::from_secs(2)).await.is_clean());
}

#[tokio::test]
async fn scripts_are_run_by_the_interpreter_of_their_first_line() {
    for line in ["#!/usr/bin/env python3", "#!/usr/bin/python3"] {
        let bench = bench(Runtime::Native, "plugin", format!("{line}\n{EVAL}").as_bytes());
        let instance = bench.launch(&process()).await.unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(eval(&instance, "1 + 1").await.unwrap(), json!(2), "{line}");
    }
}

#[tokio::test]
async fn a_virtual_environment_in_the_plugin_is_used() {
    let mut bench = python();
    let root = bench.artifact.content.root.clone();
    let made = std::process::Command::new("python3")
        .args(["-m", "venv", "--without-pip"])
        .arg(root.join(".venv"))
        .status()
        .unwrap();
    assert!(made.success());
    let lib = fs::read_dir(root.join(".venv/lib")).unwrap().next().unwrap().unwrap().path();
    fs::write(lib.join("site-packages/only_here.py"), "ANSWER = 42\n").unwrap();
    bench.artifact.program.runtime =
        Runtime::Python { interpreter: Some("venv:.venv".into()), version: None };
    let instance = bench.launch(&process()).await.unwrap();
    assert_eq!(eval(&instance, "__import__('only_here').ANSWER").await.unwrap(), json!(42));
}

#[tokio::test]
async fn node_runs() {
    const ECHO: &str = r"
const net = require('net');
const lane = new net.Socket({ fd: 3 });
let rest = '';
lane.on('data', (d) => {
  rest += d;
  let i;
  while ((i = rest.indexOf('\n')) >= 0) {
    const m = JSON.parse(rest.slice(0, i)); rest = rest.slice(i + 1);
    lane.write(JSON.stringify({ jsonrpc: '2.0', id: m.id, result: { pid: process.pid, node: process.version } }) + '\n');
  }
});
";
    let mut bench = bench(Runtime::Node { interpreter: None }, "main.js", ECHO.as_bytes());
    bench.spec.limits.memory = 512 << 20;
    let instance = bench.launch(&process()).await.unwrap();
    let answer: serde_json::Value =
        support::call(&instance, "call", "{}").await.unwrap().parse().unwrap();
    assert_eq!(answer["pid"], json!(2));
}

#[tokio::test]
async fn a_missing_program_or_interpreter_is_told_with_a_hint() {
    let backend = process();
    for content in [
        "#!/no/such/interpreter\n",
        "not a program at all, and long enough to look like one …………………………………",
    ] {
        let bench = bench(Runtime::Native, "plugin", content.as_bytes());
        let error = bench.launch(&backend).await.err().expect("it cannot run");
        assert!(matches!(error, SandboxError::Artifact { .. }), "{error}");
    }
    let mut bench = python();
    bench.artifact.program.file = "../main.py".into();
    assert!(matches!(bench.launch(&backend).await, Err(SandboxError::Artifact { .. })));
}

#[tokio::test]
async fn an_interpreter_that_a_plugin_names_is_never_run_outside() {
    let backend = process();
    let place = tempfile::tempdir().unwrap();
    let (marker, evil) = (place.path().join("was-run"), place.path().join("python3"));
    fs::write(&evil, format!("#!/bin/sh\ntouch {}\n", marker.display())).unwrap();
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
    let mut by_manifest = python();
    by_manifest.artifact.program.runtime =
        Runtime::Python { interpreter: Some(evil.display().to_string()), version: None };
    let by_first_line =
        bench(Runtime::Native, "plugin", format!("#!{}\n", evil.display()).as_bytes());
    let mut own = python();
    let root = own.artifact.content.root.clone();
    fs::copy(&evil, root.join("python3")).unwrap();
    own.artifact.program.runtime = Runtime::Python {
        interpreter: Some(root.join("python3").display().to_string()),
        version: None,
    };
    for bench in [by_manifest, by_first_line, own] {
        let error = bench.launch(&backend).await.err().expect("it is no interpreter");
        assert!(matches!(error, SandboxError::Artifact { .. }), "{error}");
        assert!(!marker.exists(), "it was run: {error}");
    }
}

#[tokio::test]
async fn the_version_of_python_that_a_plugin_needs_is_held() {
    let backend = process();
    for (wanted, fits) in [(">=3.6", true), (">=3.6, <4", true), (">=9", false), ("=2.7", false)] {
        let mut bench = python();
        let version = Some(wanted.parse().unwrap());
        bench.artifact.program.runtime = Runtime::Python { interpreter: None, version };
        match bench.launch(&backend).await {
            Ok(_) => assert!(fits, "{wanted} was accepted"),
            Err(error) => {
                assert!(!fits && error.to_string().contains("needs Python"), "{wanted}: {error}")
            }
        }
    }
}

#[tokio::test]
async fn a_plugin_that_reads_to_the_end_of_its_lane_ends_by_itself_after_shutdown() {
    let code = EVAL.replace("if message[\"method\"] == \"shutdown\":\n        break", "pass");
    assert_ne!(code, EVAL);
    let bench =
        bench(Runtime::Python { interpreter: None, version: None }, "main.py", code.as_bytes());
    let instance = bench.launch(&process()).await.unwrap();
    eval(&instance, "1").await.unwrap();
    let exit = instance.stop(Duration::from_secs(10)).await;
    assert_eq!(exit.cause, ExitCause::Exited(0), "{exit}");
}

#[tokio::test]
async fn pages_that_processes_share_are_counted_once() {
    let mut bench = python();
    bench.spec.limits.memory = 96 << 20;
    bench.spec.limits.pids = 32;
    let backend = ProcessBackend::new(Options { cgroups: false, ..Options::default() });
    let instance = bench.launch(&backend).await.unwrap();
    // 24 processes that share 32 MiB: 800 MiB in the quick count.
    let fork = "
kept = bytearray(b'x') * (32 << 20)
for _ in range(24):
    if os.fork() == 0:
        __import__('time').sleep(30)
        os._exit(0)
__import__('time').sleep(0.5)
result = len(kept)";
    assert_eq!(eval(&instance, fork).await.unwrap(), json!(32 << 20));
}

#[tokio::test]
async fn a_plugin_runs_in_short_turns() {
    let mut bench = python();
    // Who takes most of its quota gets long ones, and to start Python on a slow processor takes most of one.
    bench.spec.limits.cpu = 4.0;
    let instance = bench.launch(&process()).await.unwrap();
    let turn =
        "next(int(l.split(':')[1]) for l in open('/proc/self/sched') if l.startswith('se.slice'))";
    let inside = eval(&instance, turn).await;
    instance.kill(KillReason::Asked).await;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    let told = fs::read_to_string("/proc/self/sched").unwrap_or_default();
    // Before 6.12 a turn cannot be chosen; without CONFIG_SCHED_DEBUG nothing tells of it.
    if version >= (6, 12) && told.contains("se.slice") {
        assert_eq!(inside.unwrap(), json!(100_000));
        assert!(!told.contains(": 100000"), "the host's own turns are changed: {told}");
    }
}
