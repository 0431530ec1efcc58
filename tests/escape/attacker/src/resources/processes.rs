//! Processes and threads.

use crate::outcome::{At, Attempted, Errno, blocked, succeeded};
use crate::sys::{self, close};
use crate::table::Ctx;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn judge_count(reached: u64, goal: u64, last: Option<Errno>, what: &str) -> Attempted {
    if reached >= goal {
        return Ok(succeeded(format!("{reached} {what}")));
    }
    Ok(blocked(last.map(|e| e.0), format!("{reached} of {goal} {what}")))
}

pub fn fork_bomb(ctx: &Ctx) -> Attempted {
    let goal = ctx.amount("count", 4096, 64).min(1 << 20);
    let end = Instant::now() + Duration::from_secs(30);
    let mut children = Vec::new();
    let mut last = None;
    while (children.len() as u64) < goal && Instant::now() < end {
        match sys::fork() {
            Ok(0) => loop {
                // SAFETY: waits for the end that the parent brings, or its death.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::pause();
                }
            },
            Ok(pid) => children.push(pid),
            Err(e) => {
                last = Some(e);
                break;
            }
        }
    }
    let reached = children.len() as u64;
    children.into_iter().for_each(sys::end_child);
    judge_count(reached, goal, last, "children lived at once")
}

pub fn orphans(ctx: &Ctx) -> Attempted {
    let goal = ctx.amount("count", 1024, 64).min(1 << 20);
    let (hold_r, hold_w) = sys::pipe().setup("pipe")?;
    let mut reached = 0;
    let mut last = None;
    // The count of an orphan comes over the pipe, since nobody can wait for it.
    let (count_r, count_w) = sys::pipe().setup("pipe")?;
    for _ in 0..goal {
        let child = match sys::fork() {
            Ok(child) => child,
            Err(e) => {
                last = Some(e);
                break;
            }
        };
        if child == 0 {
            // SAFETY: plain calls of a daemon; it ends when the pipe's last writer is gone.
            unsafe {
                libc::setsid();
                match libc::fork() {
                    0 => {
                        let _ = sys::write_fd(count_w, b"1");
                        close(hold_w);
                        close(count_w);
                        sys::poll(hold_r, libc::POLLIN, Duration::from_secs(30));
                        libc::_exit(0)
                    }
                    -1 => libc::_exit(Errno::last().0),
                    _ => libc::_exit(0),
                }
            }
        }
        match sys::wait_child(child, Duration::from_secs(2), 0) {
            Some(status) if libc::WEXITSTATUS(status) != 0 => {
                last = Some(Errno(libc::WEXITSTATUS(status)));
                break;
            }
            Some(_) => {
                if sys::poll(count_r, libc::POLLIN, Duration::from_secs(1)) {
                    let mut one = [0u8; 1];
                    reached +=
                        sys!(libc::SYS_read, count_r, one.as_mut_ptr(), 1).unwrap_or(0) as u64;
                }
            }
            None => break,
        }
    }
    [hold_r, hold_w, count_r, count_w].into_iter().for_each(close);
    judge_count(reached, goal, last, "orphans lived at once")
}

pub fn thread_bomb(ctx: &Ctx) -> Attempted {
    static END: AtomicBool = AtomicBool::new(false);
    let goal = ctx.amount("count", 4096, 64).min(1 << 17);
    END.store(false, Ordering::SeqCst);
    let mut threads = Vec::new();
    let mut last = None;
    while (threads.len() as u64) < goal {
        let started = std::thread::Builder::new().stack_size(16_384).spawn(|| {
            while !END.load(Ordering::SeqCst) {
                std::thread::park_timeout(Duration::from_secs(1));
            }
        });
        match started {
            Ok(thread) => threads.push(thread),
            Err(e) => {
                last = Some(Errno(e.raw_os_error().unwrap_or(0)));
                break;
            }
        }
    }
    let reached = threads.len() as u64;
    END.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.thread().unpark();
        let _ = thread.join();
    }
    judge_count(reached, goal, last, "threads lived at once")
}
