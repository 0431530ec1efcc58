//! Walls that stand ready: used once, by launches that they fit, and gone with their host.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_dialect::jsonl::{Jsonl, Lifecycle};
use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{Backend, HostCalls, Instance, KillReason, Prepared, Runtime, Wire};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::{Bench, EVAL, bench, eval};

/// Tests of one process see each other's processes.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Every process: pid, parent, name.
fn processes() -> Vec<(i32, i32, String)> {
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let (pid, name) = head.split_once(" (")?;
        // A zombie is gone: it only waits to be counted.
        let mut tail = tail.split_whitespace();
        let state = tail.next()?;
        let parent = tail.next()?.parse().ok()?;
        (state != "Z").then(|| (pid.parse().unwrap(), parent, name.to_owned()))
    });
    all.collect()
}

/// Pid 1 of everything that this process has launched, and whether a program runs below it.
fn inits() -> Vec<(i32, bool)> {
    let all = processes();
    let own = std::process::id().cast_signed();
    let is_spawner = |pid: i32| {
        all.iter().any(|(p, parent, n)| *p == pid && *parent == own && n == "palisade-spawn")
    };
    all.iter()
        .filter(|(_, parent, name)| name == "palisade-init" && is_spawner(*parent))
        // What waits to become the program has its own name only then.
        .map(|(pid, ..)| (*pid, all.iter().any(|(_, p, name)| p == pid && name != "palisade-init")))
        .collect()
}

fn is_there(pid: i32) -> bool {
    processes().iter().any(|(p, ..)| *p == pid)
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The one that waits, once it does: pid 1 without a program, found asleep twice.
async fn spare() -> i32 {
    let mut before = None;
    until("a spare", || {
        let idle: Vec<i32> = inits().into_iter().filter(|(_, runs)| !runs).map(|i| i.0).collect();
        let [pid] = idle[..] else { return None };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let asleep = stat.contains(") S ").then_some(pid);
        (std::mem::replace(&mut before, asleep) == Some(pid)).then_some(asleep?)
    })
    .await;
    // The report is on its way to the pool.
    tokio::time::sleep(Duration::from_millis(50)).await;
    before.unwrap()
}

fn runs_in(pid: i32) -> bool {
    inits().contains(&(pid, true))
}

struct Pool {
    bench: Bench,
    backend: ProcessBackend,
    prepared: Arc<dyn Prepared>,
}

impl Pool {
    async fn new(bench: Bench) -> Self {
        let backend = ProcessBackend::new(Options { spares: 1, ..Options::default() });
        let prepared = backend.prepare(&bench.artifact).await.unwrap();
        Self { bench, backend, prepared }
    }

    async fn launch(&self) -> Arc<dyn Instance> {
        let host: Arc<dyn HostCalls> = Arc::clone(&self.bench.host) as _;
        self.prepared.launch(self.bench.spec.clone(), host).await.unwrap()
    }
}

fn python() -> Bench {
    bench(Runtime::Python { interpreter: None, version: None }, "main.py", EVAL.as_bytes())
}

#[tokio::test]
async fn without_being_asked_for_nothing_stands_ready() {
    let _alone = ALONE.lock().await;
    let bench = python();
    let backend = ProcessBackend::new(Options::default());
    let instance = bench.launch(&backend).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(inits().len(), 1);
    assert!(inits()[0].1);
    instance.kill(KillReason::Asked).await;
}

#[tokio::test]
async fn a_program_for_one_call_finds_its_walls_built_at_the_second() {
    let _alone = ALONE.lock().await;
    let answer = "import sys, json\nfor line in sys.stdin:\n    id = json.loads(line)['id']\n    print(json.dumps({'jsonrpc': '2.0', 'id': id, 'result': 1}), flush=True)\n";
    let runtime = Runtime::Python { interpreter: None, version: None };
    let mut bench = bench(runtime, "main.py", answer.as_bytes());
    bench.spec.wire = Wire::Jsonl(Jsonl { lifecycle: Lifecycle::PerCall, ..Jsonl::default() });
    let backend = ProcessBackend::new(Options::default());
    let prepared = backend.prepare(&bench.artifact).await.unwrap();
    let launch = || async {
        let host: Arc<dyn HostCalls> = Arc::clone(&bench.host) as _;
        prepared.launch(bench.spec.clone(), host).await.unwrap()
    };
    let mut used = Vec::new();
    let mut instance = launch().await;
    for _ in 0..3 {
        instance.kill(KillReason::Asked).await;
        let waiting = spare().await;
        assert!(!used.contains(&waiting), "walls were used twice");
        instance = launch().await;
        assert!(runs_in(waiting), "the call did not use the walls that stood ready");
        used.push(waiting);
    }
    instance.kill(KillReason::Asked).await;
    let last = spare().await;
    drop(prepared);
    drop(backend);
    until("the last spare's end", || (!is_there(last)).then_some(())).await;
}

#[tokio::test]
async fn each_is_used_once_and_nothing_of_one_program_is_there_for_the_next() {
    let _alone = ALONE.lock().await;
    let pool = Pool::new(python()).await;
    let first = pool.launch().await;
    let (mut used, mut namespaces) = (Vec::new(), Vec::new());
    let mut instances = vec![first];
    for _ in 0..3 {
        let waiting = spare().await;
        assert!(!used.contains(&waiting));
        let instance = pool.launch().await;
        assert!(runs_in(waiting), "the launch did not use the walls that fit");
        let seen = eval(&instance, "os.listdir('/tmp') + os.listdir('/dev/shm')").await.unwrap();
        assert_eq!(seen, json!([]));
        eval(&instance, "open('/tmp/mark', 'w').close() or open('/dev/shm/mark', 'w').close()")
            .await
            .unwrap();
        for kind in ["net", "mnt", "pid", "ipc", "uts", "user", "cgroup"] {
            let inside =
                eval(&instance, &format!("os.readlink('/proc/self/ns/{kind}')")).await.unwrap();
            let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            assert_ne!(inside, json!(host), "{kind} is shared with the host");
            assert!(!namespaces.contains(&inside), "{kind} is shared with another plugin");
            namespaces.push(inside);
        }
        used.push(waiting);
        instances.push(instance);
    }
    for instance in instances {
        let exit = instance.kill(KillReason::Asked).await;
        assert!(exit.usage.is_some());
    }
    let last = spare().await;
    assert!(!used.contains(&last));
    for pid in used {
        assert!(!is_there(pid), "walls outlived their program");
    }
    // The walls are the same as of any launch.
    let instance = pool.launch().await;
    let status = eval(&instance, "open('/proc/self/status').read()").await.unwrap();
    let status = status.as_str().unwrap();
    for line in
        ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"]
    {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    drop(pool.backend);
}

#[tokio::test]
async fn what_was_built_for_other_rights_or_limits_is_thrown_away() {
    let _alone = ALONE.lock().await;
    let mut bench = python();
    let folder = bench.dir.path().canonicalize().unwrap().join("granted");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("secret"), "old").unwrap();
    let without = Arc::clone(&bench.spec.rights);
    bench.grant(&format!("fs.read:{}/**", folder.display()));
    let mut pool = Pool::new(bench).await;
    let granted = Arc::clone(&pool.bench.spec.rights);
    let read = format!("open('{}/secret').read()", folder.display());
    let first = pool.launch().await;
    assert_eq!(eval(&first, &read).await.unwrap(), json!("old"));

    // Revoked.
    let old = spare().await;
    pool.bench.spec.rights = without;
    let second = pool.launch().await;
    assert!(eval(&second, &read).await.is_err(), "a right that is revoked was there");
    until("the spare's end", || (!is_there(old)).then_some(())).await;

    // Granted again, and then another folder stands in its place.
    pool.bench.spec.rights = granted;
    let third = pool.launch().await;
    until("a spare with the right", || inits().iter().find(|(_, runs)| !runs).map(drop)).await;
    let old = spare().await;
    fs::rename(&folder, folder.with_extension("away")).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("secret"), "new").unwrap();
    let fourth = pool.launch().await;
    assert_eq!(eval(&fourth, &read).await.unwrap(), json!("new"));
    until("the spare's end", || (!is_there(old)).then_some(())).await;

    // Other limits, and another wire.
    let old = spare().await;
    pool.bench.spec.limits.pids += 1;
    let fifth = pool.launch().await;
    until("the spare's end", || (!is_there(old)).then_some(())).await;
    let old = spare().await;
    pool.bench.spec.wire = Wire::Jsonl(Default::default());
    let sixth = pool.launch().await;
    until("the spare's end", || (!is_there(old)).then_some(())).await;
    for instance in [first, second, third, fourth, fifth, sixth] {
        instance.kill(KillReason::Asked).await;
    }
}

#[tokio::test]
async fn one_that_died_is_replaced() {
    let _alone = ALONE.lock().await;
    let pool = Pool::new(python()).await;
    let first = pool.launch().await;
    let dead = spare().await;
    kill_process(Pid::from_raw(dead).unwrap(), Signal::KILL).unwrap();
    until("its end", || (!is_there(dead)).then_some(())).await;
    let second = pool.launch().await;
    assert_eq!(eval(&second, "1 + 1").await.unwrap(), json!(2));
    let next = spare().await;
    assert_ne!(next, dead);
    let third = pool.launch().await;
    assert!(runs_in(next));
    for instance in [first, second, third] {
        instance.kill(KillReason::Asked).await;
    }
}

#[tokio::test]
async fn they_are_counted_and_go_with_what_they_were_prepared_for() {
    let _alone = ALONE.lock().await;
    let pool = Pool::new(python()).await;
    let first = pool.launch().await;
    let waiting = spare().await;
    let program = until("the program", || {
        let all = processes();
        let used = inits().iter().find(|(_, runs)| *runs)?.0;
        all.iter().find(|(_, parent, _)| *parent == used).map(|(pid, ..)| *pid)
    })
    .await;
    let groups = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let has_groups = groups(program).contains("/palisade-");
    assert_eq!(groups(waiting).contains("/palisade-"), has_groups);
    if has_groups {
        assert_ne!(groups(waiting), groups(program), "each has groups of its own");
    }
    drop(pool.prepared);
    until("the spare's end", || (!is_there(waiting)).then_some(())).await;
    assert_eq!(eval(&first, "3").await.unwrap(), json!(3));
    first.kill(KillReason::Asked).await;
}

#[tokio::test]
async fn they_die_with_the_host() {
    let _alone = ALONE.lock().await;
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "a_host_with_a_spare", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(host.stdout.take().unwrap()).lines();
    let pid: i32 = lines
        .map_while(Result::ok)
        .find_map(|line| line.split("spare=").nth(1).map(|pid| pid.trim().parse().unwrap()))
        .expect("it has a spare");
    assert!(is_there(pid));
    host.kill().unwrap();
    host.wait().unwrap();
    until("the spare's end", || (!is_there(pid)).then_some(())).await;
}

/// Run by [`they_die_with_the_host`] in a process of its own, which is killed.
#[tokio::test]
#[ignore = "part of they_die_with_the_host"]
async fn a_host_with_a_spare() {
    let pool = Pool::new(python()).await;
    let _instance = pool.launch().await;
    println!("spare={}", spare().await);
    tokio::time::sleep(Duration::from_secs(60)).await;
}
