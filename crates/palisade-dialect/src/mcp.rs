//! `mcp`: servers of the Model Context Protocol, as their clients speak with them on stdin and stdout.
//!
//! JSON-RPC 2.0, one object a line (<https://modelcontextprotocol.io/specification/2025-06-18>): what of
//! it makes a server a plugin with tools. Resources, prompts and the client features (sampling,
//! elicitation, roots) are not spoken: none is announced, and a server that asks is refused. Pure.

mod call;
mod codec;
mod start;

use serde::{Deserialize, Serialize};

use crate::{NOISE_BYTES, NOISE_LINES, NoiseBudget};

pub use call::{call_params, call_result, cancelled, log_line};
pub use codec::{check_request, decode_line, encode_answer, encode_notification, encode_request};
pub use start::{Server, Tools, initialize_params, initialized};

/// The revisions of the specification that are spoken, the one that is offered first.
pub const VERSIONS: [&str; 3] = ["2025-06-18", "2025-03-26", "2024-11-05"];

/// Most pages of one list of tools.
pub const PAGES: usize = 64;
/// Most tools of one server.
pub const TOOLS: usize = 256;
/// Longest name of a tool, in characters.
pub const TOOL_NAME_CHARS: usize = 128;
/// Longest cursor of a list, in bytes.
pub const CURSOR_BYTES: usize = 4096;
/// Longest line that a log message of a server becomes, in bytes.
pub const LOG_LINE_BYTES: usize = 8 * 1024;

/// The request that starts a conversation.
pub const INITIALIZE: &str = "initialize";
/// The notification that ends the handshake.
pub const INITIALIZED: &str = "notifications/initialized";
/// The notification that a request is given up.
pub const CANCELLED: &str = "notifications/cancelled";
/// List the tools.
pub const TOOLS_LIST: &str = "tools/list";
/// Call a tool.
pub const TOOLS_CALL: &str = "tools/call";
/// Either side: are you there?
pub const PING: &str = "ping";
/// Server to client: a line for the log.
pub const MESSAGE: &str = "notifications/message";

/// How one server is spoken with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mcp {
    /// Lines of noise allowed between two answers.
    pub noise_lines: u32,
    /// Bytes of noise allowed between two answers.
    pub noise_bytes: u64,
}

impl Default for Mcp {
    fn default() -> Self {
        Self { noise_lines: NOISE_LINES, noise_bytes: NOISE_BYTES }
    }
}

impl Mcp {
    /// A fresh count of noise with this server's bounds.
    #[must_use]
    pub fn noise(&self) -> NoiseBudget {
        NoiseBudget::new(self.noise_lines, self.noise_bytes)
    }
}

/// The kind of capability that a client feature stands for, where `method` belongs to one.
#[must_use]
pub fn capability_of(method: &str) -> Option<&'static str> {
    Some(match method {
        "sampling/createMessage" => "mcp.sampling",
        "elicitation/create" => "mcp.elicitation",
        "roots/list" => "mcp.roots",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
