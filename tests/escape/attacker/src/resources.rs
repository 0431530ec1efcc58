//! Attempts 42 to 44: processes, memory and processor time.
//!
//! Each reports how much it reached; reaching what was asked for is the success. What is taken is
//! taken in a child that the OOM killer prefers, and counted in shared memory, so that the count
//! outlives it. Outside the walls every amount is cut to something that no machine notices.

use crate::filter::sched_fifo;
use crate::outcome::{At, Attempted, Errno, Outcome, Sys, blocked, succeeded};
use crate::sys::{self, c, close};
use crate::table::{Attempt, Control, Ctx};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(42, "fork", "live children", Control::Run, &["count"], fork_bomb),
    Attempt::new(42, "threads", "live threads", Control::Run, &["count"], thread_bomb),
    Attempt::new(42, "orphans", "live orphans, each in a session of its own", Control::Run, &["count"], orphans),
    Attempt::new(42, "raise-nproc", "lift RLIMIT_NPROC", Control::None("needs CAP_SYS_RESOURCE, which this machine withholds from root too"), &[], |_| raise(libc::RLIMIT_NPROC as i32)),
    Attempt::new(43, "anon", "anonymous memory", Control::Run, &["bytes"], |x| hold(x, anon)),
    Attempt::new(43, "tmp", "files in /tmp", Control::Run, &["bytes"], |x| hold(x, |n, goal| files(n, goal, "/tmp"))),
    Attempt::new(43, "shm", "files in /dev/shm", Control::Run, &["bytes"], |x| hold(x, |n, goal| files(n, goal, "/dev/shm"))),
    Attempt::new(43, "memfd", "memfd pages", Control::Run, &["bytes"], |x| hold(x, memfd)),
    Attempt::new(43, "sysv", "System V shared memory", Control::Run, &["bytes"], |x| hold(x, sysv)),
    Attempt::new(43, "sysv-detached", "System V shared memory that nobody is attached to", Control::Run, &["bytes"], |x| hold(x, sysv_detached)),
    Attempt::new(43, "shared-dropped", "shared anonymous memory, taken out of the page tables again", Control::Run, &["bytes"], |x| hold(x, |n, goal| dropped(n, goal, -1))),
    Attempt::new(43, "zero-dropped", "the same by a shared mapping of /dev/zero", Control::Run, &["bytes"], zero_dropped),
    Attempt::new(43, "queues", "messages in System V queues", Control::Run, &["bytes"], |x| hold(x, queues)),
    Attempt::new(43, "pipes", "pipe buffers", Control::Run, &["bytes"], |x| hold(x, pipes)),
    Attempt::new(43, "sockets", "socket buffers", Control::Run, &["bytes"], |x| hold(x, sockets)),
    Attempt::new(43, "page-tables", "page tables", Control::Run, &["bytes"], |x| hold(x, page_tables)),
    Attempt::new(43, "many-children", "anonymous memory spread over 8 children", Control::Run, &["bytes"], |x| hold(x, spread)),
    Attempt::new(43, "many-sockets", "socket buffers of many children", Control::Run, &["bytes"], |x| hold(x, |n, goal| children(n, goal, 24, sockets))),
    Attempt::new(43, "many-pipes", "pipe buffers of many children", Control::Run, &["bytes"], |x| hold(x, |n, goal| children(n, goal, 24, pipes))),
    Attempt::new(43, "mlock", "locked memory", Control::Root, &["bytes"], |x| hold(x, locked)),
    Attempt::new(43, "raise-as", "lift RLIMIT_AS", Control::None("needs CAP_SYS_RESOURCE, which this machine withholds from root too"), &[], |_| raise(libc::RLIMIT_AS as i32)),
    Attempt::new(44, "spin", "processor time with `threads` threads", Control::Run, &["threads", "seconds", "max_cpus"], spin),
    Attempt::new(44, "spin-children", "processor time with `threads` children", Control::Run, &["threads", "seconds", "max_cpus"], spin_children),
    Attempt::new(44, "spin-unwaited", "processor time with children whose time is added to nobody's", Control::Run, &["threads", "seconds", "max_cpus"], crate::bombs::spin_unwaited),
    Attempt::new(44, "fifo", "SCHED_FIFO", Control::Root, &[], |_| sched_fifo(0)),
    Attempt::new(44, "deadline", "SCHED_DEADLINE by sched_setattr", Control::Root, &[], |_| sched_attr(6)),
    Attempt::new(44, "rr-attr", "SCHED_RR by sched_setattr", Control::Root, &[], |_| sched_attr(2)),
    Attempt::new(44, "nice", "nice -20", Control::Root, &[], |_| sys!(libc::SYS_setpriority, 0, 0, -20).at("setpriority").map(|_| succeeded("nice is -20"))),
    Attempt::new(44, "ioprio", "real-time I/O priority", Control::Root, &[], |_| sys!(libc::SYS_ioprio_set, 1, 0, 1 << 13).at("ioprio_set").map(|_| succeeded("real-time I/O class"))),
    Attempt::new(44, "raise-cpu", "lift RLIMIT_CPU and RLIMIT_RTPRIO", Control::None("needs CAP_SYS_RESOURCE, which this machine withholds from root too"), &[], |_| raise(libc::RLIMIT_RTPRIO as i32)),
];

/// Lifts a hard limit by one, or from infinity shows that it never was limited.
pub fn raise(resource: i32) -> Attempted {
    let mut now = [0u64; 2];
    sys!(libc::SYS_prlimit64, 0, resource, 0, now.as_mut_ptr()).at("prlimit (read)")?;
    if now[1] == u64::MAX {
        return Ok(succeeded("it is not limited"));
    }
    let more = [now[1] + 1, now[1] + 1];
    sys!(libc::SYS_prlimit64, 0, resource, more.as_ptr(), 0).at("prlimit (raise)")?;
    Ok(succeeded(format!("raised from {} to {}", now[1], more[1])))
}

fn judge_count(reached: u64, goal: u64, last: Option<Errno>, what: &str) -> Attempted {
    if reached >= goal {
        return Ok(succeeded(format!("{reached} {what}")));
    }
    Ok(blocked(last.map(|e| e.0), format!("{reached} of {goal} {what}")))
}

fn fork_bomb(ctx: &Ctx) -> Attempted {
    let goal = ctx.amount("count", 4096, 64).min(1 << 20);
    let end = Instant::now() + Duration::from_secs(30);
    let mut children = Vec::new();
    let mut last = None;
    while (children.len() as u64) < goal && Instant::now() < end {
        match sys::fork() {
            Ok(0) => loop {
                // SAFETY: waits for the end that the parent brings, or its death.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::pause();
                }
            },
            Ok(pid) => children.push(pid),
            Err(e) => {
                last = Some(e);
                break;
            }
        }
    }
    let reached = children.len() as u64;
    children.into_iter().for_each(sys::end_child);
    judge_count(reached, goal, last, "children lived at once")
}

fn orphans(ctx: &Ctx) -> Attempted {
    let goal = ctx.amount("count", 1024, 64).min(1 << 20);
    let (hold_r, hold_w) = sys::pipe().setup("pipe")?;
    let mut reached = 0;
    let mut last = None;
    // The count of an orphan comes over the pipe, since nobody can wait for it.
    let (count_r, count_w) = sys::pipe().setup("pipe")?;
    for _ in 0..goal {
        let child = match sys::fork() {
            Ok(child) => child,
            Err(e) => {
                last = Some(e);
                break;
            }
        };
        if child == 0 {
            // SAFETY: plain calls of a daemon; it ends when the pipe's last writer is gone.
            unsafe {
                libc::setsid();
                match libc::fork() {
                    0 => {
                        let _ = sys::write_fd(count_w, b"1");
                        close(hold_w);
                        close(count_w);
                        sys::poll(hold_r, libc::POLLIN, Duration::from_secs(30));
                        libc::_exit(0)
                    }
                    -1 => libc::_exit(Errno::last().0),
                    _ => libc::_exit(0),
                }
            }
        }
        match sys::wait_child(child, Duration::from_secs(2), 0) {
            Some(status) if libc::WEXITSTATUS(status) != 0 => {
                last = Some(Errno(libc::WEXITSTATUS(status)));
                break;
            }
            Some(_) => {
                if sys::poll(count_r, libc::POLLIN, Duration::from_secs(1)) {
                    let mut one = [0u8; 1];
                    reached +=
                        sys!(libc::SYS_read, count_r, one.as_mut_ptr(), 1).unwrap_or(0) as u64;
                }
            }
            None => break,
        }
    }
    [hold_r, hold_w, count_r, count_w].into_iter().for_each(close);
    judge_count(reached, goal, last, "orphans lived at once")
}

fn thread_bomb(ctx: &Ctx) -> Attempted {
    static END: AtomicBool = AtomicBool::new(false);
    let goal = ctx.amount("count", 4096, 64).min(1 << 17);
    END.store(false, Ordering::SeqCst);
    let mut threads = Vec::new();
    let mut last = None;
    while (threads.len() as u64) < goal {
        let started = std::thread::Builder::new().stack_size(16_384).spawn(|| {
            while !END.load(Ordering::SeqCst) {
                std::thread::park_timeout(Duration::from_secs(1));
            }
        });
        match started {
            Ok(thread) => threads.push(thread),
            Err(e) => {
                last = Some(Errno(e.raw_os_error().unwrap_or(0)));
                break;
            }
        }
    }
    let reached = threads.len() as u64;
    END.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.thread().unpark();
        let _ = thread.join();
    }
    judge_count(reached, goal, last, "threads lived at once")
}

/// A page that a child shares with us: bytes held so far, and the errno that ended it.
pub struct Shared(*mut AtomicU64);

impl Shared {
    pub fn new() -> Sys<Self> {
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        let page = sys!(libc::SYS_mmap, 0, 4096, prot, flags, -1, 0).or_else(|_| {
            // Where shared memory without a name is refused, a file does as well.
            let path = format!("/dev/shm/attacker-count-{}", sys::pid());
            let file = sys::open(&path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600)?;
            let _ = sys!(libc::SYS_unlinkat, sys::CWD, c(&path).as_ptr(), 0);
            sys!(libc::SYS_ftruncate, file, 4096)?;
            let page = sys!(libc::SYS_mmap, 0, 4096, prot, libc::MAP_SHARED, file, 0);
            close(file);
            page
        })?;
        Ok(Self(page as *mut AtomicU64))
    }

    pub fn cell(&self, index: usize) -> &AtomicU64 {
        // SAFETY: the page is mapped for as long as the process lives and holds 512 cells.
        unsafe { &*self.0.add(index) }
    }
}

/// Runs `take` in a child until it holds `bytes`; it counts as it goes.
pub fn hold(ctx: &Ctx, take: fn(&AtomicU64, u64) -> Result<(), Errno>) -> Attempted {
    let goal = ctx.amount("bytes", 1 << 30, 32 * MIB);
    let shared = Shared::new().setup("shared page")?;
    let child = sys::fork().setup("fork")?;
    if child == 0 {
        // SAFETY: plain calls; a signal of the file size limit must come as an errno.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        }
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        if let Err(e) = take(shared.cell(0), goal) {
            shared.cell(1).store(e.0 as u64, Ordering::SeqCst);
            // What was taken is held for a while, so that whoever samples has the time to.
            let time = if ctx.outside() { 0 } else { ctx.num("hold_ms", 0).min(10_000) };
            sys::sleep(Duration::from_millis(time));
        }
        sys::exit(0);
    }
    let status = sys::wait_child(child, Duration::from_secs(50), 0);
    if status.is_none() {
        sys::end_child(child);
    }
    let _ = std::fs::remove_file(hog("/tmp", child));
    let _ = std::fs::remove_file(hog("/dev/shm", child));
    let held = shared.cell(0).load(Ordering::SeqCst);
    let errno = shared.cell(1).load(Ordering::SeqCst) as i32;
    if held >= goal {
        return Ok(succeeded(format!("{held} bytes held")));
    }
    let killed = status.filter(|s| libc::WIFSIGNALED(*s)).map(|s| libc::WTERMSIG(s));
    let how = killed
        .map_or_else(String::new, |s| format!(", killed by {}", crate::outcome::signal_name(s)));
    let detail = format!("{held} of {goal} bytes held{how}");
    Ok(Outcome { killed, ..blocked((errno != 0).then_some(errno), detail) })
}

fn map(bytes: u64, flags: i32) -> Sys<*mut u8> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    sys!(libc::SYS_mmap, 0, bytes, prot, flags, -1, 0).map(|p| p as *mut u8)
}

fn touch(memory: *mut u8, bytes: u64) {
    for page in (0..bytes).step_by(4096) {
        // SAFETY: within the mapping that the caller made.
        unsafe { memory.add(page as usize).write_volatile(1) };
    }
}

fn anon(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
    while held.load(Ordering::Relaxed) < goal {
        touch(map(MIB, 0)?, MIB);
        held.fetch_add(MIB, Ordering::SeqCst);
    }
    Ok(())
}

fn locked(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
    while held.load(Ordering::Relaxed) < goal {
        let memory = map(MIB, 0)?;
        sys!(libc::SYS_mlock, memory, MIB)?;
        held.fetch_add(MIB, Ordering::SeqCst);
    }
    Ok(())
}

fn spread(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
    children(held, goal, 8, anon)
}

/// The same in several children, which go on holding what they got. ENOMEM where one was killed for it.
pub fn children(
    held: &AtomicU64,
    goal: u64,
    count: usize,
    take: fn(&AtomicU64, u64) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let (ready_r, ready_w) = sys::pipe()?;
    let mut started = Vec::new();
    for _ in 0..count {
        match sys::fork()? {
            0 => {
                // SAFETY: plain call.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                let error = take(held, goal).err().map_or(0, |e| e.0);
                // What it took stays in its descriptors and pages; this pipe was open before.
                let _ = sys::write_fd(ready_w, &[error as u8]);
                loop {
                    sys::sleep(Duration::from_secs(1));
                }
            }
            pid => started.push(pid),
        }
    }
    let end = Instant::now() + Duration::from_secs(10);
    let (mut ready, mut last, mut killed) = (0, 0, false);
    while Instant::now() < end && ready < started.len() && held.load(Ordering::Relaxed) < goal {
        if sys::poll(ready_r, libc::POLLIN, Duration::from_millis(10)) {
            let bytes = sys::read_fd(ready_r).unwrap_or_default();
            ready += bytes.len();
            last = bytes.last().copied().map_or(last, i32::from);
        }
        killed |= started.iter().any(|pid| sys::wait_child(*pid, Duration::ZERO, 0).is_some());
        if killed {
            break;
        }
    }
    sys::sleep(Duration::from_millis(200));
    started.into_iter().for_each(sys::end_child);
    match (killed, last) {
        (true, _) => Err(Errno(libc::ENOMEM)),
        (false, 0) => Ok(()),
        (false, errno) => Err(Errno(errno)),
    }
}

/// The file that fills a memory file system; the parent removes it where its maker is killed.
fn hog(dir: &str, pid: i32) -> String {
    format!("{dir}/attacker-hog-{pid}")
}

fn fill(fd: i32, held: &AtomicU64, goal: u64) -> Result<(), Errno> {
    let chunk = vec![1u8; MIB as usize];
    while held.load(Ordering::Relaxed) < goal {
        let n = sys::write_fd(fd, &chunk)?;
        held.fetch_add(n as u64, Ordering::SeqCst);
    }
    Ok(())
}

fn files(held: &AtomicU64, goal: u64, dir: &str) -> Result<(), Errno> {
    let path = hog(dir, sys::pid());
    let fd = sys::open(&path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600)?;
    let filled = fill(fd, held, goal);
    let _ = sys!(libc::SYS_unlinkat, sys::CWD, c(&path).as_ptr(), 0);
    filled
}

fn memfd(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
    let fd = sys!(libc::SYS_memfd_create, c"hog".as_ptr(), 8)?;
    fill(fd as i32, held, goal)
}

fn sysv(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
    while held.load(Ordering::Relaxed) < goal {
        let id = sys!(libc::SYS_shmget, libc::IPC_PRIVATE, MIB, 0o600)?;
        let memory = sys!(libc::SYS_shmat, id, 0, 0);
        // Removed at once: it lives as long as we are attached.
        let _ = sys!(libc::SYS_shmctl, id, libc::IPC_RMID, 0);
        touch(memory? as *mut u8, MIB);
        held.fetch_add(MIB, Ordering::SeqCst);
    }
    Ok(())
}

/// Removed at the end: segments outlive their makers.
fn sysv_detached(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
    let mut segments = Vec::new();
    let mut result = Ok(());
    while held.load(Ordering::Relaxed) < goal && result.is_ok() {
        result = sys!(libc::SYS_shmget, libc::IPC_PRIVATE, 8 * MIB, 0o600).and_then(|id| {
            segments.push(id);
            let memory = sys!(libc::SYS_shmat, id, 0, 0)? as *mut u8;
            touch(memory, 8 * MIB);
            sys!(libc::SYS_shmdt, memory)?;
            held.fetch_add(8 * MIB, Ordering::SeqCst);
            Ok(())
        });
    }
    for id in segments {
        let _ = sys!(libc::SYS_shmctl, id, libc::IPC_RMID, 0);
    }
    result
}

/// The pages stay with the object as long as one of them is mapped, but count for no process.
fn dropped(held: &AtomicU64, goal: u64, file: i32) -> Result<(), Errno> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | if file < 0 { libc::MAP_ANONYMOUS } else { 0 };
    while held.load(Ordering::Relaxed) < goal {
        let memory = sys!(libc::SYS_mmap, 0, 8 * MIB, prot, flags, file, 0)? as *mut u8;
        touch(memory, 8 * MIB);
        sys!(libc::SYS_madvise, memory, 8 * MIB, libc::MADV_DONTNEED)?;
        held.fetch_add(8 * MIB, Ordering::SeqCst);
    }
    Ok(())
}

fn zero_dropped(ctx: &Ctx) -> Attempted {
    sys::open("/dev/zero", libc::O_RDWR, 0).map(close).at("open /dev/zero")?;
    hold(ctx, |held, goal| dropped(held, goal, sys::open("/dev/zero", libc::O_RDWR, 0)?))
}

/// 16 KiB to a queue; removed at the end.
fn queues(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
    let mut queues = Vec::new();
    let mut result = Ok(());
    let mut message = [0u64; 513];
    message[0] = 1;
    while held.load(Ordering::Relaxed) < goal && result.is_ok() {
        result = sys!(libc::SYS_msgget, libc::IPC_PRIVATE, 0o600).map(|id| {
            queues.push(id);
            while sys!(libc::SYS_msgsnd, id, message.as_ptr(), 4096, libc::IPC_NOWAIT).is_ok() {
                held.fetch_add(4096, Ordering::SeqCst);
            }
        });
    }
    for id in queues {
        let _ = sys!(libc::SYS_msgctl, id, libc::IPC_RMID, 0);
    }
    result
}

fn pipes(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
    while held.load(Ordering::Relaxed) < goal {
        let (_, w) = sys::pipe()?;
        let _ = sys!(libc::SYS_fcntl, w, libc::F_SETPIPE_SZ, MIB);
        sys!(libc::SYS_fcntl, w, libc::F_SETFL, libc::O_NONBLOCK)?;
        while let Ok(n) = sys::write_fd(w, &[1; 4096]) {
            held.fetch_add(n as u64, Ordering::SeqCst);
        }
    }
    Ok(())
}

fn sockets(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
    while held.load(Ordering::Relaxed) < goal {
        let (a, _) = sys::socketpair()?;
        let size = 8 * MIB as i32;
        let _ =
            sys!(libc::SYS_setsockopt, a, libc::SOL_SOCKET, libc::SO_SNDBUF, &raw const size, 4);
        sys!(libc::SYS_fcntl, a, libc::F_SETFL, libc::O_NONBLOCK)?;
        while let Ok(n) = sys::write_fd(a, &[1; 4096]) {
            held.fetch_add(n as u64, Ordering::SeqCst);
        }
    }
    Ok(())
}

/// Reading one page in every 2 MiB maps the shared zero page: each costs one page of page table.
fn page_tables(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
    const SPAN: u64 = 1 << 30;
    while held.load(Ordering::Relaxed) < goal {
        let memory = map(SPAN, libc::MAP_NORESERVE)?;
        let _ = sys!(libc::SYS_madvise, memory, SPAN, libc::MADV_NOHUGEPAGE);
        for part in (0..SPAN).step_by(2 << 20) {
            // SAFETY: within the mapping.
            unsafe { memory.add(part as usize).read_volatile() };
            held.fetch_add(4096, Ordering::SeqCst);
        }
    }
    Ok(())
}

/// Processor seconds of this process and its reaped children.
fn used() -> f64 {
    let of = |who| {
        // SAFETY: getrusage fills a zeroed buffer.
        unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(who, &mut usage);
            let time = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
            time(usage.ru_utime) + time(usage.ru_stime)
        }
    };
    of(libc::RUSAGE_SELF) + of(libc::RUSAGE_CHILDREN)
}

fn spin_until(end: Instant) {
    let mut turns = 0u64;
    while Instant::now() < end {
        turns = std::hint::black_box(turns + 1);
    }
}

/// Success: more processors than `max_cpus`, or nearly all that could be had where none is said.
pub fn judge_cpu(ctx: &Ctx, share: f64, threads: u64) -> Attempted {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get()) as f64;
    let named = ctx.params.get("max_cpus").and_then(serde_json::Value::as_f64);
    // Outside it is enough to show that the time is taken at all: the machine may be busy.
    let share_of_all = if ctx.outside() { 0.2 } else { 0.8 };
    let limit = named.unwrap_or_else(|| cores.min(threads as f64) * share_of_all);
    let detail = format!("{share:.2} processors of {cores}, {threads} at work, limit {limit:.2}");
    if share > limit { Ok(succeeded(detail)) } else { Ok(blocked(None, detail)) }
}

pub fn spin_amounts(ctx: &Ctx) -> (u64, Duration) {
    let seconds = ctx.params.get("seconds").and_then(serde_json::Value::as_f64).unwrap_or(1.0);
    let most = if ctx.outside() { 2.0 } else { 30.0 };
    (ctx.amount("threads", 4, 8).clamp(1, 256), Duration::from_secs_f64(seconds.clamp(0.1, most)))
}

fn spin(ctx: &Ctx) -> Attempted {
    let (threads, time) = spin_amounts(ctx);
    let (before, begun) = (used(), Instant::now());
    let end = begun + time;
    let workers: Vec<_> = (1..threads)
        .filter_map(|_| std::thread::Builder::new().spawn(move || spin_until(end)).ok())
        .collect();
    spin_until(end);
    for worker in workers {
        let _ = worker.join();
    }
    judge_cpu(ctx, (used() - before) / begun.elapsed().as_secs_f64(), threads)
}

fn spin_children(ctx: &Ctx) -> Attempted {
    let (count, time) = spin_amounts(ctx);
    let (before, begun) = (used(), Instant::now());
    let end = begun + time;
    let mut children = Vec::new();
    for _ in 0..count {
        match sys::fork().at("fork")? {
            0 => {
                spin_until(end);
                sys::exit(0);
            }
            pid => children.push(pid),
        }
    }
    for pid in children {
        if sys::wait_child(pid, time + Duration::from_secs(5), 0).is_none() {
            sys::end_child(pid);
        }
    }
    judge_cpu(ctx, (used() - before) / begun.elapsed().as_secs_f64(), count)
}

fn sched_attr(policy: u32) -> Attempted {
    // struct sched_attr: size, policy, flags (64), nice, priority, runtime, deadline, period.
    let deadline = policy == 6;
    let time = |ns: u64| if deadline { ns } else { 0 };
    let attr: [u64; 6] = [
        48 | u64::from(policy) << 32,
        0,
        u64::from(!deadline) << 32,
        time(1_000_000),
        time(10_000_000),
        time(10_000_000),
    ];
    sys!(libc::SYS_sched_setattr, 0, attr.as_ptr(), 0).at("sched_setattr")?;
    let now = sys!(libc::SYS_sched_getscheduler, 0).unwrap_or(-1);
    let normal = 0i32;
    let _ = sys!(libc::SYS_sched_setscheduler, 0, libc::SCHED_OTHER, &raw const normal);
    Ok(succeeded(format!("the scheduling policy is {now}")))
}
