//! The floor: what no plugin may do, whatever its profile or manifest says.
//!
//! Its default is to allow; it is meant to be combined with a profile, whose default refuses.
//! Argument rules live here only, so that every profile has them.

use super::groups::{ABSENT, MACHINE, MOUNT, NO_HONEST_CALLER, OTHER_PROCESSES, REFUSED};
use crate::action::{Action, errno};
use crate::condition::Op;
use crate::error::Error;
use crate::policy::{Policy, PolicyBuilder};

const EAFNOSUPPORT: Action = Action::Errno(errno::EAFNOSUPPORT);
const EPROTONOSUPPORT: Action = Action::Errno(errno::EPROTONOSUPPORT);

/// Namespace bits of `clone`: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const CLONE_NEW: u64 = 0x7e02_0000;
/// `unshare` has one more. In `clone` this bit is part of the exit signal.
const CLONE_NEWTIME: u64 = 0x80;

/// Set-user-ID and set-group-ID.
const SET_ID: u64 = 0o6000;
/// Only with one of these does `open` look at its mode: `O_CREAT`, and the bit of `O_TMPFILE` that
/// is not `O_DIRECTORY`. The same on x86_64 and aarch64.
const O_CREAT_OR_TMPFILE: u64 = 0o100 | 0o20_000_000;
const S_IFMT: u64 = 0o170_000;
const S_IFREG: u64 = 0o100_000;
const S_IFIFO: u64 = 0o010_000;

pub(super) const AF_UNIX: u64 = 1;
pub(super) const AF_INET: u64 = 2;
pub(super) const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;
const NETLINK_ROUTE: u64 = 0;
/// Low bits of a socket type; above them are `SOCK_NONBLOCK` and `SOCK_CLOEXEC`.
pub(super) const SOCK_TYPE_MASK: u64 = 0xf;
const SOCK_RAW: u64 = 3;
const SOCK_PACKET: u64 = 10;

/// The floor, version 1.
///
/// # Errors
/// None in practice; a mistake in the rules would show here, and the tests would fail.
pub fn floor() -> Result<Policy, Error> {
    let builder = Policy::builder("floor", 1, Action::Allow)
        .on(Action::KillProcess, NO_HONEST_CALLER)
        .on(Action::EPERM, MOUNT)
        .on(Action::EPERM, OTHER_PROCESSES)
        .on(Action::EPERM, MACHINE)
        .on(Action::EPERM, REFUSED)
        .on(Action::ENOSYS, ABSENT);
    let builder = namespaces(builder);
    let builder = sockets(builder);
    let builder = terminals_and_devices(builder);
    let builder = process_controls(builder);
    let builder = set_id_bits(builder);
    let builder = reserved_blocks(builder);
    anonymous_programs(builder).build()
}

/// A nested user namespace undoes read-only binds and opens the largest part of the kernel.
fn namespaces(builder: PolicyBuilder) -> PolicyBuilder {
    builder.on_when(Action::EPERM, &["clone"], &[("flags", Op::MaskedAny(CLONE_NEW))]).on_when(
        Action::EPERM,
        &["unshare"],
        &[("flags", Op::MaskedAny(CLONE_NEW | CLONE_NEWTIME))],
    )
}

fn sockets(builder: PolicyBuilder) -> PolicyBuilder {
    builder
        // getifaddrs opens this one, with SOCK_RAW, so it stands before the check of the type.
        .on_when(
            Action::Allow,
            &["socket"],
            &[("domain", Op::Eq(AF_NETLINK)), ("protocol", Op::Eq(NETLINK_ROUTE))],
        )
        .on_when(
            EAFNOSUPPORT,
            &["socket"],
            &[("domain", Op::not_in(&[AF_UNIX, AF_INET, AF_INET6]))],
        )
        // SOCK_PACKET with AF_INET is the old way to a packet socket; the kernel rewrites it.
        .on_when(
            Action::EPERM,
            &["socket"],
            &[("type", Op::MaskedIn { mask: SOCK_TYPE_MASK, values: vec![SOCK_RAW, SOCK_PACKET] })],
        )
        // Other protocols of the internet families (SCTP, DCCP, MPTCP, SMC, L2TP …) load kernel
        // modules on demand. ICMP echo sockets are of type SOCK_DGRAM. PF_UNIX is 1 too.
        .on_when(
            EPROTONOSUPPORT,
            &["socket"],
            &[(
                "protocol",
                Op::not_in(&[0, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMPV6]),
            )],
        )
        .on_when(EAFNOSUPPORT, &["socketpair"], &[("domain", Op::Ne(AF_UNIX))])
}

const IPPROTO_ICMP: u64 = 1;
const IPPROTO_TCP: u64 = 6;
const IPPROTO_UDP: u64 = 17;
const IPPROTO_ICMPV6: u64 = 58;

fn terminals_and_devices(builder: PolicyBuilder) -> PolicyBuilder {
    const TIOCSCTTY: u64 = 0x540E;
    const TIOCSTI: u64 = 0x5412;
    const TIOCLINUX: u64 = 0x541C;
    const TIOCSETD: u64 = 0x5423;
    const FIFREEZE: u64 = 0xC004_5877;
    const FITHAW: u64 = 0xC004_5878;
    // The ioctl "type" byte of KVM.
    const TYPE_BYTE: u64 = 0xff00;
    const KVM: u64 = 0xAE00;
    builder
        // Typing into the operator's terminal, pasting its selection, stealing it, loading a line
        // discipline; stopping a file system. The price: a plugin cannot make a pseudo-terminal of
        // its own the controlling one (`forkpty`).
        .on_when(
            Action::EPERM,
            &["ioctl"],
            &[("cmd", Op::is_in(&[TIOCSCTTY, TIOCSTI, TIOCLINUX, TIOCSETD, FIFREEZE, FITHAW]))],
        )
        .on_when(
            Action::EPERM,
            &["ioctl"],
            &[("cmd", Op::MaskedEq { mask: TYPE_BYTE, value: KVM })],
        )
        .on_when(
            Action::EPERM,
            &["mknod", "mknodat"],
            &[("mode", Op::MaskedNotIn { mask: S_IFMT, values: vec![0, S_IFREG, S_IFIFO] })],
        )
}

fn process_controls(builder: PolicyBuilder) -> PolicyBuilder {
    const PR_SET_SECCOMP: u64 = 22;
    const PR_SET_MM: u64 = 35;
    const PR_SET_PTRACER: u64 = 0x5961_6d61;
    const SECCOMP_MODE_STRICT: u64 = 1;
    const SECCOMP_SET_MODE_STRICT: u64 = 0;
    const SECCOMP_SET_MODE_FILTER: u64 = 1;
    const SECCOMP_FILTER_FLAG_NEW_LISTENER: u64 = 8;
    const PER_QUERY: u64 = 0xffff_ffff;
    const SCHED_RESET_ON_FORK: u64 = 0x4000_0000;
    const SCHED_OTHER_BATCH_IDLE: [u64; 3] = [0, 3, 5];
    builder
        .on_when(Action::EPERM, &["prctl"], &[("option", Op::is_in(&[PR_SET_MM, PR_SET_PTRACER]))])
        .on_when(
            Action::EPERM,
            &["prctl"],
            &[("option", Op::Eq(PR_SET_SECCOMP)), ("arg2", Op::Eq(SECCOMP_MODE_STRICT))],
        )
        // A filter of one's own can only tighten; a listener would let the plugin answer for its
        // children and take the notifications of an observer.
        .on_when(Action::EPERM, &["seccomp"], &[("op", Op::Eq(SECCOMP_SET_MODE_STRICT))])
        .on_when(
            Action::EPERM,
            &["seccomp"],
            &[
                ("op", Op::Eq(SECCOMP_SET_MODE_FILTER)),
                ("flags", Op::MaskedAny(SECCOMP_FILTER_FLAG_NEW_LISTENER)),
            ],
        )
        // READ_IMPLIES_EXEC and ADDR_NO_RANDOMIZE weaken every later program.
        .on_when(Action::EPERM, &["personality"], &[("persona", Op::not_in(&[0, PER_QUERY]))])
        .on_when(
            Action::EPERM,
            &["sched_setscheduler"],
            &[(
                "policy",
                Op::MaskedNotIn {
                    mask: 0xffff_ffff & !SCHED_RESET_ON_FORK,
                    values: SCHED_OTHER_BATCH_IDLE.to_vec(),
                },
            )],
        )
}

/// A set-id file left in a granted directory outlives the plugin. `openat2` has its mode in memory
/// and is absent.
fn set_id_bits(builder: PolicyBuilder) -> PolicyBuilder {
    builder
        .on_when(
            Action::EPERM,
            &[
                "chmod",
                "fchmod",
                "fchmodat",
                "fchmodat2",
                "creat",
                "mkdir",
                "mkdirat",
                "mknod",
                "mknodat",
            ],
            &[("mode", Op::MaskedAny(SET_ID))],
        )
        .on_when(
            Action::EPERM,
            &["open", "openat"],
            &[("flags", Op::MaskedAny(O_CREAT_OR_TMPFILE)), ("mode", Op::MaskedAny(SET_ID))],
        )
}

/// Reserving blocks without writing them fills a disk in no time, before anybody has measured anything. Giving
/// blocks back is left (`FALLOC_FL_PUNCH_HOLE`), by `ioctl` too. Libraries handle the answer, which many file
/// systems give.
fn reserved_blocks(builder: PolicyBuilder) -> PolicyBuilder {
    const FALLOC_FL_PUNCH_HOLE: u64 = 2;
    const XFS_IOC_ALLOCSP: u64 = 0x4030_580a;
    const XFS_IOC_ALLOCSP64: u64 = 0x4030_5824;
    const FS_IOC_RESVSP: u64 = 0x4030_5828;
    const FS_IOC_RESVSP64: u64 = 0x4030_582a;
    const FS_IOC_ZERO_RANGE: u64 = 0x4030_5839;
    let unsupported = Action::Errno(errno::EOPNOTSUPP);
    builder
        .on_when(unsupported, &["fallocate"], &[("mode", Op::MaskedNone(FALLOC_FL_PUNCH_HOLE))])
        .on_when(
            unsupported,
            &["ioctl"],
            &[(
                "cmd",
                Op::is_in(&[
                    XFS_IOC_ALLOCSP,
                    XFS_IOC_ALLOCSP64,
                    FS_IOC_RESVSP,
                    FS_IOC_RESVSP64,
                    FS_IOC_ZERO_RANGE,
                ]),
            )],
        )
}

/// Programs that have no file behind them. `execve` of /proc/self/fd/N reaches a memfd as well,
/// which is why the memfd itself must not be executable.
fn anonymous_programs(builder: PolicyBuilder) -> PolicyBuilder {
    const MFD_NOEXEC_SEAL: u64 = 0x8;
    const AT_EMPTY_PATH: u64 = 0x1000;
    builder
        .on_when(Action::EACCES, &["memfd_create"], &[("flags", Op::MaskedNone(MFD_NOEXEC_SEAL))])
        .on_when(Action::EACCES, &["execveat"], &[("flags", Op::MaskedAny(AT_EMPTY_PATH))])
}
