//! Attempts 48 and 49: not ending when told to, and outliving the plugin or the host.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_process::Options;
use serde_json::{Value, json};

use crate::{
    attacker::Attempt,
    control::{Controls, WORKS},
    host_side,
    launch::{Terms, Walls},
    record::{Launcher, Row},
    runner::Task,
    scene::Stage,
    trouble::{Result, Trouble, While},
};

/// What a stop may take, beside the time asked for.
const GRACE: Duration = Duration::from_millis(400);
/// Beyond the grace.
const SLACK: Duration = Duration::from_millis(800);
/// By when everything must have stopped after the host was killed.
const HOST_GONE: Duration = Duration::from_secs(1);
const DAEMONS: [&str; 3] = ["double-fork", "exec", "orphan"];

/// Whether an attempt belongs here.
#[must_use]
pub fn takes(attempt: &Attempt) -> bool {
    attempt.number == 48 || (attempt.number == 49 && DAEMONS.contains(&attempt.variant.as_str()))
}

/// Runs the family.
///
/// # Errors
/// When the walls cannot be built.
pub async fn run(stage: &Arc<Stage>, task: &Task, attempts: &[Attempt]) -> Result<Vec<Row>> {
    let options = Options { cgroups: task.launcher.cgroups(), ..Options::default() };
    let walls = Walls::new(options, stage).await?;
    let controls = Controls::start(stage, attempts.iter().filter(|a| takes(a)));
    let mut rows = Vec::new();
    for attempt in attempts.iter().filter(|a| takes(a)) {
        let ways: &[&str] =
            if attempt.number == 48 { &["stop", "kill"] } else { &["kill", "drop"] };
        for way in ways {
            rows.push(one(stage, task.launcher, &walls, attempt, way).await?);
        }
    }
    if attempts.iter().any(|a| a.number == 49) {
        rows.push(host_killed(task).await?);
    }
    controls.tell(&mut rows).await?;
    Ok(rows)
}

async fn one(
    stage: &Stage,
    launcher: Launcher,
    walls: &Walls,
    attempt: &Attempt,
    way: &str,
) -> Result<Row> {
    let ground = stage.ground()?;
    let mut params = stage.params(&ground, true);
    params.extend([("seconds".to_owned(), json!(30)), ("count".to_owned(), json!(20))]);
    let boxed = walls.launch(&ground, &Terms::default()).await?;
    let seen =
        boxed.attempt(attempt.number, &attempt.variant, &params, Duration::from_secs(10)).await;
    // The misbehaviour follows the answer.
    tokio::time::sleep(Duration::from_millis(150)).await;
    let alive = fs::exists(ground.granted.join("beacon")).unwrap_or(false);
    let begun = Instant::now();
    let ended = match way {
        "stop" => boxed.instance.stop(GRACE).await.to_string(),
        "kill" => boxed.end().await.1.to_string(),
        _ => {
            let instance = boxed.instance.clone();
            drop(boxed);
            let exit = instance.kill(palisade_sandbox::KillReason::Dropped).await;
            exit.to_string()
        }
    };
    let took = begun.elapsed();
    let left = host_side::left_over().await;
    let name = format!("{}+{way}", attempt.variant);
    let mut row = Row::new(attempt.number, &name, &attempt.name, launcher);
    row.measured.insert("end_millis".into(), took.as_millis() as u64);
    let harm = if !left.is_empty() {
        Some(format!("{} processes are left", left.len()))
    } else if took > GRACE + SLACK {
        Some(format!("the end took {took:?}"))
    } else if attempt.number == 49 && beats(&ground.granted.join("beacon")).await {
        Some("the beacon goes on".to_owned())
    } else {
        ground.damage(&stage.secret)
    };
    ground.clear();
    let answered = seen.outcome();
    Ok(match harm {
        Some(harm) => row.seen("SUCCEEDED", format!("the host finds: {harm}")),
        None if answered == "SUCCEEDED" && (attempt.number == 48 || alive) => {
            row.seen("contained", format!("{}; ended in {took:?}: {ended}", seen.detail()))
        }
        None => row.seen(answered, seen.detail()),
    })
}

/// Whether a file still changes.
async fn beats(beacon: &Path) -> bool {
    beating(std::slice::from_ref(&beacon.to_path_buf())).await > 0
}

/// How many of these files still change.
async fn beating(beacons: &[PathBuf]) -> usize {
    let read = || beacons.iter().map(|beacon| fs::read(beacon).unwrap_or_default());
    let before: Vec<_> = read().collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    read().zip(before).filter(|(now, before)| now != before).count()
}

/// Waits until all do, on a busy machine too.
async fn begin_to_beat(beacons: &[PathBuf]) -> bool {
    const TRIES: usize = 30;
    for _ in 0..TRIES {
        if beating(beacons).await == beacons.len() {
            return true;
        }
    }
    false
}

/// The runner's family that is a host with plugins of its own, to be killed.
pub const DOOMED: &str = "doomed";
/// The same, of a host that builds no walls.
pub const DOOMED_OUTSIDE: &str = "doomed-outside";
/// What the plugins of both try.
const OF_DOOMED: [&str; 2] = ["double-fork", "exec"];

/// A whole host, killed by SIGKILL while plugins of its own try to outlive it. The control is a host without walls.
async fn host_killed(task: &Task) -> Result<Row> {
    let row = Row::new(49, "host-sigkill", "outlive a host that is killed", task.launcher);
    let mut row = match killed(task, DOOMED, HOST_GONE).await? {
        (false, _) => row.seen("impossible:the beacons did not beat", ""),
        (true, 0) => {
            row.seen("contained", format!("{} beacons stopped within 1 s", OF_DOOMED.len()))
        }
        (true, n) => row.seen("SUCCEEDED", format!("{n} beacons go on after the host's death")),
    };
    for _ in 0..MOST_TRIES {
        row.control = match killed(task, DOOMED_OUTSIDE, Duration::ZERO).await? {
            (true, n) if n == OF_DOOMED.len() => WORKS.into(),
            (beat, n) => format!("impossible: blocked outside too: all beat: {beat}, {n} go on"),
        };
        if row.control == WORKS {
            break;
        }
    }
    Ok(row)
}

/// How often the control is made: outside, a daemon ends by itself after 3 s, in which a busy machine may not come to
/// look twice.
const MOST_TRIES: usize = 6;

/// Starts such a host and kills it: whether all its beacons beat before, and how many do some time afterwards.
async fn killed(task: &Task, family: &str, afterwards: Duration) -> Result<(bool, usize)> {
    let inner = Task { families: vec![family.into()], only: vec![49], meter: None, ..task.clone() };
    let exe = std::env::current_exe()?;
    let mut host = Command::new(exe)
        .arg("runner")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .doing("starting a host to kill")?;
    let mut stdin = host.stdin.take().ok_or_else(|| Trouble("no stdin".into()))?;
    writeln!(stdin, "{}", serde_json::to_string(&inner)?)?;
    let stdout = host.stdout.take().ok_or_else(|| Trouble("no stdout".into()))?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let ready: std::result::Result<Doomed, _> = serde_json::from_str(&line);
    let Ok(ready) = ready else {
        let _ = host.kill();
        let _ = host.wait();
        return Err(Trouble(format!("the doomed host said {line:?}")));
    };
    let beat = ready.beacons.len() == OF_DOOMED.len() && begin_to_beat(&ready.beacons).await;
    host.kill()?;
    host.wait()?;
    tokio::time::sleep(afterwards).await;
    let going_on = beating(&ready.beacons).await;
    drop(stdin);
    // A daemon outside writes on until it ends by itself.
    let until = Instant::now() + Duration::from_secs(10);
    while fs::remove_dir_all(&ready.base).is_err() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok((beat, going_on))
}

/// What a doomed host tells before it is killed.
#[derive(serde::Serialize, serde::Deserialize)]
struct Doomed {
    base: PathBuf,
    beacons: Vec<PathBuf>,
}

/// The doomed host: launches daemons, says so, and waits for its end.
///
/// # Errors
/// When it cannot launch.
pub async fn doomed(stage: &Stage, task: &Task) -> Result<()> {
    let options = Options { cgroups: task.launcher.cgroups(), ..Options::default() };
    let walls = Walls::new(options, stage).await?;
    let mut kept = Vec::new();
    let mut beacons = Vec::new();
    for variant in OF_DOOMED {
        let ground = stage.ground()?;
        let mut params = stage.params(&ground, true);
        params.insert("seconds".into(), json!(30));
        let boxed = walls.launch(&ground, &Terms::default()).await?;
        boxed.attempt(49, variant, &params, Duration::from_secs(10)).await;
        beacons.push(ground.granted.join("beacon"));
        kept.push(boxed);
    }
    wait_for_the_end(stage, beacons).await?;
    drop(kept);
    Ok(())
}

/// The same without walls: its daemons end by themselves.
///
/// # Errors
/// When it cannot start them.
pub async fn doomed_outside(stage: &Stage, attempts: &[Attempt]) -> Result<()> {
    let (mut started, mut beacons) = (Vec::new(), Vec::new());
    for variant in OF_DOOMED {
        let attempt = attempts.iter().find(|a| (a.number, a.variant.as_str()) == (49, variant));
        let attempt = attempt.ok_or_else(|| Trouble(format!("no attempt 49 {variant}")))?;
        let ground = stage.ground()?;
        let mut params = stage.params(&ground, false);
        params.insert("seconds".into(), json!(30));
        let mut command = Command::new(stage.plugin.join("attacker"));
        command.arg("attempt").arg("49").arg(&attempt.variant);
        command.arg("--params").arg(Value::Object(params).to_string());
        command.current_dir(&ground.granted).stdin(Stdio::null()).stdout(Stdio::null());
        started.push(command.spawn().doing("a daemon outside")?);
        beacons.push(ground.granted.join("beacon"));
    }
    for mut child in started {
        child.wait()?;
    }
    wait_for_the_end(stage, beacons).await
}

async fn wait_for_the_end(stage: &Stage, beacons: Vec<PathBuf>) -> Result<()> {
    let doomed = Doomed { base: stage.base.path().to_path_buf(), beacons };
    {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&doomed)?)?;
        out.flush()?;
    }
    // Killed long before; ends by itself if the one who should do it is gone.
    tokio::time::sleep(Duration::from_secs(20)).await;
    Ok(())
}
