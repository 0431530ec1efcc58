//! A recorder that keeps the last records in memory.
//!
//! The default where no file is named: real and queryable, but volatile. The fail-closed class is
//! recorded before the act here too; it does not survive the process, and [`Recorder::is_durable`]
//! says so.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use palisade_model::ErrorCode;

use crate::{
    Act, BoxFuture, Clock, Intent, Outcome, Phase, Record, RecordError, Recorder, SystemClock,
    act::Stamped,
    clock::boot_id,
    record::{Finish, render},
};

enum Entry {
    Intent(Arc<Stamped>),
    Outcome(Arc<Stamped>, crate::Stamp, Outcome, Option<Box<str>>),
    Note(Arc<Stamped>, Option<ErrorCode>),
}

#[derive(Default)]
struct Ring {
    entries: VecDeque<Entry>,
    evicted: u64,
}

/// Keeps the newest records in a bounded ring.
pub struct MemoryRecorder {
    ring: Mutex<Ring>,
    capacity: usize,
    correlation: AtomicU64,
    boot: String,
    clock: Arc<dyn Clock>,
}

impl MemoryRecorder {
    /// A ring of at most `capacity` records, 1..=1 000 000 (values outside are brought in).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self::with_clock(capacity, Arc::new(SystemClock))
    }

    /// As [`MemoryRecorder::new`], with a clock.
    #[must_use]
    pub fn with_clock(capacity: usize, clock: Arc<dyn Clock>) -> Self {
        Self {
            ring: Mutex::default(),
            capacity: capacity.clamp(1, 1_000_000),
            correlation: AtomicU64::new(0),
            boot: boot_id(),
            clock,
        }
    }

    /// The records that are still held, oldest first. `seq` counts the evicted ones too.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let numbered = (ring.evicted + 1..).zip(&ring.entries);
        numbered
            .map(|(seq, entry)| match entry {
                Entry::Intent(s) => {
                    render(seq, &self.boot, s, &Finish::plain(Phase::Intent, s, None))
                }
                Entry::Note(s, code) => {
                    render(seq, &self.boot, s, &Finish::plain(Phase::Note, s, *code))
                }
                Entry::Outcome(s, at, outcome, detail) => {
                    let finish = Finish::outcome(s, *at, *outcome, detail.as_deref());
                    render(seq, &self.boot, s, &finish)
                }
            })
            .collect()
    }

    /// How many records were pushed out by newer ones.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).evicted
    }

    fn stamped(&self, act: Act) -> Arc<Stamped> {
        let correlation = self.correlation.fetch_add(1, Ordering::Relaxed) + 1;
        Arc::new(Stamped { act: act.hashed(), at: self.clock.now(), correlation })
    }

    fn push(&self, entry: Entry) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.entries.len() >= self.capacity {
            ring.entries.pop_front();
            ring.evicted += 1;
        }
        ring.entries.push_back(entry);
    }
}

impl Recorder for MemoryRecorder {
    fn intent(&self, act: Act) -> BoxFuture<'_, Result<Intent, RecordError>> {
        let stamped = self.stamped(act);
        self.push(Entry::Intent(Arc::clone(&stamped)));
        Box::pin(std::future::ready(Ok(Intent(stamped))))
    }

    fn outcome(&self, intent: Intent, outcome: Outcome, detail: Option<&str>) {
        let detail = detail.map(|d| d.chars().take(crate::act::MAX_TEXT_CHARS + 1).collect());
        self.push(Entry::Outcome(intent.0, self.clock.now(), outcome, detail));
    }

    fn note(&self, act: Act, code: Option<ErrorCode>) {
        let stamped = self.stamped(act);
        self.push(Entry::Note(stamped, code));
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), RecordError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn is_durable(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use palisade_model::Principal;

    use super::*;
    use crate::RecordKind;

    #[test]
    fn the_ring_keeps_the_newest_and_counts_the_rest() {
        let recorder = MemoryRecorder::new(3);
        for i in 0..5 {
            let act = Act::new(RecordKind::Event, Arc::new(Principal::Application));
            recorder.note(act.target(&format!("n{i}")), None);
        }
        let records = recorder.records();
        assert_eq!(records.iter().map(|r| r.seq).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(records[0].target.as_deref(), Some("n2"));
        assert_eq!(recorder.evicted(), 2);
        assert!(!recorder.is_durable());
    }
}
