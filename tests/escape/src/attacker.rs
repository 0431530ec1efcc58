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
