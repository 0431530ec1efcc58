//! Attempts 42 to 46: taking more than the limits. One at a time, since they are about the whole machine;
//! every outcome has a bound that the host measures.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_process::POLICED_MEMORY_OVERSHOOT;
use palisade_sandbox::{ExitCause, KillReason};
use serde_json::{Value, json};

use crate::{
    attacker::Attempt,
    control::Controls,
    families::ablation,
    launch::{Terms, Walls},
    meter,
    record::{Launcher, Row},
    runner::Task,
    scene::Stage,
    trouble::Result,
    way_out::Network,
};

const MIB: u64 = 1 << 20;
/// What the instances may use. Small, so that exceeding it is quick and harmless.
pub const MEMORY: u64 = 64 * MIB;
/// Processes and threads.
pub const PIDS: u64 = 32;
/// Bytes in `/data`, and in `/tmp`.
pub const DISK: u64 = 16 * MIB;
/// Thousandths of a processor.
pub const CPU: u64 = 500;
/// How much more than its share a spinning plugin may get over 2 s, in percent.
const CPU_SLACK: u64 = 150;
/// The same where pid 1 only samples: it is late itself where the machine is busy.
const POLICED_CPU_SLACK: u64 = 200;
/// What memory groups may hold beyond the limit for a moment: the kernel charges in batches.
const CGROUP_SLACK: u64 = 4 * MIB;
/// Most bytes that a plugin may get onto the disk before its data folder is measured, here with a limit of
/// 16 MiB: some 15 MiB were seen on a quiet machine; on a busy one the host's looks come late. The attempts
/// ask for 1 GiB.
pub const DISK_OVERSHOOT: u64 = 256 * MIB;

/// One resource attack.
pub struct Case {
    /// Number in the catalogue.
    pub number: u16,
    /// One way to do it.
    pub variant: &'static str,
    /// Folder for disk attacks.
    pub dir: Option<&'static str>,
    /// Bytes or objects asked for.
    amount: u64,
}

const fn case(number: u16, variant: &'static str, dir: Option<&'static str>, amount: u64) -> Case {
    Case { number, variant, dir, amount }
}

const GIB: u64 = 1024 * MIB;
const MANY: u64 = 100_000;

/// The attacks. Everything asked for is far beyond the limits.
#[rustfmt::skip]
pub const CASES: &[Case] = &[
    case(42, "fork", None, 4096), case(42, "threads", None, 4096), case(42, "orphans", None, 1024),
    case(43, "anon", None, GIB), case(43, "tmp", None, GIB), case(43, "shm", None, GIB),
    case(43, "memfd", None, GIB), case(43, "sysv", None, GIB), case(43, "sysv-detached", None, GIB),
    case(43, "shared-dropped", None, GIB), case(43, "zero-dropped", None, GIB),
    case(43, "queues", None, GIB), case(43, "pipes", None, GIB),
    case(43, "sockets", None, GIB), case(43, "page-tables", None, GIB),
    case(43, "many-children", None, GIB), case(43, "many-sockets", None, GIB),
    case(43, "many-pipes", None, GIB), case(43, "mlock", None, GIB),
    case(43, "tcp", None, GIB), case(43, "udp", None, GIB),
    case(43, "many-tcp", None, GIB), case(43, "many-udp", None, GIB),
    case(44, "spin", None, 0), case(44, "spin-children", None, 0),
    case(44, "spin-unwaited", None, 0), case(44, "spin-sessions", None, 0), case(45, "fallocate-many", Some("/data"), GIB),
    case(45, "fill", Some("/tmp"), GIB), case(45, "fill", Some("/dev/shm"), GIB),
    case(45, "fill", Some("/data"), GIB), case(45, "sparse", Some("/data"), GIB),
    case(45, "fallocate", Some("/data"), GIB), case(45, "unlinked", Some("/tmp"), GIB),
    case(45, "unlinked", Some("/data"), GIB), case(45, "unlinked-many", Some("/data"), 256 * MIB),
    case(45, "in-flight", Some("/data"), 256 * MIB), case(45, "mapped", Some("/data"), 256 * MIB),
    case(45, "closed-dir", Some("/data"), 256 * MIB), case(45, "deep", Some("/data"), 256 * MIB),
    case(45, "inodes", Some("/tmp"), MANY), case(45, "inodes", Some("/data"), 150_000),
    case(46, "fds", None, MANY), case(46, "inotify", None, MANY), case(46, "watches", None, MANY),
    case(46, "epoll", None, MANY), case(46, "eventfd", None, MANY), case(46, "timers", None, MANY),
    case(46, "keyrings", None, MANY), case(46, "mqueues", None, MANY),
    case(46, "semaphores", None, MANY), case(46, "msgqueues", None, MANY),
    case(46, "timerfds", None, MANY), case(46, "ptys", None, MANY), case(46, "signals", None, MANY),
];

impl Case {
    /// Its name in the rows.
    #[must_use]
    pub fn label(&self) -> String {
        match self.dir {
            Some(dir) => format!("{}@{dir}", self.variant),
            None => self.variant.to_owned(),
        }
    }

    /// The layer that refuses it before it can meet its limit, to some launchers at least. It is made without that
    /// one too, one after the other like all here. Not `keyrings`: what it makes outlives the plugin in its user's
    /// keyring; nor `fallocate-many`: how much it gets then is chance.
    fn in_front(&self) -> Option<&'static str> {
        match (self.number, self.variant) {
            (43, "tcp" | "many-tcp") => Some("landlock"),
            (43, "memfd" | "queues" | "shared-dropped" | "sysv" | "sysv-detached")
            | (45, "fallocate")
            | (46, "msgqueues" | "semaphores") => Some("seccomp"),
            _ => None,
        }
    }

    /// What the attacker is told.
    #[must_use]
    pub fn params(&self) -> Vec<(&'static str, Value)> {
        let what = match (self.number, self.variant) {
            (42 | 46, _) | (45, "inodes") => "count",
            _ => "bytes",
        };
        let hold = if self.number == 45 { 1500 } else { 200 };
        let mut params = vec![(what, json!(self.amount)), ("hold_ms", json!(hold))];
        if let Some(dir) = self.dir {
            params.push(("dir", json!(dir)));
        }
        if self.number == 44 {
            params.extend([
                ("threads", json!(4)),
                ("seconds", json!(2)),
                ("max_cpus", json!((CPU * POLICED_CPU_SLACK / 100) as f64 / 1000.0)),
            ]);
        }
        params
    }
}

/// Runs the family; with the task's `whole_only`, no layer is taken away.
///
/// # Errors
/// When the walls cannot be built.
pub async fn run(stage: &Arc<Stage>, task: &Task, attempts: &[Attempt]) -> Result<Vec<Row>> {
    let (launcher, meter) = (task.launcher, task.meter.as_ref());
    let walls = Walls::new(ablation::options(launcher, None), stage).await?;
    let mut thinner = BTreeMap::new();
    for name in IN_FRONT.into_iter().filter(|_| !task.whole_only) {
        let layer = ablation::named(name).map(|l| l.layer);
        thinner.insert(name, Walls::new(ablation::options(launcher, layer), stage).await?);
    }
    let mut rows = Vec::new();
    for case in CASES {
        let Some(attempt) =
            attempts.iter().find(|a| (a.number, a.variant.as_str()) == (case.number, case.variant))
        else {
            continue;
        };
        let mut row = one(stage, launcher, &walls, case, attempt, meter).await?;
        for _ in 1..MOST_TRIES {
            if !ran_out_of_time(case, &row) {
                break;
            }
            row = one(stage, launcher, &walls, case, attempt, meter).await?;
        }
        if let Some((layer, walls)) = case.in_front().and_then(|name| thinner.get_key_value(name)) {
            let thin = one(stage, launcher, walls, case, attempt, meter).await?;
            row.without.insert((*layer).to_owned(), thin.outcome);
        }
        rows.push(row);
    }
    // Afterwards: they take memory and processor time too.
    let used = |a: &&Attempt| {
        CASES.iter().any(|c| (c.number, c.variant) == (a.number, a.variant.as_str()))
    };
    Controls::start(stage, attempts.iter().filter(used)).tell(&mut rows).await?;
    Ok(rows)
}

/// The layers that are taken away.
const IN_FRONT: [&str; 2] = ["seccomp", "landlock"];

/// How often an attempt is made again that ran out of its own time on a busy machine.
const MOST_TRIES: usize = 4;

/// It made a file for each watch until its 20 s were over, and the kernel had refused none yet: that shows nothing.
fn ran_out_of_time(case: &Case, row: &Row) -> bool {
    (case.number, case.variant) == (46, "watches") && row.outcome == "blocked"
}

async fn one(
    stage: &Stage,
    launcher: Launcher,
    walls: &Walls,
    case: &Case,
    attempt: &Attempt,
    meter: Option<&PathBuf>,
) -> Result<Row> {
    let ground = stage.ground()?;
    let mut terms = Terms::default();
    // Files on disk are the kernel's memory too where a cgroup counts it: room, so that the disk decides.
    terms.limits.memory = if case.dir == Some("/data") { 8 * MEMORY } else { MEMORY };
    terms.limits.pids = PIDS as u32;
    terms.limits.disk = DISK;
    terms.limits.cpu = if case.number == 44 { CPU as f64 / 1000.0 } else { 2.0 };
    // Who fills a disk stops by itself after 30 s, and has to tell how far it came.
    terms.deadline = Duration::from_secs(if case.number == 45 { 45 } else { 30 });
    if has_network(case) {
        // Only who has a way out has a network of its own that is up.
        terms.grants.push("net.http:granted.example:80".to_owned());
        terms.network = Some(Network { forbidden: Vec::new(), reachable: "127.0.0.1/32" });
    }
    let mut params = stage.params(&ground, true);
    params.extend(case.params().into_iter().map(|(k, v)| (k.to_owned(), v)));
    let mut row = Row::new(case.number, &case.label(), &attempt.name, launcher);
    let before = meter.filter(|_| !launcher.cgroups()).and_then(|m| meter::reset(m));
    let boxed = walls.launch(&ground, &terms).await?;
    let begun = Instant::now();
    let attack = boxed.attempt(case.number, case.variant, &params, terms.deadline);
    let (seen, pids) = tokio::join!(attack, async {
        if case.number == 42 { most_pids(&boxed.instance, begun).await } else { 0 }
    });
    let (_, exit) = boxed.end().await;
    if let (43, Some(peak)) = (case.number, exit.usage.and_then(|u| u.memory_peak)) {
        row.measured.insert("memory_overshoot_bytes".into(), peak.saturating_sub(MEMORY));
    }
    if case.number == 43
        && let (Some(meter), Some(before)) = (meter, before)
        && let Some(peak) = meter::peak(meter)
    {
        let over = peak.saturating_sub(before).saturating_sub(MEMORY);
        row.measured.insert("memory_overshoot_bytes".into(), over);
    }
    if let ExitCause::Killed(KillReason::Limit(what)) = &exit.cause
        && let Some(seen) = first_number(what)
    {
        let (name, limit) = if what.starts_with("memory") {
            ("memory_seen_over_bytes", MEMORY)
        } else {
            ("disk_seen_over_bytes", DISK)
        };
        row.measured.insert(name.into(), seen.saturating_sub(limit));
    }
    if pids > 0 {
        row.measured.insert("most_pids_count".into(), pids);
    }
    if case.dir == Some("/data") {
        let held = on_disk(&ground.data);
        row.measured.insert("disk_overshoot_bytes".into(), held.saturating_sub(DISK));
    }
    let (outcome, detail) = bounded(launcher, case, (seen.outcome(), seen.detail()), &mut row);
    ground.clear();
    Ok(row.seen(outcome, detail))
}

/// The highest count that the host reads until the attack is over (at most 3 s).
async fn most_pids(instance: &Arc<dyn palisade_sandbox::Instance>, begun: Instant) -> u64 {
    let mut most = 0;
    while begun.elapsed() < Duration::from_secs(1) {
        most = most.max(u64::from(instance.usage().await.pids.unwrap_or(0)));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    most
}

/// What came of it, with every bound checked: exceeding one is a success of the attacker.
pub fn bounded(
    launcher: Launcher,
    case: &Case,
    (outcome, detail): (String, String),
    row: &mut Row,
) -> (String, String) {
    let over = |what: &str| ("SUCCEEDED".to_owned(), format!("{what}; {detail}"));
    let measured = |name: &str| row.measured.get(name).copied().unwrap_or(0);
    let reached = first_number(&detail).unwrap_or(0);
    match case.number {
        42 => {
            // The attacker itself counts too; an orphan's parent for a moment as well.
            let most = measured("most_pids_count").max(reached + 1);
            row.measured.insert("most_pids_count".into(), most);
            if most > PIDS + 1 {
                return over("more processes than the cap");
            }
        }
        43 => {
            let mut allowed =
                if launcher.cgroups() { CGROUP_SLACK } else { POLICED_MEMORY_OVERSHOOT };
            if has_network(case) {
                allowed += MEMORY / 4 + CGROUP_SLACK;
            }
            if measured("memory_overshoot_bytes") > allowed {
                return over("more memory than limit and overshoot");
            }
        }
        44 => {
            let share = detail.split(' ').next().and_then(|s| s.parse::<f64>().ok());
            let Some(share) = share else { return (outcome, detail) };
            row.measured.insert("cpu_share_millis".into(), (share * 1000.0) as u64);
            let slack = if launcher.cgroups() { CPU_SLACK } else { POLICED_CPU_SLACK };
            return if share * 1000.0 <= (CPU * slack / 100) as f64 {
                ("contained".into(), detail)
            } else {
                over(&format!("more processor time than {slack} % of its share"))
            };
        }
        45 if case.dir == Some("/data") && measured("disk_overshoot_bytes") > DISK_OVERSHOOT => {
            return over("more on disk than limit and overshoot");
        }
        _ => {}
    }
    let outcome = match outcome {
        // The kernel's out-of-memory killer took the child that held it.
        o if case.number == 43 && o == "killed:SIGKILL" => "killed:memory".to_owned(),
        o => o,
    };
    (outcome, detail)
}

/// Attempts on the plugin's own network, whose sockets version 1 of cgroups counts by themselves.
pub fn has_network(case: &Case) -> bool {
    case.variant.ends_with("tcp") || case.variant.ends_with("udp")
}

/// The first number that is in it.
pub fn first_number(text: &str) -> Option<u64> {
    text.split(|c: char| !c.is_ascii_digit()).find(|w| !w.is_empty())?.parse().ok()
}

/// Bytes of blocks below `folder`.
fn on_disk(folder: &Path) -> u64 {
    let mut total = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        total += meta.blocks() * 512;
        if meta.is_dir() {
            total += on_disk(&entry.path());
        }
    }
    total
}
