//! `jsonl`: `{id, method, params}` in, `{id, result}` or `{id, error}` out, one JSON object a line.
//!
//! This is what plugins of JSON-lines hosts speak on stdin and stdout. Such plugins print banners and
//! stray lines, so a line that is no answer is noise: ignored, and counted against a bound. Pure.

mod codec;
mod handshake;

use serde::{Deserialize, Serialize};

use crate::{NOISE_BYTES, NOISE_LINES, NoiseBudget};

pub use codec::{call_params, decode_line, encode_answer, encode_request};
pub use handshake::{Handshake, Step, is_unknown_method};

/// The method that starts a conversation.
pub const INITIALIZE: &str = "initialize";
/// What some hosts call [`INITIALIZE`].
pub const INIT: &str = "init";
/// Call a tool, with `{"tool", "args"}`.
pub const CALL: &str = "call";
/// Deliver an event.
pub const HANDLE_EVENT: &str = "handle_event";
/// Finish and exit.
pub const SHUTDOWN: &str = "shutdown";

/// How long one process of a plugin lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lifecycle {
    /// One process answers many requests.
    #[default]
    Resident,
    /// One process a request.
    PerCall,
}

/// Which method a plugin expects first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitMethod {
    /// [`INITIALIZE`]; where the plugin does not know that, [`INIT`].
    #[default]
    Auto,
    /// [`INITIALIZE`].
    Initialize,
    /// [`INIT`].
    Init,
}

/// How one plugin speaks the dialect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jsonl {
    /// Which method comes first.
    pub init: InitMethod,
    /// How long a process lives.
    pub lifecycle: Lifecycle,
    /// Lines of noise allowed between two answers.
    pub noise_lines: u32,
    /// Bytes of noise allowed between two answers.
    pub noise_bytes: u64,
}

impl Default for Jsonl {
    fn default() -> Self {
        Self {
            init: InitMethod::default(),
            lifecycle: Lifecycle::default(),
            noise_lines: NOISE_LINES,
            noise_bytes: NOISE_BYTES,
        }
    }
}

impl Jsonl {
    /// A fresh count of noise with this plugin's bounds.
    #[must_use]
    pub fn noise(&self) -> NoiseBudget {
        NoiseBudget::new(self.noise_lines, self.noise_bytes)
    }

    /// The beginning of a conversation with this plugin.
    #[must_use]
    pub fn handshake(&self) -> Handshake {
        Handshake::new(self.init)
    }
}

#[cfg(test)]
mod tests;
