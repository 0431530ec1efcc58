//! Threads for handlers.
//!
//! Made only when none is idle, because threads count against the plugin's `resources.pids`; never
//! joined, so that a handler that hangs does not keep a plugin from exiting.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
};

use crate::json::lock;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    is_closed: bool,
}

/// Runs jobs on at most `most` threads. Jobs wait in a queue that the caller bounds.
pub(crate) struct Pool {
    most: usize,
    state: Mutex<State>,
    changed: Condvar,
}

impl Pool {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Queues a job. Fails if there is no thread and none can be made.
    pub(crate) fn submit(self: &Arc<Self>, job: Job) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() {
            self.changed.notify_one();
            return Ok(());
        }
        if state.threads >= self.most {
            return Ok(());
        }
        let pool = Arc::clone(self);
        let thread = thread::Builder::new().name("palisade-worker".to_owned());
        match thread.spawn(move || pool.work()) {
            Ok(_) => state.threads += 1,
            Err(error) if state.threads == 0 => {
                state.jobs.clear();
                return Err(error);
            }
            // The threads there are will come to it.
            Err(_) => {}
        }
        Ok(())
    }

    /// Ends the threads that are idle; the others end after their job.
    pub(crate) fn close(&self) {
        lock(&self.state).is_closed = true;
        self.changed.notify_all();
    }

    fn work(&self) {
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A job answers for its handler's panic; a thread must outlive any other.
                drop(catch_unwind(AssertUnwindSafe(job)));
                state = lock(&self.state);
            } else if state.is_closed {
                return;
            } else {
                state.idle += 1;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[test]
    fn threads_are_made_when_needed_and_not_beyond_the_bound() {
        let pool = Pool::new(2);
        let (sender, receiver) = mpsc::channel();
        for n in 0..10 {
            let sender = sender.clone();
            let job = move || {
                thread::sleep(Duration::from_millis(2));
                sender.send(n).unwrap();
            };
            pool.submit(Box::new(job)).unwrap();
        }
        let mut done: Vec<i32> = receiver.iter().take(10).collect();
        done.sort_unstable();
        assert_eq!(done, (0..10).collect::<Vec<_>>());
        assert_eq!(lock(&pool.state).threads, 2);
    }

    #[test]
    fn a_panic_costs_no_thread() {
        let pool = Pool::new(1);
        pool.submit(Box::new(|| panic!("in a job"))).unwrap();
        let (sender, receiver) = mpsc::channel();
        pool.submit(Box::new(move || sender.send(()).unwrap())).unwrap();
        receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        pool.close();
    }
}
