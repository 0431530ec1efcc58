//! How foreign plugins differ from native ones: wire codecs, method names, lifecycles.
//!
//! A dialect is data and pure functions: bytes to messages, messages to bytes, and which method comes
//! first. Pipes, processes and deadlines are elsewhere. `jsonl` is the only dialect so far.
#![forbid(unsafe_code)]

mod error;
pub mod jsonl;

pub use error::DialectError;
