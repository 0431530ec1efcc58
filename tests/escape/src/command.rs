//! The `palisade` command itself: what the attempts against the host are made through.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::trouble::{Result, Trouble, While};

/// Names a built command, so that none is built.
pub const BUILT: &str = "PALISADE_ESCAPE_COMMAND";

/// Builds the command, where it is not built already and the environment names none, and gives its path.
///
/// # Errors
/// When cargo cannot build it; the message is cargo's.
pub fn build() -> Result<PathBuf> {
    if let Some(built) = std::env::var_os(BUILT) {
        return Ok(built.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--package", "palisade-cli", "--bin", "palisade", "--message-format=json"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        // Those are about the package that is being tested, and another would be built differently.
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("CARGO_PKG_NAME")
        .output()
        .doing("starting cargo for the command")?;
    if !built.status.success() {
        let why = String::from_utf8_lossy(&built.stderr);
        return Err(Trouble(format!("the command does not build:\n{why}")));
    }
    let out = String::from_utf8_lossy(&built.stdout);
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    };
    let found = out.lines().filter_map(executable).next_back();
    found.ok_or_else(|| Trouble("cargo names no executable".into()))
}
