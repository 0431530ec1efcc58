//! Who does what to one plugin's file. SQLite blocks, so each direction has a thread; where nobody else
//! asks, the asker does without it, because two hand-overs between threads cost more than the work.
//!
//! Writes that come together go into one transaction of the writing thread and share one wait for the
//! disk. A write that comes alone is done by its asker, who gives the rest of the runtime to another
//! thread for that time. A small value is read by its asker, too: that is a matter of microseconds. Reads
//! have a connection of their own, so no reader waits for the disk; they see what was committed, which is
//! everything that was acknowledged.

use std::{
    iter::once,
    path::PathBuf,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::Duration,
};

use palisade_audit::{Clock, Stamp};
use palisade_model::PluginRef;
use tokio::{
    runtime::{self, RuntimeFlavor},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};

use super::{
    Inner,
    database::{Applied, Change, Database, Row, Small},
    error::StorageError,
    slot::{Slot, in_place},
};

/// Most writes, and most reads, that wait for one file; further askers wait for their turn to wait.
const MAX_WAITING: usize = 256;
/// Most groups of changes that share a transaction.
const MAX_BATCH: usize = 256;
/// Once a transaction has this many bytes, no more groups join it.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// What has more changes or more bytes than these is never written by its asker.
const ALONE_CHANGES: usize = 16;
const ALONE_BYTES: usize = 64 << 10;
/// How often an asker looks whether the reading connection is free: a few microseconds, as long as
/// another asker needs for a small value.
const READ_ATTEMPTS: u32 = 100;

type Answer<T> = Result<T, Arc<StorageError>>;

/// Changes that belong together, and who waits for them.
struct Write {
    changes: Vec<Change>,
    quota: u64,
    turn: OwnedSemaphorePermit,
    /// The turn ends when the asker has the answer, or would have had it: until then it is not alone.
    reply: oneshot::Sender<(Answer<Applied>, OwnedSemaphorePermit)>,
}

impl Write {
    fn answer(self, answer: Answer<Applied>) {
        // Who asked may have given up.
        let _ = self.reply.send((answer, self.turn));
    }
}

type Read = Box<dyn FnOnce(Result<&Database, Arc<StorageError>>, u64) + Send>;

/// What the threads know about their file.
#[derive(Clone)]
struct File {
    path: PathBuf,
    plugin: Arc<PluginRef>,
    owner: Arc<str>,
    clock: Arc<dyn Clock>,
    idle: Duration,
    registry: Weak<Inner>,
}

impl File {
    fn open(&self) -> Result<Database, StorageError> {
        Database::open(&self.path, &self.owner)
    }
}

/// A thread's queue, and its connection. Only the thread keeps that open: the last to have it may have to
/// write what the log of the file has, which no task shall.
struct Way<J> {
    jobs: Sender<J>,
    slot: Weak<Slot>,
}

/// An open file. The threads end when the last handle is dropped.
pub(super) struct Handle {
    file: File,
    writes: Way<Write>,
    reads: OnceLock<Way<Read>>,
    writing: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    /// Whether askers may write: not where the runtime has refused that.
    in_place: AtomicBool,
    /// Monotonic nanoseconds.
    used: AtomicU64,
}

fn unix_ms(now: Stamp) -> u64 {
    now.unix_ns / 1_000_000
}

pub(super) fn now_ms(clock: &dyn Clock) -> u64 {
    unix_ms(clock.now())
}

fn closed() -> Arc<StorageError> {
    Arc::new(StorageError::Closed)
}

impl Handle {
    pub(super) fn open(
        path: PathBuf,
        (plugin, owner): (Arc<PluginRef>, Arc<str>),
        clock: Arc<dyn Clock>,
        idle: Duration,
        registry: Weak<Inner>,
    ) -> Result<Self, StorageError> {
        let file = File { path, plugin, owner, clock, idle, registry };
        let writes = spawn("palisade-storage", &file, write_loop)?;
        let used = AtomicU64::new(file.clock.now().monotonic_ns);
        let [writing, reading] = [(); 2].map(|()| Arc::new(Semaphore::new(MAX_WAITING)));
        let (reads, in_place) = (OnceLock::new(), AtomicBool::new(true));
        Ok(Self { file, writes, reads, writing, reading, in_place, used })
    }

    fn touch(&self) -> Stamp {
        let now = self.file.clock.now();
        self.used.store(now.monotonic_ns, Ordering::Relaxed);
        now
    }

    /// When it was last used, in monotonic nanoseconds.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Does `changes`, all or none. What is answered is on disk.
    pub(super) async fn write(&self, changes: Vec<Change>, quota: u64) -> Answer<Applied> {
        let turn = Arc::clone(&self.writing).acquire_owned().await.map_err(|_| closed())?;
        let now = self.touch();
        // Nobody else writes or waits to, nor has somebody left a write behind that is still to be done.
        let alone = self.writing.available_permits() + 1 == MAX_WAITING;
        if alone && let Some(answer) = self.write_alone(&changes, quota, unix_ms(now)) {
            return answer;
        }
        let (reply, answer) = oneshot::channel();
        self.writes.jobs.send(Write { changes, quota, turn, reply }).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?.0
    }

    /// Writes on this thread, where that can be done at once; `None`: nothing was done.
    fn write_alone(&self, changes: &[Change], quota: u64, now: u64) -> Option<Answer<Applied>> {
        let several = runtime::Handle::try_current()
            .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
        let small = changes.len() <= ALONE_CHANGES && size(changes) <= ALONE_BYTES;
        if !several || !small || !self.in_place.load(Ordering::Relaxed) {
            return None;
        }
        let slot = self.writes.slot.upgrade()?;
        let mut connection = slot.try_lock(1)?;
        let done = connection
            .run(|database| in_place(|| database.apply_if_free(once((changes, quota)), now)));
        match done {
            Ok(None) => {
                self.in_place.store(false, Ordering::Relaxed);
                None
            }
            // Another process writes. Our thread waits for it.
            Ok(Some(Ok(None))) => None,
            Ok(Some(Ok(Some(results)))) => {
                let result = results.into_iter().next().unwrap_or(Err(StorageError::Closed));
                Some(result.map_err(Arc::new))
            }
            Ok(Some(Err(error))) | Err(error) => Some(Err(not_written(&self.file, error))),
        }
    }

    /// The entry under `key`, if there is one, and the time in milliseconds since 1970.
    pub(super) async fn get(&self, key: &str) -> Answer<(Option<Row>, u64)> {
        let now = unix_ms(self.touch());
        if let Some(found) = self.get_at_once(key, now) {
            return found.map(|row| (row, now));
        }
        let key = key.to_owned();
        self.read(move |database, now| Ok((database.get(&key, now)?, now))).await
    }

    /// Reads on this thread, where that takes microseconds; `None`: nothing was read.
    fn get_at_once(&self, key: &str, now: u64) -> Option<Answer<Option<Row>>> {
        let slot = self.reads.get()?.slot.upgrade()?;
        let mut connection = slot.try_lock(READ_ATTEMPTS)?;
        match connection.run(|database| database.get_small(key, now)) {
            Ok(Ok(Small::Found(row))) => Some(Ok(Some(row))),
            Ok(Ok(Small::Nothing)) => Some(Ok(None)),
            Ok(Ok(Small::No)) => None,
            Ok(Err(error)) | Err(error) => Some(Err(Arc::new(error))),
        }
    }

    /// Reads what was committed; `read` has the time in milliseconds since 1970.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database, u64) -> Result<T, StorageError> + Send + 'static,
    ) -> Answer<T> {
        let turn = Arc::clone(&self.reading).acquire_owned().await.map_err(|_| closed())?;
        self.touch();
        let (reply, answer) = oneshot::channel();
        let job: Read = Box::new(move |database, now| {
            let result = database.and_then(|d| read(d, now).map_err(Arc::new));
            drop(turn);
            // Who asked may have given up.
            let _ = reply.send(result);
        });
        self.reader()?.jobs.send(job).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// The reading thread, which is started by the first that reads.
    fn reader(&self) -> Answer<&Way<Read>> {
        if let Some(reads) = self.reads.get() {
            return Ok(reads);
        }
        let reads = spawn("palisade-storage-read", &self.file, read_loop).map_err(Arc::new)?;
        // Where two come first at once, the thread of the other ends with its sender.
        Ok(self.reads.get_or_init(|| reads))
    }
}

fn spawn<J: Send + 'static>(
    name: &str,
    file: &File,
    serve: fn(&File, &Slot, &Receiver<J>),
) -> Result<Way<J>, StorageError> {
    let (jobs, queue) = channel();
    let (file, slot) = (file.clone(), Arc::new(Slot::default()));
    let way = Way { jobs, slot: Arc::downgrade(&slot) };
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(move || serve(&file, &slot, &queue)).map_err(StorageError::Thread)?;
    Ok(way)
}

fn size(changes: &[Change]) -> usize {
    changes.iter().map(Change::size).sum()
}

fn not_written(file: &File, error: StorageError) -> Arc<StorageError> {
    tracing::error!(%error, plugin = %file.owner, "a plugin's storage was not written");
    Arc::new(error)
}

/// Answers everybody with the error until nobody holds the handle any more.
fn refuse<J>(
    file: &File,
    error: StorageError,
    jobs: impl IntoIterator<Item = J>,
    answer: impl Fn(J, Arc<StorageError>),
) {
    tracing::error!(%error, plugin = %file.owner, "a plugin's storage cannot be used");
    if let Some(registry) = file.registry.upgrade() {
        registry.forget(&file.plugin);
    }
    let error = Arc::new(error);
    for job in jobs {
        answer(job, Arc::clone(&error));
    }
}

fn write_loop(file: &File, slot: &Slot, jobs: &Receiver<Write>) {
    loop {
        match jobs.recv_timeout(file.idle) {
            Ok(first) => {
                let opened = slot.lock().open(|| file.open());
                if let Err(error) = opened {
                    let all = once(first).chain(jobs);
                    return refuse(file, error, all, |job, error| job.answer(Err(error)));
                }
                write_batch(file, slot, first, jobs);
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                if let Some(mut connection) = slot.try_lock(1) {
                    let swept = connection.run(|database| database.sweep(now_ms(&*file.clock)));
                    if let Ok(Err(error)) | Err(error) = swept {
                        tracing::warn!(%error, "expired entries of a storage could not be removed");
                    }
                }
                if let Some(registry) = file.registry.upgrade() {
                    registry.close_if_idle(&file.plugin);
                }
            }
        }
    }
}

/// Takes what waits into one transaction with `first`, and answers all of it.
fn write_batch(file: &File, slot: &Slot, first: Write, jobs: &Receiver<Write>) {
    let mut connection = slot.lock();
    let mut bytes = size(&first.changes);
    let mut batch = vec![first];
    while batch.len() < MAX_BATCH
        && bytes < MAX_BATCH_BYTES
        && let Ok(next) = jobs.try_recv()
    {
        bytes += size(&next.changes);
        batch.push(next);
    }
    let groups = batch.iter().map(|write| (write.changes.as_slice(), write.quota));
    let done = connection.run(|database| database.apply(groups, now_ms(&*file.clock)));
    drop(connection);
    match done {
        Ok(Ok(results)) => {
            for (write, result) in batch.into_iter().zip(results) {
                write.answer(result.map_err(Arc::new));
            }
        }
        Ok(Err(error)) | Err(error) => {
            let error = not_written(file, error);
            for write in batch {
                write.answer(Err(Arc::clone(&error)));
            }
        }
    }
}

fn read_loop(file: &File, slot: &Slot, jobs: &Receiver<Read>) {
    for job in jobs {
        let mut connection = slot.lock();
        if let Err(error) = connection.open(|| file.open()) {
            drop(connection);
            return refuse(file, error, once(job).chain(jobs), |job, error| job(Err(error), 0));
        }
        // Who asked learns of a panic by a reply that was dropped.
        let _ = connection.run(|database| {
            database.wait_for_others();
            job(Ok(database), now_ms(&*file.clock));
        });
    }
}

#[cfg(test)]
mod tests;
