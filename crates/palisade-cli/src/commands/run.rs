//! `palisade run`: until the plugin ends or somebody interrupts it.

use std::sync::Arc;

use palisade_host::Plugin;
use palisade_model::{Capability, ErrorCode, Failure, Guarantee, Level};
use palisade_sandbox::Exit;
use serde_json::json;

use crate::{
    cli::Run,
    consent, grant,
    logs::Printer,
    platform::{interrupts::Interrupts, walls::Explaining},
    session::Session,
    terminal::{self, Paint},
    trouble::Trouble,
    words,
};

/// Runs the command.
pub(crate) async fn run(args: &Run) -> Result<(), Trouble> {
    let as_json = args.output.json;
    let (printer, finish) = Printer::start(as_json)
        .map_err(|e| Failure::new(ErrorCode::Internal, format!("no thread can be started: {e}")))?;
    let result = until_it_ends(args, printer).await;
    finish.finish();
    let (plugin, exit) = match result {
        Ok(ended) => ended,
        Err(trouble) if as_json => {
            // One object a line here, so the error is one too.
            if let Trouble::Failure(failure) = &trouble {
                terminal::json_line(&json!({"event": "failed", "error": failure}));
                return Err(Trouble::Said(trouble.exit_status()));
            }
            return Err(trouble);
        }
        Err(trouble) => return Err(trouble),
    };
    let status = plugin.status();
    if as_json {
        terminal::json_line(&json!({
            "event": "ended", "plugin": plugin.id(), "how": exit.to_string(), "exit": exit,
            "counts": status.counts,
        }));
    } else {
        let usage = exit.usage.unwrap_or_default();
        let cpu = usage.cpu.map(|t| format!(", cpu {}", words::time(t))).unwrap_or_default();
        let memory =
            usage.memory_peak.map(|b| format!(", memory {}", words::bytes(b))).unwrap_or_default();
        let paint = Paint::stderr();
        terminal::err(paint.dim(format!("{} {exit}{cpu}{memory}", plugin.id())));
    }
    if exit.is_clean() {
        return Ok(());
    }
    let failure = exit.to_failure();
    if as_json { Err(Trouble::Said(failure.code.exit_status())) } else { Err(failure.into()) }
}

async fn until_it_ends(args: &Run, printer: Arc<Printer>) -> Result<(Plugin, Exit), Trouble> {
    let (session, plugin) =
        Session::with_plugin(&args.plugin, args.audit.file.as_deref(), Some(printer)).await?;
    let explaining = Explaining::of(&args.explain, &plugin, true)?;
    let granted = grant::apply(&plugin, &args.plugin).await?;
    consent::settle(&session.host, &plugin, false).await?;
    let exit = to_its_end(args, &session, &plugin, granted).await;
    explaining.tell(args.output.json);
    exit.map(|exit| (plugin, exit))
}

async fn to_its_end(
    args: &Run,
    session: &Session,
    plugin: &Plugin,
    granted: Vec<Capability>,
) -> Result<Exit, Trouble> {
    // From here on; at the prompt, Ctrl-C ends the command at once.
    let mut interrupts = Interrupts::new();
    tokio::select! {
        started = plugin.start() => started?,
        () = interrupts.next() => return Err(Failure::new(ErrorCode::Cancelled, "interrupted").into()),
    }
    if args.remember.remember {
        grant::remember(plugin, granted).await?;
    }
    announce(plugin, args.output.json);
    let exit = tokio::select! {
        exit = plugin.wait() => Some(exit?),
        () = interrupts.next() => None,
    };
    let exit = match exit {
        Some(exit) => exit,
        None => stop(plugin, args.output.json, &mut interrupts).await?,
    };
    session.host.shutdown().await?;
    Ok(exit)
}

/// Ends it in order; a second interruption kills it.
async fn stop(
    plugin: &Plugin,
    as_json: bool,
    interrupts: &mut Interrupts,
) -> Result<Exit, Trouble> {
    if !as_json {
        terminal::err(Paint::stderr().dim("stopping; once more to kill it"));
    }
    tokio::select! {
        stopped = plugin.stop() => stopped?,
        () = interrupts.next() => plugin.kill().await?,
    }
    Ok(plugin.wait().await?)
}

fn announce(plugin: &Plugin, as_json: bool) {
    let status = plugin.status();
    let achieved = plugin.achieved();
    if as_json {
        terminal::json_line(&json!({
            "event": "started", "plugin": plugin.id(), "instance": status.instance, "backend": status.backend,
            "guarantees": achieved.map(|a| a.guarantees),
        }));
        return;
    }
    let paint = Paint::stderr();
    let backend = status.backend.unwrap_or("no");
    let weak: Vec<String> = achieved
        .iter()
        .flat_map(|a| Guarantee::ALL.into_iter().map(|g| (g, a.guarantees.level(g))))
        .filter(|(_, level)| *level == Level::Policed)
        .map(|(guarantee, level)| format!("{guarantee} {level}"))
        .collect();
    let weak = if weak.is_empty() { String::new() } else { format!(" ({})", weak.join(", ")) };
    terminal::err(format_args!(
        "{} runs behind {backend} walls{weak}. Ctrl-C ends it.",
        paint.bold(plugin.id())
    ));
}
