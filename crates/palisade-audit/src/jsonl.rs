//! A recorder that appends JSON lines to a file.
//!
//! One thread writes. Bulk records go through a bounded queue and are committed in groups; an intent of
//! the fail-closed class wakes the thread, and its future resolves when the line is written and
//! `fdatasync(2)` has returned. A group that cannot be written is taken back whole: its fail-closed
//! acts are refused, its other records are counted and the count is recorded as soon as writing works
//! again.
//!
//! Acts that are alike and come in great number are counted ([`crate::Tally`]). The count is written once
//! a window, before every record that somebody waits for, before the outcome of a fail-closed act, an exit
//! or a breach, and at the end; so a host that is killed takes at most one window of it along.

mod coalesce;
mod counter;
mod file;
mod writer;

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use palisade_model::{ErrorCode, Principal};
use tokio::sync::oneshot;

use crate::{
    Act, BoxFuture, Class, Clock, Head, Intent, Outcome, RecordError, RecordKind, Recorder, Stamp,
    SystemClock, Tally, act::Stamped,
};

/// How the JSON-lines recorder works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bulk records that may wait for the writer; what comes when it is full is dropped and counted.
    /// At least 1.
    pub queue: usize,
    /// How long bulk records are gathered before they are committed together.
    pub group_commit: Duration,
    /// How long a fail-closed act waits for the disk before it is refused.
    pub timeout: Duration,
    /// For how long equal records that may be coalesced are counted instead of written, and how often
    /// counts of acts that are alike are written.
    pub coalesce: Duration,
    /// How many acts that are alike ([`crate::Tally`]) are recorded one by one within such a time, before
    /// the rest of them is counted. `u32::MAX`: each is.
    pub each: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue: 16_384,
            group_commit: Duration::from_millis(10),
            timeout: Duration::from_secs(10),
            coalesce: Duration::from_secs(1),
            each: 100,
        }
    }
}

/// Whoever waits for the disk.
type Reply = oneshot::Sender<Result<(), RecordError>>;

enum Entry {
    /// Written as soon as the thread can, then answered.
    FailClosedIntent(Arc<Stamped>, Reply),
    Intent(Arc<Stamped>),
    Outcome(Arc<Stamped>, Stamp, Outcome, Option<Box<str>>),
    Note(Arc<Stamped>, Option<ErrorCode>),
    Flush(Reply),
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// Counters at which something has happened, for the writer to look at from now on.
    listed: Vec<Arc<counter::Counter>>,
    /// Bulk records dropped because the queue was full, since the writer last looked.
    dropped: u64,
    /// Somebody waits for the disk.
    urgent: bool,
    /// The writer sleeps until it is woken, rather than until its group is complete.
    idle: bool,
    closing: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    head: Mutex<Head>,
    wake: Condvar,
    correlation: AtomicU64,
    clock: Arc<dyn Clock>,
    options: Options,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stamped(&self, act: Act) -> Arc<Stamped> {
        let correlation = self.correlation.fetch_add(1, Ordering::Relaxed) + 1;
        Arc::new(Stamped { act, at: self.clock.now(), correlation })
    }

    /// Queues a bulk record, or counts it as dropped. Wakes the writer only if it sleeps, which under
    /// load is once a group.
    fn push_bulk(&self, entry: Entry) {
        let mut queue = self.lock();
        if queue.entries.len() >= self.options.queue {
            queue.dropped += 1;
            return;
        }
        queue.entries.push_back(entry);
        // Half full: do not wait for the group to complete.
        let pressing = queue.entries.len() == self.options.queue.div_ceil(2);
        queue.urgent |= pressing;
        let wake = std::mem::take(&mut queue.idle) || pressing;
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Queues what somebody waits for, or what follows from it. Not subject to the queue's bound: there
    /// is at most one such entry for each act in flight.
    fn push_firm(&self, entry: Entry, urgent: bool) {
        let mut queue = self.lock();
        queue.entries.push_back(entry);
        queue.urgent |= urgent;
        let wake = std::mem::take(&mut queue.idle) || urgent;
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Has the writer look at a counter until nothing happens at it any more.
    fn list(&self, counter: &Arc<counter::Counter>) {
        let mut queue = self.lock();
        if queue.closing || !counter.enlist(self.clock.now()) {
            return;
        }
        queue.listed.push(Arc::clone(counter));
        let wake = std::mem::take(&mut queue.idle);
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }

    async fn confirmed(
        &self,
        answer: oneshot::Receiver<Result<(), RecordError>>,
    ) -> Result<(), RecordError> {
        match tokio::time::timeout(self.options.timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(RecordError::Stopped),
            Err(_) => {
                let ms = self.options.timeout.as_millis();
                Err(RecordError::Timeout(u64::try_from(ms).unwrap_or(u64::MAX)))
            }
        }
    }
}

/// Appends records to a file, one JSON object a line. Its futures need a tokio runtime with time
/// enabled. Dropping it writes what is queued and closes the record.
pub struct JsonLinesRecorder {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl JsonLinesRecorder {
    /// Opens or creates the record at `path`: readable and writable by its owner only, never through
    /// a symbolic link, locked against other processes (`flock(2)`). An existing record is continued;
    /// half a line at its end, left by a crash, is removed and noted. Its last lines (1 MiB) must follow from each
    /// other ([`crate::Chain`]); all of it is looked at by [`crate::verify()`].
    ///
    /// # Errors
    /// [`RecordError`] when the file cannot be opened, is no record, was changed, is in use or cannot be written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RecordError> {
        Self::open_with(path, Options::default(), Arc::new(SystemClock))
    }

    /// As [`JsonLinesRecorder::open`], with options and a clock.
    ///
    /// # Errors
    /// As [`JsonLinesRecorder::open`].
    pub fn open_with(
        path: impl AsRef<Path>,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, RecordError> {
        let opened = file::open(path.as_ref())?;
        let shared = Self::shared(options, clock);
        let mut writer = writer::Writer::new(Arc::clone(&shared), opened.log, opened.head);
        let act = Act::new(RecordKind::LogOpened, Arc::new(Principal::Application));
        let act = act.detail(&opened.remark);
        writer.write_at_once(&shared.stamped(act))?;
        Self::start(shared, writer)
    }

    /// The last line that is on disk. Whoever keeps it where nobody who can write the file can write has proof of
    /// everything up to it ([`crate::verify()`]).
    #[must_use]
    pub fn head(&self) -> Head {
        *self.shared.head()
    }

    fn shared(options: Options, clock: Arc<dyn Clock>) -> Arc<Shared> {
        let options = Options { queue: options.queue.max(1), ..options };
        Arc::new(Shared {
            queue: Mutex::default(),
            head: Mutex::default(),
            wake: Condvar::new(),
            correlation: AtomicU64::new(0),
            clock,
            options,
        })
    }

    fn start(shared: Arc<Shared>, writer: writer::Writer) -> Result<Self, RecordError> {
        let thread = std::thread::Builder::new()
            .name("palisade-audit".into())
            .spawn(move || writer.run())
            .map_err(|e| RecordError::io("start the writer", &e))?;
        Ok(Self { shared, writer: Some(thread) })
    }

    /// A recorder on an open file that is not looked at first.
    #[cfg(test)]
    fn on_file(file: std::fs::File, options: Options) -> Self {
        let shared = Self::shared(options, Arc::new(SystemClock));
        let log = file::Log::new(file, 0);
        let writer = writer::Writer::new(Arc::clone(&shared), log, Head::default());
        Self::start(shared, writer).unwrap()
    }
}

impl Recorder for JsonLinesRecorder {
    fn intent(&self, act: Act) -> BoxFuture<'_, Result<Intent, RecordError>> {
        let class = act.kind.class();
        let stamped = self.shared.stamped(act);
        match class {
            Class::Bulk => {
                self.shared.push_bulk(Entry::Intent(Arc::clone(&stamped)));
                Box::pin(std::future::ready(Ok(Intent(stamped))))
            }
            Class::FailClosed => Box::pin(async move {
                let (reply, answer) = oneshot::channel();
                let entry = Entry::FailClosedIntent(Arc::clone(&stamped), reply);
                self.shared.push_firm(entry, true);
                self.shared.confirmed(answer).await.map(|()| Intent(stamped))
            }),
        }
    }

    fn outcome(&self, intent: Intent, outcome: Outcome, detail: Option<&str>) {
        let detail = detail.map(|d| d.chars().take(crate::act::MAX_TEXT_CHARS + 1).collect());
        let firm = intent.0.act.kind.class() == Class::FailClosed;
        let entry = Entry::Outcome(intent.0, self.shared.clock.now(), outcome, detail);
        if firm {
            self.shared.push_firm(entry, false);
        } else {
            self.shared.push_bulk(entry);
        }
    }

    fn note(&self, act: Act, code: Option<ErrorCode>) {
        let stamped = self.shared.stamped(act);
        self.shared.push_bulk(Entry::Note(stamped, code));
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), RecordError>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.shared.push_firm(Entry::Flush(reply), true);
            self.shared.confirmed(answer).await
        })
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn tally(&self, act: &Act) -> Option<Box<dyn Tally>> {
        if act.kind.class() == Class::FailClosed {
            return None;
        }
        let counter = counter::Counter::new(Arc::clone(&self.shared), act.clone());
        Some(Box::new(counter::Handle(counter)))
    }
}

impl Drop for JsonLinesRecorder {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.writer.take()
            && thread.join().is_err()
        {
            tracing::error!("the audit writer had ended before the record was closed");
        }
    }
}

#[cfg(test)]
mod tests;
