//! A system call as a policy names it, and the C types of the arguments that may be filtered.
//!
//! The width of a comparison is not the author's choice. The kernel reads only the low bits of an
//! `int` argument, so a filter that compares all 64 bits is bypassed by setting bit 32
//! (CVE-2019-7303, CVE-2019-10063); one that compares only the low half of a `long` has the mirror
//! bug. Each filterable argument therefore carries its width here, and nothing else can be asked.

mod arguments;

use std::fmt;

use crate::arch::Arch;
use crate::error::Error;

/// How many bits of an argument register the kernel reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Width {
    /// `umode_t`, an `unsigned short`: bits 16 to 63 are ignored.
    W16,
    /// `int`, `unsigned int`, `pid_t`, `clockid_t`: bits 32 to 63 are ignored.
    W32,
    /// `long`, `unsigned long`, `size_t`, pointers: every bit counts.
    W64,
}

impl Width {
    /// Number of significant bits: 16, 32 or 64.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Width::W16 => 16,
            Width::W32 => 32,
            Width::W64 => 64,
        }
    }

    /// A mask with exactly the significant bits set.
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
            Width::W16 => 0xffff,
            Width::W32 => 0xffff_ffff,
            Width::W64 => u64::MAX,
        }
    }
}

/// One argument that conditions may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Argument {
    /// The parameter's name, as in the manual page or the kernel's `SYSCALL_DEFINE`.
    pub name: &'static str,
    /// Register position, 0 to 5.
    pub index: u8,
    /// Width of the C type in the kernel's definition.
    pub width: Width,
}

/// A system call that exists on at least one known architecture. Compared by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Syscall(&'static str);

impl Syscall {
    /// The call with this name.
    ///
    /// # Errors
    /// [`Error::UnknownSyscall`] if no architecture has it; a typing mistake in a policy must not
    /// become a rule that never matches.
    pub fn named(name: &str) -> Result<Syscall, Error> {
        Arch::ALL
            .into_iter()
            .find_map(|arch| arch.syscall_name(arch.number(name)?))
            .map(Syscall)
            .ok_or_else(|| Error::UnknownSyscall { name: name.to_owned() })
    }

    /// The name, as in the kernel's tables (`newfstatat`, `pread64`, `umount2`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// The number on `arch`, or `None` where the call does not exist there.
    #[must_use]
    pub fn number(self, arch: Arch) -> Option<u32> {
        arch.number(self.0)
    }

    /// The arguments that conditions on this call may use; empty for most calls.
    #[must_use]
    pub fn arguments(self) -> &'static [Argument] {
        arguments::of(self.0)
    }

    /// The argument with this name.
    ///
    /// # Errors
    /// [`Error::UnknownArgument`] if its width is not known.
    pub fn argument(self, name: &str) -> Result<Argument, Error> {
        self.arguments()
            .iter()
            .find(|argument| argument.name == name)
            .copied()
            .ok_or_else(|| Error::UnknownArgument { syscall: self.0, argument: name.to_owned() })
    }

    /// Every call that has filterable arguments.
    pub fn with_arguments() -> impl Iterator<Item = Syscall> {
        arguments::TABLE.iter().map(|&(name, _)| Syscall(name))
    }
}

impl fmt::Display for Syscall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_with_arguments_exists() {
        for syscall in Syscall::with_arguments() {
            assert_eq!(Syscall::named(syscall.name()), Ok(syscall));
            assert!(!syscall.arguments().is_empty(), "{syscall} is in the table for a reason");
            for argument in syscall.arguments() {
                assert!(argument.index < 6, "{syscall} {}: registers are 0 to 5", argument.name);
                assert_eq!(syscall.argument(argument.name), Ok(*argument), "names are unique");
            }
        }
    }

    #[test]
    fn the_classic_bypass_arguments_are_32_bit() {
        for (call, argument) in [
            ("socket", "domain"),
            ("ioctl", "cmd"),
            ("prctl", "option"),
            ("personality", "persona"),
            ("execveat", "flags"),
        ] {
            let found = Syscall::named(call).unwrap().argument(argument).unwrap();
            assert_eq!(found.width, Width::W32, "{call} {argument}");
        }
        let flags = Syscall::named("unshare").unwrap().argument("flags").unwrap();
        assert_eq!(flags.width, Width::W64, "unshare takes unsigned long");
        let mode = Syscall::named("fchmodat").unwrap().argument("mode").unwrap();
        assert_eq!(mode.width, Width::W16, "umode_t is unsigned short");
    }

    #[test]
    fn misspelt_names_are_errors() {
        assert_eq!(Syscall::named("opnat").unwrap_err().code(), "PAL-SECCOMP-UNKNOWN-SYSCALL");
        let read = Syscall::named("read").unwrap();
        assert_eq!(read.argument("buf").unwrap_err().code(), "PAL-SECCOMP-UNKNOWN-ARGUMENT");
    }
}
