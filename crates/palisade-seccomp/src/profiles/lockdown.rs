//! For hosts where no namespaces can be made. There the plugin shares process numbers, IPC and the
//! network with its user's other processes, so the filter takes away what the namespaces would
//! have hidden. Files and signals are Landlock's part; what stays visible, the report must say.

use super::floor::{AF_UNIX, SOCK_TYPE_MASK};
use super::groups::{AIO, MEMORY_POLICY, MQUEUE, PROCESS, RARE_MEMORY, SYSV_IPC};
use super::native::common;
use crate::action::Action;
use crate::condition::Op;
use crate::error::Error;
use crate::merge::merged;
use crate::policy::{Policy, PolicyBuilder};

/// The lockdown profile, version 1.
pub(super) fn lockdown() -> Result<Policy, Error> {
    let builder = common("lockdown", 1)
        .on(Action::EPERM, SYSV_IPC)
        .on(Action::EPERM, MQUEUE)
        .on(Action::ENOSYS, AIO)
        .on(Action::ENOSYS, RARE_MEMORY);
    let builder = no_new_sockets(builder);
    let profile = only_itself(builder)
        .on(Action::Allow, PROCESS)
        .on(Action::Allow, SOCKETS_STILL_USED)
        .on(Action::Allow, MEMORY_POLICY)
        .build()?;
    let whole = merged(&no_cutting_by_name()?, &profile);
    Ok(Policy { name: profile.name, label: profile.label, ..whole })
}

/// Landlock before its version 3 cannot keep a file from being cut that may only be read, and no
/// mount does it here. Who has a file open for writing can still cut it (`ftruncate`).
fn no_cutting_by_name() -> Result<Policy, Error> {
    const O_ACCMODE: u64 = 0o3;
    const O_TRUNC: u64 = 0o1000;
    Policy::builder("lockdown", 1, Action::Allow)
        .on(Action::EPERM, &["truncate"])
        .on_when(
            Action::EPERM,
            &["open", "openat"],
            &[("flags", Op::MaskedEq { mask: O_TRUNC | O_ACCMODE, value: O_TRUNC })],
        )
        .build()
}

/// What inherited sockets and pairs need.
const SOCKETS_STILL_USED: &[&str] = &[
    "accept",
    "accept4",
    "getpeername",
    "getsockname",
    "getsockopt",
    "listen",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    "socketpair",
];

fn no_new_sockets(builder: PolicyBuilder) -> PolicyBuilder {
    const SOCK_STREAM: u64 = 1;
    const SOCK_SEQPACKET: u64 = 5;
    builder
        .on(Action::EPERM, &["socket", "connect", "bind"])
        .on_when(Action::EPERM, &["socketpair"], &[("domain", Op::Ne(AF_UNIX))])
        // Half of a datagram pair can be sent anywhere with an address in `sendmsg`, to any socket
        // in the file system; connected stream and seqpacket sockets refuse or ignore addresses.
        .on_when(
            Action::EPERM,
            &["socketpair"],
            &[(
                "type",
                Op::MaskedNotIn { mask: SOCK_TYPE_MASK, values: vec![SOCK_STREAM, SOCK_SEQPACKET] },
            )],
        )
        .on_when(Action::EPERM, &["sendto"], &[("addr", Op::Ne(0))])
}

/// Calls that can be aimed at any process of the same user. Number 0 is the caller.
fn only_itself(builder: PolicyBuilder) -> PolicyBuilder {
    const PR_SET_PDEATHSIG: u64 = 1;
    const CLONE_PARENT: u64 = 0x8000;
    const PRIO_PROCESS: u64 = 0;
    const IOPRIO_WHO_PROCESS: u64 = 1;
    const EVERY_PROCESS: u64 = 0xffff_ffff;
    builder
        // The parent's death signal is what ends the plugin with its host in this tier.
        .on_when(Action::EPERM, &["prctl"], &[("option", Op::Eq(PR_SET_PDEATHSIG))])
        // A child given to the launcher would outlive the process that is being watched.
        .on_when(Action::EPERM, &["clone"], &[("flags", Op::MaskedAny(CLONE_PARENT))])
        // Landlock's signal scope covers single targets; this is the second wall for "everybody".
        .on_when(Action::EPERM, &["kill"], &[("pid", Op::Eq(EVERY_PROCESS))])
        .on_when(
            Action::EPERM,
            &["prlimit64", "sched_setparam", "sched_setscheduler"],
            &[("pid", Op::Ne(0))],
        )
        .on_when(Action::EPERM, &["setpriority"], &[("which", Op::Ne(PRIO_PROCESS))])
        .on_when(Action::EPERM, &["ioprio_set"], &[("which", Op::Ne(IOPRIO_WHO_PROCESS))])
        .on_when(Action::EPERM, &["setpriority", "ioprio_set"], &[("who", Op::Ne(0))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profiles::groups::SOCKETS;

    #[test]
    fn every_socket_call_has_an_answer() {
        let refused = ["bind", "connect", "socket"];
        let mut named: Vec<&str> = SOCKETS_STILL_USED.iter().chain(&refused).copied().collect();
        named.sort_unstable();
        assert_eq!(named, SOCKETS);
    }
}
