//! `rss_per_idle_process_plugin`: what one more idle plugin costs this machine in memory.
//!
//! Proportional set size (`Pss` of `/proc/PID/smaps_rollup`, proc(5)): pages that several processes share
//! are counted once. Page tables, namespaces and other memory of the kernel are not in it.

use std::{collections::BTreeMap, fs, sync::Arc};

use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{Backend, Instance, KillReason};

use crate::{
    plugin::{Plugin, Result, Silent, initialize},
    report::{Row, Samples},
};

const INSTANCES: usize = 50;
const ROUNDS: usize = 5;

/// Process id and parent of everything that runs.
fn parents() -> Result<BTreeMap<u32, u32>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name in parentheses may hold anything; the state and the parent follow the last one.
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        if let Some(parent) = parent.and_then(|p| p.parse().ok()) {
            all.insert(pid, parent);
        }
    }
    Ok(all)
}

fn pss_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|e| {
        format!("{path}: {e} (this bench needs root: the plugins cannot be traced)")
    })?;
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).ok_or("no Pss line")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// This process alone, and everything below it (spawner, pid 1 of each plugin, plugin).
fn totals() -> Result<(u64, u64)> {
    let own = std::process::id();
    let parents = parents()?;
    let is_below = |pid: u32| {
        let mut at = pid;
        while let Some(parent) = parents.get(&at) {
            if *parent == own {
                return true;
            }
            at = *parent;
        }
        false
    };
    let mut below = 0;
    for pid in parents.keys().copied().filter(|pid| is_below(*pid)) {
        below += pss_kib(pid)?;
    }
    Ok((pss_kib(own)?, below))
}

/// Measures on the runtime that `#[tokio::main]` gives.
pub(crate) fn run() -> Result<Vec<Row>> {
    tokio::runtime::Runtime::new()?.block_on(measure())
}

async fn measure() -> Result<Vec<Row>> {
    let plugin = Plugin::build()?;
    let backend = ProcessBackend::new(Options::default());
    let prepared = backend.prepare(&plugin.artifact()).await?;
    let (mut all, mut host, mut inside) = <(Samples, Samples, Samples)>::default();
    // The first round fills caches and is not counted.
    for round in 0..=ROUNDS {
        let before = totals()?;
        let mut instances: Vec<Arc<dyn Instance>> = Vec::new();
        for _ in 0..INSTANCES {
            let instance = prepared.launch(plugin.spec(), Arc::new(Silent)).await?;
            initialize(&instance).await?;
            instances.push(instance);
        }
        let after = totals()?;
        for instance in &instances {
            instance.kill(KillReason::Asked).await;
        }
        if round > 0 {
            let each = |before: u64, after: u64| (after as f64 - before as f64) / INSTANCES as f64;
            host.push(each(before.0, after.0));
            inside.push(each(before.1, after.1));
            all.push(each(before.0 + before.1, after.0 + after.1));
        }
    }
    Ok(vec![
        Row::new("rss_per_idle_process_plugin", "KiB", &all),
        Row::new("rss_per_idle_process_plugin.host", "KiB", &host),
        Row::new("rss_per_idle_process_plugin.processes", "KiB", &inside),
    ])
}
