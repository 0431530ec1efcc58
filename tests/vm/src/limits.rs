//! Limits in a situation, from the host's side: what stands in the cgroup files, that a plugin is born
//! there, and what becomes of one that takes more.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_escape::{
    families::limits::DISK_OVERSHOOT,
    host_side,
    launch::{Boxed, Terms, Walls},
    scene::{Ground, Stage},
};
use palisade_model::{Guarantee, GuaranteeSet, Level};
use palisade_process::{LandlockBackend, Options, POLICED_MEMORY_OVERSHOOT, ProcessBackend};
use palisade_sandbox::{Backend, ExitCause, KillReason};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    FOLDER, Result,
    doctor::Wall,
    place::CGROUPS,
    promises,
    report::{self, Finding},
};

const MEMORY: u64 = 64 << 20;
const PIDS: u32 = 32;
/// Processors, where samples hold the plugin to them.
const CPU: f64 = 0.5;
/// The same where the kernel does: less than is left beside the host, whose own work takes up to half of an
/// emulated processor, or there would be nothing to throttle.
const CPU_BY_KERNEL: f64 = 0.25;
const DISK: u64 = 16 << 20;
/// Ways to take memory that samples must catch, the quickest and those that hide it best.
const BOMBS: [&str; 5] = ["anon", "memfd", "tmp", "shared-dropped", "many-children"];

/// What a backend promised here, and is held to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Promise {
    pub(crate) wall: Wall,
    pub(crate) levels: GuaranteeSet,
    /// Landlock's ABI.
    pub(crate) landlock: u32,
    /// A version 2 cgroup with nobody else in it counts what the program under test and its plugins use.
    pub(crate) metered: bool,
}

impl Promise {
    pub(crate) fn level(&self, guarantee: Guarantee) -> Level {
        self.levels.level(guarantee)
    }

    fn kernel(&self, guarantee: Guarantee) -> bool {
        self.level(guarantee) == Level::Kernel
    }

    /// Processors that a plugin may use.
    fn cpu(&self) -> f64 {
        if self.kernel(Guarantee::CpuCapped) { CPU_BY_KERNEL } else { CPU }
    }

    fn some(&self, guarantee: Guarantee) -> bool {
        self.level(guarantee) > Level::None
    }

    /// Whether instances have a cgroup of version 2.
    pub(crate) fn grouped(&self) -> bool {
        self.kernel(Guarantee::MemoryCapped)
    }
}

/// Attacks everything that was promised, and prints the findings.
pub(crate) fn run(promise: &str) -> Result {
    let promise: Promise =
        serde_json::from_str(promise).map_err(|e| format!("the promise: {e}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| format!("the runtime: {e}"))?;
    let found = runtime.block_on(all(&promise)).map_err(|e| e.to_string())?;
    report::print(&found)
}

pub(crate) type Tried<T> = palisade_escape::trouble::Result<T>;

/// Walls, and the scene for attackers behind them.
pub(crate) struct Bench {
    pub(crate) stage: Stage,
    pub(crate) walls: Walls,
}

impl Bench {
    async fn build(wall: Wall) -> Tried<Self> {
        let stage = Stage::build(Path::new(&format!("{FOLDER}/attacker")), Vec::new(), None)?;
        let options = Options::default();
        let backend: Arc<dyn Backend> = match wall {
            Wall::Process => Arc::new(ProcessBackend::new(options.clone())),
            Wall::Landlock => Arc::new(LandlockBackend::new(options.clone())),
        };
        let walls = Walls::behind(backend, options, &stage).await?;
        Ok(Self { stage, walls })
    }

    pub(crate) async fn launch(&self, terms: &Terms) -> Tried<(Boxed, Ground)> {
        let ground = self.stage.ground()?;
        Ok((self.walls.launch(&ground, terms).await?, ground))
    }
}

pub(crate) fn terms() -> Terms {
    let mut terms = Terms::default();
    (terms.limits.memory, terms.limits.pids) = (MEMORY, PIDS);
    terms.deadline = Duration::from_secs(40);
    terms
}

/// With a part of a processor; everything else would only be slower by it.
fn slow(promise: &Promise) -> Terms {
    let mut terms = terms();
    terms.limits.cpu = promise.cpu();
    terms
}

/// Notes in the machine's log how far it has come.
fn note(found: &mut Vec<Finding>, more: impl IntoIterator<Item = Finding>) {
    for one in more {
        let up = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let up = up.split(' ').next().unwrap_or_default();
        eprintln!("  {up} s {}: {}", one.name, if one.ok { "good" } else { "not so" });
        found.push(one);
    }
}

async fn all(promise: &Promise) -> Tried<Vec<Finding>> {
    let mut bench = Bench::build(promise.wall).await?;
    let mut found = Vec::new();
    if promise.grouped() {
        note(&mut found, files(&bench, promise).await?);
        note(&mut found, changes(&bench).await?);
    }
    if promise.some(Guarantee::MemoryCapped) {
        note(&mut found, [memory(&bench, promise).await?]);
    }
    if promise.metered && promise.level(Guarantee::MemoryCapped) == Level::Policed {
        note(&mut found, [overshoot(&bench).await?]);
    }
    if promise.some(Guarantee::PidsCapped) {
        note(&mut found, [processes(&bench).await?]);
    }
    if promise.some(Guarantee::CpuCapped) {
        note(&mut found, spin(&bench, promise).await?);
    }
    if promise.some(Guarantee::DiskCapped) {
        note(&mut found, disk(&bench, promise).await?);
    }
    if promise.some(Guarantee::DiesWithHost) || promise.grouped() {
        note(&mut found, [ends_at_once(&bench).await?]);
    }
    note(&mut found, promises::all(&mut bench, promise).await?);
    if promise.grouped() {
        note(&mut found, nothing_left(&bench).await);
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

async fn files(bench: &Bench, promise: &Promise) -> Tried<Vec<Finding>> {
    let (boxed, ground) = bench.launch(&slow(promise)).await?;
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
    if promise.kernel(Guarantee::CpuCapped) {
        wanted.push(("cpu.max", "25000 100000".to_owned()));
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

pub(crate) async fn attempt(
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
async fn memory(bench: &Bench, promise: &Promise) -> Tried<Finding> {
    let (boxed, ground) = bench.launch(&terms()).await?;
    let seen = attempt(&boxed, bench, &ground, 43, "anon", json!({"bytes": 16 * MEMORY})).await;
    let exit = tokio::time::timeout(Duration::from_secs(10), boxed.instance.wait()).await;
    let exit = exit.ok();
    let peak = exit.as_ref().and_then(|e| e.usage).and_then(|u| u.memory_peak);
    let ok = match exit.as_ref().map(|e| &e.cause) {
        Some(ExitCause::OutOfMemory) => {
            promise.grouped() && peak.is_some_and(|p| p <= MEMORY + (4 << 20))
        }
        Some(ExitCause::Killed(KillReason::Limit(what))) => {
            !promise.grouped() && what.starts_with("memory")
        }
        _ => false,
    };
    boxed.end().await;
    ground.clear();
    let end = exit.map_or_else(|| format!("still there: {}", seen.detail()), |e| e.to_string());
    Ok(Finding::new("memory", ok, format!("{end}; peak {peak:?} of {MEMORY}")))
}

/// How far sampled memory gets beyond its limit: the peak of the cgroup around this program, which counts
/// its plugins too where they have none of their own.
async fn overshoot(bench: &Bench) -> Tried<Finding> {
    let own = cgroup_of("self").unwrap_or_default();
    let bytes = |file: &str| read(&own, file).parse::<u64>().ok();
    let mut each = Vec::new();
    let mut most = 0;
    for bomb in BOMBS {
        let before = bytes("memory.current");
        let (boxed, ground) = bench.launch(&terms()).await?;
        let more = json!({"bytes": 16 * MEMORY, "hold_ms": 200});
        attempt(&boxed, bench, &ground, 43, bomb, more).await;
        let (_, exit) = boxed.end().await;
        ground.clear();
        let (Some(before), Some(peak)) = (before, bytes("memory.peak")) else {
            let detail = format!("{} cannot be read", own.join("memory.peak").display());
            return Ok(Finding::new("memory overshoot", false, detail));
        };
        // The peak never falls, so this is the worst so far.
        most = peak.saturating_sub(before).saturating_sub(MEMORY);
        each.push(format!("{bomb}: {} MiB ({exit})", most >> 20));
    }
    let detail = format!(
        "at most {} MiB over {} MiB, {} MiB are documented; {}",
        most >> 20,
        MEMORY >> 20,
        POLICED_MEMORY_OVERSHOOT >> 20,
        each.join("; ")
    );
    Ok(Finding::new("memory overshoot", most <= POLICED_MEMORY_OVERSHOOT, detail))
}

/// Sixteen times what the data folder may hold; and `/tmp`, which the kernel caps.
async fn disk(bench: &Bench, promise: &Promise) -> Tried<Vec<Finding>> {
    let mut terms = terms();
    terms.limits.disk = DISK;
    // What is written is memory of the cgroup too: room, so that the disk decides.
    terms.limits.memory = 16 * MEMORY;
    let (boxed, ground) = bench.launch(&terms).await?;
    let inside = promise.wall == Wall::Process;
    let data = if inside { Path::new("/data") } else { ground.data.as_path() };
    let more = json!({"dir": data, "bytes": 16 * DISK, "hold_ms": 1500});
    let seen = attempt(&boxed, bench, &ground, 45, "fill", more).await;
    let exit = tokio::time::timeout(Duration::from_secs(10), boxed.instance.wait()).await;
    let held = on_disk(&ground.data);
    boxed.end().await;
    ground.clear();
    let ended = exit.map_or_else(|_| format!("still there: {}", seen.detail()), |e| e.to_string());
    let over = held.saturating_sub(DISK);
    let mut found = vec![Finding::new(
        "disk",
        ended.contains("disk: ") && over <= DISK_OVERSHOOT,
        format!("{ended}; {} MiB over {} MiB", over >> 20, DISK >> 20),
    )];
    if inside {
        let (boxed, ground) = bench.launch(&terms).await?;
        let more = json!({"dir": "/tmp", "bytes": 16 * DISK, "hold_ms": 0});
        let seen = attempt(&boxed, bench, &ground, 45, "fill", more).await;
        boxed.end().await;
        ground.clear();
        found.push(Finding::new(
            "disk, /tmp",
            seen.outcome() == "blocked:ENOSPC",
            format!("{}: {}", seen.outcome(), seen.detail()),
        ));
    }
    Ok(found)
}

/// Bytes of blocks below a folder.
fn on_disk(folder: &Path) -> u64 {
    let sizes = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| {
        let path = entry.path();
        let own = fs::symlink_metadata(&path)
            .map_or(0, |m| std::os::unix::fs::MetadataExt::blocks(&m) * 512);
        own + if entry.file_type().is_ok_and(|t| t.is_dir()) { on_disk(&path) } else { 0 }
    });
    sizes.sum()
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

async fn spin(bench: &Bench, promise: &Promise) -> Tried<Vec<Finding>> {
    let (boxed, ground) = bench.launch(&slow(promise)).await?;
    let group =
        host_side::plugin_processes().first().and_then(|p| cgroup_of(p)).unwrap_or_default();
    let cpu = promise.cpu();
    let more = json!({"threads": 4, "seconds": 2, "max_cpus": cpu * 1.5});
    let seen = attempt(&boxed, bench, &ground, 44, "spin", more).await;
    let mut found = Vec::new();
    let share: Option<f64> = seen.detail().split(' ').next().and_then(|s| s.parse().ok());
    let ok = share.is_some_and(|s| s <= cpu * 1.5 && s > 0.0);
    found.push(Finding::new(
        "processor share",
        ok,
        format!("{share:?} of {cpu}: {}", seen.detail()),
    ));
    if promise.kernel(Guarantee::CpuCapped) {
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
