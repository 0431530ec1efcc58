//! Work that can wait: one thread of the process does it, one piece after the other, where nothing else needs the
//! processor. Nobody waits for it: a process that ends, ends in the middle of it.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

/// Most bytes that pieces hold while they wait. What is more is not done, until somebody asks for it anew.
const MOST: u64 = 512 << 20;

/// A piece of work.
pub(super) struct Job {
    /// What it holds while it waits.
    pub(super) bytes: u64,
    /// Whether anybody still has a use for it: it is dropped otherwise.
    pub(super) is_wanted: Box<dyn Fn() -> bool + Send>,
    pub(super) work: Box<dyn FnOnce() + Send>,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { jobs: VecDeque::new(), has_thread: false });

struct Queue {
    jobs: VecDeque<Job>,
    has_thread: bool,
}

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has `job` done some time, if there is room for it.
pub(super) fn add(job: Job) {
    let mut queue = queue();
    queue.jobs.retain(|waiting| (waiting.is_wanted)());
    let held = queue.jobs.iter().map(|waiting| waiting.bytes).sum::<u64>();
    if held.saturating_add(job.bytes) > MOST {
        return;
    }
    queue.jobs.push_back(job);
    if !queue.has_thread {
        let made = thread::Builder::new().name("palisade-compile".into()).spawn(run);
        queue.has_thread = made.is_ok();
        if !queue.has_thread {
            queue.jobs.clear();
        }
    }
}

fn run() {
    give_way();
    loop {
        let next = {
            let mut queue = queue();
            let next = queue.jobs.pop_front();
            queue.has_thread = next.is_some();
            next
        };
        let Some(job) = next else { return };
        if !(job.is_wanted)() {
            continue;
        }
        // It was said on standard error; the next piece has nothing to do with it.
        let _ = catch_unwind(AssertUnwindSafe(job.work));
    }
}

/// The calling thread runs where no other wants to. nice(2): on Linux the value is a thread's own.
#[cfg(target_os = "linux")]
pub(crate) fn give_way() {
    // More than the highest is the highest.
    let _ = rustix::process::setpriority_process(None, 19);
}

#[cfg(not(target_os = "linux"))]
fn give_way() {}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, mpsc},
        time::{Duration, Instant},
    };

    use super::*;

    fn piece(bytes: u64, work: impl FnOnce() + Send + 'static) -> Job {
        Job { bytes, is_wanted: Box::new(|| true), work: Box::new(work) }
    }

    #[test]
    fn pieces_are_done_one_at_a_time_and_only_so_much_waits() {
        let (told, hears) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let first = told.clone();
        add(piece(1, move || {
            first.send("begun").unwrap();
            gate.recv().unwrap();
            #[cfg(target_os = "linux")]
            assert_eq!(rustix::process::getpriority_process(None).unwrap(), 19);
            first.send("first").unwrap();
            panic!("on purpose");
        }));
        let time = Duration::from_secs(20);
        // Others of this process may come before.
        assert_eq!(hears.recv_timeout(time).unwrap(), "begun");
        // What nobody wants any more leaves its room to others, and is not done either.
        let (wanted, other) = (Arc::new(()), told.clone());
        let asks = Arc::downgrade(&wanted);
        let forgotten = Job {
            is_wanted: Box::new(move || asks.strong_count() > 0),
            ..piece(MOST, move || other.send("forgotten").unwrap())
        };
        add(forgotten);
        drop(wanted);
        for _ in 0..32 {
            let told = told.clone();
            add(piece(MOST / 16, move || told.send("other").unwrap()));
        }
        assert!(hears.recv_timeout(Duration::from_millis(50)).is_err(), "the first is not over");
        go.send(()).unwrap();
        assert_eq!(hears.recv_timeout(time).unwrap(), "first");
        drop(told);
        let others: Vec<_> = hears.iter().collect();
        assert_eq!(others, ["other"; 16], "what was more is given up");
        // The thread is gone, and comes again.
        let begun = Instant::now();
        while queue().has_thread {
            assert!(begun.elapsed() < time, "it stays");
            thread::sleep(Duration::from_millis(5));
        }
        let (told, hears) = mpsc::channel();
        add(piece(1, move || told.send(()).unwrap()));
        hears.recv_timeout(time).unwrap();
    }
}
