//! Landlock as data: which rights the running kernel knows, and which of them each kind of place gets.
//!
//! The ruleset is made by the helper, after the new root stands, since its paths exist only there. The
//! ABI number is asked of the kernel once; every right that the kernel knows is handled, so what is not
//! granted is denied (landlock(7)).
#![allow(unsafe_code)]

/// Rights on files, as in `<linux/landlock.h>`.
pub(crate) mod fs {
    pub(crate) const EXECUTE: u64 = 1 << 0;
    pub(crate) const WRITE_FILE: u64 = 1 << 1;
    pub(crate) const READ_FILE: u64 = 1 << 2;
    pub(crate) const READ_DIR: u64 = 1 << 3;
    pub(crate) const REMOVE_DIR: u64 = 1 << 4;
    pub(crate) const REMOVE_FILE: u64 = 1 << 5;
    pub(crate) const MAKE_DIR: u64 = 1 << 7;
    pub(crate) const MAKE_REG: u64 = 1 << 8;
    pub(crate) const MAKE_SOCK: u64 = 1 << 9;
    pub(crate) const MAKE_FIFO: u64 = 1 << 10;
    pub(crate) const MAKE_SYM: u64 = 1 << 12;
    pub(crate) const REFER: u64 = 1 << 13;
    pub(crate) const TRUNCATE: u64 = 1 << 14;
}

const BIND_TCP: u64 = 1;
const CONNECT_TCP: u64 = 2;

/// What can be done with a regular file, as against a directory.
const FILE_RIGHTS: u64 = fs::EXECUTE | fs::WRITE_FILE | fs::READ_FILE | fs::TRUNCATE | (1 << 15);

/// What this kernel knows of Landlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abi(pub(crate) u32);

impl Abi {
    /// Asks the kernel; `None` where Landlock is not built in or not enabled.
    pub(crate) fn of_this_kernel() -> Option<Self> {
        const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
        // SAFETY: with a null attribute, size 0 and the version flag, the call only returns a number
        // (landlock_create_ruleset(2)).
        let version = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                std::ptr::null::<u8>(),
                0usize,
                LANDLOCK_CREATE_RULESET_VERSION,
            )
        };
        u32::try_from(version).ok().filter(|v| *v > 0).map(Self)
    }

    /// Whether the question itself was refused, as by the system call filter of a container, instead of
    /// being answered with "not enabled" (EOPNOTSUPP) or "not built in" (ENOSYS).
    pub(crate) fn is_refused() -> bool {
        Self::of_this_kernel().is_none()
            && std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
    }

    /// Every right on files that this ABI can deny.
    pub(crate) fn handled_fs(self) -> u64 {
        match self.0 {
            0 => 0,
            1 => (1 << 13) - 1,
            2 => (1 << 14) - 1,
            3 | 4 => (1 << 15) - 1,
            _ => (1 << 16) - 1,
        }
    }

    /// Binding and connecting TCP sockets (ABI 4).
    pub(crate) fn handled_net(self) -> u64 {
        self.connecting() | if self.0 >= 4 { BIND_TCP } else { 0 }
    }

    /// Connecting TCP sockets only: who has a network of its own may listen in it (programs wait there
    /// for parts of themselves), since nobody else can come.
    pub(crate) fn connecting(self) -> u64 {
        if self.0 >= 4 { CONNECT_TCP } else { 0 }
    }

    /// Abstract Unix sockets and signals of the outside (ABI 6).
    pub(crate) fn scopes(self) -> u64 {
        if self.0 >= 6 { 0b11 } else { 0 }
    }

    /// `rights`, less what this ABI does not know and what a file cannot have.
    pub(crate) fn fit(self, rights: u64, is_file: bool) -> u64 {
        let known = rights & self.handled_fs();
        if is_file { known & FILE_RIGHTS } else { known }
    }
}

/// Reading only.
pub(crate) const READ: u64 = fs::READ_FILE | fs::READ_DIR;
/// Reading and running: the runtime, and the plugin's own files.
pub(crate) const READ_EXECUTE: u64 = READ | fs::EXECUTE;
/// Everything but running programs and making device nodes.
pub(crate) const READ_WRITE: u64 = READ
    | fs::WRITE_FILE
    | fs::TRUNCATE
    | fs::REMOVE_DIR
    | fs::REMOVE_FILE
    | fs::MAKE_DIR
    | fs::MAKE_REG
    | fs::MAKE_SOCK
    | fs::MAKE_FIFO
    | fs::MAKE_SYM
    | fs::REFER;
/// A device: read and written, nothing made.
pub(crate) const DEVICE: u64 = fs::READ_FILE | fs::WRITE_FILE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_is_always_handled() {
        for version in 1..=9 {
            let abi = Abi(version);
            for rights in [READ, READ_EXECUTE, READ_WRITE, DEVICE] {
                assert_eq!(abi.fit(rights, false) & !abi.handled_fs(), 0);
                assert_eq!(abi.fit(rights, true) & fs::READ_DIR, 0);
            }
        }
        assert_eq!(READ_WRITE & fs::EXECUTE, 0);
    }
}
