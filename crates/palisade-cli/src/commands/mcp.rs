//! `palisade mcp`: MCP servers behind walls.

#[cfg(target_os = "linux")]
pub(crate) mod made;
mod pins;
#[cfg(target_os = "linux")]
pub(crate) mod serve;

use clap::Subcommand;

use crate::{
    cli::native::{Serve, Unwrap, Wrap},
    platform::walls,
    trouble::Trouble,
};

/// Run an MCP server behind walls, in place of the server itself
///
/// Speaks MCP on stdin and stdout like the server that it starts. The server sees nothing of this machine but its own
/// program, an empty home of its own and what --grant names; it reaches no network and gets no variables of the
/// environment. Its tools are pinned when they are first seen: one that changes later is withheld until it is accepted
/// with `palisade mcp pins`. What the server asks of the client (sampling, elicitation, roots) needs a grant.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  palisade mcp -- npx -y @modelcontextprotocol/server-everything
  palisade mcp --grant 'fs.read:/srv/docs/**' -- npx -y @modelcontextprotocol/server-filesystem /srv/docs
  palisade mcp --grant net.http:example.org -- uvx mcp-server-fetch
  palisade mcp --secret GITHUB_TOKEN=github.token --tool 'get_*' -- node server.js
  palisade mcp --manifest server.yaml -- python -m my_server

Exit status: 0 if the client closed the connection or the server ended by itself in order; 5 where a limit or the
deadline of the start was hit; 6 if the server crashed or broke the protocol.")]
pub(crate) struct Mcp {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    Pins(pins::Pins),
    Wrap(Wrap),
    Unwrap(Unwrap),
}

impl Mcp {
    /// Whether the answer is JSON.
    pub(crate) fn is_json(&self) -> bool {
        match &self.command {
            Some(Command::Pins(args)) => args.output.json,
            Some(Command::Wrap(args)) => args.output.json,
            Some(Command::Unwrap(args)) => args.output.json,
            // Stdout belongs to the protocol.
            None => false,
        }
    }
}

/// Does what was asked.
pub(crate) async fn mcp(args: &Mcp) -> Result<(), Trouble> {
    match &args.command {
        Some(Command::Pins(args)) => pins::pins(args).await,
        Some(Command::Wrap(args)) => walls::wrap(args).await,
        Some(Command::Unwrap(args)) => walls::unwrap(args).await,
        None => walls::serve(&args.serve).await,
    }
}
