//! Attempt 69: two plugins with one folder. SECURITY.md says that they can attack each other there; what
//! must hold is that a link leads neither of them out, and that the host is not held up.

use std::{sync::Arc, time::Duration};

use palisade_process::Options;
use serde_json::{Map, Value, json};

use crate::{
    attacker::Attempt,
    control::Controls,
    launch::{Boxed, Terms, Walls},
    record::{Launcher, Row},
    scene::{Ground, Stage},
    trouble::Result,
};

/// How long the host may take for another launch with the folder meanwhile.
const LAUNCH: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(20);

const STATED: &str = "they share the folder, and SECURITY.md says what that means; nothing beyond it is reached and the host goes on";

pub(super) async fn run(
    stage: &Arc<Stage>,
    launcher: Launcher,
    attempts: &[Attempt],
) -> Result<Vec<Row>> {
    let options = Options { cgroups: launcher.cgroups(), ..Options::default() };
    let walls = Walls::new(options, stage).await?;
    let chosen: Vec<&Attempt> = attempts.iter().filter(|a| a.number == 69).collect();
    let controls = Controls::start(stage, chosen.iter().copied());
    let mut rows = Vec::new();
    for attempt in chosen {
        rows.push(one(stage, launcher, &walls, attempt).await?);
    }
    controls.tell(&mut rows).await?;
    Ok(rows)
}

fn role(params: &Map<String, Value>, role: &str, write: bool) -> Map<String, Value> {
    let mut params = params.clone();
    params.insert("role".into(), json!(role));
    params.insert("write".into(), json!(write));
    params
}

async fn one(stage: &Stage, launcher: Launcher, walls: &Walls, attempt: &Attempt) -> Result<Row> {
    let (ground, second, third) = (stage.ground()?, stage.ground()?, stage.ground()?);
    let params = stage.params(&ground, true);
    // Folder and secret are the first one's; data and user id are their own.
    let with_its_folder = |other: &Ground| Ground {
        root: other.root.clone(),
        granted: ground.granted.clone(),
        readonly: other.readonly.clone(),
        outside: other.outside.clone(),
        data: other.data.clone(),
        slot: other.slot,
    };
    let attacker = walls.launch(&ground, &Terms::default()).await?;
    let neighbour = walls.launch(&with_its_folder(&second), &Terms::default()).await?;
    let ask = |boxed: &Boxed, params: Map<String, Value>| {
        let instance = boxed.instance.clone();
        let host = Arc::clone(&boxed.host);
        let (number, variant) = (attempt.number, attempt.variant.clone());
        async move { Boxed { instance, host }.attempt(number, &variant, &params, DEADLINE).await }
    };
    let mut parts = Vec::new();
    if matches!(attempt.variant.as_str(), "truncate" | "rename" | "fifo") {
        parts.push(ask(&neighbour, role(&params, "neighbour", true)).await);
    }
    let seen = if attempt.variant == "swap" {
        let both = tokio::join!(ask(&attacker, role(&params, "attacker", false)), async {
            // The folder has to be there.
            tokio::time::sleep(Duration::from_millis(50)).await;
            ask(&neighbour, role(&params, "neighbour", false)).await
        });
        parts.push(both.0);
        both.1
    } else {
        parts.push(ask(&attacker, role(&params, "attacker", false)).await);
        ask(&neighbour, role(&params, "neighbour", false)).await
    };
    let begun = std::time::Instant::now();
    let launched = walls.launch(&with_its_folder(&third), &Terms::default()).await;
    let took = begun.elapsed();
    let is_held = launched.is_err() || took > LAUNCH;
    if let Ok(boxed) = launched {
        boxed.end().await;
    }
    attacker.end().await;
    neighbour.end().await;
    let harm = ground.damage(&stage.secret).or_else(|| second.damage(&stage.secret));
    let row = Row::new(attempt.number, &attempt.variant, &attempt.name, launcher);
    let unmade = parts.iter().find(|p| p.outcome() != "SUCCEEDED");
    let row = match (unmade, harm, seen.outcome()) {
        (Some(part), ..) => row.seen(part.outcome(), part.detail()),
        (_, Some(harm), _) => row.seen("SUCCEEDED", format!("the host finds: {harm}")),
        _ if is_held => row.seen("SUCCEEDED", format!("the host is held up: {took:?}")),
        (.., outcome)
            if outcome == "SUCCEEDED" && !matches!(attempt.variant.as_str(), "link" | "swap") =>
        {
            row.seen("contained", format!("{STATED}; {}", seen.detail()))
        }
        (.., outcome) => row.seen(outcome, seen.detail()),
    };
    for ground in [&ground, &second, &third] {
        ground.clear();
    }
    Ok(row)
}
