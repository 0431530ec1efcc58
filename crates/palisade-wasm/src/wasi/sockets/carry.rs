//! One connection: a task at the host's side, and the two directions that a guest holds.
//!
//! At most two pieces wait in each direction, beside what the connection itself keeps, so that a guest that
//! does not read stops the other side, and is stopped by one that does not.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use palisade_sandbox::Stream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, mpsc},
    time::sleep,
};
use tokio_util::sync::PollSender;

use super::Trouble;

/// Most bytes of one piece.
pub(super) const CHUNK: usize = 16 << 10;
/// How long the other side may take what was sent, when the guest has closed both directions.
const LINGER: Duration = Duration::from_secs(10);

/// A piece, the end (no bytes), or why there are no more.
type Piece = Result<Bytes, Trouble>;

/// The host's ends.
pub(super) struct Ends {
    outgoing: mpsc::Receiver<Bytes>,
    incoming: mpsc::Sender<Piece>,
}

/// The guest's ends, which keep the place that the connection takes, and the host's.
pub(super) fn channels(place: OwnedSemaphorePermit) -> ((Receiving, Sending), Ends) {
    let place = Arc::new(place);
    let (sent, outgoing) = mpsc::channel(1);
    let (incoming, pieces) = mpsc::channel(1);
    let receiving =
        Receiving { pieces, rest: Bytes::new(), ended: None, _place: Arc::clone(&place) };
    let sending = Sending { pieces: PollSender::new(sent), is_ready: false, _place: place };
    ((receiving, sending), Ends { outgoing, incoming })
}

/// Moves bytes both ways until both have ended.
pub(super) async fn carry(stream: Box<dyn Stream>, ends: Ends) {
    let Ends { mut outgoing, incoming } = ends;
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = async move {
        while let Some(bytes) = outgoing.recv().await {
            if write.write_all(&bytes).await.is_err() {
                // The guest sees its direction closed.
                return;
            }
        }
        // The other side may be gone already.
        let _ = write.shutdown().await;
    };
    let guest = incoming.clone();
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
    tokio::pin!(sending, receiving);
    let is_all_received = tokio::select! {
        () = &mut sending => false,
        () = &mut receiving => true,
    };
    if is_all_received {
        return sending.await;
    }
    let nobody_listens = async {
        guest.closed().await;
        sleep(LINGER).await;
    };
    tokio::select! {
        () = receiving => {}
        () = nobody_listens => {}
    }
}

/// What comes in, at the guest's side.
pub(super) struct Receiving {
    pieces: mpsc::Receiver<Piece>,
    rest: Bytes,
    /// There is no more behind the rest, and why.
    ended: Option<Result<(), Trouble>>,
    _place: Arc<OwnedSemaphorePermit>,
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

/// What goes out, at the guest's side.
pub(super) struct Sending {
    pieces: PollSender<Bytes>,
    is_ready: bool,
    _place: Arc<OwnedSemaphorePermit>,
}

/// Nothing can be sent any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed;

impl Sending {
    /// Until a piece of at most [`CHUNK`] bytes can be sent.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        if !self.is_ready {
            ready!(self.pieces.poll_reserve(cx)).map_err(|_| Closed)?;
            self.is_ready = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends a piece, where one can be.
    pub(super) fn send(&mut self, bytes: Bytes) -> Result<(), Closed> {
        self.is_ready = false;
        self.pieces.send_item(bytes).map_err(|_| Closed)
    }

    /// Sends no more; what was sent goes out.
    pub(super) fn shut(&mut self) {
        self.is_ready = false;
        self.pieces.abort_send();
        self.pieces.close();
    }
}
