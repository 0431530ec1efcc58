//! Between a client of the Model Context Protocol and a server that nobody trusts.
//!
//! A [`Relay`] stands on the byte stream of the stdio transport, one JSON-RPC 2.0 message a line. What it
//! does not have to change passes byte for byte, known or not. It takes out tools that the server has no
//! right to, holds each tool's definition to what was approved ([`Pins`]), lets calls pass the gate, keeps
//! what the server asks of its client to what is granted, and answers for a server that dies or falls
//! silent. It knows no processes and no walls: both ends are given to it.
#![forbid(unsafe_code)]

mod ask;
mod error;
mod json;
mod lines;
mod message;
mod pins;
mod relay;
mod report;
mod tools;

pub use error::McpError;
pub use lines::LINE_BYTES;
pub use message::{DEPTH_LEVELS, ID_BYTES};
pub use pins::{FilePins, MemoryPins, Pin, PinFile, Pins, Sight, Subject, list_pins};
pub use relay::{Ended, Options, Relay};
pub use report::{Report, Silent};

/// A future that can be kept in a trait object.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
