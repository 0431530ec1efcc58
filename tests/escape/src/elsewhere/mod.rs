//! The same attacker behind other people's walls: bubblewrap, Anthropic's sandbox-runtime, sandlock.
//!
//! For docs/explanation/comparison.md, not for the matrix: nothing here is asserted. Everything runs as an
//! ordinary user, since those tools are made for one, and what a weaker wall might let through to the
//! machine is left out: what could hurt it, and packets to other machines.

pub mod limits;
pub mod page;
pub mod tools;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::thread::UnshareFlags;
use serde_json::json;

use crate::{
    attacker::{self, Attempt},
    expected::Matrix,
    families::general,
    judge,
    launch::Answer,
    record::{Launcher, Row},
    scene::{self, Ground, Stage},
    suite::{self, FORBIDDEN, Family, USER},
    trouble::{Result, Trouble, While},
};

use tools::{Ended, Tool};

/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a daemon of the attacker goes on, seconds.
const DAEMON_SECONDS: u64 = 4;
/// By when everything must have stopped.
const GONE: Duration = Duration::from_secs(1);

/// Whether an attempt is made behind walls that may be thin.
#[must_use]
pub fn takes(attempt: &Attempt) -> bool {
    let could_hurt = attempt.harmful || matches!(attempt.number, 9 | 51);
    // These would send packets to other machines, or need Palisade's channel.
    let elsewhere = matches!(attempt.control.as_str(), "route lookup only" | "channel");
    // Their ends are judged here: see `one`.
    let daemon = is_daemon(attempt);
    let needs_channel = matches!(
        (attempt.number, attempt.variant.as_str()),
        (19, "setns-peer") | (27 | 28, "peer") | (33, _) | (70, "peer-credentials")
    );
    (general::takes(attempt) || daemon) && !could_hurt && !elsewhere && !needs_channel
}

fn is_daemon(attempt: &Attempt) -> bool {
    attempt.number == 49 && matches!(attempt.variant.as_str(), "double-fork" | "exec" | "orphan")
}

/// What a runner is told: one line on its standard input.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Task {
    /// Behind what.
    pub tool: Tool,
    /// The built attacker.
    pub attacker: PathBuf,
    /// Words that nobody inside may see.
    pub forbidden: Vec<String>,
    /// Set-id copies that root made.
    pub privileged: Option<PathBuf>,
}

/// Makes every attempt of the comparison behind Palisade and behind each of `others`, as an ordinary user.
/// `runner` is the `escape` program.
///
/// # Errors
/// When the scene, the attacker or a tool cannot be used; never because of an outcome.
pub fn compare(runner: &Path, others: &[Tool]) -> Result<Vec<Row>> {
    let program = attacker::build()?;
    let attempts = attacker::list(&program)?;
    let mut rows = std::thread::scope(|scope| {
        let started: Vec<_> = others
            .iter()
            .map(|tool| {
                let program = &program;
                scope.spawn(move || behind(runner, program, tool))
            })
            .collect();
        let ended = started.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(Trouble("a runner's thread panicked".into())))
        });
        ended.collect::<Result<Vec<_>>>()
    })?
    .concat();
    let families = [Family::General, Family::Survive, Family::Limits];
    let ours = suite::run(runner, Launcher::User, &families)?;
    let compared = |row: &Row| {
        if limits::is_one(row.number, &row.variant) {
            return true;
        }
        let way = row.variant.split('+').next().unwrap_or_default();
        (row.number, row.variant.as_str()) == (49, "host-sigkill")
            || attempts
                .iter()
                .any(|a| (a.number, a.variant.as_str()) == (row.number, way) && takes(a))
    };
    let ours = ours.into_iter().filter(compared).map(|mut row| {
        row.backend = "palisade".into();
        row
    });
    rows.extend(ours);
    // What the same attempts come to without any walls, as that user.
    let matrix = Matrix::read()?;
    for row in &mut rows {
        let key = |variant: &str| matrix.0.get(&(row.number, variant.to_owned()));
        let kill = format!("{}+kill", row.variant);
        let cell = key(&row.variant).or_else(|| key(&kill)).and_then(|e| e.launchers.get("user"));
        row.control = cell.map_or_else(String::new, |c| c.control.clone());
    }
    rows.sort_by(|a, b| {
        (a.number, &a.variant, &a.backend).cmp(&(b.number, &b.variant, &b.backend))
    });
    Ok(rows)
}

/// One runner behind one tool, as [`USER`] where root starts it.
fn behind(runner: &Path, attacker: &Path, tool: &Tool) -> Result<Vec<Row>> {
    if rustix::process::geteuid().is_root() {
        // What is left of System V memory and message queues goes with the last process, and touches nobody.
        #[expect(deprecated, reason = "safe for this flag: descriptors are not concerned")]
        rustix::thread::unshare(UnshareFlags::NEWIPC).doing("an IPC namespace of its own")?;
    }
    let folder = scene::open_folder()?;
    let copy = |from: &Path, name: &str| -> Result<PathBuf> {
        let to = folder.path().join(name);
        fs::copy(from, &to).doing("copying a program")?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
        Ok(to)
    };
    let (runner, attacker) = (copy(runner, "escape")?, copy(attacker, "attacker")?);
    let tool = tool.within(folder.path())?;
    let home = folder.path().join("home");
    fs::create_dir(&home)?;
    let mut command = Command::new(&runner);
    let mut privileged = None;
    if rustix::process::geteuid().is_root() {
        let rights = folder.path().join("rights");
        fs::create_dir(&rights)?;
        scene::make_privileged(&attacker, &rights)?;
        privileged = Some(rights);
        std::os::unix::fs::chown(&home, Some(USER), Some(USER))?;
        command.uid(USER).gid(USER);
    }
    let task = Task { tool, attacker, forbidden: vec![FORBIDDEN.into()], privileged };
    let child = suite::careless(command.args(["elsewhere-runner", FORBIDDEN]), &home)
        .spawn()
        .doing("starting a runner")?;
    suite::tell(child, &task)
}

/// Makes the attempts behind one tool, in this process and as its user.
///
/// # Errors
/// When the scene cannot be set or the tool cannot be started at all.
pub fn run(task: &Task) -> Result<Vec<Row>> {
    let attempts: Vec<Attempt> =
        attacker::list(&task.attacker)?.into_iter().filter(takes).collect();
    let lanes = task.tool.at_once();
    let parts = std::thread::scope(|scope| {
        let started: Vec<_> = (0..lanes)
            .map(|lane| {
                let mine: Vec<&Attempt> = attempts.iter().skip(lane).step_by(lanes).collect();
                scope.spawn(move || lane_of(task, &mine, lane == 0))
            })
            .collect();
        let ended = started.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(Trouble("a lane's thread panicked".into())))
        });
        ended.collect::<Result<Vec<_>>>()
    })?;
    Ok(parts.concat())
}

/// Attempts one after the other on a stage of their own: what the host finds belongs to one of them.
fn lane_of(task: &Task, attempts: &[&Attempt], with_host: bool) -> Result<Vec<Row>> {
    let stage =
        Arc::new(Stage::build(&task.attacker, task.forbidden.clone(), task.privileged.clone())?);
    task.tool.check(&[], &stage)?;
    let mut rows = Vec::new();
    for attempt in attempts {
        rows.push(one(task, &stage, attempt)?);
    }
    if with_host {
        rows.push(host_killed(task, &stage)?);
        if task.tool.has_limits() {
            rows.extend(limits::run(task, &stage)?);
        }
    }
    Ok(rows)
}

fn row(task: &Task, number: u16, variant: &str, name: &str) -> Row {
    let mut row = Row::new(number, variant, name, Launcher::User);
    row.backend = task.tool.name().into();
    row
}

fn one(task: &Task, stage: &Stage, attempt: &Attempt) -> Result<Row> {
    let ground = stage.ground()?;
    let mut params = stage.params(&ground, true);
    params.extend(judge::params(stage, attempt, &ground, true));
    // Only the routing table is asked; nothing is sent to another machine.
    params.insert("connect".into(), json!(false));
    params.insert("seconds".into(), json!(DAEMON_SECONDS));
    let watch = judge::Watch::begin(stage, attempt, &mut params);
    let told = ground.data.join("params.json");
    fs::write(&told, serde_json::to_string(&params)?)?;
    let args = [
        "attempt".to_owned(),
        attempt.number.to_string(),
        attempt.variant.clone(),
        "--elsewhere".to_owned(),
        "--params".to_owned(),
        format!("@{}", told.display()),
    ];
    let ended = task.tool.start(stage, &ground, &args)?.wait(PATIENCE);
    if attempt.number == 28 {
        // A signal may still be on its way.
        std::thread::sleep(Duration::from_millis(50));
    }
    let (outcome, detail) = read_answer(&ended);
    let harm = judge::harm(stage, attempt, &ground, watch.end());
    let (outcome, detail) = match harm {
        Some(harm) => ("SUCCEEDED".to_owned(), format!("{} {harm}", judge::HOST_FINDS)),
        None if is_daemon(attempt) && outcome == "SUCCEEDED" => after_daemon(&ground, detail),
        // What was sent to the victim ends or stops it, and it runs.
        None if attempt.number == 28 && outcome == "SUCCEEDED" => ("blocked".to_owned(), detail),
        // Only in a network namespace of its own is it the plugin's own network that is shown.
        None if (attempt.number, attempt.variant.as_str()) == (35, "netlink-route")
            && !task.tool.own_network() =>
        {
            (outcome, detail)
        }
        None => judge::bounded(attempt, outcome, detail),
    };
    ground.clear();
    Ok(row(task, attempt.number, &attempt.variant, &attempt.name).seen(outcome, detail))
}

/// The answer, or how it ended without one.
fn read_answer(ended: &Ended) -> (String, String) {
    let answer = ended.out.lines().rev().find_map(|l| serde_json::from_str::<Answer>(l).ok());
    match (answer, ended.status) {
        (Some(answer), _) => (answer.word(), answer.detail),
        (None, None) => ("unanswered:deadline".into(), ended.trouble()),
        // Shells and these tools pass a signal on as 128 and its number.
        (None, Some(status @ 129..=192)) => {
            (format!("ended:signal {}", status - 128), ended.trouble())
        }
        (None, Some(status)) => (format!("ended:status {status}"), ended.trouble()),
    }
}

/// Whether a daemon outlives the plugin whose work is over.
fn after_daemon(ground: &Ground, detail: String) -> (String, String) {
    std::thread::sleep(GONE);
    if beats(&ground.granted.join("beacon")) {
        return ("SUCCEEDED".into(), format!("{} the beacon goes on", judge::HOST_FINDS));
    }
    ("contained".into(), detail)
}

fn beats(beacon: &Path) -> bool {
    let before = fs::read(beacon).unwrap_or_default();
    std::thread::sleep(Duration::from_millis(300));
    fs::read(beacon).unwrap_or_default() != before
}

/// What the host started is killed by SIGKILL while the plugin runs.
fn host_killed(task: &Task, stage: &Stage) -> Result<Row> {
    let row = row(task, 49, "host-sigkill", "outlive a host that is killed");
    let ground = stage.ground()?;
    let beacon = ground.granted.join("beacon");
    let args = ["beacon".to_owned(), beacon.display().to_string(), "12".to_owned()];
    let mut running = task.tool.start(stage, &ground, &args)?;
    let end = Instant::now() + Duration::from_secs(6);
    while !beats(&beacon) {
        if Instant::now() > end {
            running.end();
            return Ok(row.seen("impossible:the beacon did not beat", ""));
        }
    }
    running.kill_first()?;
    std::thread::sleep(GONE);
    let goes_on = beats(&beacon);
    running.end();
    ground.clear();
    Ok(if goes_on {
        row.seen("SUCCEEDED", "the beacon goes on after the death of what started it")
    } else {
        row.seen("contained", "the beacon stopped within 1 s")
    })
}
