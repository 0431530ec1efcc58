//! What the hostile plugin tries, and whether it achieved anything.
//!
//! Its own report is shown but not believed: after each attempt the stage is looked at, its use of the
//! machine is held against its limits, and a neighbour must still answer.

use std::time::{Duration, Instant};

use palisade_host::{CallOptions, Plugin, State};
use palisade_model::{ErrorCode, Failure, Kind, text::escape};
use palisade_sandbox::Usage;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    good::{Troupe, grant, load as load_from},
    set_up,
    sink::Counting,
    stage::Stage,
};
use crate::{session::Session, terminal::Progress, trouble::Trouble, words};

/// How often the plugin's use of the machine is looked at during an attempt.
const SAMPLE: Duration = Duration::from_millis(25);
/// How long it may keep silent.
const SILENCE: Duration = Duration::from_secs(1);
/// Longest answer that is shown, in characters.
const MAX_ANSWER: usize = 120;

/// `what` of the plugin's tool `try`, the same in words, and what it is given.
struct Attempt(&'static str, &'static str, fn(&Stage) -> Value);

fn none(_: &Stage) -> Value {
    json!({})
}

fn host(_: &Stage) -> Value {
    json!({"pid": std::process::id()})
}

fn secret(stage: &Stage) -> Value {
    json!({"path": stage.text("secret.txt"), "name": stage.text("inbox")})
}

fn home_keys(_: &Stage) -> Value {
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
    json!({"path": format!("{home}/.ssh")})
}

/// In the order of the table. Those that use the machine up come last.
const ATTEMPTS: &[Attempt] = &[
    Attempt("list-folder", "list ~/.ssh", home_keys),
    Attempt("read-file", "read /etc/shadow", |_| json!({"path": "/etc/shadow"})),
    Attempt("read-file", "read a secret of the host", secret),
    Attempt("read-by-dots", "read it by way of ../../..", secret),
    Attempt("read-by-symlink", "read it through a link in its folder", secret),
    Attempt("list-folder", "read another plugin's data", |s| json!({"path": s.text("state/data")})),
    Attempt("read-host-environment", "read the host's environment", host),
    Attempt("read-host-memory", "read the host's memory", host),
    Attempt("trace-host", "trace the host (ptrace)", host),
    Attempt("kill-host", "kill the host", host),
    Attempt("reach-loopback", "reach a server on loopback", |s| json!({"port": s.port()})),
    Attempt("reach-metadata", "reach the cloud's metadata address", none),
    Attempt(
        "reach-sockets",
        "reach docker, D-Bus and a socket of the host",
        |s| json!({"path": s.text("host.sock")}),
    ),
    Attempt("ask-for-secret", "ask the host for a secret", none),
    Attempt("publish-event", "publish an event nobody granted", none),
    Attempt("nested-namespace", "become root in a new namespace", none),
    Attempt("mount-something", "mount a file system", none),
    Attempt("run-dropped-program", "run a program it wrote", none),
    Attempt("rewrite-itself", "rewrite its own program", none),
    Attempt(
        "write-outside",
        "write outside its folder",
        |s| json!({"path": s.text("outside/owned.txt")}),
    ),
    Attempt(
        "leave-setuid",
        "leave a set-user-id file behind",
        |s| json!({"path": s.text("inbox")}),
    ),
    Attempt("open-everything", "use up all file handles", none),
    Attempt("flood-log", "flood the log with 32 MB", none),
    Attempt("fork-bomb", "fork bomb", none),
    Attempt("fill-disk", "fill the disk", none),
    Attempt("memory-bomb", "memory bomb", none),
    Attempt("never-answer", "never answer", none),
];

/// What became of one attempt.
#[derive(Debug, Serialize)]
pub(super) struct Attempted {
    pub(super) what: &'static str,
    pub(super) tried: &'static str,
    /// What the plugin or its end told, escaped.
    pub(super) answer: String,
    /// What it achieved, as seen from this side. Empty: nothing.
    pub(super) achieved: Vec<String>,
    /// Whether it had to be ended.
    pub(super) ended: bool,
    pub(super) micros: u64,
    /// How long a neighbour took to answer afterwards; `None`: it did not.
    pub(super) neighbour_micros: Option<u64>,
}

impl Attempted {
    /// Nothing was achieved, and the neighbour answers.
    pub(super) fn is_contained(&self) -> bool {
        self.achieved.is_empty() && self.neighbour_micros.is_some()
    }
}

/// Loads the hostile plugin and grants it the folder that it asks for.
pub(super) async fn load(
    session: &Session,
    stage: &Stage,
    backend: Option<&str>,
) -> Result<Plugin, Trouble> {
    let hostile = load_from(session, stage, "hostile", backend).await?;
    grant(&hostile, Kind::FsWrite, stage, "inbox").await?;
    Ok(hostile)
}

/// Has it try everything.
pub(super) async fn all(
    hostile: &Plugin,
    troupe: &Troupe,
    stage: &Stage,
    sink: &Counting,
    progress: &Progress,
) -> Result<Vec<Attempted>, Trouble> {
    let mut all = Vec::with_capacity(ATTEMPTS.len());
    for (number, attempt) in ATTEMPTS.iter().enumerate() {
        progress.step(format_args!(
            "hostile plugin, {} of {}: {}",
            number + 1,
            ATTEMPTS.len(),
            attempt.1
        ));
        if hostile.status().state != State::Running {
            hostile.start().await?;
        }
        all.push(one(hostile, attempt, troupe, stage, sink).await?);
    }
    hostile.kill().await?;
    Ok(all)
}

async fn one(
    hostile: &Plugin,
    &Attempt(what, tried, given): &Attempt,
    troupe: &Troupe,
    stage: &Stage,
    sink: &Counting,
) -> Result<Attempted, Trouble> {
    let mut arguments = given(stage);
    if let Some(map) = arguments.as_object_mut() {
        map.insert("what".into(), what.into());
    }
    let logged = sink.bytes();
    let began = Instant::now();
    let (outcome, mut peak) = watched_call(hostile, &arguments, what == "never-answer").await;
    let took = began.elapsed();
    // A plugin that its attempt has ended is still ending; how, is known once it has.
    let status = settled(hostile).await;
    let ended = status.state != State::Running;
    if let Some(usage) = status.exit.as_ref().filter(|_| ended).and_then(|exit| exit.usage) {
        peak = highest(peak, usage);
    }
    let (said, mut answer) = told(&outcome);
    let mut achieved = stage.harm(&said).map_err(set_up)?;
    if let Some(claim) = claim(&outcome) {
        achieved.push(format!("it says so: {claim}"));
    }
    if what == "flood-log" {
        sink.quiet().await;
    }
    let logged = sink.bytes() - logged;
    achieved.extend(excess(hostile, peak, stage, logged, took).map_err(set_up)?);
    if sink.has_unsafe_line() {
        achieved.push("it wrote control characters into the log".to_owned());
    }
    if what == "flood-log" {
        let kept = words::bytes(logged as u64);
        answer = match sink.dropped() {
            0 => format!("kept {kept}, escaped"),
            _ => format!("kept {kept}, escaped; the rest was dropped"),
        };
    }
    if matches!(&outcome, Err(f) if f.code == ErrorCode::Deadline) {
        // It still sits in its attempt.
        hostile.kill().await?;
    }
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Ok(Attempted {
        what,
        tried,
        answer,
        achieved,
        ended,
        micros: micros(took),
        neighbour_micros: troupe.neighbour().await.map(micros),
    })
}

/// Makes the call, and looks all the while at what the plugin uses.
async fn watched_call(
    hostile: &Plugin,
    arguments: &Value,
    is_silent: bool,
) -> (Result<Value, Failure>, Usage) {
    let mut options = CallOptions::new();
    if is_silent {
        options = options.timeout(SILENCE);
    }
    let call = hostile.call_with("try", arguments, options);
    tokio::pin!(call);
    let mut peak = Usage::default();
    let mut tick = tokio::time::interval(SAMPLE);
    let outcome = loop {
        tokio::select! {
            outcome = &mut call => break outcome,
            _ = tick.tick() => {
                if let Some(usage) = hostile.usage().await {
                    peak = highest(peak, usage);
                }
            }
        }
    };
    let outcome = outcome.and_then(|payload| {
        payload.parse().map_err(|e| Failure::new(ErrorCode::PluginError, e.to_string()))
    });
    (outcome, peak)
}

/// Its status, once it either runs or rests.
async fn settled(hostile: &Plugin) -> palisade_host::Status {
    for _ in 0..40 {
        let status = hostile.status();
        if status.state == State::Running || status.state.is_resting() {
            return status;
        }
        tokio::time::sleep(SAMPLE).await;
    }
    hostile.status()
}

fn highest(a: Usage, b: Usage) -> Usage {
    Usage {
        cpu: a.cpu.max(b.cpu),
        memory: a.memory.max(b.memory),
        memory_peak: a.memory_peak.max(b.memory_peak),
        pids: a.pids.max(b.pids),
        disk: a.disk.max(b.disk),
    }
}

/// All that the plugin said, and the part of it that is shown.
fn told(outcome: &Result<Value, Failure>) -> (String, String) {
    match outcome {
        Ok(value) => {
            let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
            let said = format!("{}\n{}", text("answer"), text("read"));
            let shown = match text("outcome") {
                "blocked" | "nothing" => text("answer").to_owned(),
                other => format!("{other}: {}", text("answer")),
            };
            (said, escape(&shown, MAX_ANSWER))
        }
        Err(failure) => {
            let shown = match failure.code {
                ErrorCode::Deadline => format!("no answer within {} s; ended", SILENCE.as_secs()),
                _ => failure.message.trim_start_matches("the plugin ended: ").to_owned(),
            };
            (failure.to_string(), escape(&shown, MAX_ANSWER))
        }
    }
}

/// What it claims to have achieved.
fn claim(outcome: &Result<Value, Failure>) -> Option<String> {
    let value = outcome.as_ref().ok()?;
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    (text("outcome") == Some("SUCCEEDED"))
        .then(|| escape(text("answer").unwrap_or_default(), MAX_ANSWER))
}

/// Where it used more than it may.
fn excess(
    hostile: &Plugin,
    peak: Usage,
    stage: &Stage,
    logged: usize,
    took: Duration,
) -> std::io::Result<Vec<String>> {
    let limits = hostile.manifest().limits();
    let mut excess = Vec::new();
    let memory = peak.memory_peak.max(peak.memory).unwrap_or(0);
    if memory > limits.memory + palisade_process::POLICED_MEMORY_OVERSHOOT {
        excess.push(format!("it used {} of memory", words::bytes(memory)));
    }
    if let Some(pids) = peak.pids.filter(|pids| *pids > limits.pids) {
        excess.push(format!("it had {pids} processes"));
    }
    // The data folder is measured, not capped: a little more can be there for a moment.
    let disk = stage.data_bytes()?;
    if disk > 2 * limits.disk + (16 << 20) {
        excess.push(format!("it holds {} of disk", words::bytes(disk)));
    }
    // Two seconds more than it took: the bucket's burst, and lines still on their way.
    let rate = usize::try_from(limits.log_bytes_per_second).unwrap_or(usize::MAX);
    let seconds = usize::try_from(took.as_secs()).unwrap_or(usize::MAX).saturating_add(2);
    if logged > rate.saturating_mul(seconds).saturating_mul(2) {
        excess.push(format!("{} of its log came through", words::bytes(logged as u64)));
    }
    Ok(excess)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_of_success_is_taken_seriously_whatever_else_is_seen() {
        let outcome = Ok(json!({"outcome": "SUCCEEDED", "answer": "sent SIGKILL to 1\u{1b}[2J"}));
        assert_eq!(claim(&outcome).unwrap(), "sent SIGKILL to 1\\u{1b}[2J");
        let blocked = Ok(json!({"outcome": "blocked", "answer": "EPERM"}));
        assert_eq!(claim(&blocked), None);
        assert_eq!(told(&blocked).1, "EPERM");
    }

    #[test]
    fn every_attempt_is_one_that_the_plugin_knows() {
        let program = include_str!("../../../../plugins/hostile/main.py");
        for Attempt(what, ..) in ATTEMPTS {
            let function = format!("@attempt\ndef {}(", what.replace('-', "_"));
            assert!(program.contains(&function), "the plugin has no attempt {what}");
        }
        assert!(ATTEMPTS.len() >= 16);
    }
}
