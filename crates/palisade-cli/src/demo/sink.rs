//! Counts what plugins log, and whether any of it could have steered a terminal.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use palisade_model::{Principal, text::is_deceptive};
use palisade_services::log::{LogLine, LogSink};

/// Lines that are kept.
const KEPT: usize = 100;

/// See the module.
#[derive(Default)]
pub(super) struct Counting {
    bytes: AtomicUsize,
    dropped: AtomicUsize,
    unsafe_line: AtomicBool,
    lines: Mutex<Vec<String>>,
}

impl Counting {
    /// Bytes that came through since the start.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that were dropped because they came too fast.
    pub(super) fn dropped(&self) -> usize {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until no more comes, but not for ever: lines may still be in a pipe when a call is over.
    pub(super) async fn quiet(&self) {
        for _ in 0..20 {
            let before = (self.bytes(), self.dropped());
            tokio::time::sleep(Duration::from_millis(150)).await;
            if before == (self.bytes(), self.dropped()) {
                return;
            }
        }
    }

    /// Whether a line came through with characters that steer a terminal.
    pub(super) fn has_unsafe_line(&self) -> bool {
        self.unsafe_line.load(Ordering::Relaxed)
    }

    /// Whether one of the first lines contains `text`.
    pub(super) fn has_line(&self, text: &str) -> bool {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|l| l.contains(text))
    }
}

impl LogSink for Counting {
    fn line(&self, line: &LogLine<'_>) {
        self.bytes.fetch_add(line.message.len(), Ordering::Relaxed);
        if line.message.chars().any(is_deceptive) {
            self.unsafe_line.store(true, Ordering::Relaxed);
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < KEPT {
            lines.push(line.message.chars().take(200).collect());
        }
    }

    fn dropped(&self, _source: &Principal, bytes: usize) {
        self.dropped.fetch_add(bytes, Ordering::Relaxed);
    }
}
