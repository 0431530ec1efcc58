//! Attempts 17 to 19: new namespaces and joining those of others.
//!
//! Outside, the namespaces that are joined belong to a victim of our own.

use crate::mounts::tmpfs_on;
use crate::outcome::{At, Attempted, Errno, blocked, impossible, succeeded};
use crate::sys::{self, CWD, Victim, c, close, open};
use crate::table::{Attempt, Control, Ctx};
use std::time::Duration;

const NEWTIME: u64 = 0x80;

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(17, "unshare-user", "unshare NEWUSER", Control::Run, &[], |_| unshare(libc::CLONE_NEWUSER as u64)),
    Attempt::new(17, "unshare-user-mount", "unshare NEWUSER and NEWNS, then mount", Control::Run, &[], user_mount),
    Attempt::new(17, "clone-user", "clone with NEWUSER", Control::Run, &[], |_| clone(libc::CLONE_NEWUSER as u64)),
    Attempt::new(17, "clone-user-net", "clone with NEWUSER and NEWNET", Control::Run, &[], |_| clone((libc::CLONE_NEWUSER | libc::CLONE_NEWNET) as u64)),
    Attempt::new(17, "unshare-mnt", "unshare NEWNS", Control::Root, &[], |_| unshare(libc::CLONE_NEWNS as u64)),
    Attempt::new(17, "unshare-pid", "unshare NEWPID", Control::Root, &[], |_| unshare(libc::CLONE_NEWPID as u64)),
    Attempt::new(17, "unshare-net", "unshare NEWNET", Control::Root, &[], |_| unshare(libc::CLONE_NEWNET as u64)),
    Attempt::new(17, "unshare-uts", "unshare NEWUTS", Control::Root, &[], |_| unshare(libc::CLONE_NEWUTS as u64)),
    Attempt::new(17, "unshare-ipc", "unshare NEWIPC", Control::Root, &[], |_| unshare(libc::CLONE_NEWIPC as u64)),
    Attempt::new(17, "unshare-cgroup", "unshare NEWCGROUP", Control::Root, &[], |_| unshare(libc::CLONE_NEWCGROUP as u64)),
    Attempt::new(22, "unshare-user-high", "unshare NEWUSER with bit 32 set", Control::None("the kernel takes unshare flags as unsigned long and refuses unknown bits"), &[], |_| unshare(libc::CLONE_NEWUSER as u64 | 1 << 32)),
    Attempt::new(22, "clone-user-high", "clone with NEWUSER and bit 32 set", Control::Run, &[], |_| clone(libc::CLONE_NEWUSER as u64 | 1 << 32)),
    Attempt::new(18, "clone3-user", "clone3 with NEWUSER", Control::Run, &[], |_| clone3(libc::CLONE_NEWUSER as u64)),
    Attempt::new(18, "clone3-mnt-pid", "clone3 with NEWUSER, NEWNS and NEWPID", Control::Run, &[], |_| clone3((libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID) as u64)),
    Attempt::new(18, "clone3-plain", "clone3 without flags (must not be there at all)", Control::Run, &[], |_| clone3(0)),
    Attempt::new(19, "unshare-time", "unshare NEWTIME", Control::Root, &[], |_| unshare(NEWTIME)),
    Attempt::new(19, "unshare-user-time", "unshare NEWUSER and NEWTIME", Control::Run, &[], |_| unshare(NEWTIME | libc::CLONE_NEWUSER as u64)),
    Attempt::new(19, "setns-user", "join init's user namespace", Control::Root, &[], |x| setns(x, "user")),
    Attempt::new(19, "setns-mnt", "join init's mount namespace", Control::Root, &[], |x| setns(x, "mnt")),
    Attempt::new(19, "setns-pid", "join init's pid namespace", Control::Root, &[], |x| setns(x, "pid")),
    Attempt::new(19, "setns-net", "join init's network namespace", Control::Root, &[], |x| setns(x, "net")),
    Attempt::new(19, "setns-ipc", "join init's ipc namespace", Control::Root, &[], |x| setns(x, "ipc")),
    Attempt::new(19, "setns-uts", "join init's uts namespace", Control::Root, &[], |x| setns(x, "uts")),
    Attempt::new(19, "setns-cgroup", "join init's cgroup namespace", Control::Root, &[], |x| setns(x, "cgroup")),
    Attempt::new(19, "setns-time", "join init's time namespace", Control::Root, &[], |x| setns(x, "time")),
    Attempt::new(19, "setns-self", "setns to a descriptor of our own namespace", Control::Root, &[], setns_self),
    Attempt::new(19, "setns-pidfd", "setns to all namespaces of init by pidfd", Control::Root, &[], setns_pidfd),
    Attempt::new(19, "setns-peer", "setns by the pidfd of the channel's peer (SO_PEERPIDFD)", Control::Root, &[], setns_peer),
    Attempt::new(19, "ns-get-userns", "reach the parent user namespace with NS_GET_USERNS and NS_GET_PARENT", Control::Victim, &[], parent_userns),
];

fn unshare(flags: u64) -> Attempted {
    sys!(libc::SYS_unshare, flags).at("unshare")?;
    Ok(succeeded(format!("unshare({flags:#x})")))
}

fn user_mount(ctx: &Ctx) -> Attempted {
    let scratch = ctx.scratch()?;
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    sys!(libc::SYS_unshare, flags).at("unshare NEWUSER|NEWNS")?;
    let outcome = tmpfs_on(&scratch.path);
    let _ = sys!(libc::SYS_umount2, c(&scratch.path).as_ptr(), libc::MNT_DETACH);
    outcome
}

/// What a child of `clone` leaves with; the parent takes it as proof that it lived.
const CHILD_STATUS: i32 = 42;

fn proves_child(pid: i64, what: &str) -> Attempted {
    match sys::wait_child(pid as i32, Duration::from_secs(5), libc::__WALL) {
        Some(s) if libc::WIFEXITED(s) && libc::WEXITSTATUS(s) == CHILD_STATUS => {
            Ok(succeeded(format!("{what} made a child")))
        }
        other => Ok(blocked(None, format!("{what}: the child ended with {other:?}"))),
    }
}

fn clone(flags: u64) -> Attempted {
    let flags = flags | libc::SIGCHLD as u64;
    let pid = sys!(libc::SYS_clone, flags, 0, 0, 0, 0).at("clone")?;
    if pid == 0 {
        sys::exit(CHILD_STATUS);
    }
    proves_child(pid, "clone")
}

fn clone3(flags: u64) -> Attempted {
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls.
    let args: [u64; 8] = [flags, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
    let pid = sys!(libc::SYS_clone3, args.as_ptr(), 64).at("clone3")?;
    if pid == 0 {
        sys::exit(CHILD_STATUS);
    }
    proves_child(pid, "clone3")
}

/// Inside: pid 1. Outside: a victim in namespaces of its own.
fn target(ctx: &Ctx) -> Result<(i32, Option<Victim>), crate::outcome::Outcome> {
    if !ctx.outside() {
        return Ok((1, None));
    }
    let victim = Victim::spawn(|| {
        let flags = libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP
            | libc::CLONE_NEWPID;
        let _ = sys!(libc::SYS_unshare, flags as u64 | NEWTIME);
        // The pid namespace exists once something lives in it.
        if let Ok(0) = sys::fork() {
            // SAFETY: plain calls; it ends with the victim.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                loop {
                    libc::pause();
                }
            }
        }
    });
    let victim = victim.setup("victim in its own namespaces")?;
    Ok((victim.pid, Some(victim)))
}

fn setns(ctx: &Ctx, kind: &str) -> Attempted {
    let (pid, victim) = target(ctx)?;
    // A victim is not itself in the pid and time namespaces that it made.
    let kind = match (kind, &victim) {
        ("pid", Some(_)) => "pid_for_children",
        ("time", Some(_)) => "time_for_children",
        _ => kind,
    };
    let fd = open(&format!("/proc/{pid}/ns/{kind}"), libc::O_RDONLY, 0).at("open the ns file")?;
    sys!(libc::SYS_setns, fd, 0).at("setns")?;
    Ok(succeeded(format!("joined {kind} of pid {pid}")))
}

fn setns_self(_: &Ctx) -> Attempted {
    let fd = open("/proc/self/ns/net", libc::O_RDONLY, 0).at("open the ns file")?;
    sys!(libc::SYS_setns, fd, libc::CLONE_NEWNET).at("setns")?;
    Ok(succeeded("setns to our own network namespace"))
}

fn setns_pidfd(ctx: &Ctx) -> Attempted {
    let (pid, _victim) = target(ctx)?;
    let pidfd = sys!(libc::SYS_pidfd_open, pid, 0).at("pidfd_open")?;
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET;
    sys!(libc::SYS_setns, pidfd, flags).at("setns")?;
    Ok(succeeded("joined by pidfd"))
}

/// The pidfd of whoever made the other end of a socket.
pub fn peer_pidfd(socket: i32) -> Result<i32, Errno> {
    const SO_PEERPIDFD: i32 = 77;
    let (mut fd, mut len) = (-1i32, 4u32);
    sys!(libc::SYS_getsockopt, socket, libc::SOL_SOCKET, SO_PEERPIDFD, &raw mut fd, &raw mut len)?;
    Ok(fd)
}

fn setns_peer(ctx: &Ctx) -> Attempted {
    let (_, victim) = target(ctx)?;
    let socket = match &victim {
        Some(v) => v.peer,
        None => ctx.need_channel()?,
    };
    let pidfd = peer_pidfd(socket).at("SO_PEERPIDFD")?;
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET;
    let joined = sys!(libc::SYS_setns, pidfd, flags);
    close(pidfd);
    joined.at("have the peer's pidfd; setns")?;
    Ok(succeeded("joined the peer's namespaces"))
}

/// `ioctl_ns(2)`: the parent must answer EPERM where it lies outside the caller's namespaces.
fn parent_userns(ctx: &Ctx) -> Attempted {
    const NS_GET_PARENT: u64 = 0xb702;
    let (pid, victim) = target(ctx)?;
    let pid = if victim.is_some() { pid.to_string() } else { "self".to_owned() };
    let path = c(format!("/proc/{pid}/ns/user"));
    let fd = sys!(libc::SYS_openat, CWD, path.as_ptr(), libc::O_RDONLY, 0).at("open ns/user")?;
    match sys!(libc::SYS_ioctl, fd, NS_GET_PARENT, 0) {
        Ok(_) => Ok(succeeded("the parent user namespace is held")),
        Err(e) if ctx.outside() && e.0 == libc::EINVAL => Ok(impossible("not a user namespace")),
        Err(e) => Err(blocked(e.0, "NS_GET_PARENT")),
    }
}
