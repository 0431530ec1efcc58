//! Attempts 14 to 16: leaving the root, and changing what is mounted.
//!
//! Outside the walls everything happens in a mount namespace of its own whose mounts are private,
//! so that the machine's mounts stay as they are.

use crate::files::judge_secret;
use crate::outcome::{At, Attempted, Errno, Outcome, Sys, blocked, impossible, succeeded};
use crate::sys::{CWD, c, close, nr, open, openat, read_fd};
use crate::table::{Attempt, Control, Ctx, Tally};
use std::ptr::null;

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(14, "chroot", "chroot and climb out with a kept descriptor", Control::RootParams, &["secret_path!", "secret"], |x| chroot_breakout(x, false)),
    Attempt::new(14, "chroot-userns", "the same with the capabilities of a new user namespace", Control::Params, &["secret_path!", "secret"], |x| chroot_breakout(x, true)),
    Attempt::new(14, "pivot-root", "pivot_root to another root", Control::Namespace, &[], pivot_root),
    Attempt::new(15, "umount", "umount2 with MNT_DETACH of `mount` (default /proc)", Control::Namespace, &["mount"], umount),
    Attempt::new(15, "umount-any", "umount of every mount, topmost first", Control::Namespace, &[], umount_any),
    Attempt::new(15, "remount-rw", "make a read-only bind writable again", Control::Namespace, &["readonly"], remount_rw),
    Attempt::new(15, "remount-exec", "take nosuid, nodev and noexec off `mount` (default /tmp)", Control::Namespace, &["mount"], remount_exec),
    Attempt::new(15, "bind", "bind mount of / on a directory of ours", Control::Namespace, &[], bind),
    Attempt::new(15, "tmpfs", "mount a fresh tmpfs", Control::Namespace, &[], |x| fresh(x, "tmpfs", 0x0102_1994)),
    Attempt::new(15, "proc", "mount a fresh proc", Control::Namespace, &[], |x| fresh(x, "proc", 0x9fa0)),
    Attempt::new(15, "sysfs", "mount a fresh sysfs", Control::Namespace, &[], |x| fresh(x, "sysfs", 0x6265_6572)),
    Attempt::new(15, "cgroup2", "mount a fresh cgroup2", Control::Namespace, &[], |x| fresh(x, "cgroup2", 0x6367_7270)),
    Attempt::new(15, "overlay", "mount an overlay", Control::Namespace, &[], overlay),
    Attempt::new(15, "propagation", "make the mounts shared", Control::Namespace, &[], propagation),
    Attempt::new(16, "open-tree", "clone a mount detached", Control::Namespace, &[], |x| { private(x)?; open_tree("/").map(|fd| { close(fd); succeeded("a detached copy of / is held") }) }),
    Attempt::new(16, "move-mount", "open_tree and move_mount", Control::Namespace, &[], move_mount),
    Attempt::new(16, "mount-setattr", "mount_setattr clears the read-only flag", Control::Namespace, &["readonly"], mount_setattr),
    Attempt::new(16, "open-tree-attr", "open_tree_attr clears the read-only flag of a copy", Control::Namespace, &["readonly"], open_tree_attr),
    Attempt::new(16, "fsopen", "fsopen, fsconfig, fsmount of a tmpfs", Control::Namespace, &[], fsopen),
    Attempt::new(16, "fspick", "fspick to reconfigure a mounted file system", Control::Namespace, &[], fspick),
    Attempt::new(16, "statmount", "learn mounts by statmount", Control::Run, &[], |_| mount_ids(nr::STATMOUNT)),
    Attempt::new(16, "listmount", "learn mounts by listmount", Control::Run, &[], |_| mount_ids(nr::LISTMOUNT)),
];

/// Outside: a mount namespace of our own. Nothing below may run on the machine's mounts.
fn private(ctx: &Ctx) -> Result<(), Outcome> {
    if !ctx.outside() {
        return Ok(());
    }
    sys!(libc::SYS_unshare, libc::CLONE_NEWNS).setup("own mount namespace (root only)")?;
    mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, "").setup("private mounts")
}

/// `mount(2)`; empty texts are passed as null.
pub fn mount(source: &str, target: &str, kind: &str, flags: u64, data: &str) -> Sys<()> {
    let (source, target, kind, data) = (c(source), c(target), c(kind), c(data));
    let kind_ptr = if kind.is_empty() { null() } else { kind.as_ptr() };
    let data_ptr = if data.is_empty() { null() } else { data.as_ptr() };
    sys!(libc::SYS_mount, source.as_ptr(), target.as_ptr(), kind_ptr, flags, data_ptr).map(drop)
}

/// The magic number of the file system at `path`.
pub fn magic(path: &str) -> i64 {
    // SAFETY: statfs fills a zeroed buffer.
    unsafe {
        let mut st: libc::statfs = std::mem::zeroed();
        if libc::statfs(c(path).as_ptr(), &mut st) == 0 { st.f_type as i64 } else { 0 }
    }
}

/// Outside in one child more, so that the working directory can be removed from where it was made.
fn nested(ctx: &Ctx, attack: impl FnOnce() -> Attempted) -> Attempted {
    if !ctx.outside() {
        return attack();
    }
    let limit = std::time::Duration::from_secs(20);
    Ok(crate::sys::supervise(limit, || attack().unwrap_or_else(|o| o)))
}

fn chroot_breakout(ctx: &Ctx, userns: bool) -> Attempted {
    let scratch = ctx.scratch()?;
    nested(ctx, || chroot_in(ctx, &scratch, userns))
}

fn chroot_in(ctx: &Ctx, scratch: &crate::table::Scratch, userns: bool) -> Attempted {
    let secret = ctx.need("secret_path")?;
    if userns {
        sys!(libc::SYS_unshare, libc::CLONE_NEWUSER).at("unshare NEWUSER")?;
    }
    let jail = |name: &str| {
        let dir = format!("{}/{name}", scratch.path);
        std::fs::create_dir(&dir).map(|()| dir).setup("directory for the jail")
    };
    // Outside, a jail to break out of is made first.
    if ctx.outside() {
        let outer = jail("outer")?;
        std::fs::create_dir(format!("{outer}/inner")).setup("inner directory")?;
        sys!(libc::SYS_chroot, c(&outer).as_ptr()).at("chroot into the control's jail")?;
        sys!(libc::SYS_chdir, c"/".as_ptr()).setup("chdir")?;
    } else {
        let inner = jail("inner")?;
        sys!(libc::SYS_chdir, c(&scratch.path).as_ptr()).setup(&inner)?;
    }
    let kept = open(".", libc::O_PATH | libc::O_DIRECTORY, 0).setup("keep a descriptor")?;
    sys!(libc::SYS_chroot, c"inner".as_ptr()).at("chroot")?;
    sys!(libc::SYS_fchdir, kept).at("fchdir")?;
    for _ in 0..64 {
        sys!(libc::SYS_chdir, c"..".as_ptr()).at("chdir ..")?;
    }
    sys!(libc::SYS_chroot, c".".as_ptr()).at("second chroot")?;
    let bytes = open(secret, libc::O_RDONLY, 0).and_then(read_fd).at("broke out; open the secret");
    judge_secret(ctx, &bytes?, "after the breakout")
}

fn pivot_root(ctx: &Ctx) -> Attempted {
    let scratch = ctx.scratch()?;
    nested(ctx, || pivot_to(ctx, scratch.path.clone()))
}

fn pivot_to(ctx: &Ctx, new: String) -> Attempted {
    private(ctx)?;
    if ctx.outside() {
        mount("none", &new, "tmpfs", 0, "").setup("tmpfs for the new root")?;
    }
    let old = format!("{new}/old");
    std::fs::create_dir(&old).setup("directory for the old root")?;
    sys!(libc::SYS_pivot_root, c(&new).as_ptr(), c(&old).as_ptr()).at("pivot_root")?;
    Ok(succeeded("the root was changed"))
}

fn umount(ctx: &Ctx) -> Attempted {
    private(ctx)?;
    let target = ctx.text("mount").unwrap_or("/proc");
    sys!(libc::SYS_umount2, c(target).as_ptr(), libc::MNT_DETACH).at("umount2")?;
    Ok(succeeded(format!("{target} is unmounted")))
}

fn umount_any(ctx: &Ctx) -> Attempted {
    private(ctx)?;
    // Where the list is withheld, what most machines have.
    const USUAL: [&str; 6] = ["/dev/shm", "/dev", "/sys", "/proc", "/run", "/tmp"];
    let info = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<&str> = info.lines().filter_map(|l| l.split(' ').nth(4)).collect();
    points.reverse();
    points.extend(if info.is_empty() { &USUAL[..] } else { &[] });
    let mut tally = Tally::default();
    for point in points.into_iter().filter(|p| *p != "/").take(64) {
        let result = sys!(libc::SYS_umount2, c(point).as_ptr(), libc::MNT_DETACH);
        let won = result.is_ok();
        tally.add(point, result);
        if won {
            break;
        }
    }
    tally.end("no mount to unmount")
}

/// A read-only bind: `readonly` inside, one of our own outside.
fn readonly_bind(ctx: &Ctx, own: &str) -> Result<String, Outcome> {
    if !ctx.outside() {
        return Ok(ctx.text("readonly").unwrap_or("/").to_owned());
    }
    mount(own, own, "", libc::MS_BIND, "").setup("bind")?;
    mount("none", own, "", libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY, "").setup("ro")?;
    Ok(own.to_owned())
}

fn proves_writable(dir: &str) -> Attempted {
    let path = format!("{dir}/attacker-remounted");
    let fd = open(&path, libc::O_WRONLY | libc::O_CREAT, 0o600).at("flag changed; create")?;
    close(fd);
    let _ = std::fs::remove_file(&path);
    Ok(succeeded(format!("{dir} is writable now")))
}

fn remount_rw(ctx: &Ctx) -> Attempted {
    private(ctx)?;
    let scratch = ctx.scratch()?;
    let target = readonly_bind(ctx, &scratch.path)?;
    mount("none", &target, "", libc::MS_BIND | libc::MS_REMOUNT, "").at("remount")?;
    proves_writable(&target)
}

fn remount_exec(ctx: &Ctx) -> Attempted {
    private(ctx)?;
    let target = ctx.text("mount").unwrap_or("/tmp");
    let scratch = ctx.scratch()?;
    let target = if ctx.outside() {
        let flags = libc::MS_NOEXEC | libc::MS_NOSUID | libc::MS_NODEV;
        mount("none", &scratch.path, "tmpfs", flags, "").setup("tmpfs")?;
        scratch.path.as_str()
    } else {
        target
    };
    mount("none", target, "", libc::MS_BIND | libc::MS_REMOUNT, "").at("remount")?;
    let outcome = succeeded(format!("{target} allows exec, set-id and devices now"));
    if ctx.outside() {
        let _ = sys!(libc::SYS_umount2, c(target).as_ptr(), libc::MNT_DETACH);
    }
    Ok(outcome)
}

fn bind(ctx: &Ctx) -> Attempted {
    private(ctx)?;
    let scratch = ctx.scratch()?;
    mount("/", &scratch.path, "", libc::MS_BIND, "").at("bind mount")?;
    let seen = std::fs::exists(format!("{}/proc", scratch.path)).unwrap_or(false);
    let _ = sys!(libc::SYS_umount2, c(&scratch.path).as_ptr(), libc::MNT_DETACH);
    Ok(succeeded(format!("/ is bound to a directory of ours (proc below it: {seen})")))
}

fn fresh(ctx: &Ctx, kind: &str, wanted: i64) -> Attempted {
    private(ctx)?;
    let scratch = ctx.scratch()?;
    mount("none", &scratch.path, kind, 0, "").at("mount")?;
    let found = magic(&scratch.path);
    let _ = sys!(libc::SYS_umount2, c(&scratch.path).as_ptr(), libc::MNT_DETACH);
    if found == wanted {
        Ok(succeeded(format!("a fresh {kind} is mounted")))
    } else {
        Ok(blocked(None, format!("mount said yes, the magic is {found:#x}")))
    }
}

fn overlay(ctx: &Ctx) -> Attempted {
    private(ctx)?;
    let scratch = ctx.scratch()?;
    let dir = &scratch.path;
    // Upper and work directories on a tmpfs where the ground itself is an overlay.
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(format!("{dir}/{name}")).setup("directories")?;
    }
    let data = format!("lowerdir={dir}/lower,upperdir={dir}/upper,workdir={dir}/work");
    let merged = format!("{dir}/merged");
    mount("overlay", &merged, "overlay", 0, &data).at("mount")?;
    let _ = sys!(libc::SYS_umount2, c(&merged).as_ptr(), libc::MNT_DETACH);
    Ok(succeeded("an overlay is mounted"))
}

fn propagation(ctx: &Ctx) -> Attempted {
    private(ctx)?;
    mount("none", "/", "", libc::MS_REC | libc::MS_SHARED, "").at("mount MS_SHARED")?;
    Ok(succeeded("the mounts are shared"))
}

const OPEN_TREE_CLONE: u64 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u64 = 4;
const SYS_OPEN_TREE_ATTR: i64 = 467;
/// `struct mount_attr` that clears MOUNT_ATTR_RDONLY.
const CLEAR_READONLY: [u64; 4] = [0, 1, 0, 0];

fn open_tree(path: &str) -> Result<i32, Outcome> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u64;
    let fd = sys!(libc::SYS_open_tree, CWD, c(path).as_ptr(), flags).at("open_tree")?;
    Ok(fd as i32)
}

fn attach(fd: i32, at: &str) -> Result<(), Outcome> {
    let (from, to) = (c(""), c(at));
    sys!(libc::SYS_move_mount, fd, from.as_ptr(), CWD, to.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH)
        .at("move_mount")
        .map(drop)
}

fn move_mount(ctx: &Ctx) -> Attempted {
    private(ctx)?;
    let scratch = ctx.scratch()?;
    let fd = open_tree("/")?;
    attach(fd, &scratch.path)?;
    let seen = std::fs::exists(format!("{}/proc", scratch.path)).unwrap_or(false);
    let _ = sys!(libc::SYS_umount2, c(&scratch.path).as_ptr(), libc::MNT_DETACH);
    Ok(succeeded(format!("a copy of / is attached (proc below it: {seen})")))
}

fn mount_setattr(ctx: &Ctx) -> Attempted {
    private(ctx)?;
    let scratch = ctx.scratch()?;
    let target = readonly_bind(ctx, &scratch.path)?;
    let attr = CLEAR_READONLY;
    sys!(libc::SYS_mount_setattr, CWD, c(&target).as_ptr(), 0, attr.as_ptr(), 32)
        .at("mount_setattr")?;
    proves_writable(&target)
}

fn open_tree_attr(ctx: &Ctx) -> Attempted {
    private(ctx)?;
    let scratch = ctx.scratch()?;
    let target = readonly_bind(ctx, &scratch.path)?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u64;
    let attr = CLEAR_READONLY;
    let fd = sys!(SYS_OPEN_TREE_ATTR, CWD, c(&target).as_ptr(), flags, attr.as_ptr(), 32)
        .at("open_tree_attr")?;
    let made =
        sys!(libc::SYS_openat, fd, c"attacker-x".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o600);
    made.at("copied; create in the copy")?;
    Ok(succeeded("a writable copy of a read-only mount"))
}

fn fsopen(ctx: &Ctx) -> Attempted {
    private(ctx)?;
    let scratch = ctx.scratch()?;
    let fs = sys!(libc::SYS_fsopen, c"tmpfs".as_ptr(), 1).at("fsopen")?;
    sys!(libc::SYS_fsconfig, fs, 6, 0, 0, 0).at("fsconfig CREATE")?;
    let mnt = sys!(libc::SYS_fsmount, fs, 1, 0).at("fsmount")?;
    attach(mnt as i32, &scratch.path)?;
    let found = magic(&scratch.path);
    let _ = sys!(libc::SYS_umount2, c(&scratch.path).as_ptr(), libc::MNT_DETACH);
    if found == 0x0102_1994 {
        Ok(succeeded("a tmpfs is mounted"))
    } else {
        Ok(blocked(None, "not mounted"))
    }
}

fn fspick(ctx: &Ctx) -> Attempted {
    private(ctx)?;
    let fd = sys!(libc::SYS_fspick, CWD, c"/".as_ptr(), 1).at("fspick")?;
    close(fd as i32);
    Ok(succeeded("a handle to reconfigure / is held"))
}

fn mount_ids(number: i64) -> Attempted {
    // struct mnt_id_req, version 0: size, spare, mount id (LSMT_ROOT lists all), what to tell.
    let root_id = unique_mount_id();
    let request: [u64; 3] =
        if number == nr::LISTMOUNT { [24, u64::MAX, 0] } else { [24, root_id, 1] };
    let mut buf = [0u64; 512];
    let len = if number == nr::LISTMOUNT { buf.len() } else { buf.len() * 8 };
    let r: Result<i64, Errno> = sys!(number, request.as_ptr(), buf.as_mut_ptr(), len, 0);
    match r {
        Ok(n) => Ok(succeeded(format!("answered {n}"))),
        Err(e) => Err(blocked(e.0, "")),
    }
}

/// The 64-bit id of the root mount (`STATX_MNT_ID_UNIQUE`).
fn unique_mount_id() -> u64 {
    let mut buf = [0u64; 32];
    let done = sys!(libc::SYS_statx, CWD, c"/".as_ptr(), 0, 0x4000, buf.as_mut_ptr());
    // stx_mnt_id lies at byte 0x90.
    if done.is_ok() { buf[0x90 / 8] } else { 0 }
}

/// The mount tricks of attempt 17 need these names too.
pub fn tmpfs_on(dir: &str) -> Attempted {
    mount("none", dir, "tmpfs", 0, "").at("mount tmpfs in the new namespaces")?;
    if magic(dir) != 0x0102_1994 {
        return Ok(impossible("mount said yes, but there is no tmpfs"));
    }
    let fd = open(dir, libc::O_PATH | libc::O_DIRECTORY, 0).at("open")?;
    let inside = openat(fd, ".", libc::O_RDONLY | libc::O_DIRECTORY);
    close(fd);
    inside.map(close).at("open below it")?;
    Ok(succeeded("a tmpfs is mounted in a namespace of ours"))
}
