// Policed limits: memory and CPU, sampled from /proc where no cgroup can hold them.
//
// Processor time is in `times.rs`. Memory counted: anonymous and shared resident pages of every process, their page tables, what lies in
// the private tmpfs mounts, and for each socket of the network namespace as much as its send buffer can
// hold (nothing tells how much it does). The quick count has shared pages once for each process, so it
// errs upwards; where it is over the limit, a slower one that divides them decides. The more of the limit
// is used, the closer the samples.

use crate::plan::word;
use crate::support::{Text, number};
use crate::sys::{self, Fd, nr, sys};
use crate::times::{self, Process, Tables, Times};

/// Milliseconds between samples: when little of the limit is used, and when much is.
const CALM_MS: i64 = 20;
const CLOSE_MS: i64 = 5;
/// The window over which a CPU share is held.
const WINDOW_NS: u64 = 100_000_000;
/// Most that one sample stands for: one that came late says nothing about the time before.
const MOST_ELAPSED_NS: u64 = 10_000_000;
/// Shortest time between two reports that processes have run.
const TOLD_NS: u64 = 10_000_000;

/// The default of net.core.wmem_default, and the last message that may exceed it.
const SOCKET_BYTES: u64 = 212_992 + 65_536;

pub struct Usage {
    pub pids: u32,
    pub memory: u64,
    /// The part of `memory` that was counted process by process.
    processes: u64,
    /// A process ran, was ready to, or waited for a disk.
    busy: bool,
}

pub struct Police<'a> {
    memory_limit: u64,
    cpu_millis: u64,
    times: Times<'a>,
    processors: u64,
    /// Microseconds of what pid 1 has waited for since the last sample.
    reaped: u64,
    memory: u64,
    sampled: u64,
    window_start: u64,
    stopped: bool,
    /// Microseconds for which one or more processes ran, and what the host was told of that, and when.
    ran: u64,
    told: u64,
    told_at: u64,
}

impl<'a> Police<'a> {
    pub fn new(config: &[u64; word::COUNT], tables: &'a mut Tables) -> Self {
        let (now, processors) = (sys::now_ns(), sys::processors());
        Police {
            memory_limit: config[word::MEMORY_LIMIT],
            cpu_millis: config[word::CPU_MILLIS],
            times: Times::new(tables, processors),
            processors,
            reaped: 0,
            memory: 0,
            sampled: now,
            window_start: now,
            stopped: false,
            ran: 0,
            told: 0,
            told_at: now,
        }
    }

    /// How long to sleep; -1 for ever.
    pub fn interval_ms(&self) -> i64 {
        if self.memory_limit == 0 && self.cpu_millis == 0 {
            -1
        } else if self.memory > self.memory_limit / 2 || self.cpu_millis != 0 {
            CLOSE_MS
        } else {
            CALM_MS
        }
    }

    pub fn set_memory_limit(&mut self, bytes: u64) {
        if self.memory_limit != 0 {
            self.memory_limit = bytes;
        }
    }

    pub fn reaped(&mut self, micros: u64) {
        self.reaped += micros;
    }

    pub fn usage(&self) -> Usage {
        sample(0, |_| {})
    }

    /// Takes a sample and acts on CPU; gives the bytes seen when memory is over its limit.
    pub fn tick(&mut self) -> Option<u64> {
        if self.memory_limit == 0 && self.cpu_millis == 0 {
            return None;
        }
        let now = sys::now_ns();
        let elapsed = (now - self.sampled).min(MOST_ELAPSED_NS) / 1000;
        self.sampled = now;
        let now_ticks = times::ticks(sys::since_boot_ns());
        let before = self.times.used();
        self.times.begin(now_ticks, elapsed);
        let seen = &mut self.times;
        let usage = sample(now_ticks, |process| seen.see(process));
        self.times.finish(core::mem::take(&mut self.reaped));
        let used = self.times.used().saturating_sub(before);
        self.ran += if usage.busy { used.max(elapsed) } else { used };
        self.memory = usage.memory;
        if self.memory_limit != 0 && usage.memory > self.memory_limit {
            // The quick count has shared pages once for each process: a hundred forks of one interpreter
            // look like a hundred interpreters. The slow one decides.
            let shared_out = usage.memory - usage.processes + proportional_bytes();
            if shared_out > self.memory_limit {
                return Some(shared_out);
            }
        }
        if self.cpu_millis != 0 {
            self.hold_cpu();
        }
        None
    }

    /// Microseconds for which processes have run in all, where that is news to the host.
    pub fn news(&mut self) -> Option<u64> {
        if self.ran == self.told || self.sampled - self.told_at < TOLD_NS {
            return None;
        }
        (self.told, self.told_at) = (self.ran, self.sampled);
        Some(self.ran)
    }

    /// Stops everything once a window's share is used up, until the window has grown to fit it.
    fn hold_cpu(&mut self) {
        let now = sys::now_ns();
        // No more than the processors have: what was estimated may be more.
        let possible_ns = (now - self.window_start).max(WINDOW_NS).saturating_mul(self.processors);
        let used_ns = self.times.used().saturating_mul(1000).min(possible_ns);
        let earned_ns = (now - self.window_start).max(WINDOW_NS) / 1000 * self.cpu_millis;
        if used_ns > earned_ns {
            if !self.stopped {
                self.stopped = true;
                sys!(nr::KILL, sys::EVERY, sys::SIGSTOP);
            }
            return;
        }
        if self.stopped {
            self.stopped = false;
            sys!(nr::KILL, sys::EVERY, sys::SIGCONT);
        }
        // A new window only once the old one is paid for, so that bursts do not add up.
        if now - self.window_start > WINDOW_NS {
            self.window_start = now;
            self.times.restart();
        }
    }
}

/// Every process that /proc shows, except this one. False where nothing could be seen.
fn each_process(mut visit: impl FnMut(u64)) -> bool {
    let dir = sys::openat(sys::AT_FDCWD, b"/proc\0", sys::O_RDONLY | sys::O_DIRECTORY, 0);
    if dir < 0 {
        return false;
    }
    let own = sys!(nr::GETPID) as u64;
    let mut buffer = [0u8; 4096];
    loop {
        let n = sys!(nr::GETDENTS64, dir, buffer.as_mut_ptr(), buffer.len());
        if n <= 0 {
            break;
        }
        // struct linux_dirent64: ino u64, off i64, reclen u16, type u8, name.
        let mut rest = &buffer[..n as usize];
        while rest.len() > 19 {
            let len = usize::from(u16::from_le_bytes([rest[16], rest[17]]));
            let (pid, after) = number(&rest[19..len.min(rest.len())]);
            if pid != 0 && pid != own && after.first() == Some(&0) {
                visit(pid);
            }
            rest = &rest[len.clamp(19, rest.len())..];
        }
    }
    sys::close(dir as Fd);
    true
}

fn read_file<'a>(pid: u64, name: &[u8], buffer: &'a mut [u8]) -> &'a [u8] {
    let mut path = Text::<64>::new();
    path.push(b"/proc/").push_number(pid).push(b"/").push(name);
    let fd = sys::openat(sys::AT_FDCWD, path.with_nul(), sys::O_RDONLY, 0);
    if fd < 0 {
        return &[];
    }
    let n = sys::read(fd as Fd, buffer);
    sys::close(fd as Fd);
    &buffer[..n.max(0) as usize]
}

/// The number after `key` in a file of `Key:   123 kB` lines.
fn field(text: &[u8], key: &[u8]) -> u64 {
    for line in text.split(|b| *b == b'\n') {
        if let Some(rest) = line.strip_prefix(key) {
            return number(rest).0;
        }
    }
    0
}

/// What is used, and each process in turn. `now_ticks`: clock ticks since boot.
fn sample(now_ticks: u64, mut each: impl FnMut(Process)) -> Usage {
    let mut usage =
        Usage { pids: 0, memory: tmpfs_bytes() + socket_bytes(), processes: 0, busy: false };
    let seen = each_process(|pid| {
        let mut buffer = [0u8; 2048];
        let status = read_file(pid, b"status", &mut buffer);
        let kib = field(status, b"RssAnon:") + field(status, b"RssShmem:") + field(status, b"VmPTE:");
        usage.memory = usage.memory.saturating_add(kib << 10);
        usage.processes = usage.processes.saturating_add(kib << 10);
        usage.pids += field(status, b"Threads:") as u32;
        let Some((state, mut process)) = process(pid) else { return };
        process.ready = state == b'R';
        usage.busy |= matches!(state, b'R' | b'D');
        if process.ready && process.is_young(now_ticks) {
            process.share = share(pid);
        }
        each(process);
    });
    // What cannot be seen cannot be policed: that counts as too much.
    if !seen {
        usage.memory = u64::MAX / 2;
    }
    usage
}

/// State and times of a process (proc_pid_stat(5)).
fn process(pid: u64) -> Option<(u8, Process)> {
    let mut buffer = [0u8; 1024];
    let stat = read_file(pid, b"stat", &mut buffer);
    // The name in parentheses may hold anything; the fields after the last ')' do not.
    let end = stat.iter().rposition(|b| *b == b')')?;
    let mut fields = stat[end + 1..].split(|b| *b == b' ').skip(1);
    let state = *fields.next()?.first()?;
    // utime, stime, cutime, cstime are fields 14 to 17, starttime is field 22.
    let mut ticks = [0u64; 9];
    for (to, from) in ticks.iter_mut().zip(fields.skip(10)) {
        *to = number(from).0;
    }
    let [user, system, waited_user, waited_system, .., start] = ticks;
    let own = times::micros(user.saturating_add(system));
    let waited = times::micros(waited_user.saturating_add(waited_system));
    Some((state, Process { pid, start, own, waited, ready: false, share: times::WHOLE }))
}

/// Of the time that a process was ready to run, how much it ran (/proc/<pid>/schedstat: nanoseconds run,
/// nanoseconds waited). All of it where that is not told.
fn share(pid: u64) -> u64 {
    let mut buffer = [0u8; 128];
    let (ran, rest) = number(read_file(pid, b"schedstat", &mut buffer));
    let (waited, _) = number(rest);
    let both = ran.saturating_add(waited);
    if both == 0 { times::WHOLE } else { ran.saturating_mul(times::WHOLE) / both }
}

/// Memory of every process, shared pages divided among those that share them. A process that hides its
/// share (it made itself undumpable) is counted in full.
fn proportional_bytes() -> u64 {
    let mut bytes = 0u64;
    let seen = each_process(|pid| {
        let mut buffer = [0u8; 2048];
        let status = read_file(pid, b"status", &mut buffer);
        let tables = field(status, b"VmPTE:");
        let full = field(status, b"RssAnon:") + field(status, b"RssShmem:");
        let mut buffer = [0u8; 2048];
        let rollup = read_file(pid, b"smaps_rollup", &mut buffer);
        let own = if rollup.is_empty() {
            full
        } else {
            field(rollup, b"Pss_Anon:") + field(rollup, b"Pss_Shmem:")
        };
        bytes = bytes.saturating_add((own + tables) << 10);
    });
    if seen { bytes } else { u64::MAX / 2 }
}

/// The process that a thread belongs to.
pub fn process_of(thread: u64) -> Option<u64> {
    let mut buffer = [0u8; 1024];
    let process = field(read_file(thread, b"status", &mut buffer), b"Tgid:");
    (process != 0).then_some(process)
}

/// What the plugin's sockets may hold at most. The filter keeps it from enlarging their buffers.
fn socket_bytes() -> u64 {
    let mut buffer = [0u8; 512];
    let own = sys!(nr::GETPID) as u64;
    field(read_file(own, b"net/sockstat", &mut buffer), b"sockets: used") * SOCKET_BYTES
}

fn tmpfs_bytes() -> u64 {
    let mut total = 0u64;
    for path in [&b"/tmp\0"[..], b"/dev/shm\0"] {
        let fd = sys::openat(sys::AT_FDCWD, path, sys::O_RDONLY | sys::O_DIRECTORY, 0);
        if fd >= 0 {
            // struct statfs of 64-bit Linux: type, bsize, blocks, bfree, … (words).
            let mut words = [0u64; 16];
            const TMPFS_MAGIC: u64 = 0x0102_1994;
            if sys!(nr::FSTATFS, fd, words.as_mut_ptr()) == 0 && words[0] == TMPFS_MAGIC {
                total = total.saturating_add(words[2].saturating_sub(words[3]).saturating_mul(words[1]));
            }
            sys::close(fd as Fd);
        }
    }
    total
}

/// Signals every child of this process, named one by one by the kernel
/// (`/proc/self/task/<tid>/children`). For the tier without a pid namespace: orphans of the plugin are
/// children of this process, so killing until there are none ends them all.
pub fn signal_descendants(signal: i32) {
    let own = sys!(nr::GETPID) as u64;
    let mut name = Text::<48>::new();
    name.push(b"task/").push_number(own).push(b"/children");
    let mut buffer = [0u8; 4096];
    let mut rest = read_file(own, name.bytes(), &mut buffer);
    while !rest.is_empty() {
        let (pid, after) = number(rest);
        if pid != 0 {
            sys!(nr::KILL, pid, signal);
        }
        rest = after.get(1..).unwrap_or_default();
        if pid == 0 && rest.is_empty() {
            break;
        }
    }
}
