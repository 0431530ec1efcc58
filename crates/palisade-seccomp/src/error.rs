//! What can go wrong while a policy is written, compiled or run. One enum, stable codes.

use crate::arch::Arch;

/// Why a policy was refused, or a program could not be made or run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name is in no architecture's table.
    #[error("no system call is called `{name}` on any known architecture")]
    UnknownSyscall {
        /// The name as the policy wrote it.
        name: String,
    },
    /// A condition names an argument whose C type is not in the width table.
    #[error("`{syscall}` has no argument `{argument}` with a known width")]
    UnknownArgument {
        /// The system call.
        syscall: &'static str,
        /// The argument as the policy wrote it.
        argument: String,
    },
    /// A constant or mask has bits that the argument's C type does not have.
    #[error("{value:#x} does not fit argument `{argument}` of `{syscall}`, which has {bits} bits")]
    ValueTooWide {
        /// The system call.
        syscall: &'static str,
        /// The argument.
        argument: &'static str,
        /// The constant or mask.
        value: u64,
        /// Width of the argument in bits.
        bits: u32,
    },
    /// The condition is the same for every value, so the rule cannot mean what was written.
    #[error("the condition on `{argument}` of `{syscall}` is constant: {why}")]
    ConstantCondition {
        /// The system call.
        syscall: &'static str,
        /// The argument.
        argument: &'static str,
        /// What makes it constant.
        why: &'static str,
    },
    /// An earlier rule without conditions already answers every call.
    #[error("this rule for `{syscall}` can never match: an earlier one has no conditions")]
    UnreachableRule {
        /// The system call.
        syscall: &'static str,
    },
    /// `errno` values end at 4095 (`MAX_ERRNO`); the kernel would cap a larger one silently.
    #[error("errno {0} is above the kernel's maximum of 4095")]
    ErrnoTooLarge(u16),
    /// A rule that names no call at all.
    #[error("a rule names no system call")]
    EmptyRule,
    /// The kernel takes at most 4096 instructions (`BPF_MAXINSNS`).
    #[error("policy `{policy}` needs {len} instructions for {arch}; the kernel takes at most 4096")]
    TooLong {
        /// The policy's name.
        policy: String,
        /// The target.
        arch: Arch,
        /// Instructions needed.
        len: usize,
    },
    /// The kernel's checker would refuse the program.
    #[error("instruction {at}: {why}")]
    Invalid {
        /// Index of the instruction, from 0.
        at: usize,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The program's result is no action of this crate (for example `SECCOMP_RET_TRACE`).
    #[error("return value {0:#010x} is no action that a policy can state")]
    ForeignReturn(u32),
}

impl Error {
    /// A code that stays the same across versions and languages.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Error::UnknownSyscall { .. } => "PAL-SECCOMP-UNKNOWN-SYSCALL",
            Error::UnknownArgument { .. } => "PAL-SECCOMP-UNKNOWN-ARGUMENT",
            Error::ValueTooWide { .. } => "PAL-SECCOMP-VALUE-TOO-WIDE",
            Error::ConstantCondition { .. } => "PAL-SECCOMP-CONSTANT-CONDITION",
            Error::UnreachableRule { .. } => "PAL-SECCOMP-UNREACHABLE-RULE",
            Error::ErrnoTooLarge(_) => "PAL-SECCOMP-ERRNO-TOO-LARGE",
            Error::EmptyRule => "PAL-SECCOMP-EMPTY-RULE",
            Error::TooLong { .. } => "PAL-SECCOMP-TOO-LONG",
            Error::Invalid { .. } => "PAL-SECCOMP-INVALID-PROGRAM",
            Error::ForeignReturn(_) => "PAL-SECCOMP-FOREIGN-RETURN",
        }
    }
}
