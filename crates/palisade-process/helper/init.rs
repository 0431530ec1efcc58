// Pid 1 of a plugin: starts the program, reaps orphans, forwards signals, watches policed limits, and
// ends everything when the program ends, when the host asks, or when the host or the spawner is gone.
//
// It runs only this code, holds no handle but its lifelines, and cannot be traced (undumpable) or
// signalled from inside (it is the pid namespace's init).

use crate::laps;
use crate::plan::{command, handle, lap, report, step, switch, word};
use crate::police::Police;
use crate::program;
use crate::spawner::{Failure, Launch, failed};
use crate::sys::{self, Fd, PollFd, nr, sys};
use crate::times::Tables;
use crate::violation::Watch;

fn message(kind: u32, a: i32, b: u64) -> [u8; 16] {
    let mut bytes = [0u8; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[4..8].copy_from_slice(&a.to_le_bytes());
    bytes[8..].copy_from_slice(&b.to_le_bytes());
    bytes
}

pub fn send_report(status: Fd, kind: u32, a: i32, b: u64) {
    sys::send(status, &message(kind, a, b), -1);
}

/// Gives the host a handle, with a report of this kind; `a` says more about it.
pub fn send_handle(status: Fd, kind: u32, a: u32, given: Fd) -> isize {
    let mut bytes = [0u8; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[4..8].copy_from_slice(&a.to_le_bytes());
    sys::send(status, &bytes, given)
}

pub fn report_failure(launch: &Launch<'_>, failure: &Failure) {
    let place = u64::from(failure.step) | (u64::from(failure.index) << 32);
    send_report(launch.handles[handle::STATUS], report::FAILED, (-failure.errno) as i32, place);
}

fn receive_command(status: Fd) -> Option<(u32, u32)> {
    let mut bytes = [0u8; 8];
    let mut none = [-1; sys::MAX_HANDLES];
    let (n, _) = sys::recv(status, &mut bytes, &mut none);
    if n != 8 {
        return None;
    }
    let word = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    Some((word(0), word(4)))
}

/// Never returns.
pub fn run(launch: &Launch<'_>) -> ! {
    let status = launch.handles[handle::STATUS];
    #[cfg(feature = "ablation")]
    if let Err(failure) = crate::ablation::thin(launch) {
        report_failure(launch, &failure);
        sys::exit(74)
    }
    let mut prepared = match program::prepare(launch) {
        Ok(prepared) => prepared,
        Err(failure) => {
            report_failure(launch, &failure);
            sys::exit(74)
        }
    };
    laps::lap(lap::RULESET);
    if launch.config[word::SWITCHES] & switch::ONLY_WALLS != 0 {
        send_report(status, report::WALLS_UP, 0, sys::now_ns() - launch.started);
        sys::exit(0);
    }
    if launch.config[word::SWITCHES] & switch::CGROUP_NS != 0 {
        let result = sys!(nr::UNSHARE, sys::CLONE_NEWCGROUP);
        if result < 0 {
            report_failure(launch, &failed(step::CGROUP_NS, 0, result));
            sys::exit(74);
        }
    }
    // SIGCHLD is read from a handle from here on.
    let mask: u64 = 1 << 16;
    sys!(nr::RT_SIGPROCMASK, 0, &raw const mask, 0, 8);
    let signals = sys!(nr::SIGNALFD4, sys::EVERY, &raw const mask, 8, 0o2000000) as Fd;
    let child = match program::start(&mut prepared) {
        Ok(pid) => pid,
        Err(failure) => {
            report_failure(launch, &failure);
            sys::exit(74)
        }
    };
    laps::lap(lap::EXEC);
    laps::tell(status);
    send_report(status, report::RUNNING, child as i32, sys::now_ns() - launch.started);
    let listener = prepared.take_listener(status);
    for fd in [handle::STDIN, handle::STDOUT, handle::STDERR, handle::LANE] {
        sys::close(launch.handles[fd]);
    }
    sys::close(prepared.ruleset);
    // What is left to do needs no right beyond signalling one's own children.
    program::drop_capabilities();
    watch(launch, signals, listener, child)
}

/// Waits until the process that becomes the program has begun it, or has ended: then its end of this pipe is
/// closed. It is told by the host itself; nothing else runs in here meanwhile.
pub fn hold(launch: &Launch<'_>, begun: Fd) {
    let mut fds = [
        PollFd { fd: begun, events: sys::POLLIN, revents: 0 },
        PollFd { fd: launch.lifeline, events: sys::POLLIN, revents: 0 },
    ];
    while fds[0].revents == 0 {
        sys::poll(&mut fds, -1);
        if fds[1].revents != 0 {
            end(launch, 77);
        }
    }
}

/// In the process that becomes the program: waits for the host's word. What it calls, every filter allows.
pub fn wait_for_start(status: Fd, started: u64) -> Result<(), Failure> {
    send_report(status, report::WALLS_UP, 0, sys::now_ns() - started);
    match receive_command(status) {
        Some((command::START, _)) => Ok(()),
        // The host closed its end, or wants these walls no longer.
        _ => Err(failed(step::HELD, 0, sys::EPIPE)),
    }
}

static mut TABLES: Tables = Tables::EMPTY;

fn watch(launch: &Launch<'_>, signals: Fd, listener: Fd, child: isize) -> ! {
    let status = launch.handles[handle::STATUS];
    // SAFETY: this process has one thread, and this function is called once in it.
    let tables = unsafe { &mut *(&raw mut TABLES) };
    let mut police = Police::new(&launch.config, tables);
    let mut violations = Watch::new();
    let mut fds = [
        PollFd { fd: status, events: sys::POLLIN, revents: 0 },
        PollFd { fd: launch.lifeline, events: sys::POLLIN, revents: 0 },
        PollFd { fd: signals, events: sys::POLLIN, revents: 0 },
        PollFd { fd: listener, events: sys::POLLIN, revents: 0 },
    ];
    loop {
        let ready = sys::poll(&mut fds, police.interval_ms());
        if ready < 0 && ready != sys::EINTR && ready != sys::EAGAIN {
            end(launch, 76);
        }
        let gone = sys::POLLHUP | sys::POLLERR;
        if fds[1].revents != 0 || (fds[0].revents & gone != 0 && fds[0].revents & sys::POLLIN == 0) {
            end(launch, 77);
        }
        if fds[0].revents & sys::POLLIN != 0 {
            obey(launch, child, &mut police);
        }
        if fds[2].revents & sys::POLLIN != 0 {
            let mut info = [0u8; 128];
            sys::read(signals, &mut info);
        }
        if fds[3].revents & sys::POLLIN != 0 {
            violations.answer(launch, listener, child);
        } else if fds[3].revents & gone != 0 {
            // Nobody is left who could ask.
            fds[3].fd = -1;
        }
        // Also without a signal: several deaths may share one.
        reap(launch, child, &mut police);
        if let Some(bytes) = police.tick() {
            send_report(status, report::EXCEEDED, 1, bytes);
            end(launch, 78);
        }
        if let Some(micros) = police.news() {
            // A host that does not listen must not keep the limits from being held.
            sys::send_if_room(status, &message(report::RAN, 0, micros));
        }
    }
}

fn obey(launch: &Launch<'_>, child: isize, police: &mut Police<'_>) {
    let status = launch.handles[handle::STATUS];
    match receive_command(status) {
        Some((command::SIGNAL, signal)) => {
            sys!(nr::KILL, child, signal);
        }
        Some((command::SIGNAL_ALL, signal)) => signal_all(launch, signal as i32),
        Some((command::USAGE, _)) => {
            let usage = police.usage();
            send_report(status, report::USAGE, usage.pids as i32, usage.memory);
        }
        Some((command::MEMORY_LIMIT, mebibytes)) => police.set_memory_limit(u64::from(mebibytes) << 20),
        Some((command::END, _)) => end(launch, 77),
        Some(_) => {}
        // The host closed its end: it is dead, or done with us.
        None => end(launch, 77),
    }
}

/// Without a pid namespace, -1 would reach every process of the user; so each child is named.
fn signal_all(launch: &Launch<'_>, signal: i32) {
    if launch.config[word::SWITCHES] & switch::NEW_ROOT != 0 {
        sys!(nr::KILL, sys::EVERY, signal);
    } else {
        crate::police::signal_descendants(signal);
    }
}

fn reap(launch: &Launch<'_>, child: isize, police: &mut Police<'_>) {
    const WNOHANG: usize = 1;
    loop {
        let mut wait_status = 0i32;
        let mut usage = [0i64; 18];
        let pid = sys!(nr::WAIT4, sys::EVERY, &raw mut wait_status, WNOHANG, usage.as_mut_ptr());
        if pid <= 0 {
            return;
        }
        // struct rusage begins with user and system time, seconds and microseconds each.
        let micros = (usage[0] + usage[2]) * 1_000_000 + usage[1] + usage[3];
        police.reaped(micros as u64);
        if pid == child {
            let status = launch.handles[handle::STATUS];
            send_report(status, report::ENDED, wait_status, micros as u64);
            end(launch, 0);
        }
    }
}

/// Ends everything. In a pid namespace the kernel kills the rest with its init; elsewhere the orphans
/// have come to us, and are killed until none is left.
fn end(launch: &Launch<'_>, code: i32) -> ! {
    if launch.config[word::SWITCHES] & switch::NEW_ROOT == 0 {
        loop {
            crate::police::signal_descendants(sys::SIGKILL);
            if sys!(nr::WAIT4, sys::EVERY, 0, 0, 0) < 0 {
                break;
            }
        }
    }
    sys::exit(code)
}
