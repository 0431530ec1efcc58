//! Attempt 22: bits of an argument that the kernel does not look at, and those that it does.

use crate::{ALLOW, EPERM, HIGH, answer, expect, expect_in, lockdown, programs};

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
    let lockdown = lockdown();
    expect_in(&lockdown, "sendto", &[4, 0, 0, 0, 0x7f00_0000_0000_0000], EPERM);
    expect_in(&lockdown, "sendto", &[4, 0, 0, 0, 0], ALLOW);
}
