//! `cargo xtask test`: everything that has to pass before a change lands.

use crate::{
    Result, escape, step,
    tools::{self, BWRAP, CC, JAVAC, NEXTEST, NODE, NPM, PYTHON, STRESS_NG},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only tests whose name contains this; no doctests then
    #[arg(long)]
    filter: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result {
    tools::ensure(&[CC, PYTHON, NODE, NPM, JAVAC, BWRAP, STRESS_NG, NEXTEST])?;
    tools::ensure_targets(&tools::WASM_TARGETS)?;
    escape::build_attacker()?;
    let is_whole = args.filter.is_none();
    // The same packages and features every time, so that nothing is built twice.
    if NEXTEST.is_present() {
        let mut nextest = step::cargo(["nextest", "run", "--workspace", "--no-fail-fast"]);
        // Built with the tests, since their package has some that start them.
        let built = step::root().join("target/debug");
        nextest.env("PALISADE_ENGINE", built.join("palisade-engine"));
        nextest.env("PALISADE_WALLED", built.join("examples/walled"));
        // Most tests take two of these threads (.config/nextest.toml).
        let threads = 2 * std::thread::available_parallelism().map_or(1, usize::from);
        nextest.args(["--test-threads", &threads.to_string()]);
        nextest.args(&args.filter);
        step::run(&mut nextest)?;
    } else {
        // One process for a whole test file instead of one for each test; the tests bear both.
        let mut test = step::cargo(["test", "--workspace", "--lib", "--bins", "--tests"]);
        test.args(&args.filter);
        step::run(&mut test)?;
    }
    if is_whole {
        step::run(&mut step::cargo(["test", "--workspace", "--doc", "--quiet"]))?;
    }
    Ok(())
}
