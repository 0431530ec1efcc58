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

/// What Landlock does not keep (landlock(7), "Current limitations"), which is why this tier promises no
/// `fs-isolated`; truncation from ABI 3 on.
const NOT_KEPT: [(u16, &str); 5] = [
    (1, "secret-stat"),
    (2, "ro-chmod"),
    (2, "ro-utimes"),
    (2, "ro-xattr"),
    (2, "ro-truncate"),
];

/// What stands behind the variant.
pub const WITH: &str = "@landlock";

/// Whether an attempt is about what this tier keeps: no file that was not granted is read or written, no
/// socket, no System V IPC, no forbidden system call.
#[must_use]
pub fn takes(attempt: &Attempt) -> bool {
    let variant = attempt.variant.as_str();
    match attempt.number {
        number if NOT_KEPT.contains(&(number, variant)) => false,
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
        let variant = format!("{}{WITH}", attempt.variant);
        let mut row = Row::new(attempt.number, &variant, &attempt.name, launcher);
        row.backend = "landlock".to_owned();
        rows.push(row.seen(outcome, detail));
    }
    Ok(rows)
}
