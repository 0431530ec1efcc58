//! What the tests of the command share: a place with plugins in it, and the command as root and as a user.
#![allow(dead_code, clippy::unwrap_used)] // Each test file uses a part; a failure here fails its test.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
};

use assert_cmd::Command;
use tempfile::TempDir;

/// Who runs the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Launcher {
    /// Whoever runs the tests.
    Me,
    /// A user without any privilege.
    User,
}

const USER: u32 = 1000;

/// Both launchers where the tests run as root, which can become the other; else the one there is.
pub(crate) fn launchers() -> Vec<Launcher> {
    if rustix::process::geteuid().is_root() {
        vec![Launcher::Me, Launcher::User]
    } else {
        vec![Launcher::Me]
    }
}

/// A temporary place: `plugins`, `texts`, `state`, and a copy of the command that everybody may run.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) launcher: Launcher,
}

impl Place {
    pub(crate) fn new(launcher: Launcher) -> Self {
        let dir = tempfile::Builder::new().prefix("palisade-cli-").tempdir().unwrap();
        let place = Self { dir, launcher };
        let root = place.path("");
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        for folder in ["texts", "home"] {
            fs::create_dir(place.path(folder)).unwrap();
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
        for plugin in ["word-counter", "markov-chatter", "checksum", "hostile"] {
            copy(&source.join(plugin), &place.path("plugins").join(plugin));
        }
        fs::copy(env!("PALISADE_CHECKSUM"), place.path("plugins/checksum/checksum")).unwrap();
        fs::write(place.path("texts/a.txt"), "one two two\n").unwrap();
        if launcher == Launcher::User {
            // The build folder may lie where only root comes. A link would change the owner of the original.
            fs::copy(assert_cmd::cargo::cargo_bin!("palisade"), place.path("palisade")).unwrap();
            give(&root);
        }
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Adds a plugin of the test's own.
    pub(crate) fn plugin(&self, name: &str, manifest: &str, program: &str) {
        let folder = self.path("plugins").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("plugin.yaml"), manifest).unwrap();
        fs::write(folder.join("main.py"), program).unwrap();
        if self.launcher == Launcher::User {
            give(&folder);
        }
    }

    /// The command, in this place, with a small environment.
    pub(crate) fn std_command(&self) -> std::process::Command {
        self.command_through(&[])
    }

    /// The command, started by the last of `programs`, which are programs that start others, with their arguments.
    fn command_through(&self, programs: &[&str]) -> std::process::Command {
        let palisade = match self.launcher {
            Launcher::Me => assert_cmd::cargo::cargo_bin!("palisade").to_owned(),
            Launcher::User => self.path("palisade"),
        };
        let mut command = match programs {
            [] => std::process::Command::new(palisade),
            [first, rest @ ..] => {
                let mut command = std::process::Command::new(first);
                command.args(rest).arg(palisade);
                command
            }
        };
        command.current_dir(self.dir.path()).env_clear();
        for name in ["PATH", "LANG", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("HOME", self.path("home")).env("PALISADE_STATE_DIR", self.path("state"));
        if self.launcher == Launcher::User {
            command.uid(USER).gid(USER);
            // Interpreters of another user's home cannot be reached.
            command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
        }
        command
    }

    pub(crate) fn palisade(&self, args: &[&str]) -> Command {
        let mut command = Command::from_std(self.std_command());
        command.args(args);
        command
    }

    /// Runs the command; gives status, stdout and stderr.
    pub(crate) fn run(&self, args: &[&str]) -> (i32, String, String) {
        self.run_through(&[], args)
    }

    /// The same with [`Place::command_through`].
    pub(crate) fn run_through(&self, programs: &[&str], args: &[&str]) -> (i32, String, String) {
        let output = self.command_through(programs).args(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

/// A manifest in Python with one tool, `go`.
pub(crate) fn manifest(id: &str, rest: &str) -> String {
    format!(
        "api: palisade/1\nid: {id}\nversion: 1.0.0\nentry: {{ kind: python, file: main.py }}\n\
         contributes: {{ tools: [{{ name: go, description: Does it. }}] }}\n{rest}"
    )
}

/// A plugin whose tool `go` runs `body`, which answers by `reply(value)`.
pub(crate) fn program(body: &str) -> String {
    let body = body.lines().map(|l| format!("        {l}\n")).collect::<String>();
    format!(
        r#"
import json, os, signal, socket, sys, time
wire = socket.socket(fileno=3)
# Two files: writing to a text file that is also read throws away what it had read ahead.
lane = wire.makefile("r", encoding="utf-8", newline="\n")
answers = wire.makefile("w", encoding="utf-8", newline="\n")
def reply(value):
    answers.write(json.dumps({{"jsonrpc": "2.0", "id": message["id"], "result": value}}, ensure_ascii=False) + "\n")
    answers.flush()
for line in lane:
    message = json.loads(line)
    if "id" not in message:
        continue
    if message["method"] == "call":
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

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Gives a tree to the user.
fn give(path: &Path) {
    chown(path, Some(USER), Some(USER)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path());
        }
    }
}
