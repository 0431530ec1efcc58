//! `neighbour_p99_ratio`: how a plugin's calls fare while another plugin takes all it can get.
//!
//! The neighbour answers calls that come a millisecond or two apart, through the whole host: gate, rates,
//! record on disk, protocol, walls. Rounds with the other plugin alternate with rounds without it; each
//! gives the 99th percentile of the call's time, and the medians of those are compared. A third round, again
//! without the bomb, tells what the same comparison gives where nothing disturbs: if that is far from 1, the
//! machine was not quiet enough for the row to mean anything.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_host::Plugin;
use palisade_process::{Options, ProcessBackend};
use serde_json::value::RawValue;

use super::bombs::{self, Arsenal, BOMBS, Bomb};
use crate::{
    host,
    plugin::{self, MESSAGE, Result},
    report::{Row, Samples},
};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(800);
/// Between two calls, and a timer's granularity more.
const PAUSE: Duration = Duration::from_micros(500);
/// Until a bomb is at its work, and until the machine is at rest again.
const SETTLE: Duration = Duration::from_millis(300);
/// How much slower the slowest calls may become.
const AIM: f64 = 3.0;

/// Measures every bomb, or those whose names begin so.
pub(super) fn run(only: Option<&str>) -> Result<Vec<Row>> {
    let bombs: Vec<&Bomb> =
        BOMBS.iter().filter(|b| only.is_none_or(|o| b.name.starts_with(o))).collect();
    if bombs.is_empty() {
        let names: Vec<&str> = BOMBS.iter().map(|b| b.name).collect();
        return Err(format!("no such bomb; there are {}", names.join(", ")).into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // In a task of the runtime, as an application's handlers run.
    let task = runtime.spawn(async move { measure(&bombs).await.map_err(|e| e.to_string()) });
    Ok(runtime.block_on(task)??)
}

async fn measure(bombs: &[&Bomb]) -> Result<Vec<Row>> {
    let state = tempfile::tempdir()?;
    let host = host::open(state.path(), Arc::new(ProcessBackend::new(Options::default()))).await?;
    let folder = plugin::Plugin::build()?;
    let manifest = host::echo_manifest("neighbour", "kind = \"exec\"\nfile = \"plugin\"");
    fs::write(folder.root().join("plugin.toml"), manifest)?;
    let neighbour = host.load(folder.root()).await?;
    neighbour.start().await?;
    let attacker = bombs::attacker()?;
    let arsenal = Arsenal::new(host.load(attacker.path()).await?)?;
    let mut rows = Vec::new();
    let mut worst: Option<Row> = None;
    p99(&neighbour).await?;
    for bomb in bombs {
        let row = one(&neighbour, &arsenal, bomb, state.path())
            .await
            .map_err(|e| format!("{}: {e}", bomb.name))?;
        eprintln!(
            "{:<16} {:>8.0} us over {:>6.0} us: {:.2}  {}",
            bomb.name,
            row.value,
            row.baseline.unwrap_or(f64::NAN),
            row.ratio.unwrap_or(f64::NAN),
            row.note
        );
        if worst.as_ref().is_none_or(|w| w.ratio < row.ratio) {
            worst = Some(row.clone());
        }
        rows.push(row);
    }
    host.shutdown().await?;
    if let Some(worst) = worst {
        let note = format!("the worst of them: {}", worst.name);
        rows.insert(0, Row { name: "neighbour_p99_ratio".to_owned(), note, ..worst });
    }
    Ok(rows)
}

async fn one(neighbour: &Plugin, arsenal: &Arsenal, bomb: &Bomb, state: &Path) -> Result<Row> {
    let (mut calm, mut disturbed, mut control) = <(Samples, Samples, Samples)>::default();
    let mut ended = String::new();
    for _ in 0..ROUNDS {
        calm.push(p99(neighbour).await?);
        let lit = arsenal.light(bomb).await?;
        tokio::time::sleep(SETTLE).await;
        disturbed.push(p99(neighbour).await?);
        ended = lit.put_out().await?;
        arsenal.clear(state)?;
        tokio::time::sleep(SETTLE).await;
        control.push(p99(neighbour).await?);
    }
    let row = Row::new(&format!("neighbour_p99_ratio.{}", bomb.name), "us", &disturbed);
    let noise = control.median() / calm.median();
    let row = row.against(&calm).aim(AIM);
    Ok(Row { note: format!("{}; without a bomb {noise:.2}; {ended}", row.note), ..row })
}

/// The 99th percentile of one round of calls, in microseconds.
async fn p99(neighbour: &Plugin) -> Result<f64> {
    let args = RawValue::from_string(MESSAGE.to_owned())?;
    let mut times = Samples::default();
    let end = Instant::now() + ROUND;
    while Instant::now() < end {
        let start = Instant::now();
        let answer = neighbour.call("echo", &args).await?;
        times.push_micros(start.elapsed());
        if answer.bytes() != MESSAGE.as_bytes() {
            return Err("the echo is wrong".into());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(times.quantile(0.99))
}
