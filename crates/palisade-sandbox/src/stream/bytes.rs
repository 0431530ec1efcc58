//! No protocol: the two ends of the conversation go as they are to whoever made the wire.
//!
//! For those who speak for the plugin themselves (a proxy that must not change a byte) and for programs
//! that only run to their end. The instance has a lane all the same, on which nothing can be called.

use std::{
    fmt,
    sync::{Arc, Mutex},
};
#[cfg(target_os = "linux")]
use std::{io, os::fd::OwnedFd, sync::PoisonError};

#[cfg(target_os = "linux")]
use palisade_model::{ErrorCode, Failure, Payload};
#[cfg(target_os = "linux")]
use tokio::net::unix::pipe;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};

use super::End;
#[cfg(target_os = "linux")]
use super::StreamLane;
#[cfg(target_os = "linux")]
use crate::{BoxFuture, Invocation, Lane};

/// A program's standard input, from the host's side.
pub type ToProgram = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// A program's standard output, from the host's side.
pub type FromProgram = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// One conversation's place in a [`crate::LaunchSpec`]. Its copies stand for the same conversation.
#[derive(Clone)]
pub struct ByteWire(Arc<Mutex<Option<oneshot::Sender<ByteEnds>>>>);

impl ByteWire {
    /// A wire, and where its ends will arrive as soon as the program runs. The receiver fails where
    /// nothing was launched with it.
    #[must_use]
    pub fn new() -> (Self, oneshot::Receiver<ByteEnds>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(sender)))), receiver)
    }
}

impl fmt::Debug for ByteWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByteWire")
    }
}

impl PartialEq for ByteWire {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ByteWire {}

/// The host's ends of a program's standard input and output.
pub struct ByteEnds {
    /// Its standard input. Dropping it closes that.
    pub to: ToProgram,
    /// Its standard output. What it says is not trusted.
    pub from: FromProgram,
    /// How the conversation ended, for the instance's watcher: [`End::Breach`] has the program killed,
    /// [`End::Local`] leaves it to whoever stops it; dropping it is the same as [`End::Closed`], after
    /// which a program has half a second to end.
    pub finished: oneshot::Sender<End>,
}

impl fmt::Debug for ByteEnds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteEnds").finish_non_exhaustive()
    }
}

#[cfg(target_os = "linux")]
struct NoLane;

#[cfg(target_os = "linux")]
impl Lane for NoLane {
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Payload, Failure>> {
        // Whoever holds the ends has closed stdin before it stops the instance; that was the request.
        if invocation.method == palisade_protocol::methods::SHUTDOWN {
            return Box::pin(std::future::ready(Ok(Payload::default())));
        }
        let message = "somebody else speaks with this plugin";
        Box::pin(std::future::ready(Err(Failure::new(ErrorCode::Unavailable, message))))
    }
}

/// Hands the ends to whoever made `wire`.
///
/// # Errors
/// When the pipes cannot be watched (needs a tokio runtime with I/O enabled), when the wire was used
/// before, or when nobody waits for the ends any more.
#[cfg(target_os = "linux")]
pub fn bytes(to_plugin: OwnedFd, from_plugin: OwnedFd, wire: &ByteWire) -> io::Result<StreamLane> {
    let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "nobody waits for this conversation");
    let sender = wire.0.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(gone)?;
    rustix::io::ioctl_fionbio(&to_plugin, true)?;
    rustix::io::ioctl_fionbio(&from_plugin, true)?;
    let (finished, ended) = oneshot::channel();
    let ends = ByteEnds {
        to: Box::new(pipe::Sender::from_owned_fd_unchecked(to_plugin)?),
        from: Box::new(pipe::Receiver::from_owned_fd_unchecked(from_plugin)?),
        finished,
    };
    sender.send(ends).map_err(|_| gone())?;
    let end = Box::pin(async move { ended.await.unwrap_or(End::Closed) });
    Ok(StreamLane { lane: Arc::new(NoLane), end })
}
