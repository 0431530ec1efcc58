//! The profile for hosts where no namespaces can be made.

use crate::{ALLOW, EPERM, HIGH, expect_in, lockdown};

#[test]
fn lockdown_takes_away_what_namespaces_would_hide() {
    let lockdown = lockdown();
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
