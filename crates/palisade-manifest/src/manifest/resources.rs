//! How much a plugin says it needs.

use std::time::Duration;

use palisade_model::Limits;

/// What a plugin says it needs; `None` where it says nothing. Units and ranges as in
/// [`palisade_model::Limits`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Resources {
    /// Share of one CPU, 0.01..=1024.
    pub cpu: Option<f64>,
    /// Memory in bytes, 4 MiB..=16 TiB.
    pub memory: Option<u64>,
    /// Processes and threads, 1..=4194304.
    pub pids: Option<u32>,
    /// File handles of each process, 16..=1048576.
    pub files: Option<u32>,
    /// Bytes on disk, 0..=16 TiB.
    pub disk: Option<u64>,
    /// From launch to the answer of `initialize`, 1 ms..=24 h.
    pub start_timeout: Option<Duration>,
    /// Default deadline of one call, 1 ms..=24 h.
    pub call_timeout: Option<Duration>,
    /// From `shutdown` to SIGKILL, 1 ms..=24 h.
    pub stop_timeout: Option<Duration>,
    /// Longest life of one instance, 1 s..=365 d.
    pub max_lifetime: Option<Duration>,
    /// Bytes of log a second, 1 KiB..=1 GiB.
    pub log_bytes_per_second: Option<u64>,
    /// Requests to the host a second, 1..=10000000.
    pub requests_per_second: Option<u32>,
    /// Events a second, 1..=10000000.
    pub events_per_second: Option<u32>,
    /// Calls into the plugin a second, 1..=10000000.
    pub calls_per_second: Option<u32>,
}

impl Resources {
    /// `base` with what the manifest says put in its place.
    #[must_use]
    pub fn over(&self, base: &Limits) -> Limits {
        let mut limits = base.clone();
        macro_rules! put {
            ($($from:ident => $($to:ident).+;)*) => {
                $( if let Some(value) = self.$from { limits.$($to).+ = value; } )*
            };
        }
        put! {
            cpu => cpu;
            memory => memory;
            pids => pids;
            files => files;
            disk => disk;
            start_timeout => start_timeout;
            call_timeout => call_timeout;
            stop_timeout => stop_timeout;
            log_bytes_per_second => log_bytes_per_second;
            requests_per_second => rates.requests_per_second;
            events_per_second => rates.events_per_second;
            calls_per_second => rates.calls_per_second;
        }
        limits.max_lifetime = self.max_lifetime.or(base.max_lifetime);
        limits
    }
}
