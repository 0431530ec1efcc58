//! Builds the sample plugin `checksum`, so that the demo needs no compiler when it runs.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let source = Path::new("../../plugins/checksum/checksum.c");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os != "linux") {
        // There is no demo where there are no walls for native programs.
        return Ok(());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("checksum");
    // Without a static C library the walls show it the dynamic one.
    if !build(source, &out, true) && !build(source, &out, false) {
        return Err(format!("the C compiler could not build {}", source.display()).into());
    }
    println!("cargo::rustc-env=PALISADE_CHECKSUM={}", out.display());
    Ok(())
}

fn build(source: &Path, out: &Path, is_static: bool) -> bool {
    let mut compiler: Command =
        cc::Build::new().cargo_metadata(false).opt_level(2).get_compiler().to_command();
    compiler.args(["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-s", "-o"]);
    compiler.arg(out).arg(source);
    if is_static {
        compiler.arg("-static");
    }
    compiler.status().is_ok_and(|status| status.success())
}
