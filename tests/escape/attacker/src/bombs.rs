//! Attempts 43, 44 and 46, further ways: buffers of the plugin's own network, processor time of children that
//! nobody waits for, and timers that are handles.
//!
//! The network ones make sense only where the plugin has a network of its own that is up (a launch with a
//! way out); elsewhere no socket of that kind can be made.

use crate::outcome::{At, Attempted, Errno, Sys};
use crate::resources::{Shared, children, hold, judge_cpu, spin_amounts};
use crate::sys;
use crate::table::{Attempt, Control, Ctx};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(43, "tcp", "buffers of TCP connections to oneself", Control::Run, &["bytes"], |x| hold(x, tcp)),
    Attempt::new(43, "udp", "datagrams to oneself that nobody reads", Control::Run, &["bytes"], |x| hold(x, udp)),
    Attempt::new(43, "many-tcp", "buffers of TCP connections of many children", Control::Run, &["bytes"], |x| hold(x, |n, goal| children(n, goal, 16, tcp))),
    Attempt::new(43, "many-udp", "datagrams to themselves of many children", Control::Run, &["bytes"], |x| hold(x, |n, goal| children(n, goal, 16, udp))),
    Attempt::new(46, "timerfds", "timers that are handles, each armed for every microsecond", Control::Run, &["count"], timerfds),
];

fn timerfds(ctx: &Ctx) -> Attempted {
    crate::disk::objects(ctx, 65_536, || {
        let timer =
            sys!(libc::SYS_timerfd_create, libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC)? as i32;
        let microsecond = libc::timespec { tv_sec: 0, tv_nsec: 1000 };
        let every = libc::itimerspec { it_interval: microsecond, it_value: microsecond };
        sys!(libc::SYS_timerfd_settime, timer, 0, &raw const every, 0)?;
        Ok(timer)
    })
}

/// An IPv4 socket on a loopback port of its own, and its address.
fn bound(kind: i32) -> Sys<(i32, libc::sockaddr_in)> {
    let socket = sys!(libc::SYS_socket, libc::AF_INET, kind | libc::SOCK_CLOEXEC, 0)? as i32;
    let mut name = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(LOOPBACK) },
        sin_zero: [0; 8],
    };
    sys!(libc::SYS_bind, socket, &raw const name, size_of_val(&name))?;
    let mut length = size_of_val(&name) as u32;
    sys!(libc::SYS_getsockname, socket, &raw mut name, &raw mut length)?;
    Ok((socket, name))
}

fn fill(socket: i32, held: &AtomicU64, goal: u64) {
    let chunk = [1u8; 32 << 10];
    while held.load(Ordering::Relaxed) < goal {
        let sent =
            sys!(libc::SYS_sendto, socket, chunk.as_ptr(), chunk.len(), libc::MSG_DONTWAIT, 0, 0);
        match sent {
            Ok(n) if n > 0 => held.fetch_add(n as u64, Ordering::SeqCst),
            _ => return,
        };
    }
}

/// Connections whose other end never reads.
fn tcp(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
    let (listener, name) = bound(libc::SOCK_STREAM)?;
    sys!(libc::SYS_listen, listener, 128)?;
    while held.load(Ordering::Relaxed) < goal {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        let socket = sys!(libc::SYS_socket, libc::AF_INET, kind, 0)? as i32;
        sys!(libc::SYS_connect, socket, &raw const name, size_of_val(&name))?;
        sys!(libc::SYS_accept4, listener, 0, 0, libc::SOCK_CLOEXEC)?;
        fill(socket, held, goal);
    }
    Ok(())
}

/// A socket that is connected to itself takes datagrams until its buffer is full, and drops the rest: what it
/// holds is asked of the kernel (`SO_MEMINFO`, socket(7)).
fn udp(held: &AtomicU64, goal: u64) -> Result<(), Errno> {
    const SO_MEMINFO: i32 = 55;
    const BUFFER: u64 = 512 << 10;
    while held.load(Ordering::Relaxed) < goal {
        let (socket, name) = bound(libc::SOCK_DGRAM)?;
        sys!(libc::SYS_connect, socket, &raw const name, size_of_val(&name))?;
        fill(socket, &AtomicU64::new(0), BUFFER);
        // The first of nine words: bytes allocated for receiving.
        let mut words = [0u32; 9];
        let mut length = size_of_val(&words) as u32;
        let (level, words_at) = (libc::SOL_SOCKET, words.as_mut_ptr());
        sys!(libc::SYS_getsockopt, socket, level, SO_MEMINFO, words_at, &raw mut length)?;
        held.fetch_add(words[0].into(), Ordering::SeqCst);
    }
    Ok(())
}

/// Processor time of this process, in nanoseconds.
fn own_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let clock = libc::CLOCK_PROCESS_CPUTIME_ID;
    let told = sys!(libc::SYS_clock_gettime, clock, &raw mut time);
    told.map_or(0, |_| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Children that are gone before whoever samples has seen much of them. Where SIGCHLD is ignored the kernel
/// reaps them by itself and adds their time to nobody's (wait(2), "NOTES"), so they add it up themselves.
pub fn spin_unwaited(ctx: &Ctx) -> Attempted {
    const LIFE_NS: u64 = 4_000_000;
    let (count, time) = spin_amounts(ctx);
    let shared = Shared::new().setup("shared page")?;
    let (spent, alive) = (shared.cell(0), shared.cell(1));
    // SAFETY: changes what becomes of our own children, and is changed back below.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let begun = Instant::now();
    while begun.elapsed() < time {
        if alive.load(Ordering::SeqCst) >= count {
            sys::sleep(Duration::from_micros(200));
            continue;
        }
        alive.fetch_add(1, Ordering::SeqCst);
        match sys::fork() {
            Ok(0) => {
                while own_time() < LIFE_NS {
                    std::hint::spin_loop();
                }
                spent.fetch_add(own_time(), Ordering::SeqCst);
                alive.fetch_sub(1, Ordering::SeqCst);
                sys::exit(0);
            }
            Ok(_) => {}
            Err(_) => {
                // Those that have just ended are still counted.
                alive.fetch_sub(1, Ordering::SeqCst);
                sys::sleep(Duration::from_millis(1));
            }
        }
    }
    let took = begun.elapsed().as_secs_f64();
    sys::sleep(Duration::from_millis(50));
    // SAFETY: as above.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    judge_cpu(ctx, spent.load(Ordering::SeqCst) as f64 / 1e9 / took, count)
}
