//! Builds the guests beside this folder. A file of its own for all that run them: the tests of this crate, of its
//! library, and the escape suite.

use std::{fs, path::Path, process::Command};

/// Builds the guest in the folder `guest` for `target`, and reads `file` of what came of it.
///
/// # Errors
/// What rustup or the compiler says.
pub(crate) fn build(guest: &str, target: &str, file: &str) -> Result<Vec<u8>, String> {
    // Whoever includes this lies two folders below the root.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let place = root.join("crates/palisade-wasm/tests/guests").join(guest);
    let into = root.join("target/guests");
    let run = |command: &mut Command| {
        // How this program was built is not how a guest is.
        command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        let out = command.current_dir(&place).output().map_err(|e| format!("{command:?}: {e}"))?;
        let said = String::from_utf8_lossy(&out.stderr);
        if out.status.success() { Ok(()) } else { Err(format!("{command:?}: {said}")) }
    };
    run(Command::new("rustup").args(["target", "add", target]))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(cargo)
        .args(["build", "--release", "--locked", "--target", target, "--target-dir"])
        .arg(&into))?;
    let built = into.join(target).join("release").join(file);
    fs::read(&built).map_err(|e| format!("{}: {e}", built.display()))
}
