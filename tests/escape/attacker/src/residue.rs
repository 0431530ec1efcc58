//! Attempt 68: what is left behind in a granted directory for others to stumble over.
//!
//! Each success is checked by `lstat`; things stay where they are for the harness to look at,
//! unless the parameters say `"cleanup": true`. Names begin with `left-`.

use crate::outcome::{At, Attempted, Outcome, Sys, blocked, succeeded};
use crate::sys::{self, CWD, c, close, nr, open};
use crate::table::{Attempt, Control, Ctx};

const GRANT: &[&str] = &["granted!", "cleanup"];
const SET_UID: u32 = 0o4755;

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(68, "chmod", "set-user-id by chmod", Control::Params, GRANT, |x| with_copy(x, "chmod", |p, _| chmod(p, u64::from(SET_UID)))),
    Attempt::new(22, "chmod-high", "set-user-id by chmod with bits above umode_t", Control::Params, GRANT, |x| with_copy(x, "chmod-high", |p, _| chmod(p, u64::from(SET_UID) | 1 << 32 | 1 << 16))),
    Attempt::new(68, "fchmod", "set-user-id by fchmod", Control::Params, GRANT, |x| with_copy(x, "fchmod", |_, fd| sys!(libc::SYS_fchmod, fd, SET_UID))),
    Attempt::new(68, "fchmodat", "set-user-id by fchmodat", Control::Params, GRANT, |x| with_copy(x, "fchmodat", |p, _| sys!(libc::SYS_fchmodat, CWD, c(p).as_ptr(), SET_UID))),
    Attempt::new(68, "fchmodat2", "set-user-id by fchmodat2", Control::Params, GRANT, |x| with_copy(x, "fchmodat2", |p, _| sys!(nr::FCHMODAT2, CWD, c(p).as_ptr(), SET_UID, 0))),
    Attempt::new(68, "sgid", "set-group-id by fchmod", Control::Params, GRANT, |x| with_copy(x, "sgid", |_, fd| sys!(libc::SYS_fchmod, fd, 0o2755))),
    Attempt::new(68, "open-mode", "set-user-id by the mode of openat", Control::Params, GRANT, |x| made(x, "open-mode", |p| sys!(libc::SYS_openat, CWD, c(p).as_ptr(), NEW, SET_UID))),
    Attempt::new(68, "openat2-mode", "set-user-id by the mode of openat2, which no filter sees", Control::Params, GRANT, |x| made(x, "openat2-mode", openat2)),
    Attempt::new(68, "creat-mode", "set-user-id by the mode of creat", Control::Params, GRANT, |x| made(x, "creat-mode", creat)),
    Attempt::new(68, "mknod-mode", "set-user-id by mknodat of a regular file", Control::Params, GRANT, |x| made(x, "mknod-mode", |p| sys!(libc::SYS_mknodat, CWD, c(p).as_ptr(), libc::S_IFREG | SET_UID, 0))),
    Attempt::new(68, "tmpfile-mode", "set-user-id by O_TMPFILE and linkat", Control::Params, GRANT, tmpfile),
    Attempt::new(68, "mkdir-mode", "set-group-id directory by mkdirat", Control::None("the kernel drops set-id bits from the mode of mkdir"), GRANT, |x| made(x, "mkdir-mode", |p| sys!(libc::SYS_mkdirat, CWD, c(p).as_ptr(), 0o2777))),
    Attempt::new(68, "chmod-dir", "set-group-id directory by chmod", Control::Params, GRANT, |x| made(x, "chmod-dir", |p| { sys!(libc::SYS_mkdirat, CWD, c(p).as_ptr(), 0o755)?; chmod(p, 0o2777) })),
    Attempt::new(68, "file-caps", "file capabilities by setxattr", Control::RootParams, GRANT, file_caps),
    Attempt::new(68, "symlink-shadow", "a symlink to /etc/shadow", Control::Params, GRANT, |x| symlink(x, "left-shadow", "/etc/shadow")),
    Attempt::new(68, "symlink-up", "a symlink to ../../../..", Control::Params, GRANT, |x| symlink(x, "left-up", "../../../../../../../..")),
    Attempt::new(68, "fifo", "a FIFO that blocks its reader", Control::Params, GRANT, |x| seen(x, "left-fifo", |p| sys!(libc::SYS_mknodat, CWD, c(p).as_ptr(), libc::S_IFIFO | 0o644, 0))),
    Attempt::new(68, "socket", "a socket", Control::Params, GRANT, |x| seen(x, "left-socket", bind)),
    Attempt::new(68, "newline-name", "a file name with a newline", Control::Params, GRANT, |x| seen(x, "left-new\nline", touch)),
    Attempt::new(68, "escape-name", "a file name with a terminal escape sequence", Control::Params, GRANT, |x| seen(x, "left-\x1b]0;owned\x07\x1b[2J", touch)),
    Attempt::new(68, "bidi-name", "a file name with bidirectional controls", Control::Params, GRANT, |x| seen(x, "left-\u{202e}gpj.sh", touch)),
    Attempt::new(68, "bad-utf8-name", "a file name that is not UTF-8", Control::Params, GRANT, |x| seen_bytes(x, b"left-\xff\xfe", touch_bytes)),
    Attempt::new(68, "dash-name", "a file name that is an option", Control::Params, GRANT, |x| seen(x, "--checkpoint-action=exec=sh", touch)),
    Attempt::new(68, "git-hook", "an executable git hook", Control::Params, GRANT, |x| hook(x, ".git/hooks/post-checkout")),
    Attempt::new(68, "shell-rc", "a shell start file", Control::Params, GRANT, |x| hook(x, ".bashrc")),
    Attempt::new(68, "envrc", "a file that a shell hook runs on entering", Control::Params, GRANT, |x| hook(x, ".envrc")),
    Attempt::new(68, "immutable", "a file that nobody can remove (FS_IMMUTABLE_FL)", Control::RootParams, GRANT, immutable),
    Attempt::new(68, "deep-tree", "a tree too deep for naive tools", Control::Params, &["granted!", "cleanup", "count"], deep),
];

const NEW: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;

fn path_of(ctx: &Ctx, name: &str) -> Result<String, Outcome> {
    Ok(format!("{}/{name}", ctx.need("granted")?))
}

/// Mode bits by `lstat`, kind included.
fn mode_of(path: &[u8]) -> Option<u32> {
    // SAFETY: lstat fills a zeroed stat.
    unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        (libc::lstat(c(path).as_ptr(), &mut st) == 0).then_some(st.st_mode)
    }
}

fn tidy(ctx: &Ctx, path: &[u8]) {
    if ctx.flag("cleanup") {
        let path = c(path);
        let _ = sys!(libc::SYS_unlinkat, CWD, path.as_ptr(), 0)
            .or_else(|_| sys!(libc::SYS_unlinkat, CWD, path.as_ptr(), libc::AT_REMOVEDIR));
    }
}

/// Succeeds where a set-id bit stands on the file.
fn judge_set_id(ctx: &Ctx, path: &str, result: Sys) -> Attempted {
    let mode = mode_of(path.as_bytes());
    tidy(ctx, path.as_bytes());
    result.at("the call")?;
    match mode {
        Some(mode) if mode & 0o6000 != 0 => Ok(succeeded(format!("{path} has mode {mode:o}"))),
        Some(mode) => Ok(blocked(None, format!("the bits were dropped: mode {mode:o}"))),
        None => Ok(blocked(None, "it is not there")),
    }
}

fn chmod(path: &str, mode: u64) -> Sys {
    #[cfg(target_arch = "x86_64")]
    return sys!(libc::SYS_chmod, c(path).as_ptr(), mode);
    #[cfg(not(target_arch = "x86_64"))]
    return sys!(libc::SYS_fchmodat, CWD, c(path).as_ptr(), mode);
}

fn creat(path: &str) -> Sys {
    #[cfg(target_arch = "x86_64")]
    return sys!(libc::SYS_creat, c(path).as_ptr(), SET_UID);
    #[cfg(not(target_arch = "x86_64"))]
    return sys!(libc::SYS_openat, CWD, c(path).as_ptr(), NEW, SET_UID);
}

fn openat2(path: &str) -> Sys {
    let how = [NEW as u64, u64::from(SET_UID), 0];
    sys!(libc::SYS_openat2, CWD, c(path).as_ptr(), how.as_ptr(), 24)
}

/// A copy of this program in the grant, then one call on it.
fn with_copy(ctx: &Ctx, name: &str, call: fn(&str, i32) -> Sys) -> Attempted {
    let path = path_of(ctx, &format!("left-{name}"))?;
    let _ = std::fs::remove_file(&path);
    let program = std::fs::read("/proc/self/exe").setup("read /proc/self/exe")?;
    std::fs::write(&path, program).setup("copy in the grant")?;
    let fd = open(&path, libc::O_RDONLY, 0).setup("open the copy")?;
    let result = call(&path, fd);
    close(fd);
    judge_set_id(ctx, &path, result)
}

/// One call that makes the thing with the bits at once.
fn made(ctx: &Ctx, name: &str, call: fn(&str) -> Sys) -> Attempted {
    let path = path_of(ctx, &format!("left-{name}"))?;
    let _ = std::fs::remove_file(&path);
    let _ = std::fs::remove_dir(&path);
    // SAFETY: our own mask; it would hide the bits.
    unsafe { libc::umask(0) };
    let result = call(&path);
    if let Ok(fd) = result
        && fd > 3
    {
        close(fd as i32);
    }
    judge_set_id(ctx, &path, result)
}

fn tmpfile(ctx: &Ctx) -> Attempted {
    let (dir, path) = (ctx.need("granted")?, path_of(ctx, "left-tmpfile")?);
    let _ = std::fs::remove_file(&path);
    let fd = open(dir, libc::O_TMPFILE | libc::O_WRONLY, SET_UID).at("O_TMPFILE")?;
    let magic = c(format!("/proc/self/fd/{fd}"));
    let follow = libc::AT_SYMLINK_FOLLOW;
    let linked = sys!(libc::SYS_linkat, CWD, magic.as_ptr(), CWD, c(&path).as_ptr(), follow);
    close(fd);
    judge_set_id(ctx, &path, linked)
}

fn file_caps(ctx: &Ctx) -> Attempted {
    let path = path_of(ctx, "left-caps")?;
    std::fs::write(&path, b"x").setup("file in the grant")?;
    // vfs_cap_data revision 2, effective; CAP_SYS_ADMIN permitted.
    let data: [u32; 5] = [0x0200_0001, 1 << 21, 0, 0, 0];
    let name = c("security.capability");
    let set = sys!(libc::SYS_setxattr, c(&path).as_ptr(), name.as_ptr(), data.as_ptr(), 20, 0);
    tidy(ctx, path.as_bytes());
    set.at("setxattr")?;
    Ok(succeeded(format!("{path} has CAP_SYS_ADMIN")))
}

fn seen(ctx: &Ctx, name: &str, make: fn(&str) -> Sys) -> Attempted {
    let path = path_of(ctx, name)?;
    let _ = std::fs::remove_file(&path);
    let result = make(&path);
    judge_seen(ctx, path.as_bytes(), result)
}

fn seen_bytes(ctx: &Ctx, name: &[u8], make: fn(&[u8]) -> Sys) -> Attempted {
    let path = [ctx.need("granted")?.as_bytes(), b"/", name].concat();
    let _ = sys!(libc::SYS_unlinkat, CWD, c(&path).as_ptr(), 0);
    let result = make(&path);
    judge_seen(ctx, &path, result)
}

fn judge_seen(ctx: &Ctx, path: &[u8], result: Sys) -> Attempted {
    let there = mode_of(path);
    tidy(ctx, path);
    result.at("the call")?;
    let shown = String::from_utf8_lossy(path).escape_debug().to_string();
    match there {
        Some(mode) => Ok(succeeded(format!("{shown} is there, mode {mode:o}"))),
        None => Ok(blocked(None, format!("{shown} is not there"))),
    }
}

fn touch(path: &str) -> Sys {
    touch_bytes(path.as_bytes())
}

fn touch_bytes(path: &[u8]) -> Sys {
    let fd = sys!(libc::SYS_openat, CWD, c(path).as_ptr(), NEW, 0o644)?;
    close(fd as i32);
    Ok(0)
}

fn bind(path: &str) -> Sys {
    let listener = std::os::unix::net::UnixListener::bind(path);
    match listener {
        Ok(_) => Ok(0),
        Err(e) => Err(crate::outcome::Errno(e.raw_os_error().unwrap_or(0))),
    }
}

fn symlink(ctx: &Ctx, name: &str, target: &str) -> Attempted {
    let path = path_of(ctx, name)?;
    let _ = std::fs::remove_file(&path);
    let made = sys!(libc::SYS_symlinkat, c(target).as_ptr(), CWD, c(&path).as_ptr());
    judge_seen(ctx, path.as_bytes(), made)
}

fn hook(ctx: &Ctx, name: &str) -> Attempted {
    let path = path_of(ctx, name)?;
    if let Some(parent) = std::path::Path::new(&path).parent() {
        let _ = std::fs::create_dir_all(parent);
    }
    let written = std::fs::write(&path, b"#!/bin/sh\ntouch attacker-ran\n");
    let made = match written {
        Ok(()) => sys!(libc::SYS_fchmodat, CWD, c(&path).as_ptr(), 0o755),
        Err(e) => Err(crate::outcome::Errno(e.raw_os_error().unwrap_or(0))),
    };
    judge_seen(ctx, path.as_bytes(), made)
}

fn immutable(ctx: &Ctx) -> Attempted {
    const FS_IOC_SETFLAGS: u64 = 0x4008_6602;
    const FS_IMMUTABLE_FL: u32 = 0x10;
    let path = path_of(ctx, "left-immutable")?;
    let fd = open(&path, libc::O_RDWR | libc::O_CREAT, 0o644).at("create")?;
    let flags = FS_IMMUTABLE_FL;
    let set = sys!(libc::SYS_ioctl, fd, FS_IOC_SETFLAGS, &raw const flags);
    // Taken off again at once: a harness without the right could not clean up.
    let none = 0u32;
    let _ = sys!(libc::SYS_ioctl, fd, FS_IOC_SETFLAGS, &raw const none);
    close(fd);
    tidy(ctx, path.as_bytes());
    set.at("FS_IOC_SETFLAGS")?;
    Ok(succeeded("immutable, and put back"))
}

fn deep(ctx: &Ctx) -> Attempted {
    let goal = ctx.amount("count", 2000, 2000).min(20_000);
    let root = path_of(ctx, "left-deep")?;
    let _ = std::fs::create_dir(&root);
    let mut dir = open(&root, libc::O_RDONLY | libc::O_DIRECTORY, 0).at("open")?;
    let mut depth = 0;
    let mut last = None;
    while depth < goal {
        let made = sys!(libc::SYS_mkdirat, dir, c"d".as_ptr(), 0o755)
            .and_then(|_| sys::openat(dir, "d", libc::O_RDONLY | libc::O_DIRECTORY));
        match made {
            Ok(next) => {
                close(dir);
                dir = next;
                depth += 1;
            }
            Err(e) => {
                last = Some(e.0);
                break;
            }
        }
    }
    close(dir);
    if ctx.flag("cleanup") {
        let _ = std::fs::remove_dir_all(&root);
    }
    if depth == goal {
        Ok(succeeded(format!("{depth} levels deep")))
    } else {
        Ok(blocked(last, format!("{depth} levels")))
    }
}
