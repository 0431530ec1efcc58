//! One way out: whole lines only, and a short queue for what the relay says itself.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::Notify,
};

/// Most lines that wait. Beyond, the other side does not read what it caused.
const QUEUE_LINES: usize = 256;

pub(super) struct Writer<W> {
    /// Taken out while a line is written: where that is given up in the middle, nobody writes after the
    /// torn line.
    stream: tokio::sync::Mutex<Option<W>>,
    queue: Mutex<VecDeque<Vec<u8>>>,
    posted: Notify,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(super) fn new(stream: W) -> Self {
        Self {
            stream: tokio::sync::Mutex::new(Some(stream)),
            queue: Mutex::default(),
            posted: Notify::new(),
        }
    }

    /// Writes one line, and waits until it is taken. False where nobody reads any more.
    pub(super) async fn write(&self, line: &[u8]) -> bool {
        let mut slot = self.stream.lock().await;
        let Some(mut stream) = slot.take() else { return false };
        let mut written = stream.write_all(line).await;
        if written.is_ok() && !line.ends_with(b"\n") {
            written = stream.write_all(b"\n").await;
        }
        if written.is_err() || stream.flush().await.is_err() {
            return false;
        }
        *slot = Some(stream);
        true
    }

    /// Leaves a line to be written soon. False where too many wait already.
    #[must_use]
    pub(super) fn post(&self, line: Vec<u8>) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= QUEUE_LINES {
            return false;
        }
        queue.push_back(line);
        self.posted.notify_one();
        true
    }

    /// How many lines may be posted now.
    pub(super) fn room(&self) -> usize {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        QUEUE_LINES.saturating_sub(queue.len())
    }

    fn next(&self) -> Option<Vec<u8>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Writes what is posted. Ends when nobody reads any more.
    pub(super) async fn drain(&self) {
        loop {
            while let Some(line) = self.next() {
                if !self.write(&line).await {
                    return;
                }
            }
            self.posted.notified().await;
        }
    }

    /// Closes it behind what was posted.
    pub(super) async fn close(&self) {
        while let Some(line) = self.next() {
            if !self.write(&line).await {
                break;
            }
        }
        let stream = self.stream.lock().await.take();
        if let Some(mut stream) = stream {
            let _ = stream.shutdown().await;
        }
    }
}
