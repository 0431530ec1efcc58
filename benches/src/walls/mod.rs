//! `walls`: what the walls cost and hold: their start against other sandboxes, neighbours of plugins that take
//! all they can get, and the end of many plugins at once.

mod bombs;
mod neighbour;
pub(crate) mod others;
mod overshoot;
mod reap;
mod steps;

use crate::{launch, plugin::Result, report::Row};

/// What is measured, each by its name; `neighbour_p99_ratio.BOMB` measures one bomb.
pub(crate) const NAMES: &[&str] = &[
    "launch_vs_bwrap",
    "pooled_vs_bwrap",
    "neighbour_p99_ratio",
    "reap_50_stopped",
    "policed_overshoot",
    "launch_vs_srt",
    "launch_vs_sandlock",
];

/// How long each step of a launch takes.
pub(crate) fn steps() -> Result<Vec<Row>> {
    steps::run()
}

/// Measures everything, or what one of [`NAMES`] begins.
pub(crate) fn run(name: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let is_asked = |known: &str| {
        name == "walls"
            || name.strip_prefix(known).is_some_and(|r| r.is_empty() || r.starts_with('.'))
    };
    // One run gives both.
    if is_asked("launch_vs_bwrap") || is_asked("pooled_vs_bwrap") {
        rows.extend(launch::run()?);
    }
    if is_asked("reap_50_stopped") {
        rows.extend(reap::run()?);
    }
    if is_asked("policed_overshoot") {
        rows.extend(overshoot::run()?);
    }
    if is_asked("launch_vs_srt") {
        rows.extend(others::srt()?);
    }
    // Only where it is asked for by name: it has to be built first.
    if name == "launch_vs_sandlock" {
        rows.extend(others::sandlock()?);
    }
    if is_asked("neighbour_p99_ratio") {
        let only = name.strip_prefix("neighbour_p99_ratio.");
        rows.extend(neighbour::run(only)?);
    }
    if rows.is_empty() {
        return Err(format!("walls has no `{name}`; there are {}", NAMES.join(", ")).into());
    }
    Ok(rows)
}
