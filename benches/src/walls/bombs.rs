//! Plugins that take all they can get: the escape suite's attacker, and Debian's stress-ng.
//!
//! The attacker is a plugin of the same host as its neighbour, asked for its attempt again and again, and
//! started again where it was ended. stress-ng runs behind the same walls until it is killed, and is started
//! again too where it ended; it replaces its own workers where they are ended.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use palisade_host::{CallOptions, Plugin};
use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{
    Artifact, Backend, Exit, ExitCause, Instance, KillReason, LaunchSpec, Prepared, Runtime, Wire,
    stream::ByteWire,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    host,
    plugin::{self, Result, Silent},
};

/// One way to take too much.
pub(super) struct Bomb {
    pub(super) name: &'static str,
    how: How,
}

enum How {
    /// An attempt of the escape suite: number, variant, parameters.
    Own(u16, &'static str, &'static str),
    /// Arguments of stress-ng.
    Stress(&'static [&'static str]),
}

const fn own(name: &'static str, number: u16, variant: &'static str, params: &'static str) -> Bomb {
    Bomb { name, how: How::Own(number, variant, params) }
}

const fn stress(name: &'static str, args: &'static [&'static str]) -> Bomb {
    Bomb { name, how: How::Stress(args) }
}

/// All of them. Each asks for far more than the default limits allow. stress-ng with a real-time priority is
/// none of them: the walls refuse it (escape 44), and stress-ng ends.
#[rustfmt::skip]
pub(super) const BOMBS: &[Bomb] = &[
    own("anon", 43, "anon", r#"{"bytes": 1073741824}"#),
    own("tmp", 43, "tmp", r#"{"bytes": 1073741824}"#),
    own("shm", 43, "shm", r#"{"bytes": 1073741824}"#),
    own("memfd", 43, "memfd", r#"{"bytes": 1073741824}"#),
    own("page-tables", 43, "page-tables", r#"{"bytes": 1073741824}"#),
    own("pipes", 43, "many-pipes", r#"{"bytes": 1073741824}"#),
    own("sockets", 43, "many-sockets", r#"{"bytes": 1073741824}"#),
    own("fork", 42, "fork", r#"{"count": 4096}"#),
    own("threads", 42, "threads", r#"{"count": 4096}"#),
    own("spin", 44, "spin-children", r#"{"threads": 16, "seconds": 30}"#),
    own("disk", 45, "fill", r#"{"dir": "/data", "bytes": 1073741824}"#),
    own("inodes", 45, "inodes", r#"{"dir": "/data", "count": 1000000}"#),
    own("handles", 46, "fds", r#"{"count": 100000}"#),
    own("inotify", 46, "watches", r#"{"count": 1000000}"#),
    own("timers", 46, "timers", r#"{"count": 1000000}"#),
    own("signals", 46, "signals", r#"{"count": 1000000}"#),
    own("log", 47, "log-stderr", r#"{"bytes": 4294967296, "seconds": 30}"#),
    own("log-lines", 47, "notifications", r#"{"count": 100000000, "seconds": 30}"#),
    own("requests", 47, "requests", r#"{"count": 100000000, "seconds": 30}"#),
    stress("stress-vm", &["--vm", "4", "--vm-bytes", "1g"]),
    stress("stress-bigheap", &["--bigheap", "4"]),
    stress("stress-shm", &["--shm", "4"]),
    stress("stress-mmap", &["--mmap", "4", "--mmap-bytes", "1g"]),
    stress("stress-page-tables", &["--mmaphuge", "4"]),
    stress("stress-pipe", &["--pipe", "8"]),
    stress("stress-sockpair", &["--sockpair", "8"]),
    stress("stress-fork", &["--fork", "8"]),
    stress("stress-pthread", &["--pthread", "8"]),
    stress("stress-cpu", &["--cpu", "16"]),
    stress("stress-switch", &["--switch", "8"]),
    stress("stress-hdd", &["--hdd", "4"]),
    stress("stress-tmp", &["--temp-path", "/tmp", "--hdd", "4"]),
    stress("stress-dentry", &["--dentry", "4"]),
    stress("stress-open", &["--open", "4"]),
    stress("stress-itimer", &["--itimer", "4", "--itimer-freq", "1000000"]),
    stress("stress-timer", &["--timer", "4", "--timer-freq", "1000000"]),
    stress("stress-sigq", &["--sigq", "8"]),
];

const STRESS_NG: &str = "/usr/bin/stress-ng";
/// What a bomb must have used of the processor to have gone off, hundredths of a second.
const LEAST_TICKS: u64 = 3;
/// The same for one that is held up as it writes, in bytes: a flood of logs waits for its reader.
const LEAST_WRITTEN: u64 = 256 << 10;
/// A plugin that a limit has ended is started again after this time, as an operator's rule would.
const RESTART: Duration = Duration::from_millis(250);

/// The attacker as a plugin, in a folder of its own.
pub(super) fn attacker() -> Result<tempfile::TempDir> {
    let entry = "kind = \"exec\"\nfile = \"attacker\"";
    let what = "Makes one attempt of the escape suite.";
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    fs::copy(build()?, folder.path().join("attacker"))?;
    let manifest = host::manifest("bomb", entry, "attempt", what);
    fs::write(folder.path().join("plugin.toml"), manifest)?;
    Ok(folder)
}

/// Builds the attacker: a workspace of its own, statically linked.
fn build() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/escape/attacker");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--locked", "--quiet", "--target-dir", "target"])
        .current_dir(&folder)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET")
        .status()?;
    if built.success() {
        Ok(folder.join("target/release/attacker"))
    } else {
        Err("the attacker does not build".into())
    }
}

/// What is needed to set off any of them.
pub(super) struct Arsenal {
    /// The attacker, loaded and not started.
    pub(super) attacker: Plugin,
    backend: Arc<ProcessBackend>,
    /// Folders for stress-ng, and launch specifications.
    folders: plugin::Plugin,
}

impl Arsenal {
    pub(super) fn new(attacker: Plugin) -> Result<Self> {
        let backend = Arc::new(ProcessBackend::new(Options::default()));
        Ok(Self { attacker, backend, folders: plugin::Plugin::build()? })
    }

    /// Removes what the last one left in its data folder: the next begins with an empty one.
    pub(super) fn clear(&self, state: &Path) -> Result<()> {
        let of_attacker = fs::read_dir(state.join("state/data"))?
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().starts_with("bomb"))
            .map(|e| e.path());
        for folder in of_attacker.chain([self.folders.data().to_path_buf()]) {
            for entry in fs::read_dir(folder)?.flatten() {
                let path = entry.path();
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(path)?;
                } else {
                    fs::remove_file(path)?;
                }
            }
        }
        Ok(())
    }

    /// Sets one off.
    pub(super) async fn light(&self, bomb: &Bomb) -> Result<Lit> {
        match bomb.how {
            How::Own(number, variant, params) => {
                let params: Value = serde_json::from_str(params)?;
                let args = json!({"number": number, "variant": variant, "params": params});
                self.attacker.start().await?;
                let plugin = self.attacker.clone();
                let done = Arc::new(AtomicU64::new(0));
                let task = tokio::spawn(again_and_again(plugin.clone(), args, Arc::clone(&done)));
                Ok(Lit::Own { plugin, task, done })
            }
            How::Stress(args) => {
                let mut artifact: Artifact = self.folders.artifact();
                artifact.program.runtime = Runtime::Native;
                artifact.program.file = STRESS_NG.to_owned();
                artifact.program.args = ["--quiet", "--timeout", "0", "--temp-path", "/data"]
                    .iter()
                    .chain(args)
                    .map(|a| (*a).to_owned())
                    .collect();
                let prepared = self.backend.prepare(&artifact).await?;
                let runs = Arc::new(Mutex::new(Runs::default()));
                let task =
                    tokio::spawn(run_again(prepared, self.folders.spec(), Arc::clone(&runs)));
                Ok(Lit::Stress { runs, task })
            }
        }
    }
}

/// The processes with this name.
fn named(name: &str) -> Vec<PathBuf> {
    let is_one = |folder: &PathBuf| {
        fs::read_to_string(folder.join("comm")).is_ok_and(|comm| comm.starts_with(name))
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().map(|e| e.path()).filter(is_one).collect()
}

/// Processor time, in hundredths of a second, of the processes with this name and of those that they have
/// waited for (proc_pid_stat(5)).
fn worked(name: &str) -> u64 {
    let ticks = named(name).into_iter().map(|folder| {
        let stat = fs::read_to_string(folder.join("stat")).unwrap_or_default();
        let times = stat.rsplit_once(") ").map_or("", |(_, tail)| tail).split(' ').skip(11).take(4);
        times.filter_map(|f| f.parse::<u64>().ok()).sum::<u64>()
    });
    ticks.sum()
}

/// Bytes that the processes with this name have written, wherever to (proc_pid_io(5)).
fn wrote(name: &str) -> u64 {
    let bytes = named(name).into_iter().filter_map(|folder| {
        let io = fs::read_to_string(folder.join("io")).ok()?;
        io.lines().find_map(|line| line.strip_prefix("wchar: "))?.parse::<u64>().ok()
    });
    bytes.sum()
}

async fn again_and_again(plugin: Plugin, args: Value, done: Arc<AtomicU64>) {
    let patience = || CallOptions::new().timeout(Duration::from_secs(60));
    loop {
        let answer = plugin.call_with("attempt", &args, patience()).await;
        let ended = match &answer {
            Ok(_) => None,
            Err(_) => plugin.wait().await.ok(),
        };
        // An answer, or an end by a limit; a plugin that does not start counts for nothing.
        if answer.is_ok() || ended.is_some() {
            done.fetch_add(1, Ordering::Relaxed);
        }
        if answer.is_err() {
            tokio::time::sleep(RESTART).await;
            // Where it runs again already, or cannot be started yet, the next turn sees.
            let _ = plugin.start().await;
        }
    }
}

/// What came of starting stress-ng.
#[derive(Default)]
pub(super) struct Runs {
    now: Option<Arc<dyn Instance>>,
    /// How often it has ended, and how often by a limit.
    ended: u64,
    by_limit: u64,
    /// Processor time of those that have ended.
    used: Duration,
    /// Most memory, in bytes.
    peak: u64,
    /// Why it could not be started.
    refused: Option<String>,
}

impl Runs {
    fn count(&mut self, exit: &Exit) {
        let usage = exit.usage.as_ref();
        self.used += usage.and_then(|u| u.cpu).unwrap_or_default();
        self.peak = self.peak.max(usage.and_then(|u| u.memory_peak).unwrap_or(0));
    }

    /// One has ended by itself, or by a limit.
    fn end(&mut self, exit: &Exit) {
        self.count(exit);
        self.ended += 1;
        let by_limit =
            matches!(exit.cause, ExitCause::OutOfMemory | ExitCause::Killed(KillReason::Limit(_)));
        self.by_limit += u64::from(by_limit);
    }
}

fn locked(runs: &Mutex<Runs>) -> MutexGuard<'_, Runs> {
    runs.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run_again(prepared: Arc<dyn Prepared>, spec: LaunchSpec, runs: Arc<Mutex<Runs>>) {
    loop {
        let (wire, _ends) = ByteWire::new();
        let spec = LaunchSpec { wire: Wire::Bytes(wire), ..spec.clone() };
        let instance = match prepared.launch(spec, Arc::new(Silent)).await {
            Ok(instance) => instance,
            Err(e) => {
                locked(&runs).refused = Some(e.to_string());
                return;
            }
        };
        locked(&runs).now = Some(Arc::clone(&instance));
        let exit = instance.wait().await;
        locked(&runs).end(&exit);
        tokio::time::sleep(RESTART).await;
    }
}

/// One that has been set off.
pub(super) enum Lit {
    Own { plugin: Plugin, task: JoinHandle<()>, done: Arc<AtomicU64> },
    Stress { runs: Arc<Mutex<Runs>>, task: JoinHandle<()> },
}

impl Lit {
    /// Ends it; says what it came to.
    ///
    /// # Errors
    /// Where it did not do what it is for: a good number beside a bomb that did not go off says nothing.
    pub(super) async fn put_out(self) -> Result<String> {
        match self {
            Self::Own { plugin, task, done } => {
                let (ticks, written) = (worked("attacker"), wrote("attacker"));
                let used = plugin.usage().await.and_then(|u| u.memory).unwrap_or(0);
                task.abort();
                let _ = task.await;
                plugin.kill().await?;
                let done = done.load(Ordering::Relaxed);
                if done == 0 && ticks < LEAST_TICKS && written < LEAST_WRITTEN {
                    return Err(
                        "the bomb did not go off: no attempt, no processor time, nothing written"
                            .into(),
                    );
                }
                Ok(format!("{done} attempts, {} KiB at the end", used >> 10))
            }
            Self::Stress { runs, task } => {
                let ticks = worked("stress-ng");
                task.abort();
                let _ = task.await;
                let now = locked(&runs).now.take();
                if let Some(instance) = now {
                    let exit = instance.kill(KillReason::Asked).await;
                    if matches!(exit.cause, ExitCause::Killed(KillReason::Asked)) {
                        locked(&runs).count(&exit);
                    }
                }
                let runs = locked(&runs);
                if let Some(why) = &runs.refused {
                    return Err(format!("the bomb could not be started: {why}").into());
                }
                let ticks = ticks + u64::try_from(runs.used.as_millis() / 10).unwrap_or(u64::MAX);
                let (ended, by_limit) = (runs.ended, runs.by_limit);
                if by_limit == 0 && ticks < LEAST_TICKS {
                    return Err(format!(
                        "the bomb did not go off: {ticks} ticks of work, ended {ended} times, never by a limit"
                    )
                    .into());
                }
                Ok(format!("ended {ended} times, peak {} MiB", runs.peak >> 20))
            }
        }
    }
}
