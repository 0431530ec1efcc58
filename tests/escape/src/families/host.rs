//! Attempts against the host itself: manifests, consent, the record, the relay, the terminal, process
//! numbers, and what lies between two plugins. They are made through the real command or the real
//! backend, as each launcher.
//!
//! No layer of the plugin's walls stands before them, so none is taken away. The control is what a host
//! does that takes no care: reads the file, prints the bytes, kills the number.

mod altered;
mod consent;
mod desk;
mod manifests;
mod mcp;
mod numbers;
mod record;
mod schemas;
mod sealed;
mod shared;
mod swap;
mod terminal;

use std::{path::PathBuf, sync::Arc};

use crate::{
    attacker::Attempt,
    careless,
    record::{Launcher, Row},
    scene::Stage,
    trouble::{Result, Trouble, While},
    turns::Turns,
};

use desk::Desk;

/// How many run at once.
const AT_ONCE: usize = 4;

/// What one attempt came to: the outcome, and in words.
type Verdict = (String, String);

/// One attempt on the host.
struct Case {
    number: u16,
    variant: &'static str,
    name: &'static str,
    /// Makes it through the real host.
    attack: fn(&Desk) -> Result<Verdict>,
    /// The same on a host that takes no care: whether it works there.
    control: Naive,
}

/// A positive control.
enum Naive {
    /// Whether the attack works on a host that takes no care.
    Works(fn(&Desk) -> Result<bool>),
    /// There is none.
    None(&'static str),
}

/// Numbers that only this family has rows of.
#[must_use]
pub fn covers(number: u16, variant: &str) -> bool {
    matches!((number, variant), (50, "recycled"))
        || matches!(number, 30 | 60 | 63 | 64 | 69 | 71..=74)
}

fn cases() -> impl Iterator<Item = &'static Case> {
    [
        sealed::CASES,
        manifests::CASES,
        schemas::CASES,
        consent::CASES,
        record::CASES,
        altered::CASES,
        mcp::CASES,
        terminal::CASES,
    ]
    .into_iter()
    .flatten()
}

/// Runs the family: the numbers of `only`, all where there is none. `command` is the built `palisade`.
///
/// # Errors
/// When the scene or the walls cannot be built.
pub async fn run(
    stage: &Arc<Stage>,
    launcher: Launcher,
    attempts: &[Attempt],
    only: &[u16],
    command: Option<&PathBuf>,
) -> Result<Vec<Row>> {
    let command = command.ok_or_else(|| Trouble("the runner was given no command".into()))?;
    let wanted = |number: u16| only.is_empty() || only.contains(&number);
    let mut rows = shared::run(stage, launcher, attempts).await?;
    if wanted(swap::NUMBER) {
        rows.extend(swap::run(stage, launcher).await?);
    }
    rows.extend(numbers::run(stage, launcher, attempts).await?);
    let mut turns = Turns::new(AT_ONCE);
    for (serial, case) in cases().filter(|case| wanted(case.number)).enumerate() {
        let desk = Desk::new(stage, command, serial)?;
        turns.take(async move {
            let made = tokio::task::spawn_blocking(move || one(case, &desk, launcher)).await;
            made.doing("a case")?
        });
    }
    rows.extend(turns.rows().await?);
    Ok(rows)
}

fn one(case: &Case, desk: &Desk, launcher: Launcher) -> Result<Row> {
    let place = || format!("{} {}", case.number, case.variant);
    let (outcome, detail) = (case.attack)(desk).doing(place())?;
    let mut row = Row::new(case.number, case.variant, case.name, launcher).seen(outcome, detail);
    row.backend = "host".into();
    row.control = match case.control {
        Naive::None(why) => format!("impossible: {why}"),
        Naive::Works(naive) => {
            let control = Desk::beside(desk)?;
            careless::said(naive(&control).doing(place())?)
        }
    };
    Ok(row)
}
