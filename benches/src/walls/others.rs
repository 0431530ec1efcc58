//! `launch_vs_srt` and `launch_vs_sandlock`: the start of one static program to its exit, against Anthropic's
//! sandbox-runtime and against sandlock.
//!
//! The program writes one line and ends. Ours is measured twice: in a host that runs already (as the library
//! is used), and as a command that is started, makes its backend, launches, and ends (`once`): the like of
//! `srt …` and `sandlock run …`. What else is inside each side is in docs/explanation/comparison.md.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{
    Backend, BoxFuture, ExitCause, HostCalls, HostRequest, OutputStream, Prepared,
};
use serde_json::json;

use crate::{
    plugin::{Plugin, Result, Silent},
    report::{Row, Samples},
};

const ROUNDS: usize = 60;
const WARM_UP: usize = 4;
/// Namespaces are torn down after the end; nobody shall pay for another.
const AFTERWARDS: Duration = Duration::from_millis(20);
/// What this program is started with to launch the program in the named folder once.
pub(crate) const ONCE_ARGUMENT: &str = "--launch-once";

/// Until the first line, and until the exit.
#[derive(Default)]
struct Times {
    line: Samples,
    exit: Samples,
}

impl Times {
    fn push(&mut self, (line, exit): (Duration, Duration)) {
        self.line.push_micros(line);
        self.exit.push_micros(exit);
    }
}

/// A host that notes when the first line comes.
struct Listener {
    start: Instant,
    first: Mutex<Option<Duration>>,
}

impl HostCalls for Listener {
    fn request(
        &self,
        request: HostRequest,
    ) -> BoxFuture<'static, std::result::Result<palisade_model::Payload, palisade_model::Failure>>
    {
        Silent.request(request)
    }

    fn output(&self, _stream: OutputStream, _line: &str) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(self.start.elapsed());
    }

    fn output_dropped(&self, _bytes: u64) {}
}

/// One launch to its exit.
async fn ours(prepared: &Arc<dyn Prepared>, plugin: &Plugin) -> Result<(Duration, Duration)> {
    let listener = Arc::new(Listener { start: Instant::now(), first: Mutex::default() });
    let instance =
        prepared.launch(plugin.spec(), Arc::clone(&listener) as Arc<dyn HostCalls>).await?;
    let exit = instance.wait().await;
    let took = listener.start.elapsed();
    if exit.cause != ExitCause::Exited(0) {
        return Err(format!("the program ended otherwise: {exit}").into());
    }
    // The line may be handed on after the exit is known.
    for _ in 0..200 {
        if let Some(first) = *listener.first.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok((first, took.max(first)));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Err("the program wrote no line".into())
}

/// `--launch-once FOLDER`: what a command line tool does, from its start to its end.
pub(crate) fn once(folder: &str) -> ExitCode {
    let launch = || -> Result<()> {
        let plugin = Plugin::at(Path::new(folder))?;
        tokio::runtime::Runtime::new()?.block_on(async {
            let backend = ProcessBackend::new(Options::default());
            let prepared = backend.prepare(&plugin.artifact()).await?;
            ours(&prepared, &plugin).await.map(drop)
        })
    };
    match launch() {
        Ok(()) => {
            // The caller reads a line here as from every other side.
            let _ = std::io::stdout().write_all(b"line\n");
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Runs a command line, and checks that it printed the line and ended well.
fn command_line(command: &mut Command) -> Result<(Duration, Duration)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn()?;
    let mut out = child.stdout.take().ok_or("no stdout")?;
    let mut line = [0u8; 5];
    let read = out.read_exact(&mut line);
    let first = start.elapsed();
    let output = child.wait_with_output()?;
    let exit = start.elapsed();
    if read.is_err() || &line != b"line\n" || !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let name = command.get_program().to_string_lossy().into_owned();
        return Err(format!("{name} did not run the program ({}): {said}", output.status).into());
    }
    Ok((first, exit))
}

fn once_command(plugin: &Plugin) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    let folder = plugin.root().parent().ok_or("no folder")?;
    command.arg(ONCE_ARGUMENT).arg(folder);
    Ok(command)
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")
}

/// sandbox-runtime, with the grant that our side has.
struct Srt {
    package: PathBuf,
    settings: PathBuf,
    /// A node that has the library loaded and its proxies running.
    library: (Child, ChildStdin, BufReader<ChildStdout>),
}

impl Srt {
    fn new(plugin: &Plugin) -> Result<Self> {
        let installed = target().join("test-packages/srt");
        let package = installed.join("node_modules/@anthropic-ai/sandbox-runtime");
        let package = fs::canonicalize(&package).map_err(|e| {
            format!("sandbox-runtime is not installed (`cargo xtask bench` does it): {e}")
        })?;
        let settings = plugin.data().with_file_name("srt.json");
        // What it runs inside needs: a shell, and its own program that sets the filter.
        let read = [Path::new("/usr"), &package, plugin.root(), plugin.data()];
        let rules = json!({
            "network": {"allowedDomains": [], "deniedDomains": []},
            "filesystem":
                {"denyRead": ["/"], "allowRead": read, "allowWrite": [plugin.data()], "denyWrite": []},
        });
        fs::write(&settings, rules.to_string())?;
        let mut node = Command::new("node")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("srt.mjs"))
            .args([&package, &settings, &plugin.program()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start node (apt-get install nodejs): {e}"))?;
        let stdin = node.stdin.take().ok_or("no stdin")?;
        let mut stdout = BufReader::new(node.stdout.take().ok_or("no stdout")?);
        let mut ready = String::new();
        stdout.read_line(&mut ready)?;
        if ready.trim() != "ready" {
            return Err("sandbox-runtime's library did not start".into());
        }
        Ok(Self { package, settings, library: (node, stdin, stdout) })
    }

    fn version(&self) -> Result<String> {
        let text = fs::read_to_string(self.package.join("package.json"))?;
        let package: serde_json::Value = serde_json::from_str(&text)?;
        Ok(package.get("version").and_then(|v| v.as_str()).unwrap_or("unknown").to_owned())
    }

    fn command(&self, plugin: &Plugin) -> Command {
        let mut command = Command::new("node");
        command.arg(self.package.join("dist/cli.js")).arg("--settings").arg(&self.settings);
        command.arg("--").arg(plugin.program()).current_dir(plugin.root());
        command
    }

    /// As measured within that node.
    fn library(&mut self) -> Result<(Duration, Duration)> {
        #[derive(serde::Deserialize)]
        struct Took {
            status: Option<i32>,
            first: f64,
            exit: f64,
        }
        self.library.1.write_all(b"go\n")?;
        let mut line = String::new();
        self.library.2.read_line(&mut line)?;
        let took: Took = serde_json::from_str(&line)?;
        if took.status != Some(0) {
            return Err(format!("the library's program ended with {:?}", took.status).into());
        }
        let micros = |value: f64| Duration::from_secs_f64(value / 1e6);
        Ok((micros(took.first), micros(took.exit)))
    }
}

impl Drop for Srt {
    fn drop(&mut self) {
        let _ = self.library.0.kill();
        let _ = self.library.0.wait();
    }
}

/// Measures against sandbox-runtime.
pub(super) fn srt() -> Result<Vec<Row>> {
    tokio::runtime::Runtime::new()?.block_on(measure_srt())
}

async fn measure_srt() -> Result<Vec<Row>> {
    let plugin = Plugin::build_from("line.c")?;
    let backend = ProcessBackend::new(Options::default());
    let prepared = backend.prepare(&plugin.artifact()).await?;
    let mut srt = Srt::new(&plugin)?;
    let mut node = Command::new("node");
    node.args(["-e", "console.log('line')"]);
    let (mut warm, mut cold, mut cli, mut library, mut bare) =
        <(Times, Times, Times, Times, Times)>::default();
    for round in 0..WARM_UP + ROUNDS {
        let mut order = [0, 1, 2, 3, 4];
        if round % 2 == 1 {
            order.reverse();
        }
        for side in order {
            let (times, took) = match side {
                0 => (&mut warm, ours(&prepared, &plugin).await?),
                1 => (&mut cold, command_line(&mut once_command(&plugin)?)?),
                2 => (&mut cli, command_line(&mut srt.command(&plugin))?),
                3 => (&mut library, srt.library()?),
                _ => (&mut bare, command_line(&mut node)?),
            };
            if round >= WARM_UP {
                times.push(took);
            }
            tokio::time::sleep(AFTERWARDS).await;
        }
    }
    let mut first = Row::new("launch_vs_srt", "us", &cold.exit).against(&cli.exit);
    first.note = format!("{}; sandbox-runtime {}", first.note, srt.version()?);
    Ok(vec![
        first,
        Row::new("launch_vs_srt.library", "us", &warm.exit).against(&library.exit),
        Row::new("launch_vs_srt.library_first_line", "us", &warm.line).against(&library.line),
        Row::new("launch_vs_srt.node_alone", "us", &bare.exit),
    ])
}

/// Measures against sandlock, where `cargo xtask compare` has built it.
pub(super) fn sandlock() -> Result<Vec<Row>> {
    tokio::runtime::Runtime::new()?.block_on(measure_sandlock())
}

async fn measure_sandlock() -> Result<Vec<Row>> {
    let program = target().join("compare/bin/sandlock");
    if !program.exists() {
        return Err("sandlock is not built here: `cargo xtask compare` does it".into());
    }
    let plugin = Plugin::build_from("line.c")?;
    let backend = ProcessBackend::new(Options::default());
    let prepared = backend.prepare(&plugin.artifact()).await?;
    let mut sandlock = Command::new(program);
    sandlock.args(["run", "--clean-env", "--fs-read"]).arg(plugin.root());
    sandlock.arg("--fs-write").arg(plugin.data()).arg("--cwd").arg(plugin.root());
    sandlock.arg("--").arg(plugin.program());
    let mut bwrap = Command::new("bwrap");
    bwrap.args(["--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]);
    bwrap.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind"]);
    bwrap.args([plugin.root(), plugin.root()]).arg("--bind").args([plugin.data(), plugin.data()]);
    bwrap.arg("--").arg(plugin.program());
    let (mut warm, mut cold, mut theirs, mut bubble) = <(Times, Times, Times, Times)>::default();
    for round in 0..WARM_UP + 3 * ROUNDS {
        let mut order = [0, 1, 2, 3];
        if round % 2 == 1 {
            order.reverse();
        }
        for side in order {
            let (times, took) = match side {
                0 => (&mut warm, ours(&prepared, &plugin).await?),
                1 => (&mut cold, command_line(&mut once_command(&plugin)?)?),
                2 => (&mut theirs, command_line(&mut sandlock)?),
                _ => (&mut bubble, command_line(&mut bwrap)?),
            };
            if round >= WARM_UP {
                times.push(took);
            }
            tokio::time::sleep(AFTERWARDS).await;
        }
    }
    Ok(vec![
        Row::new("launch_vs_sandlock", "us", &cold.exit).against(&theirs.exit),
        Row::new("launch_vs_sandlock.host_runs", "us", &warm.exit).against(&theirs.exit),
        Row::new("launch_vs_sandlock.bwrap", "us", &bubble.exit).against(&theirs.exit),
    ])
}
