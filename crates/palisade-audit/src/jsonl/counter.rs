//! The tallies of a recorder that writes a file.
//!
//! Numbers only grow; the writer keeps what it has written of them, so that an act that ends while the
//! writer looks is counted the next time. A counter is looked at while anything happens at it, and takes
//! no part in anything otherwise.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use super::Shared;
use crate::{Act, Stamp, Tally};

/// See the module.
pub(super) struct Counter {
    shared: Arc<Shared>,
    /// What each act is.
    pub(super) act: Act,
    start: Instant,
    /// When the window ends in which acts are recorded one by one, in nanoseconds after `start`.
    until_ns: AtomicU64,
    /// How many more are recorded one by one.
    left: AtomicU32,
    begun: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    /// Whether the writer looks at it, or will.
    listed: AtomicBool,
    written: Mutex<Written>,
}

/// Up to where the record has it.
#[derive(Default)]
struct Written {
    begun: u64,
    done: u64,
    at: Stamp,
}

/// What has happened since the writer looked last.
pub(super) struct Change {
    /// Acts that were done.
    pub(super) done: u64,
    /// Acts that have begun and not ended, where there are others than before.
    pub(super) open: u64,
    /// Since when.
    pub(super) since: Stamp,
}

impl Counter {
    pub(super) fn new(shared: Arc<Shared>, act: Act) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicU32::new(shared.options.each),
            shared,
            act,
            start: Instant::now(),
            until_ns: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            listed: AtomicBool::new(false),
            written: Mutex::default(),
        })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nanoseconds since the writer looked last.
    pub(super) fn age_ns(&self, now: Stamp) -> u64 {
        now.monotonic_ns.saturating_sub(self.written().at.monotonic_ns)
    }

    /// Takes what has happened since the last look; `None`: nothing, and nobody lists it any more.
    /// Never takes the lock of the queue, under which others wait for that of `written`.
    pub(super) fn look(&self, now: Stamp) -> Option<Change> {
        let mut written = self.written();
        // In this order, so that there are never more that have ended than that have begun.
        let (done, failed) = (self.done.load(Ordering::SeqCst), self.failed.load(Ordering::SeqCst));
        let begun = self.begun.load(Ordering::SeqCst);
        let open = begun.saturating_sub(done.saturating_add(failed));
        if (begun, done, open) == (written.begun, written.done, 0) && self.is_left(begun) {
            return None;
        }
        let change = Change {
            done: done.saturating_sub(written.done),
            open: if begun == written.begun { 0 } else { open },
            since: written.at,
        };
        *written = Written { begun, done, at: now };
        Some(change)
    }

    /// Takes it off the list, unless acts have begun beyond these.
    fn is_left(&self, begun: u64) -> bool {
        self.listed.store(false, Ordering::SeqCst);
        if self.begun.load(Ordering::SeqCst) == begun {
            return true;
        }
        // Either whoever began has seen the store and lists it once more, or has seen it listed.
        self.listed.swap(true, Ordering::SeqCst)
    }

    /// Has the writer look at it.
    #[cold]
    fn list(self: &Arc<Self>) {
        self.shared.list(self);
    }

    /// Whether it was on no list; it is now. Under the lock of the queue, so that whoever finds it listed
    /// finds it in the queue: what is queued after that has the act among the counts before it.
    pub(super) fn enlist(&self, now: Stamp) -> bool {
        if self.listed.swap(true, Ordering::SeqCst) {
            return false;
        }
        self.written().at = now;
        true
    }

    /// A window is over: the next acts are recorded one by one again.
    #[cold]
    fn next_window(&self, ended_ns: u64, now_ns: u64) {
        let window = u64::try_from(self.shared.options.coalesce.as_nanos()).unwrap_or(u64::MAX);
        let until = now_ns.saturating_add(window);
        let set =
            self.until_ns.compare_exchange(ended_ns, until, Ordering::Relaxed, Ordering::Relaxed);
        if set.is_ok() {
            self.left.store(self.shared.options.each, Ordering::Relaxed);
        }
    }
}

/// A counter as the gate has it.
pub(super) struct Handle(pub(super) Arc<Counter>);

impl Tally for Handle {
    fn begin(&self, now: Instant) -> bool {
        let counter = &*self.0;
        let since_start = now.saturating_duration_since(counter.start);
        let now_ns = since_start
            .as_secs()
            .saturating_mul(1_000_000_000)
            .saturating_add(u64::from(since_start.subsec_nanos()));
        let until_ns = counter.until_ns.load(Ordering::Relaxed);
        if now_ns >= until_ns {
            counter.next_window(until_ns, now_ns);
        }
        if counter.left.load(Ordering::Relaxed) > 0 {
            let taken = counter
                .left
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if taken.is_ok() {
                return false;
            }
        }
        counter.begun.fetch_add(1, Ordering::SeqCst);
        if !counter.listed.load(Ordering::SeqCst) {
            self.0.list();
        }
        true
    }

    fn done(&self) {
        self.0.done.fetch_add(1, Ordering::SeqCst);
    }

    fn failed(&self) {
        self.0.failed.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
