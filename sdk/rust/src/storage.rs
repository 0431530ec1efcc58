//! What the plugin keeps: the host's `storage.*`.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    args,
    error::PalisadeError,
    handle::Handle,
    wire::{raw, to_json},
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
    op: &'static str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
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

#[derive(Serialize)]
struct Key<'a> {
    key: &'a str,
}

#[derive(Serialize)]
struct Set<'a, T: ?Sized> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    value: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Deserialize)]
struct Found {
    found: bool,
    value: Box<RawValue>,
    #[serde(default)]
    version: u64,
    #[serde(default)]
    ttl_ms: Option<u64>,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn read<T: DeserializeOwned>(value: &RawValue) -> Result<T, PalisadeError> {
    args::read(value.get(), "value")
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
        let found: Found = self.handle.request("storage.get", &Key { key })?;
        if !found.found {
            return Ok(None);
        }
        let ttl = found.ttl_ms.map(Duration::from_millis);
        let value = read(&found.value)?;
        Ok(Some(Entry { key: key.to_owned(), value, version: found.version, ttl }))
    }

    /// Writes an entry, and gives its new version.
    ///
    /// # Errors
    /// What the host refuses with; `PAL-LIMIT` where the storage is full, `PAL-PARAMS` where the value cannot
    /// be sent.
    pub fn set<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<u64, PalisadeError> {
        let params = Set { key, version: None, value, ttl_ms: self.ttl.map(millis) };
        self.handle.request("storage.set", &params).map(|Version { version }| version)
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
        let params = Set { key, version: Some(version), value, ttl_ms: self.ttl.map(millis) };
        self.handle.request("storage.compare_and_set", &params)
    }

    /// Deletes an entry, and gives whether there was one.
    ///
    /// # Errors
    /// What the host refuses with.
    pub fn delete(&self, key: &str) -> Result<bool, PalisadeError> {
        #[derive(Deserialize)]
        struct Deleted {
            deleted: bool,
        }
        let deleted: Deleted = self.handle.request("storage.delete", &Key { key })?;
        Ok(deleted.deleted)
    }

    /// Entries with their values.
    ///
    /// # Errors
    /// As [`get`](Storage::get).
    pub fn list<T: DeserializeOwned>(&self, which: &List) -> Result<Listing<T>, PalisadeError> {
        let (rows, next) = self.rows(which, true)?;
        let entries = rows.into_iter().map(|row| {
            let value = read(row.value.as_deref().unwrap_or(RawValue::NULL))?;
            let ttl = row.ttl_ms.map(Duration::from_millis);
            Ok(Entry { key: row.key, value, version: row.version, ttl })
        });
        Ok(Listing { entries: entries.collect::<Result<_, PalisadeError>>()?, next })
    }

    /// Entries without their values.
    ///
    /// # Errors
    /// What the host refuses with.
    pub fn keys(&self, which: &List) -> Result<Listing<()>, PalisadeError> {
        let (rows, next) = self.rows(which, false)?;
        let entries = rows.into_iter().map(|row| Entry {
            key: row.key,
            value: (),
            version: row.version,
            ttl: row.ttl_ms.map(Duration::from_millis),
        });
        Ok(Listing { entries: entries.collect(), next })
    }

    fn rows(
        &self,
        which: &List,
        values: bool,
    ) -> Result<(Vec<Row>, Option<String>), PalisadeError> {
        #[derive(Serialize)]
        struct Params<'a> {
            #[serde(flatten)]
            which: &'a List,
            values: bool,
        }
        #[derive(Deserialize)]
        struct Page {
            entries: Vec<Row>,
            #[serde(default)]
            next: Option<String>,
        }
        let page: Page = self.handle.request("storage.list", &Params { which, values })?;
        Ok((page.entries, page.next))
    }

    /// Does several operations, 1 to 256: all or none.
    ///
    /// # Errors
    /// As [`set`](Storage::set). That a version is another one is no error.
    pub fn transaction(&self, operations: &[Operation]) -> Result<Transaction, PalisadeError> {
        #[derive(Serialize)]
        struct Params<'a> {
            operations: &'a [Operation],
        }
        self.handle.request("storage.transaction", &Params { operations })
    }
}

#[derive(Deserialize)]
struct Row {
    key: String,
    #[serde(default)]
    value: Option<Box<RawValue>>,
    version: u64,
    #[serde(default)]
    ttl_ms: Option<u64>,
}
