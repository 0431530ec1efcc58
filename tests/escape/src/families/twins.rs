//! Attempts that an interpreter makes differently, by the twins in Python and Node, each under its own
//! profile.

use std::{sync::Arc, time::Duration};

use palisade_process::Layer;
use palisade_sandbox::{Artifact, Content, Program, Runtime};

use crate::{
    attacker::{Attempt, Twin},
    control::Controls,
    families::{ablation, general},
    launch::{Terms, Walls},
    record::{Launcher, Row},
    scene::Stage,
    trouble::Result,
    turns::Turns,
};

/// How many run at once: interpreters take longer to start than the static attacker.
const AT_ONCE: usize = 4;

/// Whether a variant is one of a twin.
#[must_use]
pub fn made(variant: &str) -> bool {
    Twin::ALL.iter().any(|twin| variant.ends_with(twin.suffix()))
}

fn terms() -> Terms {
    let mut terms = Terms { deadline: Duration::from_secs(30), ..Terms::default() };
    terms.limits.memory = 512 << 20;
    terms.limits.pids = 64;
    terms.limits.disk = 256 << 20;
    terms
}

/// Runs the attempts of these twins; with `whole_only`, no layer is taken away.
///
/// # Errors
/// When the walls cannot be built, or an interpreter is missing.
pub async fn run(
    stage: &Arc<Stage>,
    launcher: Launcher,
    twins: &[Twin],
    whole_only: bool,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for twin in twins {
        rows.extend(one_twin(stage, launcher, *twin, whole_only).await?);
    }
    Ok(rows)
}

async fn walls(
    stage: &Stage,
    launcher: Launcher,
    twin: Twin,
    without: Option<Layer>,
) -> Result<Arc<Walls>> {
    let walls = Walls::new(ablation::options(launcher, without), stage).await?;
    let path = stage.twin(twin)?;
    let runtime = match twin {
        Twin::Python => Runtime::Python { interpreter: None, version: None },
        Twin::Node => Runtime::Node { interpreter: None },
    };
    let artifact = Artifact {
        content: Content { root: path.parent().unwrap_or(&path).to_path_buf(), digest: [0; 32] },
        program: Program { runtime, file: twin.file().into(), args: Vec::new() },
        code: Vec::new(),
    };
    Ok(Arc::new(walls.with(walls.backend.prepare(&artifact).await?)))
}

async fn one_twin(
    stage: &Arc<Stage>,
    launcher: Launcher,
    twin: Twin,
    whole_only: bool,
) -> Result<Vec<Row>> {
    let attempts = twin.list(&stage.twin(twin)?)?;
    let whole = walls(stage, launcher, twin, None).await?;
    let mut thinner = Vec::new();
    let about = |layer: &&ablation::Removable| !whole_only && layer.is_about_any(&attempts);
    for removable in ablation::LAYERS.iter().filter(about) {
        let without = Some(removable.layer);
        thinner.push((removable.name, walls(stage, launcher, twin, without).await?));
    }
    let controls = Controls::start(stage, attempts.iter());
    let mut turns = Turns::new(AT_ONCE);
    for attempt in attempts.clone() {
        let (stage, walls, thinner) = (Arc::clone(stage), Arc::clone(&whole), thinner.clone());
        turns.take(async move { one(&stage, launcher, &attempt, &walls, &thinner, twin).await });
    }
    let mut rows = turns.rows().await?;
    for (row, attempt) in rows.iter_mut().zip(&attempts) {
        for (layer, walls) in ablation::alone(&thinner, attempt.number, &attempt.variant) {
            let (thin, _) = general::inside_on(stage, attempt, walls, terms()).await?;
            row.without.insert(layer.to_owned(), thin);
        }
    }
    controls.tell(&mut rows).await?;
    Ok(rows)
}

async fn one(
    stage: &Arc<Stage>,
    launcher: Launcher,
    attempt: &Attempt,
    walls: &Walls,
    thinner: &ablation::Thinner,
    twin: Twin,
) -> Result<Row> {
    let (outcome, detail) = general::inside_on(stage, attempt, walls, terms()).await?;
    let mut without = ablation::Without::new();
    for (layer, walls) in ablation::of(thinner, attempt.number, &attempt.variant) {
        let (thin, _) = general::inside_on(stage, attempt, walls, terms()).await?;
        without.insert(layer.to_owned(), thin);
    }
    let variant = format!("{}{}", attempt.variant, twin.suffix());
    let mut row = Row::new(attempt.number, &variant, &attempt.name, launcher).seen(outcome, detail);
    row.without = without;
    Ok(row)
}
