//! The guests, built from `benches/guests` for `wasm32-unknown-unknown`.

use std::{fs, path::Path, process::Command};

use crate::plugin::Result;

const TARGET: &str = "wasm32-unknown-unknown";

/// The same program twice.
pub(crate) struct Guests {
    /// A component of `palisade:plugin`.
    pub(crate) component: Vec<u8>,
    /// A module for Extism.
    pub(crate) extism: Vec<u8>,
}

impl Guests {
    /// Builds them; cargo does nothing where nothing has changed.
    pub(crate) fn build() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = root.join("../target/guests/bench");
        run(Command::new("rustup").args(["--quiet", "target", "add", TARGET]))?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        run(Command::new(cargo)
            .args(["build", "--quiet", "--release", "--locked", "--target", TARGET])
            .arg("--manifest-path")
            .arg(root.join("guests/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target))?;
        let built = target.join(TARGET).join("release");
        let module = fs::read(built.join("bench_component.wasm"))?;
        let component = palisade_wasm::componentize(&module)?.into_owned();
        Ok(Self { component, extism: fs::read(built.join("bench_extism.wasm"))? })
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|e| format!("{command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}
