//! Attempts 5 and 6: what a leaked working directory or descriptor gives.
//!
//! The scan itself opens one descriptor (on /proc/self/fd) and leaves it out of the report.

use crate::files::judge_secret;
use crate::outcome::{Attempted, blocked, succeeded};
use crate::sys::{close, open, openat, read_fd};
use crate::table::{Attempt, Control, Ctx};

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(5, "cwd", "climb from the working directory with `..`", Control::Params, &["secret_path!", "secret"], cwd),
    Attempt::new(5, "proc-cwd", "climb through /proc/self/cwd", Control::Params, &["secret_path!", "secret"], proc_cwd),
    Attempt::new(5, "fds", "climb from every directory descriptor", Control::Params, &["secret_path!", "secret"], directory_fds),
    Attempt::new(5, "unreachable", "the working directory lies outside the root", Control::None("a shell outside has an ordinary working directory"), &[], unreachable),
    Attempt::new(6, "scan", "find a descriptor beyond 0, 1, 2 and 3", Control::Run, &["leave_open"], scan),
    Attempt::new(6, "stdin", "stdin is anything but /dev/null", Control::Run, &[], stdin),
    Attempt::new(6, "logs", "read from the log streams (1 and 2)", Control::Run, &[], logs),
    Attempt::new(6, "writable-binary", "a descriptor that is open for writing on a regular file", Control::Run, &[], writable),
];

/// 64 levels are more than any path has.
const CLIMB: usize = 64;

fn climb_from(ctx: &Ctx, dir: i32, how: &str) -> Attempted {
    let secret = ctx.need("secret_path")?.trim_start_matches('/');
    let mut top = dir;
    let mut seen = String::new();
    let mut last = None;
    for level in 0..CLIMB {
        match openat(top, secret, libc::O_RDONLY).and_then(read_fd) {
            Ok(bytes) if ctx.is_secret(&bytes) => {
                return judge_secret(ctx, &bytes, &format!("{how}, {level} up{seen}"));
            }
            Ok(_) => seen = " (another file of that name on the way)".into(),
            Err(e) => last = Some(e.0),
        }
        let Ok(next) = openat(top, "..", libc::O_PATH | libc::O_DIRECTORY) else { break };
        if top != dir {
            close(top);
        }
        top = next;
    }
    if top != dir {
        close(top);
    }
    Ok(blocked(last, format!("{how}: the secret is not above it{seen}")))
}

fn cwd(ctx: &Ctx) -> Attempted {
    climb_from(ctx, libc::AT_FDCWD, "from the working directory")
}

fn proc_cwd(ctx: &Ctx) -> Attempted {
    let dir = open("/proc/self/cwd", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    climb_from(ctx, dir, "from /proc/self/cwd")
}

fn directory_fds(ctx: &Ctx) -> Attempted {
    // Outside one is left open on purpose.
    let left =
        if ctx.outside() { open(".", libc::O_RDONLY | libc::O_DIRECTORY, 0).ok() } else { None };
    let outcome = climb_all(ctx);
    left.into_iter().for_each(close);
    outcome
}

fn climb_all(ctx: &Ctx) -> Attempted {
    let mut worst = blocked(None, "no directory descriptor is open");
    for fd in open_fds().into_iter().filter(|fd| kind(*fd) == "directory") {
        let outcome = climb_from(ctx, fd, &format!("from fd {fd}"))?;
        if outcome.verdict == crate::outcome::Verdict::Succeeded {
            return Ok(outcome);
        }
        worst = outcome;
    }
    Ok(worst)
}

fn unreachable(_: &Ctx) -> Attempted {
    let mut buf = [0u8; 4096];
    let n = sys!(libc::SYS_getcwd, buf.as_mut_ptr(), buf.len())?;
    let path = String::from_utf8_lossy(&buf[..(n as usize).saturating_sub(1)]).into_owned();
    if path.starts_with('/') {
        Ok(blocked(None, format!("the working directory is {path}")))
    } else {
        Ok(succeeded(format!("getcwd says {path}")))
    }
}

/// Every open descriptor, found without /proc so that a hidden /proc hides nothing.
fn open_fds() -> Vec<i32> {
    let mut limit = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
    // SAFETY: a valid rlimit.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    let top = limit.rlim_cur.clamp(1024, 65_536) as i32;
    // SAFETY: F_GETFD touches nothing.
    let mut fds: Vec<i32> =
        (0..top).filter(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0).collect();
    // Descriptors above a lowered limit stay open; only /proc shows those.
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        let named = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        fds.extend(named.filter(|fd: &i32| *fd >= top));
    }
    // SAFETY: as above; the listing's own descriptor is closed by now.
    fds.retain(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0);
    fds
}

fn stat(fd: i32) -> Option<libc::stat> {
    // SAFETY: fstat fills a zeroed stat.
    unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        (libc::fstat(fd, &mut st) == 0).then_some(st)
    }
}

fn kind(fd: i32) -> &'static str {
    match stat(fd).map(|st| st.st_mode & libc::S_IFMT) {
        Some(libc::S_IFDIR) => "directory",
        Some(libc::S_IFREG) => "file",
        Some(libc::S_IFCHR) => "char-device",
        Some(libc::S_IFBLK) => "block-device",
        Some(libc::S_IFIFO) => "pipe",
        Some(libc::S_IFSOCK) => "socket",
        Some(_) => "anonymous",
        None => "closed",
    }
}

fn describe(fd: i32) -> String {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    let name = link.map(|l| l.display().to_string()).unwrap_or_else(|_| "?".into());
    format!("{fd}:{}:{name}", kind(fd))
}

fn is_null(fd: i32) -> bool {
    kind(fd) == "char-device"
        && stat(fd).is_some_and(|st| (libc::major(st.st_rdev), libc::minor(st.st_rdev)) == (1, 3))
}

fn scan(ctx: &Ctx) -> Attempted {
    // Outside, a descriptor is left open on purpose: the scan must see it.
    let left = ctx.flag("leave_open") || ctx.outside();
    let planted = if left { open("/dev/null", libc::O_RDONLY, 0).ok() } else { None };
    // A watched child holds the write end of its supervisor's pipe, which is no leak.
    let own: &[i32] = &ctx.received.borrow();
    let watched = ctx.outside() || ctx.flag("fork");
    let mut leaks: Vec<i32> =
        open_fds().into_iter().filter(|fd| *fd > 3 && !own.contains(fd)).collect();
    if ctx.channel.is_none() && kind(3) != "closed" {
        leaks.insert(0, 3);
    }
    if watched {
        let supervisor = leaks.iter().position(|fd| kind(*fd) == "pipe");
        supervisor.map(|at| leaks.remove(at));
    }
    if let (Some(fd), false) = (planted, left) {
        close(fd);
    }
    let all: Vec<String> = [0, 1, 2].iter().chain(&leaks).map(|fd| describe(*fd)).collect();
    if leaks.is_empty() { Ok(blocked(None, all.join(" "))) } else { Ok(succeeded(all.join(" "))) }
}

fn stdin(ctx: &Ctx) -> Attempted {
    if ctx.outside() {
        let (r, _) = crate::sys::pipe()?;
        sys!(libc::SYS_dup3, r, 0, 0)?;
    }
    if kind(0) == "closed" || is_null(0) {
        return Ok(blocked(None, describe(0)));
    }
    Ok(succeeded(format!("stdin is {}", describe(0))))
}

/// A log stream that can be read would let a plugin read what others log, or a terminal's input.
fn logs(_: &Ctx) -> Attempted {
    let mut last = None;
    for fd in [1, 2] {
        // SAFETY: F_GETFL touches nothing.
        let mode = unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_ACCMODE;
        if kind(fd) != "closed" && mode != libc::O_WRONLY && kind(fd) != "socket" && !is_null(fd) {
            return Ok(succeeded(format!("open for reading: {}", describe(fd))));
        }
        // Through /proc the read end of the same pipe can be opened.
        match open(&format!("/proc/self/fd/{fd}"), libc::O_RDONLY | libc::O_NONBLOCK, 0) {
            Ok(reader) if kind(reader) == "pipe" => {
                close(reader);
                return Ok(succeeded(format!("read end reopened: {}", describe(fd))));
            }
            Ok(reader) => close(reader),
            Err(e) => last = Some(e.0),
        }
    }
    Ok(blocked(last, format!("{} {}", describe(1), describe(2))))
}

fn writable(ctx: &Ctx) -> Attempted {
    let scratch = if ctx.outside() { Some(ctx.scratch()?) } else { None };
    let _left = scratch
        .as_ref()
        .map(|s| open(&format!("{}/x", s.path), libc::O_RDWR | libc::O_CREAT, 0o600));
    let check = |fd: &i32| {
        // SAFETY: F_GETFL touches nothing.
        let mode = unsafe { libc::fcntl(*fd, libc::F_GETFL) } & libc::O_ACCMODE;
        kind(*fd) == "file" && mode != libc::O_RDONLY
    };
    let found: Vec<String> =
        open_fds().iter().filter(|fd| check(fd)).map(|fd| describe(*fd)).collect();
    if found.is_empty() {
        Ok(blocked(None, "no regular file is open for writing"))
    } else {
        Ok(succeeded(found.join(" ")))
    }
}
