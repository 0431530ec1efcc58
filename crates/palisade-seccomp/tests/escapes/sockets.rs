//! Attempt 35: sockets.

use palisade_seccomp::{Action, errno};

use crate::{ALLOW, EAFNOSUPPORT, EPERM, expect_in, namespaced};

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
