//! What the plugin keeps: the host's `storage.*`.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    args,
    error::PalisadeError,
    handle::Handle,
    json::{raw, to_json},
    transport::services,
};

/// What the plugin keeps, under keys of its own. Each method needs the capability `storage.kv:KEY`.
///
/// A key has 1 to 256 characters of `A-Z a-z 0-9 . _ - : / @ $ +`, a value is any JSON of at most 1 MiB.
/// What was acknowledged is on disk.
///
/// ```no_run
/// # fn f(call: &palisade_plugin::Call) -> palisade_plugin::Result<()> {
/// let count: u64 = call.storage().get("count")?.unwrap_or(0);
/// call.storage().set("count", &(count + 1))?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Storage<'a> {
    handle: &'a Handle,
    ttl: Option<Duration>,
}

/// An entry of the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry<T> {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: T,
    /// Its version. Versions only grow, over all entries of the plugin.
    pub version: u64,
    /// In how long it expires; `None`: never.
    pub ttl: Option<Duration>,
}

/// What came of [`Storage::compare_and_set`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Compared {
    /// Whether it was written.
    pub stored: bool,
    /// The version that the entry has now; 0: there is none.
    pub version: u64,
}

/// Which entries [`Storage::list`] gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct List {
    /// What their keys begin with.
    pub prefix: String,
    /// Go on after this key: the `next` of the listing before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Most entries, 1 to 1000; 100 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// One page of a listing, in the order of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listing<T> {
    /// The entries.
    pub entries: Vec<Entry<T>>,
    /// Where there are more: what to go on after. A page may be empty and yet have a next one.
    pub next: Option<String>,
}

/// One operation of [`Storage::transaction`].
#[derive(Clone, Debug, Serialize)]
pub struct Operation {
    pub(crate) op: &'static str,
    pub(crate) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ttl_ms: Option<u64>,
}

impl Operation {
    fn new(op: &'static str, key: &str) -> Self {
        Self { op, key: key.to_owned(), version: None, value: None, ttl_ms: None }
    }

    /// Writes a value.
    ///
    /// # Errors
    /// `PAL-PARAMS` where it cannot be sent.
    pub fn set<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Self, PalisadeError> {
        Ok(Self { value: Some(raw(to_json(value)?)), ..Self::new("set", key) })
    }

    /// Deletes an entry, if there is one.
    pub fn delete(key: &str) -> Self {
        Self::new("delete", key)
    }

    /// Does nothing but hold a version against the entry; 0: there must be none.
    pub fn check(key: &str, version: u64) -> Self {
        Self::new("check", key).version(version)
    }

    /// Only if the entry has this version; 0: if there is none.
    #[must_use]
    pub fn version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    /// What is set expires in so long.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl_ms = Some(millis(ttl));
        self
    }
}

/// What came of a transaction: everything was done, or nothing was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Transaction {
    /// Whether everything was done.
    pub committed: bool,
    /// Where it was: for each operation the version that its entry had then; 0: there was none.
    #[serde(default)]
    pub versions: Vec<u64>,
    /// Where it was not: which operation, from 0, found another version than it named.
    #[serde(default)]
    pub conflict: Option<usize>,
    /// Where it was not: the version that it found.
    #[serde(default)]
    pub found: Option<u64>,
}

/// An entry as the host gives it.
#[derive(Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) key: String,
    #[serde(default)]
    pub(crate) value: Option<Box<RawValue>>,
    pub(crate) version: u64,
    #[serde(default)]
    pub(crate) ttl_ms: Option<u64>,
}

impl Row {
    fn read<T: DeserializeOwned>(self) -> Result<Entry<T>, PalisadeError> {
        let value = self.value.as_deref().unwrap_or(RawValue::NULL);
        let value = args::read(value.get(), "value")?;
        Ok(self.with(value))
    }

    fn with<T>(self, value: T) -> Entry<T> {
        let ttl = self.ttl_ms.map(Duration::from_millis);
        Entry { key: self.key, value, version: self.version, ttl }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl<'a> Storage<'a> {
    pub(crate) fn new(handle: &'a Handle) -> Self {
        Self { handle, ttl: None }
    }

    /// What is set expires in so long: 1 ms to 10 years.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// The value of an entry, as any type that it fits; `None` where there is none.
    ///
    /// # Errors
    /// What the host refuses with; `PAL-PARAMS` where the value does not fit the type.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, PalisadeError> {
        Ok(self.entry(key)?.map(|entry| entry.value))
    }

    /// An entry with its version; `None` where there is none.
    ///
    /// # Errors
    /// As [`get`](Storage::get).
    pub fn entry<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Entry<T>>, PalisadeError> {
        services::storage_get(self.handle, key)?.map(Row::read).transpose()
    }

    /// Writes an entry, and gives its new version.
    ///
    /// # Errors
    /// What the host refuses with; `PAL-LIMIT` where the storage is full, `PAL-PARAMS` where the value cannot
    /// be sent.
    pub fn set<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<u64, PalisadeError> {
        services::storage_set(self.handle, key, to_json(value)?, self.ttl.map(millis))
    }

    /// Writes an entry if it has the version that was read before; 0: if there is none.
    ///
    /// # Errors
    /// As [`set`](Storage::set). That the version is another one is no error.
    pub fn compare_and_set<T: Serialize + ?Sized>(
        &self,
        key: &str,
        version: u64,
        value: &T,
    ) -> Result<Compared, PalisadeError> {
        let (value, ttl) = (to_json(value)?, self.ttl.map(millis));
        services::storage_compare_and_set(self.handle, key, version, value, ttl)
    }

    /// Deletes an entry, and gives whether there was one.
    ///
    /// # Errors
    /// What the host refuses with.
    pub fn delete(&self, key: &str) -> Result<bool, PalisadeError> {
        services::storage_delete(self.handle, key)
    }

    /// Entries with their values.
    ///
    /// # Errors
    /// As [`get`](Storage::get).
    pub fn list<T: DeserializeOwned>(&self, which: &List) -> Result<Listing<T>, PalisadeError> {
        let (rows, next) = services::storage_list(self.handle, which, true)?;
        let entries = rows.into_iter().map(Row::read).collect::<Result<_, PalisadeError>>()?;
        Ok(Listing { entries, next })
    }

    /// Entries without their values.
    ///
    /// # Errors
    /// What the host refuses with.
    pub fn keys(&self, which: &List) -> Result<Listing<()>, PalisadeError> {
        let (rows, next) = services::storage_list(self.handle, which, false)?;
        Ok(Listing { entries: rows.into_iter().map(|row| row.with(())).collect(), next })
    }

    /// Does several operations, 1 to 256: all or none.
    ///
    /// # Errors
    /// As [`set`](Storage::set). That a version is another one is no error.
    pub fn transaction(&self, operations: &[Operation]) -> Result<Transaction, PalisadeError> {
        services::storage_transaction(self.handle, operations)
    }
}
