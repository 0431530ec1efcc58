//! Learning from a command: an MCP server that a client talks to, or a job that ends by itself.
//!
//! Standard input and output pass byte by byte, so that whoever talks to the command talks to it as ever.
//! What passes is looked at for the names of MCP tools, never changed.

mod tools;

use std::{sync::Arc, time::Duration};

use palisade_commands::Start;
use palisade_host::{Conversation, ConverseOptions, LoadOptions};
use palisade_model::{CapabilitySet, ErrorCode, Failure, Kind, Origin};
use palisade_sandbox::stream::{ByteEnds, End};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{Learn, Learned, Stage, within_ceiling};
use crate::{
    commands::mcp::{made, serve},
    logs::Printer,
    trouble::Trouble,
};
use tools::{Direction, Tools};

const BUFFER: usize = 64 << 10;
/// How long the rest of the output may take once the program has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

pub(super) async fn learn(
    args: &Learn,
    ceiling: CapabilitySet,
    printer: Arc<Printer>,
) -> Result<Learned, Trouble> {
    let start = serve::found(&args.command, false, &printer, &palisade_process::backends()).await?;
    let base = base(&start)?;
    let wide = within_ceiling(&base, &ceiling, &[])?;
    let internal = |error: std::io::Error| {
        Failure::new(ErrorCode::Internal, format!("a temporary folder: {error}"))
    };
    let root = tempfile::tempdir().map_err(internal)?;
    let mut options = LoadOptions::new().code(start.code.iter().cloned());
    for (name, value) in &start.env {
        options = options.env(name, value);
    }
    if let Some(folder) = workdir(&ceiling) {
        options = options.workdir(folder);
    }
    let origin = Origin::Command { path: start.identity.clone() };
    let mut stage = Stage::set(args, wide, origin, root.path(), options, &ceiling, printer).await?;
    let tools = Arc::new(Tools::default());
    let done = pass(&mut stage, &tools).await;
    let (seen, records, ended) = stage.strike().await;
    let trouble = done.err().or(ended.err()).map(Trouble::from);
    let mut base = base;
    if let Some(map) = base.as_object_mut() {
        if tools.is_mcp() {
            map.insert("contributes".into(), json!({ "tools": tools.used() }));
        } else if let Some(kind) = map.get_mut("entry").and_then(|e| e.get_mut("kind")) {
            *kind = "exec".into();
        }
    }
    let variables = ceiling.of_kind(Kind::Env).map(|r| (r.scope().to_string(), None)).collect();
    let mut notes = Vec::new();
    let not_called = tools.not_called();
    if !not_called.is_empty() {
        notes.push(format!("Tools that it offers and nobody called: {}", not_called.join(", ")));
    }
    let shown = start.code;
    Ok(Learned {
        base,
        ceiling,
        asked: Vec::new(),
        seen,
        records,
        variables,
        trouble,
        shown,
        notes,
    })
}

/// The manifest of a command, without what it asks for.
fn base(start: &Start) -> Result<Value, Trouble> {
    let limits = made::limits(palisade_policy::OperatorPolicy::default().ceilings());
    let manifest = made::manifest(start, &[], &limits).map_err(palisade_host::HostError::from)?;
    let mut base = manifest.to_json();
    if let Some(map) = base.as_object_mut() {
        // Whose it is will be the author's to say; the name is enough for now.
        let id = made::id(&start.identity);
        let readable = id.rsplit_once('-').map_or(id.as_str(), |(readable, _)| readable);
        map.insert("id".into(), readable.into());
        map.insert("version".into(), "0.1.0".into());
    }
    Ok(base)
}

/// The first folder that it may use.
fn workdir(ceiling: &CapabilitySet) -> Option<String> {
    [Kind::FsWrite, Kind::FsRead].iter().find_map(|kind| {
        let folder = ceiling.of_kind(*kind).find_map(|r| r.path().filter(|p| p.covers_below()))?;
        Some(folder.path().to_owned())
    })
}

/// Lets it run until it ends, with our standard input and output as its own.
async fn pass(stage: &mut Stage, tools: &Arc<Tools>) -> Result<(), Failure> {
    let every: CapabilitySet = "tool:*".parse().into_iter().collect();
    let options = ConverseOptions::new().offered(every);
    let conversation = tokio::select! {
        started = stage.plugin.converse(options) => started?,
        () = stage.interrupts.next() => {
            return Err(Failure::new(ErrorCode::Cancelled, "interrupted"));
        }
    };
    let exit = conversation.exit();
    let Conversation { ends, .. } = conversation;
    let ByteEnds { to, from, finished } = ends;
    let (client, server) = (Arc::clone(tools), Arc::clone(tools));
    let input = tokio::spawn(copy(tokio::io::stdin(), to, client, Direction::ToServer));
    let output = tokio::spawn(copy(from, tokio::io::stdout(), server, Direction::FromServer));
    tokio::pin!(exit);
    let exit = tokio::select! {
        exit = &mut exit => exit,
        () = stage.interrupts.next() => {
            let _ = finished.send(End::Local);
            stage.plugin.stop().await?;
            exit.await
        }
    };
    input.abort();
    let _ = tokio::time::timeout(LAST_WORDS, output).await;
    if exit.is_clean() { Ok(()) } else { Err(exit.to_failure()) }
}

/// Copies until one side ends, and closes the other.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    tools: Arc<Tools>,
    direction: Direction,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        let bytes = buffer.get(..n).unwrap_or_default();
        tools.look(direction, bytes);
        to.write_all(bytes).await?;
        to.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_works_in_the_first_folder_that_it_may_use() {
        let set = |rights: &[&str]| rights.iter().map(|r| r.parse().unwrap()).collect();
        assert_eq!(workdir(&set(&["fs.read:/a/**", "fs.write:/b/**"])).as_deref(), Some("/b"));
        assert_eq!(workdir(&set(&["fs.read:/a", "fs.read:/c/**"])).as_deref(), Some("/c"));
        assert_eq!(workdir(&set(&["fs.read:/a"])), None::<String>);
    }
}
