//! Attempts 34, 47, 58 and 59: abusing the conversation and the log. One at a time, because the host's own
//! handles and memory are watched; a neighbour plugin must go on as if nothing happened.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use palisade_model::Payload;
use palisade_process::Options;
use palisade_sandbox::{Invocation, Trace};
use serde_json::json;

use crate::{
    attacker::Attempt,
    careless,
    control::Controls,
    host_side,
    launch::{Boxed, Seen, Terms, Walls, call},
    record::{Launcher, Row},
    scene::{Ground, Stage},
    trouble::{Result, Trouble, While},
};

const MIB: u64 = 1 << 20;

/// What is poured into the log and the lane.
struct Flood {
    bytes: u64,
    frames: u64,
    /// Large calls to a plugin that reads none.
    calls: u64,
    /// Bytes of log that are allowed in a second.
    log: u64,
}

/// Far more than a processor carries in the time of an attempt.
const FLOOD: Flood = Flood { bytes: 64 * MIB, frames: 50_000, calls: 64, log: MIB };
/// The same for one that is emulated.
const TRICKLE: Flood = Flood { bytes: 8 * MIB, frames: 3000, calls: 8, log: MIB / 8 };

impl Flood {
    fn terms(&self) -> Terms {
        let mut terms = Terms::default();
        terms.limits.log_bytes_per_second = self.log;
        terms
    }
}

/// How much the host's memory may grow under any of it.
const HOST_GROWTH: u64 = 48 * MIB;
/// How long the neighbour may wait for an answer meanwhile.
const NEIGHBOUR: Duration = Duration::from_secs(1);
/// Longest piece of a line that a host is given.
const LINE: u64 = 8 * 1024;

/// Answers to `initialize` that the protocol itself must judge. What a well-formed answer says (version,
/// name) is checked by `palisade-host`, and tested there.
const HANDSHAKES: [&str; 12] = [
    "no-result",
    "both",
    "error",
    "wrong-id",
    "text-id",
    "null-id",
    "double-reply",
    "no-jsonrpc",
    "early-request",
    "garbage-first",
    "silent",
    "exit",
];

/// Whether an attempt belongs here.
#[must_use]
pub fn takes(attempt: &Attempt) -> bool {
    matches!(attempt.number, 34 | 47 | 58 | 59)
        && !matches!(attempt.variant.as_str(), "handshake" | "request")
}

/// Runs the family; on an `emulated` processor with less of everything.
///
/// # Errors
/// When the walls cannot be built.
pub async fn run(
    stage: &Arc<Stage>,
    launcher: Launcher,
    attempts: &[Attempt],
    emulated: bool,
) -> Result<Vec<Row>> {
    let flood = if emulated { TRICKLE } else { FLOOD };
    let options = Options { cgroups: launcher.cgroups(), ..Options::default() };
    let walls = Walls::new(options, stage).await?;
    let near = stage.ground()?;
    let neighbour = walls.launch(&near, &Terms::default()).await?;
    let mut rows = Vec::new();
    for attempt in attempts.iter().filter(|a| takes(a)) {
        rows.push(one(stage, launcher, &walls, attempt, &neighbour, &flood).await?);
    }
    // Afterwards: a control's own handles would be seen as the host's.
    let controls = Controls::start(stage, attempts.iter().filter(|a| takes(a)));
    if attempts.iter().any(|a| a.number == 59) {
        for mode in HANDSHAKES {
            rows.push(handshake(stage, launcher, &walls, mode, &neighbour).await?);
        }
    }
    neighbour.end().await;
    near.clear();
    controls.tell(&mut rows).await?;
    Ok(rows)
}

/// Watches host and neighbour while something is going on.
struct Vigil {
    memory: u64,
    most: u64,
    slowest: Duration,
    deaf: Option<String>,
}

impl Vigil {
    fn begin() -> Self {
        let memory = host_side::memory();
        Self { memory, most: memory, slowest: Duration::ZERO, deaf: None }
    }

    async fn look(&mut self, neighbour: &Boxed) {
        let begun = Instant::now();
        if let Err(e) = call(&neighbour.instance, "ping", &json!({}), NEIGHBOUR).await {
            self.deaf.get_or_insert(e.to_string());
        }
        self.slowest = self.slowest.max(begun.elapsed());
        self.most = self.most.max(host_side::memory());
    }

    fn growth(&self) -> u64 {
        self.most - self.memory
    }

    fn harm(&self) -> Option<String> {
        if let Some(why) = &self.deaf {
            return Some(format!("the neighbour did not answer: {why}"));
        }
        (self.growth() > HOST_GROWTH).then(|| format!("the host grew by {} bytes", self.growth()))
    }
}

async fn one(
    stage: &Stage,
    launcher: Launcher,
    walls: &Walls,
    attempt: &Attempt,
    neighbour: &Boxed,
    flood: &Flood,
) -> Result<Row> {
    let ground = stage.ground()?;
    let mut params = stage.params(&ground, true);
    params.extend([
        ("bytes".to_owned(), json!(flood.bytes)),
        ("count".to_owned(), json!(flood.frames)),
        (
            "seconds".to_owned(),
            json!(if matches!(attempt.variant.as_str(), "half-frame" | "slow-drip") {
                2
            } else {
                10
            }),
        ),
    ]);
    let deadline = match attempt.variant.as_str() {
        "half-frame" | "never-read" | "slow-drip" => Duration::from_millis(1500),
        _ => Duration::from_secs(15),
    };
    let before = host_side::handles();
    let mut vigil = Vigil::begin();
    let begun = Instant::now();
    let boxed = walls.launch(&ground, &flood.terms()).await?;
    // So that what is said about `initialize` later comes after an honest one.
    let hello = json!({"protocol": {"min": 1, "max": 1}});
    call(&boxed.instance, "initialize", &hello, NEIGHBOUR).await.doing("initialize")?;
    let seen = {
        let attack = boxed.attempt(attempt.number, &attempt.variant, &params, deadline);
        tokio::pin!(attack);
        loop {
            tokio::select! {
                seen = &mut attack => break seen,
                () = tokio::time::sleep(Duration::from_millis(20)) => vigil.look(neighbour).await,
            }
        }
    };
    let mut harm = None;
    if attempt.variant == "never-read" {
        harm = fill_lane(&boxed, &mut vigil, neighbour, flood.calls).await?;
    }
    vigil.look(neighbour).await;
    let (took, _) = boxed.end().await;
    if took > Duration::from_secs(1) {
        harm.get_or_insert(format!("the end took {took:?}"));
    }
    let mut row = Row::new(attempt.number, &attempt.variant, &attempt.name, launcher);
    if attempt.variant.starts_with("log-") {
        harm = harm.or(log_harm(&boxed, begun.elapsed(), &mut row, flood.log).await);
    }
    drop(boxed);
    let extra = host_side::new_handles(&before).await;
    if !extra.is_empty() {
        harm.get_or_insert(format!("the host holds {extra:?}"));
    }
    harm = harm.or(vigil.harm()).or(ground.damage(&stage.secret));
    row.measured.insert("host_growth_bytes".into(), vigil.growth());
    row.measured.insert("neighbour_wait_millis".into(), vigil.slowest.as_millis() as u64);
    ground.clear();
    Ok(judged(row, &seen, harm))
}

fn judged(row: Row, seen: &Seen, harm: Option<String>) -> Row {
    if let Some(harm) = harm {
        return row.seen("SUCCEEDED", format!("the host finds: {harm}"));
    }
    let outcome = seen.outcome();
    // Taking part in the conversation is no goal: what counts is that host and neighbour are unharmed. A
    // descriptor that the host keeps is one, and says so itself.
    let carried_out = outcome == "SUCCEEDED" && !matches!(row.number, 34 | 58);
    match outcome.as_str() {
        _ if carried_out => row.seen("contained", seen.detail()),
        "unanswered:PAL-DEADLINE" => row.seen("contained", seen.detail()),
        _ => row.seen(outcome, seen.detail()),
    }
}

/// Many large calls to a plugin that reads none of them: each ends by its deadline, and the queue is
/// bounded.
async fn fill_lane(
    boxed: &Boxed,
    vigil: &mut Vigil,
    neighbour: &Boxed,
    calls: u64,
) -> Result<Option<String>> {
    let filler = Payload::json(&json!({"tool": "x", "args": "y".repeat(1 << 18)}))?;
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..calls {
        let (instance, payload) = (boxed.instance.clone(), filler.clone());
        tasks.spawn(async move {
            let deadline = Instant::now() + Duration::from_millis(500);
            let invocation = Invocation {
                method: "call",
                payload,
                tool: None,
                deadline,
                trace: Trace::default(),
            };
            instance.lane().call(invocation).await.is_err()
        });
    }
    vigil.look(neighbour).await;
    while let Some(failed) = tasks.join_next().await {
        if !failed.map_err(|e| Trouble(e.to_string()))? {
            return Ok(Some("a call that nobody read was answered".into()));
        }
    }
    let took = begun.elapsed();
    Ok((took > Duration::from_secs(3)).then(|| format!("calls with 0.5 s to go took {took:?}")))
}

/// What the log let through, against its rate.
async fn log_harm(boxed: &Boxed, took: Duration, row: &mut Row, rate: u64) -> Option<String> {
    // Dropped bytes are reported when the stream ends.
    for _ in 0..50 {
        if boxed.host.dropped.load(Ordering::Relaxed) > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (logged, dropped) =
        (boxed.host.logged.load(Ordering::Relaxed), boxed.host.dropped.load(Ordering::Relaxed));
    let longest = boxed.host.longest.load(Ordering::Relaxed);
    row.measured.insert("logged_bytes".into(), logged);
    row.measured.insert("dropped_bytes".into(), dropped);
    let allowed = rate * (took.as_secs() + 2);
    // Text that is not UTF-8 may grow threefold when it is made so; this is ASCII.
    if logged > allowed {
        return Some(format!("{logged} bytes of log in {took:?}"));
    }
    if longest > LINE {
        return Some(format!("a line of {longest} bytes"));
    }
    (dropped == 0).then(|| "dropped log is not reported".into())
}

async fn handshake(
    stage: &Stage,
    launcher: Launcher,
    walls: &Walls,
    mode: &str,
    neighbour: &Boxed,
) -> Result<Row> {
    let ground: Ground = stage.ground()?;
    let row = Row::new(59, &format!("handshake-{mode}"), "answer initialize dishonestly", launcher);
    let mut vigil = Vigil::begin();
    let boxed = walls.launch(&ground, &Terms::default()).await?;
    let hello = json!({"protocol": {"min": 1, "max": 1}, "config": {"handshake": mode}});
    let answer = call(&boxed.instance, "initialize", &hello, Duration::from_secs(1)).await;
    // Whatever came after the answer is read too.
    let exit = tokio::time::timeout(Duration::from_millis(300), boxed.instance.wait()).await.ok();
    vigil.look(neighbour).await;
    boxed.end().await;
    ground.clear();
    let mut row = match (&answer, &exit) {
        (_, Some(exit)) => row.seen(crate::launch::ending(&exit.cause), exit.to_string()),
        (Err(failure), None) => row.seen(format!("blocked:{}", failure.code), failure.to_string()),
        (Ok(answer), None) => row.seen(
            "contained",
            format!("one answer was taken: {}", String::from_utf8_lossy(answer.bytes())),
        ),
    };
    row.control = careless::works(stage, "handshake", &[mode])?;
    Ok(match vigil.harm() {
        Some(harm) => row.seen("SUCCEEDED", harm),
        None => row,
    })
}
