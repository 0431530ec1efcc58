//! The one task of a connection: reads and dispatches, flushes, keeps deadlines.

use std::{
    fmt,
    future::Future,
    io,
    os::fd::{AsRawFd, OwnedFd},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use palisade_model::Payload;
use rustix::io::Errno;
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::Sleep,
};

use super::{
    Request, Shared, incoming, lock,
    outgoing::Flushed,
    receive::{Received, receive},
};
use crate::{CloseReason, FrameError, Id, Message, frame::Decoder, methods};

/// Reads of one poll, so that a flood leaves the thread to others.
const READS_PER_POLL: usize = 4;
/// Frames of one poll, likewise: a single read can bring a thousand. Each may start a task.
const FRAMES_PER_POLL: usize = 32;
/// A payload up to this long is copied out of the read buffer: keeping it must not keep 64 KiB.
const COPY_BYTES: usize = 4 << 10;

/// Runs a connection; resolves when it has ended. Dropping it closes the connection.
///
/// The socket is watched for reading only. A Unix socket that is watched for writing as well reports
/// every read of the other side, which can wake this task twice for each request; so a second
/// registration exists while the kernel's buffer is full, and only then.
#[must_use = "nothing is read unless the driver is polled"]
pub struct Driver {
    shared: Arc<Shared>,
    readable: AsyncFd<Arc<OwnedFd>>,
    writable: Option<AsyncFd<OwnedFd>>,
    decoder: Decoder,
    timer: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Driver {
    pub(super) fn new(socket: Arc<OwnedFd>, shared: Arc<Shared>) -> io::Result<Self> {
        let readable = watch(socket, Interest::READABLE)?;
        Ok(Self { shared, readable, writable: None, decoder: Decoder::new(), timer: None })
    }

    /// Reads and dispatches until nothing is left or the share of this poll is used up.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let mut frames = 0;
        for _ in 0..READS_PER_POLL {
            // What was read before comes first.
            while frames < FRAMES_PER_POLL {
                match self.decoder.next_frame() {
                    Ok(Some(frame)) => {
                        frames += 1;
                        if let Err(breach) = dispatch(&self.shared, &frame) {
                            return Poll::Ready(breach.into());
                        }
                    }
                    Ok(None) => break,
                    Err(breach) => return Poll::Ready(breach.into()),
                }
            }
            if frames == FRAMES_PER_POLL {
                // Leaves the thread to other tasks, and the processor to other threads: where all processors
                // are busy, a thread that wakes up would wait for the next tick, milliseconds later. Returns at
                // once where nobody waits (sched_yield(2)).
                std::thread::yield_now();
                break;
            }
            let mut guard = match ready!(self.readable.poll_read_ready(cx)) {
                Ok(guard) => guard,
                Err(error) => return Poll::Ready(CloseReason::Io(error.kind())),
            };
            let space = self.decoder.space();
            let wanted = space.len();
            let received = match receive(guard.get_inner(), space) {
                Ok(Some(received)) => received,
                Ok(None) => {
                    guard.clear_ready();
                    continue;
                }
                // The other side went with bytes of ours unread; what it sent has been read.
                Err(Errno::CONNRESET) => return Poll::Ready(self.end()),
                Err(error) => return Poll::Ready(CloseReason::Io(error.kind())),
            };
            let Received { count, handles, truncated } = received;
            if handles > 0 || truncated {
                let breach = FrameError::UnaskedHandles { count: handles, truncated };
                return Poll::Ready(breach.into());
            }
            if count == 0 {
                return Poll::Ready(self.end());
            }
            if count < wanted {
                // Everything was read, so the next readiness is a new one (epoll is edge-triggered
                // here): no further read is needed to find that out.
                guard.clear_ready();
            }
            self.decoder.advance(count);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn end(&self) -> CloseReason {
        CloseReason::Closed { mid_frame: self.decoder.is_mid_frame() }
    }

    /// Writes what is queued, and waits for the socket where it takes no more.
    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while let Flushed::Blocked = self.shared.outgoing.flush() {
            if self.writable.is_none() {
                let socket = self.readable.get_ref().try_clone()?;
                self.writable = Some(watch(socket, Interest::WRITABLE)?);
            }
            let Some(writable) = &self.writable else { break };
            match writable.poll_write_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(guard) => {
                    let mut guard = guard?;
                    match self.shared.outgoing.flush() {
                        Flushed::Blocked => guard.clear_ready(),
                        Flushed::Empty => break,
                    }
                }
            }
        }
        self.writable = None;
        Ok(())
    }

    /// Fails requests whose deadline passed and sets the timer to the next one.
    fn deadlines(&mut self, cx: &mut Context<'_>) {
        loop {
            let Some(earliest) = lock(&self.shared.table).earliest() else {
                self.timer = None;
                return;
            };
            let timer = match &mut self.timer {
                Some(timer) => {
                    if timer.deadline().into_std() != earliest {
                        timer.as_mut().reset(earliest.into());
                    }
                    timer
                }
                none => none.insert(Box::pin(tokio::time::sleep_until(earliest.into()))),
            };
            if timer.as_mut().poll(cx).is_pending() {
                return;
            }
            let (cancelled, wakers) = lock(&self.shared.table).expire(Instant::now());
            for waker in wakers {
                waker.wake();
            }
            for id in cancelled {
                self.shared.cancel(id);
            }
        }
    }
}

impl Future for Driver {
    type Output = CloseReason;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let this = self.get_mut();
        // Before looking at anything, so that what changes afterwards wakes this task again.
        this.shared.doorbell.register(cx.waker());
        if let Some(reason) = this.shared.close_reason() {
            return Poll::Ready(reason);
        }
        if let Poll::Ready(reason) = this.read(cx) {
            this.shared.close(reason);
        }
        this.deadlines(cx);
        if (this.writable.is_some() || !this.shared.outgoing.is_empty())
            && let Err(error) = this.flush(cx)
        {
            this.shared.close(CloseReason::Io(error.kind()));
        }
        match this.shared.close_reason() {
            Some(reason) => Poll::Ready(reason),
            None => Poll::Pending,
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.close(CloseReason::Local);
    }
}

/// Registers `socket` with the runtime.
///
/// tokio deprecates the safe constructors of `AsyncFd` because a `T` may close its descriptor or
/// answer with another one. An owned descriptor can do neither, and the replacement is `unsafe`, which
/// this crate forbids.
#[expect(deprecated)]
fn watch<T: AsRawFd>(socket: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(socket, interest)
}

fn dispatch(shared: &Arc<Shared>, frame: &Bytes) -> Result<(), FrameError> {
    match Message::parse(frame)? {
        Message::Response { id, outcome } => {
            let outcome = match outcome {
                Ok(result) => Ok(payload(frame, result)),
                Err(error) => Err(error.into_failure(shared.config.side)),
            };
            let id = if let Id::Number(id) = id { Some(id) } else { None };
            let waker = lock(&shared.table).answer(id, outcome)?;
            if let Some(waker) = waker {
                waker.wake();
            }
            Ok(())
        }
        Message::Request { id, method, params } => incoming::accept(
            shared,
            Request { id, method: method.to_owned(), params: payload(frame, params) },
        ),
        Message::Notification { method: methods::CANCEL, params } => {
            match serde_json::from_slice::<methods::CancelParams>(params) {
                Ok(cancel) => incoming::cancel(shared, &cancel.id),
                Err(_) => lock(&shared.table).strike(),
            }
        }
        Message::Notification { method, .. }
            if method.starts_with("$/") && method != methods::PROGRESS =>
        {
            shared.counters.ignored_notifications.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        Message::Notification { method, params } => {
            shared.handler.notification(method, params);
            Ok(())
        }
    }
}

fn payload(frame: &Bytes, text: &[u8]) -> Payload {
    if text == b"null" {
        Payload::null()
    } else if text.len() <= COPY_BYTES {
        Payload::from_json_text(Bytes::copy_from_slice(text))
    } else {
        Payload::from_json_text(frame.slice_ref(text))
    }
}
