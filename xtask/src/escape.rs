//! `cargo xtask escape`: the attacker inside the walls, and the report of what it achieved.

use crate::{Result, step, tools};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// One JSON document instead of a table
    #[arg(long)]
    json: bool,
}

/// The attacker is a workspace of its own: it is linked statically and full of `unsafe`.
pub(crate) fn build_attacker() -> Result {
    let folder = step::root().join("tests/escape/attacker");
    step::run(
        step::cargo(["build", "--release", "--quiet"])
            .current_dir(folder)
            // The suite looks for it in the attacker's own target folder.
            .env_remove("CARGO_TARGET_DIR"),
    )
}

pub(crate) fn run(args: &Args) -> Result {
    // The attacker is linked, and its twins are plugins in Python and in JavaScript.
    tools::ensure(&[tools::CC, tools::PYTHON, tools::NODE])?;
    build_attacker()?;
    let mut suite = step::cargo(["run", "--quiet", "--package", "palisade-escape", "--"]);
    if args.json {
        suite.arg("--json");
    }
    step::run(&mut suite)
}
