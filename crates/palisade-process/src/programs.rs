//! The programs of this machine that a person means by a plain name: `node`, `python3`, `git`.
//!
//! A name is looked up in a PATH. What stands there may be a version manager's shim (pyenv, asdf, volta),
//! which only says which program it stands for; a wall cannot run it. pyenv's choice is read from its
//! files. Another shim is asked, by running it as the user would: that is the only thing that is run
//! outside of the walls here, and only under a plain name in the user's own PATH.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use palisade_sandbox::SandboxError;

/// How long a shim may take to answer.
const DEADLINE: Duration = Duration::from_secs(20);
const ASK_PYTHON: [&str; 3] = ["-I", "-c", "import sys; print(sys.executable)"];
const ASK_NODE: [&str; 2] = ["-p", "process.execPath"];
/// Programs that stand behind the names of others, told apart by what they are called themselves.
const MULTI_CALL: [&str; 4] = ["volta-shim", "mise", "asdf", "proto-shim"];

fn artifact_error(what: impl Into<String>, hint: impl Into<String>) -> SandboxError {
    SandboxError::Artifact { what: what.into(), hint: hint.into() }
}

/// Whether `name` is a plain name of Python: `python`, `python3`, `python3.12`.
#[must_use]
pub fn is_python(name: &str) -> bool {
    name.strip_prefix("python").is_some_and(|v| v.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

/// Whether `name` is a plain name of Node.js.
#[must_use]
pub fn is_node(name: &str) -> bool {
    matches!(name, "node" | "nodejs")
}

/// Whether `name` is a plain name of the Java launcher.
#[must_use]
pub fn is_java(name: &str) -> bool {
    name == "java"
}

/// Whether `name` is a plain name of a POSIX shell.
#[must_use]
pub fn is_shell(name: &str) -> bool {
    matches!(name, "sh" | "dash" | "bash" | "ash" | "ksh" | "mksh" | "zsh")
}

/// The folders in which programs are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    folders: Vec<PathBuf>,
}

impl Programs {
    /// Those of a PATH. Empty and relative entries are skipped: they would depend on the working
    /// directory.
    #[must_use]
    pub fn new(path: &OsStr) -> Self {
        Self { folders: std::env::split_paths(path).filter(|dir| dir.is_absolute()).collect() }
    }

    /// Those of this process's PATH.
    #[must_use]
    pub fn of_process() -> Self {
        Self::new(
            &std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()),
        )
    }

    /// The folders, in order.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The first executable file of that name.
    ///
    /// # Errors
    /// [`SandboxError::Artifact`] where there is none.
    pub fn find(&self, name: &str) -> Result<PathBuf, SandboxError> {
        let here = self.folders.iter().map(|dir| dir.join(name)).find(|p| is_executable(p));
        here.ok_or_else(|| {
            let name = palisade_model::text::escape(name, 100);
            artifact_error(
                format!("{name} is not found in PATH"),
                format!("install {name}, or name its path"),
            )
        })
    }

    /// The Python that a plain name stands for, behind shims.
    ///
    /// # Errors
    /// [`SandboxError::Artifact`] where there is none, or its shim does not say which.
    pub fn python(&self, name: &str) -> Result<PathBuf, SandboxError> {
        self.behind_shims(name, &ASK_PYTHON)
    }

    /// The Node.js that a plain name stands for, behind shims.
    ///
    /// # Errors
    /// As [`Programs::python`].
    pub fn node(&self, name: &str) -> Result<PathBuf, SandboxError> {
        self.behind_shims(name, &ASK_NODE)
    }

    /// Any program that a plain name stands for. A shim of one that cannot be asked (a console script)
    /// stands for the file of that name beside the interpreter.
    ///
    /// # Errors
    /// As [`Programs::python`].
    pub fn any(&self, name: &str) -> Result<PathBuf, SandboxError> {
        if is_python(name) {
            return self.python(name);
        }
        if is_node(name) {
            return self.node(name);
        }
        let found = self.find(name)?;
        if !is_shim(&found) {
            return Ok(found);
        }
        if let Some(real) = behind_pyenv(&found, name) {
            return Ok(real);
        }
        [self.node("node"), self.python("python3")]
            .into_iter()
            .flatten()
            .filter_map(|interpreter| Some(interpreter.parent()?.join(name)))
            .find(|beside| beside.is_file())
            .ok_or_else(|| {
                artifact_error(
                    format!(
                        "{} is a version manager's shim, and what it stands for was not found",
                        found.display()
                    ),
                    "name the program itself by its path",
                )
            })
    }

    fn behind_shims(&self, name: &str, question: &[&str]) -> Result<PathBuf, SandboxError> {
        let found = self.find(name)?;
        if !is_script(&found) && !is_multi_call(&found) {
            return Ok(found);
        }
        if let Some(real) = behind_pyenv(&found, name) {
            return Ok(real);
        }
        let answer = PathBuf::from(ask(&found, question)?);
        if !answer.is_absolute() || is_script(&answer) || is_multi_call(&answer) {
            return Err(artifact_error(
                format!(
                    "{} is a script that does not say which {name} it stands for",
                    found.display()
                ),
                "put the interpreter itself first in PATH",
            ));
        }
        Ok(answer)
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| {
        #[cfg(unix)]
        let executable = std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o111 != 0;
        #[cfg(not(unix))]
        let executable = true;
        m.is_file() && executable
    })
}

fn is_script(path: &Path) -> bool {
    let mut head = [0u8; 2];
    File::open(path).and_then(|mut f| f.read_exact(&mut head)).is_ok() && head == *b"#!"
}

fn is_multi_call(path: &Path) -> bool {
    let real = path.canonicalize().ok();
    let name = real.as_deref().and_then(Path::file_name).and_then(OsStr::to_str);
    name.is_some_and(|name| MULTI_CALL.contains(&name))
}

/// Whether the program at `path` is a version manager's shim: it lies in a folder of shims, or is a
/// program that stands behind many names.
fn is_shim(path: &Path) -> bool {
    path.parent().and_then(Path::file_name).is_some_and(|folder| folder == "shims")
        || is_multi_call(path)
}

/// The program behind a shim of pyenv (`ROOT/shims/NAME`), by the versions that its global file names
/// (pyenv's README, "Understanding Python version selection"); `None` where that says nothing.
fn behind_pyenv(shim: &Path, name: &str) -> Option<PathBuf> {
    let shims = shim.parent().filter(|folder| folder.ends_with("shims"))?;
    let root = shims.parent()?;
    let mut chosen = String::new();
    match std::env::var("PYENV_VERSION") {
        Ok(version) if !version.is_empty() => chosen = version.replace(':', "\n"),
        _ => {
            let file = File::open(root.join("version")).ok()?;
            file.take(4096).read_to_string(&mut chosen).ok()?;
        }
    }
    chosen
        .split_whitespace()
        .filter(|v| !v.contains('/') && *v != "..")
        .map(|version| root.join("versions").join(version).join("bin").join(name))
        .find(|program| program.is_file())
}

/// Runs a shim and gives the first line of its answer.
fn ask(program: &Path, args: &[&str]) -> Result<String, SandboxError> {
    let shown = program.display();
    let fail = |what: String| {
        artifact_error(
            format!("{shown} {what}"),
            "check that it runs, or put the interpreter itself first in PATH",
        )
    };
    let mut child = Command::new(program)
        .args(args)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| fail(format!("cannot be started: {e}")))?;
    let started = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|e| fail(format!("cannot be waited for: {e}")))? {
            Some(status) => break status,
            None if started.elapsed() > DEADLINE => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(fail(format!("did not answer within {DEADLINE:?}")));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    if !status.success() {
        return Err(fail(format!("ended with {status}")));
    }
    let mut output = String::new();
    if let Some(stdout) = child.stdout.take() {
        let read = stdout.take(64 * 1024).read_to_string(&mut output);
        read.map_err(|e| fail(format!("wrote nonsense: {e}")))?;
    }
    output.lines().next().map(str::to_owned).ok_or_else(|| fail("said nothing".into()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn only_plain_names_are_looked_up() {
        for name in ["python", "python3", "python3.12"] {
            assert!(is_python(name), "{name}");
        }
        for name in ["", "python-config", "pythonx", "ipython", "python3 ", "../python"] {
            assert!(!is_python(name), "{name}");
        }
        assert!(is_node("node") && !is_node("node-gyp"));
    }

    #[test]
    fn the_choice_of_pyenv_is_read_and_its_shims_are_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let marker = root.join("was-run");
        for name in ["python3", "mcp-server-x"] {
            let shim = format!("#!/bin/sh\ntouch {}\n", marker.display());
            program(&root.join("shims").join(name), &shim);
            program(&root.join("versions/3.12.1/bin").join(name), "the program");
        }
        fs::write(root.join("version"), "3.9.9\n3.12.1\n").unwrap();
        let programs = Programs::new(root.join("shims").as_os_str());
        let bin = root.join("versions/3.12.1/bin");
        if std::env::var_os("PYENV_VERSION").is_none() {
            assert_eq!(programs.python("python3").unwrap(), bin.join("python3"));
            assert_eq!(programs.any("mcp-server-x").unwrap(), bin.join("mcp-server-x"));
        }
        assert!(!marker.exists(), "a shim was run");
    }

    #[test]
    fn another_shim_is_asked_what_it_stands_for() {
        let dir = tempfile::tempdir().unwrap();
        let (shims, bin) = (dir.path().join("shims"), dir.path().join("real/bin"));
        program(&shims.join("node"), &format!("#!/bin/sh\necho {}/node\n", bin.display()));
        program(&bin.join("node"), "the program");
        program(&shims.join("server-x"), "#!/bin/sh\nexit 1\n");
        program(&bin.join("server-x"), "#!/usr/bin/env node\n");
        let programs = Programs::new(shims.as_os_str());
        assert_eq!(programs.node("node").unwrap(), bin.join("node"));
        assert_eq!(programs.any("server-x").unwrap(), bin.join("server-x"));
        assert!(programs.any("server-y").is_err());
    }
}
