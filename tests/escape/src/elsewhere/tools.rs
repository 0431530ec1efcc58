//! The other tools: how each is asked for the grant that Palisade's plugin has, and how it is run.
//!
//! The grant: the plugin's own folder and one more to read, one folder to write beside its data folder, no
//! network. Nothing of the machine's programs: the attacker is static. sandbox-runtime starts a shell
//! inside and needs `/usr` and its own folder.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde_json::json;

use crate::{
    scene::{Ground, Stage},
    trouble::{Result, Trouble, While},
};

/// Bytes of output that are read.
const MOST_OUTPUT: u64 = 1 << 20;

/// A sandbox of somebody else.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Tool {
    /// bubblewrap, from the distribution.
    Bubblewrap,
    /// sandbox-runtime: the folder that npm installed it to.
    Srt(PathBuf),
    /// sandlock: the built command.
    Sandlock(PathBuf),
}

/// One that runs.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    out: String,
    errors: Receiver<String>,
}

/// How it ended.
pub struct Ended {
    /// What it wrote.
    pub out: String,
    /// What it wrote to its error stream.
    pub errors: String,
    /// Its exit status, as a shell gives it; `None` where it had to be ended.
    pub status: Option<i32>,
}

impl Ended {
    /// The beginning of its error stream, in one line.
    #[must_use]
    pub fn trouble(&self) -> String {
        self.errors.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
    }
}

impl Tool {
    /// The name in tables.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bubblewrap => "bubblewrap",
            Self::Srt(_) => "srt",
            Self::Sandlock(_) => "sandlock",
        }
    }

    /// How many run at once: the slow one several.
    #[must_use]
    pub fn at_once(&self) -> usize {
        if matches!(self, Self::Srt(_)) { 3 } else { 1 }
    }

    /// Whether it has limits on what a plugin may use.
    #[must_use]
    pub fn has_limits(&self) -> bool {
        matches!(self, Self::Sandlock(_))
    }

    /// Whether its plugin has a network namespace of its own.
    #[must_use]
    pub fn own_network(&self) -> bool {
        !matches!(self, Self::Sandlock(_))
    }

    /// Its version, as it says itself.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn version(&self) -> Result<String> {
        let said = |program: &Path| -> Result<String> {
            let out = Command::new(program).arg("--version").output().doing(program.display())?;
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            Ok(text.split_whitespace().last().unwrap_or("unknown").to_owned())
        };
        match self {
            Self::Bubblewrap => said(Path::new("bwrap")),
            Self::Sandlock(program) => said(program),
            Self::Srt(folder) => {
                let file = package(folder).join("package.json");
                let text = fs::read_to_string(&file).doing(file.display())?;
                let package: serde_json::Value = serde_json::from_str(&text)?;
                let version = package.get("version").and_then(|v| v.as_str());
                Ok(version.unwrap_or("unknown").to_owned())
            }
        }
    }

    /// The same, copied to where every user can walk.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn within(&self, folder: &Path) -> Result<Self> {
        match self {
            Self::Bubblewrap => Ok(Self::Bubblewrap),
            Self::Sandlock(program) => {
                let to = folder.join("sandlock");
                fs::copy(program, &to).doing(program.display())?;
                Ok(Self::Sandlock(to))
            }
            Self::Srt(from) => {
                let to = folder.join("srt");
                let copied = Command::new("cp")
                    .args(["-r", "--no-preserve=ownership"])
                    .args([from, &to])
                    .status()
                    .doing("copying sandbox-runtime")?;
                if !copied.success() {
                    return Err(Trouble(format!("{} cannot be copied", from.display())));
                }
                Ok(Self::Srt(to))
            }
        }
    }

    /// Whether it runs an honest program at all with these options: otherwise everything would seem to be stopped.
    ///
    /// # Errors
    /// Where it does not, with what it says.
    pub fn check(&self, options: &[String], stage: &Stage) -> Result<()> {
        let ground = stage.ground()?;
        let honest = ["ids".to_owned()];
        let running = self.start_with(options, stage, &ground, &honest)?;
        let ended = running.wait(Duration::from_secs(30));
        ground.clear();
        if ended.status == Some(42) {
            return Ok(());
        }
        let (name, status) = (self.name(), ended.status);
        Err(Trouble(format!("{name} does not run the attacker ({status:?}): {}", ended.trouble())))
    }

    /// Starts the attacker with these arguments.
    ///
    /// # Errors
    /// When the tool cannot be started.
    pub fn start(&self, stage: &Stage, ground: &Ground, args: &[String]) -> Result<Running> {
        self.start_with(&[], stage, ground, args)
    }

    /// The same with `options` of the tool beside those for the grant.
    ///
    /// # Errors
    /// When the tool cannot be started.
    pub fn start_with(
        &self,
        options: &[String],
        stage: &Stage,
        ground: &Ground,
        args: &[String],
    ) -> Result<Running> {
        let mut command = self.command(options, stage, ground, args)?;
        command.process_group(0);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .doing(self.name())?;
        let lines = lines_of(child.stdout.take());
        let errors = lines_of(child.stderr.take());
        Ok(Running { child, lines, out: String::new(), errors })
    }

    fn command(
        &self,
        options: &[String],
        stage: &Stage,
        ground: &Ground,
        args: &[String],
    ) -> Result<Command> {
        let attacker = stage.plugin.join("attacker");
        let mut read = vec![stage.plugin.clone(), ground.readonly.clone()];
        read.extend(stage.privileged.clone());
        let write = [&ground.granted, &ground.data];
        let mut command;
        match self {
            Self::Bubblewrap => {
                command = Command::new("bwrap");
                command.args(options).args(["--unshare-all", "--die-with-parent", "--new-session"]);
                command.args(["--clearenv", "--setenv", "PATH", "/usr/bin:/bin"]);
                command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
                for path in &read {
                    command.arg("--ro-bind").args([path, path]);
                }
                for path in write {
                    command.arg("--bind").args([path, path]);
                }
                command.arg("--chdir").arg(&stage.plugin).arg("--").arg(&attacker);
            }
            Self::Sandlock(program) => {
                command = Command::new(program);
                command.args(["run", "--clean-env"]).args(options);
                for path in &read {
                    command.arg("--fs-read").arg(path);
                }
                for path in write {
                    command.arg("--fs-write").arg(path);
                }
                command.arg("--cwd").arg(&stage.plugin).arg("--").arg(&attacker);
            }
            Self::Srt(folder) => {
                read.extend([PathBuf::from("/usr"), folder.clone()]);
                read.extend(write.map(|p| p.clone()));
                // Beside the ground, whose entries are counted.
                let settings = ground.root.with_extension("srt.json");
                let rules = json!({
                    "network": {"allowedDomains": [], "deniedDomains": []},
                    "filesystem":
                        {"denyRead": ["/"], "allowRead": read, "allowWrite": write, "denyWrite": []},
                });
                fs::write(&settings, rules.to_string())?;
                command = Command::new("node");
                command.arg(package(folder).join("dist/cli.js")).arg("--settings").arg(settings);
                command.args(options).arg("--").arg(&attacker).current_dir(&stage.plugin);
                // Node itself would not start with what the careless host leaves there.
                command.env_remove("NODE_OPTIONS");
            }
        }
        command.args(args);
        Ok(command)
    }
}

/// Where npm puts the package.
fn package(folder: &Path) -> PathBuf {
    folder.join("node_modules/@anthropic-ai/sandbox-runtime")
}

/// Lines as they come. The thread ends with the stream, which a daemon may hold open.
fn lines_of(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(stream) = stream {
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream.take(MOST_OUTPUT));
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0) {
                let text = String::from_utf8_lossy(&line).into_owned();
                line.clear();
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

impl Running {
    /// Waits for its end, and ends it where that does not come.
    #[must_use]
    pub fn wait(mut self, patience: Duration) -> Ended {
        let end = Instant::now() + patience;
        let mut over = false;
        while Instant::now() < end && !over {
            match self.lines.recv_timeout(Duration::from_millis(5)) {
                Ok(line) => self.out.push_str(&line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(5)),
            }
            over = self.is_over();
        }
        // Only when it is over by itself has it a status of its own.
        let status = self.end().filter(|_| over).map(shell_status);
        // What was written before the end may still be on its way.
        while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(50)) {
            self.out.push_str(&line);
        }
        let errors: String = self.errors.try_iter().collect();
        Ended { out: self.out, errors, status }
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Whether the process that was started has ended. It is not reaped: its number stays its own.
    fn is_over(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = self.pid().map(|pid| waitid(WaitId::Pid(pid), options));
        !matches!(ended, Some(Ok(None)))
    }

    /// Kills the process that was started, and nothing else.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill_first(&mut self) -> Result<()> {
        self.child.kill().doing("killing a tool")
    }

    /// Ends everything that is still in its process group, and gives how the first process ended.
    pub fn end(&mut self) -> Option<ExitStatus> {
        if let Some(group) = self.pid() {
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.child.wait().ok()
    }
}

fn shell_status(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
