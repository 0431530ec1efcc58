//! `storage.*`: what a plugin keeps, under keys of its own.
//!
//! Each plugin has one SQLite file outside of its walls. It is found by the plugin's id and origin, so a
//! plugin of the same name from another place finds an empty one. What was acknowledged is on disk: it
//! survives a host that is killed and a machine that loses power.

mod database;
mod error;
mod key;
mod params;
mod service;
mod slot;
mod worker;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use palisade_audit::Clock;
use palisade_model::PluginRef;
use sha2::{Digest as _, Sha256};

pub use database::ENTRY_BYTES;
pub use error::StorageError;
pub use key::{Key, MAX_KEY, Prefix};
pub use params::{
    CompareParams, CompareResult, DeleteParams, DeleteResult, Entry, GetParams, GetResult,
    ListParams, ListResult, Operation, OperationKind, SetParams, SetResult, TransactionParams,
    TransactionResult,
};
pub use service::{MAX_LIST, MAX_OPERATIONS, MAX_TTL, MAX_VALUE, register};

pub(crate) use service::{read_value, write_value};
use slot::locked;
use worker::Handle;

/// How storage works, where the defaults do not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A file that nobody used for so long is closed, at the latest after twice as long. Default: 60 s.
    pub idle: Duration,
    /// Most files that are open at once, 1 or more; two threads serve each. Default: 128.
    pub open: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { idle: Duration::from_secs(60), open: 128 }
    }
}

/// What all plugins of a host keep. Cloning shares it.
#[derive(Clone)]
pub struct Storage {
    inner: Arc<Inner>,
}

/// The open files.
pub(crate) struct Inner {
    folder: PathBuf,
    clock: Arc<dyn Clock>,
    options: Options,
    open: Mutex<HashMap<Arc<PluginRef>, Arc<Handle>>>,
}

impl Storage {
    /// Keeps files in `folder`, which is created with mode 0700 where it does not exist. No plugin may
    /// see it.
    ///
    /// # Errors
    /// [`StorageError::Folder`].
    pub fn open(folder: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Result<Self, StorageError> {
        Self::open_with(folder, Options::default(), clock)
    }

    /// As [`Storage::open`], with options.
    ///
    /// # Errors
    /// [`StorageError::Folder`].
    pub fn open_with(
        folder: impl Into<PathBuf>,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StorageError> {
        let folder = folder.into();
        create_private(&folder)
            .and_then(|()| folder.canonicalize())
            .map(|folder| Self {
                inner: Arc::new(Inner { folder, clock, options, open: Mutex::default() }),
            })
            .map_err(|cause| StorageError::Folder { path: folder.clone(), cause })
    }

    /// The file that has what `plugin` keeps. It exists once the plugin has used its storage.
    #[must_use]
    pub fn path_of(&self, plugin: &PluginRef) -> PathBuf {
        self.inner.folder.join(file_name(plugin))
    }

    /// Closes the plugin's file as soon as what was asked is answered. The next use opens it again.
    pub fn close(&self, plugin: &PluginRef) {
        self.inner.forget(plugin);
    }

    /// How many files are open.
    #[must_use]
    pub fn open_files(&self) -> usize {
        locked(&self.inner.open).len()
    }

    fn clock(&self) -> &dyn Clock {
        &*self.inner.clock
    }

    fn handle(&self, plugin: &Arc<PluginRef>) -> Result<Arc<Handle>, StorageError> {
        let mut open = locked(&self.inner.open);
        if let Some(handle) = open.get(plugin) {
            return Ok(Arc::clone(handle));
        }
        let most = self.inner.options.open.max(1);
        if open.len() >= most {
            // Nobody else has a handle that only the table holds.
            let oldest = open
                .iter()
                .filter(|(_, handle)| Arc::strong_count(handle) == 1)
                .min_by_key(|(_, handle)| handle.used())
                .map(|(plugin, _)| Arc::clone(plugin));
            let Some(oldest) = oldest else { return Err(StorageError::Busy(open.len())) };
            open.remove(&oldest);
        }
        let handle = Arc::new(Handle::open(
            self.path_of(plugin),
            (Arc::clone(plugin), canonical(plugin).into()),
            Arc::clone(&self.inner.clock),
            self.inner.options.idle,
            Arc::downgrade(&self.inner),
        )?);
        open.insert(Arc::clone(plugin), Arc::clone(&handle));
        Ok(handle)
    }
}

impl Inner {
    /// Closes the file if nobody uses it or did of late.
    fn close_if_idle(&self, plugin: &PluginRef) {
        let now = self.clock.now().monotonic_ns;
        let idle = u64::try_from(self.options.idle.as_nanos()).unwrap_or(u64::MAX);
        let mut open = locked(&self.open);
        let is_idle = open.get(plugin).is_some_and(|handle| {
            Arc::strong_count(handle) == 1 && now.saturating_sub(handle.used()) >= idle
        });
        if is_idle {
            open.remove(plugin);
        }
    }

    fn forget(&self, plugin: &PluginRef) {
        locked(&self.open).remove(plugin);
    }
}

/// Id and origin in a form that no two plugins share.
fn canonical(plugin: &PluginRef) -> String {
    // Strings, numbers and maps with text as keys can always be written.
    serde_json::to_string(plugin).unwrap_or_else(|_| format!("{} {}", plugin.id, plugin.origin))
}

/// SHA-256 of [`canonical`], in hexadecimal.
fn file_name(plugin: &PluginRef) -> String {
    let digest = Sha256::digest(canonical(plugin));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}.db")
}

fn create_private(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests;
