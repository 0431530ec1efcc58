//! Attempt 50: a plugin has ended, its process number belongs to a stranger, and the host ends the plugin.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use palisade_process::Options;
use palisade_sandbox::KillReason;

use crate::{
    attacker::Attempt,
    control::Controls,
    host_side,
    launch::{Terms, Walls},
    record::{Launcher, Row},
    scene::Stage,
    trouble::{Result, Trouble, While},
};

pub(super) async fn run(
    stage: &Arc<Stage>,
    launcher: Launcher,
    attempts: &[Attempt],
) -> Result<Vec<Row>> {
    let options = Options { cgroups: launcher.cgroups(), ..Options::default() };
    let walls = Walls::new(options, stage).await?;
    let chosen: Vec<&Attempt> =
        attempts.iter().filter(|a| super::covers(a.number, &a.variant) && a.number == 50).collect();
    let mut rows = Vec::new();
    for attempt in &chosen {
        rows.push(one(stage, launcher, &walls, attempt).await?);
    }
    Controls::start(stage, chosen.into_iter()).tell(&mut rows).await?;
    Ok(rows)
}

async fn one(stage: &Stage, launcher: Launcher, walls: &Walls, attempt: &Attempt) -> Result<Row> {
    let row = Row::new(attempt.number, &attempt.variant, &attempt.name, launcher);
    // The copy may choose numbers; the suite itself need not be root for it.
    let Some(recycler) = stage.privileged.as_ref().map(|folder| folder.join("recycler")) else {
        return Ok(row.seen("impossible:only root can make the copy that chooses numbers", ""));
    };
    let ground = stage.ground()?;
    let before: BTreeSet<String> = host_side::plugin_processes().into_iter().collect();
    let boxed = walls.launch(&ground, &Terms::default()).await?;
    let numbers: Vec<String> =
        host_side::plugin_processes().into_iter().filter(|p| !before.contains(p)).collect();
    // It is killed from outside, by nobody that the host knows of; the host still holds it.
    for number in &numbers {
        let number = number.parse().ok().and_then(rustix::process::Pid::from_raw);
        if let Some(number) = number {
            let _ = rustix::process::kill_process(number, rustix::process::Signal::KILL);
        }
    }
    let ended = tokio::time::timeout(Duration::from_secs(5), boxed.instance.wait()).await;
    let mut strangers = Vec::new();
    for number in &numbers {
        strangers.push(stranger(&recycler, number)?);
    }
    // Everything that a host does to a plugin.
    boxed.instance.kill(KillReason::Asked).await;
    let _ = boxed.instance.stop(Duration::from_millis(200)).await;
    let _ = boxed.instance.freeze().await;
    let _ = boxed.instance.usage().await;
    let exit = boxed.instance.kill(KillReason::Asked).await;
    drop(boxed);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut words = Vec::new();
    for (mut child, mut reader) in strangers {
        let mut stdin = child.stdin.take().ok_or_else(|| Trouble("no stdin".into()))?;
        writeln!(stdin, "tell")?;
        let mut line = String::new();
        reader.read_line(&mut line)?;
        child.wait()?;
        words.push(line.trim().to_owned());
    }
    ground.clear();
    let detail = format!("{} strangers: {words:?}; {exit}; ended: {}", words.len(), ended.is_ok());
    Ok(if words.is_empty() {
        row.seen("impossible:the plugin's processes are not seen", detail)
    } else if words.iter().all(|w| w == "alive") {
        row.seen("blocked", detail)
    } else {
        row.seen("SUCCEEDED", detail)
    })
}

type Stranger = (std::process::Child, BufReader<std::process::ChildStdout>);

/// A process under that number, once it is free.
fn stranger(recycler: &std::path::Path, number: &str) -> Result<Stranger> {
    let mut child = Command::new(recycler)
        .args(["recycle", number])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .doing("starting the recycler")?;
    let out = child.stdout.take().ok_or_else(|| Trouble("no stdout".into()))?;
    let mut reader = BufReader::new(out);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if line.trim() == format!("ready {number}") {
        return Ok((child, reader));
    }
    Err(Trouble(format!("the recycler says {line:?}")))
}
