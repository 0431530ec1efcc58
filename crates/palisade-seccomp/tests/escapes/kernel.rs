//! Parts of the kernel that a plugin has no use for.

use crate::{ALLOW, ENOSYS, EPERM, KILL, expect};

#[test]
fn attempt_23_io_uring_looks_absent() {
    for name in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        expect(name, &[3, 1, 0, 0, 0, 0], ENOSYS);
    }
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
