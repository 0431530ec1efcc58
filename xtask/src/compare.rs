//! `cargo xtask compare`: the attacker behind other people's sandboxes, and how fast those start.
//!
//! They are fetched from where their authors publish them, into `target/`, and nothing of them is kept in
//! the work tree. docs/explanation/comparison.md tells what is compared, and holds the table.

use std::{path::PathBuf, process::Command};

use crate::{Result, escape, step, tools};

/// The versions that the page was written with.
const SANDLOCK: &str = "0.9.0";
const SRT: &str = "@anthropic-ai/sandbox-runtime";
const SRT_VERSION: &str = "0.0.78";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The rows as one JSON document instead of the tables
    #[arg(long, conflicts_with = "write")]
    json: bool,
    /// Write the table into docs/explanation/comparison.md
    #[arg(long)]
    write: bool,
}

/// Installs sandbox-runtime from the npm registry, and gives the folder that it is installed in.
pub(crate) fn srt() -> Result<PathBuf> {
    tools::require(&[tools::NODE, tools::NPM, tools::BWRAP, tools::SOCAT, tools::RIPGREP])?;
    let folder = step::root().join("target/test-packages/srt");
    if !folder.join("node_modules").join(SRT).join("package.json").is_file() {
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        step::run(
            Command::new("npm")
                .args(["install", "--no-fund", "--prefix"])
                .arg(&folder)
                .arg(format!("{SRT}@{SRT_VERSION}")),
        )?;
    }
    Ok(folder)
}

/// Builds sandlock from crates.io, and gives its program.
fn sandlock() -> Result<PathBuf> {
    let root = step::root().join("target/compare");
    let program = root.join("bin/sandlock");
    if !program.is_file() {
        step::run(
            step::cargo(["install", "--locked", "--quiet", "--version", SANDLOCK, "--root"])
                .arg(&root)
                .arg("sandlock-cli")
                // Not among what is built from the work tree.
                .env("CARGO_TARGET_DIR", root.join("build")),
        )?;
        let _ = std::fs::remove_dir_all(root.join("build"));
    }
    Ok(program)
}

pub(crate) fn run(args: &Args) -> Result {
    tools::require(&[tools::CC, tools::PYTHON])?;
    let (srt, sandlock) = (srt()?, sandlock()?);
    escape::build_attacker()?;
    let mut compare =
        step::cargo(["run", "--quiet", "--package", "palisade-escape", "--", "compare"]);
    compare.arg("--srt").arg(srt).arg("--sandlock").arg(sandlock);
    if args.json {
        compare.arg("--json");
    }
    if args.write {
        compare.arg("--write");
    }
    step::run(&mut compare)
}
