//! Writing: straight to the socket while it takes bytes, into a bounded queue when it does not.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::{Buf as _, BytesMut};
use rustix::{io::Errno, net::SendFlags};
use tokio::sync::Notify;

use super::{Shared, lock};
use crate::bounds;

/// A queue buffer that grew beyond this is given back once it is empty, in bytes.
const KEEP_BYTES: usize = 256 << 10;

/// What became of a frame.
pub(super) enum Push {
    /// The kernel has it.
    Written,
    /// The queue has (some of) it; the driver must be told to flush.
    Queued,
    /// There is no room; here it is back.
    Full(Vec<u8>),
    /// The connection takes nothing any more.
    Gone,
    /// Whoever wanted it sent no longer does.
    Withdrawn,
}

struct State {
    /// `None` once the connection takes nothing any more.
    socket: Option<Arc<OwnedFd>>,
    queue: BytesMut,
}

/// The sending half.
pub(super) struct Outgoing {
    state: Mutex<State>,
    limit: usize,
    /// How many wait for room. While any do, newcomers wait behind them.
    waiting: AtomicUsize,
    room: Notify,
}

/// What a flush leaves.
pub(super) enum Flushed {
    /// Nothing is queued.
    Empty,
    /// The kernel takes no more for now.
    Blocked,
}

/// Writes as much as the kernel takes now. `Ok(0)` when it takes nothing.
fn write(socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => return Ok(count),
            Err(Errno::AGAIN) => return Ok(0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

impl Outgoing {
    pub(super) fn new(socket: Arc<OwnedFd>, limit: usize) -> Self {
        Self {
            state: Mutex::new(State { socket: Some(socket), queue: BytesMut::new() }),
            limit,
            waiting: AtomicUsize::new(0),
            room: Notify::new(),
        }
    }

    /// Writes or queues `frame`. `wanted` is asked at the last moment, so that what happens before the
    /// frame is visible to the other side happens under the same lock.
    pub(super) fn push(&self, frame: Vec<u8>, urgent: bool, wanted: impl FnOnce() -> bool) -> Push {
        self.push_from(frame, urgent, false, wanted)
    }

    fn push_from(
        &self,
        frame: Vec<u8>,
        urgent: bool,
        waited: bool,
        wanted: impl FnOnce() -> bool,
    ) -> Push {
        let mut state = lock(&self.state);
        let State { socket, queue } = &mut *state;
        let Some(open) = socket else { return Push::Gone };
        let behind = !urgent && !waited && self.waiting.load(Ordering::Relaxed) > 0;
        if queue.is_empty() && !behind {
            if !wanted() {
                return Push::Withdrawn;
            }
            return match write(open, &frame) {
                Ok(count) if count == frame.len() => Push::Written,
                Ok(count) => {
                    queue.extend_from_slice(frame.get(count..).unwrap_or_default());
                    Push::Queued
                }
                Err(_) => {
                    // Only writing ended. What the other side said before it went is still read.
                    *socket = None;
                    Push::Gone
                }
            };
        }
        let limit = self.limit + if urgent { bounds::QUEUE_RESERVE_BYTES } else { 0 };
        if behind || queue.len() + frame.len() > limit {
            return Push::Full(frame);
        }
        if !wanted() {
            return Push::Withdrawn;
        }
        queue.extend_from_slice(&frame);
        Push::Queued
    }

    /// Writes what is queued. The driver calls it when the socket is writable.
    pub(super) fn flush(&self) -> Flushed {
        let mut state = lock(&self.state);
        let State { socket, queue } = &mut *state;
        let mut flushed = Flushed::Empty;
        while !queue.is_empty() {
            match socket.as_deref().map(|socket| write(socket, queue)) {
                Some(Ok(0)) => {
                    flushed = Flushed::Blocked;
                    break;
                }
                Some(Ok(count)) => queue.advance(count),
                Some(Err(_)) | None => {
                    *socket = None;
                    queue.clear();
                }
            }
        }
        if queue.is_empty() && queue.capacity() > KEEP_BYTES {
            *queue = BytesMut::new();
        }
        let low = queue.len() <= self.limit / 2;
        drop(state);
        if low && self.waiting.load(Ordering::Relaxed) > 0 {
            self.room.notify_waiters();
        }
        flushed
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.state).queue.is_empty()
    }

    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.queue = BytesMut::new();
        if let Some(socket) = state.socket.take() {
            // The other side sees the end now, though the driver may hold the socket a moment longer.
            let _ = rustix::net::shutdown(&*socket, rustix::net::Shutdown::Both);
        }
        drop(state);
        self.room.notify_waiters();
    }
}

/// Counts one that waits for room.
struct Waiting<'a>(&'a Outgoing);

impl<'a> Waiting<'a> {
    fn new(outgoing: &'a Outgoing) -> Self {
        outgoing.waiting.fetch_add(1, Ordering::Relaxed);
        Self(outgoing)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Writes or queues `frame`, waiting for room until `until`. Never returns [`Push::Queued`] without
/// having told the driver; [`Push::Full`] means that the time was up.
pub(super) async fn send(
    shared: &Shared,
    frame: Vec<u8>,
    until: Instant,
    mut wanted: impl FnMut() -> bool,
) -> Push {
    let outgoing = &shared.outgoing;
    let told = |push: Push| {
        if matches!(push, Push::Queued) {
            shared.doorbell.ring();
        }
        push
    };
    let mut frame = match outgoing.push_from(frame, false, false, &mut wanted) {
        Push::Full(frame) => frame,
        other => return told(other),
    };
    let _waiting = Waiting::new(outgoing);
    loop {
        let room = outgoing.room.notified();
        tokio::pin!(room);
        // From here on a notification is not missed; so look once more before sleeping.
        room.as_mut().enable();
        frame = match outgoing.push_from(frame, false, true, &mut wanted) {
            Push::Full(frame) => frame,
            other => return told(other),
        };
        if tokio::time::timeout_at(until.into(), room).await.is_err() {
            return Push::Full(frame);
        }
    }
}
