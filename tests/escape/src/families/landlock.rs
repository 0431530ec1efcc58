//! The weaker tier, where user namespaces are forbidden: attempts against what it still promises. Made in
//! the machines of `cargo xtask vm` only; on other machines the resolver prefers the stronger one.

use std::sync::Arc;

use palisade_process::{LandlockBackend, Options};

use crate::{
    attacker::Attempt,
    families::general,
    launch::Walls,
    record::{Launcher, Row},
    scene::Stage,
    trouble::Result,
};

/// Whether an attempt is about a guarantee of this tier: no file that was not granted is read or written,
/// no socket, no System V IPC, no forbidden system call, nothing lives on.
#[must_use]
pub fn takes(attempt: &Attempt) -> bool {
    let variant = attempt.variant.as_str();
    match attempt.number {
        1 | 2 | 11 | 14..=19 | 20 | 22..=24 | 29 | 31 | 32 | 35 | 36 | 40 | 52..=54 => true,
        49 => matches!(variant, "clear-pdeathsig" | "subreaper"),
        _ => false,
    }
}

/// Runs the family.
///
/// # Errors
/// When the walls cannot be built.
pub async fn run(stage: &Arc<Stage>, launcher: Launcher, attempts: &[Attempt]) -> Result<Vec<Row>> {
    let options = Options { cgroups: launcher.cgroups(), ..Options::default() };
    let backend = Arc::new(LandlockBackend::new(options.clone()));
    let walls = Walls::behind(backend, options, stage).await?;
    let mut rows = Vec::new();
    for attempt in attempts.iter().filter(|a| takes(a)) {
        let (outcome, detail) = general::inside(stage, attempt, &walls).await?;
        let mut row = Row::new(attempt.number, &attempt.variant, &attempt.name, launcher);
        row.backend = "landlock".to_owned();
        rows.push(row.seen(outcome, detail));
    }
    Ok(rows)
}
