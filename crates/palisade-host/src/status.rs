//! What a plugin does now, and what it has done.

use std::sync::atomic::{AtomicU64, Ordering};

use palisade_model::{Failure, InstanceId};
use palisade_sandbox::Exit;
use serde::Serialize;

use crate::machine::State;

/// A plugin's status at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// Where it is in its life.
    pub state: State,
    /// The instance that runs. A plugin whose calls get an instance each names the one under which
    /// they are counted.
    pub instance: Option<InstanceId>,
    /// Which backend runs it.
    pub backend: Option<&'static str>,
    /// How the last instance ended.
    pub exit: Option<Exit>,
    /// Why the last start failed.
    pub failure: Option<Failure>,
    /// What it has done since it was started last.
    pub counts: Counts,
}

/// What happened since the last start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Calls that reached the plugin.
    pub calls: u64,
    /// Of these, those that it did not answer well.
    pub calls_failed: u64,
    /// Requests that the plugin made.
    pub requests: u64,
    /// Of these, those that were refused or failed.
    pub requests_failed: u64,
    /// Events that the plugin acknowledged.
    pub events: u64,
    /// Events that it did not.
    pub events_failed: u64,
    /// Lines that it wrote to its log streams.
    pub output_lines: u64,
    /// Bytes of output that were dropped.
    pub output_dropped: u64,
}

/// [`Counts`] while they are counted.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) calls: AtomicU64,
    pub(crate) calls_failed: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) requests_failed: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) events_failed: AtomicU64,
    pub(crate) output_lines: AtomicU64,
    pub(crate) output_dropped: AtomicU64,
}

/// Counts one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn read(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            calls: get(&self.calls),
            calls_failed: get(&self.calls_failed),
            requests: get(&self.requests),
            requests_failed: get(&self.requests_failed),
            events: get(&self.events),
            events_failed: get(&self.events_failed),
            output_lines: get(&self.output_lines),
            output_dropped: get(&self.output_dropped),
        }
    }
}
