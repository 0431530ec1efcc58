//! Debian's stress-ng behind the walls, with limits that cgroups hold and with limits that are policed: it
//! asks for far more than it may have, and the host measures what it gets.
//!
//! The bounds are those of docs/explanation/escapes.md. A run that did no work fails: what does not try to
//! exceed a limit shows nothing about it.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod support;

#[path = "stress/seen.rs"]
mod seen;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_process::{Options, POLICED_MEMORY_OVERSHOOT, ProcessBackend};
use palisade_sandbox::{
    Backend, Exit, ExitCause, Instance, KillReason, Runtime, Wire, stream::ByteWire,
};
use seen::{Meter, plugin};
use support::{Bench, bench};

const MIB: u64 = 1 << 20;
const MEMORY: u64 = 64 * MIB;
/// What memory groups may hold beyond the limit for a moment: the kernel charges in batches.
const CGROUP_SLACK: u64 = 4 * MIB;
/// What may be written before the data folder is measured, on a busy machine.
const DISK_OVERSHOOT: u64 = 256 * MIB;
const PIDS: u32 = 16;
const HANDLES: u32 = 200;
const CPU: f64 = 0.5;
/// How much more than its share a plugin may get over two seconds, with cgroups and where it is policed.
const CPU_SLACK: f64 = 1.5;
const POLICED_CPU_SLACK: f64 = 2.0;
/// Seconds of processor time that show that it has worked: enough to touch all of its memory.
const WORKED: f64 = 0.15;
/// Clock ticks a second in /proc (USER_HZ).
const TICKS: f64 = 100.0;
/// How long it gets for that where the machine is busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// One at a time, also where all tests share a process: a plugin is found by whose child it is.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Where memory is policed nobody gets shared anonymous memory, without which stress-ng does not begin. Like
/// an attacker who has read that, it takes a file without a name in `/tmp` instead.
const SHARED: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <stdlib.h>
#include <sys/wait.h>

__attribute__((constructor)) static void leave_session(void) {
    if (!getenv("OWN_SESSION")) return;
    /* Who leads a process group cannot begin a session (setsid(2)): a child does. */
    pid_t child = fork();
    if (child == 0) {
        setsid();
        return;
    }
    waitpid(child, NULL, 0);
    _exit(0);
}

void *mmap(void *at, size_t bytes, int prot, int flags, int file, off_t offset) {
    int shared = (flags & 0xf) == MAP_SHARED || (flags & 0xf) == 3;
    if (!shared || !(flags & MAP_ANONYMOUS))
        return (void *)syscall(SYS_mmap, at, bytes, prot, flags, file, offset);
    file = open("/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, (off_t)bytes) != 0) return MAP_FAILED;
    void *result = (void *)syscall(SYS_mmap, at, bytes, prot, flags & ~MAP_ANONYMOUS, file, 0);
    close(file);
    return result;
}

void *mmap64(void *at, size_t bytes, int prot, int flags, int file, off_t offset) {
    return mmap(at, bytes, prot, flags, file, offset);
}
"#;

fn stress_ng() -> Option<PathBuf> {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("stress-ng"))
        .find(|program| program.is_file());
    if found.is_none() {
        // `cargo xtask test` installs it, and CI runs that.
        assert!(std::env::var_os("CI").is_none(), "in CI nothing may be skipped");
        eprintln!("SKIPPED: there is no stress-ng (apt-get install stress-ng)");
    }
    found
}

/// stress-ng in a plugin's place.
struct Stress {
    bench: Bench,
    backend: ProcessBackend,
    cgroups: bool,
    meter: Option<Meter>,
}

/// What came of a run, as it was seen from outside.
struct Came {
    exit: Exit,
    /// The most bytes of memory.
    memory: u64,
    /// The most processes and threads, counted while all of them stood still.
    threads: u64,
    /// The most handles of one process.
    handles: u64,
    /// The most bytes on disk.
    disk: u64,
    /// Whether it used the processor, and how many of them.
    worked: bool,
    share: f64,
    /// One of its processes had a real-time priority.
    realtime: bool,
}

impl Came {
    fn by_limit(&self, what: &str) -> bool {
        match &self.exit.cause {
            ExitCause::OutOfMemory => what == "memory",
            ExitCause::Killed(KillReason::Limit(why)) => why.starts_with(what),
            _ => false,
        }
    }
}

impl Stress {
    /// `None` where there is no stress-ng.
    async fn new(cgroups: bool) -> Option<Self> {
        let program = stress_ng()?;
        let mut bench = bench(Runtime::Native, "shared.c", SHARED.as_bytes());
        bench.artifact.program.file = program.display().to_string();
        if !cgroups {
            let root = &bench.artifact.content.root;
            let compiled = Command::new("cc")
                .args(["-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o"])
                .args([root.join("shared.so"), root.join("shared.c")])
                .status();
            assert!(compiled.expect("a C compiler").success());
            bench.spec.env.insert("LD_PRELOAD".into(), "/plugin/shared.so".into());
        }
        bench.spec.limits.memory = MEMORY;
        bench.spec.limits.disk = 64 * MIB;
        // Enough to reach the other limits, and no more than one processor: the rest is for who measures.
        bench.spec.limits.cpu = 1.0;
        let backend = ProcessBackend::new(Options { cgroups, ..Options::default() });
        assert!(backend.probe().await.unavailable.is_none());
        // Where a group holds its memory, that group has the peak.
        let meter = if cgroups { None } else { Meter::around_children() };
        Some(Self { bench, backend, cgroups, meter })
    }

    /// Runs it for so long, with a folder to write in; for longer where it has done too little by then.
    async fn run(&mut self, folder: &str, args: &[&str], time: Duration) -> Came {
        let data = self.bench.spec.data.clone();
        clear(&data);
        let program = &mut self.bench.artifact.program;
        program.args = ["--timeout", "0", "--temp-path", folder]
            .iter()
            .chain(args)
            .map(|a| (*a).to_owned())
            .collect();
        let (wire, _ends) = ByteWire::new();
        self.bench.spec.wire = Wire::Bytes(wire);
        let before = self.meter.as_ref().map_or(0, Meter::reset);
        let instance = self.bench.launch(&self.backend).await.unwrap();
        let begun = Instant::now();
        let (mut memory, mut threads, mut ticks, mut disk) = (0, 0, 0, 0);
        let mut handles = 0;
        let mut realtime = false;
        let (counts, mut counted) = (self.bench.spec.limits.pids == PIDS, begun);
        let done = |ticks: u64| begun.elapsed() > if is_work(ticks) { time } else { PATIENCE };
        while !done(ticks) && !has_ended(&instance).await {
            let processes = plugin();
            memory = memory.max(processes.iter().map(|p| p.memory).sum());
            ticks = ticks.max(processes.iter().map(|p| p.ticks).sum());
            realtime |= processes.iter().any(|p| p.realtime);
            handles = processes.iter().map(|p| p.handles).fold(handles, u64::max);
            disk = disk.max(seen::on_disk(&data, &processes));
            if counts && counted.elapsed() > Duration::from_millis(100) {
                threads = threads.max(count(&instance).await);
                counted = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ran = begun.elapsed().as_secs_f64();
        let exit = instance.kill(KillReason::Asked).await;
        disk = disk.max(seen::on_disk(&data, &[]));
        let memory = match (&self.meter, exit.usage.and_then(|u| u.memory_peak)) {
            (Some(meter), _) => meter.peak().saturating_sub(before),
            (None, Some(peak)) => peak,
            (None, None) => memory,
        };
        let (worked, share) = (is_work(ticks), ticks as f64 / TICKS / ran);
        let came = Came { exit, memory, threads, handles, disk, worked, share, realtime };
        println!(
            "cgroups {}: {args:?}: {} after {ran:.1} s; memory {} MiB, {threads} threads, {handles} handles, disk {} MiB, {share:.2} processors",
            self.cgroups,
            came.exit,
            memory / MIB,
            disk / MIB
        );
        came
    }
}

/// Processes and threads while all of them stand still: of those that come and go, one look at all would see
/// some twice. 0 where they did not stop in time.
async fn count(instance: &Arc<dyn Instance>) -> u64 {
    if instance.freeze().await.is_err() {
        return 0;
    }
    let (mut before, mut found) = (None, 0);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let processes = plugin();
        let threads = processes.iter().map(|p| p.threads).sum();
        if !processes.iter().all(|p| p.stands) {
            continue;
        }
        // A thread that is not the first of its process may stop a moment later.
        if before == Some(threads) {
            found = threads;
            break;
        }
        before = Some(threads);
    }
    let _ = instance.thaw().await;
    found
}

fn is_work(ticks: u64) -> bool {
    ticks as f64 / TICKS >= WORKED
}

async fn has_ended(instance: &Arc<dyn Instance>) -> bool {
    tokio::time::timeout(Duration::ZERO, instance.wait()).await.is_ok()
}

fn clear(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
            .unwrap();
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// What each takes, and whether it must reach the limit: what lies in a tmpfs or in pipes has a cap of its own
/// before.
const OF_MEMORY: [(&str, &[&str], bool); 6] = [
    ("/data", &["--vm", "2", "--vm-bytes", "1g"], true),
    ("/data", &["--bigheap", "2"], true),
    ("/data", &["--shm", "2"], false),
    ("/tmp", &["--hdd", "2", "--hdd-bytes", "1g"], false),
    ("/data", &["--pipe", "8"], false),
    ("/data", &["--sockpair", "8"], true),
];

/// Single bytes of thousands of large mappings: of what this takes, a fifth is page tables. It does not begin where
/// memory is policed, because it wants shared memory without a file for all of them.
const OF_PAGE_TABLES: (&str, &[&str], bool) = ("/data", &["--mmaphuge", "2"], true);

async fn memory(cgroups: bool) {
    let _alone = ALONE.lock().await;
    let Some(mut stress) = Stress::new(cgroups).await else { return };
    let over = if cgroups { CGROUP_SLACK } else { POLICED_MEMORY_OVERSHOOT };
    let more = cgroups.then_some(OF_PAGE_TABLES);
    for (folder, args, reaches) in OF_MEMORY.into_iter().chain(more) {
        let came = stress.run(folder, args, SECOND).await;
        let Came { memory, worked, .. } = came;
        assert!(memory <= MEMORY + over, "{args:?}: {memory} bytes at a limit of {MEMORY}");
        let met = came.by_limit("memory") || (cgroups && memory > MEMORY - MIB);
        assert!(met || !reaches, "{args:?}: the limit was not met: {}", came.exit);
        assert!(met || worked, "{args:?} did nothing: {}", came.exit);
    }
}

#[tokio::test]
async fn memory_is_held_by_a_group() {
    memory(true).await;
}

#[tokio::test]
async fn memory_is_held_where_it_is_policed() {
    memory(false).await;
}

async fn processes(cgroups: bool) {
    let _alone = ALONE.lock().await;
    let Some(mut stress) = Stress::new(cgroups).await else { return };
    stress.bench.spec.limits.pids = PIDS;
    // Room for the stacks, so that it is the count that holds them.
    stress.bench.spec.limits.memory = 4 * MEMORY;
    for args in [&["--fork", "4", "--fork-max", "64"][..], &["--pthread", "4"]] {
        let limit = u64::from(PIDS);
        let mut came = stress.run("/data", args, SECOND).await;
        // On a busy machine it may not have come to it yet.
        for more in [4, 16] {
            if came.threads < limit / 2 {
                came = stress.run("/data", args, more * SECOND).await;
            }
        }
        let threads = came.threads;
        assert!(threads <= limit, "{args:?}: {threads} processes and threads at a limit of {PIDS}");
        assert!(threads >= limit / 2, "{args:?}: {threads} processes and threads: {}", came.exit);
    }
}

#[tokio::test]
async fn processes_and_threads_are_held_by_a_group() {
    processes(true).await;
}

#[tokio::test]
async fn processes_and_threads_are_held_without_a_group() {
    processes(false).await;
}

/// What each takes, and whether it first tries to get a session of its own. Those that only pass a byte to
/// each other in a session of their own keep everybody else from the processors for up to half a minute on
/// Linux 6.18 with `sched_autogroup_enabled`, pid 1 too.
const OF_PROCESSORS: [(&[&str], bool); 4] = [
    (&["--cpu", "8"], false),
    (&["--timer", "4", "--timer-freq", "1000000"], false),
    (&["--pipe", "8"], false),
    (&["--pipe", "8"], true),
];

async fn processor_time(cgroups: bool) {
    let _alone = ALONE.lock().await;
    let Some(mut stress) = Stress::new(cgroups).await else { return };
    stress.bench.spec.limits.cpu = CPU;
    let slack = if cgroups { CPU_SLACK } else { POLICED_CPU_SLACK };
    for (args, own_session) in OF_PROCESSORS {
        let env = &mut stress.bench.spec.env;
        if own_session {
            env.insert("OWN_SESSION".into(), "1".into());
        } else {
            env.remove("OWN_SESSION");
        }
        let came = stress.run("/data", args, 2 * SECOND).await;
        let Came { worked, share, .. } = came;
        assert!(share <= CPU * slack, "{args:?}: {share:.2} processors at a limit of {CPU}");
        assert!(worked, "{args:?} did nothing: {}", came.exit);
    }
}

#[tokio::test]
async fn processor_time_is_held_by_a_group() {
    processor_time(true).await;
}

#[tokio::test]
async fn processor_time_is_held_where_it_is_policed() {
    processor_time(false).await;
}

/// Files below the most that one may hold (a quarter of the bytes each), so that all of them together are
/// measured; and names, which fill the folder itself.
const OF_DISK: [(&[&str], u64, bool); 2] = [
    (&["--hdd", "4", "--hdd-bytes", "48m"], 16 * MIB, true),
    (&["--dentry", "2", "--dentries", "100000"], 3 * MIB, false),
];

async fn disk(cgroups: bool) {
    let _alone = ALONE.lock().await;
    let Some(mut stress) = Stress::new(cgroups).await else { return };
    // Files on disk are the kernel's memory too where a group counts it: room, so that the disk decides.
    stress.bench.spec.limits.memory = 8 * MEMORY;
    for (args, limit, reaches) in OF_DISK {
        stress.bench.spec.limits.disk = limit;
        let came = stress.run("/data", args, 2 * SECOND).await;
        let Came { disk, worked, .. } = came;
        assert!(disk <= limit + DISK_OVERSHOOT, "{args:?}: {disk} bytes at a limit of {limit}");
        let met = came.by_limit("disk");
        assert!(met || !reaches, "{args:?}: the limit was not met: {}", came.exit);
        assert!(met || worked, "{args:?} did nothing: {}", came.exit);
    }
}

#[tokio::test]
async fn the_data_folder_is_held_with_groups() {
    disk(true).await;
}

#[tokio::test]
async fn the_data_folder_is_held_without_groups() {
    disk(false).await;
}

#[tokio::test]
async fn each_process_has_so_many_handles_and_no_more() {
    let _alone = ALONE.lock().await;
    for cgroups in [true, false] {
        let Some(mut stress) = Stress::new(cgroups).await else { return };
        stress.bench.spec.limits.files = HANDLES;
        let came = stress.run("/data", &["--open", "2", "--open-max", "100000"], SECOND).await;
        let (handles, most) = (came.handles, u64::from(HANDLES));
        assert!(handles <= most, "{handles} handles at a limit of {HANDLES}");
        assert!(handles >= most / 2, "it tried no more than {handles}: {}", came.exit);
    }
}

#[tokio::test]
async fn a_real_time_priority_is_refused() {
    let _alone = ALONE.lock().await;
    for cgroups in [true, false] {
        let Some(mut stress) = Stress::new(cgroups).await else { return };
        let args = ["--sched", "fifo", "--sched-prio", "50", "--cpu", "2"];
        let came = stress.run("/data", &args, 5 * SECOND).await;
        assert_eq!(came.exit.cause, ExitCause::Exited(1), "it goes on without one");
        assert!(!came.realtime, "it had one");
        let why = "cannot set scheduler 'fifo': errno=1";
        let end = Instant::now() + SECOND;
        let told = || stress.bench.host.lines.lock().unwrap().iter().any(|l| l.contains(why));
        while !told() {
            assert!(Instant::now() < end, "{:?}", stress.bench.host.lines.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
