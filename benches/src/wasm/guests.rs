//! The guests, built from `benches/guests`: for `wasm32-unknown-unknown`, and with the SDKs of JavaScript and
//! Python as their templates do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use palisade_conformance::components;

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

/// Where the sources of the guest in another language are.
fn sources(language: &str, main: &str) -> [PathBuf; 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests").join(language);
    [folder.join(main), folder.join("world.wit")]
}

/// The component in JavaScript, by componentize-js.
pub(crate) fn javascript() -> Result<Vec<u8>> {
    Ok(fs::read(components::javascript("bench-js", &sources("js", "main.js")))?)
}

/// The component in Python, by componentize-py.
pub(crate) fn python() -> Result<Vec<u8>> {
    Ok(fs::read(components::python("bench-python", &sources("python", "main.py")))?)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|e| format!("{command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}
