//! The attacker program: building it once, and its table of attempts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

use crate::trouble::{Result, Trouble, While};

/// One row of the attacker's table (`attacker list --json`).
#[derive(Clone, Debug, Deserialize)]
pub struct Attempt {
    /// Number in the catalogue.
    pub number: u16,
    /// One way to make it.
    pub variant: String,
    /// What is tried, in words.
    pub name: String,
    /// How the positive control is run; the words of the attacker's `Control`.
    pub control: String,
    /// Why there is no control, where `control` is `none`.
    #[serde(default)]
    pub control_reason: String,
    /// The control could hurt the machine.
    pub harmful: bool,
    /// `host` where only the host can tell whether the goal was reached.
    pub judge: String,
    /// The twin that makes it, where it is not the static attacker.
    #[serde(skip)]
    pub twin: Option<Twin>,
}

/// An attacker in an interpreter: attempts that those make differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twin {
    /// CPython.
    Python,
    /// Node.js.
    Node,
}

impl Twin {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Python, Self::Node];

    /// What stands behind the variant of its attempts.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Python => "@python",
            Self::Node => "@node",
        }
    }

    /// Its interpreter.
    #[must_use]
    pub fn interpreter(self) -> &'static str {
        match self {
            Self::Python => "python3",
            Self::Node => "node",
        }
    }

    /// The name of its program.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Python => "attacker.py",
            Self::Node => "attacker.mjs",
        }
    }

    /// The text of its program.
    #[must_use]
    pub fn source(self) -> &'static str {
        match self {
            Self::Python => include_str!("../twins/attacker.py"),
            Self::Node => include_str!("../twins/attacker.mjs"),
        }
    }

    /// The program at `path`, outside the walls: without the variables with which the suite's runner is
    /// started, some of which an interpreter would follow.
    #[must_use]
    pub fn command(self, path: &Path) -> Command {
        let mut command = Command::new(self.interpreter());
        command.arg(path).env_clear();
        for name in ["PATH", "LANG", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    /// The table of the program at `path`.
    ///
    /// # Errors
    /// When it cannot be run or prints something else.
    pub fn list(self, path: &Path) -> Result<Vec<Attempt>> {
        let out = self.command(path).arg("list").output();
        let out = out.doing("running a twin")?;
        let mut attempts: Vec<Attempt> =
            serde_json::from_slice(&out.stdout).doing("reading a twin's table")?;
        attempts.iter_mut().for_each(|a| a.twin = Some(self));
        Ok(attempts)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("attacker")
}

/// Builds the attacker (static, release) and gives its path. Several test processes may ask at once: a
/// lock file lets one build and the others wait.
///
/// # Errors
/// When cargo cannot build it; the message is cargo's.
pub fn build() -> Result<PathBuf> {
    let folder = folder();
    let target = folder.join("target");
    fs::create_dir_all(&target).doing("making the attacker's target folder")?;
    let lock =
        fs::File::create(target.join("escape-suite.lock")).doing("opening the build lock")?;
    lock.lock().doing("waiting for the build lock")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Its own folder decides the flags (`.cargo/config.toml` there links statically); those of the build
    // that started us must not leak in.
    let built = Command::new(cargo)
        .args(["build", "--release", "--locked", "--target-dir"])
        .arg(&target)
        .current_dir(&folder)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .doing("starting cargo for the attacker")?;
    if !built.status.success() {
        return Err(Trouble(format!(
            "the attacker does not build:\n{}",
            String::from_utf8_lossy(&built.stderr)
        )));
    }
    Ok(target.join("release/attacker"))
}

/// The table of a built attacker.
///
/// # Errors
/// When it cannot be run or prints something else.
pub fn list(program: &Path) -> Result<Vec<Attempt>> {
    let out =
        Command::new(program).args(["list", "--json"]).output().doing("running the attacker")?;
    serde_json::from_slice(&out.stdout).doing("reading the attacker's table")
}
