//! The WebAssembly engine, where it stands behind walls of its own (`wasm+process`).
//!
//! A program of ours, so this is written from what it calls and not from what programs may call: files by
//! handles, threads, one socket to its host and connections to the way out. It starts no process, and what
//! it maps is never written and run at the same time. What somebody who has taken it over can do is what
//! stands here.

use std::collections::BTreeSet;

use super::floor::{AF_INET, AF_INET6, SOCK_TYPE_MASK};
use super::groups::*;
use super::native::refusals;
use crate::action::Action;
use crate::condition::Op;
use crate::error::Error;
use crate::policy::Policy;

/// What it calls itself, what the C library and the dynamic loader call for it, and what WASI's files need.
const ALLOWED: &[&str] = &[
    // Memory.
    "brk",
    "madvise",
    "membarrier",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    // Files. `execve` is the walls' last step; there is nothing inside that it could start but itself.
    "access",
    "close",
    "close_range",
    "dup",
    "execve",
    "faccessat",
    "faccessat2",
    "fadvise64",
    "fcntl",
    "fdatasync",
    "fstat",
    "fstatfs",
    "fsync",
    "ftruncate",
    "getcwd",
    "getdents64",
    "ioctl",
    "linkat",
    "lseek",
    "lstat",
    "mkdirat",
    "newfstatat",
    "open",
    "openat",
    "pipe2",
    "pread64",
    "preadv",
    "preadv2",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "read",
    "readlink",
    "readlinkat",
    "readv",
    "renameat",
    "renameat2",
    "stat",
    "statx",
    "symlinkat",
    "unlinkat",
    "utimensat",
    "write",
    "writev",
    // Waiting.
    "clock_getres",
    "clock_gettime",
    "clock_nanosleep",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "eventfd2",
    "gettimeofday",
    "nanosleep",
    "poll",
    "ppoll",
    "time",
    // Threads, and what a process may know about itself.
    "arch_prctl",
    "clone",
    "exit",
    "exit_group",
    "futex",
    "futex_requeue",
    "futex_wait",
    "futex_waitv",
    "futex_wake",
    "get_robust_list",
    "getcpu",
    "getegid",
    "geteuid",
    "getgid",
    "getpid",
    "getppid",
    "getrandom",
    "getrlimit",
    "getrusage",
    "gettid",
    "getuid",
    "prctl",
    "prlimit64",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "sysinfo",
    "tgkill",
    "uname",
    "uprobe",
    "uretprobe",
    // The lane, and connections to the way out. A pair for signals is made by the runtime at its start.
    "connect",
    "getpeername",
    "getsockname",
    "getsockopt",
    "recvfrom",
    "recvmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    "socketpair",
];

/// The engine's profile, version 1.
pub(super) fn engine() -> Result<Policy, Error> {
    const CLONE_THREAD: u64 = 0x1_0000;
    const WRITE_AND_EXEC: u64 = 0x6;
    const SOCK_STREAM: u64 = 1;
    let allowed: BTreeSet<&str> = ALLOWED.iter().copied().collect();
    let rest = |groups: &[&[&'static str]]| -> Vec<&'static str> {
        groups.concat().into_iter().filter(|name| !allowed.contains(name)).collect()
    };
    refusals("engine", 1)
        // Threads, and no processes.
        .on_when(Action::EPERM, &["clone"], &[("flags", Op::MaskedNone(CLONE_THREAD))])
        .on_when(
            Action::EACCES,
            &["mmap", "mprotect"],
            &[("prot", Op::MaskedEq { mask: WRITE_AND_EXEC, value: WRITE_AND_EXEC })],
        )
        // Connections to the way out; any other socket is refused with the rest of its group. The lane is
        // inherited, and pairs are another call.
        .on_when(
            Action::Allow,
            &["socket"],
            &[
                ("domain", Op::is_in(&[AF_INET, AF_INET6])),
                ("type", Op::MaskedEq { mask: SOCK_TYPE_MASK, value: SOCK_STREAM }),
            ],
        )
        .on(Action::Allow, ALLOWED)
        .on(Action::EPERM, &rest(&[MEMORY, FILES, EVENTS, PROCESS, SOCKETS]))
        .on(Action::ENOSYS, &rest(&[MEMORY_POLICY, SYSV_IPC, MQUEUE, AIO, RARE_MEMORY]))
        .build()
}
