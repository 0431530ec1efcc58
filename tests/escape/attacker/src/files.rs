//! Attempts 1 to 4: reading and writing files beyond the grant.
//!
//! Whether a written file is the host's own is decided by its content (`secret`) or, where the
//! harness names it, by the device number of the host's file system (`host_dev`): a private tmpfs
//! that happens to have the same path proves nothing.

use crate::outcome::{At, Attempted, Errno, Outcome, Sys, blocked, succeeded};
use crate::sys::{self, CWD, c, close, open, openat, read_fd, read_path};
use crate::table::{Attempt, Control, Ctx, Tally};
use std::time::{Duration, Instant};

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(1, "shadow", "read /etc/shadow", Control::Root, &[], |x| read_known(x, &["/etc/shadow"])),
    Attempt::new(1, "secret", "read a secret file of the host", Control::Params, &["secret_path!", "secret"], secret),
    Attempt::new(1, "secret-openat2", "the same through openat2", Control::Params, &["secret_path!", "secret"], secret_openat2),
    Attempt::new(1, "secret-reopen", "O_PATH handle reopened through /proc/self/fd", Control::Params, &["secret_path!", "secret"], secret_reopen),
    Attempt::new(1, "secret-stat", "learn that the secret file exists", Control::Params, &["secret_path!"], secret_stat),
    Attempt::new(1, "ssh", "read any file under ~/.ssh of any user", Control::Params, &["ssh_dir"], ssh),
    Attempt::new(1, "homes", "list other people's homes", Control::Root, &[], homes),
    Attempt::new(2, "absolute", "create a file outside the grant by absolute path", Control::Params, &["outside_dir!", "host_dev"], |x| create(x, x.need("outside_dir")?)),
    Attempt::new(2, "dotdot", "create a file outside the grant through `..`", Control::Params, &["granted!", "host_dev"], |x| create(x, &format!("{}/..", x.need("granted")?))),
    Attempt::new(2, "overwrite", "append to an existing file outside the grant", Control::Params, &["outside_file!"], |x| append(x.need("outside_file")?)),
    Attempt::new(2, "symlink", "write through a symlink planted in the grant", Control::Params, &["granted!", "outside_file!"], symlink_file),
    Attempt::new(2, "symlink-dir", "create through a directory symlink planted in the grant", Control::Params, &["granted!", "outside_dir!", "host_dev"], symlink_dir),
    Attempt::new(2, "hardlink", "hard link of an outside file into the grant, then write", Control::Params, &["granted!", "outside_file!"], hardlink),
    Attempt::new(2, "hardlink-procfd", "the same with an O_PATH handle and /proc/self/fd", Control::Params, &["granted!", "outside_file!"], hardlink_procfd),
    Attempt::new(2, "rename-out", "rename a file of the grant to the outside", Control::Params, &["granted!", "outside_dir!", "host_dev"], rename_out),
    Attempt::new(2, "ro-create", "create a file in a read-only grant", Control::Params, &["readonly!", "host_dev"], |x| create(x, x.need("readonly")?)),
    Attempt::new(2, "ro-append", "append to a file in a read-only grant", Control::Params, &["readonly_file!"], |x| append(x.need("readonly_file")?)),
    Attempt::new(2, "ro-truncate", "truncate(2) on a file in a read-only grant", Control::Params, &["readonly_file!"], ro_truncate),
    Attempt::new(2, "ro-chmod", "chmod on a file in a read-only grant", Control::Params, &["readonly_file!"], ro_chmod),
    Attempt::new(2, "ro-utimes", "set times on a file in a read-only grant", Control::Params, &["readonly_file!"], ro_utimes),
    Attempt::new(2, "ro-xattr", "set an attribute on a file in a read-only grant", Control::Params, &["readonly_file!"], ro_xattr),
    Attempt::new(2, "ro-unlink", "unlink a file in a read-only grant", Control::Params, &["readonly_file!"], |x| unlink(x.need("readonly_file")?)),
    Attempt::new(3, "swap-dir", "swap a directory and a symlink in a loop", Control::Params, &["granted!", "target!", "name", "stop", "witness", "seconds"], |x| swap(x, true)).host_judges(),
    Attempt::new(3, "swap-file", "swap a file and a symlink in a loop", Control::Params, &["granted!", "target!", "name", "stop", "witness", "seconds"], |x| swap(x, false)).host_judges(),
    Attempt::new(4, "create", "create a protected file that is missing", Control::Params, &["protected!", "host_dev"], protected),
    Attempt::new(4, "rename-over", "rename a file over the protected name", Control::Params, &["protected!"], protected_rename),
    Attempt::new(4, "parent-swap", "move the parent of the protected name away and rebuild it", Control::Params, &["protected!"], protected_parent),
];

/// Reads each path that exists; the content must not be empty.
fn read_known(_: &Ctx, paths: &[&str]) -> Attempted {
    let mut tally = Tally::default();
    for path in paths {
        tally.add(
            path,
            read_path(path).and_then(|b| if b.is_empty() { Err(Errno(0)) } else { Ok(b) }),
        );
    }
    tally.end("nothing to read")
}

/// Succeeds where the bytes are the secret.
pub fn judge_secret(ctx: &Ctx, bytes: &[u8], how: &str) -> Attempted {
    if ctx.is_secret(bytes) {
        Ok(succeeded(format!("{how}: read {} bytes of it", bytes.len())))
    } else {
        Ok(blocked(None, format!("{how}: {} bytes, not the secret", bytes.len())))
    }
}

fn secret(ctx: &Ctx) -> Attempted {
    let path = ctx.need("secret_path")?;
    judge_secret(ctx, &read_path(path).at("open")?, path)
}

fn secret_openat2(ctx: &Ctx) -> Attempted {
    let path = c(ctx.need("secret_path")?);
    let how: [u64; 3] = [(libc::O_RDONLY | libc::O_CLOEXEC) as u64, 0, 0];
    let fd = sys!(libc::SYS_openat2, CWD, path.as_ptr(), how.as_ptr(), 24).at("openat2")?;
    judge_secret(ctx, &read_fd(fd as i32).at("read")?, "openat2")
}

fn secret_reopen(ctx: &Ctx) -> Attempted {
    let handle = open(ctx.need("secret_path")?, libc::O_PATH, 0).at("open O_PATH")?;
    let bytes = read_path(&format!("/proc/self/fd/{handle}")).at("reopen")?;
    judge_secret(ctx, &bytes, "reopened")
}

fn secret_stat(ctx: &Ctx) -> Attempted {
    let path = c(ctx.need("secret_path")?);
    let mut buf = [0u8; 256];
    sys!(libc::SYS_statx, CWD, path.as_ptr(), 0, 0x7ff, buf.as_mut_ptr()).at("statx")?;
    Ok(succeeded("the host's file is visible"))
}

fn ssh(ctx: &Ctx) -> Attempted {
    let mut dirs: Vec<String> = ctx.text("ssh_dir").map(str::to_owned).into_iter().collect();
    // Outside, and behind walls that may be thin, only the harness' stand-in is read, never anybody's keys.
    let own = ctx.outside() || ctx.elsewhere;
    if !own {
        dirs.push("/root/.ssh".into());
        dirs.extend(std::env::var("HOME").ok().map(|home| format!("{home}/.ssh")));
    }
    if !own && let Ok(homes) = std::fs::read_dir("/home") {
        dirs.extend(homes.flatten().map(|h| format!("{}/.ssh", h.path().display())));
    }
    let mut tally = Tally::default();
    for dir in dirs {
        match std::fs::read_dir(&dir) {
            Err(e) => tally.add(&dir, Sys::<()>::Err(Errno(e.raw_os_error().unwrap_or(0)))),
            Ok(entries) => {
                for file in entries.flatten() {
                    let path = file.path().display().to_string();
                    tally.add(&path, read_path(&path));
                }
            }
        }
    }
    tally.end("no ~/.ssh holds a file")
}

fn homes(_: &Ctx) -> Attempted {
    let mut seen = Vec::new();
    let mut last = None;
    for dir in ["/root", "/home"] {
        match std::fs::read_dir(dir) {
            Ok(entries) => seen.extend(entries.flatten().map(|e| e.path().display().to_string())),
            Err(e) => last = e.raw_os_error(),
        }
    }
    if seen.is_empty() {
        return Ok(blocked(last, "no entry in /root or /home"));
    }
    Ok(succeeded(format!("{} entries, first {}", seen.len(), seen[0])))
}

/// Device number of an open file.
fn device_of(fd: i32) -> u64 {
    // SAFETY: fstat fills a zeroed stat.
    unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        if libc::fstat(fd, &mut st) == 0 { st.st_dev } else { 0 }
    }
}

/// Creates a file in `dir`, checks that it lies on the host's file system, and removes it.
fn create(ctx: &Ctx, dir: &str) -> Attempted {
    let path = format!("{dir}/attacker-was-here-{}", sys::pid());
    create_at(ctx, &path, true)
}

fn create_at(ctx: &Ctx, path: &str, remove: bool) -> Attempted {
    let fd = open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o644).at("open O_CREAT")?;
    let device = device_of(fd);
    let written = sys::write_fd(fd, b"attacker\n");
    close(fd);
    if remove && !ctx.flag("keep") {
        let _ = std::fs::remove_file(path);
    }
    written.at("write")?;
    match ctx.params.get("host_dev").and_then(serde_json::Value::as_u64) {
        Some(host) if host != device => {
            Ok(blocked(None, format!("created only on a private file system (device {device})")))
        }
        _ => Ok(succeeded(format!("created {path} (device {device})"))),
    }
}

/// Appends one line and reads it back.
fn append(path: &str) -> Attempted {
    let fd = open(path, libc::O_WRONLY | libc::O_APPEND, 0).at("open for append")?;
    sys::write_fd(fd, b"attacker\n").at("write")?;
    close(fd);
    Ok(succeeded(format!("appended to {path}")))
}

/// A name in the grant that no earlier attempt left.
fn planted(ctx: &Ctx, what: &str) -> Result<String, Outcome> {
    let path = format!("{}/planted-{what}-{}", ctx.need("granted")?, sys::pid());
    let _ = std::fs::remove_file(&path);
    Ok(path)
}

fn symlink_file(ctx: &Ctx) -> Attempted {
    let link = planted(ctx, "link")?;
    std::os::unix::fs::symlink(ctx.need("outside_file")?, &link).at("symlink")?;
    let result = append(&link);
    let _ = std::fs::remove_file(&link);
    result
}

fn symlink_dir(ctx: &Ctx) -> Attempted {
    let link = planted(ctx, "dirlink")?;
    std::os::unix::fs::symlink(ctx.need("outside_dir")?, &link).at("symlink")?;
    let result = create(ctx, &link);
    let _ = std::fs::remove_file(&link);
    result
}

fn hardlink(ctx: &Ctx) -> Attempted {
    let (link, target) = (planted(ctx, "hard")?, c(ctx.need("outside_file")?));
    sys!(libc::SYS_linkat, CWD, target.as_ptr(), CWD, c(&link).as_ptr(), 0).at("linkat")?;
    let result = append(&link);
    let _ = std::fs::remove_file(&link);
    result
}

fn hardlink_procfd(ctx: &Ctx) -> Attempted {
    let link = planted(ctx, "hardfd")?;
    let handle = open(ctx.need("outside_file")?, libc::O_PATH, 0).at("open O_PATH")?;
    let magic = c(format!("/proc/self/fd/{handle}"));
    let follow = libc::AT_SYMLINK_FOLLOW;
    sys!(libc::SYS_linkat, CWD, magic.as_ptr(), CWD, c(&link).as_ptr(), follow).at("linkat")?;
    let result = append(&link);
    let _ = std::fs::remove_file(&link);
    result
}

fn rename_out(ctx: &Ctx) -> Attempted {
    let inside = planted(ctx, "rename")?;
    std::fs::write(&inside, b"attacker\n").setup("file in the grant")?;
    let outside = format!("{}/attacker-renamed-{}", ctx.need("outside_dir")?, sys::pid());
    let renamed = std::fs::rename(&inside, &outside);
    let _ = std::fs::remove_file(&inside);
    renamed.at("rename")?;
    let fd = open(&outside, libc::O_RDONLY, 0).at("open the renamed file")?;
    let device = device_of(fd);
    close(fd);
    let _ = std::fs::remove_file(&outside);
    match ctx.params.get("host_dev").and_then(serde_json::Value::as_u64) {
        Some(host) if host != device => Ok(blocked(None, "renamed only to a private file system")),
        _ => Ok(succeeded(format!("renamed to {outside}"))),
    }
}

fn ro_truncate(ctx: &Ctx) -> Attempted {
    let path = c(ctx.need("readonly_file")?);
    sys!(libc::SYS_truncate, path.as_ptr(), 0).at("truncate")?;
    Ok(succeeded("truncated"))
}

fn ro_chmod(ctx: &Ctx) -> Attempted {
    let path = c(ctx.need("readonly_file")?);
    sys!(libc::SYS_fchmodat, CWD, path.as_ptr(), 0o666).at("fchmodat")?;
    Ok(succeeded("mode changed"))
}

fn ro_utimes(ctx: &Ctx) -> Attempted {
    let path = c(ctx.need("readonly_file")?);
    let times = [0i64; 4];
    sys!(libc::SYS_utimensat, CWD, path.as_ptr(), times.as_ptr(), 0).at("utimensat")?;
    Ok(succeeded("times set to 1970"))
}

fn ro_xattr(ctx: &Ctx) -> Attempted {
    let path = c(ctx.need("readonly_file")?);
    let (name, value) = (c("user.attacker"), b"1");
    sys!(libc::SYS_setxattr, path.as_ptr(), name.as_ptr(), value.as_ptr(), 1, 0).at("setxattr")?;
    Ok(succeeded("attribute set"))
}

fn unlink(path: &str) -> Attempted {
    sys!(libc::SYS_unlinkat, CWD, c(path).as_ptr(), 0).at("unlinkat")?;
    Ok(succeeded(format!("removed {path}")))
}

/// The attacker's side of the race: `granted/name` is a directory (or file) one moment and a
/// symlink to `target` the next, until `granted/stop` appears or the time is over. `witness` is a
/// path that exists only where the host followed the link.
fn swap(ctx: &Ctx, directory: bool) -> Attempted {
    let (granted, target) = (ctx.need("granted")?, ctx.need("target")?);
    let name = ctx.text("name").unwrap_or("swapped");
    let stop = format!("{granted}/{}", ctx.text("stop").unwrap_or("stop"));
    let end = Instant::now() + Duration::from_secs(ctx.num("seconds", 5).min(60));
    let dir = open(granted, libc::O_PATH | libc::O_DIRECTORY, 0).at("open the grant")?;
    let (real, link) = (format!("{granted}/{name}"), format!("{granted}/{name}.link"));
    if directory {
        let _ = std::fs::create_dir(&real);
    } else {
        let _ = std::fs::write(&real, b"bait\n");
    }
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(target, &link).at("symlink")?;
    let (a, b) = (c(name), c(format!("{name}.link")));
    let mut swaps = 0u64;
    while Instant::now() < end
        && (!swaps.is_multiple_of(64) || !std::fs::exists(&stop).unwrap_or(false))
    {
        let exchange = libc::RENAME_EXCHANGE;
        sys!(libc::SYS_renameat2, dir, a.as_ptr(), dir, b.as_ptr(), exchange).at("renameat2")?;
        swaps += 1;
    }
    // Left in the honest position, so that the grant can be cleaned.
    let is_link = openat(dir, name, libc::O_PATH | libc::O_NOFOLLOW).is_ok()
        && std::fs::symlink_metadata(&real).is_ok_and(|m| m.file_type().is_symlink());
    if is_link {
        let _ = std::fs::rename(&link, format!("{granted}/{name}.kept"));
        let _ = std::fs::remove_file(&real);
        let _ = std::fs::rename(format!("{granted}/{name}.kept"), &real);
    } else {
        let _ = std::fs::remove_file(&link);
    }
    match ctx.text("witness") {
        Some(path) if !std::fs::exists(path).unwrap_or(false) => {
            Ok(blocked(None, format!("{swaps} swaps, the host never followed")))
        }
        _ => Ok(succeeded(format!("{swaps} swaps made; the host judges"))),
    }
}

fn protected(ctx: &Ctx) -> Attempted {
    create_at(ctx, ctx.need("protected")?, false)
}

fn protected_rename(ctx: &Ctx) -> Attempted {
    let path = ctx.need("protected")?;
    let draft = format!("{path}.draft");
    std::fs::write(&draft, b"attacker\n").at("create beside it")?;
    let renamed = std::fs::rename(&draft, path);
    let _ = std::fs::remove_file(&draft);
    renamed.at("rename")?;
    Ok(succeeded(format!("renamed over {path}")))
}

fn protected_parent(ctx: &Ctx) -> Attempted {
    let path = std::path::Path::new(ctx.need("protected")?);
    let parent = path.parent().unwrap_or(path);
    let aside = parent.with_extension("aside");
    std::fs::rename(parent, &aside).at("rename of the parent")?;
    let made = std::fs::create_dir(parent).and_then(|()| std::fs::write(path, b"attacker\n"));
    if made.is_err() {
        let _ = std::fs::rename(&aside, parent);
    }
    made.at("rebuild")?;
    Ok(succeeded(format!("rebuilt {}", parent.display())))
}
