//! Attempts 26 to 28 and 70: reaching other processes.
//!
//! Outside, init and the host are stood in for by a victim of our own (or by `host_pid`, a process
//! that the harness started for it); pid 1 of the machine is never touched, and `kill(-1)` is made
//! only in a pid namespace of our own.

use crate::namespaces::peer_pidfd;
use crate::outcome::{At, Attempted, Errno, Outcome, Sys, blocked, impossible, succeeded};
use crate::proc::{with_host, with_init, with_parent};
use crate::sys::{self, VICTIM_SECRET, Victim, close};
use crate::table::{Attempt, Control, Ctx, Tally};
use std::time::Duration;

type Target<'a> = Option<&'a Victim>;

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(26, "attach-init", "PTRACE_ATTACH init", Control::Victim, &[], |x| with_init(x, attach)),
    Attempt::new(26, "attach-parent", "PTRACE_ATTACH the parent", Control::Victim, &[], |x| with_parent(x, attach)),
    Attempt::new(26, "attach-host", "PTRACE_ATTACH the host", Control::Victim, &["host_pid"], |x| with_host(x, attach)),
    Attempt::new(26, "seize-init", "PTRACE_SEIZE init", Control::Victim, &[], |x| with_init(x, seize)),
    Attempt::new(26, "seize-host", "PTRACE_SEIZE the host", Control::Victim, &["host_pid"], |x| with_host(x, seize)),
    Attempt::new(26, "traceme", "PTRACE_TRACEME", Control::Run, &[], |_| sys!(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0).at("ptrace").map(|_| succeeded("traced by the parent"))),
    Attempt::new(26, "sibling", "PTRACE_SEIZE a process of our own", Control::Run, &[], seize_sibling),
    Attempt::new(26, "readv-init", "process_vm_readv of init", Control::Victim, &[], |x| with_init(x, |p, v| vm(p, v, libc::SYS_process_vm_readv))),
    Attempt::new(26, "readv-parent", "process_vm_readv of the parent", Control::Victim, &[], |x| with_parent(x, |p, v| vm(p, v, libc::SYS_process_vm_readv))),
    Attempt::new(26, "readv-host", "process_vm_readv of the host", Control::Victim, &["host_pid"], |x| with_host(x, |p, v| vm(p, v, libc::SYS_process_vm_readv))),
    Attempt::new(26, "writev-init", "process_vm_writev of init", Control::Victim, &[], |x| with_init(x, |p, v| vm(p, v, libc::SYS_process_vm_writev))),
    Attempt::new(26, "kcmp-init", "kcmp with init", Control::Victim, &[], |x| with_init(x, kcmp)),
    Attempt::new(26, "madvise-init", "process_madvise of init", Control::Root, &[], |x| with_init(x, madvise)),
    Attempt::new(26, "prlimit-init", "change a limit of init", Control::Victim, &[], |x| with_init(x, prlimit)),
    Attempt::new(26, "nice-init", "take processor time from init by nice 19", Control::Victim, &[], |x| with_init(x, |pid, _| sys!(libc::SYS_setpriority, 0, pid, 19).at("setpriority").map(|_| succeeded("it has nice 19 now")))),
    Attempt::new(26, "affinity-init", "bind init to one processor", Control::Victim, &[], |x| with_init(x, affinity)),
    Attempt::new(27, "init", "pidfd_getfd from init", Control::Victim, &[], |x| with_init(x, getfd)),
    Attempt::new(27, "host", "pidfd_getfd from the host", Control::Victim, &["host_pid"], |x| with_host(x, getfd)),
    Attempt::new(27, "open-init", "pidfd_open of init", Control::Victim, &[], |x| with_init(x, |pid, _| pidfd(pid).map(|fd| { close(fd); succeeded("a pidfd of it") }))),
    Attempt::new(27, "peer", "pidfd_getfd from the channel's peer (SO_PEERPIDFD)", Control::Victim, &[], |x| with_peer(x, getfd_of)),
    Attempt::new(28, "kill-all", "kill(-1, SIGKILL)", Control::Namespace, &["max_pid"], kill_all).harmful(),
    Attempt::new(28, "kill-host", "kill the host", Control::Victim, &["host_pid"], |x| with_host(x, |p, v| kill(p, v, libc::SIGKILL))),
    Attempt::new(28, "stop-host", "SIGSTOP the host", Control::Victim, &["host_pid"], |x| with_host(x, |p, v| kill(p, v, libc::SIGSTOP))),
    Attempt::new(28, "queue-host", "rt_sigqueueinfo to the host", Control::Victim, &["host_pid"], |x| with_host(x, queue)),
    Attempt::new(28, "tgkill-host", "tgkill the host", Control::Victim, &["host_pid"], |x| with_host(x, |p, v| delivered(sys!(libc::SYS_tgkill, p, p, libc::SIGKILL), v, libc::SIGKILL, "tgkill"))),
    Attempt::new(28, "sigio-host", "a signal to the host by F_SETOWN and O_ASYNC", Control::Victim, &["host_pid"], |x| with_host(x, sigio)),
    Attempt::new(28, "peer", "pidfd_send_signal to the channel's peer (SO_PEERPIDFD)", Control::Victim, &[], |x| with_peer(x, signal_peer)),
    Attempt::new(28, "stop-init", "SIGSTOP init", Control::Victim, &[], stop_init),
    Attempt::new(28, "kill-init", "SIGKILL init", Control::Victim, &[], kill_init),
    Attempt::new(70, "see", "see any process that is not of this box", Control::Victim, &[], see),
    Attempt::new(70, "signal", "signal any pid that is not of this box", Control::Victim, &["max_pid"], signal_any),
    Attempt::new(70, "open-fds", "open what other processes hold", Control::Victim, &[], open_fds),
    Attempt::new(70, "stop-parent", "SIGSTOP the parent", Control::Victim, &[], stop_parent),
    Attempt::new(70, "unix-table", "see sockets of others in /proc/net/unix", Control::Run, &[], unix_table),
    Attempt::new(70, "peer-credentials", "learn the host's pid from the channel", Control::Victim, &[], peer_credentials),
];

/// Without the socket of a [`Victim`], which not everybody may make.
fn seize_sibling(_: &Ctx) -> Attempted {
    let child = sys::fork().setup("a process of our own")?;
    if child == 0 {
        loop {
            // SAFETY: waits for the signal that ends it.
            unsafe { libc::pause() };
        }
    }
    let outcome = seize(child, None);
    sys::end_child(child);
    outcome
}

fn attach(pid: i32, _: Target<'_>) -> Attempted {
    sys!(libc::SYS_ptrace, libc::PTRACE_ATTACH, pid, 0, 0).at("PTRACE_ATTACH")?;
    let _ = sys::wait_child(pid, Duration::from_secs(2), libc::__WALL | libc::WUNTRACED);
    let _ = sys!(libc::SYS_ptrace, libc::PTRACE_DETACH, pid, 0, 0);
    Ok(succeeded(format!("attached to pid {pid}")))
}

fn seize(pid: i32, _: Target<'_>) -> Attempted {
    sys!(libc::SYS_ptrace, libc::PTRACE_SEIZE, pid, 0, 0).at("PTRACE_SEIZE")?;
    // Seizing stops nothing; the tracer's end detaches.
    Ok(succeeded(format!("seized pid {pid}")))
}

fn vm(pid: i32, victim: Target<'_>, call: i64) -> Attempted {
    let mut buf = VICTIM_SECRET;
    if call == libc::SYS_process_vm_readv {
        buf = [0; 24];
    }
    let local = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let address = VICTIM_SECRET.as_ptr().cast_mut().cast();
    let remote = libc::iovec { iov_base: address, iov_len: buf.len() };
    match sys!(call, pid, &raw const local, 1, &raw const remote, 1, 0) {
        Ok(_) if victim.is_some() && call == libc::SYS_process_vm_readv && buf != VICTIM_SECRET => {
            Ok(blocked(None, "read something else"))
        }
        Ok(n) => Ok(succeeded(format!("{n} bytes of the memory of pid {pid}"))),
        // The right is checked before the address (which is ours, and read-only in a victim).
        Err(Errno(libc::EFAULT)) => Ok(succeeded("access granted; the address is not mapped so")),
        Err(e) => Err(blocked(e.0, "process_vm")),
    }
}

fn kcmp(pid: i32, _: Target<'_>) -> Attempted {
    let order = sys!(libc::SYS_kcmp, sys::pid(), pid, 1, 0, 0).at("kcmp")?;
    Ok(succeeded(format!("kcmp answered {order}")))
}

fn madvise(pid: i32, _: Target<'_>) -> Attempted {
    let fd = pidfd(pid)?;
    let iov = libc::iovec { iov_base: VICTIM_SECRET.as_ptr().cast_mut().cast(), iov_len: 0 };
    // MADV_COLD
    let r = sys!(libc::SYS_process_madvise, fd, &raw const iov, 1, 20, 0);
    close(fd);
    r.at("process_madvise")?;
    Ok(succeeded("advice was taken"))
}

fn prlimit(pid: i32, _: Target<'_>) -> Attempted {
    let mut old = [0u64; 2];
    sys!(libc::SYS_prlimit64, pid, libc::RLIMIT_CORE, 0, old.as_mut_ptr()).at("prlimit (read)")?;
    sys!(libc::SYS_prlimit64, pid, libc::RLIMIT_CORE, old.as_ptr(), 0).at("prlimit (write)")?;
    Ok(succeeded(format!("limits of pid {pid} can be set")))
}

fn affinity(pid: i32, _: Target<'_>) -> Attempted {
    let mut mask = [0u64; 16];
    sys!(libc::SYS_sched_getaffinity, pid, 128, mask.as_mut_ptr()).at("sched_getaffinity")?;
    // The mask that it has: asking for the right changes nothing.
    sys!(libc::SYS_sched_setaffinity, pid, 128, mask.as_ptr()).at("sched_setaffinity")?;
    Ok(succeeded("its processors can be chosen"))
}

fn pidfd(pid: i32) -> Result<i32, Outcome> {
    sys!(libc::SYS_pidfd_open, pid, 0).at("pidfd_open").map(|fd| fd as i32)
}

fn getfd(pid: i32, _: Target<'_>) -> Attempted {
    let fd = pidfd(pid)?;
    let outcome = getfd_of(fd, None);
    close(fd);
    outcome
}

fn getfd_of(pidfd: i32, _: Target<'_>) -> Attempted {
    let mut last = Errno(0);
    for wanted in 0..16 {
        match sys!(libc::SYS_pidfd_getfd, pidfd, wanted, 0) {
            Ok(fd) => {
                let link = std::fs::read_link(format!("/proc/self/fd/{fd}"));
                close(fd as i32);
                return Ok(succeeded(format!("took fd {wanted}: {link:?}")));
            }
            // EBADF: the right was granted, there is no such descriptor.
            Err(e) if last.0 == 0 || e.0 != libc::EBADF => last = e,
            Err(_) => {}
        }
    }
    if last.0 == libc::EBADF {
        return Ok(succeeded("access granted; it holds no descriptor below 16"));
    }
    Err(blocked(last.0, "pidfd_getfd"))
}

/// The pidfd of the peer of the channel (inside) or of a victim's socket (outside).
fn with_peer(ctx: &Ctx, attack: impl Fn(i32, Target<'_>) -> Attempted) -> Attempted {
    let victim = bystander(ctx)?;
    let socket = match &victim {
        Some(victim) => victim.peer,
        None => ctx.need_channel()?,
    };
    let fd = peer_pidfd(socket).at("SO_PEERPIDFD")?;
    let outcome = attack(fd, victim.as_ref());
    close(fd);
    outcome
}

fn signal_peer(pidfd: i32, victim: Target<'_>) -> Attempted {
    // Signal 0 asks for the right only; a victim is really killed.
    let signal = if victim.is_some() { libc::SIGKILL } else { 0 };
    let sent = sys!(libc::SYS_pidfd_send_signal, pidfd, signal, 0, 0);
    match victim {
        Some(_) => delivered(sent, victim, signal, "pidfd_send_signal"),
        None => sent.at("have the peer's pidfd; signal").map(|_| succeeded("may signal the peer")),
    }
}

/// A signal is delivered where the call says so and a victim dies of it.
fn delivered(sent: Sys, victim: Target<'_>, signal: i32, what: &str) -> Attempted {
    sent.at(what)?;
    match victim.map(|v| v.ended_by(Duration::from_secs(2))) {
        None => Ok(succeeded(format!("{what}: sent; the host sees whether it arrived"))),
        Some(Some(by)) if by == signal => Ok(succeeded(format!("{what}: the victim died of it"))),
        Some(other) => Ok(blocked(None, format!("{what}: sent, the victim ended by {other:?}"))),
    }
}

fn kill(pid: i32, victim: Target<'_>, signal: i32) -> Attempted {
    let sent = sys!(libc::SYS_kill, pid, signal);
    if signal != libc::SIGSTOP || victim.is_none() {
        return delivered(sent, victim, signal, "kill");
    }
    sent.at("kill")?;
    match sys::wait_child(pid, Duration::from_secs(2), libc::WUNTRACED) {
        Some(s) if libc::WIFSTOPPED(s) => Ok(succeeded("the victim is stopped")),
        other => Ok(blocked(None, format!("sent, but its state is {other:?}"))),
    }
}

fn queue(pid: i32, victim: Target<'_>) -> Attempted {
    // siginfo with si_code SI_QUEUE (-1); the rest is of no interest.
    let mut info = [0u32; 32];
    (info[0], info[2]) = (libc::SIGKILL as u32, u32::MAX);
    let sent = sys!(libc::SYS_rt_sigqueueinfo, pid, libc::SIGKILL, info.as_ptr());
    delivered(sent, victim, libc::SIGKILL, "rt_sigqueueinfo")
}

/// The kernel sends the signal on our behalf when the pipe has something to read.
fn sigio(pid: i32, victim: Target<'_>) -> Attempted {
    let (r, w) = sys::socketpair().setup("socket pair")?;
    sys!(libc::SYS_fcntl, r, libc::F_SETOWN, pid).at("F_SETOWN")?;
    sys!(libc::SYS_fcntl, r, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK).at("O_ASYNC")?;
    let sent = sys::write_fd(w, b"x").map(|n| n as i64);
    let outcome = delivered(sent, victim, libc::SIGIO, "SIGIO");
    close(r);
    close(w);
    outcome
}

/// Runs `act` as pid 2 of a fresh pid namespace whose init waits; outside only.
fn in_own_pids(act: impl FnOnce() -> Outcome) -> Attempted {
    sys!(libc::SYS_unshare, libc::CLONE_NEWPID).setup("own pid namespace (root only)")?;
    let (r, w) = sys::pipe().setup("pipe")?;
    let init = sys::fork().setup("init of the namespace")?;
    if init == 0 {
        // SAFETY: plain calls. The check is the guard: nothing below runs on the machine's pids.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        if sys::pid() != 1 {
            sys::exit(1);
        }
        if let Ok(0) = sys::fork() {
            let outcome = act();
            let _ = sys::write_fd(w, &outcome.encode());
            sys::exit(0);
        }
        loop {
            sys::sleep(Duration::from_secs(1));
        }
    }
    close(w);
    let answer = if sys::poll(r, libc::POLLIN, Duration::from_secs(10)) {
        sys::read_fd(r).unwrap_or_default()
    } else {
        Vec::new()
    };
    let ended = sys::wait_child(init, Duration::from_millis(50), 0);
    if ended.is_none() {
        sys::end_child(init);
    }
    Outcome::decode(&answer).ok_or_else(|| impossible(format!("no answer; init ended {ended:?}")))
}

fn kill_all(ctx: &Ctx) -> Attempted {
    if ctx.outside() {
        return in_own_pids(|| {
            // A bystander that only kill(-1) reaches.
            let Ok(victim) = Victim::spawn(|| ()) else { return impossible("victim") };
            let sent = sys!(libc::SYS_kill, -1, libc::SIGKILL);
            delivered(sent, Some(&victim), libc::SIGKILL, "kill(-1)").unwrap_or_else(|o| o)
        });
    }
    // Whether anything foreign can be reached is asked first, with signal 0: on a machine whose
    // walls are missing that is the answer, and nobody's processes die for it.
    let (reached, _) = reachable(ctx.num("max_pid", 4_194_304));
    if !reached.is_empty() {
        return Ok(succeeded(format!("would kill {} and more (not sent)", list(&reached))));
    }
    match sys!(libc::SYS_kill, -1, libc::SIGKILL) {
        Err(e) => Err(blocked(e.0, "kill(-1)")),
        Ok(_) => Ok(blocked(None, "kill(-1) sent; nothing foreign was in reach")),
    }
}

/// The state letter of pid 1.
fn init_state() -> Option<char> {
    let stat = std::fs::read_to_string("/proc/1/stat").ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

fn stop_init(ctx: &Ctx) -> Attempted {
    if ctx.outside() {
        // The kernel never stops the init of one's own namespace: a victim shows the call.
        return with_init(ctx, |p, v| kill(p, v, libc::SIGSTOP));
    }
    sys!(libc::SYS_kill, 1, libc::SIGSTOP).at("kill")?;
    sys::sleep(Duration::from_millis(100));
    match init_state() {
        Some('T' | 't') => Ok(succeeded("init is stopped")),
        state => Ok(blocked(None, format!("sent; init goes on ({state:?})"))),
    }
}

/// Init as parent is asked for its state; any other parent's end is for the host to see.
fn stop_parent(ctx: &Ctx) -> Attempted {
    // SAFETY: no arguments.
    if !ctx.outside() && unsafe { libc::getppid() } == 1 {
        return stop_init(ctx);
    }
    with_parent(ctx, |p, v| kill(p, v, libc::SIGSTOP))
}

/// Without a pid namespace the box's init is our parent, and number 1 somebody else.
fn kill_init(ctx: &Ctx) -> Attempted {
    // SAFETY: no arguments.
    if ctx.outside() || unsafe { libc::getppid() } != 1 {
        return with_parent(ctx, |p, v| kill(p, v, libc::SIGKILL));
    }
    sys!(libc::SYS_kill, 1, libc::SIGKILL).at("kill")?;
    sys::sleep(Duration::from_millis(100));
    // Still here: the kernel keeps SIGKILL of its own namespace from init.
    Ok(blocked(None, format!("sent; init goes on ({:?})", init_state())))
}

/// Pids in /proc that are neither ours, nor the parent's, nor init's. Outside only a victim of our
/// own counts: the machine's other processes are nobody's to look into.
fn foreign(victim: Target<'_>) -> Vec<i32> {
    let mine = sys::pid();
    // SAFETY: no arguments.
    let parent = unsafe { libc::getppid() };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let others = pids.filter(|p| ![1, mine, parent].contains(p));
    others.filter(|p| victim.is_none_or(|v| v.pid == *p)).collect()
}

/// A victim outside, nothing inside.
fn bystander(ctx: &Ctx) -> Result<Option<Victim>, Outcome> {
    if ctx.outside() { Victim::spawn(|| ()).setup("victim").map(Some) } else { Ok(None) }
}

fn see(ctx: &Ctx) -> Attempted {
    let victim = bystander(ctx)?;
    let seen = foreign(victim.as_ref());
    let name = |pid: &i32| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{pid}:{}", comm.trim_end())
    };
    if seen.is_empty() {
        return Ok(blocked(None, "only this box is seen"));
    }
    let names: Vec<String> = seen.iter().take(12).map(name).collect();
    Ok(succeeded(format!("{} processes: {}", seen.len(), names.join(" "))))
}

/// Pids of others that signal 0 can be sent to (the first 8), and the errno of the rest. Signal 0
/// asks for the right and sends nothing.
fn reachable(max_pid: u64) -> (Vec<i32>, Errno) {
    let top = max_pid.min(4_194_304) as i32;
    // SAFETY: no arguments.
    let own = [1, sys::pid(), unsafe { libc::getppid() }];
    let mut last = Errno(libc::ESRCH);
    let mut found = Vec::new();
    for pid in (2..=top).filter(|p| !own.contains(p)) {
        match sys!(libc::SYS_kill, pid, 0) {
            Ok(_) => found.push(pid),
            Err(e) if e.0 != libc::ESRCH => last = e,
            Err(_) => {}
        }
        if found.len() == 8 {
            break;
        }
    }
    (found, last)
}

fn list(pids: &[i32]) -> String {
    pids.iter().map(i32::to_string).collect::<Vec<_>>().join(" ")
}

fn signal_any(ctx: &Ctx) -> Attempted {
    if let Some(victim) = bystander(ctx)? {
        sys!(libc::SYS_kill, victim.pid, 0).at("kill")?;
        return Ok(succeeded("can signal the victim"));
    }
    let top = ctx.num("max_pid", 4_194_304);
    let (found, last) = reachable(top);
    if found.is_empty() {
        return Err(blocked(last.0, format!("no pid up to {top}")));
    }
    Ok(succeeded(format!("can signal {}", list(&found))))
}

fn open_fds(ctx: &Ctx) -> Attempted {
    let victim = bystander(ctx)?;
    let mut tally = Tally::default();
    for pid in foreign(victim.as_ref()).into_iter().take(64) {
        let path = format!("/proc/{pid}/fd");
        match std::fs::read_dir(&path) {
            Err(e) => tally.add::<()>(&pid.to_string(), Err(Errno(e.raw_os_error().unwrap_or(0)))),
            Ok(mut entries) => {
                if entries.next().is_some() {
                    tally.win(&pid.to_string());
                }
            }
        }
    }
    tally.end("no other process is seen")
}

fn unix_table(_: &Ctx) -> Attempted {
    let table = std::fs::read_to_string("/proc/net/unix").at("open /proc/net/unix")?;
    // Named sockets (a path or @name in the last column) that are not our own.
    let named: Vec<&str> =
        table.lines().skip(1).filter_map(|l| l.split_whitespace().nth(7)).collect();
    if named.is_empty() {
        return Ok(blocked(None, "no named socket is listed"));
    }
    Ok(succeeded(format!("{} named sockets, first {}", named.len(), named[0])))
}

fn peer_credentials(ctx: &Ctx) -> Attempted {
    let victim = bystander(ctx)?;
    let socket = match &victim {
        Some(victim) => victim.peer,
        None => ctx.need_channel()?,
    };
    let (mut cred, mut len) = ([0u32; 3], 12u32);
    let option = libc::SO_PEERCRED;
    sys!(libc::SYS_getsockopt, socket, libc::SOL_SOCKET, option, cred.as_mut_ptr(), &raw mut len)
        .at("SO_PEERCRED")?;
    let [pid, uid, gid] = cred;
    if pid == 0 {
        return Ok(blocked(None, format!("pid 0, uid {uid}, gid {gid}")));
    }
    Ok(succeeded(format!("the peer is pid {pid}, uid {uid}, gid {gid}")))
}
