//! One connection: a task at the host's side, and the two directions that a guest holds.
//!
//! What is sent is handed to the connection piece by piece, and one piece is on its way at a time; of what comes in,
//! at most three pieces wait. So a guest that does not read stops the other side, and is stopped by one that
//! does not. The task ends with its connection, or some time after the guest has let go of both directions.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use palisade_sandbox::Stream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::sleep,
};
use tokio_util::sync::PollSemaphore;

use super::Trouble;

/// Most bytes of one piece.
pub(super) const CHUNK: usize = 16 << 10;
/// How long what was sent may still go out, when the guest has let go of both directions.
const LINGER: Duration = Duration::from_secs(10);

/// A piece, the end (no bytes), or why there are no more.
type Piece = Result<Bytes, Trouble>;

/// The host's ends.
pub(super) struct Ends {
    outgoing: mpsc::UnboundedReceiver<(Bytes, OwnedSemaphorePermit)>,
    turns: Arc<Semaphore>,
    done: oneshot::Sender<Result<(), Trouble>>,
    incoming: mpsc::Sender<Piece>,
    gone: oneshot::Receiver<Infallible>,
}

/// What both of the guest's directions hold: the place that the connection takes, and the sign that one of them
/// is there.
struct Held {
    _place: OwnedSemaphorePermit,
    _here: oneshot::Sender<Infallible>,
}

/// The guest's ends and the host's.
pub(super) fn channels(place: OwnedSemaphorePermit) -> ((Receiving, Sending), Ends) {
    let (here, gone) = oneshot::channel();
    let held = Arc::new(Held { _place: place, _here: here });
    let turns = Arc::new(Semaphore::new(1));
    let (sent, outgoing) = mpsc::unbounded_channel();
    let (done, finished) = oneshot::channel();
    let (incoming, pieces) = mpsc::channel(1);
    let receiving = Receiving { pieces, rest: Bytes::new(), ended: None, _held: Arc::clone(&held) };
    let sending = Sending {
        pieces: Some(sent),
        turns: PollSemaphore::new(Arc::clone(&turns)),
        turn: None,
        finished: Some(finished),
        _held: held,
    };
    ((receiving, sending), Ends { outgoing, turns, done, incoming, gone })
}

/// Moves bytes both ways until both have ended.
pub(super) async fn carry(stream: Box<dyn Stream>, ends: Ends) {
    let Ends { mut outgoing, turns, done, incoming, gone } = ends;
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = async move {
        let mut written = Ok(());
        while let Some((bytes, turn)) = outgoing.recv().await {
            written = write.write_all(&bytes).await;
            drop(turn);
            if written.is_err() {
                break;
            }
        }
        if written.is_ok() {
            written = write.shutdown().await;
        }
        // The guest sees its direction closed.
        turns.close();
        let _ = done.send(written.map_err(|_| Trouble::Reset));
    };
    let receiving = async move {
        loop {
            let mut bytes = BytesMut::with_capacity(CHUNK);
            let read = (&mut read).take(CHUNK as u64).read_buf(&mut bytes).await;
            let piece = read.map(|_| bytes.freeze()).map_err(|_| Trouble::Reset);
            let is_last = piece.as_ref().map_or(true, Bytes::is_empty);
            // A guest that listens no more loses what comes.
            let _ = incoming.send(piece).await;
            if is_last {
                return;
            }
        }
    };
    let both = async { tokio::join!(sending, receiving) };
    let left = async {
        let _ = gone.await;
        sleep(LINGER).await;
    };
    tokio::select! {
        _ = both => {}
        () = left => {}
    }
}

/// What comes in, at the guest's side.
pub(super) struct Receiving {
    pieces: mpsc::Receiver<Piece>,
    rest: Bytes,
    /// There is no more behind the rest, and why.
    ended: Option<Result<(), Trouble>>,
    _held: Arc<Held>,
}

impl Receiving {
    /// Until there is something to take, be it the end.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.rest.is_empty() && self.ended.is_none() {
            match ready!(self.pieces.poll_recv(cx)) {
                Some(Ok(bytes)) if !bytes.is_empty() => self.rest = bytes,
                Some(Err(trouble)) => self.ended = Some(Err(trouble)),
                Some(Ok(_)) | None => self.ended = Some(Ok(())),
            }
        }
        Poll::Ready(())
    }

    /// At most `size` bytes of what is ready; none where nothing is.
    ///
    /// # Errors
    /// The end: in peace, or not.
    pub(super) fn take(&mut self, size: usize) -> Result<Bytes, Result<(), Trouble>> {
        if let (true, Some(end)) = (self.rest.is_empty(), self.ended) {
            // What went wrong is told once, and then it is over.
            self.ended = Some(Ok(()));
            return Err(end);
        }
        Ok(self.rest.split_to(size.min(self.rest.len())))
    }

    /// Receives no more.
    pub(super) fn shut(&mut self) {
        self.pieces.close();
        self.rest.clear();
        self.ended = Some(Ok(()));
    }
}

/// What goes out, at the guest's side. Dropping it is the end of what is sent, which goes out.
pub(super) struct Sending {
    pieces: Option<mpsc::UnboundedSender<(Bytes, OwnedSemaphorePermit)>>,
    /// One: the next piece is taken when the one before was handed to the connection.
    turns: PollSemaphore,
    turn: Option<OwnedSemaphorePermit>,
    finished: Option<oneshot::Receiver<Result<(), Trouble>>>,
    _held: Arc<Held>,
}

/// Nothing can be sent any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed;

impl Sending {
    /// Until a piece of at most [`CHUNK`] bytes can be sent, and all before it was handed to the connection.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        if self.pieces.is_none() {
            return Poll::Ready(Err(Closed));
        }
        if self.turn.is_none() {
            self.turn = Some(ready!(self.turns.poll_acquire(cx)).ok_or(Closed)?);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends a piece, where one can be.
    pub(super) fn send(&mut self, bytes: Bytes) -> Result<(), Closed> {
        let (Some(pieces), Some(turn)) = (&self.pieces, self.turn.take()) else {
            return Err(Closed);
        };
        pieces.send((bytes, turn)).map_err(|_| Closed)
    }

    /// Sends no more; what was sent goes out.
    pub(super) fn shut(&mut self) {
        self.pieces = None;
        self.turn = None;
    }

    /// How it ended, once it has: everything was handed to the connection, or not. Given away once.
    pub(super) fn finished(&mut self) -> Option<oneshot::Receiver<Result<(), Trouble>>> {
        self.finished.take()
    }
}
