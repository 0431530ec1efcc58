//! The architectures a filter can be made for, and their system call numbers.
//!
//! The tables know every call up to Linux 6.18. A number that is in no table is a call this crate
//! has never heard of; profiles answer it with `ENOSYS`, as an older kernel would.

mod aarch64;
mod x86_64;

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

/// Bit 30 of a call number selects the x32 interface on x86_64 (`__X32_SYSCALL_BIT`). Such calls
/// carry the same `AUDIT_ARCH` value, so a filter must look at the number to see them.
pub const X32_SYSCALL_BIT: u32 = 0x4000_0000;

/// An architecture that filters can be compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit x86, without x32 and without the 32-bit `int 0x80` interface.
    X86_64,
    /// Little-endian 64-bit Arm.
    Aarch64,
}

static X86_64_BY_NAME: LazyLock<HashMap<&'static str, u32>> =
    LazyLock::new(|| index(x86_64::TABLE));
static AARCH64_BY_NAME: LazyLock<HashMap<&'static str, u32>> =
    LazyLock::new(|| index(aarch64::TABLE));

fn index(table: &'static [(u32, &'static str)]) -> HashMap<&'static str, u32> {
    table.iter().map(|&(number, name)| (name, number)).collect()
}

impl Arch {
    /// Every architecture this crate knows.
    pub const ALL: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

    /// The architecture this code was compiled for, if a filter can be made for it.
    #[must_use]
    pub const fn native() -> Option<Arch> {
        if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
            Some(Arch::X86_64)
        } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
            Some(Arch::Aarch64)
        } else {
            None
        }
    }

    /// The value of `seccomp_data.arch` for this architecture (`linux/audit.h`).
    #[must_use]
    pub const fn audit_arch(self) -> u32 {
        match self {
            // EM_X86_64 and EM_AARCH64, each with __AUDIT_ARCH_64BIT | __AUDIT_ARCH_LE.
            Arch::X86_64 => 0xC000_003E,
            Arch::Aarch64 => 0xC000_00B7,
        }
    }

    /// The architecture that an `AUDIT_ARCH` value stands for, if this crate knows it.
    #[must_use]
    pub fn from_audit_arch(value: u32) -> Option<Arch> {
        Arch::ALL.into_iter().find(|arch| arch.audit_arch() == value)
    }

    /// The usual lower-case name, as `uname -m` prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
        }
    }

    /// Every known call of this architecture as (number, name), sorted by number.
    #[must_use]
    pub const fn syscalls(self) -> &'static [(u32, &'static str)] {
        match self {
            Arch::X86_64 => x86_64::TABLE,
            Arch::Aarch64 => aarch64::TABLE,
        }
    }

    /// The number of the call with this name, or `None` where the architecture has no such call.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u32> {
        match self {
            Arch::X86_64 => X86_64_BY_NAME.get(name).copied(),
            Arch::Aarch64 => AARCH64_BY_NAME.get(name).copied(),
        }
    }

    /// The name of the call with this number, or `None` for a number that is in no table.
    #[must_use]
    pub fn syscall_name(self, number: u32) -> Option<&'static str> {
        let table = self.syscalls();
        let at = table.binary_search_by_key(&number, |&(n, _)| n).ok()?;
        table.get(at).map(|&(_, name)| name)
    }

    /// The first call number that every filter kills regardless of its rules, if there is one.
    /// On x86_64 this is the x32 range; -1, which is what a call skipped by a tracer looks like,
    /// is part of it. Arm64 has no second interface under the same `AUDIT_ARCH`.
    #[must_use]
    pub const fn killed_from(self) -> Option<u32> {
        match self {
            Arch::X86_64 => Some(X32_SYSCALL_BIT),
            Arch::Aarch64 => None,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_unique() {
        for arch in Arch::ALL {
            let table = arch.syscalls();
            assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0), "{arch}: sorted by number");
            for &(number, name) in table {
                assert_eq!(arch.number(name), Some(number), "{arch}: {name} is there once");
                assert_eq!(arch.syscall_name(number), Some(name));
            }
        }
    }

    #[test]
    fn tables_reach_linux_6_18() {
        assert_eq!(Arch::X86_64.syscalls().len(), 383);
        assert_eq!(Arch::Aarch64.syscalls().len(), 325);
        assert_eq!(Arch::X86_64.number("uprobe"), Some(336));
        for arch in Arch::ALL {
            assert_eq!(arch.number("file_setattr"), Some(469));
            assert_eq!(arch.syscall_name(470), None, "listns is newer than 6.18");
        }
    }

    #[test]
    fn spot_checks_against_the_kernel_headers() {
        let known = [
            ("read", 0, 63),
            ("openat", 257, 56),
            ("clone", 56, 220),
            ("unshare", 272, 97),
            ("socket", 41, 198),
            ("ioctl", 16, 29),
            ("prctl", 157, 167),
            ("ptrace", 101, 117),
            ("mount", 165, 40),
            ("clone3", 435, 435),
            ("fchmodat2", 452, 452),
        ];
        for (name, x86_64, aarch64) in known {
            assert_eq!(Arch::X86_64.number(name), Some(x86_64), "{name}");
            assert_eq!(Arch::Aarch64.number(name), Some(aarch64), "{name}");
        }
        assert_eq!(Arch::Aarch64.number("open"), None, "arm64 has openat only");
    }

    #[test]
    fn audit_values_round_trip() {
        for arch in Arch::ALL {
            assert_eq!(Arch::from_audit_arch(arch.audit_arch()), Some(arch));
        }
        assert_eq!(Arch::from_audit_arch(0x4000_0003), None, "i386 is not ours");
    }
}
