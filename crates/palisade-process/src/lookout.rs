//! The thread that looks at the running plugins of this process: whether their quotas have stopped them, how
//! much they have run, and whether it is time to measure their data folders.
//!
//! It is no task of the application's runtime. A plugin is looked at up to two hundred times a second, and
//! each time a worker of the runtime would wake up: where a greedy plugin has taken the processor that this
//! worker is put on, what other plugins have answered meanwhile may wait with it for milliseconds.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use palisade_sandbox::KillReason;
use tokio::runtime::Handle;

use crate::{instance::Shared, looks::NEAR, quota::Quota};

/// One plugin, between two looks.
struct Watched {
    shared: Weak<Shared>,
    /// None where no data folder is measured.
    quota: Option<Quota>,
    /// When its pace is looked at again.
    pace_at: Instant,
    /// Measures: that takes too long for the thread that looks at all of them.
    runtime: Handle,
}

/// The plugins, by the time at which each is looked at next, and a number that makes the times unique.
#[derive(Default)]
struct Queue {
    next: u64,
    waiting: BTreeMap<(Instant, u64), Watched>,
}

#[derive(Default)]
struct Lookout {
    queue: Mutex<Queue>,
    /// Something came that is due before everything else.
    sooner: Condvar,
}

/// Looks at an instance from now on until it has ended. Called in a runtime.
pub(crate) fn watch(shared: &Arc<Shared>) {
    if shared.group.is_none() && !shared.measured {
        return;
    }
    // Sooner there is nothing to measure, and a thread that wakes up now is in the way of those that launch.
    let first = if shared.pace.is_behind() { Duration::ZERO } else { NEAR };
    let at = Instant::now() + first;
    let quota = shared.measured.then(|| Quota::new(shared.data.clone()));
    let runtime = Handle::current();
    match lookout() {
        Ok(lookout) => {
            let shared = Arc::downgrade(shared);
            lookout.add(at, Watched { shared, quota, pace_at: at, runtime });
        }
        Err(e) => shared.kill(KillReason::Limit(format!(
            "nothing would look at its limits: the thread for it cannot be started ({e})"
        ))),
    }
}

fn lookout() -> io::Result<&'static Lookout> {
    static LOOKOUT: OnceLock<Lookout> = OnceLock::new();
    static STARTED: Mutex<bool> = Mutex::new(false);
    let lookout = LOOKOUT.get_or_init(Lookout::default);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*started {
        // Where this fails it is tried again with the next plugin.
        thread::Builder::new().name("palisade-looks".to_owned()).spawn(|| lookout.look())?;
        *started = true;
    }
    Ok(lookout)
}

impl Lookout {
    fn add(&self, at: Instant, watched: Watched) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.next += 1;
        let key = (at, queue.next);
        queue.waiting.insert(key, watched);
        if queue.waiting.first_key_value().is_some_and(|(first, _)| *first == key) {
            self.sooner.notify_one();
        }
    }

    /// Waits until somebody is due.
    fn next(&self) -> Watched {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let due = queue.waiting.first_key_value().map(|((at, _), _)| *at);
            let wait = due.map(|at| at.saturating_duration_since(Instant::now()));
            queue = match wait {
                Some(wait) if wait.is_zero() => match queue.waiting.pop_first() {
                    Some((_, watched)) => return watched,
                    None => queue,
                },
                Some(wait) => {
                    let woken = self.sooner.wait_timeout(queue, wait);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.sooner.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn look(&'static self) {
        loop {
            self.turn(self.next());
        }
    }

    fn turn(&'static self, mut watched: Watched) {
        let Some(shared) = watched.shared.upgrade().filter(|shared| !shared.has_ended()) else {
            return;
        };
        let now = Instant::now();
        if let (Some(group), true) = (&shared.group, now >= watched.pace_at) {
            watched.pace_at = now + shared.pace.look(group);
        }
        let next = match &mut watched.quota {
            Some(quota) => quota.look(&shared),
            None => Some(watched.pace_at),
        };
        match next {
            Some(at) => self.add(at, watched),
            // Where the runtime is going away, its plugins are too.
            None => {
                let runtime = watched.runtime.clone();
                runtime.spawn_blocking(move || self.measure(&shared, watched));
            }
        }
    }

    fn measure(&self, shared: &Shared, mut watched: Watched) {
        if let Some(quota) = &mut watched.quota {
            let at = quota.look_closely(shared);
            self.add(at, watched);
        }
    }
}
