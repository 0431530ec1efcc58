//! How foreign plugins differ from native ones: wire codecs, method names, lifecycles.
//!
//! A dialect is data and pure functions: bytes to messages, messages to bytes, and which method comes
//! first. Pipes, processes and deadlines are elsewhere. There are two: [`jsonl`], and [`mcp`] for
//! servers of the Model Context Protocol. What they share stands here: both write one object a line.
#![forbid(unsafe_code)]

mod error;
pub mod jsonl;
mod line;
mod lines;
pub mod mcp;
mod noise;

pub use error::DialectError;
pub use line::{
    DEPTH_LEVELS, ERROR_TEXT_CHARS, ID_BYTES, ID_MAX, Id, LINE_BYTES, Line, METHOD_BYTES,
};
pub use lines::Lines;
pub use noise::{NOISE_BYTES, NOISE_LINES, NoiseBudget};
