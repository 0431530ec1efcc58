//! The weaker tier, for machines where user namespaces are forbidden: attempts against what it promises,
//! and against what it does not. The latter end as `not-guaranteed`, whatever stopped them, so that no
//! accident is counted as a wall.

use std::sync::Arc;

use palisade_model::{Guarantee, GuaranteeSet};
use palisade_process::{LandlockBackend, Options};

use crate::{
    attacker::Attempt,
    control::Controls,
    families::general,
    launch::Walls,
    record::{Launcher, Row},
    scene::Stage,
    trouble::Result,
    turns::Turns,
};

/// What stands behind the variant.
pub const WITH: &str = "@landlock";
/// How many run at once.
const AT_ONCE: usize = 6;

/// Whether an attempt is made here: files, network, processes, and system calls. What ends every process
/// that can be reached would end the suite, and is left out.
#[must_use]
pub fn takes(attempt: &Attempt) -> bool {
    let variant = attempt.variant.as_str();
    match attempt.number {
        1 | 2 | 11 | 14..=20 | 22..=27 | 29 | 31 | 32 | 35 | 36 | 40 | 52..=54 => true,
        5 | 6 | 8 | 56 | 57 | 67 => true,
        28 => !variant.contains("all") && !variant.contains("group"),
        49 => matches!(variant, "clear-pdeathsig" | "subreaper"),
        55 => !matches!(variant, "rwx" | "wx"),
        _ => false,
    }
}

/// The guarantee that an attempt is about.
fn about(attempt: &Attempt) -> Guarantee {
    match attempt.number {
        26..=28 => Guarantee::PeersIsolated,
        8 if attempt.variant.contains("root") => Guarantee::FsIsolated,
        8 => Guarantee::PeersIsolated,
        31 | 32 => Guarantee::IpcIsolated,
        35 | 36 | 40 => Guarantee::NetIsolated,
        49 => Guarantee::DiesWithHost,
        11 | 14..=20 | 22..=25 | 29 | 52..=54 => Guarantee::SyscallsFiltered,
        _ => Guarantee::FsIsolated,
    }
}

/// What an attempt came to, where its guarantee may not be given.
fn honest(attempt: &Attempt, given: &GuaranteeSet, outcome: String) -> String {
    if given.iter().any(|(guarantee, _)| guarantee == about(attempt)) {
        return outcome;
    }
    match outcome.strip_prefix("SUCCEEDED") {
        Some(_) => "not-guaranteed:reached".into(),
        None => format!("not-guaranteed:{outcome}"),
    }
}

/// Runs the family.
///
/// # Errors
/// When the walls cannot be built.
pub async fn run(stage: &Arc<Stage>, launcher: Launcher, attempts: &[Attempt]) -> Result<Vec<Row>> {
    let options = Options { cgroups: launcher.cgroups(), ..Options::default() };
    let backend = Arc::new(LandlockBackend::new(options.clone()));
    let walls = Arc::new(Walls::behind(backend, options, stage).await?);
    let given = walls.backend.probe().await.guarantees.clone();
    let chosen: Vec<&Attempt> =
        attempts.iter().filter(|a| takes(a) && general::can_be_made(stage, a)).collect();
    // Where peers are not isolated, attempts against them may meet what others are made with: those come last.
    let (peers, others): (Vec<&Attempt>, Vec<&Attempt>) =
        chosen.iter().partition(|attempt| about(attempt) == Guarantee::PeersIsolated);
    let mut rows = Vec::new();
    for attempts in [others, peers] {
        let mut turns = Turns::new(AT_ONCE);
        for attempt in attempts {
            let (stage, attempt) = (Arc::clone(stage), attempt.clone());
            let (walls, given) = (Arc::clone(&walls), given.clone());
            turns.take(async move {
                let (outcome, detail) = general::inside(&stage, &attempt, &walls).await?;
                let variant = format!("{}{WITH}", attempt.variant);
                let mut row = Row::new(attempt.number, &variant, &attempt.name, launcher);
                row.backend = "landlock".to_owned();
                Ok(row.seen(honest(&attempt, &given, outcome), detail))
            });
        }
        rows.extend(turns.rows().await?);
    }
    // Afterwards: here a plugin sees the processes of its controls.
    Controls::start(stage, chosen.into_iter()).tell(&mut rows).await?;
    Ok(rows)
}
