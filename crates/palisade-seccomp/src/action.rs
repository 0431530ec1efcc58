//! What a filter answers, and which answer wins when filters are stacked.
//! Values and precedence are those of seccomp(2) and `linux/seccomp.h`.

use std::fmt;

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ACTION_FULL: u32 = 0xffff_0000;
const RET_DATA: u32 = 0x0000_ffff;

/// The largest errno a filter can answer with; the kernel caps larger ones (`MAX_ERRNO`).
pub const MAX_ERRNO: u16 = 4095;

/// The error numbers that the profiles use. They are the same on x86_64 and aarch64.
pub mod errno {
    /// Operation not permitted.
    pub const EPERM: u16 = 1;
    /// Permission denied.
    pub const EACCES: u16 = 13;
    /// Function not implemented: libraries fall back to an older call.
    pub const ENOSYS: u16 = 38;
    /// Protocol not supported.
    pub const EPROTONOSUPPORT: u16 = 93;
    /// Operation not supported: libraries do without (`posix_fallocate` writes instead).
    pub const EOPNOTSUPP: u16 = 95;
    /// Address family not supported by protocol.
    pub const EAFNOSUPPORT: u16 = 97;
}

/// The answer to one system call.
///
/// `SECCOMP_RET_KILL_THREAD` is left out on purpose: a process that goes on with one thread missing
/// holds locks nobody will release. `SECCOMP_RET_TRACE` is left out because plugins have no tracer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// End the whole process as if by `SIGSYS`, uncatchable.
    KillProcess,
    /// Send a catchable `SIGSYS` to the thread.
    Trap,
    /// Fail the call with this errno, 0 to 4095, without executing it.
    Errno(u16),
    /// Ask the listener that user space holds (seccomp_unotify(2)).
    UserNotify,
    /// Execute the call and write an audit record.
    Log,
    /// Execute the call.
    Allow,
}

impl Action {
    /// Shorthand for `Errno(EPERM)`.
    pub const EPERM: Action = Action::Errno(errno::EPERM);
    /// Shorthand for `Errno(ENOSYS)`.
    pub const ENOSYS: Action = Action::Errno(errno::ENOSYS);
    /// Shorthand for `Errno(EACCES)`.
    pub const EACCES: Action = Action::Errno(errno::EACCES);

    /// The 32-bit value a filter returns to the kernel for this answer.
    #[must_use]
    pub const fn to_return(self) -> u32 {
        match self {
            Action::KillProcess => RET_KILL_PROCESS,
            Action::Trap => RET_TRAP,
            Action::Errno(number) => RET_ERRNO | number as u32,
            Action::UserNotify => RET_USER_NOTIF,
            Action::Log => RET_LOG,
            Action::Allow => RET_ALLOW,
        }
    }

    /// The action a filter's return value stands for, or `None` for values that no policy of this
    /// crate produces. The 16 data bits count only for `Errno`.
    #[must_use]
    pub const fn from_return(value: u32) -> Option<Action> {
        match value & RET_ACTION_FULL {
            RET_KILL_PROCESS => Some(Action::KillProcess),
            RET_TRAP => Some(Action::Trap),
            RET_ERRNO => {
                let number = (value & RET_DATA) as u16;
                Some(Action::Errno(if number > MAX_ERRNO { MAX_ERRNO } else { number }))
            }
            RET_USER_NOTIF => Some(Action::UserNotify),
            RET_LOG => Some(Action::Log),
            RET_ALLOW => Some(Action::Allow),
            _ => None,
        }
    }

    /// Rank in the kernel's precedence: 0 wins over everything, larger is more permissive.
    #[must_use]
    pub const fn precedence(self) -> u8 {
        match self {
            Action::KillProcess => 0,
            Action::Trap => 1,
            Action::Errno(_) => 2,
            Action::UserNotify => 3,
            Action::Log => 4,
            Action::Allow => 5,
        }
    }

    /// The answer of two stacked filters: the more restrictive one. On a tie the filter installed
    /// last decides the errno, because the kernel runs the newest filter first and replaces its
    /// answer only by a stricter one (`seccomp_run_filters`).
    #[must_use]
    pub const fn stacked(older: Action, newer: Action) -> Action {
        if older.precedence() < newer.precedence() { older } else { newer }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::KillProcess => f.write_str("kill"),
            Action::Trap => f.write_str("trap"),
            Action::Errno(errno::EPERM) => f.write_str("EPERM"),
            Action::Errno(errno::EACCES) => f.write_str("EACCES"),
            Action::Errno(errno::ENOSYS) => f.write_str("ENOSYS"),
            Action::Errno(errno::EPROTONOSUPPORT) => f.write_str("EPROTONOSUPPORT"),
            Action::Errno(errno::EOPNOTSUPP) => f.write_str("EOPNOTSUPP"),
            Action::Errno(errno::EAFNOSUPPORT) => f.write_str("EAFNOSUPPORT"),
            Action::Errno(number) => write!(f, "errno {number}"),
            Action::UserNotify => f.write_str("notify"),
            Action::Log => f.write_str("log"),
            Action::Allow => f.write_str("allow"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Action; 6] = [
        Action::KillProcess,
        Action::Trap,
        Action::Errno(1),
        Action::UserNotify,
        Action::Log,
        Action::Allow,
    ];

    #[test]
    fn return_values_round_trip() {
        for action in ALL {
            assert_eq!(Action::from_return(action.to_return()), Some(action));
        }
        assert_eq!(Action::from_return(0), None, "KILL_THREAD is not ours");
        assert_eq!(Action::from_return(0x0005_ffff), Some(Action::Errno(4095)), "kernel's cap");
    }

    #[test]
    fn precedence_is_the_kernels_signed_order() {
        // The kernel compares the action bits as i32; smaller wins.
        for a in ALL {
            for b in ALL {
                let kernel = (a.to_return() & RET_ACTION_FULL) as i32;
                let other = (b.to_return() & RET_ACTION_FULL) as i32;
                assert_eq!(kernel < other, a.precedence() < b.precedence(), "{a} against {b}");
            }
        }
    }

    #[test]
    fn newest_filter_decides_a_tie() {
        let older = Action::Errno(1);
        let newer = Action::Errno(38);
        assert_eq!(Action::stacked(older, newer), newer);
        assert_eq!(Action::stacked(Action::KillProcess, newer), Action::KillProcess);
        assert_eq!(Action::stacked(older, Action::Allow), older);
    }
}
