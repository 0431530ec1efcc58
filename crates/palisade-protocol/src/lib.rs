//! The wire between Palisade and a native plugin: framing, messages, negotiation, Peer.
//!
//! The wire is JSON-RPC 2.0, one object a line, over a Unix stream socket that a plugin finds as file
//! descriptor 3. [`frame`], [`Message`] and [`agree`] are pure; [`Peer`] does the I/O of one end.
//! What the methods do is decided elsewhere: this crate knows their names and shapes only.
#![forbid(unsafe_code)]

pub mod bounds;
mod error;
pub mod frame;
pub mod message;
pub mod methods;
#[cfg(target_os = "linux")]
mod peer;
pub mod scan;
mod version;
mod wire_error;

use std::{future::Future, pin::Pin};

pub use error::{CloseReason, FrameError};
pub use message::{Id, Message};
#[cfg(target_os = "linux")]
pub use peer::{Deadline, Driver, Handler, Peer, PeerConfig, PeerStats, Request, RequestFuture};
pub use version::{VERSION, VersionRange, agree};
pub use wire_error::{Side, WireError, WireErrorData};

/// A future behind a pointer, as traits that are used as `dyn` return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
