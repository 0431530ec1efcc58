// The spawner: takes launch requests from the host, one at a time, and makes pid 1 of each plugin.
//
// It answers with a pidfd as soon as the process exists; everything after that is between pid 1 and
// the host. Mount sources are opened here when the launcher is privileged, because pid 1 will be a user
// that may not even walk to them; otherwise pid 1 opens them itself.

use crate::idmap;
use crate::laps;
use crate::plan::{self, Body, Records, handle, lap, request, step, switch, word};
use crate::support::Text;
use crate::sys::{self, Fd, MAX_HANDLES, new, nr, pr, sys};
use crate::tree;
use crate::walls;

const CONTROL: Fd = 0;
/// Header of a request and of an answer: magic, kind or result, id.
const HEADER: usize = 16;

// Hash of the helper's sources, set by the build script: both sides must be of one build.
const ABI: &[u8] = env!("PALISADE_HELPER_ABI").as_bytes();

/// What pid 1 inherits.
pub struct Launch<'a> {
    pub plan: &'a [u8],
    pub config: [u64; word::COUNT],
    /// The program is started only when the host says so.
    pub held: bool,
    pub handles: [Fd; MAX_HANDLES],
    /// How many of them there are.
    pub handle_count: usize,
    /// Bind sources as detached mounts, in the order of the plan; -1 where pid 1 opens them itself.
    pub binds: [Fd; plan::MAX_BINDS],
    /// The new root as a detached mount; -1 where pid 1 makes it.
    pub root: Fd,
    /// Readable once the id maps are written; closed if the spawner dies first.
    pub go: Fd,
    /// Closed when the spawner dies.
    pub lifeline: Fd,
    pub started: u64,
}

/// A failed step: which, at which record, and the kernel's answer.
pub struct Failure {
    pub step: u32,
    pub index: u32,
    pub errno: isize,
}

pub fn failed(step: u32, index: u32, errno: isize) -> Failure {
    Failure { step, index, errno }
}

static mut MESSAGE: [u8; HEADER + plan::MAX_PLAN] = [0; HEADER + plan::MAX_PLAN];

pub fn serve() -> ! {
    // Root's spawner cannot be traced by anybody else. An ordinary user's must stay dumpable, or the id
    // maps of its children would belong to root; its plugins cannot see it.
    if sys!(nr::GETEUID) == 0 {
        sys::prctl(pr::SET_DUMPABLE, 0, 0, 0);
    }
    sys::prctl(pr::SET_NAME, c"palisade-spawn".as_ptr() as usize, 0, 0);
    sys!(nr::UMASK, 0o022);
    // Inherited by every plugin, and refused to them to change.
    sys::short_turns();
    // A session of its own: no terminal, and Ctrl-C at the host's terminal does not end the plugins
    // before the host has decided to.
    sys!(nr::SETSID);
    sys!(new::CLOSE_RANGE, 3, u32::MAX as usize, 0);
    // Room for the handles of large plans, as far as the launcher's hard limit allows.
    const RLIMIT_NOFILE: usize = 7;
    let mut limit = [0u64; 2];
    sys!(nr::PRLIMIT64, 0, RLIMIT_NOFILE, 0, limit.as_mut_ptr());
    limit[0] = limit[1];
    sys!(nr::PRLIMIT64, 0, RLIMIT_NOFILE, limit.as_ptr(), 0);
    // Ignored children reap themselves; the host waits on pidfds.
    ignore_signal(17);
    ignore_signal(13);
    let mut pipe: [Fd; 2] = [-1; 2];
    if sys!(nr::PIPE2, pipe.as_mut_ptr(), sys::O_CLOEXEC) < 0 {
        sys::exit(72);
    }
    let mut hello = Text::<96>::new();
    hello.push(&plan::MAGIC.to_le_bytes()).push(ABI);
    sys::send(CONTROL, hello.bytes(), -1);
    loop {
        // SAFETY: one thread, and the only reference to the buffer lives within this turn of the loop.
        let message: &mut [u8] = unsafe { &mut *(&raw mut MESSAGE) };
        let mut handles: [Fd; MAX_HANDLES] = [-1; MAX_HANDLES];
        let (n, count) = sys::recv(CONTROL, message, &mut handles);
        if n <= 0 {
            // The host is gone. Every pid 1 notices by its own lifelines.
            sys::exit(0);
        }
        let (id, result) = handle_request(&message[..n as usize], handles, count, pipe);
        for fd in &handles[..count] {
            sys::close(*fd);
        }
        let mut answer = Text::<64>::new();
        answer.push(&plan::MAGIC.to_le_bytes());
        let pidfd = match result {
            Ok((pid, pidfd)) => {
                answer.push(&0u32.to_le_bytes()).push(&id.to_le_bytes()).push(&(pid as u64).to_le_bytes());
                pidfd
            }
            Err(f) => {
                let place = u64::from(f.step) | (u64::from(f.index) << 32);
                answer.push(&((-f.errno) as u32).to_le_bytes()).push(&id.to_le_bytes()).push(&place.to_le_bytes());
                -1
            }
        };
        sys::send(CONTROL, answer.bytes(), pidfd);
        sys::close(pidfd);
    }
}

pub fn ignore_signal(signal: i32) {
    set_signal(signal, 1);
}

/// `handler`: 0 default, 1 ignore.
pub fn set_signal(signal: i32, handler: u64) {
    // struct kernel_sigaction: handler, flags, restorer, mask.
    let action: [u64; 4] = [handler, 0, 0, 0];
    sys!(nr::RT_SIGACTION, signal, action.as_ptr(), 0, 8);
}

fn handle_request(
    message: &[u8],
    handles: [Fd; MAX_HANDLES],
    count: usize,
    lifeline: [Fd; 2],
) -> (u64, Result<(isize, Fd), Failure>) {
    let mut header = Body(message);
    let (magic, kind, id) = (header.u32(), header.u32(), header.u64());
    let (Some(plan::MAGIC), Some(kind @ (request::LAUNCH | request::HELD)), Some(id)) = (magic, kind, id)
    else {
        return (0, Err(failed(step::PLAN, 0, sys::EPROTO)));
    };
    if count < handle::COUNT {
        return (id, Err(failed(step::HANDLES, 0, sys::EPROTO)));
    }
    (id, launch(header.0, kind == request::HELD, handles, count, lifeline))
}

fn read_config(plan: &[u8]) -> Result<[u64; word::COUNT], Failure> {
    let mut records = Records::new(plan);
    let mut config = None;
    while let Some((tag, body)) = records.next() {
        if tag == plan::TAG_CONFIG {
            let mut words = [0u64; word::COUNT];
            let mut body = Body(body);
            for w in &mut words {
                *w = body.u64().ok_or(failed(step::PLAN, records.index, sys::EINVAL))?;
            }
            config = Some(words);
        }
    }
    if !records.complete() {
        return Err(failed(step::PLAN, records.index, sys::EINVAL));
    }
    config.ok_or(failed(step::PLAN, 0, sys::EINVAL))
}

fn launch(
    plan: &[u8],
    held: bool,
    handles: [Fd; MAX_HANDLES],
    count: usize,
    lifeline: [Fd; 2],
) -> Result<(isize, Fd), Failure> {
    let started = sys::now_ns();
    let config = read_config(plan)?;
    laps::begin(&config, started);
    let switches = config[word::SWITCHES];
    let mut launch = Launch {
        plan,
        config,
        held,
        handles,
        handle_count: count,
        binds: [-1; plan::MAX_BINDS],
        root: -1,
        go: -1,
        lifeline: lifeline[0],
        started,
    };
    if switches & switch::PRIVILEGED != 0 && switches & switch::NEW_ROOT != 0 {
        if let Err(failure) = walls::open_binds(&mut launch) {
            close_binds(&launch);
            return Err(failure);
        }
        launch.root = tree::root_of(plan);
    }
    let mut go: [Fd; 2] = [-1; 2];
    if sys!(nr::PIPE2, go.as_mut_ptr(), sys::O_CLOEXEC) < 0 {
        close_binds(&launch);
        return Err(failed(step::CLONE, 0, sys::EAGAIN));
    }
    launch.go = go[0];
    laps::lap(lap::SOURCES);
    let mut pidfd: Fd = -1;
    let mut args = sys::CloneArgs {
        flags: (config[word::CLONE_FLAGS] & !walls::OWN_NAMESPACES) | sys::CLONE_PIDFD,
        pidfd: &raw mut pidfd as u64,
        exit_signal: sys::SIGCHLD,
        ..Default::default()
    };
    if switches & switch::INTO_CGROUP != 0 && count > handle::CGROUP {
        args.flags |= sys::CLONE_INTO_CGROUP;
        args.cgroup = handles[handle::CGROUP] as u64;
    }
    let pid = sys::clone3(&args);
    if pid == 0 {
        // The child must not hold what belongs to the spawner.
        sys::close(CONTROL);
        sys::close(go[1]);
        sys::close(lifeline[1]);
        sys!(new::CLOSE_RANGE, idmap::FIRST, u32::MAX as usize, 0);
        walls::pid_one(launch)
    }
    close_binds(&launch);
    sys::close(go[0]);
    if pid < 0 {
        sys::close(go[1]);
        return Err(failed(step::CLONE, 0, pid));
    }
    let mapped = if config[word::CLONE_FLAGS] & sys::CLONE_NEWUSER != 0 {
        write_id_maps(pid as u64, &config)
    } else {
        Ok(())
    };
    if mapped.is_ok() {
        sys::write(go[1], b"g");
    }
    // Without a go, the child reads the end of the pipe and exits.
    sys::close(go[1]);
    match mapped {
        Ok(()) => Ok((pid, pidfd)),
        Err(failure) => {
            sys::close(pidfd);
            Err(failure)
        }
    }
}

fn close_binds(launch: &Launch<'_>) {
    for fd in launch.binds {
        sys::close(fd);
    }
    sys::close(launch.root);
}

/// Writes `text` to `/proc/<pid>/<file>` in one write, as the id map files demand.
pub fn write_proc(pid: u64, file: &[u8], text: &[u8]) -> isize {
    let mut path = Text::<64>::new();
    path.push(b"/proc/").push_number(pid).push(b"/").push(file);
    let fd = sys::openat(sys::AT_FDCWD, path.with_nul(), sys::O_WRONLY, 0);
    if fd < 0 {
        return fd;
    }
    let n = sys::write(fd as Fd, text);
    sys::close(fd as Fd);
    n
}

/// Gives the new user namespace its one user and one group.
fn write_id_maps(pid: u64, config: &[u64; word::COUNT]) -> Result<(), Failure> {
    let map = |inside: u64, outside: u64| {
        let mut text = Text::<48>::new();
        text.push_number(inside).push(b" ").push_number(outside).push(b" 1");
        text
    };
    // An unprivileged launcher may write the group map only after giving up setgroups(2)
    // (user_namespaces(7)). A privileged one keeps it for a moment: pid 1 drops root's groups.
    if config[word::SWITCHES] & switch::PRIVILEGED == 0 {
        let n = write_proc(pid, b"setgroups", b"deny");
        if n < 0 {
            return Err(failed(step::ID_MAP_FILE, 0, n));
        }
    }
    let uids = map(config[word::INSIDE_UID], config[word::HOST_UID]);
    let gids = map(config[word::INSIDE_GID], config[word::HOST_GID]);
    for (file, text) in [(&b"uid_map"[..], uids), (&b"gid_map"[..], gids)] {
        let n = write_proc(pid, file, text.bytes());
        if n < 0 {
            return Err(failed(step::ID_MAP_FILE, 0, n));
        }
    }
    Ok(())
}
