//! One end of the wire: requests both ways over a Unix stream socket.
//!
//! A [`Peer`] is a handle that is cheap to clone; its [`Driver`] reads, dispatches, flushes what the
//! kernel did not take at once and keeps the deadlines. A request is written by its caller, straight
//! to the socket; only its answer passes through the driver. Everything has a bound: a peer that
//! floods, stalls or lies costs its own connection and nothing else.

mod driver;
mod incoming;
mod outgoing;
mod receive;
mod request;
mod table;

use std::{
    fmt, io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    task::Waker,
    time::{Duration, Instant},
};

use palisade_model::{ErrorCode, Failure, Payload};
use tokio::sync::Notify;

use crate::{BoxFuture, CloseReason, Id, Side, bounds, message, scan};

pub use driver::Driver;
pub use request::RequestFuture;

use incoming::Incoming;
use outgoing::{Outgoing, Push};
use table::Table;

/// A moment by which something must be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// `duration` from now. A duration too long for the clock means a year.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_add(duration).unwrap_or(now + Duration::from_secs(365 * 24 * 3600)))
    }

    /// The moment.
    #[must_use]
    pub fn instant(self) -> Instant {
        self.0
    }

    /// How much time is left; zero when it passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

impl From<Instant> for Deadline {
    fn from(moment: Instant) -> Self {
        Self(moment)
    }
}

/// A request from the other side.
#[derive(Clone, Debug)]
pub struct Request {
    /// The id that the other side chose; needed to send `$/progress` about it.
    pub id: Id,
    /// What is asked: 1..=128 characters of `A-Z a-z 0-9 . _ - / $`.
    pub method: String,
    /// JSON text that was checked; `null` where the request had none.
    pub params: Payload,
}

/// What one side does with what the other sends.
///
/// `request` and `notification` are called by the driver, so they must not block: `request` only
/// builds the future, which then runs as a task of its own. A cancelled request's future is dropped.
pub trait Handler: Send + Sync + 'static {
    /// Answers a request. An unknown method is answered with [`ErrorCode::NotFound`] (-32601).
    fn request(&self, request: Request) -> BoxFuture<'static, Result<Payload, Failure>>;

    /// Takes a notification: `log`, `$/progress`, or one that this crate does not know. `params` is
    /// JSON text that was checked.
    fn notification(&self, method: &str, params: &[u8]);

    /// The connection ended. Called once.
    fn closed(&self, reason: &CloseReason);
}

/// How one end of a connection behaves.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Which end this is.
    pub side: Side,
    /// Requests of this side in flight at once, 1..=65536. Further ones fail with
    /// [`ErrorCode::LimitExceeded`].
    pub outgoing_requests: usize,
    /// Requests of the other side in flight at once, 1..=65536. Further ones are answered with
    /// [`ErrorCode::LimitExceeded`].
    pub incoming_requests: usize,
    /// Bytes of the other side's requests in flight and of answers to them that wait to be read. Beyond
    /// that, requests are answered with [`ErrorCode::LimitExceeded`]. One of any length always passes.
    pub incoming_bytes: usize,
    /// Bytes that may wait for the other side to read. One frame always fits an empty queue.
    pub queue_bytes: usize,
    /// How long a frame waits for room in a full queue, where its request has no earlier deadline.
    pub write_timeout: Duration,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            side: Side::Host,
            outgoing_requests: bounds::IN_FLIGHT_REQUESTS,
            incoming_requests: bounds::IN_FLIGHT_REQUESTS,
            incoming_bytes: bounds::IN_FLIGHT_BYTES,
            queue_bytes: bounds::QUEUE_BYTES,
            write_timeout: bounds::WRITE_TIMEOUT,
        }
    }
}

/// What a connection has counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Answers to requests that were cancelled or whose deadline passed. Dropped.
    pub late_answers: u64,
    /// Answers to nothing, double answers and malformed cancellations. Dropped, at most
    /// [`bounds::STRIKES`].
    pub strikes: u32,
    /// Requests of the other side that were refused because too many were in flight.
    pub refused_requests: u64,
    /// Reserved or unknown `$/` notifications. Dropped.
    pub ignored_notifications: u64,
}

/// Counters that only the driver raises.
#[derive(Debug, Default)]
struct Counters {
    refused_requests: AtomicU64,
    ignored_notifications: AtomicU64,
}

/// What handles, requests, tasks and the driver of one connection share.
struct Shared {
    config: PeerConfig,
    handler: Arc<dyn Handler>,
    table: Mutex<Table>,
    outgoing: Outgoing,
    incoming: Incoming,
    doorbell: Doorbell,
    /// Told once the connection has ended.
    ended: Notify,
    counters: Counters,
    runtime: tokio::runtime::Handle,
}

/// Locks, also after a panic of another holder: every critical section here leaves whole states.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes the driver.
#[derive(Default)]
struct Doorbell(Mutex<Option<Waker>>);

impl Doorbell {
    fn register(&self, waker: &Waker) {
        let mut slot = lock(&self.0);
        match &mut *slot {
            Some(old) if old.will_wake(waker) => {}
            other => *other = Some(waker.clone()),
        }
    }

    fn ring(&self) {
        let waker = lock(&self.0).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Shared {
    fn close_reason(&self) -> Option<CloseReason> {
        lock(&self.table).closed().cloned()
    }

    /// Ends the connection; the first reason counts.
    fn close(&self, reason: CloseReason) {
        let Some(wakers) = lock(&self.table).close(&reason) else { return };
        self.outgoing.close();
        self.incoming.abort_all();
        for waker in wakers {
            waker.wake();
        }
        self.doorbell.ring();
        tracing::debug!(%reason, "connection ended");
        self.handler.closed(&reason);
        self.ended.notify_waiters();
    }

    /// Writes a frame that cannot wait. `false` if there is no room even in the reserve.
    fn push_urgent(&self, frame: Vec<u8>) -> bool {
        match self.outgoing.push(frame, true, || true) {
            Push::Queued => {
                self.doorbell.ring();
                true
            }
            // A connection that is gone needs no frame.
            Push::Written | Push::Gone | Push::Withdrawn => true,
            Push::Full(_) => false,
        }
    }

    fn cancel(&self, id: u64) {
        let params = format!("{{\"id\":{id}}}");
        // Without room the other side goes on in vain and its answer is dropped as late; that is all.
        self.push_urgent(message::encode_notification(crate::methods::CANCEL, params.as_bytes()));
    }

    fn stalled(&self) -> Failure {
        Failure::new(
            ErrorCode::Deadline,
            "the other side does not read: its queue stayed full until the deadline",
        )
    }
}

/// Checks that a payload may stand in a frame, and returns its JSON text.
fn json_text(payload: &Payload) -> Result<&[u8], Failure> {
    if payload.encoding() != palisade_model::Encoding::Json {
        return Err(Failure::new(ErrorCode::InvalidParams, "this wire carries JSON only"));
    }
    if payload.len() > bounds::FRAME_BYTES {
        return Err(too_long());
    }
    // The envelope is the outermost level.
    scan::validate(payload.bytes(), bounds::DEPTH_LEVELS - 1)
        .map_err(|e| Failure::new(ErrorCode::InvalidParams, format!("not sendable: {e}")))?;
    Ok(payload.bytes())
}

/// Whether an encoded frame, its line break included, is within the bound.
fn fits(frame: &[u8]) -> bool {
    frame.len() <= bounds::FRAME_BYTES + 1
}

fn too_long() -> Failure {
    Failure::new(
        ErrorCode::LimitExceeded,
        format!("the message is longer than {} bytes", bounds::FRAME_BYTES),
    )
    .rule("protocol:frame-bytes")
}

/// One end of a connection. Clones share it; when the last is dropped, the connection is closed.
#[derive(Clone)]
pub struct Peer {
    handle: Arc<Handle>,
}

/// Closes when the last clone of a [`Peer`] goes.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close(CloseReason::Local);
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("closed", &self.close_reason()).finish_non_exhaustive()
    }
}

impl Peer {
    /// Takes one end of a Unix stream socket pair. Nothing is read until the driver is polled.
    ///
    /// # Errors
    /// Outside a tokio runtime, or when the socket cannot be watched.
    pub fn start(
        transport: impl Into<OwnedFd>,
        handler: Arc<dyn Handler>,
        config: PeerConfig,
    ) -> io::Result<(Self, Driver)> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let socket = Arc::new(transport.into());
        let shared = Arc::new(Shared {
            handler,
            table: Mutex::new(Table::new(config.outgoing_requests)),
            outgoing: Outgoing::new(Arc::clone(&socket), config.queue_bytes),
            incoming: Incoming::default(),
            doorbell: Doorbell::default(),
            ended: Notify::new(),
            counters: Counters::default(),
            runtime,
            config,
        });
        let driver = Driver::new(socket, Arc::clone(&shared))?;
        Ok((Self { handle: Arc::new(Handle(shared)) }, driver))
    }

    /// [`Peer::start`], with the driver as a task of the current runtime.
    ///
    /// # Errors
    /// As [`Peer::start`].
    pub fn spawn(
        transport: impl Into<OwnedFd>,
        handler: Arc<dyn Handler>,
        config: PeerConfig,
    ) -> io::Result<Self> {
        let (peer, driver) = Self::start(transport, handler, config)?;
        peer.handle.0.runtime.spawn(driver);
        Ok(peer)
    }

    /// Sends a request at once (not when first polled) and returns the future of its answer. Dropping
    /// that future cancels the request.
    ///
    /// Fails with [`ErrorCode::Deadline`] when the deadline passes, [`ErrorCode::LimitExceeded`] when
    /// too many requests are in flight or the message is too long, [`ErrorCode::InvalidParams`] when
    /// `params` is not JSON of at most 63 levels, [`ErrorCode::Crashed`] or
    /// [`ErrorCode::ProtocolBreach`] when the connection ends, and with what the other side answers.
    pub fn request(
        &self,
        method: &str,
        params: &Payload,
        deadline: Option<Deadline>,
    ) -> RequestFuture {
        RequestFuture::send(&self.handle.0, method, params, deadline)
    }

    /// Sends a notification; waits while the queue is full.
    ///
    /// # Errors
    /// As [`Peer::request`], but for what the other side answers.
    pub async fn notify(&self, method: &str, params: &Payload) -> Result<(), Failure> {
        let shared = &self.handle.0;
        if !message::is_method_name(method) {
            return Err(Failure::new(ErrorCode::InvalidParams, "not a method name"));
        }
        let frame = message::encode_notification(method, json_text(params)?);
        if !fits(&frame) {
            return Err(too_long());
        }
        let until = Deadline::after(shared.config.write_timeout);
        match outgoing::send(shared, frame, until.instant(), || true).await {
            Push::Written | Push::Queued | Push::Withdrawn => Ok(()),
            Push::Full(_) => Err(shared.stalled()),
            Push::Gone => Err(shared.gone()),
        }
    }

    /// Closes the connection now. What is pending fails; what is queued is lost.
    pub fn close(&self) {
        self.handle.0.close(CloseReason::Local);
    }

    /// Why the connection ended, if it has.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.handle.0.close_reason()
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) -> CloseReason {
        loop {
            let ended = self.handle.0.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if let Some(reason) = self.close_reason() {
                return reason;
            }
            ended.await;
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn stats(&self) -> PeerStats {
        let shared = &self.handle.0;
        let load = |counter: &AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        let table = lock(&shared.table);
        PeerStats {
            late_answers: table.late(),
            strikes: table.strikes(),
            refused_requests: load(&shared.counters.refused_requests),
            ignored_notifications: load(&shared.counters.ignored_notifications),
        }
    }
}

impl Shared {
    /// What a sender is told when the socket took nothing any more.
    fn gone(&self) -> Failure {
        self.close_reason().unwrap_or(CloseReason::Closed { mid_frame: false }).failure()
    }
}
