//! Limits and rates: how much a plugin may use.
//!
//! A limit that stands here is enforced by every backend that accepts it, or the backend says that it
//! cannot. Sizes are bytes, durations are [`Duration`], rates are per second.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The resources of one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Share of one CPU: 1.0 is one whole core, 0.5 half of one. Range 0.01..=1024.
    pub cpu: f64,
    /// Memory of all processes together, tmpfs included, in bytes. At least 4 MiB.
    pub memory: u64,
    /// Processes and threads together. At least 1.
    pub pids: u32,
    /// Open file handles of each process (RLIMIT_NOFILE). At least 16.
    pub files: u32,
    /// Bytes that may be kept in the plugin's data folder. The private `/tmp` has the same cap, but at most
    /// half of `memory`, which it is made of.
    pub disk: u64,
    /// From launch to the answer of `initialize`.
    pub start_timeout: Duration,
    /// Default deadline of one call.
    pub call_timeout: Duration,
    /// From `shutdown` to SIGKILL.
    pub stop_timeout: Duration,
    /// Longest life of one instance; `None` for no bound.
    pub max_lifetime: Option<Duration>,
    /// Bytes of log kept of one instance per second (stdout, stderr and `log`); the rest is dropped and counted.
    pub log_bytes_per_second: u64,
    /// Rates of what the plugin asks of the host.
    pub rates: Rates,
}

/// Token buckets of the broker, each with a burst of one second's worth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Requests from the plugin to the host, all methods together, per second.
    pub requests_per_second: u32,
    /// Events published per second.
    pub events_per_second: u32,
    /// Calls from outside into the plugin, per second.
    pub calls_per_second: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self { requests_per_second: 1000, events_per_second: 1000, calls_per_second: 1_000_000 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu: 1.0,
            memory: 256 << 20,
            pids: 64,
            files: 256,
            disk: 64 << 20,
            start_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(10),
            max_lifetime: None,
            log_bytes_per_second: 1 << 20,
            rates: Rates::default(),
        }
    }
}
