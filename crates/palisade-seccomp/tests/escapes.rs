//! The escape attempts that the filter must stop, by their numbers in the catalogue, proven in the
//! evaluator on the programs that are loaded. A test names the attempt it holds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

use palisade_seccomp::profiles::Profile;
use palisade_seccomp::{Action, Arch, Program, SeccompData, errno, evaluate};

const HIGH: u64 = 0xdead_beef << 32;
const KILL: Action = Action::KillProcess;
const ALLOW: Action = Action::Allow;
const EPERM: Action = Action::EPERM;
const ENOSYS: Action = Action::ENOSYS;
const EACCES: Action = Action::EACCES;
const EAFNOSUPPORT: Action = Action::Errno(errno::EAFNOSUPPORT);

/// Every program that is loaded for plugins: all their profiles on all architectures. The engine's, which is
/// for a program of ours and narrower than all of them, is held against them below.
fn programs() -> Vec<(Profile, Program)> {
    let plugins = Profile::ALL.into_iter().filter(|profile| *profile != Profile::Engine);
    plugins
        .flat_map(|profile| Arch::ALL.map(|arch| (profile, profile.program(arch).unwrap())))
        .collect()
}

fn namespaced() -> Vec<(Profile, Program)> {
    programs().into_iter().filter(|(profile, _)| *profile != Profile::Lockdown).collect()
}

fn answer(program: &Program, name: &str, args: &[u64]) -> Option<Action> {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let data = SeccompData::call(program.arch(), name, all)?;
    Some(evaluate(program, &data).unwrap())
}

/// Asserts the answer in all given programs whose architecture has the call; at least one must.
fn expect_in(programs: &[(Profile, Program)], name: &str, args: &[u64], expected: Action) {
    let mut seen = false;
    for (profile, program) in programs {
        if let Some(got) = answer(program, name, args) {
            seen = true;
            assert_eq!(got, expected, "{profile} {}: {name} {args:x?}", program.arch());
        }
    }
    assert!(seen, "{name} exists somewhere");
}

fn expect(name: &str, args: &[u64], expected: Action) {
    expect_in(&programs(), name, args, expected);
}

#[test]
fn attempts_15_and_16_mounting_old_and_new() {
    for name in [
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "open_tree",
        "open_tree_attr",
        "move_mount",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "mount_setattr",
    ] {
        expect(name, &[], EPERM);
        expect(name, &[u64::MAX; 6], EPERM);
    }
}

/// NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACE_BITS: [u64; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

#[test]
fn attempt_17_nested_namespaces_by_flags() {
    const SIGCHLD: u64 = 17;
    for bit in NAMESPACE_BITS {
        expect("clone", &[bit | SIGCHLD], EPERM);
        expect("unshare", &[bit], EPERM);
        // unsigned long: a set high half neither hides the bit nor stands for it.
        expect("clone", &[bit | SIGCHLD | HIGH], EPERM);
        expect("unshare", &[bit | HIGH], EPERM);
    }
    expect("clone", &[SIGCHLD], ALLOW);
    // glibc's pthread_create.
    expect("clone", &[0x003d_0f00], ALLOW);
    // CLONE_FS, CLONE_FILES, CLONE_SYSVSEM.
    expect("unshare", &[0x0004_0600], ALLOW);
}

#[test]
fn attempt_18_clone3_looks_absent() {
    expect("clone3", &[0x1000, 88], ENOSYS);
}

#[test]
fn attempt_19_new_time_namespace_and_setns() {
    expect("unshare", &[0x80], EPERM);
    expect("unshare", &[0x80 | HIGH], EPERM);
    expect("setns", &[3, 0], EPERM);
    // In clone the same bit is part of the exit signal.
    expect("clone", &[0x80], ALLOW);
}

#[test]
fn attempt_20_calls_through_another_interface() {
    const I386: u32 = 0x4000_0003;
    const ARM: u32 = 0x4000_0028;
    for (_, program) in programs() {
        for nr in [0, 1, 3, 120, 359, u32::MAX] {
            for arch in [I386, ARM, 0, u32::MAX] {
                let data = SeccompData { nr, arch, ..SeccompData::default() };
                assert_eq!(evaluate(&program, &data), Ok(KILL), "{arch:#x} {nr}");
            }
        }
    }
}

#[test]
fn attempt_21_x32_numbers() {
    for profile in Profile::ALL {
        let program = profile.program(Arch::X86_64).unwrap();
        for nr in (0..600).map(|nr| nr | 0x4000_0000).chain([
            0x4000_0000,
            0x7fff_ffff,
            0x8000_0000,
            u32::MAX,
        ]) {
            let data =
                SeccompData { nr, arch: Arch::X86_64.audit_arch(), ..SeccompData::default() };
            assert_eq!(evaluate(&program, &data), Ok(KILL), "{profile} {nr:#x}");
        }
    }
}

#[test]
fn unknown_numbers_look_absent() {
    for (profile, program) in programs() {
        for nr in [470, 471, 500, 1000, 0x3fff_ffff] {
            let data =
                SeccompData { nr, arch: program.arch().audit_arch(), ..SeccompData::default() };
            assert_eq!(evaluate(&program, &data), Ok(ENOSYS), "{profile} {nr}");
        }
    }
}

#[test]
fn attempt_22_high_halves_of_int_arguments() {
    let calls: &[(&str, &[u64])] = &[
        ("socket", &[40, 1, 0]),
        ("socket", &[1, 1, 0]),
        ("socket", &[2, 3, 0]),
        ("socket", &[16, 3, 0]),
        ("socket", &[16, 3, 12]),
        ("socketpair", &[2, 1, 0]),
        ("ioctl", &[0, 0x5412, 0]),
        ("ioctl", &[0, 0x541C, 0]),
        ("ioctl", &[0, 0xAE01, 0]),
        ("ioctl", &[0, 0x5401, 0]),
        ("prctl", &[35, 0]),
        ("prctl", &[0x5961_6d61, 0]),
        ("prctl", &[15, 0]),
        ("personality", &[0]),
        ("personality", &[0x0040_0000]),
        ("personality", &[0xffff_ffff]),
        ("memfd_create", &[0, 1]),
        ("memfd_create", &[0, 9]),
        ("execveat", &[3, 0, 0, 0, 0x1000]),
        ("seccomp", &[1, 8]),
        ("sched_setscheduler", &[0, 1]),
        ("openat", &[0, 0, 0o101, 0o4755]),
        ("fchmodat", &[0, 0, 0o4755]),
        ("mknodat", &[0, 0, 0o060_644]),
    ];
    for (profile, program) in programs() {
        for &(name, args) in calls {
            let Some(plain) = answer(&program, name, args) else { continue };
            for place in 0..args.len() {
                // prctl's arg2 is an unsigned long; all the others here are int or pointers that
                // no rule looks at.
                if name == "prctl" && place == 1 {
                    continue;
                }
                let mut changed = args.to_vec();
                changed[place] |= HIGH;
                let got = answer(&program, name, &changed);
                assert_eq!(got, Some(plain), "{profile}: {name} {changed:x?}");
            }
        }
    }
}

#[test]
fn attempt_22_mode_has_sixteen_bits() {
    for (_, program) in programs() {
        for above in [0, 1 << 16, 0xffff << 16, HIGH] {
            assert_eq!(answer(&program, "fchmod", &[3, 0o4755 | above]), Some(EPERM));
            assert_eq!(answer(&program, "fchmod", &[3, 0o755 | above]), Some(ALLOW));
        }
    }
}

#[test]
fn attempt_22_high_halves_of_long_arguments_count() {
    // PR_SET_SECCOMP takes the mode as unsigned long: only exactly 1 is strict mode.
    expect("prctl", &[22, 1], EPERM);
    expect("prctl", &[22 | HIGH, 1], EPERM);
    expect("prctl", &[22, 1 | HIGH], ALLOW);
    expect("prctl", &[22, 2], ALLOW);
    // A pointer above 4 GiB whose low half is zero is still an address.
    let lockdown: Vec<_> =
        programs().into_iter().filter(|(p, _)| *p == Profile::Lockdown).collect();
    expect_in(&lockdown, "sendto", &[4, 0, 0, 0, 0x7f00_0000_0000_0000], EPERM);
    expect_in(&lockdown, "sendto", &[4, 0, 0, 0, 0], ALLOW);
}

#[test]
fn attempt_23_io_uring_looks_absent() {
    for name in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        expect(name, &[3, 1, 0, 0, 0, 0], ENOSYS);
    }
}

#[test]
fn attempt_24_own_listener() {
    const FILTER: u64 = 1;
    for flags in [8, 8 | 1, 8 | 16 | 32] {
        expect("seccomp", &[FILTER, flags, 0x1000], EPERM);
        expect("seccomp", &[FILTER | HIGH, flags | HIGH, 0x1000], EPERM);
    }
    expect("seccomp", &[FILTER, 1, 0x1000], ALLOW);
    expect("seccomp", &[2, 0, 0x1000], ALLOW);
    expect("seccomp", &[0, 0, 0], EPERM);
}

#[test]
fn attempt_26_other_processes_memory() {
    for name in [
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "kcmp",
        "process_madvise",
        "process_mrelease",
    ] {
        expect(name, &[16, 1, 0, 0, 0, 0], EPERM);
    }
}

#[test]
fn attempt_27_pidfd_getfd() {
    expect("pidfd_getfd", &[3, 0, 0], EPERM);
    expect("pidfd_open", &[1, 0], ALLOW);
    expect("pidfd_send_signal", &[3, 15], ALLOW);
}

#[test]
fn attempt_29_terminal_injection() {
    for cmd in
        [0x5412, 0x541C, 0x540E, 0x5423, 0xC004_5877, 0xC004_5878, 0xAE00, 0xAE80, 0x4020_AE46]
    {
        expect("ioctl", &[0, cmd, 0], EPERM);
        expect("ioctl", &[0, cmd | HIGH, 0], EPERM);
    }
    // TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIOCLEX, FICLONE, TCGETS2.
    for cmd in [0x5401, 0x5413, 0x541B, 0x5421, 0x5451, 0x4004_9409, 0x802C_542A] {
        expect("ioctl", &[0, cmd, 0], ALLOW);
    }
}

#[test]
fn attempt_35_socket_families_and_types() {
    let programs = namespaced();
    const CLOEXEC_NONBLOCK: u64 = 0o2_004_000;
    for domain in (0..50).filter(|domain| ![1, 2, 10, 16].contains(domain)) {
        expect_in(&programs, "socket", &[domain, 1, 0], EAFNOSUPPORT);
        expect_in(&programs, "socket", &[domain, 3, 768], EAFNOSUPPORT);
    }
    for domain in [2, 10] {
        for kind in [3, 10] {
            expect_in(&programs, "socket", &[domain, kind, 255], EPERM);
            expect_in(&programs, "socket", &[domain, kind | CLOEXEC_NONBLOCK, 1], EPERM);
        }
        for (kind, protocol) in [(1, 0), (1, 6), (2, 0), (2, 17), (2, 1), (2, 58)] {
            expect_in(&programs, "socket", &[domain, kind | CLOEXEC_NONBLOCK, protocol], ALLOW);
        }
        // SCTP, DCCP, UDP-Lite, L2TP, MPTCP, SMC.
        for protocol in [132, 33, 136, 115, 262, 256] {
            expect_in(
                &programs,
                "socket",
                &[domain, 1, protocol],
                Action::Errno(errno::EPROTONOSUPPORT),
            );
        }
    }
    expect_in(&programs, "socket", &[1, 1, 0], ALLOW);
    expect_in(&programs, "socket", &[1, 5, 0], ALLOW);
    // Netlink: routes, as getifaddrs asks for them, and nothing else (nf_tables is 12).
    expect_in(&programs, "socket", &[16, 3 | CLOEXEC_NONBLOCK, 0], ALLOW);
    for protocol in 1..25 {
        expect_in(&programs, "socket", &[16, 3, protocol], EAFNOSUPPORT);
    }
    expect_in(&programs, "socketpair", &[1, 1, 0], ALLOW);
    for domain in [0, 2, 10, 16, 30, 40] {
        expect_in(&programs, "socketpair", &[domain, 1, 0], EAFNOSUPPORT);
    }
}

#[test]
fn attempt_44_real_time_priority() {
    for policy in [1, 2, 6, 7] {
        expect("sched_setscheduler", &[0, policy, 0x1000], EPERM);
        expect("sched_setscheduler", &[0, policy | 0x4000_0000, 0x1000], EPERM);
    }
    for policy in [0, 3, 5, 0x4000_0000, 0x4000_0003] {
        expect("sched_setscheduler", &[0, policy, 0x1000], ALLOW);
    }
    expect("sched_setattr", &[0, 0x1000, 0], EPERM);
    // Which processors a plugin runs on is the host's to say.
    expect("sched_setaffinity", &[0, 8, 0x1000], EPERM);
    expect("sched_getaffinity", &[0, 8, 0x1000], ALLOW);
}

#[test]
fn attempt_52_keyrings() {
    for name in ["keyctl", "add_key", "request_key"] {
        expect(name, &[0; 6], EPERM);
    }
}

#[test]
fn attempt_53_kernel_surfaces() {
    for name in [
        "kexec_load",
        "kexec_file_load",
        "init_module",
        "finit_module",
        "delete_module",
        "reboot",
        "swapon",
        "swapoff",
        "bpf",
        "iopl",
        "ioperm",
    ] {
        expect(name, &[0; 6], KILL);
        expect(name, &[u64::MAX; 6], KILL);
    }
    for name in ["userfaultfd", "modify_ldt", "memfd_secret", "statmount", "listmount"] {
        expect(name, &[0; 6], ENOSYS);
    }
    for name in [
        "perf_event_open",
        "quotactl",
        "acct",
        "syslog",
        "settimeofday",
        "adjtimex",
        "fanotify_init",
    ] {
        expect(name, &[0; 6], EPERM);
    }
    for persona in [1, 8, 0x0040_0000, 0x0004_0000, 0xffff_fffe] {
        expect("personality", &[persona], EPERM);
    }
    expect("personality", &[0], ALLOW);
    expect("personality", &[0xffff_ffff], ALLOW);
}

#[test]
fn attempt_54_file_handles() {
    expect("open_by_handle_at", &[3, 0x1000, 0], KILL);
    expect("name_to_handle_at", &[3, 0, 0, 0, 0], EPERM);
}

#[test]
fn attempt_55_programs_without_a_file() {
    // MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_EXEC without MFD_NOEXEC_SEAL.
    for flags in [0, 1, 2, 3, 0x10, 0x11] {
        expect("memfd_create", &[0x1000, flags], EACCES);
    }
    expect("memfd_create", &[0x1000, 0x8], ALLOW);
    expect("memfd_create", &[0x1000, 0xb], ALLOW);
    expect("execveat", &[3, 0x1000, 0, 0, 0x1000], EACCES);
    expect("execveat", &[3, 0x1000, 0, 0, 0x1100], EACCES);
    expect("execveat", &[3, 0x1000, 0, 0, 0], ALLOW);
}

#[test]
fn attempts_11_and_68_device_nodes_and_set_id_bits() {
    for set_id in [0o4000, 0o2000, 0o6000] {
        let mode = 0o755 | set_id;
        expect("chmod", &[0, mode], EPERM);
        expect("fchmod", &[3, mode], EPERM);
        expect("fchmodat", &[3, 0, mode], EPERM);
        expect("fchmodat2", &[3, 0, mode, 0], EPERM);
        expect("creat", &[0, mode], EPERM);
        expect("mkdir", &[0, mode], EPERM);
        expect("mkdirat", &[3, 0, mode], EPERM);
        expect("mknod", &[0, mode], EPERM);
        expect("mknodat", &[3, 0, mode], EPERM);
        // O_CREAT|O_WRONLY and O_TMPFILE, the latter with either architecture's O_DIRECTORY.
        for flags in [0o101, 0o20_200_002, 0o20_040_002] {
            expect("open", &[0, flags, mode], EPERM);
            expect("openat", &[3, 0, flags, mode], EPERM);
            expect("openat", &[3, 0, flags, 0o644], ALLOW);
        }
        // Without them the mode register holds whatever the caller left there.
        expect("openat", &[3, 0, 0, mode], ALLOW);
    }
    expect("openat2", &[3, 0, 0, 24], ENOSYS);
    expect("fchmodat2", &[3, 0, 0o1777, 0], ALLOW);
    for kind in [0o020_000, 0o060_000, 0o140_000, 0o120_000] {
        expect("mknodat", &[3, 0, kind | 0o644, 0], EPERM);
    }
    for kind in [0, 0o100_000, 0o010_000] {
        expect("mknodat", &[3, 0, kind | 0o644, 0], ALLOW);
    }
}

#[test]
fn the_engine_may_nothing_that_a_compiled_program_may_not() {
    let values = [0, 1, 3, 6, 7, 16, 0x5412, 0o4755, u64::MAX];
    let mut refused = 0;
    for arch in Arch::ALL {
        let engine = Profile::Engine.program(arch).unwrap();
        let native = Profile::Native.program(arch).unwrap();
        for &(_, name) in arch.syscalls() {
            for value in values {
                for place in 0..3 {
                    let mut args = [value; 6];
                    args[place] = 0;
                    let ours = answer(&engine, name, &args);
                    let theirs = answer(&native, name, &args);
                    assert!(ours != Some(ALLOW) || theirs == Some(ALLOW), "{name} {args:x?}");
                    refused += usize::from(ours != Some(ALLOW) && theirs == Some(ALLOW));
                }
            }
        }
    }
    assert!(refused > 0);
    let engine: Vec<_> =
        Arch::ALL.map(|arch| (Profile::Engine, Profile::Engine.program(arch).unwrap())).into();
    let expect = |name, args: &[u64], expected| expect_in(&engine, name, args, expected);
    // Threads and no processes, listeners, other processes, links to what may be written and run.
    expect("clone", &[0x003d_0f00], ALLOW);
    for flags in [17, 0x4111, 0x0100_0011] {
        expect("clone", &[flags], EPERM);
    }
    for name in [
        "fork",
        "vfork",
        "execveat",
        "kill",
        "tkill",
        "pidfd_open",
        "bind",
        "listen",
        "accept4",
        "chmod",
        "fchmodat",
        "mknodat",
        "setxattr",
        "unshare",
        "seccomp",
        "setpriority",
        "mlockall",
        "sendmmsg",
        "vmsplice",
        "splice",
        "landlock_create_ruleset",
        "pkey_mprotect",
        "personality",
    ] {
        expect(name, &[0; 6], EPERM);
    }
    expect("memfd_create", &[0x1000, 0x8], EPERM);
    // Streams of the internet only: the floor's exception for netlink is none here.
    for domain in [2, 10, 1 << 32 | 2] {
        expect("socket", &[domain, 0o2_004_001, 0], ALLOW);
        expect("socket", &[domain, 1, 6], ALLOW);
        for kind in [2, 0o2_004_002, 3, 5, 10] {
            expect("socket", &[domain, kind, 0], EPERM);
        }
    }
    for domain in [0, 1, 16, 17, 40, 0xffff_ffff, 2 << 32 | 1] {
        for kind in [1, 2, 3, 5, 0o2_000_003] {
            expect("socket", &[domain, kind, 0], EPERM);
        }
    }
    expect("socketpair", &[1, 1, 0], ALLOW);
    for prot in [6, 7] {
        expect("mmap", &[0, 4096, prot, 0x22], EACCES);
        expect("mprotect", &[0, 4096, prot], EACCES);
    }
    for prot in [1, 3, 5] {
        expect("mmap", &[0, 4096, prot, 2], ALLOW);
        expect("mprotect", &[0, 4096, prot], ALLOW);
    }
}

#[test]
fn lockdown_takes_away_what_namespaces_would_hide() {
    let lockdown: Vec<_> =
        programs().into_iter().filter(|(p, _)| *p == Profile::Lockdown).collect();
    let expect = |name, args: &[u64], expected| expect_in(&lockdown, name, args, expected);
    for domain in [1, 2, 10, 16] {
        expect("socket", &[domain, 1, 0], EPERM);
    }
    expect("connect", &[4, 0x1000, 16], EPERM);
    expect("bind", &[4, 0x1000, 16], EPERM);
    expect("socketpair", &[1, 1, 0], ALLOW);
    expect("socketpair", &[1, 0o2_000_005, 0], ALLOW);
    expect("socketpair", &[1, 2, 0], EPERM);
    expect("socketpair", &[1, 3, 0], EPERM);
    for name in ["shmget", "shmat", "semget", "msgget", "mq_open", "mq_unlink"] {
        expect(name, &[0; 6], EPERM);
    }
    expect("prctl", &[1, 0], EPERM);
    expect("prctl", &[1 | HIGH, 0], EPERM);
    expect("prctl", &[15, 0x1000], ALLOW);
    expect("setsid", &[], ALLOW);
    expect("setpgid", &[0, 0], ALLOW);
    expect("kill", &[0xffff_ffff, 9], EPERM);
    expect("kill", &[u64::MAX, 9], EPERM);
    expect("kill", &[1234, 15], ALLOW);
    expect("clone", &[0x8000 | 17], EPERM);
    for name in ["prlimit64", "sched_setparam", "sched_setscheduler"] {
        expect(name, &[1234, 0, 0x1000, 0], EPERM);
        expect(name, &[0, 0, 0x1000, 0], ALLOW);
    }
    expect("setpriority", &[0, 0, 5], ALLOW);
    expect("setpriority", &[0, 1234, 5], EPERM);
    expect("setpriority", &[2, 0, 5], EPERM);
    expect("ioprio_set", &[1, 0, 0], ALLOW);
    expect("ioprio_set", &[3, 0, 0], EPERM);
}

#[test]
fn honest_runtimes_find_what_they_need() {
    let all: &[&str] = &[
        "read",
        "write",
        "close",
        "fstat",
        "mmap",
        "mprotect",
        "munmap",
        "brk",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "pread64",
        "readv",
        "writev",
        "madvise",
        "mremap",
        "dup3",
        "pipe2",
        "nanosleep",
        "getpid",
        "gettid",
        "execve",
        "exit",
        "exit_group",
        "wait4",
        "waitid",
        "kill",
        "tgkill",
        "uname",
        "fcntl",
        "flock",
        "fsync",
        "ftruncate",
        "getcwd",
        "chdir",
        "getdents64",
        "renameat2",
        "unlinkat",
        "readlinkat",
        "faccessat",
        "faccessat2",
        "newfstatat",
        "statx",
        "statfs",
        "getrlimit",
        "setrlimit",
        "prlimit64",
        "getrusage",
        "sysinfo",
        "times",
        "getuid",
        "setuid",
        "setresuid",
        "setgroups",
        "setsid",
        "setpgid",
        "capget",
        "capset",
        "sigaltstack",
        "futex",
        "futex_wait",
        "futex_waitv",
        "set_robust_list",
        "set_tid_address",
        "rseq",
        "sched_getaffinity",
        "sched_yield",
        "clock_gettime",
        "clock_nanosleep",
        "clock_getres",
        "epoll_create1",
        "epoll_ctl",
        "epoll_pwait",
        "epoll_pwait2",
        "eventfd2",
        "timerfd_create",
        "timerfd_settime",
        "signalfd4",
        "inotify_init1",
        "inotify_add_watch",
        "getrandom",
        "membarrier",
        "mlock",
        "msync",
        "mincore",
        "copy_file_range",
        "sendfile",
        "splice",
        "close_range",
        "getcpu",
        "pkey_alloc",
        "pkey_mprotect",
        "mseal",
        "cachestat",
        "get_mempolicy",
        "set_mempolicy",
        "landlock_create_ruleset",
        "landlock_restrict_self",
        "pidfd_open",
        "utimensat",
        "fchownat",
        "setxattr",
        "fgetxattr",
        "umask",
        "sync",
        "recvmsg",
        "sendmsg",
        "getsockopt",
        "map_shadow_stack",
        "restart_syscall",
        "timer_create",
        "sched_getaffinity",
    ];
    for name in all {
        expect(name, &[], ALLOW);
    }
    for name in [
        "open",
        "stat",
        "lstat",
        "access",
        "poll",
        "select",
        "fork",
        "vfork",
        "arch_prctl",
        "uretprobe",
    ] {
        expect(name, &[], ALLOW);
    }
    for name in ["connect", "bind", "listen", "accept4", "sendto", "recvfrom"] {
        expect_in(&namespaced(), name, &[0; 6], ALLOW);
    }
}

#[test]
fn attempt_45_blocks_that_are_reserved_and_not_written() {
    let unsupported = Action::Errno(errno::EOPNOTSUPP);
    const KEEP_SIZE: u64 = 1;
    const PUNCH_HOLE: u64 = 2;
    const ZERO_RANGE: u64 = 0x10;
    for mode in [0, KEEP_SIZE, ZERO_RANGE, HIGH | KEEP_SIZE, HIGH | PUNCH_HOLE << 32] {
        expect_in(&namespaced(), "fallocate", &[5, mode, 0, 1 << 30], unsupported);
    }
    expect_in(&namespaced(), "fallocate", &[5, PUNCH_HOLE | KEEP_SIZE, 0, 1 << 20], ALLOW);
    for command in [0x4030_5828, 0x4030_582a, 0x4030_5839] {
        expect_in(&namespaced(), "ioctl", &[5, command, 0], unsupported);
        expect_in(&namespaced(), "ioctl", &[5, HIGH | command, 0], unsupported);
    }
}
