// Building the walls: the order of the steps is what makes them hold.
//
// Everything that touches a path of the host happens before pivot_root, on handles that are checked to
// be what the host saw (device and inode); everything inside the new root is reached from its own handle
// with symbolic links refused, because a granted tree below it may be under an attacker's hands while
// we build.

use crate::idmap;
use crate::init;
use crate::laps;
use crate::network::{self, Making};
use crate::plan::{self, Body, Records, bind, handle, lap, step, switch, word};
use crate::spawner::{self, Failure, Launch, failed};
use crate::support::Text;
use crate::tree::Nodes;
use crate::sys::{self, Fd, attr, new, nr, pr, resolve, sys};

pub const OPEN_TREE_CLONE: usize = 1;
const MOVE_MOUNT_F_EMPTY_PATH: usize = 4;
const MOVE_MOUNT_T_EMPTY_PATH: usize = 0x40;
const FSCONFIG_SET_STRING: usize = 1;
const FSCONFIG_CMD_CREATE: usize = 6;
const MS_PRIVATE_RECURSIVE: usize = (1 << 18) | 0x4000;
const MNT_DETACH: usize = 2;

/// The namespaces that pid 1 enters by itself: the network takes longer than all others together, and is
/// begun first; the others are made meanwhile.
pub const OWN_NAMESPACES: u64 =
    sys::CLONE_NEWNET | sys::CLONE_NEWNS | sys::CLONE_NEWIPC | sys::CLONE_NEWUTS;

fn check(step: u32, index: u32, result: isize) -> Result<isize, Failure> {
    if result < 0 { Err(failed(step, index, result)) } else { Ok(result) }
}

/// The body of pid 1, from the first instruction after the clone. Never returns.
pub fn pid_one(mut launch: Launch<'_>) -> ! {
    laps::lap(lap::CLONE);
    spawner::set_signal(17, 0);
    spawner::set_signal(13, 0);
    let namespaces = enter_namespaces(&launch.config);
    laps::lap(lap::NAMESPACES);
    let mut go = [0u8; 1];
    if sys::read(launch.go, &mut go) != 1 {
        sys::exit(73);
    }
    sys::close(launch.go);
    laps::lap(lap::GO);
    match namespaces.and_then(|network| build(&mut launch, network)) {
        Ok(()) => init::run(&launch),
        Err(failure) => {
            init::report_failure(&launch, &failure);
            sys::exit(74)
        }
    }
}

/// Enters the groups of version 1, before anything is done that they should count. A task that writes "0"
/// for itself moves without the kernel-wide lock that moving another process takes (`cgroup.procs`), and
/// whose release can take milliseconds.
fn join_groups(launch: &Launch<'_>) -> Result<(), Failure> {
    if launch.config[word::SWITCHES] & switch::JOIN_GROUPS == 0 {
        return Ok(());
    }
    // The clone itself was into the group of version 2, where there is one.
    let into = launch.config[word::SWITCHES] & switch::INTO_CGROUP != 0;
    let first = handle::CGROUP + usize::from(into);
    let files = launch.handles.get(first..launch.handle_count).unwrap_or_default();
    for (i, file) in files.iter().enumerate() {
        check(step::JOIN_GROUP, i as u32, sys::write(*file, b"0"))?;
        sys::close(*file);
    }
    Ok(())
}

/// Has the network begun and makes the other namespaces meanwhile.
fn enter_namespaces(config: &[u64; word::COUNT]) -> Result<Making, Failure> {
    // Before the groups are entered: what makes the network ends before the program begins, and needs no
    // place in the plugin's count of processes.
    let network = network::begin(config)?;
    let others = config[word::CLONE_FLAGS] & OWN_NAMESPACES & !sys::CLONE_NEWNET;
    if others != 0 {
        check(step::CLONE, 1, sys!(nr::UNSHARE, others))?;
    }
    Ok(network)
}

fn build(launch: &mut Launch<'_>, mut network: Making) -> Result<(), Failure> {
    join_groups(launch)?;
    laps::lap(lap::GROUPS);
    let switches = launch.config[word::SWITCHES];
    if switches & switch::SET_IDS != 0 || launch.config[word::CLONE_FLAGS] & sys::CLONE_NEWUSER != 0 {
        set_ids(&launch.config)?;
    }
    // After the ids: a change of ids clears the signal. The host's socket and the spawner's lifeline,
    // which pid 1 watches, close the gap before this line.
    sys::prctl(pr::SET_PDEATHSIG, sys::SIGKILL as usize, 0, 0);
    sys::prctl(pr::SET_NAME, c"palisade-init".as_ptr() as usize, 0, 0);
    sys!(nr::SETSID);
    sys!(nr::UMASK, 0o022);
    laps::lap(lap::IDS);
    if switches & switch::NEW_ROOT != 0 {
        check(
            step::PRIVATE,
            0,
            sys!(nr::MOUNT, 0, c"/".as_ptr(), 0, MS_PRIVATE_RECURSIVE, 0),
        )?;
        laps::lap(lap::PRIVATE);
        // Before the new root is put anywhere: it would hide sources that lie below that place.
        if switches & switch::PRIVILEGED == 0 {
            open_binds(launch)?;
            laps::lap(lap::SOURCES);
        }
        new_root(launch, &mut network)?;
    } else {
        // Orphans come to us instead of escaping to the machine's pid 1.
        check(step::SUBREAPER, 0, sys::prctl(pr::SET_CHILD_SUBREAPER, 1, 0, 0))?;
    }
    network.enter()?;
    laps::lap(lap::NETWORK);
    network::open_way_out(launch)?;
    // A session keyring of its own: the launcher's would be possessed by the plugin too.
    const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;
    let joined = sys!(nr::KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, 0);
    if joined < 0 && joined != sys::ENOSYS && joined != sys::EPERM {
        return Err(failed(step::KEYRING, 0, joined));
    }
    sys::prctl(pr::SET_DUMPABLE, 0, 0, 0);
    laps::lap(lap::REST);
    Ok(())
}

fn set_ids(config: &[u64; word::COUNT]) -> Result<(), Failure> {
    let user_namespace = config[word::CLONE_FLAGS] & sys::CLONE_NEWUSER != 0;
    let (uid, gid) = if user_namespace {
        (config[word::INSIDE_UID], config[word::INSIDE_GID])
    } else {
        (config[word::HOST_UID], config[word::HOST_GID])
    };
    if config[word::SWITCHES] & switch::PRIVILEGED != 0 {
        check(step::SET_IDS, 0, sys!(nr::SETGROUPS, 0, 0))?;
    }
    check(step::SET_IDS, 1, sys!(nr::SETRESGID, gid, gid, gid))?;
    check(step::SET_IDS, 2, sys!(nr::SETRESUID, uid, uid, uid))?;
    Ok(())
}

/// Opens every bind source of the plan as a detached mount with its attributes set. Called by the
/// spawner where it is privileged, else by pid 1.
pub fn open_binds(launch: &mut Launch<'_>) -> Result<(), Failure> {
    let mut idmaps = [(0u32, 0u32, 0u32, 0u32); plan::MAX_IDMAPS];
    let mut idmap_fds = [(-1, false); plan::MAX_IDMAPS];
    let (mut maps, mut count) = (0, 0);
    let mut records = Records::new(launch.plan);
    let result = loop {
        let Some((tag, body)) = records.next() else { break Ok(()) };
        let index = records.index;
        let mut body = Body(body);
        if tag == plan::TAG_IDMAP {
            let (Some(a), Some(b), Some(c), Some(d), true) =
                (body.u32(), body.u32(), body.u32(), body.u32(), maps < plan::MAX_IDMAPS)
            else {
                break Err(failed(step::PLAN, index, sys::EINVAL));
            };
            idmaps[maps] = (a, b, c, d);
            maps += 1;
        } else if tag == plan::TAG_BIND {
            if count == plan::MAX_BINDS {
                break Err(failed(step::PLAN, index, sys::E2BIG));
            }
            match open_bind(body, index, &idmaps[..maps], &mut idmap_fds) {
                Ok(fd) => launch.binds[count] = fd,
                Err(failure) => break Err(failure),
            }
            count += 1;
        }
    };
    for (fd, owned) in idmap_fds {
        if owned {
            sys::close(fd);
        }
    }
    result
}

struct Bind<'a> {
    attributes: u64,
    flags: u64,
    device: u64,
    inode: u64,
    source: &'a [u8],
    target: &'a [u8],
}

fn parse_bind<'a>(mut body: Body<'a>, index: u32) -> Result<Bind<'a>, Failure> {
    let mut parse = || {
        Some(Bind {
            attributes: body.u64()?,
            flags: body.u64()?,
            device: body.u64()?,
            inode: body.u64()?,
            source: body.text()?,
            target: body.text()?,
        })
    };
    parse().ok_or(failed(step::PLAN, index, sys::EINVAL))
}

/// The detached mount, or -1 for an optional source that is not there.
fn open_bind(
    body: Body<'_>,
    index: u32,
    idmaps: &[(u32, u32, u32, u32)],
    idmap_fds: &mut [(Fd, bool); plan::MAX_IDMAPS],
) -> Result<Fd, Failure> {
    let bind = parse_bind(body, index)?;
    // The host resolved every link before it checked the path; a link here now is somebody's swap.
    let source = sys::openat2(
        sys::AT_FDCWD,
        bind.source,
        sys::O_PATH,
        0,
        resolve::NO_SYMLINKS | resolve::NO_MAGICLINKS,
    );
    if bind.flags & bind::OPTIONAL != 0 && (source == sys::ENOENT || source == sys::ENOTDIR) {
        return Ok(-1);
    }
    let source = check(step::BIND_OPEN, index, source)? as Fd;
    let result = clone_checked(source, &bind, index, idmaps, idmap_fds);
    sys::close(source);
    result
}

fn clone_checked(
    source: Fd,
    bind: &Bind<'_>,
    index: u32,
    idmaps: &[(u32, u32, u32, u32)],
    idmap_fds: &mut [(Fd, bool); plan::MAX_IDMAPS],
) -> Result<Fd, Failure> {
    if bind.inode != 0 && sys::identity(source) != Some((bind.device, bind.inode)) {
        return Err(failed(step::BIND_CHANGED, index, sys::ESTALE));
    }
    let recursive = if bind.flags & bind::RECURSIVE != 0 { sys::AT_RECURSIVE } else { 0 };
    let tree = check(
        step::BIND_CLONE,
        index,
        sys!(
            new::OPEN_TREE,
            source,
            c"".as_ptr(),
            OPEN_TREE_CLONE | sys::O_CLOEXEC | sys::AT_EMPTY_PATH | recursive
        ),
    )? as Fd;
    let map = (bind.flags >> bind::IDMAP_SHIFT) as usize;
    let mut done = 0;
    if map != 0 {
        let (Some(ids), Some((slot, owned))) = (idmaps.get(map - 1), idmap_fds.get_mut(map - 1)) else {
            return Err(failed(step::PLAN, index, sys::EINVAL));
        };
        if *slot < 0 {
            (*slot, *owned) =
                idmap::namespace(ids).map_err(|errno| failed(step::IDMAP, index, errno))?;
        }
        // Without AT_RECURSIVE: a mount below on a file system without id maps would fail the whole.
        done = sys::mount_setattr(
            tree,
            sys::AT_EMPTY_PATH,
            bind.attributes | attr::IDMAP,
            0,
            0,
            *slot as u64,
        );
        if done < 0 && bind.flags & bind::IDMAP_OPTIONAL == 0 {
            sys::close(tree);
            return Err(failed(step::IDMAP, index, done));
        }
    }
    if map == 0 || recursive != 0 || done < 0 {
        let done =
            sys::mount_setattr(tree, sys::AT_EMPTY_PATH | recursive, bind.attributes, 0, 0, 0);
        if done < 0 {
            sys::close(tree);
            return Err(failed(step::BIND_ATTR, index, done));
        }
    }
    Ok(tree)
}

fn filesystem(name: &core::ffi::CStr, options: &[(&core::ffi::CStr, &[u8])], attributes: u64) -> isize {
    let context = sys!(new::FSOPEN, name.as_ptr(), 1);
    if context < 0 {
        return context;
    }
    let mut result = 0;
    for (key, value) in options {
        if result >= 0 {
            result = sys!(new::FSCONFIG, context, FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0);
        }
    }
    if result >= 0 {
        result = sys!(new::FSCONFIG, context, FSCONFIG_CMD_CREATE, 0, 0, 0);
    }
    if result >= 0 {
        result = sys!(new::FSMOUNT, context, 1, attributes);
    }
    sys::close(context as Fd);
    result
}

fn tmpfs(size: u64, inodes: u64, mode: u32, attributes: u64) -> isize {
    let (mut bytes, mut nodes, mut octal) = (Text::<24>::new(), Text::<24>::new(), Text::<8>::new());
    bytes.push_number(size);
    nodes.push_number(inodes);
    for shift in [9, 6, 3, 0] {
        octal.push_number(u64::from((mode >> shift) & 7));
    }
    filesystem(
        c"tmpfs",
        &[(c"size", bytes.with_nul()), (c"nr_inodes", nodes.with_nul()), (c"mode", octal.with_nul())],
        attributes,
    )
}

/// A target inside the new root, reached without following any link.
fn target(root: Fd, path: &[u8]) -> isize {
    sys::openat2(
        root,
        path,
        sys::O_PATH,
        0,
        resolve::IN_ROOT | resolve::NO_SYMLINKS | resolve::NO_MAGICLINKS,
    )
}

fn attach(mount: Fd, root: Fd, path: &[u8], index: u32) -> Result<(), Failure> {
    let target = check(step::BIND_TARGET, index, target(root, path))? as Fd;
    let moved = sys!(
        new::MOVE_MOUNT,
        mount,
        c"".as_ptr(),
        target,
        c"".as_ptr(),
        MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    );
    sys::close(target);
    sys::close(mount);
    check(step::BIND_ATTACH, index, moved).map(|_| ())
}

/// The tmpfs that becomes the root, as a detached mount.
pub fn empty_root() -> isize {
    const ROOT_SIZE: u64 = 1 << 20;
    const ROOT_INODES: u64 = 4096;
    tmpfs(ROOT_SIZE, ROOT_INODES, 0o755, attr::NOSUID | attr::NODEV | attr::NOEXEC)
}

fn new_root(launch: &Launch<'_>, network: &mut Making) -> Result<(), Failure> {
    let root =
        if launch.root >= 0 { launch.root } else { check(step::ROOT, 0, empty_root())? as Fd };
    // Somewhere to stand: any directory will do, it is out of sight after the pivot.
    let mut placed = sys::ENOENT;
    for place in [c"/tmp", c"/"] {
        if placed < 0 {
            placed = sys!(
                new::MOVE_MOUNT,
                root,
                c"".as_ptr(),
                sys::AT_FDCWD,
                place.as_ptr(),
                MOVE_MOUNT_F_EMPTY_PATH
            );
        }
    }
    check(step::ROOT, 1, placed)?;
    laps::lap(lap::ROOT);
    populate(launch, root, network)?;
    pivot(root)?;
    let sealed = sys::mount_setattr(
        root,
        sys::AT_EMPTY_PATH,
        attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC,
        0,
        0,
        0,
    );
    check(step::ROOT_RO, 0, sealed)?;
    sys::close(root);
    laps::lap(lap::PIVOT);
    Ok(())
}

/// Strips the leading slash, so that a path is taken relative to a handle.
fn relative(path: &[u8]) -> &[u8] {
    match path {
        [b'/', rest @ ..] if rest.len() > 1 => rest,
        _ => path,
    }
}

fn populate(launch: &Launch<'_>, root: Fd, network: &mut Making) -> Result<(), Failure> {
    let mut bind_count = 0;
    let mut nodes = Nodes::new();
    let mut records = Records::new(launch.plan);
    while let Some((tag, body)) = records.next() {
        let index = records.index;
        let bad = || failed(step::PLAN, index, sys::EINVAL);
        let is_of_root = nodes.has(tag, body);
        let mut body = Body(body);
        match tag {
            plan::TAG_DIR | plan::TAG_SYMLINK | plan::TAG_FILE => {
                if launch.root < 0 || !is_of_root {
                    make_node(root, tag, body, index)?;
                }
            }
            plan::TAG_TMPFS => {
                let size = body.u64().ok_or_else(bad)?;
                let inodes = body.u64().ok_or_else(bad)?;
                let (mode, attributes) = (body.u32().ok_or_else(bad)?, body.u32().ok_or_else(bad)?);
                let path = body.text().ok_or_else(bad)?;
                let mount = check(step::TMPFS, index, tmpfs(size, inodes, mode, u64::from(attributes)))?;
                attach(mount as Fd, root, path, index)?;
            }
            plan::TAG_BIND => {
                let mount = launch.binds[bind_count];
                bind_count += 1;
                if mount >= 0 {
                    let bind = parse_bind(body, index)?;
                    attach(mount, root, bind.target, index)?;
                }
            }
            plan::TAG_SYSCTL => {
                // The host's /proc is still in sight, but these files answer for the namespaces of
                // whoever opens them (user_namespaces(7), ipc_namespaces(7)).
                let (path, value) = (body.text().ok_or_else(bad)?, body.text().ok_or_else(bad)?);
                if path.starts_with(b"/proc/sys/net/") {
                    network.enter()?;
                    laps::lap(lap::NETWORK);
                }
                let fd = sys::openat(sys::AT_FDCWD, path, sys::O_WRONLY, 0);
                let value = value.get(..value.len().saturating_sub(1)).unwrap_or_default();
                let result = if fd < 0 { fd } else { sys::write(fd as Fd, value) };
                sys::close(fd as Fd);
                check(step::SYSCTL, index, result)?;
            }
            plan::TAG_HOSTNAME => {
                let name = body.text().ok_or_else(bad)?;
                check(step::HOSTNAME, index, sys!(nr::SETHOSTNAME, name.as_ptr(), name.len() - 1))?;
            }
            _ => {}
        }
        laps::lap(match tag {
            plan::TAG_TMPFS => lap::TMPFS,
            plan::TAG_BIND => lap::BINDS,
            plan::TAG_SYSCTL | plan::TAG_HOSTNAME => lap::SYSCTLS,
            _ => lap::NODES,
        });
    }
    proc_mount(root)?;
    laps::lap(lap::PROC);
    Ok(())
}

/// Makes a folder, a link or a file.
pub fn make_node(root: Fd, tag: u16, mut body: Body<'_>, index: u32) -> Result<(), Failure> {
    let bad = || failed(step::PLAN, index, sys::EINVAL);
    match tag {
        plan::TAG_DIR => {
            let (mode, path) = (body.u32().ok_or_else(bad)?, body.text().ok_or_else(bad)?);
            let made = sys!(nr::MKDIRAT, root, relative(path).as_ptr(), mode);
            if made != sys::EEXIST {
                check(step::MAKE, index, made)?;
            }
        }
        plan::TAG_SYMLINK => {
            let (to, path) = (body.text().ok_or_else(bad)?, body.text().ok_or_else(bad)?);
            check(step::MAKE, index, sys!(nr::SYMLINKAT, to.as_ptr(), root, relative(path).as_ptr()))?;
        }
        _ => {
            let (mode, path) = (body.u32().ok_or_else(bad)?, body.text().ok_or_else(bad)?);
            if body.0.is_empty() {
                // The place of a bind: one call instead of three.
                const REGULAR: u32 = 0o100000;
                let made = sys!(nr::MKNODAT, root, relative(path).as_ptr(), REGULAR | mode, 0);
                check(step::MAKE, index, made)?;
                return Ok(());
            }
            let flags = sys::O_WRONLY | sys::O_CREAT | sys::O_EXCL;
            let fd = check(step::MAKE, index, sys::openat(root, relative(path), flags, mode as usize))?;
            let written = sys::write(fd as Fd, body.0);
            sys::close(fd as Fd);
            check(step::MAKE, index, written)?;
        }
    }
    Ok(())
}

/// A fresh /proc that shows only the plugin's own processes and nothing of the kernel (`subset=pid`).
fn proc_mount(root: Fd) -> Result<(), Failure> {
    let attributes = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let mount = filesystem(c"proc", &[(c"subset", b"pid\0")], attributes);
    let mount = check(step::PROC, 0, mount)?;
    attach(mount as Fd, root, b"/proc\0", 0)
}

fn pivot(root: Fd) -> Result<(), Failure> {
    check(step::PIVOT, 0, sys!(nr::FCHDIR, root))?;
    // pivot_root(".", ".") stacks the old root on the new one (pivot_root(2), NOTES); the detach takes
    // it away, with every path of the host.
    check(step::PIVOT, 1, sys!(nr::PIVOT_ROOT, c".".as_ptr(), c".".as_ptr()))?;
    check(step::PIVOT, 2, sys!(nr::UMOUNT2, c".".as_ptr(), MNT_DETACH))?;
    check(step::PIVOT, 3, sys!(nr::CHDIR, c"/".as_ptr()))?;
    // The working directory must be the new root itself, or a path through it could lead out
    // (CVE-2024-21626).
    let here = sys::openat(sys::AT_FDCWD, b".\0", sys::O_PATH, 0);
    let here = check(step::PIVOT, 4, here)? as Fd;
    let same = sys::identity(here) == sys::identity(root);
    sys::close(here);
    if same { Ok(()) } else { Err(failed(step::PIVOT, 5, sys::EPERM)) }
}
