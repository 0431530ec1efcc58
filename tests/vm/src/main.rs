//! The program inside the machines of `cargo xtask vm`.
//!
//! As pid 1 of an initramfs it makes the machine ready ([`init`]). Then it puts processes into situations
//! that the host of the developer does not offer ([`situation`], [`place`]), and has doctor, limits and
//! the escape suite run there. What it finds goes to the second serial port, one JSON object a line
//! ([`report`]); `cargo xtask vm` reads that outside.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod controls;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod coverage;
mod differences;
mod doctor;
mod escapes;
mod init;
mod limits;
mod machine;
mod place;
mod plan;
mod promises;
mod refused;
mod report;
mod situation;
mod tests;

use std::process::ExitCode;

/// What went wrong, in one sentence.
type Result<T = ()> = std::result::Result<T, String>;

/// Where everything that the host sent lies inside.
const FOLDER: &str = "/palisade";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    // The kernel may hand words of its own command line to its init; a container's first process has ours.
    let is_command = words.first().is_some_and(|w| matches!(*w, "run" | "enter" | "limits"));
    if rustix::process::getpid().is_init() && !is_command {
        init::run();
    }
    let result = match words.as_slice() {
        ["run"] => situation::run_all(),
        ["enter", place, command @ ..] => place::enter(place, command),
        ["limits", promise] => limits::run(promise),
        _ => Err("usage: palisade-vm run | enter PLACE COMMAND… | limits PROMISE".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("palisade-vm: {message}");
            ExitCode::FAILURE
        }
    }
}
