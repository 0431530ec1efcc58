//! Measures what Palisade costs, each time against a baseline of the same run.
//!
//! `cargo xtask bench NAME|all [--json] [--strict]` runs it in release. What is inside both sides of each number is
//! in docs/explanation/benchmarks.md.
#![deny(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod call;
mod egress;
mod gate;
mod host;
mod launch;
mod mcp;
mod memory;
mod plugin;
mod report;
mod sdk;
mod storage;
mod walls;
mod wasm;

use std::process::ExitCode;

use plugin::Result;
use report::Row;

const NAMES: &[&str] = &[
    "call_vs_socketpair",
    "gate_decision",
    "rss_per_idle_process_plugin",
    "storage_vs_sqlite",
    "egress",
    "mcp_overhead",
    "walls",
    "wasm",
];

fn bench(name: &str) -> Result<Vec<Row>> {
    match name {
        "call_vs_socketpair" => call::run(),
        "gate_decision" => gate::run(),
        "rss_per_idle_process_plugin" => memory::run(),
        "storage_vs_sqlite" => storage::run(),
        "mcp_overhead" => mcp::run(),
        // `walls --steps`.
        "steps" => walls::steps(),
        // One run gives both.
        "egress" | "egress_throughput" | "egress_connect_latency" => egress::run(),
        name if name == "walls" || walls::NAMES.iter().any(|n| name.starts_with(n)) => {
            walls::run(name)
        }
        name if name == "wasm" || wasm::NAMES.iter().any(|n| name.starts_with(n)) => {
            wasm::run(name)
        }
        other => Err(format!("no bench `{other}`; there are {} and all", NAMES.join(", ")).into()),
    }
}

fn run(names: &[&str], json: bool, strict: bool) -> Result<()> {
    let mut rows = Vec::new();
    for name in names {
        rows.extend(bench(name).map_err(|e| format!("{name}: {e}"))?);
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print!("{}", report::table(&rows));
    }
    let missed: Vec<&str> = rows.iter().filter(|r| r.missed).map(|r| r.name.as_str()).collect();
    if strict && !missed.is_empty() {
        return Err(format!("not what was aimed at: {}", missed.join(", ")).into());
    }
    Ok(())
}

fn main() -> ExitCode {
    wasm::forget_variables();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|a| a == sdk::PLUGIN_ARGUMENT) {
        return sdk::run();
    }
    if let [argument, folder] = args.as_slice()
        && argument == walls::others::ONCE_ARGUMENT
    {
        return walls::others::once(folder);
    }
    if let [argument, side, count] = args.as_slice()
        && argument == wasm::idle::ARGUMENT
    {
        return wasm::idle::process(side, count);
    }
    let json = args.iter().any(|a| a == "--json");
    let strict = args.iter().any(|a| a == "--strict");
    let names: Vec<&str> =
        args.iter().map(String::as_str).filter(|a| !a.starts_with("--")).collect();
    let steps = ["steps"];
    let names = match names.as_slice() {
        ["walls"] if args.iter().any(|a| a == "--steps") => steps.to_vec(),
        _ => names,
    };
    let names = match names.as_slice() {
        [] | ["all"] => NAMES.to_vec(),
        some => some.to_vec(),
    };
    match run(&names, json, strict) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
