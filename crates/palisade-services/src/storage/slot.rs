//! A connection that its thread and the tasks that ask share.
//!
//! Who has the lock uses it. Tasks only try: where it is taken, or not open, they leave the work to the
//! thread, which is the only one that waits for the lock and that opens and closes. A panic in the middle
//! of some work costs the connection, never the lock: SQLite takes the transaction back, and the thread
//! opens a new connection for the next.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
};

use super::{database::Database, error::StorageError};

/// The connection, while it is open.
#[derive(Default)]
pub(super) struct Slot(Mutex<Option<Database>>);

/// The lock on a [`Slot`].
pub(super) struct Locked<'s>(MutexGuard<'s, Option<Database>>);

/// The lock, whoever panicked while holding it.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    /// Waits for the lock.
    pub(super) fn lock(&self) -> Locked<'_> {
        Locked(locked(&self.0))
    }

    /// The lock, if it is free within `attempts` and the connection is open.
    pub(super) fn try_lock(&self, attempts: u32) -> Option<Locked<'_>> {
        for _ in 0..attempts {
            let guard = match self.0.try_lock() {
                Ok(guard) => guard,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    std::hint::spin_loop();
                    continue;
                }
            };
            return guard.is_some().then_some(Locked(guard));
        }
        None
    }
}

impl Locked<'_> {
    /// Opens the connection where it is not.
    pub(super) fn open(
        &mut self,
        open: impl FnOnce() -> Result<Database, StorageError>,
    ) -> Result<(), StorageError> {
        if self.0.is_none() {
            *self.0 = Some(open()?);
        }
        Ok(())
    }

    /// Does `work`. Where it panics, or there is no connection, the answer is [`StorageError::Closed`].
    pub(super) fn run<T>(
        &mut self,
        work: impl FnOnce(&mut Database) -> T,
    ) -> Result<T, StorageError> {
        let database = self.0.as_mut().ok_or(StorageError::Closed)?;
        // What the panic leaves behind is dropped at once.
        catch_unwind(AssertUnwindSafe(|| work(database))).map_err(|_| {
            *self.0 = None;
            StorageError::Closed
        })
    }
}

/// Does `work` on this thread while the runtime goes on elsewhere; `None`: it may not block here, and
/// nothing was done.
pub(super) fn in_place<T>(work: impl FnOnce() -> T) -> Option<T> {
    let mut begun = false;
    let done = catch_unwind(AssertUnwindSafe(|| {
        tokio::task::block_in_place(|| {
            begun = true;
            work()
        })
    }));
    match done {
        Ok(done) => Some(done),
        Err(panic) if begun => resume_unwind(panic),
        // Nothing says beforehand that a task belongs to a `LocalSet`.
        Err(_) => None,
    }
}
