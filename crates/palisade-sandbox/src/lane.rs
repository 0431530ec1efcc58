//! Lanes: how calls go into an instance and requests come out of it.
//!
//! A lane is not a byte stream. Walls that talk over a stream reach this trait through the adapter in
//! [`crate::stream`]; walls that can be called directly implement it themselves and run on the
//! caller's task.

use std::{sync::Arc, time::Instant};

use palisade_model::{Failure, Payload};

use crate::BoxFuture;

/// W3C trace context of a request (<https://www.w3.org/TR/trace-context/>), or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace(pub Option<Arc<str>>);

/// One call into an instance.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The protocol method, `call` or `handle_event` say.
    pub method: &'static str,
    /// Its parameters.
    pub payload: Payload,
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
}
