//! Attempts that need nothing but a launch and the scene: most of the catalogue. They run several at a
//! time, each with and without each layer that can be taken away, and each outside as its control.

use std::sync::Arc;

use crate::{
    attacker::Attempt,
    control::Controls,
    families::ablation,
    judge,
    launch::{Terms, Walls},
    record::{Launcher, Row},
    scene::Stage,
    trouble::Result,
    turns::Turns,
};

/// Numbers that have a family of their own.
const ELSEWHERE: [u16; 15] = [3, 34, 37, 38, 39, 42, 43, 44, 45, 46, 47, 48, 49, 58, 59];
/// What stands behind the variant of an attempt that was observed.
pub const OBSERVED: &str = "@observed";
/// How many run at once.
const AT_ONCE: usize = 6;

/// Whether an attempt belongs here.
#[must_use]
pub fn takes(attempt: &Attempt) -> bool {
    // Asking for priority and lifting limits uses nothing up.
    let asks_only = attempt.variant.starts_with("raise-")
        || (attempt.number == 44 && !attempt.variant.starts_with("spin"))
        || (attempt.number == 49
            && !matches!(attempt.variant.as_str(), "double-fork" | "exec" | "orphan"));
    let is_elsewhere = ELSEWHERE.contains(&attempt.number)
        || super::host::covers(attempt.number, &attempt.variant);
    !is_elsewhere || asks_only
}

/// Set-id copies are there only where root made them.
#[allow(clippy::print_stderr)]
pub(super) fn can_be_made(stage: &Stage, attempt: &Attempt) -> bool {
    let can = stage.privileged.is_some()
        || !matches!(
            (attempt.number, attempt.variant.as_str()),
            (12, "suid" | "sgid") | (13, "file-caps")
        );
    if !can {
        eprintln!("SKIPPED: {} {}: only root can make the copy", attempt.number, attempt.variant);
    }
    can
}

/// Runs all of `attempts` that belong here; with `whole_only`, no layer is taken away.
///
/// # Errors
/// When the walls cannot be built at all.
pub async fn run(
    stage: &Arc<Stage>,
    launcher: Launcher,
    attempts: &[Attempt],
    whole_only: bool,
) -> Result<Vec<Row>> {
    let (walls, thinner) = ablation::walls(stage, launcher, whole_only).await?;
    let start_controls =
        || Controls::start(stage, attempts.iter().filter(|a| takes(a) && can_be_made(stage, a)));
    // Those that could hurt would also be seen by what watches the attempts.
    let controls = (!stage.own_machine).then(start_controls);
    let mut turns = Turns::new(AT_ONCE);
    for attempt in attempts.iter().filter(|a| takes(a) && can_be_made(stage, a)) {
        for observed in [false, true] {
            // Only where somebody looks can what is looked at be changed meanwhile.
            if observed && attempt.number != 25 {
                continue;
            }
            let (stage, attempt) = (Arc::clone(stage), attempt.clone());
            let (walls, thinner) = (Arc::clone(&walls), thinner.clone());
            turns.take(async move {
                if observed {
                    return while_observed(&stage, launcher, &attempt, &walls).await;
                }
                one(&stage, launcher, &attempt, &walls, &thinner).await
            });
        }
    }
    let mut rows = turns.rows().await?;
    for row in &mut rows {
        let is_of = |a: &&Attempt| (a.number, &a.variant) == (row.number, &row.variant);
        if let Some(attempt) = attempts.iter().find(is_of) {
            for (layer, walls) in ablation::alone(&thinner, attempt.number, &attempt.variant) {
                let (thin, _) = inside(stage, attempt, walls).await?;
                row.without.insert(layer.to_owned(), thin);
            }
        }
    }
    controls.unwrap_or_else(start_controls).tell(&mut rows).await?;
    Ok(rows)
}

async fn one(
    stage: &Arc<Stage>,
    launcher: Launcher,
    attempt: &Attempt,
    walls: &Walls,
    thinner: &ablation::Thinner,
) -> Result<Row> {
    let (outcome, detail) = inside(stage, attempt, walls).await?;
    let mut without = ablation::Without::new();
    for (layer, walls) in ablation::of(thinner, attempt.number, &attempt.variant) {
        let (thin, _) = inside(stage, attempt, walls).await?;
        without.insert(layer.to_owned(), thin);
    }
    let mut row =
        Row::new(attempt.number, &attempt.variant, &attempt.name, launcher).seen(outcome, detail);
    row.without = without;
    Ok(row)
}

/// The same with an observer who is told of every call.
async fn while_observed(
    stage: &Arc<Stage>,
    launcher: Launcher,
    attempt: &Attempt,
    walls: &Walls,
) -> Result<Row> {
    let terms = Terms { observed: true, ..Terms::default() };
    let (outcome, detail) = inside_on(stage, attempt, walls, terms).await?;
    let variant = format!("{}{OBSERVED}", attempt.variant);
    Ok(Row::new(attempt.number, &variant, &attempt.name, launcher).seen(outcome, detail))
}

/// One attempt behind one set of walls, judged: outcome and detail.
///
/// # Errors
/// When the scene cannot be set.
pub async fn inside(
    stage: &Arc<Stage>,
    attempt: &Attempt,
    walls: &Walls,
) -> Result<(String, String)> {
    inside_on(stage, attempt, walls, Terms::default()).await
}

/// [`inside`], launched on other terms.
///
/// # Errors
/// When the scene cannot be set.
pub async fn inside_on(
    stage: &Arc<Stage>,
    attempt: &Attempt,
    walls: &Walls,
    terms: Terms,
) -> Result<(String, String)> {
    let ground = stage.ground()?;
    let mut params = stage.params(&ground, true);
    params.extend(judge::params(stage, attempt, &ground, true));
    let terms = Terms { grants: judge::grants(stage, attempt), ..terms };
    let watch = judge::Watch::begin(stage, attempt, &mut params);
    let launched = walls.launch(&ground, &terms).await;
    let result = match launched {
        Err(e) => (format!("blocked:{}", e.code()), e.to_string()),
        Ok(boxed) => {
            let seen =
                boxed.attempt(attempt.number, &attempt.variant, &params, terms.deadline).await;
            let harm = watch.end();
            boxed.end().await;
            judge::judge(stage, attempt, &ground, &seen, harm, walls.options.without)
        }
    };
    ground.clear();
    Ok(result)
}
