//! Attempts from inside the WebAssembly wall (numbers from 101): a guest has no system calls, so what it can
//! try is to import what it may not, to use up what others need, and to be led astray by what it is granted.
//!
//! The engine runs in the host's process, so who launched makes no difference to a guest; the attempts are
//! made by every launcher all the same, because files, the folder of compiled code and the host's limits are
//! that user's. The positive control is the same attack with its limit lifted or its right granted; where a
//! layer can be taken away (feature `ablation` of `palisade-wasm`), the attack is made once more without it.
//!
//! All of it is made twice: by the engine in the runner, and by an engine behind the walls around processes
//! (`wasm+process`), which is the runner's own program. Layers cannot be taken away from that one.

mod compiled;
mod compiled_behind;
mod folders;
mod folders_wasi3;
mod guests;
mod imports;
mod leaks;
mod limits;
mod net;
mod room;
mod siblings;
mod values;
mod wall;
mod web;

use std::{sync::Arc, time::Duration};

use palisade_sandbox::BoxFuture;
use palisade_wasm::ablation::{Layer, without};

use crate::{
    control::WORKS,
    record::Row,
    runner::Task,
    scene::Stage,
    trouble::{Result, Trouble, While},
};

pub use guests::{Guests, build};
use room::Room;
pub use wall::Wall;

/// Longest time of one attempt, its control or its ablation.
const PATIENCE: Duration = Duration::from_secs(120);
/// The same where the processor is emulated, and code is compiled for it no faster.
const PATIENCE_EMULATED: Duration = Duration::from_secs(600);

/// Numbers that only this family has rows of.
#[must_use]
pub fn covers(number: u16) -> bool {
    (101..=113).contains(&number)
}

/// What stands behind the variant of an attempt on an engine behind walls.
pub const WITH: &str = "@walled";

/// What one attempt came to: the outcome, and in words.
type Verdict = (String, String);
type Made = BoxFuture<'static, Result<Verdict>>;

/// One attempt.
struct Case {
    number: u16,
    variant: &'static str,
    name: &'static str,
    /// Makes it. In a room where limits are lifted it is expected to succeed.
    attack: fn(Room) -> Made,
    control: Control,
    /// Layers that are taken away.
    without: &'static [Layer],
}

/// A positive control.
#[derive(Clone, Copy)]
enum Control {
    /// The attack itself, with its limit lifted or its right granted.
    Lifted,
    /// What a host that takes no care does.
    Careless(fn(Room) -> BoxFuture<'static, Result<bool>>),
}

/// What is not made on an engine behind walls: compiled code is kept in another way there, and every
/// instance has an engine of its own, so that none can take the places of another. The positive controls of the
/// other three lift a limit of the engine's, and what the walls allow stands behind it: as many open files are
/// not had there, and a share of processor time is the walls' own (attempts 44 and 46).
fn is_for_the_host_only(case: &Case) -> bool {
    case.number == 111
        || matches!(
            (case.number, case.variant),
            (106, "files" | "extism-files") | (113, "instances" | "share")
        )
}

/// The attempts of these numbers on an engine behind this wall; all where there are none.
fn asked(wall: Wall, only: &[u16]) -> impl Iterator<Item = &'static Case> {
    cases(wall).filter(|case| only.is_empty() || only.contains(&case.number))
}

fn cases(wall: Wall) -> impl Iterator<Item = &'static Case> {
    let behind = wall == Wall::Process;
    let own = if behind { compiled_behind::CASES } else { &[] };
    let shared = shared_cases().filter(move |case| !behind || !is_for_the_host_only(case));
    shared.chain(own)
}

fn shared_cases() -> impl Iterator<Item = &'static Case> {
    [
        imports::CASES,
        limits::CASES,
        values::CASES,
        leaks::CASES,
        web::CASES,
        compiled::CASES,
        compiled::BARE,
        folders::CASES,
        folders_wasi3::CASES,
        siblings::CASES,
    ]
    .into_iter()
    .flatten()
}

/// The name of a layer in the matrix.
fn layer(layer: Layer) -> &'static str {
    match layer {
        Layer::Imports => "import check",
        Layer::Memory => "memory count",
        Layer::Handles => "resource count",
        Layer::HostCallBytes => "host call bytes",
        Layer::Mac => "mac",
    }
}

/// Runs the family, one attempt after the other: some measure time, and a layer that is taken away is away
/// from the whole process. The task's `guests` has what [`build`] built; where it is `whole_only`, no layer is
/// taken away.
///
/// # Errors
/// When the engine cannot be made, or the scene.
pub async fn run(stage: &Arc<Stage>, task: &Task, wall: Wall) -> Result<Vec<Row>> {
    let launcher = task.launcher;
    let folder =
        task.guests.as_ref().ok_or_else(|| Trouble("the runner was given no guests".into()))?;
    let patience = if task.emulated { PATIENCE_EMULATED } else { PATIENCE };
    let scene = room::Scene::new(stage, Guests::read(folder)?, wall, launcher)?;
    let mut rows = Vec::new();
    for case in asked(wall, &task.only) {
        let variant = format!("{}{}", case.variant, wall.with());
        let place = format!("{} {variant}", case.number);
        let (outcome, detail) =
            bounded(patience, &place, (case.attack)(scene.room(false)?)).await?;
        let mut row = Row::new(case.number, &variant, case.name, launcher);
        row = row.seen(outcome, detail);
        row.backend = wall.backend().into();
        row.control = match case.control {
            Control::Lifted => {
                let (outcome, detail) =
                    bounded(patience, &place, (case.attack)(scene.room(true)?)).await?;
                control(outcome == "SUCCEEDED", format!("{outcome} {detail}"))
            }
            Control::Careless(careless) => {
                let made = bounded(patience, &place, careless(scene.room(true)?)).await?;
                control(made, "without care".into())
            }
        };
        let can_lack = |layer: &&Layer| !task.whole_only && wall.can_lack(**layer);
        for thin in case.without.iter().filter(can_lack) {
            let away = without(*thin);
            let (outcome, _) = bounded(patience, &place, (case.attack)(scene.room(false)?)).await?;
            drop(away);
            row.without.insert(layer(*thin).into(), outcome);
        }
        rows.push(row);
    }
    Ok(rows)
}

fn control(works: bool, seen: String) -> String {
    if works { WORKS.into() } else { format!("impossible: it does not work there either: {seen}") }
}

async fn bounded<T>(
    patience: Duration,
    place: &str,
    made: BoxFuture<'static, Result<T>>,
) -> Result<T> {
    tokio::time::timeout(patience, made).await.doing(place)?.doing(place)
}

/// The attacker reached its goal.
fn succeeded(detail: impl Into<String>) -> Verdict {
    ("SUCCEEDED".into(), detail.into())
}
