//! Attempts 25 and 50: what is looked at is not what is used.
//!
//! Arguments in memory are rewritten by a second thread between a look and the call, and a process
//! number is given to somebody else between a look and a signal. The number's second half, a stranger
//! under the number of a plugin that ended, is the harness' (`attacker recycle`).

use crate::outcome::{At, Attempted, Errno, Outcome, blocked, impossible, succeeded};
use crate::sys;
use crate::table::{Attempt, Control, Ctx};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(25, "path", "rewrite the path of openat from a second thread while it is looked at", Control::Params, &["granted!", "secret_path!", "ms"], path),
    Attempt::new(25, "address", "rewrite the address of connect from a second thread while it is looked at", Control::Params, &["granted!", "unix_path!", "ms"], address),
    Attempt::new(25, "clone-flags", "rewrite the flags of clone3 from a second thread", Control::Run, &["ms"], clone_flags),
    Attempt::new(50, "choose-number", "choose the number of a new process (clone3 with set_tid)", Control::Root, &[], choose_number),
    Attempt::new(50, "recycled", "a stranger under the number of a plugin that ended, when the host kills the plugin (control: killed by its number)", Control::Root, &[], recycled).host_judges(),
];

/// Most rounds of a race.
const ROUNDS: usize = 5_000_000;

/// Memory that two threads write and the kernel reads.
struct Shared(Box<[AtomicU8]>);

impl Shared {
    fn new(size: usize) -> Arc<Self> {
        Arc::new(Self((0..size).map(|_| AtomicU8::new(0)).collect()))
    }

    fn set(&self, bytes: &[u8]) {
        for (to, from) in self.0.iter().zip(bytes.iter().chain([&0])) {
            to.store(*from, Ordering::Relaxed);
        }
    }

    fn address(&self) -> *const u8 {
        self.0.as_ptr().cast()
    }
}

/// Writes `one` and `other` into the same memory in turn while `call` is made again and again, until it
/// answers something or the time is over. Gives the answer, and the last error.
fn race<T>(
    ctx: &Ctx,
    (one, other): (Vec<u8>, Vec<u8>),
    mut call: impl FnMut(*const u8) -> Result<Option<T>, Errno>,
) -> (Option<T>, usize, Option<Errno>) {
    let shared = Shared::new(one.len().max(other.len()) + 1);
    shared.set(&one);
    let over = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (shared, over) = (Arc::clone(&shared), Arc::clone(&over));
        move || {
            while !over.load(Ordering::Relaxed) {
                shared.set(&other);
                shared.set(&one);
            }
        }
    });
    // Outside it ends with the first success, which on a busy machine may take a while.
    let time = if ctx.outside() { 10_000 } else { ctx.num("ms", 300).clamp(50, 2000) };
    let end = Instant::now() + Duration::from_millis(time);
    let (mut won, mut rounds, mut last) = (None, 0, None);
    while won.is_none() && rounds < ROUNDS && Instant::now() < end {
        rounds += 1;
        match call(shared.address()) {
            Ok(answer) => won = answer,
            // What the other half of the time is answered, or half a path, does not decide.
            Err(e) => last = Some(e),
        }
    }
    over.store(true, Ordering::Relaxed);
    let _ = writer.join();
    (won, rounds, last)
}

/// A file of the grant and the secret take turns under one pointer.
fn path(ctx: &Ctx) -> Attempted {
    let bait = format!("{}/bait-{}", ctx.need("granted")?, sys::pid());
    std::fs::write(&bait, "bait").map_err(|e| impossible(e.to_string()))?;
    let secret = ctx.need("secret_path")?.to_owned();
    let pair = (bait.clone().into_bytes(), secret.into_bytes());
    let (won, rounds, _) = race(ctx, pair, |path| {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
        let fd = sys!(libc::SYS_openat, sys::CWD, path, flags)? as i32;
        let bytes = sys::read_fd(fd);
        sys::close(fd);
        Ok(bytes.ok().filter(|b| b != b"bait" && ctx.is_secret(b)))
    });
    let _ = std::fs::remove_file(&bait);
    match won {
        Some(_) => Ok(succeeded(format!("the secret was read in round {rounds}"))),
        None => Ok(blocked(None, format!("{rounds} rounds, never the secret"))),
    }
}

/// A socket of the grant and one of the host take turns under one pointer.
fn address(ctx: &Ctx) -> Attempted {
    use std::os::unix::net::UnixListener;
    // Relative, so that it fits whatever the grant is called.
    let own = format!("{}/race-{}", ctx.need("granted")?, sys::pid());
    let socket = |path: &str| {
        let mut bytes = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
        bytes.extend(path.bytes());
        bytes.resize(110, 0);
        bytes
    };
    let target = ctx.need("unix_path")?.to_owned();
    if own.len() > 107 || target.len() > 107 {
        return Ok(impossible("a path is too long for a socket"));
    }
    // Where no such socket can be made, the host's is asked for all the same.
    let listener = UnixListener::bind(&own).ok();
    if let Some(listener) = &listener {
        let _ = listener.set_nonblocking(true);
    }
    let (won, rounds, last) = race(ctx, (socket(&own), socket(&target)), |address| {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let fd = sys!(libc::SYS_socket, libc::AF_UNIX, kind, 0)? as i32;
        let connected = sys!(libc::SYS_connect, fd, address, 110);
        let _ = listener.as_ref().map(UnixListener::accept);
        let mut peer = libc::sockaddr_un { sun_family: 0, sun_path: [0; 108] };
        let mut size = 110u32;
        let named = sys!(libc::SYS_getpeername, fd, &raw mut peer, &raw mut size);
        sys::close(fd);
        connected?;
        named?;
        let name: Vec<u8> =
            peer.sun_path.iter().map(|b| *b as u8).take_while(|b| *b != 0).collect();
        Ok((name == target.as_bytes()).then_some(()))
    });
    let _ = std::fs::remove_file(&own);
    match won {
        Some(()) => Ok(succeeded(format!("the host's service was reached in round {rounds}"))),
        None if listener.is_none() => {
            Ok(blocked(last.map(|e| e.0), format!("{rounds} rounds without a socket of our own")))
        }
        None => Ok(blocked(None, format!("{rounds} rounds, never the host's service"))),
    }
}

/// `struct clone_args` of clone3(2), 88 bytes.
fn clone_args(flags: u64, set_tid: u64, count: u64) -> [u64; 11] {
    [flags, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0, set_tid, count, 0]
}

fn bytes(args: [u64; 11]) -> Vec<u8> {
    args.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

/// Flags for an ordinary child and for a user namespace take turns.
fn clone_flags(ctx: &Ctx) -> Attempted {
    let own = std::fs::read_link("/proc/self/ns/user").ok();
    let pair = (bytes(clone_args(0, 0, 0)), bytes(clone_args(libc::CLONE_NEWUSER as u64, 0, 0)));
    // The race needs a thread, which a user namespace for ourselves would not allow; a child may have one.
    let (won, rounds, last) = race(ctx, pair, |args| {
        let child = sys!(libc::SYS_clone3, args, 88)? as i32;
        if child == 0 {
            // Another thread may hold libc's locks: bare calls only.
            sys::sleep(Duration::from_millis(2));
            sys::exit(0);
        }
        let theirs = std::fs::read_link(format!("/proc/{child}/ns/user")).ok();
        sys::wait_child(child, Duration::from_secs(2), 0);
        Ok((theirs.is_some() && own.is_some() && theirs != own).then_some(()))
    });
    match (won, last) {
        (Some(()), _) => Ok(succeeded(format!("a user namespace in round {rounds}"))),
        (None, Some(e)) => Ok(blocked(e.0, format!("clone3, {rounds} rounds"))),
        (None, None) => Ok(blocked(None, format!("{rounds} rounds, never a user namespace"))),
    }
}

/// A child under this number, if the kernel lets us choose.
fn child_numbered(number: i32) -> Result<i32, Errno> {
    let wanted = [number];
    let args = clone_args(0, wanted.as_ptr() as u64, 1);
    sys!(libc::SYS_clone3, args.as_ptr(), 88).map(|pid| pid as i32)
}

/// A number that nobody has now: that of a child that has just ended.
fn free_number() -> Result<i32, Outcome> {
    let child = sys::fork().setup("fork")?;
    if child == 0 {
        sys::exit(0);
    }
    sys::wait_child(child, Duration::from_secs(2), 0);
    Ok(child)
}

fn choose_number(_: &Ctx) -> Attempted {
    let number = free_number()?;
    match child_numbered(number).at("clone3")? {
        0 => sys::exit(0),
        child => {
            sys::wait_child(child, Duration::from_secs(2), 0);
            if child == number {
                Ok(succeeded(format!("process {number} is ours again")))
            } else {
                Ok(blocked(None, format!("asked for {number}, got {child}")))
            }
        }
    }
}

/// The naive host, outside only: it kept a number, and kills by it.
fn recycled(ctx: &Ctx) -> Attempted {
    if !ctx.outside() {
        return Ok(impossible("the host's part; inside there is no host"));
    }
    let number = free_number()?;
    let stranger = child_numbered(number).setup("clone3")?;
    if stranger == 0 {
        sys::sleep(Duration::from_secs(10));
        sys::exit(0);
    }
    let _ = sys!(libc::SYS_kill, number, libc::SIGKILL);
    match sys::wait_child(stranger, Duration::from_secs(2), 0) {
        Some(s) if libc::WIFSIGNALED(s) => Ok(succeeded("a stranger was killed by a stale number")),
        _ => {
            sys::end_child(stranger);
            Ok(blocked(None, "the stranger lives"))
        }
    }
}

/// `attacker recycle NUMBER`: becomes a stranger under that number, says so, and waits for the end of its
/// input. It says at the end whether it was left alone.
pub fn recycle_main(args: &[String]) -> ExitCode {
    let Some(number) = args.first().and_then(|n| n.parse::<i32>().ok()) else {
        return ExitCode::from(2);
    };
    let begun = Instant::now();
    let child = loop {
        match child_numbered(number) {
            Ok(child) => break child,
            // Not gone yet.
            Err(Errno(libc::EEXIST)) if begun.elapsed() < Duration::from_secs(5) => {
                sys::sleep(Duration::from_millis(1));
            }
            Err(e) => {
                println!("error {}", crate::outcome::errno_name(e.0));
                return ExitCode::from(1);
            }
        }
    };
    if child == 0 {
        // SAFETY: the stranger does not outlive the one who made it.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        sys::sleep(Duration::from_secs(60));
        sys::exit(0);
    }
    println!("ready {child}");
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
    let ended = sys::wait_child(child, Duration::from_millis(50), libc::WUNTRACED);
    match ended {
        None => println!("alive"),
        Some(status) => println!("harmed {status:#x}"),
    }
    sys::end_child(child);
    ExitCode::SUCCESS
}
