//! Where one attempt on the host is made: a folder with plugins, a secret and a state of its own, and the
//! command, on pipes or on a terminal.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    scene::Stage,
    trouble::{Result, Trouble, While},
};

/// Longest run of the command. What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(45);

/// Runs a command on a terminal of its own, types each answer once its question is on the screen, and
/// prints the screen.
const PERSON: &str = r#"
import json, os, pty, select, sys, time
answers, command = json.loads(sys.argv[1]), sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
screen, seen, deadline = b"", 0, time.time() + 40
while time.time() < deadline:
    if terminal in select.select([terminal], [], [], 0.2)[0]:
        try:
            part = os.read(terminal, 65536)
        except OSError:
            break
        if not part:
            break
        screen += part
    if answers and answers[0][0].encode() in screen[seen:]:
        seen = len(screen)
        question, answer, *before = answers.pop(0)
        for there, name in before:
            os.replace(there, name)
        os.write(terminal, answer.encode() + b"\n")
sys.stdout.buffer.write(screen)
sys.stdout.flush()
if time.time() >= deadline:
    os.kill(pid, 9)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 127)
"#;

/// One attempt's place.
pub(super) struct Desk {
    /// Everything below is this attempt's own.
    pub(super) root: PathBuf,
    /// What nobody may learn who was not granted it.
    pub(super) secret: String,
    command: PathBuf,
    stage: Arc<Stage>,
}

/// What a command said.
#[derive(Debug)]
pub(super) struct Said {
    /// `None`: it had to be ended.
    pub(super) status: Option<i32>,
    pub(super) out: Vec<u8>,
    pub(super) err: Vec<u8>,
    pub(super) took: Duration,
}

impl Desk {
    pub(super) fn new(stage: &Arc<Stage>, command: &Path, serial: usize) -> Result<Self> {
        let root = stage.base.path().join(format!("desk-{serial}"));
        let desk = Self {
            root,
            secret: stage.secret.clone(),
            command: command.to_owned(),
            stage: Arc::clone(stage),
        };
        desk.set()?;
        Ok(desk)
    }

    /// A fresh one for the control.
    pub(super) fn beside(other: &Self) -> Result<Self> {
        let mut name = other.root.as_os_str().to_owned();
        name.push("-control");
        let desk = Self {
            root: name.into(),
            secret: other.secret.clone(),
            command: other.command.clone(),
            stage: Arc::clone(&other.stage),
        };
        desk.set()?;
        Ok(desk)
    }

    fn set(&self) -> Result<()> {
        for folder in ["home", "plugin", "texts", "outside"] {
            fs::create_dir_all(self.path(folder)).doing(folder)?;
        }
        fs::write(self.path("outside/secret"), format!("{}\n", self.secret))?;
        Ok(())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A file of the attempt's.
    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, content).doing(path.display())
    }

    /// How often the host's services were visited so far.
    pub(super) fn visits(&self) -> usize {
        self.stage.services.visits()
    }

    /// The port of a service that counts its visitors.
    pub(super) fn port(&self) -> u64 {
        let port = self.stage.services.params.get("tcp_port");
        port.and_then(serde_json::Value::as_u64).unwrap_or(0)
    }

    /// A command with a small environment.
    pub(super) fn prepare(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("TERM", "xterm")
            .env("HOME", self.path("home"))
            .env("PALISADE_STATE_DIR", self.path("state"));
        command
    }

    /// `palisade`, not yet started.
    pub(super) fn palisade(&self, args: &[&str]) -> Command {
        let mut command = self.prepare(&self.command);
        command.args(args);
        command
    }

    /// Runs `palisade` on pipes.
    pub(super) fn run(&self, args: &[&str]) -> Result<Said> {
        self.finish(self.palisade(args), b"")
    }

    /// Runs `palisade` on a terminal. An answer is typed when its question is there; files may be moved just
    /// before.
    pub(super) fn person(&self, answers: &serde_json::Value, args: &[&str]) -> Result<Said> {
        let mut words = vec![self.command.display().to_string()];
        words.extend(args.iter().map(|a| (*a).to_owned()));
        self.on_terminal(answers, &words)
    }

    /// Runs anything on a terminal.
    pub(super) fn on_terminal(
        &self,
        answers: &serde_json::Value,
        words: &[String],
    ) -> Result<Said> {
        let mut python = self.prepare("python3");
        python.arg("-c").arg(PERSON).arg(answers.to_string()).args(words);
        let said = self.finish(python, b"")?;
        // The person says nothing by themselves.
        if said.err.is_empty() { Ok(said) } else { Err(Trouble(said.words())) }
    }

    /// Python, as a host that takes no care.
    pub(super) fn python(&self, program: &str, args: &[&str]) -> Result<Said> {
        let mut python = self.prepare("python3");
        python.arg("-c").arg(program).args(args);
        self.finish(python, b"")
    }

    /// Runs a command to its end, or ends it.
    pub(super) fn finish(&self, mut command: Command, input: &[u8]) -> Result<Said> {
        self.finish_within(&mut command, input, PATIENCE)
    }

    pub(super) fn finish_within(
        &self,
        command: &mut Command,
        input: &[u8],
        patience: Duration,
    ) -> Result<Said> {
        let begun = Instant::now();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().doing("starting a command")?;
        let none = || Trouble("a pipe is missing".into());
        let mut stdin = child.stdin.take().ok_or_else(none)?;
        let mut read = [
            Box::new(child.stdout.take().ok_or_else(none)?) as Box<dyn std::io::Read + Send>,
            Box::new(child.stderr.take().ok_or_else(none)?),
        ]
        .map(|mut pipe| {
            Some(std::thread::spawn(move || {
                let mut bytes = Vec::new();
                // A killed child's pipe may break off.
                let _ = pipe.read_to_end(&mut bytes);
                bytes
            }))
        });
        // Nobody may be there to read it.
        let _ = stdin.write_all(input);
        drop(stdin);
        let mut status = None;
        while begun.elapsed() < patience {
            if let Some(ended) = child.try_wait()? {
                status = Some(ended.code().unwrap_or(-1));
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if status.is_none() {
            child.kill()?;
            child.wait()?;
        }
        let [out, err] = read
            .each_mut()
            .map(|thread| thread.take().and_then(|t| t.join().ok()).unwrap_or_default());
        Ok(Said { status, out, err, took: begun.elapsed() })
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Said {
    /// All of it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        [self.out.as_slice(), b"\n", self.err.as_slice()].concat()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    pub(super) fn holds(&self, bytes: &[u8]) -> bool {
        let all = self.bytes();
        all.windows(bytes.len().max(1)).any(|w| w == bytes)
    }

    /// The stable code of the error that it reports.
    pub(super) fn code(&self) -> Option<String> {
        let text = self.text();
        let at = text.rfind("PAL-")?;
        let code: String = text
            .get(at..)?
            .chars()
            .take_while(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '-')
            .collect();
        Some(code)
    }

    /// The last words, for people.
    pub(super) fn words(&self) -> String {
        let text = palisade_model::text::escape(self.text().trim(), 300);
        format!("status {:?} after {:?}: {text}", self.status, self.took)
    }

    /// Refused with a code, or whatever `otherwise` makes of it. What hangs or tells the secret is an escape.
    pub(super) fn judge(&self, desk: &Desk, otherwise: &str) -> super::Verdict {
        if self.status.is_none() {
            return ("SUCCEEDED".into(), format!("it hangs; {}", self.words()));
        }
        if self.holds(desk.secret.as_bytes()) {
            return ("SUCCEEDED".into(), format!("the secret was told; {}", self.words()));
        }
        match (self.status, self.code()) {
            (Some(0), _) => (otherwise.into(), self.words()),
            (_, Some(code)) => (format!("blocked:{code}"), self.words()),
            (status, None) => (format!("ended:{status:?}"), self.words()),
        }
    }
}

/// A plugin's manifest in Python with a tool `go`; `rest` follows it.
pub(super) fn manifest(id: &str, rest: &str) -> String {
    format!(
        "api: palisade/1\nid: {id}\nversion: 1.0.0\nentry: {{ kind: python, file: main.py }}\n\
         contributes: {{ tools: [{{ name: go, description: Does it. }}] }}\n{rest}"
    )
}

/// A plugin whose tool runs `body`, which answers by `reply(value)` or `fail(text)`; `args` are its
/// arguments.
pub(super) fn program(body: &str) -> String {
    let body = body.lines().map(|l| format!("        {l}\n")).collect::<String>();
    format!(
        r#"
import json, os, socket, sys, time
wire = socket.socket(fileno=3)
lane = wire.makefile("r", encoding="utf-8", newline="\n")
answers = wire.makefile("w", encoding="utf-8", newline="\n")
def say(message):
    answers.write(json.dumps(message) + "\n")
    answers.flush()
def reply(value): say({{"jsonrpc": "2.0", "id": message["id"], "result": value}})
def fail(text): say({{"jsonrpc": "2.0", "id": message["id"], "error": {{"code": -32000, "message": text}}}})
for line in lane:
    message = json.loads(line)
    if "id" not in message:
        continue
    if message["method"] == "call":
        args = message["params"]["args"]
{body}
    elif message["method"] == "initialize":
        reply({{"protocol": 1}})
    else:
        reply({{}})
    if message["method"] == "shutdown":
        break
"#
    )
}
