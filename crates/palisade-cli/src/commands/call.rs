//! `palisade call`: start, initialize, call one tool or command, print its result, stop.

use std::io::Read as _;

use palisade_host::{CommandOutput, Plugin};
use palisade_model::{ErrorCode, Failure};
use serde_json::value::RawValue;

use crate::{
    cli::Call,
    consent, grant,
    logs::Printer,
    platform::{interrupts::Interrupts, walls::Explaining},
    session::Session,
    terminal,
    trouble::Trouble,
};

/// Longest arguments, in bytes: more than a frame carries.
const MAX_ARGUMENTS: u64 = 4 << 20;

/// Runs the command.
pub(crate) async fn call(args: &Call) -> Result<(), Trouble> {
    let from_stdin = args.arguments == "-";
    let arguments = arguments(&args.arguments)?;
    let (printer, finish) = Printer::start(false)
        .map_err(|e| Failure::new(ErrorCode::Internal, format!("no thread can be started: {e}")))?;
    let result = answer(args, &arguments, from_stdin, printer).await;
    finish.finish();
    match result? {
        Answer::Result(text) => terminal::out(terminal::safe_json(&text)),
        Answer::Command(out) => return shown(args, &out),
    }
    Ok(())
}

/// Prints what a command answered; another status than 0 is the plugin's failure.
fn shown(args: &Call, out: &CommandOutput) -> Result<(), Trouble> {
    if args.output.json {
        terminal::json(out);
    } else if !out.output.is_empty() {
        terminal::out(out.shown());
    }
    match out.status {
        0 => Ok(()),
        status => {
            if !args.output.json {
                terminal::err(format_args!("the command ended with status {status}"));
            }
            Err(Trouble::Said(1))
        }
    }
}

/// What there is to print.
enum Answer {
    /// A tool's result, JSON text.
    Result(String),
    Command(CommandOutput),
}

async fn answer(
    args: &Call,
    arguments: &RawValue,
    stdin_is_taken: bool,
    printer: std::sync::Arc<Printer>,
) -> Result<Answer, Trouble> {
    let (session, plugin) =
        Session::with_plugin(&args.plugin, args.audit.file.as_deref(), Some(printer)).await?;
    let explaining = Explaining::of(&args.explain, &plugin, true)?;
    let granted = grant::apply(&plugin, &args.plugin).await?;
    consent::settle(&session.host, &plugin, stdin_is_taken).await?;
    if let Err(failure) = plugin.start().await {
        explaining.tell(false);
        return Err(failure.into());
    }
    if args.remember.remember {
        grant::remember(&plugin, granted).await?;
    }
    let mut interrupts = Interrupts::new();
    let result = tokio::select! {
        result = ask(args, &plugin, arguments) => result,
        () = interrupts.next() => Err(Failure::new(ErrorCode::Cancelled, "interrupted")),
    };
    // The result counts; a plugin that does not end in order is killed, and that is in the record.
    let stopped = session.host.shutdown().await;
    explaining.tell(false);
    let answer = result?;
    stopped?;
    Ok(answer)
}

async fn ask(args: &Call, plugin: &Plugin, arguments: &RawValue) -> Result<Answer, Failure> {
    if let Some(command) = &args.command {
        return plugin.run_command(command, &args.command_args).await.map(Answer::Command);
    }
    let tool = args.tool.as_deref().unwrap_or_default();
    let result = plugin.call(tool, arguments).await?;
    String::from_utf8(result.bytes().to_vec())
        .map(Answer::Result)
        .map_err(|_| Failure::new(ErrorCode::PluginError, "the result is not text"))
}

/// The arguments as JSON text, which goes to the plugin as it is.
fn arguments(text: &str) -> Result<Box<RawValue>, Trouble> {
    let mut read = String::new();
    let text = if text == "-" {
        std::io::stdin()
            .take(MAX_ARGUMENTS)
            .read_to_string(&mut read)
            .map_err(|e| Trouble::usage(format!("the arguments cannot be read from stdin: {e}")))?;
        read.as_str()
    } else {
        text
    };
    serde_json::from_str(text).map_err(|error| {
        Trouble::usage(format!("the arguments are not JSON: {error}"))
            .hint("quote them for the shell, as in '{\"text\": \"abc\"}'")
    })
}
