//! `cargo xtask lint`: what a reviewer should not have to look for.
//!
//! Every check runs, so that one run shows everything; the first failure does not hide the others.

mod house;
mod portable;
mod proofs;

use crate::{
    Result, step,
    tools::{self, DENY},
};

/// The checks that need no network. Advisories come from a database that may not be reachable.
const OFFLINE: [&str; 3] = ["licenses", "bans", "sources"];

fn format() -> Result {
    step::run(&mut step::cargo(["fmt", "--all", "--check"]))
}

fn clippy() -> Result {
    step::run(&mut step::cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))
}

fn documentation() -> Result {
    step::run(
        step::cargo(["doc", "--workspace", "--no-deps", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

fn dependencies() -> Result {
    tools::ensure(&[DENY])?;
    if !DENY.is_present() {
        return Err("the dependencies were not checked".into());
    }
    let mut offline = step::cargo(["deny", "--all-features", "check"]);
    step::run(offline.args(OFFLINE))?;
    if step::succeeds(&mut step::cargo(["deny", "fetch", "db"])) {
        step::run(&mut step::cargo(["deny", "--all-features", "check", "advisories"]))
    } else {
        eprintln!("NOT CHECKED: advisories; their database cannot be reached from here");
        Ok(())
    }
}

pub(crate) fn run() -> Result {
    let failures: Vec<String> =
        [format, house::run, proofs::run, clippy, portable::run, documentation, dependencies]
            .into_iter()
            .filter_map(|check| check().err())
            .collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\nerror: ")) }
}
