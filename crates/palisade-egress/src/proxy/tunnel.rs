//! Connections for a plugin that has no network to put sockets into: asked for in a call, and the same to the
//! guard as those through the proxy.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use palisade_model::{ErrorCode, Failure};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::oneshot,
    task::JoinSet,
    time::sleep,
};

use super::{Client, Limits, Proxy};
use crate::{Authority, Decide, Guard};

/// Bytes each way that wait to be passed on.
const BUFFER: usize = 64 << 10;
/// How long what was sent may still go out, when the plugin's end is gone.
const LINGER: Duration = Duration::from_secs(10);

/// The connections of one instance. They end with this value.
pub struct Tunnels {
    proxy: Proxy,
    decide: Arc<dyn Decide>,
    serving: Mutex<JoinSet<()>>,
}

impl Tunnels {
    /// Connections that go out through `guard`. The bounds are those of the proxy, with its places: who asks
    /// for more than there are waits.
    #[must_use]
    pub fn new(guard: Guard, limits: Limits, decide: Arc<dyn Decide>) -> Self {
        Self { proxy: Proxy::new(guard, limits), decide, serving: Mutex::default() }
    }

    /// Connects to `authority`, with a right `net.tcp` or `net.http`. Whoever drops the future before it is done
    /// ends the attempt.
    ///
    /// # Errors
    /// The refusal, or why there is no connection.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(
        &self,
        authority: Authority,
    ) -> impl Future<Output = Result<Tunnel, Failure>> + Send + 'static {
        let (stream, client) = tokio::io::duplex(BUFFER);
        let state = Arc::new(State::default());
        let client = Client::Other(Box::new(Inner { stream: client, state: Arc::clone(&state) }));
        let (told, is_there) = oneshot::channel();
        let (tell, ended) = oneshot::channel();
        let (here, gone) = oneshot::channel::<Infallible>();
        let (proxy, decide) = (self.proxy.clone(), Arc::clone(&self.decide));
        let serve = async move {
            let place = Arc::clone(&proxy.places).acquire_owned().await;
            let shared = proxy.guard.place().await;
            let session = proxy.session(client, &*decide);
            let result = session.run_for(&authority, told).await;
            // Nobody may be there any more to hear it.
            let _ = tell.send(result.is_ok());
            if let Err(error) = result {
                tracing::debug!(%error, "a connection that was asked for in a call ended");
            }
            drop((place, shared));
        };
        let made = Arc::clone(&state);
        let left = async move {
            let _ = gone.await;
            if made.is_open.load(SeqCst) {
                sleep(LINGER).await;
            }
        };
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        while serving.try_join_next().is_some() {}
        serving.spawn(async move {
            tokio::select! {
                () = serve => {}
                () = left => {}
            }
        });
        // Held from here on, so that whoever stops waiting ends it.
        let tunnel = Tunnel { stream, state, ended, _here: here };
        async move {
            let lost = |_| Failure::new(ErrorCode::Unavailable, "the connection was not served");
            is_there.await.map_err(lost)??;
            tunnel.state.is_open.store(true, SeqCst);
            Ok(tunnel)
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// The plugin was told that there is a connection.
    is_open: AtomicBool,
    /// The server's direction came to its end, and was not cut off.
    is_whole: AtomicBool,
}

/// The plugin's end of a connection. What passes is looked at as on every way out. When it is dropped, what was
/// sent may still go out for a while.
#[derive(Debug)]
pub struct Tunnel {
    stream: DuplexStream,
    state: Arc<State>,
    /// Whether the connection ended in peace.
    ended: oneshot::Receiver<bool>,
    _here: oneshot::Sender<Infallible>,
}

/// The other end of the pipe: the session's.
struct Inner {
    stream: DuplexStream,
    state: Arc<State>,
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.remaining();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.remaining() < before || before == 0 || self.state.is_whole.load(SeqCst) {
            return Poll::Ready(Ok(()));
        }
        // The pipe was dropped; why is told right after.
        match ready!(Pin::new(&mut self.ended).poll(cx)) {
            Ok(true) => {
                self.state.is_whole.store(true, SeqCst);
                Poll::Ready(Ok(()))
            }
            Ok(false) | Err(_) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
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

impl AsyncRead for Inner {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Inner {
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
        self.state.is_whole.store(true, SeqCst);
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
