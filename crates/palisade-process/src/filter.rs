//! The system call filter of a launch: profile and floor, with what these walls add to them, compiled once.

use std::sync::{Arc, Mutex, PoisonError};

use palisade_sandbox::SandboxError;
use palisade_seccomp::{Action, Arch, Op, Policy, compile, merged, profiles::Profile, told};

/// Pid 1 is the plugin's own user in the plugin's own pid namespace, so the kernel would let the plugin
/// change its limits and its priority: with no handles to open, or no processor time, pid 1 could no longer
/// sample what is policed. Signals need no rule; the kernel keeps them from a namespace's init.
fn guard_of_init() -> Result<Policy, palisade_seccomp::Error> {
    const INIT: u64 = 1;
    const PRIO_USER: u64 = 2;
    const IOPRIO_WHO_USER: u64 = 3;
    Policy::builder("init-guard", 1, Action::Allow)
        .on_when(
            Action::EPERM,
            &["prlimit64", "sched_setparam", "sched_setscheduler"],
            &[("pid", Op::Eq(INIT))],
        )
        .on_when(Action::EPERM, &["setpriority", "ioprio_set"], &[("who", Op::Eq(INIT))])
        .on_when(Action::EPERM, &["setpriority"], &[("which", Op::Eq(PRIO_USER))])
        .on_when(Action::EPERM, &["ioprio_set"], &[("which", Op::Eq(IOPRIO_WHO_USER))])
        .build()
}

/// Where memory is only sampled, what lies in no process's count and in no tmpfs must not be had at all:
/// pages of a memfd, of shared anonymous memory and of System V segments live on unmapped; System V queues
/// and semaphores, enlarged socket buffers and gifted pages in pipes are the kernel's memory. What is left
/// (pipes, socket buffers of the default size) is bounded or counted by pid 1.
fn policed_memory() -> Result<Policy, palisade_seccomp::Error> {
    const MAP_TYPE_AND_ANONYMOUS: u64 = 0x2f;
    const SHARED_ANONYMOUS: [u64; 2] = [0x21, 0x23];
    const SOL_SOCKET: u64 = 1;
    const SO_SNDBUF: u64 = 7;
    const SO_SNDBUFFORCE: u64 = 32;
    Policy::builder("policed-memory", 2, Action::Allow)
        .on(
            Action::ENOSYS,
            &["memfd_create", "memfd_secret", "shmget", "semget", "msgget", "vmsplice"],
        )
        .on_when(
            Action::EPERM,
            &["mmap"],
            &[(
                "flags",
                Op::MaskedIn { mask: MAP_TYPE_AND_ANONYMOUS, values: SHARED_ANONYMOUS.to_vec() },
            )],
        )
        .on_when(
            Action::EPERM,
            &["setsockopt"],
            &[("level", Op::Eq(SOL_SOCKET)), ("optname", Op::is_in(&[SO_SNDBUF, SO_SNDBUFFORCE]))],
        )
        .build()
}

/// What goes into memory and comes out as code by another way than a change of its protection: a memory
/// file or a System V segment is written in one place and mapped as code in another. Files cannot be: every
/// folder that can be written is mounted `noexec`. The protection itself is PR_SET_MDWE's part.
fn no_jit() -> Result<Policy, palisade_seccomp::Error> {
    const SHM_EXEC: u64 = 0o100_000;
    Policy::builder("no-jit", 1, Action::Allow)
        .on(Action::ENOSYS, &["memfd_create", "memfd_secret"])
        .on_when(Action::EACCES, &["shmat"], &[("shmflg", Op::MaskedAny(SHM_EXEC))])
        .build()
}

/// What the filter of a launch is made of, beside the floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) profile: Profile,
    pub(crate) memory_is_policed: bool,
    pub(crate) no_jit: bool,
}

/// The filter for a launch: floor and profile in one program, with the guard of pid 1 and, where memory is
/// only sampled, without what cannot be counted. Pid 1 is asked about calls that are answered with death,
/// and about nothing else.
pub(crate) fn filter(choice: Choice) -> Result<Arc<Vec<u8>>, SandboxError> {
    // There are few, they depend on nothing else, and compiling one takes longer than building the walls.
    type Known = Vec<(Choice, Arc<Vec<u8>>)>;
    static KNOWN: Mutex<Known> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, program)) = known.iter().find(|(known, _)| *known == choice) {
        return Ok(Arc::clone(program));
    }
    let program = Arc::new(compile_filter(choice)?);
    known.push((choice, Arc::clone(&program)));
    Ok(program)
}

fn broken(error: palisade_seccomp::Error) -> SandboxError {
    SandboxError::Helper(format!("cannot be given a filter: {error}"))
}

pub(crate) fn arch() -> Result<Arch, SandboxError> {
    Arch::native().ok_or_else(|| SandboxError::Helper("has no filter for this processor".into()))
}

/// What the filter of a launch says.
pub(crate) fn policy(choice: Choice) -> Result<Policy, SandboxError> {
    let profile = choice.profile.with_floor().map_err(broken)?;
    let mut policy = merged(&guard_of_init().map_err(broken)?, &profile);
    if choice.memory_is_policed {
        policy = merged(&policed_memory().map_err(broken)?, &policy);
    }
    if choice.no_jit {
        policy = merged(&no_jit().map_err(broken)?, &policy);
    }
    Ok(policy)
}

fn compile_filter(choice: Choice) -> Result<Vec<u8>, SandboxError> {
    let policy = told(&policy(choice)?);
    Ok(compile(&policy, arch()?).map_err(broken)?.to_bytes())
}

/// The filter of an observed launch: it asks the listener about what `policy` refuses and about what is
/// watched.
pub(crate) fn observed(policy: &Policy) -> Result<Vec<u8>, SandboxError> {
    let watched = crate::observe::watched().map_err(broken)?;
    let both = palisade_seccomp::observed(policy, &watched);
    Ok(compile(&both, arch()?).map_err(broken)?.to_bytes())
}
