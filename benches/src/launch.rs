//! `launch_vs_bwrap`: from the request to the first answer, against bubblewrap with the same walls.
//!
//! Both sides run the same static program. Only what happens between request and first answer is timed;
//! killing and reaping is not. The rounds of all sides are interleaved, and the order alternates.
//! `pooled_vs_bwrap` is the same with walls that stand ready, one for each launch.

use std::{
    fs::File,
    io::Read,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{Backend, KillReason, Prepared};
use palisade_seccomp::{Arch, profiles::Profile};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::{
    plugin::{Plugin, Result, Silent, initialize},
    report::{Row, Samples},
};

const ROUNDS: usize = 300;
const WARM_UP: usize = 20;
const AFTERWARDS: Duration = Duration::from_millis(15);

/// One of our backends with a warm spawner.
struct Ours {
    _backend: ProcessBackend,
    prepared: Arc<dyn Prepared>,
    answered: Samples,
    running: Samples,
}

impl Ours {
    async fn new(plugin: &Plugin, options: Options) -> Result<Self> {
        let backend = ProcessBackend::new(options);
        let prepared = backend.prepare(&plugin.artifact()).await?;
        let (answered, running) = Default::default();
        Ok(Self { _backend: backend, prepared, answered, running })
    }

    async fn round(&mut self, plugin: &Plugin, counted: bool) -> Result<()> {
        let spec = plugin.spec();
        let start = Instant::now();
        let instance = self.prepared.launch(spec, Arc::new(Silent)).await?;
        let running = start.elapsed();
        initialize(&instance).await?;
        let answered = start.elapsed();
        instance.kill(KillReason::Asked).await;
        // What a launch leaves to be done after it, for the next one, is not timed, and nobody else pays for it.
        tokio::time::sleep(AFTERWARDS).await;
        if counted {
            self.running.push_micros(running);
            self.answered.push_micros(answered);
        }
        Ok(())
    }
}

/// bubblewrap, asked for what our layout holds.
struct Bwrap {
    files: tempfile::TempDir,
    sources: Vec<(PathBuf, &'static str)>,
    filter: PathBuf,
    samples: Samples,
}

impl Bwrap {
    fn new() -> Result<Self> {
        let files = tempfile::tempdir()?;
        let arch = Arch::native().ok_or("no filter can be made for this processor")?;
        let filter = files.path().join("filter");
        std::fs::write(&filter, Profile::Native.program(arch)?.to_bytes())?;
        let mut sources = Vec::new();
        for (name, target, content) in [
            ("passwd", "/etc/passwd", "plugin:x:1000:1000:plugin:/data:/usr/sbin/nologin\n"),
            ("group", "/etc/group", "plugin:x:1000:\n"),
            ("hosts", "/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
            ("nsswitch", "/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
        ] {
            let path = files.path().join(name);
            std::fs::write(&path, content)?;
            sources.push((path, target));
        }
        Ok(Self { files, sources, filter, samples: Samples::default() })
    }

    /// Opens a file so that the child inherits it.
    fn inherited(path: &PathBuf) -> Result<File> {
        let file = File::open(path)?;
        fcntl_setfd(&file, FdFlags::empty())?;
        Ok(file)
    }

    fn round(&mut self, plugin: &Plugin, counted: bool) -> Result<()> {
        use std::os::fd::AsRawFd;
        let mut bwrap = Command::new("bwrap");
        bwrap.current_dir(self.files.path());
        bwrap.args(["--unshare-all", "--uid", "1000", "--gid", "1000", "--hostname", "palisade"]);
        bwrap.args(["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]);
        for (name, value) in [
            ("HOME", "/data"),
            ("LANG", "C.UTF-8"),
            ("PALISADE", "1"),
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("TMPDIR", "/tmp"),
        ] {
            bwrap.args(["--setenv", name, value]);
        }
        bwrap.args(["--proc", "/proc"]);
        bwrap.args(["--size", "134217728", "--perms", "1777", "--tmpfs", "/tmp"]);
        for device in ["null", "zero", "full", "random", "urandom"] {
            let path = format!("/dev/{device}");
            bwrap.args(["--dev-bind", &path, &path]);
        }
        for (target, link) in [
            ("/proc/self/fd", "/dev/fd"),
            ("/proc/self/fd/0", "/dev/stdin"),
            ("/proc/self/fd/1", "/dev/stdout"),
            ("/proc/self/fd/2", "/dev/stderr"),
        ] {
            bwrap.args(["--symlink", target, link]);
        }
        bwrap.args(["--size", "67108864", "--perms", "1777", "--tmpfs", "/dev/shm"]);
        let mut open = Vec::new();
        for (path, target) in &self.sources {
            let file = Self::inherited(path)?;
            bwrap.args(["--file", &file.as_raw_fd().to_string(), target]);
            open.push(file);
        }
        bwrap.arg("--ro-bind").arg(plugin.root()).arg("/plugin");
        bwrap.arg("--bind").arg(plugin.data()).arg("/data");
        let filter = Self::inherited(&self.filter)?;
        bwrap.args(["--remount-ro", "/", "--seccomp", &filter.as_raw_fd().to_string()]);
        bwrap.args(["--chdir", "/plugin", "--", "/plugin/plugin", "first-byte"]);
        bwrap.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());

        let start = Instant::now();
        let mut child = bwrap
            .spawn()
            .map_err(|e| format!("cannot start bwrap (apt-get install bubblewrap): {e}"))?;
        let mut byte = [0u8; 1];
        let got = child.stdout.as_mut().ok_or("no stdout")?.read(&mut byte)?;
        let elapsed = start.elapsed();
        let output = child.wait_with_output()?;
        if got != 1 || !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("bwrap did not run the program: {said}").into());
        }
        if counted {
            self.samples.push_micros(elapsed);
        }
        Ok(())
    }
}

/// Measures on the runtime that `#[tokio::main]` gives.
pub(crate) fn run() -> Result<Vec<Row>> {
    tokio::runtime::Runtime::new()?.block_on(measure())
}

async fn measure() -> Result<Vec<Row>> {
    let plugin = Plugin::build()?;
    let mut defaults = Ours::new(&plugin, Options::default()).await?;
    let without = Options { cgroups: false, ..Options::default() };
    let mut no_cgroups = Ours::new(&plugin, without).await?;
    let pool = Options { spares: 1, ..Options::default() };
    let mut pooled = Ours::new(&plugin, pool).await?;
    let mut bwrap = Bwrap::new()?;
    for round in 0..WARM_UP + ROUNDS {
        let counted = round >= WARM_UP;
        if round % 2 == 0 {
            pooled.round(&plugin, counted).await?;
            defaults.round(&plugin, counted).await?;
            no_cgroups.round(&plugin, counted).await?;
            bwrap.round(&plugin, counted)?;
        } else {
            bwrap.round(&plugin, counted)?;
            no_cgroups.round(&plugin, counted).await?;
            defaults.round(&plugin, counted).await?;
            pooled.round(&plugin, counted).await?;
        }
        // Both sides leave work behind (namespaces are torn down later); neither shall pay for the other.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(vec![
        Row::new("launch_vs_bwrap", "us", &defaults.answered).against(&bwrap.samples).aim(0.45),
        Row::new("launch_vs_bwrap.without_cgroups", "us", &no_cgroups.answered)
            .against(&bwrap.samples),
        Row::new("launch_vs_bwrap.until_running", "us", &defaults.running).against(&bwrap.samples),
        Row::new("pooled_vs_bwrap", "us", &pooled.answered).against(&bwrap.samples).aim(0.2),
        Row::new("pooled_vs_bwrap.until_running", "us", &pooled.running).against(&bwrap.samples),
    ])
}
