//! What these walls add to the floor and the profile of a launch's system call filter, and when.
//!
//! Data only, the same on every platform: `filter` loads them, `palisade doctor --seccomp` shows them. Each
//! only makes the filter stricter; where profile and addition both refuse, the profile's errno stands.

use palisade_seccomp::{Action, Error, Op, Policy, profiles::Profile};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    /// What it answers; everything else is left to floor and profile.
    pub policy: Policy,
    /// In which launches it is there, as the end of a sentence.
    pub when: &'static str,
}

/// Those that can come to a profile.
///
/// # Errors
/// None in practice; a mistake in the rules would show here, and the tests would fail.
pub fn of(profile: Profile) -> Result<Vec<Addition>, Error> {
    let mut all = vec![
        Addition { policy: guard_of_init()?, when: "in every launch" },
        Addition {
            policy: policed_memory()?,
            when: "where no cgroup holds the plugin's memory, so that it is only sampled",
        },
        Addition {
            policy: policed_cpu()?,
            when: "where no cgroup holds the plugin's processor time, so that it is only sampled",
        },
    ];
    if can_be_no_jit(profile) {
        all.push(Addition { policy: no_jit()?, when: "where the guarantee no-jit is demanded" });
    }
    Ok(all)
}

/// A runtime that compiles as it runs is not started where `no-jit` is demanded, and without mounts nobody can
/// hold it.
pub(crate) fn can_be_no_jit(profile: Profile) -> bool {
    !profile.needs_jit() && profile != Profile::Lockdown
}

/// Pid 1 is the plugin's own user in the plugin's own pid namespace, so the kernel would let the plugin
/// change its limits and its priority: with no handles to open, or no processor time, pid 1 could no longer
/// sample what is policed. Signals need no rule; the kernel keeps them from a namespace's init.
pub(crate) fn guard_of_init() -> Result<Policy, Error> {
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
pub(crate) fn policed_memory() -> Result<Policy, Error> {
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

/// Where processor time is only sampled, pid 1 must get to run. With `sched_autogroup_enabled` (sched(7)) each
/// session competes with the others as a whole: a plugin that begins sessions of its own gets as many shares,
/// and can keep pid 1, and everybody else, from the processors for seconds.
pub(crate) fn policed_cpu() -> Result<Policy, Error> {
    Policy::builder("policed-cpu", 1, Action::Allow).on(Action::EPERM, &["setsid"]).build()
}

/// What goes into memory and comes out as code by another way than a change of its protection: a memory
/// file or a System V segment is written in one place and mapped as code in another. Files cannot be: every
/// folder that can be written is mounted `noexec`. The protection itself is PR_SET_MDWE's part.
pub(crate) fn no_jit() -> Result<Policy, Error> {
    const SHM_EXEC: u64 = 0o100_000;
    Policy::builder("no-jit", 1, Action::Allow)
        .on(Action::ENOSYS, &["memfd_create", "memfd_secret"])
        .on_when(Action::EACCES, &["shmat"], &[("shmflg", Op::MaskedAny(SHM_EXEC))])
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_addition_comes_to_a_profile_that_could_never_have_it() {
        for profile in Profile::ALL {
            let names: Vec<String> =
                of(profile).unwrap().iter().map(|a| a.policy.name().to_owned()).collect();
            let wanted: &[&str] = match profile {
                Profile::Native | Profile::Shell | Profile::Python => {
                    &["init-guard", "policed-memory", "policed-cpu", "no-jit"]
                }
                Profile::Node | Profile::Jvm | Profile::Engine | Profile::Lockdown => {
                    &["init-guard", "policed-memory", "policed-cpu"]
                }
            };
            assert_eq!(names, wanted, "{profile}");
        }
    }
}
