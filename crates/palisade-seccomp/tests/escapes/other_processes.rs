//! What reaches other processes: their memory, their handles, their terminal, their share of the processors,
//! and the notifications of an observer.

use crate::{ALLOW, EPERM, HIGH, expect};

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
