//! `policed_overshoot`: how far a plugin gets over limits that no cgroup holds.
//!
//! The escape suite's attacker is a plugin behind walls without cgroups, with the default limits, and takes all
//! it can get. Its processes and its data folder are looked at from outside about every millisecond; the
//! highest that was seen, over the limit, is the row. What lasts shorter than the time between two looks is not
//! seen.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_host::{CallOptions, Host, Plugin};
use palisade_model::Limits;
use palisade_process::{Options, ProcessBackend};
use serde_json::{Value, json};

use super::bombs;
use crate::{
    plugin::Result,
    report::{Row, Samples},
};

const ROUNDS: usize = 7;
/// How long it is watched, unless it is ended before.
const ROUND: Duration = Duration::from_secs(4);
const LOOK: Duration = Duration::from_millis(1);
/// The time over which a share of the processor is counted.
const WINDOW: Duration = Duration::from_secs(2);
/// Clock ticks a second in /proc (USER_HZ).
const TICKS: f64 = 100.0;
const MIB: f64 = 1_048_576.0;

/// What is attacked: name, unit, attempt of the escape suite with its parameters.
type Attack = (&'static str, &'static str, u16, &'static str, &'static str);
const ATTACKS: [Attack; 4] = [
    ("memory", "MiB", 43, "anon", r#"{"bytes": 1073741824}"#),
    ("cpu", "cpus", 44, "spin-children", r#"{"threads": 16, "seconds": 30}"#),
    ("disk", "MiB", 45, "fill", r#"{"dir": "/data", "bytes": 1073741824}"#),
    ("pids", "", 42, "fork", r#"{"count": 4096}"#),
];

/// Measures on the runtime that `#[tokio::main]` gives.
pub(super) fn run() -> Result<Vec<Row>> {
    tokio::runtime::Runtime::new()?.block_on(measure())
}

async fn measure() -> Result<Vec<Row>> {
    let state = tempfile::tempdir()?;
    let options = Options { cgroups: false, ..Options::default() };
    let host = Host::builder()
        .state_dir(state.path().join("state"))
        .backend(Arc::new(ProcessBackend::new(options)))
        .build()
        .await?;
    let attacker = bombs::attacker()?;
    let plugin = host.load(attacker.path()).await?;
    let limits = Limits::default();
    let mut rows = Vec::new();
    for attack in ATTACKS {
        let (name, unit, ..) = attack;
        let limit = match name {
            "memory" => limits.memory as f64 / MIB,
            "cpu" => limits.cpu,
            "disk" => limits.disk as f64 / MIB,
            _ => f64::from(limits.pids),
        };
        let (mut highest, mut allowed) = <(Samples, Samples)>::default();
        for _ in 0..ROUNDS {
            let seen = round(&plugin, attack, &state.path().join("state/data")).await?;
            highest.push(seen);
            allowed.push(limit);
        }
        // The bound is about the worst, not about what is usual.
        let worst = highest.quantile(1.0);
        let row = Row::new(&format!("policed_overshoot.{name}"), unit, &highest).against(&allowed);
        rows.push(Row { note: format!("{}; worst {worst:.1}", row.note), ..row });
    }
    host.shutdown().await?;
    Ok(rows)
}

/// The most that was seen of what `attack` is about.
async fn round(plugin: &Plugin, attack: Attack, data: &Path) -> Result<f64> {
    let (name, _, number, variant, params) = attack;
    let params: Value = serde_json::from_str(params)?;
    let args = json!({"number": number, "variant": variant, "params": params});
    plugin.start().await?;
    let folder = of_attacker(data)?;
    let attempt = tokio::spawn({
        let plugin = plugin.clone();
        async move {
            let patience = CallOptions::new().timeout(Duration::from_secs(60));
            let _ = plugin.call_with("attempt", &args, patience).await;
        }
    });
    let end = Instant::now() + ROUND;
    let (mut highest, mut times) = (0.0f64, Vec::<(Instant, f64)>::new());
    while Instant::now() < end && !attempt.is_finished() {
        let seen = match name {
            "memory" => attackers(memory) / MIB,
            "disk" => size(&folder) / MIB,
            "pids" => attackers(threads),
            _ => {
                let now = Instant::now();
                times.push((now, attackers(ticks) / TICKS));
                let first = times.iter().find(|(at, _)| now - *at <= WINDOW);
                match (first, times.last()) {
                    (Some(first), Some(last)) if last.0 - first.0 > WINDOW.mul_f64(0.95) => {
                        (last.1 - first.1) / (last.0 - first.0).as_secs_f64()
                    }
                    _ => 0.0,
                }
            }
        };
        highest = highest.max(seen);
        tokio::time::sleep(LOOK).await;
    }
    attempt.abort();
    let _ = plugin.kill().await;
    for entry in fs::read_dir(&folder)?.flatten() {
        let _ = if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
    }
    if highest == 0.0 {
        return Err(format!("the attacker used nothing: {name} was not attacked").into());
    }
    Ok(highest)
}

/// Its data folder.
fn of_attacker(data: &Path) -> Result<PathBuf> {
    let found = fs::read_dir(data)?
        .flatten()
        .find(|e| e.file_name().to_string_lossy().starts_with("bomb"))
        .map(|e| e.path());
    found.ok_or_else(|| "the attacker has no data folder".into())
}

/// The sum over all processes of the attacker.
fn attackers(what: impl Fn(&Path) -> Option<f64>) -> f64 {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten().map(|e| e.path());
    all.filter(|p| fs::read_to_string(p.join("comm")).is_ok_and(|name| name == "attacker\n"))
        .filter_map(|p| what(&p))
        .sum()
}

/// A field of `/proc/PID/status`, in its own unit.
fn field(process: &Path, name: &str) -> Option<f64> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn memory(process: &Path) -> Option<f64> {
    Some((field(process, "RssAnon:")? + field(process, "RssShmem:")?) * 1024.0)
}

fn threads(process: &Path) -> Option<f64> {
    field(process, "Threads:")
}

/// User and system time, and that of children that were waited for (proc_pid_stat(5)).
fn ticks(process: &Path) -> Option<f64> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let fields = stat.rsplit_once(") ")?.1.split(' ').skip(11).take(4);
    Some(fields.filter_map(|f| f.parse::<f64>().ok()).sum())
}

/// Bytes that a folder takes on disk.
fn size(folder: &Path) -> f64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|e| Some((e.path(), e.metadata().ok()?)));
    sizes.map(|(p, m)| if m.is_dir() { size(&p) } else { m.blocks() as f64 * 512.0 }).sum()
}
