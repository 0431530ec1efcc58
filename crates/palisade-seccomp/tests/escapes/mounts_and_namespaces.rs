//! Mounts, and namespaces within the walls: attempts 15 to 19.

use crate::{ALLOW, ENOSYS, EPERM, HIGH, expect};

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
