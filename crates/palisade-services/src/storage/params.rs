//! Parameters and results of `storage.*`, as they go over the wire.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::key::{Key, Prefix};

/// Parameters of `storage.get`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetParams {
    /// The key: 1 to 256 characters of `A-Z a-z 0-9 . _ - : / @ $ +`.
    pub key: Key,
}

/// Result of `storage.get`.
#[derive(Serialize, JsonSchema)]
pub struct GetResult {
    /// Whether there is such an entry.
    pub found: bool,
    /// The value as it was written; `null` where there is none.
    #[schemars(with = "serde_json::Value")]
    pub value: Box<RawValue>,
    /// The version of the entry, for `storage.compare_and_set`; 0 where there is none.
    pub version: u64,
    /// In how many milliseconds it expires; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// Parameters of `storage.set`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetParams {
    /// The key.
    pub key: Key,
    /// Any JSON value of at most 1 MiB, `null` too. Given back as it is written here.
    #[schemars(with = "serde_json::Value")]
    pub value: Box<RawValue>,
    /// In how many milliseconds it expires: 1 to 10 years. Default: never, also where an older value
    /// would have expired.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
}

/// Result of `storage.set`.
#[derive(Serialize, JsonSchema)]
pub struct SetResult {
    /// The entry's new version. Versions only grow, over all entries of the plugin.
    pub version: u64,
}

/// Parameters of `storage.compare_and_set`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompareParams {
    /// The key.
    pub key: Key,
    /// The version that the entry must have; 0: there must be none.
    pub version: u64,
    /// The new value.
    #[schemars(with = "serde_json::Value")]
    pub value: Box<RawValue>,
    /// In how many milliseconds it expires. Default: never.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
}

/// Result of `storage.compare_and_set`.
#[derive(Serialize, JsonSchema)]
pub struct CompareResult {
    /// Whether it was written.
    pub stored: bool,
    /// The version that the entry has now; 0: there is none.
    pub version: u64,
}

/// Parameters of `storage.delete`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteParams {
    /// The key.
    pub key: Key,
}

/// Result of `storage.delete`.
#[derive(Serialize, JsonSchema)]
pub struct DeleteResult {
    /// Whether there was such an entry.
    pub deleted: bool,
}

/// Parameters of `storage.list`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// What the keys begin with. Default: empty, for all keys.
    #[serde(default)]
    pub prefix: Prefix,
    /// Go on after this key: the `next` of the listing before.
    #[serde(default)]
    pub after: Option<Key>,
    /// Most entries, 1 to 1000. Default: 100.
    #[serde(default)]
    pub limit: Option<usize>,
    /// Whether values come with the keys. Default: no.
    #[serde(default)]
    pub values: bool,
}

/// An entry of a listing.
#[derive(Serialize, JsonSchema)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its value, where values were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub value: Option<Box<RawValue>>,
    /// Its version.
    pub version: u64,
    /// In how many milliseconds it expires; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// Result of `storage.list`.
#[derive(Serialize, JsonSchema)]
pub struct ListResult {
    /// The entries in the order of their keys, byte for byte.
    pub entries: Vec<Entry>,
    /// Where there are more: what to go on after. A page may be shorter than its limit, and empty, and
    /// yet have a next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What an operation of a transaction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OperationKind {
    /// Writes `value`.
    Set,
    /// Deletes the entry, if there is one.
    Delete,
    /// Does nothing but hold `version` against the entry.
    Check,
}

/// One operation of a transaction.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// What is done.
    pub op: OperationKind,
    /// The key.
    pub key: Key,
    /// The version that the entry must have; 0: there must be none. Default: any; `check` needs it.
    #[serde(default)]
    pub version: Option<u64>,
    /// The value to set; `set` needs it.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub value: Option<Box<RawValue>>,
    /// In how many milliseconds what is set expires.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
}

/// A value that stands there, also where it is `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// Parameters of `storage.transaction`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransactionParams {
    /// What is done, in this order: at most 256 operations `{op, key, version?, value?, ttl_ms?}`; `op`
    /// is `set`, `delete` or `check`. A later one sees what an earlier one did.
    pub operations: Vec<Operation>,
}

/// Result of `storage.transaction`.
#[derive(Serialize, JsonSchema)]
pub struct TransactionResult {
    /// Whether everything was done; otherwise nothing was.
    pub committed: bool,
    /// Where it was done: for each operation the version that its entry had then; 0: there was none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<u64>,
    /// Where it was not: which operation (from 0) found another version than it named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflict: Option<usize>,
    /// Where it was not: the version that it found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<u64>,
}
