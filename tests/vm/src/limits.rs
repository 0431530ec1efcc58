//! Limits in a situation, from the host's side: what stands in the cgroup files, that a plugin is born
//! there, and what becomes of one that takes more.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_escape::{
    host_side,
    launch::{Boxed, Terms, Walls},
    scene::{Ground, Stage},
};
use palisade_model::{Guarantee, Level};
use palisade_process::{LandlockBackend, Options};
use palisade_sandbox::{ExitCause, KillReason};
use serde_json::json;

use crate::{
    FOLDER, Result,
    place::CGROUPS,
    report::{self, Finding},
};

const MEMORY: u64 = 64 << 20;
const PIDS: u32 = 32;
const CPU: f64 = 0.5;

/// Which limits the kernel holds here.
#[derive(Clone, Copy)]
struct Held {
    memory: bool,
    cpu: bool,
}

/// Looks at everything that `what` says, and prints the findings.
pub(crate) fn run(what: &str) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| format!("the runtime: {e}"))?;
    if what == "weaker" {
        let found = runtime.block_on(weaker()).map_err(|e| e.to_string())?;
        return report::print(&found);
    }
    let held = match what {
        "held" => Held { memory: true, cpu: true },
        "some" => Held { memory: true, cpu: false },
        "policed" => Held { memory: false, cpu: false },
        other => return Err(format!("limits {other}: held, some, policed or weaker")),
    };
    let found = runtime.block_on(all(held)).map_err(|e| e.to_string())?;
    report::print(&found)
}

type Tried<T> = palisade_escape::trouble::Result<T>;

struct Bench {
    stage: Stage,
    walls: Walls,
}

impl Bench {
    async fn launch(&self, terms: &Terms) -> Tried<(Boxed, Ground)> {
        let ground = self.stage.ground()?;
        Ok((self.walls.launch(&ground, terms).await?, ground))
    }
}

fn terms() -> Terms {
    let mut terms = Terms::default();
    (terms.limits.memory, terms.limits.pids) = (MEMORY, PIDS);
    terms.deadline = Duration::from_secs(40);
    terms
}

/// With half a processor; everything else would only be slower by it.
fn slow() -> Terms {
    let mut terms = terms();
    terms.limits.cpu = CPU;
    terms
}

async fn all(held: Held) -> Tried<Vec<Finding>> {
    let stage = Stage::build(Path::new(&format!("{FOLDER}/attacker")), Vec::new(), None)?;
    let walls = Walls::new(Options::default(), &stage).await?;
    let bench = Bench { stage, walls };
    let mut found = Vec::new();
    if held.memory {
        found.extend(files(&bench, held).await?);
        found.extend(changes(&bench).await?);
    }
    found.push(memory(&bench, held).await?);
    found.push(processes(&bench).await?);
    found.extend(spin(&bench, held).await?);
    found.push(ends_at_once(&bench).await?);
    if held.memory {
        found.extend(nothing_left(&bench).await);
    }
    Ok(found)
}

/// The version 2 cgroup of a process.
fn cgroup_of(pid: &str) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|l| l.strip_prefix("0::/"))?;
    Some(Path::new(CGROUPS).join(path))
}

fn read(cgroup: &Path, file: &str) -> String {
    let text = fs::read_to_string(cgroup.join(file));
    text.map_or_else(|e| e.to_string(), |t| t.trim().to_owned())
}

fn number(cgroup: &Path, file: &str, key: &str) -> u64 {
    let text = read(cgroup, file);
    let value = text.lines().find_map(|l| l.strip_prefix(key)?.trim().parse().ok());
    value.unwrap_or(0)
}

async fn files(bench: &Bench, held: Held) -> Tried<Vec<Finding>> {
    let (boxed, ground) = bench.launch(&slow()).await?;
    let all = host_side::plugin_processes();
    let groups: Vec<Option<PathBuf>> = all.iter().map(|pid| cgroup_of(pid)).collect();
    let mut found = Vec::new();
    let own = cgroup_of("self").unwrap_or_default();
    let group = groups.first().cloned().flatten().unwrap_or_default();
    let apart = group != own && group != Path::new(CGROUPS);
    let same = groups.iter().all(|g| g.as_ref() == Some(&group));
    let detail =
        format!("{} processes in {}, the host in {}", all.len(), group.display(), own.display());
    found.push(Finding::new(
        "a cgroup of its own for every process",
        apart && same && all.len() >= 2,
        detail,
    ));
    let mut wanted = vec![
        ("memory.max", MEMORY.to_string()),
        ("memory.swap.max", "0".to_owned()),
        ("memory.oom.group", "1".to_owned()),
        ("pids.max", (PIDS + 1).to_string()),
    ];
    if held.cpu {
        wanted.push(("cpu.max", "50000 100000".to_owned()));
    }
    for (file, value) in wanted {
        found.push(Finding::equal(file, &read(&group, file), &value));
    }
    let uid =
        fs::metadata(group.join("memory.max")).map(|m| std::os::unix::fs::MetadataExt::uid(&m));
    found.push(Finding::equal(
        "the host owns the limits",
        &uid.ok(),
        &Some(rustix::process::geteuid().as_raw()),
    ));
    boxed.end().await;
    drop(boxed);
    let end = Instant::now() + Duration::from_secs(5);
    while group.exists() && Instant::now() < end {
        // Its last task may still be on its way out.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    found.push(Finding::new(
        "the cgroup is removed with the instance",
        !group.exists(),
        group.display().to_string(),
    ));
    ground.clear();
    Ok(found)
}

/// Limits that change while the plugin runs.
async fn changes(bench: &Bench) -> Tried<Vec<Finding>> {
    let (boxed, ground) = bench.launch(&terms()).await?;
    let group =
        host_side::plugin_processes().first().and_then(|p| cgroup_of(p)).unwrap_or_default();
    let mut found = Vec::new();
    for (memory, pids) in [(2 * MEMORY, 2 * PIDS), (MEMORY / 2, PIDS / 2)] {
        let mut limits = terms().limits;
        (limits.memory, limits.pids) = (memory, pids);
        boxed.instance.set_limits(&limits).await?;
        let is = (read(&group, "memory.max"), read(&group, "pids.max"));
        let wanted = (memory.to_string(), (pids + 1).to_string());
        found.push(Finding::equal("limits that are changed", &is, &wanted));
    }
    boxed.end().await;
    ground.clear();
    Ok(found)
}

async fn attempt(
    boxed: &Boxed,
    bench: &Bench,
    ground: &Ground,
    number: u16,
    variant: &str,
    more: serde_json::Value,
) -> palisade_escape::launch::Seen {
    let mut params = bench.stage.params(ground, true);
    params.extend(more.as_object().cloned().unwrap_or_default());
    boxed.attempt(number, variant, &params, terms().deadline).await
}

/// Sixteen times the limit, in one process: the kernel ends the whole plugin at once, or samples do.
async fn memory(bench: &Bench, held: Held) -> Tried<Finding> {
    let (boxed, ground) = bench.launch(&terms()).await?;
    let seen = attempt(&boxed, bench, &ground, 43, "anon", json!({"bytes": 16 * MEMORY})).await;
    let exit = tokio::time::timeout(Duration::from_secs(10), boxed.instance.wait()).await;
    let exit = exit.ok();
    let peak = exit.as_ref().and_then(|e| e.usage).and_then(|u| u.memory_peak);
    let ok = match exit.as_ref().map(|e| &e.cause) {
        Some(ExitCause::OutOfMemory) => {
            held.memory && peak.is_some_and(|p| p <= MEMORY + (4 << 20))
        }
        Some(ExitCause::Killed(KillReason::Limit(what))) => {
            !held.memory && what.starts_with("memory")
        }
        _ => false,
    };
    boxed.end().await;
    ground.clear();
    let end = exit.map_or_else(|| format!("still there: {}", seen.detail()), |e| e.to_string());
    Ok(Finding::new("memory", ok, format!("{end}; peak {peak:?} of {MEMORY}")))
}

async fn processes(bench: &Bench) -> Tried<Finding> {
    let (boxed, ground) = bench.launch(&terms()).await?;
    let mut most = 0;
    let seen = {
        let attack =
            attempt(&boxed, bench, &ground, 42, "fork", json!({"count": 4096, "hold_ms": 300}));
        tokio::pin!(attack);
        loop {
            tokio::select! {
                seen = &mut attack => break seen,
                () = tokio::time::sleep(Duration::from_millis(5)) =>
                    most = most.max(boxed.instance.usage().await.pids.unwrap_or(0)),
            }
        }
    };
    boxed.end().await;
    ground.clear();
    // The attacker counts too: it, and the children that lived at once.
    let lived: Option<u32> = seen.detail().split(' ').next().and_then(|n| n.parse().ok());
    let filled = lived.is_some_and(|n| n > PIDS / 2 && n < PIDS);
    let ok = most <= PIDS && filled && seen.outcome() == "blocked:EAGAIN";
    Ok(Finding::new(
        "processes",
        ok,
        format!("{}, at most {most} of {PIDS}: {}", seen.outcome(), seen.detail()),
    ))
}

async fn spin(bench: &Bench, held: Held) -> Tried<Vec<Finding>> {
    let (boxed, ground) = bench.launch(&slow()).await?;
    let group =
        host_side::plugin_processes().first().and_then(|p| cgroup_of(p)).unwrap_or_default();
    let more = json!({"threads": 4, "seconds": 2, "max_cpus": CPU * 1.5});
    let seen = attempt(&boxed, bench, &ground, 44, "spin", more).await;
    let mut found = Vec::new();
    let share: Option<f64> = seen.detail().split(' ').next().and_then(|s| s.parse().ok());
    let ok = share.is_some_and(|s| s <= CPU * 1.5 && s > 0.0);
    found.push(Finding::new(
        "processor share",
        ok,
        format!("{share:?} of {CPU}: {}", seen.detail()),
    ));
    if held.cpu {
        let throttled = number(&group, "cpu.stat", "nr_throttled ");
        found.push(Finding::new(
            "the kernel throttles",
            throttled > 0,
            format!("{throttled} periods"),
        ));
        let pressure = read(&group, "cpu.pressure");
        let total = pressure
            .lines()
            .find(|l| l.starts_with("some "))
            .and_then(|l| l.rsplit_once("total=")?.1.parse::<u64>().ok());
        let felt = total.is_some_and(|t| t > 100_000);
        found.push(Finding::new("pressure is seen (PSI)", felt, pressure.replace('\n', "; ")));
    }
    boxed.end().await;
    ground.clear();
    Ok(found)
}

/// Twenty stopped children: nothing of them is left when `kill` returns, and soon.
async fn ends_at_once(bench: &Bench) -> Tried<Finding> {
    let (boxed, ground) = bench.launch(&terms()).await?;
    let seen = attempt(
        &boxed,
        bench,
        &ground,
        48,
        "stopped-children",
        json!({"count": 20, "seconds": 30}),
    )
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = host_side::plugin_processes().len();
    let begun = Instant::now();
    let (_, exit) = boxed.end().await;
    let took = begun.elapsed();
    let left = host_side::left_over().await;
    ground.clear();
    let ok = left.is_empty() && took < Duration::from_secs(2) && before > 2;
    Ok(Finding::new(
        "kill",
        ok,
        format!(
            "{before} processes, {} left after {took:?}: {exit}; {}",
            left.len(),
            seen.outcome()
        ),
    ))
}

/// Ten launches leave no cgroup behind but the one that is made ahead for the next.
async fn nothing_left(bench: &Bench) -> Vec<Finding> {
    let mut parent = None;
    for _ in 0..10 {
        let Ok((boxed, ground)) = bench.launch(&terms()).await else { break };
        let group = host_side::plugin_processes().first().and_then(|p| cgroup_of(p));
        parent = group.and_then(|g| g.parent().map(Path::to_path_buf)).or(parent);
        boxed.end().await;
        ground.clear();
    }
    let count = || {
        parent.as_ref().and_then(|p| fs::read_dir(p).ok()).map_or(usize::MAX, |all| {
            all.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).count()
        })
    };
    let mut left = count();
    for _ in 0..30 {
        if left <= 1 {
            break;
        }
        // The last ones are on their way out.
        tokio::time::sleep(Duration::from_millis(100)).await;
        left = count();
    }
    vec![Finding::new("no cgroup is left behind", left <= 1, format!("{left} in {parent:?}"))]
}

/// The tier without namespaces: a daemon of the plugin's tries to live on after killing its pid 1. Where
/// that works, nothing may have been promised, and no cgroup may hold it.
async fn weaker() -> Tried<Vec<Finding>> {
    let stage = Stage::build(Path::new(&format!("{FOLDER}/attacker")), Vec::new(), None)?;
    let options = Options::default();
    let backend = Arc::new(LandlockBackend::new(options.clone()));
    let walls = Walls::behind(backend, options, &stage).await?;
    let bench = Bench { stage, walls };
    let (boxed, ground) = bench.launch(&terms()).await?;
    let achieved = &boxed.instance.achieved().guarantees;
    let promised = achieved.level(Guarantee::DiesWithHost);
    // `kill` promises that nothing is left; a version 2 cgroup keeps that whatever became of pid 1.
    let grouped = achieved.level(Guarantee::MemoryCapped) == Level::Kernel;
    let daemon = attempt(
        &boxed,
        &bench,
        &ground,
        49,
        "double-fork",
        json!({"seconds": 60, "beacon": ground.data.join("beacon")}),
    )
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let alive = beats(&ground).await;
    let killed = attempt(&boxed, &bench, &ground, 28, "kill-init", json!({})).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after_kill = beats(&ground).await;
    let (_, exit) = boxed.end().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let left = beats(&ground).await;
    let detail = format!(
        "promised {promised}; the daemon {} and {}; init: {}; after that it {}; after the end ({exit}) it {}",
        daemon.outcome(),
        if alive { "beats" } else { "does not beat" },
        killed.detail(),
        if after_kill { "beats" } else { "does not beat" },
        if left { "beats" } else { "does not beat" },
    );
    let may_be_left = promised == Level::None && !grouped;
    Ok(vec![Finding::new("nothing outlives its end", alive && (!left || may_be_left), detail)])
}

/// Whether the daemon's beacon changes.
async fn beats(ground: &Ground) -> bool {
    let beacon = ground.data.join("beacon");
    let before = fs::read(&beacon).unwrap_or_default();
    tokio::time::sleep(Duration::from_secs(1)).await;
    fs::read(&beacon).unwrap_or_default() != before
}
