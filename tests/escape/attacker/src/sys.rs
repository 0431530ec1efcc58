//! Raw system calls, children under watch, and victims to attack outside the walls.
//!
//! Calls go through `syscall(2)` so that libc neither refuses nor replaces them, and arguments
//! keep all 64 bits. Nothing here decides about an outcome.

use crate::outcome::{Errno, Outcome, Sys, blocked, signal_name, succeeded};
use std::ffi::CString;
use std::time::{Duration, Instant};

/// `sys!(libc::SYS_x, a, b)`: one raw call, every argument passed as a full register.
macro_rules! sys {
    ($nr:expr $(, $arg:expr)* $(,)?) => {{
        // SAFETY: the attacker makes any call it likes; pointers are valid where the call reads them.
        #[allow(unused_unsafe, clippy::unnecessary_cast)]
        let r = unsafe { libc::syscall($nr as libc::c_long $(, ($arg) as libc::c_long)*) };
        if r == -1 { Err($crate::outcome::Errno::last()) } else { Ok(r as i64) }
    }};
}

/// System calls that the libc crate does not name; the numbers are the same on every architecture.
pub mod nr {
    pub const STATMOUNT: i64 = 457;
    pub const LISTMOUNT: i64 = 458;
    pub const FCHMODAT2: i64 = 452;
}

/// `AT_FDCWD` as an argument.
pub const CWD: i32 = libc::AT_FDCWD;

/// A path or name for the kernel; an embedded NUL cuts it.
pub fn c(text: impl AsRef<[u8]>) -> CString {
    let bytes = text.as_ref();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).unwrap_or_default()
}

/// `open(2)` without the large-file and cancel wrapping of libc.
pub fn open(path: &str, flags: i32, mode: u32) -> Sys<i32> {
    sys!(libc::SYS_openat, CWD, c(path).as_ptr(), flags | libc::O_CLOEXEC, mode).map(|fd| fd as i32)
}

/// `openat(2)`, read side only.
pub fn openat(dir: i32, path: &str, flags: i32) -> Sys<i32> {
    sys!(libc::SYS_openat, dir, c(path).as_ptr(), flags | libc::O_CLOEXEC, 0).map(|fd| fd as i32)
}

/// Closes, ignoring the answer.
pub fn close(fd: i32) {
    let _ = sys!(libc::SYS_close, fd);
}

/// Up to 4096 bytes from a file descriptor.
pub fn read_fd(fd: i32) -> Sys<Vec<u8>> {
    let mut buf = vec![0u8; 4096];
    let n = sys!(libc::SYS_read, fd, buf.as_mut_ptr(), buf.len())?;
    buf.truncate(n as usize);
    Ok(buf)
}

/// Writes once.
pub fn write_fd(fd: i32, bytes: &[u8]) -> Sys<usize> {
    sys!(libc::SYS_write, fd, bytes.as_ptr(), bytes.len()).map(|n| n as usize)
}

/// Writes all of it, waiting at most until `deadline` where the descriptor is full.
pub fn write_all(fd: i32, mut bytes: &[u8], deadline: Instant) -> Result<(), (Errno, usize)> {
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !poll(fd, libc::POLLOUT, left) {
            return Err((Errno(libc::ETIMEDOUT), bytes.len()));
        }
        // Never more than a page at a time: `poll` promises room for that much only.
        match write_fd(fd, &bytes[..bytes.len().min(4096)]) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno(libc::EINTR | libc::EAGAIN)) => {}
            Err(e) => return Err((e, bytes.len())),
        }
    }
    Ok(())
}

/// True where one of `events` (or an error) shows within `wait`.
pub fn poll(fd: i32, events: i16, wait: Duration) -> bool {
    let mut p = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&mut p, 1, wait.as_millis().min(i32::MAX as u128) as i32) > 0 }
}

/// Opens and reads the first 4096 bytes.
pub fn read_path(path: &str) -> Sys<Vec<u8>> {
    let fd = open(path, libc::O_RDONLY | libc::O_NONBLOCK, 0)?;
    let bytes = read_fd(fd);
    close(fd);
    bytes
}

/// `fork(2)` as the bare call (`clone` with SIGCHLD only); 0 in the child.
pub fn fork() -> Sys<i32> {
    // SAFETY: the attacker has one thread whenever it forks; libc's fork keeps its locks right.
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(Errno::last()) } else { Ok(pid) }
}

/// Ends the process without running anything else.
pub fn exit(status: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(status) }
}

/// A close-on-exec pipe: (read end, write end).
pub fn pipe() -> Sys<(i32, i32)> {
    let mut fds = [0i32; 2];
    sys!(libc::SYS_pipe2, fds.as_mut_ptr(), libc::O_CLOEXEC)?;
    Ok((fds[0], fds[1]))
}

/// A close-on-exec Unix stream socket pair.
pub fn socketpair() -> Sys<(i32, i32)> {
    let mut fds = [0i32; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    sys!(libc::SYS_socketpair, libc::AF_UNIX, kind, 0, fds.as_mut_ptr())?;
    Ok((fds[0], fds[1]))
}

/// Pause, also where signals interrupt.
pub fn sleep(time: Duration) {
    std::thread::sleep(time);
}

/// The calling process.
pub fn pid() -> i32 {
    std::process::id() as i32
}

/// Kills and reaps one child of ours.
pub fn end_child(pid: i32) {
    // SAFETY: `pid` is a child that this process forked and has not reaped.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}

/// Waits for a child up to `wait`; the wait status, or `None` where it has not ended.
pub fn wait_child(pid: i32, wait: Duration, options: i32) -> Option<i32> {
    let end = Instant::now() + wait;
    loop {
        let mut status = 0;
        // SAFETY: a valid status pointer.
        let r = unsafe { libc::waitpid(pid, &mut status, options | libc::WNOHANG) };
        if r == pid {
            return Some(status);
        }
        if r < 0 || Instant::now() >= end {
            return None;
        }
        sleep(Duration::from_millis(2));
    }
}

/// Runs an attempt in a child and watches it: an answer, a kill, a stop or a timeout is seen.
pub fn supervise(limit: Duration, attempt: impl FnOnce() -> Outcome) -> Outcome {
    watch(limit, true, attempt)
}

/// The same without a process group of its own, so that the child can make a session.
pub fn supervise_in_session(limit: Duration, attempt: impl FnOnce() -> Outcome) -> Outcome {
    watch(limit, false, attempt)
}

fn watch(limit: Duration, own_group: bool, attempt: impl FnOnce() -> Outcome) -> Outcome {
    let Ok((r, w)) = pipe() else { return blocked(libc::EMFILE, "pipe") };
    let child = match fork() {
        Ok(0) => {
            // SAFETY: plain calls; the group is ours, so that the supervisor may end it whole.
            unsafe {
                if own_group {
                    libc::setpgid(0, 0);
                }
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            }
            close(r);
            let outcome = attempt();
            let _ = write_fd(w, &outcome.encode());
            exit(0)
        }
        Ok(child) => child,
        Err(e) => return blocked(e.0, "fork for the attempt"),
    };
    close(w);
    let end = Instant::now() + limit;
    let mut bytes = Vec::new();
    let mut status = None;
    while Instant::now() < end {
        if poll(r, libc::POLLIN, Duration::from_millis(20)) {
            match read_fd(r) {
                Ok(more) if !more.is_empty() => {
                    bytes = more;
                    break;
                }
                _ => {}
            }
        }
        status = wait_child(child, Duration::ZERO, libc::WUNTRACED);
        if status.is_some() {
            break;
        }
    }
    if bytes.is_empty() && poll(r, libc::POLLIN, Duration::ZERO) {
        bytes = read_fd(r).unwrap_or_default();
    }
    close(r);
    let answer = Outcome::decode(&bytes);
    let ended = status.or_else(|| {
        let grace = if answer.is_some() { 200 } else { 0 };
        wait_child(child, Duration::from_millis(grace), libc::WUNTRACED)
    });
    if ended.is_none_or(|s| libc::WIFSTOPPED(s)) {
        end_child(child);
    }
    if own_group {
        // SAFETY: the group was made by the child above; what it left behind ends with it.
        unsafe { libc::kill(-child, libc::SIGKILL) };
    }
    match (answer, ended) {
        (Some(outcome), _) => outcome,
        (None, Some(s)) if libc::WIFSTOPPED(s) => {
            succeeded(format!("the process stopped itself: {}", signal_name(libc::WSTOPSIG(s))))
        }
        (None, Some(s)) if libc::WIFSIGNALED(s) => {
            let signal = libc::WTERMSIG(s);
            Outcome {
                killed: Some(signal),
                ..blocked(None, format!("killed by {}", signal_name(signal)))
            }
        }
        (None, Some(s)) => blocked(None, format!("the child ended with status {s:#x}")),
        (None, None) => blocked(None, format!("no answer within {} ms", limit.as_millis())),
    }
}

/// What a victim holds in its memory.
pub static VICTIM_SECRET: [u8; 24] = *b"victim-secret-0123456789";

/// A child that waits to be attacked: the stand-in for init, the parent and the host in positive
/// controls. It ends with the attacker.
pub struct Victim {
    pub pid: i32,
    /// A connection whose `SO_PEERCRED` names the victim.
    pub peer: i32,
}

impl Victim {
    /// Starts one; `prepare` runs in the child before it waits.
    pub fn spawn(prepare: impl FnOnce()) -> Sys<Self> {
        let listener =
            sys!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)?
                as i32;
        let mut addr = libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
        let name = format!("palisade-victim-{}-{listener}", pid());
        for (to, from) in addr.sun_path[1..].iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let len = 2 + 1 + name.len();
        sys!(libc::SYS_bind, listener, &raw const addr, len)?;
        let (r, w) = pipe()?;
        let child = fork()?;
        if child == 0 {
            // SAFETY: plain calls in a fresh child. The default handlers matter: a victim of
            // SIGIO or SIGTERM must die of it.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::listen(listener, 1);
            }
            prepare();
            let _ = write_fd(w, b"r");
            loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            }
        }
        close(w);
        let ready = poll(r, libc::POLLIN, Duration::from_secs(5)) && read_fd(r).is_ok();
        close(r);
        let victim = Self {
            pid: child,
            peer: sys!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)?
                as i32,
        };
        if !ready {
            return Err(Errno(libc::ETIMEDOUT));
        }
        sys!(libc::SYS_connect, victim.peer, &raw const addr, len)?;
        close(listener);
        Ok(victim)
    }

    /// The signal that ended it, within `wait`.
    pub fn ended_by(&self, wait: Duration) -> Option<i32> {
        wait_child(self.pid, wait, 0).filter(|s| libc::WIFSIGNALED(*s)).map(|s| libc::WTERMSIG(s))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        close(self.peer);
        // SAFETY: WNOWAIT-free check that the child is still ours before it is ended by id.
        let r = unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG) };
        if r == 0 {
            end_child(self.pid);
        }
    }
}
