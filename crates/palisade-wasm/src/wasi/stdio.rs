//! Standard output and standard error: lines of the plugin's log, within its log rate.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use palisade_sandbox::OutputStream;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2,
};

use crate::state::Output;

/// Most bytes of one write.
const CHUNK: usize = 64 << 10;

/// One of the two streams.
#[derive(Clone)]
pub(super) struct Log {
    output: Arc<Output>,
    stream: OutputStream,
}

impl Log {
    pub(super) fn new(output: &Arc<Output>, stream: OutputStream) -> Self {
        Self { output: Arc::clone(output), stream }
    }
}

impl IsTerminal for Log {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Log {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn p2::OutputStream> {
        Box::new(self.clone())
    }
}

// A log never makes its writer wait: what comes too fast is dropped and counted.
impl p2::OutputStream for Log {
    fn write(&mut self, bytes: Bytes) -> p2::StreamResult<()> {
        self.output.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> p2::StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> p2::StreamResult<usize> {
        Ok(CHUNK)
    }
}

#[wasmtime_wasi::async_trait]
impl p2::Pollable for Log {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Log {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = bytes.get(..CHUNK).unwrap_or(bytes);
        self.output.write(self.stream, taken);
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
