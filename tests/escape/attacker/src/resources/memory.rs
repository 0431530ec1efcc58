//! Memory of every kind, held by a child.

use super::MIB;
use crate::outcome::{At, Attempted, Errno, Outcome, Sys, blocked, succeeded};
use crate::sys::{self, c, close};
use crate::table::Ctx;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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

pub fn anon(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
    while held.load(Ordering::Relaxed) < goal {
        touch(map(MIB, 0)?, MIB);
        held.fetch_add(MIB, Ordering::SeqCst);
    }
    Ok(())
}

pub fn locked(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
    while held.load(Ordering::Relaxed) < goal {
        let memory = map(MIB, 0)?;
        sys!(libc::SYS_mlock, memory, MIB)?;
        held.fetch_add(MIB, Ordering::SeqCst);
    }
    Ok(())
}

pub fn spread(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
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

pub fn files(held: &AtomicU64, goal: u64, dir: &str) -> Result<(), Errno> {
    let path = hog(dir, sys::pid());
    let fd = sys::open(&path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600)?;
    let filled = fill(fd, held, goal);
    let _ = sys!(libc::SYS_unlinkat, sys::CWD, c(&path).as_ptr(), 0);
    filled
}

pub fn memfd(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
    let fd = sys!(libc::SYS_memfd_create, c"hog".as_ptr(), 8)?;
    fill(fd as i32, held, goal)
}

pub fn sysv(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
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
pub fn sysv_detached(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
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
pub fn dropped(held: &AtomicU64, goal: u64, file: i32) -> Result<(), Errno> {
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

pub fn zero_dropped(ctx: &Ctx) -> Attempted {
    sys::open("/dev/zero", libc::O_RDWR, 0).map(close).at("open /dev/zero")?;
    hold(ctx, |held, goal| dropped(held, goal, sys::open("/dev/zero", libc::O_RDWR, 0)?))
}

/// 16 KiB to a queue; removed at the end.
pub fn queues(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
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

pub fn pipes(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
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

pub fn sockets(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
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
pub fn page_tables(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
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
