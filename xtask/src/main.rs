//! The project's own commands: `cargo xtask test | lint | fuzz | escape | compare | vm | bench`.
//!
//! Each command installs what it needs where it may (see `tools`), says what it runs before it runs it,
//! and how long it took. Nothing here knows anything about Palisade itself.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod compare;
mod escape;
mod fuzz;
mod lint;
mod step;
mod test;
mod tools;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What every command gives: nothing, or one sentence that says what went wrong.
type Result<T = ()> = std::result::Result<T, String>;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the tests need, then run all of them: unit, property, end-to-end, escape, doctests
    Test(test::Args),
    /// Format, clippy, rustdoc, dependencies, and the rules of the house
    Lint,
    /// Run the fuzz targets, each for some seconds
    Fuzz(fuzz::Args),
    /// Run the escape suite and print what each attempt achieved
    Escape(escape::Args),
    /// Run the attacker behind other sandboxes, and print what each of them stops
    Compare(compare::Args),
    /// Try the walls on other kernels and systems, in small machines under QEMU
    Vm(vm::Args),
    /// Measure, each number against a baseline of the same run
    Bench(BenchArgs),
}

#[derive(clap::Args)]
struct BenchArgs {
    /// `call_vs_socketpair`, `gate_decision`, `rss_per_idle_process_plugin`, `storage_vs_sqlite`, `egress`
    /// (`egress_throughput` and `egress_connect_latency`), `walls` (`launch_vs_bwrap` with `pooled_vs_bwrap`,
    /// `neighbour_p99_ratio`, or `neighbour_p99_ratio.BOMB` of it, `reap_50_stopped`, `policed_overshoot` and
    /// `launch_vs_srt`), `launch_vs_sandlock` (after `cargo xtask compare`), `mcp_overhead`, `wasm` (`warm`: calls against Extism and
    /// wasmtime alone; `cold`: first calls against both, and of components in JavaScript and Python, `cold_js` and
    /// `cold_python`; `first_start`: first starts with Winch and with Cranelift, `first_start_js` and
    /// `first_start_python`; `rss_per_idle_instance`: 10 000 idle instances), or `all`
    #[arg(required = true)]
    names: Vec<String>,
    /// An array of {name, value, unit, baseline, ratio} instead of a table
    #[arg(long)]
    json: bool,
    /// Fail when something that was aimed at is not met
    #[arg(long)]
    strict: bool,
    /// With `walls`: how long each step of a launch takes
    #[arg(long)]
    steps: bool,
}

fn bench(args: &BenchArgs) -> Result {
    tools::ensure(&[tools::CC, tools::BWRAP, tools::PYTHON, tools::NODE, tools::STRESS_NG])?;
    if args.names.iter().any(|n| n == "all" || n == "walls" || n.starts_with("launch_vs_srt")) {
        compare::srt()?;
    }
    // Some benches start the command itself.
    step::run(&mut step::cargo(["build", "--release", "--quiet", "--package", "palisade-cli"]))?;
    let mut run = step::cargo(["run", "--release", "--quiet", "--package", "palisade-bench", "--"]);
    run.args(&args.names);
    if args.json {
        run.arg("--json");
    }
    if args.strict {
        run.arg("--strict");
    }
    if args.steps {
        run.arg("--steps");
    }
    step::run(&mut run)
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Test(args) => test::run(&args),
        Command::Lint => lint::run(),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Escape(args) => escape::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Vm(args) => vm::run(&args),
        Command::Bench(args) => bench(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
