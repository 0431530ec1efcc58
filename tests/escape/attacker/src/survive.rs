//! Attempts 48 and 49: not ending when told to.
//!
//! Inside, the call is answered first and the misbehaviour follows, so that the host can go on to
//! stop the plugin; `"after": false` keeps the answer back. The host judges: by its deadline, and
//! by the beacon, a file in the grant that a surviving process touches every 50 ms. Every
//! misbehaviour ends by itself after `seconds`.

use crate::outcome::{At, Attempted, Outcome, blocked, impossible, succeeded};
use crate::sys::{self, c};
use crate::table::{Attempt, Control, Ctx};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(48, "ignore-term", "ignore every signal that can be ignored, and shutdown", Control::Run, &["seconds", "after"], ignore_all).host_judges(),
    Attempt::new(48, "stop-self", "SIGSTOP ourselves", Control::Run, &["after"], stop_self).host_judges(),
    Attempt::new(48, "stopped-children", "50 stopped children", Control::Run, &["seconds", "after", "count"], stopped_children).host_judges(),
    Attempt::new(48, "vfork-stopped", "wait in vfork for a child that stopped itself", Control::Run, &["seconds", "after"], vfork_stopped).host_judges(),
    Attempt::new(48, "spin-term", "answer SIGTERM by working on", Control::Run, &["seconds", "after"], spin).host_judges(),
    Attempt::new(48, "close-channel", "close the channel and live on", Control::Run, &["seconds", "after"], close_channel).host_judges(),
    Attempt::new(48, "leader-exit", "the main thread ends, another thread lives on", Control::Run, &["seconds", "after"], leader_exit).host_judges(),
    Attempt::new(49, "double-fork", "daemonise: double fork, setsid, all closed, no PDEATHSIG", Control::Params, &["beacon!", "seconds"], |x| daemon(x, false)).host_judges(),
    Attempt::new(49, "exec", "the same, then exec of this program under another name", Control::Params, &["beacon!", "seconds"], |x| daemon(x, true)).host_judges(),
    Attempt::new(49, "orphan", "daemonise, then the plugin itself ends", Control::Params, &["beacon!", "seconds"], orphan).host_judges(),
    Attempt::new(49, "clear-pdeathsig", "PR_SET_PDEATHSIG 0 in the plugin itself", Control::Run, &[], clear_pdeathsig),
    Attempt::new(49, "subreaper", "become a subreaper", Control::Run, &[], subreaper),
];

fn seconds(ctx: &Ctx, default: u64) -> Duration {
    // Outside nobody waits for a deadline of the host.
    let outside_max = if ctx.outside() { 2 } else { 120 };
    Duration::from_secs(ctx.num("seconds", default).min(outside_max))
}

/// Answers now where the misbehaviour is to follow the answer.
fn answer_first(ctx: &Ctx, detail: &str) {
    if ctx.params.get("after").and_then(serde_json::Value::as_bool).unwrap_or(true) {
        ctx.answer_early(&succeeded(detail));
    }
}

/// Sleeps whatever signals come.
fn sit(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        sys::sleep(end.saturating_duration_since(Instant::now()).min(Duration::from_millis(200)));
    }
}

fn ignore_signals() -> i32 {
    // SAFETY: changes our own dispositions only.
    (1..=64).filter(|s| unsafe { libc::signal(*s, libc::SIG_IGN) } != libc::SIG_ERR).count() as i32
}

fn ignore_all(ctx: &Ctx) -> Attempted {
    let ignored = ignore_signals();
    answer_first(ctx, "ignoring every signal from now on");
    if ctx.outside() {
        // SAFETY: to ourselves.
        unsafe { libc::kill(sys::pid(), libc::SIGTERM) };
        return Ok(succeeded(format!("{ignored} signals ignored; SIGTERM did nothing")));
    }
    sit(seconds(ctx, 60));
    Ok(succeeded(format!("{ignored} signals ignored; nobody ended us")))
}

fn stop_self(ctx: &Ctx) -> Attempted {
    answer_first(ctx, "stopping ourselves now");
    sys!(libc::SYS_kill, sys::pid(), libc::SIGSTOP).at("kill")?;
    Ok(succeeded("stopped, and continued by somebody"))
}

fn stopped_children(ctx: &Ctx) -> Attempted {
    let count = ctx.amount("count", 50, 50).min(1000);
    let mut children = Vec::new();
    for _ in 0..count {
        match sys::fork() {
            Ok(0) => {
                ignore_signals();
                // SAFETY: to ourselves; without PDEATHSIG, on purpose.
                unsafe { libc::kill(sys::pid(), libc::SIGSTOP) };
                sys::exit(0);
            }
            Ok(pid) => children.push(pid),
            Err(_) => break,
        }
    }
    let detail = format!("{} stopped children", children.len());
    answer_first(ctx, &detail);
    if !ctx.outside() {
        sit(seconds(ctx, 60));
    }
    children.into_iter().for_each(sys::end_child);
    Ok(succeeded(detail))
}

/// A parent in vfork cannot be stopped and takes no signal but SIGKILL. The child ends by alarm.
fn vfork_stopped(ctx: &Ctx) -> Attempted {
    answer_first(ctx, "waiting in vfork from now on");
    let limit = seconds(ctx, 60).as_secs().max(1) as u32;
    let vfork = (libc::CLONE_VFORK | libc::SIGCHLD) as u64;
    // CLONE_VFORK without CLONE_VM: the parent waits just the same, and the memory stays apart.
    let begun = Instant::now();
    let child = sys!(libc::SYS_clone, vfork, 0, 0, 0, 0).at("clone CLONE_VFORK")?;
    if child == 0 {
        // A stopped process takes no SIGALRM: a helper of its own continues it in the end.
        if let Ok(0) = sys::fork() {
            sit(Duration::from_secs(u64::from(limit)));
            // SAFETY: our own parent, which is stopped and waits for this.
            unsafe { libc::kill(libc::getppid(), libc::SIGCONT) };
            sys::exit(0);
        }
        // SAFETY: to ourselves.
        unsafe { libc::kill(sys::pid(), libc::SIGSTOP) };
        sys::exit(0);
    }
    let waited = begun.elapsed().as_millis();
    Ok(succeeded(format!("the parent hung in vfork for {waited} ms")))
}

fn spin(ctx: &Ctx) -> Attempted {
    ignore_signals();
    answer_first(ctx, "spinning from now on");
    let end = Instant::now() + seconds(ctx, 60);
    let mut turns = 0u64;
    while Instant::now() < end {
        turns = std::hint::black_box(turns + 1);
    }
    Ok(succeeded(format!("spun {turns} times; nobody ended us")))
}

fn close_channel(ctx: &Ctx) -> Attempted {
    answer_first(ctx, "closing the channel now");
    if !ctx.outside() {
        (0..4).for_each(sys::close);
        sit(seconds(ctx, 60));
        sys::exit(0);
    }
    Ok(succeeded("the channel would be closed"))
}

/// The leader becomes a zombie while another thread goes on: `waitpid` on it does not return.
fn leader_exit(ctx: &Ctx) -> Attempted {
    answer_first(ctx, "the main thread ends now");
    let time = seconds(ctx, 60);
    if ctx.outside() {
        let child = sys::fork().setup("fork")?;
        if child == 0 {
            end_leader(Duration::from_secs(1));
        }
        let early = sys::wait_child(child, Duration::from_millis(300), 0);
        let late = sys::wait_child(child, Duration::from_secs(3), 0);
        return Ok(match (early, late) {
            (None, Some(_)) => succeeded("a process without its leader lived on"),
            other => blocked(None, format!("{other:?}")),
        });
    }
    end_leader(time)
}

fn end_leader(time: Duration) -> ! {
    let started = std::thread::Builder::new().stack_size(65_536).spawn(move || {
        sit(time);
        sys::exit(0);
    });
    if started.is_ok() {
        let _ = sys!(libc::SYS_exit, 0);
    }
    sys::exit(1)
}

/// Touches the beacon every 50 ms until the time is over.
fn beat(path: &str, time: Duration) -> ! {
    let end = Instant::now() + time;
    let mut count = 0u64;
    while Instant::now() < end {
        count += 1;
        let _ = std::fs::write(path, format!("{} {count}\n", sys::pid()));
        sys::sleep(Duration::from_millis(50));
    }
    sys::exit(0)
}

/// `attacker beacon PATH SECONDS`.
pub fn beacon_main(args: &[String]) -> ExitCode {
    let (Some(path), Some(time)) = (args.first(), args.get(1).and_then(|t| t.parse().ok())) else {
        return ExitCode::from(2);
    };
    ignore_signals();
    beat(path, Duration::from_secs(u64::min(time, 120)))
}

fn spawn_daemon(ctx: &Ctx, exec: bool) -> Result<(), Outcome> {
    let path = ctx.need("beacon")?.to_owned();
    std::fs::write(&path, b"0\n").setup("write the beacon")?;
    let time = Duration::from_secs(ctx.num("seconds", 30).min(if ctx.outside() { 3 } else { 120 }));
    let first = sys::fork().at("fork")?;
    if first != 0 {
        let _ = sys::wait_child(first, Duration::from_secs(2), 0);
        // Until it beats, on a slow machine too.
        let end = Instant::now() + Duration::from_secs(5);
        let still = || std::fs::read_to_string(&path).is_ok_and(|beats| beats.trim() == "0");
        while still() && Instant::now() < end {
            sys::sleep(Duration::from_millis(10));
        }
        sys::sleep(Duration::from_millis(120));
        return Ok(());
    }
    // SAFETY: plain calls of a daemon that leaves everything behind.
    unsafe {
        libc::setsid();
        if libc::fork() != 0 {
            libc::_exit(0);
        }
        libc::prctl(libc::PR_SET_PDEATHSIG, 0);
        libc::umask(0);
    }
    ignore_signals();
    let _ = sys!(libc::SYS_close_range, 0, u32::MAX, 0);
    // The group of the attempt is left once more, so that no group kill reaches it.
    // SAFETY: our own group.
    unsafe { libc::setpgid(0, 0) };
    if exec {
        let (program, word) = (c("/proc/self/exe"), c("beacon"));
        let (beacon, limit) = (c(&path), c(time.as_secs().to_string()));
        let name = c("[kworker/0:1]");
        let argv =
            [name.as_ptr(), word.as_ptr(), beacon.as_ptr(), limit.as_ptr(), std::ptr::null()];
        let envp: [*const libc::c_char; 1] = [std::ptr::null()];
        let _ = sys!(libc::SYS_execve, program.as_ptr(), argv.as_ptr(), envp.as_ptr());
    }
    beat(&path, time)
}

fn daemon(ctx: &Ctx, exec: bool) -> Attempted {
    spawn_daemon(ctx, exec)?;
    let beats = std::fs::read_to_string(ctx.need("beacon")?).unwrap_or_default();
    if beats.trim() == "0" {
        return Ok(blocked(None, "the daemon does not beat"));
    }
    Ok(succeeded(format!("the daemon beats ({}); the host sees whether it ends", beats.trim())))
}

fn orphan(ctx: &Ctx) -> Attempted {
    let outcome = daemon(ctx, false)?;
    ctx.answer_early(&outcome);
    if ctx.outside() {
        return Ok(outcome);
    }
    sys::sleep(Duration::from_millis(100));
    sys::exit(0)
}

fn clear_pdeathsig(_: &Ctx) -> Attempted {
    let mut now = -1i32;
    sys!(libc::SYS_prctl, libc::PR_GET_PDEATHSIG, &raw mut now, 0, 0, 0).at("PR_GET_PDEATHSIG")?;
    sys!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, 0, 0, 0, 0).at("PR_SET_PDEATHSIG")?;
    if now < 0 {
        return Ok(impossible("no answer"));
    }
    Ok(succeeded(format!("it was signal {now} and is none now")))
}

fn subreaper(_: &Ctx) -> Attempted {
    sys!(libc::SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0).at("prctl")?;
    Ok(succeeded("orphans come to us, not to init"))
}
