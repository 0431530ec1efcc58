//! The width table: (system call, argument) to the C type in the kernel's `SYSCALL_DEFINE`.
//!
//! Source: Linux 6.18, `include/linux/syscalls.h` and the definitions. Only arguments that a rule
//! may want are listed; pointers are listed where null or not null says something. An argument
//! whose position differs between architectures must not be added here.

use super::Argument;
use super::Width::{self, W16, W32, W64};

const fn arg(index: u8, name: &'static str, width: Width) -> Argument {
    Argument { name, index, width }
}

/// (call, its filterable arguments).
#[rustfmt::skip]
pub(super) const TABLE: &[(&str, &[Argument])] = &[
    ("accept4",            &[arg(3, "flags", W32)]),
    ("arch_prctl",         &[arg(0, "option", W32), arg(1, "arg2", W64)]),
    ("bpf",                &[arg(0, "cmd", W32)]),
    ("chmod",              &[arg(1, "mode", W16)]),
    // The kernel takes unsigned long and looks at the low half only. Position 0 on both
    // architectures; the later arguments change places.
    ("clone",              &[arg(0, "flags", W64)]),
    ("creat",              &[arg(1, "mode", W16)]),
    ("execveat",           &[arg(4, "flags", W32)]),
    ("fallocate",          &[arg(1, "mode", W32), arg(2, "offset", W64), arg(3, "len", W64)]),
    ("fchmod",             &[arg(1, "mode", W16)]),
    ("fchmodat",           &[arg(2, "mode", W16)]),
    ("fchmodat2",          &[arg(2, "mode", W16), arg(3, "flags", W32)]),
    ("fcntl",              &[arg(1, "cmd", W32), arg(2, "arg", W64)]),
    ("ioctl",              &[arg(0, "fd", W32), arg(1, "cmd", W32), arg(2, "arg", W64)]),
    ("ioprio_set",         &[arg(0, "which", W32), arg(1, "who", W32), arg(2, "ioprio", W32)]),
    ("keyctl",             &[arg(0, "option", W32)]),
    ("kill",               &[arg(0, "pid", W32), arg(1, "sig", W32)]),
    ("madvise",            &[arg(1, "len", W64), arg(2, "advice", W32)]),
    ("memfd_create",       &[arg(1, "flags", W32)]),
    ("mkdir",              &[arg(1, "mode", W16)]),
    ("mkdirat",            &[arg(2, "mode", W16)]),
    ("mknod",              &[arg(1, "mode", W16), arg(2, "dev", W32)]),
    ("mknodat",            &[arg(2, "mode", W16), arg(3, "dev", W32)]),
    ("mmap",               &[arg(0, "addr", W64), arg(1, "len", W64), arg(2, "prot", W64), arg(3, "flags", W64)]),
    ("mprotect",           &[arg(0, "start", W64), arg(1, "len", W64), arg(2, "prot", W64)]),
    ("newfstatat",         &[arg(3, "flags", W32)]),
    ("open",               &[arg(1, "flags", W32), arg(2, "mode", W16)]),
    ("openat",             &[arg(2, "flags", W32), arg(3, "mode", W16)]),
    ("personality",        &[arg(0, "persona", W32)]),
    ("pidfd_open",         &[arg(0, "pid", W32), arg(1, "flags", W32)]),
    ("pkey_mprotect",      &[arg(0, "start", W64), arg(1, "len", W64), arg(2, "prot", W64), arg(3, "pkey", W32)]),
    ("prctl",              &[arg(0, "option", W32), arg(1, "arg2", W64), arg(2, "arg3", W64), arg(3, "arg4", W64), arg(4, "arg5", W64)]),
    ("prlimit64",          &[arg(0, "pid", W32), arg(1, "resource", W32), arg(2, "new_rlim", W64)]),
    ("ptrace",             &[arg(0, "request", W64), arg(1, "pid", W64)]),
    ("reboot",             &[arg(0, "magic1", W32), arg(1, "magic2", W32), arg(2, "cmd", W32)]),
    ("sched_setaffinity",  &[arg(0, "pid", W32)]),
    ("sched_setparam",     &[arg(0, "pid", W32)]),
    ("sched_setscheduler", &[arg(0, "pid", W32), arg(1, "policy", W32)]),
    ("seccomp",            &[arg(0, "op", W32), arg(1, "flags", W32)]),
    ("sendto",             &[arg(2, "len", W64), arg(3, "flags", W32), arg(4, "addr", W64)]),
    ("setns",              &[arg(0, "fd", W32), arg(1, "flags", W32)]),
    ("setpriority",        &[arg(0, "which", W32), arg(1, "who", W32), arg(2, "niceval", W32)]),
    ("setsockopt",         &[arg(1, "level", W32), arg(2, "optname", W32)]),
    ("shmat",              &[arg(0, "shmid", W32), arg(1, "shmaddr", W64), arg(2, "shmflg", W32)]),
    ("socket",             &[arg(0, "domain", W32), arg(1, "type", W32), arg(2, "protocol", W32)]),
    ("socketpair",         &[arg(0, "domain", W32), arg(1, "type", W32), arg(2, "protocol", W32)]),
    ("statx",              &[arg(2, "flags", W32)]),
    ("tgkill",             &[arg(0, "tgid", W32), arg(1, "tid", W32), arg(2, "sig", W32)]),
    ("tkill",              &[arg(0, "tid", W32), arg(1, "sig", W32)]),
    ("unshare",            &[arg(0, "flags", W64)]),
];

/// The arguments of the call with this name; empty where none may be filtered.
pub(super) fn of(name: &str) -> &'static [Argument] {
    TABLE
        .binary_search_by(|&(known, _)| known.cmp(name))
        .ok()
        .and_then(|at| TABLE.get(at))
        .map_or(&[], |&(_, arguments)| arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_for_the_binary_search() {
        for pair in TABLE.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} stands before {}", pair[0].0, pair[1].0);
        }
    }
}
