//! An observed plugin: what is reported, and that being observed gives it nothing.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use palisade_process::{LandlockBackend, Options, ProcessBackend};
use palisade_sandbox::{
    Backend, ExitCause, Instance, Observation, Observer, Runtime, SandboxError,
    observe::{Found, Outcome, PathAccess, Subject},
};
use support::{Bench, EVAL, bench, eval};

#[derive(Debug, Default)]
struct Notes {
    all: Mutex<Vec<Observation>>,
    missed: AtomicU64,
}

impl Observer for Notes {
    fn saw(&self, observation: Observation) {
        let mut all = self.all.lock().unwrap();
        if all.len() < 100_000 {
            all.push(observation);
        }
    }
    fn missed(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Notes {
    fn of_path(&self, path: &str) -> Vec<(String, PathAccess, Found, Outcome)> {
        let all = self.all.lock().unwrap();
        all.iter()
            .filter_map(|o| match &o.subject {
                Subject::Path { path: p, access, found, .. } if p == Path::new(path) => {
                    Some((o.call.to_string(), *access, *found, o.outcome))
                }
                _ => None,
            })
            .collect()
    }
    fn has(&self, path: &str, access: PathAccess, outcome: Outcome) {
        let seen = self.of_path(path);
        assert!(
            seen.iter().any(|(_, a, _, o)| *a == access && *o == outcome),
            "{path} {access:?} {outcome:?} is not among {seen:?}"
        );
    }
    fn calls(&self, name: &str) -> Vec<(Subject, Outcome)> {
        let all = self.all.lock().unwrap();
        all.iter().filter(|o| o.call == name).map(|o| (o.subject.clone(), o.outcome)).collect()
    }
}

fn process() -> ProcessBackend {
    ProcessBackend::new(Options::default())
}

fn observed() -> (Bench, Arc<Notes>) {
    let runtime = Runtime::Python { interpreter: None, version: None };
    let mut bench = bench(runtime, "main.py", EVAL.as_bytes());
    let notes = Arc::new(Notes::default());
    bench.spec.observe = Some(Arc::clone(&notes) as _);
    (bench, notes)
}

async fn run(instance: &Arc<dyn Instance>, code: &str) -> String {
    match eval(instance, code).await {
        Ok(value) => value.to_string(),
        Err(failure) => format!("error: {}", failure.message),
    }
}

#[tokio::test]
async fn what_is_read_written_and_refused_is_reported_by_its_real_path() {
    let (mut bench, notes) = observed();
    let place = bench.dir.path().canonicalize().unwrap();
    let (texts, out) = (place.join("texts"), place.join("out"));
    for folder in [&texts, &out] {
        fs::create_dir(folder).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(texts.join("a.txt"), "one").unwrap();
    std::os::unix::fs::symlink("a.txt", texts.join("link")).unwrap();
    bench.grant(&format!("fs.read:{}/**", texts.display()));
    bench.grant(&format!("fs.write:{}/**", out.display()));
    let instance = bench.launch(&process()).await.unwrap();
    let (texts, out) = (texts.display().to_string(), out.display().to_string());
    assert_eq!(run(&instance, &format!("open('{texts}/link').read()")).await, "\"one\"");
    notes.has(&format!("{texts}/a.txt"), PathAccess::Read, Outcome::Passed);
    run(&instance, &format!("open('{out}/new', 'w').write('x')")).await;
    notes.has(&format!("{out}/new"), PathAccess::Change, Outcome::Passed);
    run(&instance, &format!("open('{out}/new', 'a').write('x')")).await;
    notes.has(&format!("{out}/new"), PathAccess::Write, Outcome::Passed);
    assert!(run(&instance, &format!("open('{texts}/b', 'w')")).await.contains("Read-only"));
    notes.has(&format!("{texts}/b"), PathAccess::Change, Outcome::ReadOnly);
    assert!(run(&instance, "open('/etc/shadow')").await.contains("No such file"));
    notes.has("/etc/shadow", PathAccess::Read, Outcome::NotThere);
    run(&instance, "os.listdir('/usr')").await;
    notes.has("/usr", PathAccess::Read, Outcome::PartlyThere);
    assert!(
        run(&instance, "os.chdir('/etc') or open('../etc/./shadow')").await.contains("No such")
    );
    assert!(notes.of_path("/etc/shadow").len() >= 2, "relative to the working directory");
    assert!(run(&instance, &format!("os.execv('{out}/new', ['x'])")).await.contains("Permission"));
    notes.has(&format!("{out}/new"), PathAccess::Execute, Outcome::NotExecutable);
    run(&instance, &format!("os.rename('{out}/new', '{out}/old')")).await;
    notes.has(&format!("{out}/old"), PathAccess::Change, Outcome::Passed);
    run(&instance, &format!("socket.socket(1).bind('{out}/socket')")).await;
    notes.has(&format!("{out}/socket"), PathAccess::Change, Outcome::Passed);
    let handle = format!("f = open('{out}/old', 'w'); os.utime(f.fileno()); result = f.close()");
    run(&instance, &handle).await;
    assert_eq!(notes.missed.load(Ordering::Relaxed), 0, "everything could be looked at");
    assert!(instance.stop(Duration::from_secs(5)).await.is_clean());
}

#[tokio::test]
async fn refused_calls_are_named_with_what_decides_and_get_the_filters_answer() {
    let (bench, notes) = observed();
    let instance = bench.launch(&process()).await.unwrap();
    assert!(run(&instance, "socket.socket(17, 3, 0)").await.contains("Address family"));
    let packet = (Subject::Arguments("domain=AF_PACKET".into()), Outcome::Refused(97));
    assert_eq!(notes.calls("socket"), [packet]);
    let mount = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); result = [libc.mount(b'a', b'/tmp', b'tmpfs', 0, None), ctypes.get_errno()]";
    assert_eq!(run(&instance, mount).await, "[-1,1]");
    assert_eq!(notes.calls("mount")[0].1, Outcome::Refused(1));
    let unknown = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); result = [libc.syscall(4000), ctypes.get_errno()]";
    assert_eq!(run(&instance, unknown).await, "[-1,38]");
    assert_eq!(notes.calls("#4000")[0].1, Outcome::Refused(38));
    // A connection goes nowhere, and is told by its address.
    assert!(
        run(&instance, "socket.create_connection(('10.1.2.3', 443), 1)").await.contains("error")
    );
    assert_eq!(
        notes.calls("connect").last().unwrap(),
        &(Subject::Address("10.1.2.3:443".parse().unwrap()), Outcome::NoRoute)
    );
}

fn named(call: &str) -> ExitCause {
    ExitCause::PolicyKill { syscall: Some(call.to_owned()) }
}

#[tokio::test]
async fn a_call_that_ends_the_process_is_named_and_ends_it() {
    let (bench, notes) = observed();
    let instance = bench.launch(&process()).await.unwrap();
    let child = "import ctypes; libc = ctypes.CDLL(None); pid = os.fork(); pid or libc.syscall(321, 0, 0, 0); result = os.waitpid(pid, 0)[1]";
    assert_eq!(run(&instance, child).await, "9", "only the process that asked is ended");
    assert_eq!(notes.calls("bpf")[0].1, Outcome::Killed);
    run(&instance, "__import__('ctypes').CDLL(None).syscall(321, 0, 0, 0)").await;
    assert_eq!(instance.wait().await.cause, named("bpf"));
    assert_eq!(notes.calls("bpf").len(), 2);
}

#[tokio::test]
async fn without_an_observer_the_end_has_the_same_name() {
    let (mut bench, _) = observed();
    bench.spec.observe = None;
    let instance = bench.launch(&process()).await.unwrap();
    run(&instance, "__import__('ctypes').CDLL(None).syscall(321, 0, 0, 0)").await;
    assert_eq!(instance.wait().await.cause, named("bpf"));
}

#[tokio::test]
async fn the_observed_program_has_no_handle_more() {
    let (mut bench, _notes) = observed();
    let list = "sorted(int(f) for f in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{f}'))";
    let watched = run(&bench.launch(&process()).await.unwrap(), list).await;
    bench.spec.observe = None;
    assert_eq!(watched, run(&bench.launch(&process()).await.unwrap(), list).await);
}

/// A second thread swaps the path between the observer's look and the kernel's: what the kernel does is
/// decided by the mounts, so all that can be gained is a wrong line in a report.
#[tokio::test]
async fn changing_the_path_under_the_observers_eyes_gains_nothing() {
    let (mut bench, notes) = observed();
    let place = bench.dir.path().canonicalize().unwrap();
    let (allowed, secret) = (place.join("allowed"), place.join("hidden"));
    fs::write(&allowed, "fine").unwrap();
    fs::write(&secret, "SECRET").unwrap();
    bench.grant(&format!("fs.read:{}", allowed.display()));
    let instance = bench.launch(&process()).await.unwrap();
    let code = format!(
        r#"
import ctypes, threading, time
libc = ctypes.CDLL(None, use_errno=True)
a, b = {:?}.encode() + b"\0", {:?}.encode() + b"\0"
size = max(len(a), len(b))
path = ctypes.create_string_buffer(size)
stop = False
def swap():
    while not stop:
        ctypes.memmove(path, a, len(a))
        ctypes.memmove(path, b, len(b))
thread = threading.Thread(target=swap, daemon=True)
thread.start()
contents = set()
end = time.time() + 2
while time.time() < end:
    fd = libc.open(path, 0)
    if fd >= 0:
        contents.add(os.read(fd, 100).decode())
        os.close(fd)
stop = True
result = sorted(contents)
"#,
        allowed.display().to_string(),
        secret.display().to_string()
    );
    let got = run(&instance, &code).await;
    assert!(got == "[\"fine\"]" || got == "[]", "{got}");
    assert!(!notes.all.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_flood_of_calls_slows_the_program_and_nothing_else() {
    let (bench, notes) = observed();
    let instance = bench.launch(&process()).await.unwrap();
    let flood = "import time\nend = time.time() + 1.5\nn = 0\nwhile time.time() < end:\n    os.path.exists('/nowhere'); n += 1\nresult = n";
    let before = cpu_of_this_process();
    let began = Instant::now();
    let made: u64 = run(&instance, flood).await.parse().unwrap();
    let spent = cpu_of_this_process() - before;
    // 2500 in each tenth of a second, and what the windows' edges add.
    assert!(made <= 60_000, "{made} calls in {:?}", began.elapsed());
    assert!(made > 1_000, "the program went on: {made}");
    println!("{made} calls, {spent:?} of the host's processor time");
    assert!(notes.of_path("/nowhere").len() as u64 >= made.min(90_000));
    assert!(instance.stop(Duration::from_secs(5)).await.is_clean());
}

fn cpu_of_this_process() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let words: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    Duration::from_millis(
        10 * (words[11].parse::<u64>().unwrap() + words[12].parse::<u64>().unwrap()),
    )
}

/// Text that would move a terminal's cursor stays a path in a report: escaping is the reporter's, and the
/// bytes come through whole.
#[tokio::test]
async fn paths_come_through_whole_whatever_is_in_them() {
    let (bench, notes) = observed();
    let instance = bench.launch(&process()).await.unwrap();
    run(&instance, "os.path.exists('/etc/\\x1b[2Jx\\n')").await;
    notes.has("/etc/\u{1b}[2Jx\n", PathAccess::Look, Outcome::NotThere);
    run(&instance, "os.path.exists(b'/etc/\\xff\\xfe')").await;
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"/etc/\xff\xfe");
    let all = notes.all.lock().unwrap();
    assert!(
        all.iter()
            .any(|o| matches!(&o.subject, Subject::Path { path, .. } if path.as_os_str() == odd))
    );
}

#[tokio::test]
async fn many_threads_and_children_are_served() {
    let (bench, notes) = observed();
    let instance = bench.launch(&process()).await.unwrap();
    let code = "import threading, subprocess\ndef go(i):\n    for n in range(50): os.path.exists(f'/t{i}/{n}')\nts = [threading.Thread(target=go, args=(i,)) for i in range(8)]\n[t.start() for t in ts]; [t.join() for t in ts]\nresult = subprocess.run([sys.executable, '-c', 'open(\"/etc/hostname\")'], capture_output=True).returncode";
    assert_eq!(run(&instance, code).await, "1");
    for i in 0..8 {
        notes.has(&format!("/t{i}/49"), PathAccess::Look, Outcome::NotThere);
    }
    notes.has("/etc/hostname", PathAccess::Read, Outcome::NotThere);
    assert!(instance.stop(Duration::from_secs(5)).await.is_clean());
}

#[tokio::test]
async fn the_second_tier_is_observed_too() {
    let (mut bench, notes) = observed();
    bench.spec.demand = palisade_model::GuaranteeSet::new();
    // Not one from a private folder: without a mount of its own the plugin must be able to walk to it.
    let interpreter = Some("/usr/bin/python3".into());
    bench.artifact.program.runtime = Runtime::Python { interpreter, version: None };
    let place = bench.dir.path().canonicalize().unwrap();
    fs::write(place.join("a"), "one").unwrap();
    fs::set_permissions(place.join("a"), fs::Permissions::from_mode(0o644)).unwrap();
    bench.grant(&format!("fs.read:{}/a", place.display()));
    let backend = LandlockBackend::new(Options::default());
    if backend.probe().await.unavailable.is_some() {
        panic!("this machine has no Landlock");
    }
    let instance = bench.launch(&backend).await.unwrap();
    let place = place.display().to_string();
    assert_eq!(run(&instance, &format!("open('{place}/a').read()")).await, "\"one\"");
    notes.has(&format!("{place}/a"), PathAccess::Read, Outcome::Passed);
    assert!(run(&instance, "open('/etc/hostname')").await.contains("Permission denied"));
    notes.has("/etc/hostname", PathAccess::Read, Outcome::NotGranted);
    assert!(run(&instance, "socket.socket()").await.contains("not permitted"));
    assert_eq!(notes.calls("socket").last().unwrap().1, Outcome::Refused(1));
}

#[tokio::test]
async fn a_program_that_cannot_be_started_says_why() {
    let (mut bench, _notes) = observed();
    bench.artifact.program.runtime = Runtime::Native;
    let refused = bench.launch(&process()).await.err().expect("a script without a first line");
    assert!(matches!(refused, SandboxError::Artifact { .. }), "{refused}");
}

/// Nothing of the observer's is within reach: no listener of its own, no way to hide what it opens.
#[tokio::test]
async fn a_program_cannot_take_over_or_blind_its_observer() {
    let (bench, notes) = observed();
    let instance = bench.launch(&process()).await.unwrap();
    let listener = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); result = [libc.syscall(317, 1, 8, None), ctypes.get_errno()]";
    assert_eq!(run(&instance, listener).await, "[-1,1]", "a listener of its own is refused");
    // Not dumpable: its /proc entries belong to root now.
    assert_eq!(run(&instance, "__import__('ctypes').CDLL(None).prctl(4, 0, 0, 0, 0)").await, "0");
    run(&instance, "os.path.exists('/etc/shadow-of-the-undumpable')").await;
    notes.has("/etc/shadow-of-the-undumpable", PathAccess::Look, Outcome::NotThere);
    // An address that leads nowhere is a failed call and a missed one, not a crash.
    let wild = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); result = [libc.open(ctypes.c_void_p(8), 0), ctypes.get_errno()]";
    assert_eq!(run(&instance, wild).await, "[-1,14]");
    assert_eq!(notes.missed.load(Ordering::Relaxed), 1);
}

/// Gives up when it is told of one path.
#[derive(Debug)]
struct GivesUp;

impl Observer for GivesUp {
    fn saw(&self, observation: Observation) {
        if let Subject::Path { path, .. } = &observation.subject {
            assert_ne!(path, Path::new("/give-up"));
        }
    }
}

#[tokio::test]
async fn without_its_observer_a_program_gets_less_and_never_more() {
    let (mut bench, _) = observed();
    let place = bench.dir.path().canonicalize().unwrap();
    fs::write(place.join("granted"), "fine").unwrap();
    bench.grant(&format!("fs.read:{}/granted", place.display()));
    bench.spec.observe = Some(Arc::new(GivesUp));
    let instance = bench.launch(&process()).await.unwrap();
    let code = format!(
        r#"
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def told(value):
    return [value, ctypes.get_errno()]
path = {:?}.encode()
before = libc.open(path, 0) >= 0
libc.open(b"/give-up", 0)
result = [before, told(libc.open(path, 0)), told(libc.mount(b"a", b"/tmp", b"tmpfs", 0, None)), told(libc.syscall(321, 0, 0, 0))]
"#,
        place.join("granted").display().to_string()
    );
    // ENOSYS for what was watched or refused, also for what is answered with death otherwise: none is done.
    assert_eq!(run(&instance, &code).await, "[true,[-1,38],[-1,38],[-1,38]]");
}

/// Needs longer than the program's patience.
#[derive(Debug)]
struct Slow;

impl Observer for Slow {
    fn saw(&self, observation: Observation) {
        if matches!(&observation.subject, Subject::Path { path, .. } if path.starts_with("/slow")) {
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

#[tokio::test]
async fn a_slow_observer_makes_a_slow_program_that_can_be_ended() {
    let (mut bench, _) = observed();
    bench.spec.observe = Some(Arc::new(Slow));
    let instance = bench.launch(&process()).await.unwrap();
    let began = Instant::now();
    run(&instance, "os.path.exists('/slow/1') or os.path.exists('/slow/2')").await;
    assert!(began.elapsed() >= Duration::from_millis(600));
    let endless = eval(&instance, "exec('while True: os.path.exists(\"/slow/x\")')");
    tokio::select! {
        _ = endless => panic!("it never answers"),
        () = tokio::time::sleep(Duration::from_millis(200)) => {}
    }
    let began = Instant::now();
    instance.kill(palisade_sandbox::KillReason::Asked).await;
    assert!(began.elapsed() < Duration::from_secs(5), "a call that waits does not hold up a kill");
}
