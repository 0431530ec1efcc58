//! Processor time, and the right to more of it.

use crate::outcome::{At, Attempted, blocked, succeeded};
use crate::sys;
use crate::table::Ctx;
use std::time::{Duration, Instant};

/// Processor seconds of this process and its reaped children.
fn used() -> f64 {
    let of = |who| {
        // SAFETY: getrusage fills a zeroed buffer.
        unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(who, &mut usage);
            let time = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
            time(usage.ru_utime) + time(usage.ru_stime)
        }
    };
    of(libc::RUSAGE_SELF) + of(libc::RUSAGE_CHILDREN)
}

fn spin_until(end: Instant) {
    let mut turns = 0u64;
    while Instant::now() < end {
        turns = std::hint::black_box(turns + 1);
    }
}

/// Success: more processors than `max_cpus`, or nearly all that could be had where none is said.
pub fn judge_cpu(ctx: &Ctx, share: f64, threads: u64) -> Attempted {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get()) as f64;
    let named = ctx.params.get("max_cpus").and_then(serde_json::Value::as_f64);
    // Outside it is enough to show that the time is taken at all: the machine may be busy.
    let share_of_all = if ctx.outside() { 0.2 } else { 0.8 };
    let limit = named.unwrap_or_else(|| cores.min(threads as f64) * share_of_all);
    let detail = format!("{share:.2} processors of {cores}, {threads} at work, limit {limit:.2}");
    if share > limit { Ok(succeeded(detail)) } else { Ok(blocked(None, detail)) }
}

pub fn spin_amounts(ctx: &Ctx) -> (u64, Duration) {
    let seconds = ctx.params.get("seconds").and_then(serde_json::Value::as_f64).unwrap_or(1.0);
    let most = if ctx.outside() { 2.0 } else { 30.0 };
    (ctx.amount("threads", 4, 8).clamp(1, 256), Duration::from_secs_f64(seconds.clamp(0.1, most)))
}

pub fn spin(ctx: &Ctx) -> Attempted {
    let (threads, time) = spin_amounts(ctx);
    let (before, begun) = (used(), Instant::now());
    let end = begun + time;
    let workers: Vec<_> = (1..threads)
        .filter_map(|_| std::thread::Builder::new().spawn(move || spin_until(end)).ok())
        .collect();
    spin_until(end);
    for worker in workers {
        let _ = worker.join();
    }
    judge_cpu(ctx, (used() - before) / begun.elapsed().as_secs_f64(), threads)
}

pub fn spin_children(ctx: &Ctx) -> Attempted {
    let (count, time) = spin_amounts(ctx);
    in_children(ctx, (count, count), time, spin_until)
}

/// Pairs that pass a byte to each other, each in a session of its own where it may have one: with
/// `sched_autogroup_enabled` a session is what gets a share of the processors (sched(7)).
pub fn spin_sessions(ctx: &Ctx) -> Attempted {
    let (count, time) = spin_amounts(ctx);
    // Outside nothing keeps it from taking everything.
    let time = if ctx.outside() { time.min(Duration::from_millis(400)) } else { time };
    in_children(ctx, (count.div_ceil(2), count), time, |end| {
        // SAFETY: plain call; where it is refused the pair stays in the session that it has.
        unsafe { libc::setsid() };
        pass_a_byte(end);
    })
}

/// So many children do `work` for `time`; `at_work` are so many processes in all.
fn in_children(
    ctx: &Ctx,
    (count, at_work): (u64, u64),
    time: Duration,
    work: fn(Instant),
) -> Attempted {
    let (before, begun) = (used(), Instant::now());
    let end = begun + time;
    let mut children = Vec::new();
    for _ in 0..count {
        match sys::fork().at("fork")? {
            0 => {
                work(end);
                sys::exit(0);
            }
            pid => children.push(pid),
        }
    }
    for pid in children {
        if sys::wait_child(pid, time + Duration::from_secs(5), 0).is_none() {
            sys::end_child(pid);
        }
    }
    judge_cpu(ctx, (used() - before) / begun.elapsed().as_secs_f64(), at_work)
}

/// To a child of its own and back, until `end`.
fn pass_a_byte(end: Instant) {
    let (Ok(there), Ok(back), Ok(child)) = (sys::pipe(), sys::pipe(), sys::fork()) else { return };
    let ((from, to), others) = match child {
        0 => ((there.0, back.1), [there.1, back.0]),
        _ => ((back.0, there.1), [there.0, back.1]),
    };
    others.into_iter().for_each(sys::close);
    if child != 0 {
        let _ = sys::write_fd(to, b"x");
    }
    let mut byte = [0u8];
    while Instant::now() < end {
        // At the end the other one is gone.
        if sys!(libc::SYS_read, from, byte.as_mut_ptr(), 1) != Ok(1)
            || sys!(libc::SYS_write, to, byte.as_ptr(), 1).is_err()
        {
            break;
        }
    }
    if child == 0 {
        sys::exit(0);
    }
    // Who waits for the byte is not there to see the time.
    sys::end_child(child);
}

pub fn sched_attr(policy: u32) -> Attempted {
    // struct sched_attr: size, policy, flags (64), nice, priority, runtime, deadline, period.
    let deadline = policy == 6;
    let time = |ns: u64| if deadline { ns } else { 0 };
    let attr: [u64; 6] = [
        48 | u64::from(policy) << 32,
        0,
        u64::from(!deadline) << 32,
        time(1_000_000),
        time(10_000_000),
        time(10_000_000),
    ];
    sys!(libc::SYS_sched_setattr, 0, attr.as_ptr(), 0).at("sched_setattr")?;
    let now = sys!(libc::SYS_sched_getscheduler, 0).unwrap_or(-1);
    let normal = 0i32;
    let _ = sys!(libc::SYS_sched_setscheduler, 0, libc::SCHED_OTHER, &raw const normal);
    Ok(succeeded(format!("the scheduling policy is {now}")))
}
