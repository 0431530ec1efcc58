//! Where the proxy's connections come from.

use std::io;

#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::{net::TcpListener, sync::mpsc};

use super::Client;
use crate::BoxFuture;

/// A source of connections of one plugin.
pub trait Accept: Send {
    /// The next connection, or `None` where no more can come. Cancel-safe.
    ///
    /// # Errors
    /// What the source says; it is asked again a little later.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Option<Client>>>;
}

impl Accept for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Option<Client>>> {
        Box::pin(async { Ok(Some(Client::Tcp(TcpListener::accept(self).await?.0))) })
    }
}

#[cfg(unix)]
impl Accept for UnixListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Option<Client>>> {
        Box::pin(async { Ok(Some(Client::Unix(UnixListener::accept(self).await?.0))) })
    }
}

impl Accept for mpsc::Receiver<Client> {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Option<Client>>> {
        Box::pin(async { Ok(self.recv().await) })
    }
}

/// A Unix listener that serves one user only, by the kernel's word (`SO_PEERCRED`, `unix(7)`): another
/// plugin that finds the socket gets nothing.
#[cfg(unix)]
#[derive(Debug)]
pub struct FromUid {
    listener: UnixListener,
    uid: u32,
}

#[cfg(unix)]
impl FromUid {
    /// Only connections of `uid`, as this process sees it.
    #[must_use]
    pub fn new(listener: UnixListener, uid: u32) -> Self {
        Self { listener, uid }
    }
}

#[cfg(unix)]
impl Accept for FromUid {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Option<Client>>> {
        Box::pin(async {
            loop {
                let (stream, _) = self.listener.accept().await?;
                let peer = stream.peer_cred()?.uid();
                if peer == self.uid {
                    return Ok(Some(Client::Unix(stream)));
                }
                tracing::warn!(peer, expected = self.uid, "a stranger at the egress socket");
            }
        })
    }
}
