//! Bodies with a bound, in both directions.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{
    task::JoinHandle,
    time::{Instant, Sleep, sleep_until},
};

use super::{Caps, hyper_error};
use crate::EgressError;

/// The task that drives a connection; ended when this is dropped.
pub(super) struct Driver(pub(super) JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of a request is longer than may be sent.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request exceeds {0} bytes")]
pub(super) struct TooLarge(pub(super) u64);

/// A request's body that ends in an error where it is too long.
pub(super) struct RequestBody<B> {
    inner: B,
    left: u64,
    limit: u64,
}

impl<B: Body> RequestBody<B> {
    /// Refuses one that says beforehand that it is too long.
    pub(super) fn new(inner: B, limit: u64) -> Result<Self, EgressError> {
        if inner.size_hint().lower() > limit {
            let what = "the body of the request";
            return Err(EgressError::TooLarge { what, limit, unit: "bytes" });
        }
        Ok(Self { inner, left: limit, limit })
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        Poll::Ready(match std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            None => None,
            Some(Err(error)) => Some(Err(error.into())),
            Some(Ok(frame)) => {
                let len = frame.data_ref().map_or(0, |data| data.remaining() as u64);
                match this.left.checked_sub(len) {
                    Some(left) => {
                        this.left = left;
                        Some(Ok(frame))
                    }
                    None => Some(Err(Box::new(TooLarge(this.limit)))),
                }
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer's body as it comes, within its bound and its deadline. Dropping it closes the connection.
pub struct ResponseBody {
    inner: Incoming,
    left: u64,
    limit: u64,
    deadline: Pin<Box<Sleep>>,
    total: Duration,
    _driver: Driver,
}

impl ResponseBody {
    pub(super) fn new(
        inner: Incoming,
        driver: Driver,
        caps: &Caps,
        deadline: Instant,
    ) -> Result<Self, EgressError> {
        let limit = caps.response_bytes;
        if inner.size_hint().lower() > limit {
            return Err(too_large(limit));
        }
        Ok(Self {
            inner,
            left: limit,
            limit,
            deadline: Box::pin(sleep_until(deadline)),
            total: caps.total,
            _driver: driver,
        })
    }
}

fn too_large(limit: u64) -> EgressError {
    EgressError::TooLarge { what: "the body of the answer", limit, unit: "bytes" }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = EgressError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, EgressError>>> {
        let this = self.get_mut();
        if this.deadline.as_mut().poll(cx).is_ready() {
            let error = EgressError::Deadline { what: "the request", limit: this.total };
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(match std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            None => None,
            Some(Err(error)) => Some(Err(hyper_error(error))),
            Some(Ok(frame)) => {
                let len = frame.data_ref().map_or(0, |data| data.len() as u64);
                match this.left.checked_sub(len) {
                    Some(left) => {
                        this.left = left;
                        Some(Ok(frame))
                    }
                    None => Some(Err(too_large(this.limit))),
                }
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
