//! The engine's profile, held against the widest one.

use palisade_seccomp::{Arch, profiles::Profile};

use crate::{ALLOW, EACCES, EPERM, answer, expect_in};

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
}

#[test]
fn the_engine_has_threads_files_and_streams_and_no_more() {
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
