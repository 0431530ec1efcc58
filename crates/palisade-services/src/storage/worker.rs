//! The threads that serve one plugin's file: SQLite blocks, so no task touches it.
//!
//! One thread writes. Whatever waits when it begins goes into one transaction, and is answered when that
//! has been synced: many askers share one wait for the disk. Another thread reads, so that no reader
//! waits for the disk either; it sees what was committed, which is everything that was acknowledged.

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::Duration,
};

use palisade_audit::Clock;
use tokio::sync::{Semaphore, oneshot};

use super::{
    Inner,
    database::{Applied, Change, Database},
    error::StorageError,
};

/// Most requests that wait for one file; further askers wait for their turn to wait.
const MAX_WAITING: usize = 256;
/// Most groups of changes that share a transaction.
const MAX_BATCH: usize = 256;
/// Once a transaction has this many bytes, no more groups join it.
const MAX_BATCH_BYTES: usize = 8 << 20;

type Reply<T> = oneshot::Sender<Result<T, Arc<StorageError>>>;

/// Changes that belong together, and who waits for them.
struct Write {
    changes: Vec<Change>,
    quota: u64,
    reply: Reply<Applied>,
}

type Read = Box<dyn FnOnce(Result<&Database, Arc<StorageError>>, u64) + Send>;

/// What the threads know about their file.
#[derive(Clone)]
struct File {
    path: PathBuf,
    plugin: Arc<str>,
    clock: Arc<dyn Clock>,
    idle: Duration,
    registry: Weak<Inner>,
}

/// An open file. The threads end when the last handle is dropped.
pub(super) struct Handle {
    file: File,
    writes: Sender<Write>,
    reads: OnceLock<Sender<Read>>,
    waiting: Semaphore,
    /// Monotonic nanoseconds.
    used: AtomicU64,
}

pub(super) fn now_ms(clock: &dyn Clock) -> u64 {
    clock.now().unix_ns / 1_000_000
}

impl Handle {
    pub(super) fn open(
        path: PathBuf,
        plugin: Arc<str>,
        clock: Arc<dyn Clock>,
        idle: Duration,
        registry: Weak<Inner>,
    ) -> Result<Self, StorageError> {
        let file = File { path, plugin, clock, idle, registry };
        let (writes, jobs) = channel();
        let own = file.clone();
        spawn("palisade-storage", move || write_loop(&own, &jobs))?;
        let used = AtomicU64::new(file.clock.now().monotonic_ns);
        let waiting = Semaphore::new(MAX_WAITING);
        Ok(Self { file, writes, reads: OnceLock::new(), waiting, used })
    }

    fn touch(&self) {
        self.used.store(self.file.clock.now().monotonic_ns, Ordering::Relaxed);
    }

    /// When it was last used, in monotonic nanoseconds.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Does `changes`, all or none. What is answered is on disk.
    pub(super) async fn write(
        &self,
        changes: Vec<Change>,
        quota: u64,
    ) -> Result<Applied, Arc<StorageError>> {
        let closed = || Arc::new(StorageError::Closed);
        let _turn = self.waiting.acquire().await.map_err(|_| closed())?;
        self.touch();
        let (reply, answer) = oneshot::channel();
        self.writes.send(Write { changes, quota, reply }).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Reads what was committed; `read` has the time in milliseconds since 1970.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database, u64) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, Arc<StorageError>> {
        let closed = || Arc::new(StorageError::Closed);
        let _turn = self.waiting.acquire().await.map_err(|_| closed())?;
        self.touch();
        let (reply, answer) = oneshot::channel();
        let job: Read = Box::new(move |database, now| {
            let result = database.and_then(|d| read(d, now).map_err(Arc::new));
            // Who asked may have given up.
            let _ = reply.send(result);
        });
        self.reader()?.send(job).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// The reading thread, which is started by the first that reads.
    fn reader(&self) -> Result<&Sender<Read>, Arc<StorageError>> {
        if let Some(reads) = self.reads.get() {
            return Ok(reads);
        }
        let (reads, jobs) = channel();
        let file = self.file.clone();
        spawn("palisade-storage-read", move || read_loop(&file, &jobs)).map_err(Arc::new)?;
        // Where two come first at once, the thread of the other ends with its sender.
        Ok(self.reads.get_or_init(|| reads))
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StorageError> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(run).map(|_| ()).map_err(StorageError::Thread)
}

fn write_loop(file: &File, jobs: &Receiver<Write>) {
    let mut database = match Database::open(&file.path, &file.plugin) {
        Ok(database) => database,
        Err(error) => return refuse(file, error, jobs, |job, e| drop(job.reply.send(Err(e)))),
    };
    loop {
        match jobs.recv_timeout(file.idle) {
            Ok(first) => write_batch(file, &mut database, first, jobs),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                if let Err(error) = database.sweep(now_ms(&*file.clock)) {
                    tracing::warn!(%error, "expired entries of a storage could not be removed");
                }
                if let Some(registry) = file.registry.upgrade() {
                    registry.close_if_idle(&file.path);
                }
            }
        }
    }
}

/// Answers everybody with the error until nobody holds the handle any more.
fn refuse<J>(
    file: &File,
    error: StorageError,
    jobs: &Receiver<J>,
    answer: impl Fn(J, Arc<StorageError>),
) {
    tracing::error!(%error, plugin = %file.plugin, "a plugin's storage cannot be used");
    if let Some(registry) = file.registry.upgrade() {
        registry.forget(&file.path);
    }
    let error = Arc::new(error);
    for job in jobs {
        answer(job, Arc::clone(&error));
    }
}

/// Takes what waits into one transaction with `first`, and answers all of it.
fn write_batch(file: &File, database: &mut Database, first: Write, jobs: &Receiver<Write>) {
    let size = |write: &Write| -> usize { write.changes.iter().map(Change::size).sum() };
    let mut bytes = size(&first);
    let mut batch = vec![first];
    while batch.len() < MAX_BATCH
        && bytes < MAX_BATCH_BYTES
        && let Ok(next) = jobs.try_recv()
    {
        bytes += size(&next);
        batch.push(next);
    }
    // A panic must not leave askers without an answer: their senders are dropped with the batch.
    let groups = batch.iter().map(|write| (write.changes.as_slice(), write.quota));
    match database.apply(groups, now_ms(&*file.clock)) {
        Ok(results) => {
            for (write, result) in batch.into_iter().zip(results) {
                let _ = write.reply.send(result.map_err(Arc::new));
            }
        }
        Err(error) => {
            tracing::error!(%error, plugin = %file.plugin, "a plugin's storage was not written");
            let error = Arc::new(error);
            for write in batch {
                let _ = write.reply.send(Err(Arc::clone(&error)));
            }
        }
    }
}

fn read_loop(file: &File, jobs: &Receiver<Read>) {
    let database = match Database::open(&file.path, &file.plugin) {
        Ok(database) => database,
        Err(error) => return refuse(file, error, jobs, |job, e| job(Err(e), 0)),
    };
    for job in jobs {
        job(Ok(&database), now_ms(&*file.clock));
    }
}

/// The lock, whoever panicked while holding it.
pub(super) fn locked<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
