//! Assembles the kernel of Extism plugins (`src/extism/kernel.wat`).

use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rustc-check-cfg=cfg(fuzzing)");
    let source = "src/extism/kernel.wat";
    println!("cargo::rerun-if-changed={source}");
    let target = PathBuf::from(env::var("OUT_DIR")?).join("kernel.wasm");
    fs::write(target, wat::parse_file(source)?)?;
    Ok(())
}
