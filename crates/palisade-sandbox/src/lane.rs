//! Lanes: how calls go into an instance and requests come out of it.
//!
//! A lane is not a byte stream. Walls that talk over a stream reach this trait through the adapter in
//! [`crate::stream`]; walls that can be called directly implement it themselves and run on the
//! caller's task.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use palisade_model::{ErrorCode, Failure, Payload};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::BoxFuture;

/// W3C trace context of a request (<https://www.w3.org/TR/trace-context/>), or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace(pub Option<Arc<str>>);

/// A call of a tool in its two parts, so that a wall that needs them apart reads no JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// The tool's name.
    pub name: Arc<str>,
    /// Its arguments: JSON, an object. A slice of the invocation's payload.
    pub args: Bytes,
}

/// One call into an instance.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The protocol method, `call` or `handle_event` say.
    pub method: &'static str,
    /// Its parameters.
    pub payload: Payload,
    /// For `call` the same once more in its parts, where the caller has them.
    pub tool: Option<ToolCall>,
    /// When the caller stops waiting. The lane answers with a [`palisade_model::ErrorCode::Deadline`]
    /// failure then and tells the plugin to give up.
    pub deadline: Instant,
    /// Where the call belongs.
    pub trace: Trace,
}

/// A way to call into an instance. Dropping the returned future cancels the call.
pub trait Lane: Send + Sync {
    /// Calls and waits for the answer.
    ///
    /// # Errors
    /// The plugin's own error (`PAL-PLUGIN`), a deadline, a breach of the protocol, or the instance's
    /// end.
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Payload, Failure>>;
}

/// One request from an instance to the host. Who asks is known from the lane it came on.
#[derive(Clone, Debug)]
pub struct HostRequest {
    /// The method, as the plugin wrote it; at most 128 bytes.
    pub method: String,
    /// Its parameters: bounded and well formed, but not validated.
    pub payload: Payload,
    /// The plugin's trace context, if it gave one.
    pub trace: Trace,
}

/// Which stream a line of output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What the host does for an instance: the other direction of a lane. One value stands for one
/// instance, so an implementation knows who asks.
pub trait HostCalls: Send + Sync + 'static {
    /// Serves one request. Dropping the future cancels it.
    fn request(&self, request: HostRequest) -> BoxFuture<'static, Result<Payload, Failure>>;

    /// Takes one line that the instance wrote to a log stream: without line break, at most 8 KiB,
    /// lossily made UTF-8, not yet escaped.
    fn output(&self, stream: OutputStream, line: &str);

    /// Says that `bytes` of output were dropped because the instance wrote faster than its log rate.
    fn output_dropped(&self, bytes: u64);

    /// Says that a process of the instance made a system call that no honest program makes, and is being
    /// killed for it; `syscall` as in [`ExitCause::PolicyKill`](crate::ExitCause::PolicyKill). `program`:
    /// it is the plugin's own process, whose end follows, and not one that it started. Told of at most 64
    /// of the latter.
    fn violation(&self, syscall: &str, program: bool) {
        let _ = (syscall, program);
    }

    /// Opens a connection to `authority` (`HOST:PORT`) for an instance whose wall has no network to put a
    /// [`WayOut`] into. The right `net.http` is decided, the name looked up, every address checked and the
    /// outcome recorded, as for every way out; the stream leads to a checked address. The default refuses.
    ///
    /// # Errors
    /// The refusal, or why there is no connection.
    fn connect(
        &self,
        authority: &str,
    ) -> BoxFuture<'static, Result<tokio::net::TcpStream, Failure>> {
        let _ = authority;
        let failure = Failure::new(ErrorCode::Unavailable, "there is no way out to the network");
        Box::pin(std::future::ready(Err(failure)))
    }

    /// A connection to `authority` for such an instance that speaks whatever it wants over it. The right
    /// `net.tcp` or `net.http` is decided, what passes is bounded and looked at, and the connection ends when
    /// the right is withdrawn, as for every way out. Dropping the stream ends it. The default refuses.
    ///
    /// # Errors
    /// The refusal, or why there is no connection.
    fn tunnel(&self, authority: &str) -> BoxFuture<'static, Result<Box<dyn Stream>, Failure>> {
        let _ = authority;
        let failure = Failure::new(ErrorCode::Unavailable, "there is no way out to the network");
        Box::pin(std::future::ready(Err(failure)))
    }

    /// Serves the instance's way out to the network. Called once, for an instance whose rights lead to
    /// the network, before its program runs; dropped when the instance has ended. The default closes it,
    /// and the program reaches nothing.
    fn egress(&self, way: WayOut) -> BoxFuture<'static, ()> {
        drop(way);
        Box::pin(std::future::ready(()))
    }
}

/// Bytes in both directions. Shutting it down ends what is written; what is read may go on.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Sockets in an instance's own, otherwise empty network, which nothing else can reach. Not blocking.
#[derive(Debug)]
pub struct WayOut {
    /// For programs that know of a proxy: one for HTTP and SOCKS 5.
    pub proxy: std::net::TcpListener,
    /// For programs that do not: the name server that they ask. Every address that it gives them must
    /// be one of 198.18.0.0/15 (RFC 2544), which lead to `direct`.
    pub names: Option<std::net::UdpSocket>,
    /// Where connections to those addresses arrive, a listener for each port.
    pub direct: Vec<std::net::TcpListener>,
}
