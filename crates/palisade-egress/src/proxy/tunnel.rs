//! A connection for a plugin that has no network to put sockets into: asked for in a call, and the same to
//! the guard as one through the proxy.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use palisade_model::{ErrorCode, Failure};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::oneshot,
    task::JoinHandle,
};

use super::{Client, Proxy};
use crate::{Authority, Decide};

/// Bytes each way that wait to be passed on.
const BUFFER: usize = 64 << 10;

/// The plugin's end of a connection. What passes is looked at as on every way out, and dropping this ends it
/// at once: what the other side was not yet sent is lost.
#[derive(Debug)]
pub struct Tunnel {
    stream: DuplexStream,
    serving: JoinHandle<()>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Proxy {
    /// Connects to `authority`, with a right `net.tcp` or `net.http`. The bounds are those of the proxy, with
    /// its places: who asks for more than there are waits.
    ///
    /// # Errors
    /// The refusal, or why there is no connection.
    pub async fn tunnel(
        &self,
        authority: Authority,
        decide: Arc<dyn Decide>,
    ) -> Result<Tunnel, Failure> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let shared = self.guard.place().await;
        let (stream, client) = tokio::io::duplex(BUFFER);
        let (told, is_there) = oneshot::channel();
        let proxy = self.clone();
        let serving = tokio::spawn(async move {
            let session = proxy.session(Client::Other(Box::new(client)), &*decide);
            if let Err(error) = session.run_for(&authority, told).await {
                tracing::debug!(%error, "a connection that was asked for in a call ended");
            }
            drop((place, shared));
        });
        // Held from here on, so that whoever stops waiting ends it.
        let tunnel = Tunnel { stream, serving };
        let lost = |_| Failure::new(ErrorCode::Unavailable, "the connection was not served");
        is_there.await.map_err(lost)??;
        Ok(tunnel)
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
