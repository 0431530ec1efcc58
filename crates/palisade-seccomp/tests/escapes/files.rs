//! Files: device nodes, set-id bits, reserved blocks, handles and programs that have no file.

use palisade_seccomp::{Action, errno};

use crate::{ALLOW, EACCES, ENOSYS, EPERM, HIGH, KILL, expect, expect_in, namespaced};

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
