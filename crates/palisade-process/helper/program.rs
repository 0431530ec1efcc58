// The last steps, in the process that becomes the program: handles, limits, rights, filters, exec.
//
// The order matters: the filter comes last, because it forbids what the other steps use; Landlock needs
// no_new_privs; limits come before the drop of capabilities that could raise them.

#[cfg(feature = "ablation")]
use crate::ablation;
use crate::init;
use crate::laps;
use crate::observe;
use crate::plan::{self, Body, Records, handle, lap, step, switch, word};
use crate::spawner::{Failure, Launch, failed};
use crate::sys::{self, Fd, new, nr, pr, sys};
use crate::violation::{self, Handover};

/// High enough to stay clear of everything that was passed.
const PARKED: Fd = 400;

pub struct Prepared<'a> {
    launch: &'a Launch<'a>,
    exe: &'a [u8],
    cwd: &'a [u8],
    argv: [*const u8; plan::MAX_STRINGS + 1],
    envp: [*const u8; plan::MAX_STRINGS + 1],
    seccomp: &'a [u8],
    /// Landlock ruleset, or -1.
    pub ruleset: Fd,
    handover: Handover,
    /// A pipe whose end the held process closes by its exec or its end; -1 where it is not held.
    begun: Fd,
    /// Written by the child, read by pid 1 once the child has run on or ended.
    failure: Failure,
}

pub fn prepare<'a>(launch: &'a Launch<'a>) -> Result<Prepared<'a>, Failure> {
    let mut prepared = Prepared {
        launch,
        exe: b"\0",
        cwd: b"/\0",
        argv: [core::ptr::null(); plan::MAX_STRINGS + 1],
        envp: [core::ptr::null(); plan::MAX_STRINGS + 1],
        seccomp: &[],
        ruleset: -1,
        handover: Handover::NONE,
        begun: -1,
        failure: failed(0, 0, 0),
    };
    let (mut args, mut vars) = (0, 0);
    let mut records = Records::new(launch.plan);
    while let Some((tag, bytes)) = records.next() {
        let index = records.index;
        let bad = || failed(step::PLAN, index, sys::EINVAL);
        let mut body = Body(bytes);
        match tag {
            plan::TAG_EXE => prepared.exe = body.text().ok_or_else(bad)?,
            plan::TAG_CWD => prepared.cwd = body.text().ok_or_else(bad)?,
            plan::TAG_ARG => push(&mut prepared.argv, &mut args, body.text().ok_or_else(bad)?, index)?,
            plan::TAG_ENV => push(&mut prepared.envp, &mut vars, body.text().ok_or_else(bad)?, index)?,
            plan::TAG_SECCOMP => prepared.seccomp = bytes,
            plan::TAG_LANDLOCK => {
                let attributes =
                    [body.u64().ok_or_else(bad)?, body.u64().ok_or_else(bad)?, body.u64().ok_or_else(bad)?];
                // The struct grew by one word with ABI 4 and one with ABI 6; trailing zeros are accepted
                // only if known, so the size follows from what is asked for.
                let size = if attributes[2] != 0 { 24 } else if attributes[1] != 0 { 16 } else { 8 };
                let fd = sys!(new::LANDLOCK_CREATE_RULESET, attributes.as_ptr(), size, 0);
                if fd < 0 {
                    return Err(failed(step::LANDLOCK, index, fd));
                }
                prepared.ruleset = fd as Fd;
            }
            plan::TAG_LANDLOCK_PORT => {
                let port = body.u64().ok_or_else(bad)?;
                landlock_port(prepared.ruleset, port, index)?;
            }
            plan::TAG_LANDLOCK_RULE => {
                let rights = body.u64().ok_or_else(bad)?;
                let path = body.text().ok_or_else(bad)?;
                landlock_rule(prepared.ruleset, rights, path, index)?;
            }
            _ => {}
        }
    }
    if !prepared.seccomp.is_empty() && !observe::is_wanted(launch) {
        prepared.handover = Handover::new()?;
    }
    Ok(prepared)
}

impl Prepared<'_> {
    /// The listener of the program's filter, once it runs; -1 if pid 1 has none.
    pub fn take_listener(&mut self, status: Fd) -> Fd {
        core::mem::replace(&mut self.handover, Handover::NONE).take(status)
    }

    /// To whom the listener of the filter goes: the host where it observes, pid 1 otherwise.
    fn listener_to(&self) -> Fd {
        if observe::is_wanted(self.launch) {
            self.launch.handles[handle::STATUS]
        } else {
            self.handover.theirs
        }
    }
}

fn push(list: &mut [*const u8], count: &mut usize, text: &[u8], index: u32) -> Result<(), Failure> {
    // The last entry stays null.
    if *count + 1 >= list.len() {
        return Err(failed(step::PLAN, index, sys::E2BIG));
    }
    list[*count] = text.as_ptr();
    *count += 1;
    Ok(())
}

fn landlock_rule(ruleset: Fd, rights: u64, path: &[u8], index: u32) -> Result<(), Failure> {
    const RULE_PATH_BENEATH: usize = 1;
    let fd = sys::openat(sys::AT_FDCWD, path, sys::O_PATH, 0);
    if fd == sys::ENOENT {
        // An optional mount that is not there.
        return Ok(());
    }
    if fd < 0 {
        return Err(failed(step::LANDLOCK, index, fd));
    }
    #[repr(C, packed)]
    struct PathBeneath {
        rights: u64,
        parent: Fd,
    }
    let rule = PathBeneath { rights, parent: fd as Fd };
    let added = sys!(new::LANDLOCK_ADD_RULE, ruleset, RULE_PATH_BENEATH, &raw const rule, 0);
    sys::close(fd as Fd);
    if added < 0 { Err(failed(step::LANDLOCK, index, added)) } else { Ok(()) }
}

/// Lets the program connect to `port`, of whatever host there is.
fn landlock_port(ruleset: Fd, port: u64, index: u32) -> Result<(), Failure> {
    const RULE_NET_PORT: usize = 2;
    const CONNECT_TCP: u64 = 2;
    let rule = [CONNECT_TCP, port];
    let added = sys!(new::LANDLOCK_ADD_RULE, ruleset, RULE_NET_PORT, rule.as_ptr(), 0);
    if added < 0 { Err(failed(step::LANDLOCK, index, added)) } else { Ok(()) }
}

#[repr(C, align(64))]
struct Stack([u8; 64 * 1024]);
static mut STACK: Stack = Stack([0; 64 * 1024]);

/// Starts the program and waits until it runs. The child borrows this process's memory until exec
/// (vfork semantics), on a stack of its own: nothing is copied, and its failure is seen here.
///
/// Of walls that are built ahead, it waits for the host's word behind all that can be done before the exec.
/// Then this process is awake beside it, to end with the host or the spawner, and touches nothing of what
/// the child has borrowed.
pub fn start(prepared: &mut Prepared<'_>) -> Result<isize, Failure> {
    let launch = prepared.launch;
    let mut pipe: [Fd; 2] = [-1; 2];
    if launch.held {
        let made = sys!(nr::PIPE2, pipe.as_mut_ptr(), sys::O_CLOEXEC);
        if made < 0 {
            return Err(failed(step::HANDLES, 21, made));
        }
        prepared.begun = pipe[1];
    }
    // The first number after pid 1's, which the network's maker had before (clone3(2), set_tid).
    let second: [i32; 1] = [2];
    let numbered = launch.config[word::CLONE_FLAGS] & sys::CLONE_NEWPID != 0;
    let args = sys::CloneArgs {
        set_tid: if numbered { second.as_ptr() as u64 } else { 0 },
        set_tid_size: u64::from(numbered),
        flags: sys::CLONE_VM | if launch.held { 0 } else { sys::CLONE_VFORK },
        exit_signal: sys::SIGCHLD,
        stack: &raw mut STACK as u64,
        stack_size: core::mem::size_of::<Stack>() as u64,
        ..Default::default()
    };
    let borrowed = &raw mut *prepared;
    // SAFETY: one child uses the stack at a time, and this process sleeps meanwhile, or waits in `hold`.
    let pid = unsafe { sys::clone_onto(&args, borrowed.cast(), become_program) };
    if pid < 0 {
        return Err(failed(step::FORK, 0, pid));
    }
    if launch.held {
        sys::close(pipe[1]);
        init::hold(launch, pipe[0]);
        sys::close(pipe[0]);
    }
    // SAFETY: the child wrote it before it ended, through the pointer given to clone_onto.
    let failure = unsafe { core::ptr::read_volatile(&raw const (*borrowed).failure) };
    if failure.step != 0 { Err(failure) } else { Ok(pid) }
}

extern "C" fn become_program(prepared: *mut u8) -> ! {
    // SAFETY: it is what `start` was given; pid 1 sleeps until this process execs or exits, so the reference
    // is the only one in use.
    let prepared = unsafe { &mut *prepared.cast::<Prepared<'static>>() };
    let failure = transform(prepared);
    // SAFETY: as above; volatile because pid 1 reads it behind the compiler's back.
    unsafe { core::ptr::write_volatile(&raw mut prepared.failure, failure) };
    sys::exit(79)
}

/// Comes back only with a failure.
fn transform(prepared: &Prepared<'_>) -> Failure {
    match steps(prepared) {
        Err(failure) => failure,
        Ok(()) => {
            let errno = sys!(
                nr::EXECVE,
                prepared.exe.as_ptr(),
                prepared.argv.as_ptr(),
                prepared.envp.as_ptr()
            );
            failed(step::EXEC, 0, errno)
        }
    }
}

fn steps(prepared: &Prepared<'_>) -> Result<(), Failure> {
    let launch = prepared.launch;
    laps::lap(lap::FORK);
    // A process group of its own, in pid 1's session. With `sched_autogroup_enabled` a session is what gets a
    // share of the processors (sched(7)): one that samples processor time must have a part in what it samples.
    sys!(nr::SETPGID, 0, 0);
    let none: u64 = 0;
    sys!(nr::RT_SIGPROCMASK, 2, &raw const none, 0, 8);
    let cwd = sys!(nr::CHDIR, prepared.cwd.as_ptr());
    if cwd < 0 {
        return Err(failed(step::CWD, 0, cwd));
    }
    // Before the limits: parking needs numbers above most limits on open files.
    handles(launch, prepared)?;
    limits(launch, |resource| resource != OPEN_FILES)?;
    laps::lap(lap::LIMITS);
    #[cfg(feature = "ablation")]
    let (dropped, promises) =
        (ablation::drop_capabilities(launch), ablation::has_no_new_privileges(launch));
    #[cfg(not(feature = "ablation"))]
    let (dropped, promises) = (drop_capabilities(), true);
    if !dropped {
        return Err(failed(step::CAPS, 0, sys::EPERM));
    }
    laps::lap(lap::CAPABILITIES);
    let locked = if promises { sys::prctl(pr::SET_NO_NEW_PRIVS, 1, 0, 0) } else { 0 };
    if locked < 0 {
        return Err(failed(step::NO_NEW_PRIVS, 0, locked));
    }
    if prepared.ruleset >= 0 {
        // Parked behind the standard handles by `handles`.
        let restricted = sys!(new::LANDLOCK_RESTRICT_SELF, RULESET, 0);
        sys::close(RULESET);
        if restricted < 0 {
            return Err(failed(step::LANDLOCK, 0, restricted));
        }
    }
    if launch.config[word::SWITCHES] & switch::NO_JIT != 0 {
        // Kept through every fork and exec. Pid 1 shares this memory until the exec, and has no need of
        // more either.
        const REFUSE_EXEC_GAIN: usize = 1;
        let refused = sys::prctl(pr::SET_MDWE, REFUSE_EXEC_GAIN, 0, 0);
        if refused < 0 {
            return Err(failed(step::NO_JIT, 0, refused));
        }
    }
    laps::lap(lap::LANDLOCK);
    if !prepared.seccomp.is_empty() {
        load_filter(prepared.seccomp, observe::is_wanted(launch))?;
    }
    // Last: the kernel lets nobody send a handle while the user has more of them under way than this, and
    // with the filter comes a listener that is sent. Other plugins of the same user may keep many.
    limits(launch, |resource| resource == OPEN_FILES)?;
    laps::lap(lap::FILTER);
    if launch.held { init::wait_for_start(HELD, launch.started) } else { Ok(()) }
}

/// RLIMIT_NOFILE.
const OPEN_FILES: u64 = 7;

fn limits(launch: &Launch<'_>, which: impl Fn(u64) -> bool) -> Result<(), Failure> {
    let mut records = Records::new(launch.plan);
    while let Some((tag, body)) = records.next() {
        if tag == plan::TAG_RLIMIT {
            let mut body = Body(body);
            let (Some(resource), Some(soft), Some(hard)) = (body.u64(), body.u64(), body.u64()) else {
                return Err(failed(step::PLAN, records.index, sys::EINVAL));
            };
            if !which(resource) {
                continue;
            }
            let limit = [soft, hard];
            let set = sys!(nr::PRLIMIT64, 0, resource, limit.as_ptr(), 0);
            if set < 0 {
                return Err(failed(step::RLIMIT, records.index, set));
            }
        }
    }
    Ok(())
}

/// Where the ruleset waits until it is used. The places behind it are for the socket of the filter's listener
/// ([`observe::STATUS`]), and, of walls that are built ahead, for the host's word and what tells of the exec.
const RULESET: Fd = 4;
const HELD: Fd = 6;
const PLACES: usize = 8;

/// Leaves exactly stdin, stdout, stderr and the lane open, and until the exec what is needed before it;
/// everything else is closed.
fn handles(launch: &Launch<'_>, prepared: &Prepared<'_>) -> Result<(), Failure> {
    let given = &launch.handles;
    // Where in- and output are the lane, handle 3 is none of the program's.
    let lane = if given[handle::LANE] == given[handle::STDIN] { -1 } else { given[handle::LANE] };
    let held = if launch.held { given[handle::STATUS] } else { -1 };
    let wanted: [Fd; PLACES] = [
        given[handle::STDIN],
        given[handle::STDOUT],
        given[handle::STDERR],
        lane,
        prepared.ruleset,
        prepared.listener_to(),
        held,
        prepared.begun,
    ];
    // First out of the way, then into place: the numbers may overlap.
    for (i, fd) in wanted.iter().enumerate().filter(|(_, fd)| **fd >= 0) {
        let parked = sys!(nr::DUP3, *fd, PARKED + i as Fd, sys::O_CLOEXEC);
        if parked < 0 {
            return Err(failed(step::HANDLES, i as u32, parked));
        }
    }
    let mut first = 0;
    for (i, fd) in wanted.iter().enumerate() {
        if *fd < 0 {
            sys::close(i as Fd);
            continue;
        }
        let flags = if i as Fd >= RULESET { sys::O_CLOEXEC } else { 0 };
        let placed = sys!(nr::DUP3, PARKED + i as Fd, i, flags);
        if placed < 0 {
            return Err(failed(step::HANDLES, 8 + i as u32, placed));
        }
        first = i + 1;
    }
    let closed = sys!(new::CLOSE_RANGE, first, u32::MAX as usize, 0);
    if closed < 0 { Err(failed(step::HANDLES, 16, closed)) } else { Ok(()) }
}

/// Gives up every capability for good: bounding set, ambient set, and the three sets of the process.
pub fn drop_capabilities() -> bool {
    bound_capabilities();
    set_capabilities([0; 6])
}

/// Nothing can be gained any more beyond what the process has.
pub fn bound_capabilities() {
    const LAST_CAP: usize = 63;
    // Root-ness never gives capabilities back, and these bits cannot be cleared again
    // (capabilities(7), "The securebits flags"). Needs CAP_SETPCAP, so it comes first; without it there
    // is nothing to give up.
    const LOCKED_NOROOT: usize = 0b0010_1111;
    sys::prctl(pr::SET_SECUREBITS, LOCKED_NOROOT, 0, 0);
    for cap in 0..=LAST_CAP {
        if sys::prctl(pr::CAPBSET_DROP, cap, 0, 0) == sys::EINVAL {
            break;
        }
    }
    sys::prctl(pr::CAP_AMBIENT, pr::CAP_AMBIENT_CLEAR_ALL, 0, 0);
}

/// Version 3 of the sets, of this process (capset(2)).
pub const CAPABILITY_VERSION: [u32; 2] = [0x2008_0522, 0];

/// Effective, permitted and inheritable: the first 32, then the others.
pub fn set_capabilities(sets: [u32; 6]) -> bool {
    sys!(nr::CAPSET, CAPABILITY_VERSION.as_ptr(), sets.as_ptr()) == 0
}

/// `struct sock_fprog` of linux/filter.h.
#[repr(C)]
struct SockFprog {
    len: u16,
    filter: *const u8,
}

fn fprog(program: &[u8]) -> SockFprog {
    SockFprog { len: (program.len() / 8) as u16, filter: program.as_ptr() }
}

fn load_filter(program: &[u8], observed: bool) -> Result<(), Failure> {
    let fprog = fprog(program);
    match observe::load(&raw const fprog as usize) {
        Err(Failure { index: 1, errno: sys::EBUSY, .. }) if !observed => violation::load_deadly(program),
        other => other,
    }
}

/// Loads a filter that asks nobody.
pub fn load_silent(program: &[u8]) -> Result<(), Failure> {
    const SET_MODE_FILTER: usize = 1;
    let fprog = fprog(program);
    let loaded = sys!(nr::SECCOMP, SET_MODE_FILTER, 0, &raw const fprog);
    if loaded < 0 { Err(failed(step::SECCOMP, 0, loaded)) } else { Ok(()) }
}
