//! `reap_50_stopped`: 50 plugins that are stopped by SIGSTOP, killed and reaped, all together.
//!
//! From the first `kill` until the last of them has returned, which is when nothing of a plugin is left. The
//! kills are asked for at once. Before the clock starts, every program is seen to be stopped.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{Backend, Exit, ExitCause, Instance, KillReason, Prepared};

use crate::{
    plugin::{Plugin, Result, Silent, initialize},
    report::{Row, Samples},
};

const INSTANCES: usize = 50;
const ROUNDS: usize = 15;
/// Most milliseconds that it may take.
const AIM_MS: f64 = 10.0;

/// Measures on the runtime that `#[tokio::main]` gives.
pub(super) fn run() -> Result<Vec<Row>> {
    tokio::runtime::Runtime::new()?.block_on(measure())
}

async fn measure() -> Result<Vec<Row>> {
    let plugin = Plugin::build()?;
    let backend = ProcessBackend::new(Options::default());
    let prepared = backend.prepare(&plugin.artifact()).await?;
    let (mut stopped, mut running) = <(Samples, Samples)>::default();
    // The first round fills caches and is not counted.
    for round in 0..=2 * ROUNDS {
        let freeze = round % 2 == 1;
        let time = self::round(&plugin, &prepared, freeze).await?;
        if round > 0 {
            let samples = if freeze { &mut stopped } else { &mut running };
            samples.push(time.as_secs_f64() * 1e3);
        }
    }
    Ok(vec![
        Row::new("reap_50_stopped", "ms", &stopped).aim(AIM_MS),
        Row::new("reap_50_stopped.running", "ms", &running),
    ])
}

async fn round(plugin: &Plugin, prepared: &Arc<dyn Prepared>, freeze: bool) -> Result<Duration> {
    let mut instances: Vec<Arc<dyn Instance>> = Vec::new();
    for _ in 0..INSTANCES {
        let instance = prepared.launch(plugin.spec(), Arc::new(Silent)).await?;
        initialize(&instance).await?;
        instances.push(instance);
    }
    if freeze {
        for instance in &instances {
            instance.freeze().await?;
        }
        let end = Instant::now() + Duration::from_secs(5);
        while stopped_programs(plugin)? < INSTANCES {
            if Instant::now() > end {
                return Err("the plugins do not stop".into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    // What launching left for later is not what is measured.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    let ends: Vec<_> = instances.iter().map(|i| i.kill(KillReason::Asked)).collect();
    for end in ends {
        match end.await {
            Exit { cause: ExitCause::Killed(KillReason::Asked), .. } => {}
            other => return Err(format!("a plugin ended otherwise: {other}").into()),
        }
    }
    let time = start.elapsed();
    drop(instances);
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok(time)
}

/// How many processes that run the plugin's program are stopped (`T`, proc_pid_stat(5)).
fn stopped_programs(plugin: &Plugin) -> Result<usize> {
    let program = fs::canonicalize(plugin.program())?;
    let name = program.file_name().and_then(|n| n.to_str()).ok_or("no name")?;
    let mut count = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some((head, tail)) = stat.rsplit_once(") ")
            && head.ends_with(&format!("({name}"))
            && tail.starts_with('T')
        {
            count += 1;
        }
    }
    Ok(count)
}
