//! The plugin's end of a connection, whatever it is made of, and its two directions.
//!
//! Sockets keep their own type, since bytes between two of them need not be copied through this process
//! (see `pump`).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf},
    net::{TcpStream, tcp},
};

/// Anything that bytes go through in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection that a plugin made to the proxy.
pub enum Client {
    /// A TCP socket.
    Tcp(TcpStream),
    /// Anything else: a virtual socket, a pipe pair, a buffer.
    Other(Box<dyn Duplex>),
}

/// What comes from one end.
pub(super) enum ReadSide {
    Tcp(tcp::OwnedReadHalf),
    Other(ReadHalf<Box<dyn Duplex>>),
}

/// What goes to one end. Shutting it down ends this direction only.
pub(super) enum WriteSide {
    Tcp(tcp::OwnedWriteHalf),
    Other(WriteHalf<Box<dyn Duplex>>),
}

impl Client {
    pub(super) fn split(self) -> (ReadSide, WriteSide) {
        match self {
            Self::Tcp(stream) => {
                // Small answers go out at once. A socket that refuses this is only slower.
                let _ = stream.set_nodelay(true);
                let (read, write) = stream.into_split();
                (ReadSide::Tcp(read), WriteSide::Tcp(write))
            }
            Self::Other(stream) => {
                let (read, write) = tokio::io::split(stream);
                (ReadSide::Other(read), WriteSide::Other(write))
            }
        }
    }
}

impl From<TcpStream> for Client {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

#[cfg(target_os = "linux")]
impl ReadSide {
    /// The TCP socket, where it is one.
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(half) => Some(half.as_ref()),
            _ => None,
        }
    }
}

#[cfg(target_os = "linux")]
impl WriteSide {
    /// The TCP socket, where it is one.
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(half) => Some(half.as_ref()),
            _ => None,
        }
    }
}

impl AsyncRead for ReadSide {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            Self::Other(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for WriteSide {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_write(cx, buf),
            Self::Other(half) => Pin::new(half).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_flush(cx),
            Self::Other(half) => Pin::new(half).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_shutdown(cx),
            Self::Other(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}
