//! Ceilings: the most that a manifest may ask for of each resource. A manifest that asks for more is
//! refused rather than cut down, so that a plugin never runs with less than it says it needs.

use std::fmt;

use palisade_model::Limits;
use serde::Serialize;

/// The most of each resource; `None` where the operator sets no ceiling. Units as in [`Limits`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ceilings {
    /// Share of one CPU, 0.01..=1024.
    pub cpu: Option<f64>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processes and threads together.
    pub pids: Option<u32>,
    /// Open file handles of each process.
    pub files: Option<u32>,
    /// Bytes kept in the data folder, and in `/tmp`.
    pub disk: Option<u64>,
    /// Bytes of log kept per second.
    pub log_bytes_per_second: Option<u64>,
    /// Requests to the host per second.
    pub requests_per_second: Option<u32>,
    /// Events published per second.
    pub events_per_second: Option<u32>,
    /// Calls into the plugin per second.
    pub calls_per_second: Option<u32>,
}

/// One limit above its ceiling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    /// The key below `max` in the policy.
    pub key: &'static str,
    /// What the manifest asks for, with its unit.
    pub asked: String,
    /// What the policy allows, with its unit.
    pub ceiling: String,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} (at most {})", self.key, self.asked, self.ceiling)
    }
}

/// Bytes with the largest binary unit that divides them, so that nothing is rounded.
fn bytes(n: u64) -> String {
    let (mut n, mut unit) = (n, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if n == 0 || n % 1024 != 0 {
            break;
        }
        (n, unit) = (n / 1024, next);
    }
    format!("{n}{unit}")
}

impl Ceilings {
    /// The limits that lie above their ceilings, in the order of the reference.
    #[must_use]
    pub fn exceeded_by(&self, limits: &Limits) -> Vec<Excess> {
        let mut found = Vec::new();
        let mut number = |key, asked: u64, ceiling: Option<u64>, show: fn(u64) -> String| {
            if let Some(ceiling) = ceiling.filter(|c| asked > *c) {
                found.push(Excess { key, asked: show(asked), ceiling: show(ceiling) });
            }
        };
        let plain = |n: u64| n.to_string();
        let rates = &limits.rates;
        number("memory", limits.memory, self.memory, bytes);
        number("pids", limits.pids.into(), self.pids.map(Into::into), plain);
        number("files", limits.files.into(), self.files.map(Into::into), plain);
        number("disk", limits.disk, self.disk, bytes);
        number(
            "log-bytes-per-second",
            limits.log_bytes_per_second,
            self.log_bytes_per_second,
            bytes,
        );
        for (key, asked, ceiling) in [
            ("rates.requests-per-second", rates.requests_per_second, self.requests_per_second),
            ("rates.events-per-second", rates.events_per_second, self.events_per_second),
            ("rates.calls-per-second", rates.calls_per_second, self.calls_per_second),
        ] {
            number(key, asked.into(), ceiling.map(Into::into), plain);
        }
        // A share that is not a number is above every ceiling.
        if let Some(ceiling) = self.cpu.filter(|c| limits.cpu.is_nan() || limits.cpu > *c) {
            found.push(Excess {
                key: "cpu",
                asked: limits.cpu.to_string(),
                ceiling: ceiling.to_string(),
            });
        }
        found
    }

    /// `limits` with each value lowered to its ceiling. For defaults, which nobody asked for.
    #[must_use]
    pub fn lower(&self, mut limits: Limits) -> Limits {
        fn cap<T: PartialOrd + Copy>(value: &mut T, ceiling: Option<T>) {
            if let Some(ceiling) = ceiling.filter(|c| *value > *c) {
                *value = ceiling;
            }
        }
        cap(&mut limits.cpu, self.cpu);
        cap(&mut limits.memory, self.memory);
        cap(&mut limits.pids, self.pids);
        cap(&mut limits.files, self.files);
        cap(&mut limits.disk, self.disk);
        cap(&mut limits.log_bytes_per_second, self.log_bytes_per_second);
        cap(&mut limits.rates.requests_per_second, self.requests_per_second);
        cap(&mut limits.rates.events_per_second, self.events_per_second);
        cap(&mut limits.rates.calls_per_second, self.calls_per_second);
        limits
    }
}
