//! Attempts 42 to 46 behind a sandbox that has limits of its own, set to what Palisade's plugin gets: who is
//! given more. The bounds are those of the suite; what the attacker itself counts is measured.

use std::{fs, time::Duration};

use serde_json::json;

use super::{Task, read_answer, row};
use crate::{
    attacker::{self, Attempt},
    families::limits::{self, CASES, CPU, Case, MEMORY, PIDS, first_number},
    record::{Launcher, Row},
    scene::Stage,
    trouble::Result,
};

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// Whether it is made: attacks on memory, processes, processor time and handles. A limit on disk of sandlock's
/// belongs to its copy-on-write folder and not to one that was granted; without a network there are no buffers
/// of its connections.
#[must_use]
pub fn takes(case: &Case) -> bool {
    case.dir.is_none() && !limits::has_network(case)
}

/// Whether these are the rows of such an attack.
#[must_use]
pub fn is_one(number: u16, variant: &str) -> bool {
    CASES
        .iter()
        .any(|case| takes(case) && (case.number, case.label().as_str()) == (number, variant))
}

/// Makes them one after the other: they are about the whole machine.
pub(super) fn run(task: &Task, stage: &Stage) -> Result<Vec<Row>> {
    task.tool.check(&options(), stage)?;
    let attempts = attacker::list(&task.attacker)?;
    let mut rows = Vec::new();
    for case in CASES.iter().filter(|case| takes(case)) {
        let is_it = |a: &&Attempt| (a.number, a.variant.as_str()) == (case.number, case.variant);
        if let Some(attempt) = attempts.iter().find(is_it) {
            rows.push(one(task, stage, case, attempt)?);
        }
    }
    Ok(rows)
}

fn one(task: &Task, stage: &Stage, case: &Case, attempt: &Attempt) -> Result<Row> {
    let ground = stage.ground()?;
    let mut params = stage.params(&ground, true);
    params.extend(case.params().into_iter().map(|(k, v)| (k.to_owned(), v)));
    let told = ground.data.join("params.json");
    fs::write(&told, json!(params).to_string())?;
    let args = [
        "attempt".to_owned(),
        case.number.to_string(),
        case.variant.to_owned(),
        "--elsewhere".to_owned(),
        "--params".to_owned(),
        format!("@{}", told.display()),
    ];
    let ended = task.tool.start_with(&options(), stage, &ground, &args)?.wait(PATIENCE);
    let mut row = row(task, case.number, &case.label(), &attempt.name);
    let (outcome, detail) = read_answer(&ended);
    if case.number == 43
        && let Some(held) = first_number(&detail)
    {
        row.measured.insert("memory_overshoot_bytes".into(), held.saturating_sub(MEMORY));
    }
    let (outcome, detail) = limits::bounded(Launcher::User, case, (outcome, detail), &mut row);
    ground.clear();
    Ok(row.seen(outcome, detail))
}

/// sandlock's options for the limits of the suite. Its `--cpu` is a part of all processors' time.
fn options() -> Vec<String> {
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    vec![
        format!("--max-memory={MEMORY}"),
        format!("--max-processes={PIDS}"),
        "--max-open-files=1024".to_owned(),
        format!("--cpu={}", (CPU / 10 / processors).max(1)),
    ]
}
