//! The hostile plugin of the escape suite.
//!
//! `attacker` (or `attacker plugin`) speaks the plugin wire on fd 3 and makes the attempts that
//! the host asks for with the tool `attempt`. `attacker attempt N [VARIANT] [--params JSON]` makes
//! one outside the walls, as positive control, and prints the answer as one JSON line. With
//! `--elsewhere` it is made as a plugin makes it, behind walls that are not Palisade's; `@PATH` in
//! place of the JSON names a file, which is removed, so that the arguments give nothing away.
//! `attacker list --json` prints the table. `attacker ids` and `attacker hold` are what the
//! attempts execute: they print who they are, or wait.
//!
//! The program tests walls; it is not a test itself and asserts nothing. Every loop is bounded in
//! count and time, and outside the walls it harms nothing without being told twice.

// First: it holds the macro that all others use.
#[macro_use]
mod sys;

mod bombs;
mod channel;
mod devices;
mod disk;
mod egress;
mod env;
mod exec;
mod fds;
mod files;
mod filter;
mod misc;
mod mounts;
mod namespaces;
mod net;
mod outcome;
mod parser;
mod proc;
mod process;
mod races;
mod residue;
mod resources;
mod shared;
mod sockets;
mod survive;
mod table;
mod tls;
mod tty;
mod wire;

use serde_json::{Value, json};
use std::process::ExitCode;

const USAGE: &str = "attacker [plugin [--handshake=MODE]] | attempt NUMBER [VARIANT] [--elsewhere] [--params JSON|@PATH] | list [--json]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // A closed reader must be seen as EPIPE, not end the attacker (Rust ignores SIGPIPE already).
    match args.first().map(String::as_str) {
        None | Some("plugin") => wire::serve(handshake_mode(&args)),
        Some(word) if word.starts_with("--handshake") => wire::serve(handshake_mode(&args)),
        Some("list") => list(args.iter().any(|a| a == "--json")),
        Some("attempt") => attempt(&args[1..]),
        Some("ids") => {
            println!("{}", exec::identity());
            // A status that no failed exec gives by chance.
            ExitCode::from(42)
        }
        Some("hold") => {
            // A victim does not outlive the harness that started it.
            // SAFETY: no arguments.
            let parent = unsafe { libc::getppid() };
            // SAFETY: as above.
            while unsafe { libc::getppid() } == parent {
                sys::sleep(std::time::Duration::from_millis(200));
            }
            ExitCode::SUCCESS
        }
        Some("beacon") => survive::beacon_main(&args[1..]),
        Some("recycle") => races::recycle_main(&args[1..]),
        _ => {
            eprintln!("usage: {USAGE}");
            ExitCode::from(2)
        }
    }
}

/// `--handshake=MODE`, or the part of the program's name after `attacker.`.
fn handshake_mode(args: &[String]) -> Option<String> {
    let named = args.iter().find_map(|a| a.strip_prefix("--handshake=")).map(str::to_owned);
    let argv0 = std::env::args().next()?;
    named.or_else(|| argv0.rsplit('/').next()?.strip_prefix("attacker.").map(str::to_owned))
}

fn list(as_json: bool) -> ExitCode {
    if as_json {
        let rows: Vec<Value> = table::all().map(table::Attempt::to_json).collect();
        println!("{}", Value::Array(rows));
    } else {
        for a in table::all() {
            println!("{:>3} {:<24} {} {:?}", a.number, a.variant, a.name, a.params);
        }
    }
    ExitCode::SUCCESS
}

fn attempt(args: &[String]) -> ExitCode {
    let mut words = Vec::new();
    let mut params = json!({});
    let mut elsewhere = false;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--elsewhere" {
            elsewhere = true;
            continue;
        }
        if arg != "--params" {
            words.push(arg.as_str());
            continue;
        }
        match rest.next().map(|text| parameters(text)) {
            Some(Ok(value)) if value.is_object() => params = value,
            _ => {
                eprintln!("--params needs a JSON object");
                return ExitCode::from(2);
            }
        }
    }
    let number = words.first().and_then(|w| w.parse().ok());
    let Some(found) = number.and_then(|n| table::find(n, words.get(1).copied())) else {
        eprintln!("no such attempt; see `attacker list`");
        return ExitCode::from(2);
    };
    let mut ctx = table::Ctx::new(params, !elsewhere, wire::channel());
    ctx.elsewhere = elsewhere;
    ctx.current.set((found.number, found.variant));
    let outcome = found.make(&ctx);
    if !ctx.answered.get() {
        println!("{}", wire::answer_json(&ctx, &outcome));
    }
    ExitCode::SUCCESS
}

/// JSON, or the file after `@`.
fn parameters(text: &str) -> Result<Value, serde_json::Error> {
    let Some(path) = text.strip_prefix('@') else { return serde_json::from_str(text) };
    let read = std::fs::read(path).unwrap_or_default();
    let _ = std::fs::remove_file(path);
    serde_json::from_slice(&read)
}
