//! `palisade mcp pins`: what was approved of each server, and what has changed since.

use std::path::{Path, PathBuf};

use palisade_audit::{JsonLinesRecorder, MemoryRecorder, RecordKind, Recorder};
use palisade_broker::{Action, Gate};
use palisade_mcp::{Pin, PinFile, list_pins};
use palisade_model::{ErrorCode, Failure, text::escape};
use serde_json::json;

use crate::{
    cli::{Audit, Output},
    session,
    terminal::{self, Paint},
    trouble::Trouble,
};

/// Longest definition that is shown, in characters.
const MAX_SHOWN: usize = 4000;

/// Show what was approved of MCP servers; accept what has changed
///
/// Without a server: all servers. With one: its tools, and what waits to be accepted. A running server offers an
/// accepted tool when its client asks for the list again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  palisade mcp pins
  palisade mcp pins server-everything-1f2e3d4c
  palisade mcp pins server-everything-1f2e3d4c --accept tool:echo
  palisade mcp pins server-everything-1f2e3d4c --forget instructions")]
pub(crate) struct Pins {
    /// The server, as the list has it
    pub(crate) server: Option<String>,
    /// Accept what was seen last under this name (`tool:NAME`, `instructions`); may be given several times
    #[arg(long, value_name = "NAME", requires = "server")]
    pub(crate) accept: Vec<String>,
    /// Accept everything that waits
    #[arg(long, requires = "server")]
    pub(crate) accept_all: bool,
    /// Forget a name: what is seen next is approved by being seen; may be given several times
    #[arg(long, value_name = "NAME", requires = "server")]
    pub(crate) forget: Vec<String>,
    /// Where the pins are kept [default: PALISADE_STATE_DIR, else /var/lib/palisade for root and
    /// ~/.local/state/palisade]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) audit: Audit,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The folder of pins in a state folder.
pub(super) fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("pins")
}

/// Shows or changes pins.
pub(crate) async fn pins(args: &Pins) -> Result<(), Trouble> {
    let state_dir = match &args.state_dir {
        Some(dir) => dir.clone(),
        None => palisade_host::default_state_dir()?,
    };
    let mut files = list_pins(&folder(&state_dir)).map_err(Failure::from)?;
    let Some(server) = &args.server else {
        show_all(&files, args.output.json);
        return Ok(());
    };
    let file = files.iter_mut().find(|f| f.plugin.id.as_str() == server).ok_or_else(|| {
        let message = format!("no server {} has pins", escape(server, 80));
        Trouble::from(Failure::new(ErrorCode::NotFound, message))
            .hint("palisade mcp pins lists the servers")
    })?;
    let mut accept = args.accept.clone();
    if args.accept_all {
        accept.extend(file.waiting.keys().cloned());
    }
    accept.sort();
    accept.dedup();
    if accept.is_empty() && args.forget.is_empty() {
        show_one(file, args.output.json);
        return Ok(());
    }
    let changes: Vec<(&String, bool)> =
        accept.iter().map(|n| (n, true)).chain(args.forget.iter().map(|n| (n, false))).collect();
    change(file, &changes, args.audit.file.as_deref()).await?;
    if args.output.json {
        show_one(file, true);
    } else {
        for (name, accepted) in changes {
            let done = if accepted { "accepted" } else { "forgotten" };
            terminal::out(format_args!("{}: {} {done}", file.plugin.id, escape(name, 200)));
        }
    }
    Ok(())
}

/// Each change is an operator's consent: recorded before it is made.
async fn change(
    file: &mut PinFile,
    changes: &[(&String, bool)],
    audit: Option<&Path>,
) -> Result<(), Trouble> {
    let recorder: std::sync::Arc<dyn Recorder> = match audit {
        Some(path) => std::sync::Arc::new(JsonLinesRecorder::open(path).map_err(Failure::from)?),
        None => std::sync::Arc::new(MemoryRecorder::new(16)),
    };
    let gate = Gate::new(recorder);
    let operator = session::operator();
    let by = operator.principal().to_string();
    let plugin = std::sync::Arc::new(file.plugin.clone());
    for (name, accepted) in changes {
        let detail = if *accepted { "pin accepted" } else { "pin forgotten" };
        let action = Action::new(RecordKind::Consent)
            .about(std::sync::Arc::clone(&plugin))
            .name(name)
            .detail(detail);
        gate.run(&operator, action, || async {
            if *accepted { file.accept(name, &by).map(|_| ()) } else { file.forget(name) }
                .map_err(Failure::from)
        })
        .await?;
    }
    gate.recorder().flush().await.map_err(Failure::from)?;
    Ok(())
}

fn show_all(files: &[PinFile], as_json: bool) {
    if as_json {
        let servers: Vec<_> = files
            .iter()
            .map(|f| {
                let waiting: Vec<&String> = f.waiting.keys().collect();
                json!({ "server": f.plugin.id, "origin": f.plugin.origin, "pins": f.pins.len(), "waiting": waiting })
            })
            .collect();
        terminal::json(&servers);
        return;
    }
    if files.is_empty() {
        terminal::out("nothing is pinned yet");
    }
    let paint = Paint::stdout();
    for file in files {
        let waiting = match file.waiting.len() {
            0 => String::new(),
            n => paint.warn(format!(", {n} to be accepted")),
        };
        terminal::out(format_args!(
            "{}  {} pinned{waiting}  {}",
            paint.bold(&file.plugin.id),
            file.pins.len(),
            paint.dim(&file.plugin.origin)
        ));
    }
}

fn definition(pin: &Pin) -> String {
    match &pin.definition {
        Some(text) => escape(text, MAX_SHOWN),
        None => format!("(longer than is kept; SHA-256 {})", escape(&pin.sha256, 64)),
    }
}

fn show_one(file: &PinFile, as_json: bool) {
    if as_json {
        terminal::json(&json!({
            "server": file.plugin.id, "origin": file.plugin.origin, "file": file.path,
            "pins": file.pins, "waiting": file.waiting,
        }));
        return;
    }
    let paint = Paint::stdout();
    terminal::out(format_args!(
        "{}  {}",
        paint.bold(&file.plugin.id),
        paint.dim(&file.plugin.origin)
    ));
    for (name, pin) in &file.pins {
        let by = pin.by.as_deref().unwrap_or("unknown");
        let state = if file.waiting.contains_key(name) {
            paint.warn("changed")
        } else {
            paint.good("pinned")
        };
        terminal::out(format_args!(
            "  {state}  {}  {}",
            escape(name, 200),
            paint.dim(format!("by {}, SHA-256 {:.16}…", escape(by, 80), escape(&pin.sha256, 64)))
        ));
    }
    for (name, new) in &file.waiting {
        terminal::out(format_args!("\n{}", paint.bold(escape(name, 200))));
        if let Some(old) = file.pins.get(name) {
            terminal::out(format_args!("  {} {}", paint.dim("approved:"), definition(old)));
        }
        terminal::out(format_args!("  {} {}", paint.warn("seen:    "), definition(new)));
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@+".contains(&b));
        let quoted = if plain { name.clone() } else { "--accept-all".to_owned() };
        let option = if plain { format!("--accept {quoted}") } else { quoted };
        terminal::out(format_args!(
            "  accept it with: palisade mcp pins {} {option}",
            file.plugin.id
        ));
    }
}
