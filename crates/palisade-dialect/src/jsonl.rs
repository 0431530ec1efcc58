//! `jsonl`: `{id, method, params}` in, `{id, result}` or `{id, error}` out, one JSON object a line.
//!
//! This is what plugins of JSON-lines hosts speak on stdin and stdout. Such plugins print banners and
//! stray lines, so a line that is no answer is noise: ignored, and counted against a bound. Pure.

mod codec;
mod handshake;
mod lines;

use serde::{Deserialize, Serialize};

use crate::DialectError;

pub use codec::{Id, Line, call_params, decode_line, encode_answer, encode_request};
pub use handshake::{Handshake, Step, is_unknown_method};
pub use lines::Lines;

/// Longest line, without its line break, in bytes: 4 MiB.
pub const LINE_BYTES: usize = 4 << 20;
/// Deepest nesting of arrays and objects in a line; a deeper one is noise.
pub const DEPTH_LEVELS: u32 = 64;
/// Longest method name of a plugin's request, in bytes.
pub const METHOD_BYTES: usize = 128;
/// Longest textual id, in bytes.
pub const ID_BYTES: usize = 64;
/// Largest numeric id: 2^53.
pub const ID_MAX: u64 = 1 << 53;
/// Longest text taken over from a plugin's error, in characters.
pub const ERROR_TEXT_CHARS: usize = 2000;
/// Lines of noise between two answers, unless configured otherwise.
pub const NOISE_LINES: u32 = 10_000;
/// Bytes of noise between two answers, unless configured otherwise: 1 MiB.
pub const NOISE_BYTES: u64 = 1 << 20;

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
/// Plugin to host: ask the application for a named piece of data.
pub const DATA_REQUEST: &str = "data_request";

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
        NoiseBudget { limit: (self.noise_lines, self.noise_bytes), used: (0, 0) }
    }

    /// The beginning of a conversation with this plugin.
    #[must_use]
    pub fn handshake(&self) -> Handshake {
        Handshake::new(self.init)
    }
}

/// Counts what came since the last answer and was none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoiseBudget {
    limit: (u32, u64),
    used: (u32, u64),
}

impl NoiseBudget {
    /// Counts a line of `bytes` bytes: [`Line::Noise`], or an answer to a request that is not pending.
    ///
    /// # Errors
    /// [`DialectError::NoiseLines`] and [`DialectError::NoiseBytes`] beyond the bounds.
    pub fn note(&mut self, bytes: usize) -> Result<(), DialectError> {
        self.used.0 = self.used.0.saturating_add(1);
        self.used.1 = self.used.1.saturating_add(bytes as u64);
        if self.used.0 > self.limit.0 {
            return Err(DialectError::NoiseLines { limit: self.limit.0 });
        }
        if self.used.1 > self.limit.1 {
            return Err(DialectError::NoiseBytes { limit: self.limit.1 });
        }
        Ok(())
    }

    /// An answer to a pending request came.
    pub fn reset(&mut self) {
        self.used = (0, 0);
    }
}

#[cfg(test)]
mod tests;
