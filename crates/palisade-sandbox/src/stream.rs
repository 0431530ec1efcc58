//! From byte streams to lanes: the one adapter that every wall with a byte stream uses.
//!
//! A wall makes the handles; here they become a [`Lane`] in one direction and calls of
//! [`HostCalls`](crate::HostCalls) in the other, by Palisade's own protocol or by a dialect. What takes
//! handles of a Linux process stands on Linux only; the rest is what a host has to know everywhere.

mod bytes;
#[cfg(target_os = "linux")]
mod exchange;
#[cfg(target_os = "linux")]
mod jsonl;
#[cfg(target_os = "linux")]
mod mcp;
#[cfg(target_os = "linux")]
mod native;

use std::sync::Arc;

#[cfg(target_os = "linux")]
use palisade_model::Failure;

use crate::{BoxFuture, Lane};

#[cfg(target_os = "linux")]
pub use self::{bytes::bytes, jsonl::jsonl, mcp::mcp, native::native};
pub use bytes::{ByteEnds, ByteWire, FromProgram, ToProgram};

/// Why a conversation ended, as its wall must see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The plugin closed its end, or ended. Its exit tells the rest.
    Closed,
    /// This side closed, after `shutdown`. Whoever asked for that watches what becomes of the plugin.
    Local,
    /// The plugin broke the protocol: it is to be killed. Says how.
    Breach(String),
}

/// A lane over a byte stream, and its end.
pub struct StreamLane {
    /// The way in.
    pub lane: Arc<dyn Lane>,
    /// Resolves when the conversation is over. It must be awaited, or spawned: it may drive the lane.
    pub end: BoxFuture<'static, End>,
}

/// The failure of a call whose deadline passed.
#[cfg(target_os = "linux")]
fn deadline_passed(method: &str) -> Failure {
    Failure::new(
        palisade_model::ErrorCode::Deadline,
        format!("no answer to {method} before the deadline"),
    )
    .hint(
        "raise the deadline (resources.timeouts.call in the manifest) or look at the plugin's log",
    )
}
