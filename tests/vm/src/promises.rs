//! What is promised beside limits, and has no family in the escape suite that could be run in every
//! situation: a user id of its own, an end without a pid namespace, and no code from data.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use palisade_escape::{host_side, scene::Ground};
use palisade_model::{Guarantee, Level};
use serde_json::json;

use crate::{
    doctor::Wall,
    limits::{Bench, Promise, Tried, attempt, terms},
    report::Finding,
};

/// Attacks what of these is promised; and what is not, where that shows that the attack is a real one.
pub(crate) async fn all(bench: &mut Bench, promise: &Promise) -> Tried<Vec<Finding>> {
    let mut found = vec![neighbours(bench, promise).await?];
    if promise.wall == Wall::Landlock {
        found.extend(outliving(bench, promise).await?);
    }
    if promise.level(Guarantee::NoJit) > Level::None {
        found.extend(no_jit(bench).await?);
    }
    Ok(found)
}

/// Processes of plugins that are attackers, not their init.
fn attackers() -> BTreeSet<String> {
    let is_one = |pid: &String| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "attacker")
    };
    host_side::plugin_processes().into_iter().filter(is_one).collect()
}

/// The attacker that was not there before, once it has become one.
async fn newcomer(before: &BTreeSet<String>) -> String {
    for _ in 0..500 {
        if let Some(pid) = attackers().difference(before).next() {
            return pid.clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    String::new()
}

/// A number in `/proc/PID/status`, as this process's namespaces see it.
fn status(pid: &str, key: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

fn uid(pid: &str) -> Option<u32> {
    status(pid, "Uid:")
}

/// One plugin kills another, whose process number it was told.
async fn neighbours(bench: &Bench, promise: &Promise) -> Tried<Finding> {
    let none = BTreeSet::new();
    let (victim, first) = bench.launch(&terms()).await?;
    let target = newcomer(&none).await;
    let (attacker, second) = bench.launch(&terms()).await?;
    let other = newcomer(&BTreeSet::from([target.clone()])).await;
    let (one, two) = (uid(&target), uid(&other));
    let told = json!({"host_pid": target.parse::<u32>().unwrap_or(0)});
    let seen = attempt(&attacker, bench, &second, 28, "kill-host", told).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let lives = attackers().contains(&target);
    attacker.end().await;
    victim.end().await;
    first.clear();
    second.clear();
    let own = promise.level(Guarantee::OwnUid) > Level::None;
    let peers = promise.level(Guarantee::PeersIsolated) > Level::None;
    let apart = one.is_some() && two.is_some() && one != two && ![one, two].contains(&Some(0));
    let ok = match (own || peers, promise.landlock >= 6) {
        // Nothing is promised and nothing is in the way: the attack must work, or it shows nothing.
        (false, false) => !lives,
        _ => lives && seen.outcome().starts_with("blocked:") && (apart || !own),
    };
    let detail = format!(
        "users {one:?} and {two:?}; killing the other: {}, and it {}",
        seen.outcome(),
        if lives { "lives" } else { "is dead" }
    );
    Ok(Finding::new("a neighbour", ok, detail))
}

/// The tier without namespaces: the plugin kills its own pid 1, so that a daemon of its lives on. Where that
/// works, nothing may have been promised; and where the plugin has a cgroup, the kernel ends it all the same
/// (`cgroup.kill`).
async fn outliving(bench: &Bench, promise: &Promise) -> Tried<Vec<Finding>> {
    let promised = promise.level(Guarantee::DiesWithHost);
    let (boxed, ground) = bench.launch(&terms()).await?;
    let program = newcomer(&BTreeSet::new()).await;
    let init = status(&program, "PPid:").unwrap_or(0);
    let there = || init > 1 && Path::new(&format!("/proc/{init}")).exists();
    let was_there = there();
    let more = json!({"seconds": 60, "beacon": ground.data.join("beacon")});
    let daemon = attempt(&boxed, bench, &ground, 49, "double-fork", more).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let alive = beats(&ground).await;
    let killed = attempt(&boxed, bench, &ground, 28, "kill-init", json!({})).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let init_lives = there();
    let after_kill = beats(&ground).await;
    let (_, exit) = boxed.end().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let left = beats(&ground).await;
    let word = |beating: bool| if beating { "beats" } else { "is silent" };
    let detail = format!(
        "promised {promised}, {}; the daemon {} and {}; SIGKILL to pid 1: {}, which {}; then the daemon {}; \
         after the end ({exit}) it {}",
        if promise.grouped() { "a cgroup around it" } else { "no cgroup around it" },
        daemon.outcome(),
        word(alive),
        killed.outcome(),
        if init_lives { "lives" } else { "is dead" },
        word(after_kill),
        word(left),
    );
    // From ABI 6 on Landlock keeps the signal in, and from the plugin's own user id the kernel does.
    let kept = promise.landlock >= 6;
    let tried = was_there && alive && init_lives == kept;
    let ended = match (kept, promise.grouped()) {
        (true, _) => killed.outcome() == "blocked:EPERM" && !left,
        (false, true) => promised == Level::None && !left,
        // What is said not to be held is seen not to hold.
        (false, false) => promised == Level::None && left,
    };
    Ok(vec![
        Finding::new("pid 1 is attacked", tried, detail.clone()),
        Finding::new("what outlives its end is what doctor says", ended, detail),
    ])
}

/// Whether the daemon's beacon changes.
async fn beats(ground: &Ground) -> bool {
    let beacon = ground.data.join("beacon");
    let before = fs::read(&beacon).unwrap_or_default();
    tokio::time::sleep(Duration::from_millis(500)).await;
    fs::read(&beacon).unwrap_or_default() != before
}

/// What was written becomes code, unless `no-jit` was demanded.
async fn no_jit(bench: &mut Bench) -> Tried<Vec<Finding>> {
    let mut found = Vec::new();
    let ordinary = bench.walls.demand.clone();
    for demanded in [false, true] {
        if demanded {
            bench.walls.demand = ordinary.clone().with(Guarantee::NoJit, Level::Kernel);
        }
        for way in ["wx", "rwx"] {
            let (boxed, ground) = bench.launch(&terms()).await?;
            let seen = attempt(&boxed, bench, &ground, 55, way, json!({})).await;
            boxed.end().await;
            ground.clear();
            let outcome = seen.outcome();
            let ok =
                if demanded { outcome.starts_with("blocked:") } else { outcome == "SUCCEEDED" };
            let name = if demanded { "no code from data" } else { "code from data, undemanded" };
            found.push(Finding::new(name, ok, format!("{way}: {outcome}; {}", seen.detail())));
        }
    }
    bench.walls.demand = ordinary;
    Ok(found)
}
