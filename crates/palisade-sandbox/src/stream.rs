//! From byte streams to lanes: the one adapter that every wall with a byte stream uses.
//!
//! A wall makes the handles; here they become a [`Lane`] in one direction and calls of
//! [`HostCalls`](crate::HostCalls) in the other, by Palisade's own protocol or by a dialect.
#![cfg(unix)]

mod bytes;
mod exchange;
mod jsonl;
mod mcp;
mod native;

use std::sync::Arc;

use palisade_model::Failure;

use crate::{BoxFuture, Lane};

pub use bytes::{ByteEnds, ByteWire, bytes};
pub use jsonl::jsonl;
pub use mcp::mcp;
pub use native::native;

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
fn deadline_passed(method: &str) -> Failure {
    Failure::new(
        palisade_model::ErrorCode::Deadline,
        format!("no answer to {method} before the deadline"),
    )
    .hint(
        "raise the deadline (resources.timeouts.call in the manifest) or look at the plugin's log",
    )
}
