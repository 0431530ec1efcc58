//! The `palisade` command: reads the command line, does one thing, says what came of it.
//!
//! Everything that decides is in the library crates; a check that were only here would be missing in every
//! program that embeds them.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod consent;
#[cfg(target_os = "linux")]
mod demo;
mod grant;
mod logs;
mod platform;
mod session;
mod terminal;
mod trouble;
mod words;

use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::{
    cli::{Cli, Command},
    platform::walls,
    trouble::Trouble,
};

fn main() -> ExitCode {
    if let Some(status) = walls::entered() {
        return status;
    }
    let cli = Cli::parse();
    log_to_stderr(cli.verbose);
    let as_json = match &cli.command {
        Command::Demo(args) => args.output.json,
        Command::Run(args) => args.output.json,
        Command::Call(args) => args.output.json,
        Command::Check(args) => args.output.json,
        Command::Grants(args) => args.output.json,
        Command::Audit(args) => args.is_json(),
        Command::Mcp(args) => args.is_json(),
        Command::New(args) => args.output.json,
        Command::Seal(args) => args.output.json,
        Command::Secret(args) => args.json,
        Command::Doctor(args) => args.output.json,
        Command::Schema | Command::Learn(_) | Command::Completions(_) | Command::Man(_) => false,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal::err(format_args!("error: no threads can be started: {error}"));
            return ExitCode::from(1);
        }
    };
    let result = runtime.block_on(execute(cli.command));
    // What still blocks (a terminal that is read) must not keep the command from ending.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            trouble.print(as_json);
            ExitCode::from(trouble.exit_status())
        }
    }
}

async fn execute(command: Command) -> Result<(), Trouble> {
    match command {
        Command::Demo(args) => walls::demo(&args).await,
        Command::Run(args) => commands::run::run(&args).await,
        Command::Call(args) => commands::call::call(&args).await,
        Command::Check(args) => commands::check::check(&args).await,
        Command::Grants(args) => commands::grants::grants(&args).await,
        Command::Learn(args) => walls::learn(&args).await,
        Command::Audit(args) => commands::audit::audit(&args),
        Command::Mcp(args) => commands::mcp::mcp(&args).await,
        Command::New(args) => commands::new::new(&args),
        Command::Seal(args) => commands::seal::seal(&args),
        Command::Secret(args) => commands::secret::secret(&args).await,
        Command::Doctor(args) => commands::doctor::doctor(&args).await,
        Command::Schema => {
            terminal::json(&palisade_manifest::schema());
            Ok(())
        }
        Command::Completions(args) => {
            commands::pages::completions(args.shell);
            Ok(())
        }
        Command::Man(args) => commands::pages::man(&args.folder),
    }
}

/// Palisade's own log. Plugins' lines go through [`logs`].
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "error",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(terminal::Paint::stderr().is_on())
        .with_env_filter(EnvFilter::new(format!("palisade={level}")))
        .init();
}
