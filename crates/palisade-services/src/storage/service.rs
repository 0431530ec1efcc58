//! The methods `storage.*`: their rights, and what they do.

use std::sync::Arc;

use palisade_broker::{BrokerError, Context, Need, Service, ServiceRegistry};
use palisade_model::{Access, ErrorCode, Failure, Kind};
use serde_json::value::RawValue;

use super::{
    Storage, StorageError,
    database::{Action, Applied, Change, Row},
    key::Key,
    params::{
        CompareParams, CompareResult, DeleteParams, DeleteResult, Entry, GetParams, GetResult,
        ListParams, ListResult, Operation, OperationKind, SetParams, SetResult, TransactionParams,
        TransactionResult,
    },
    worker::{Handle, now_ms},
};

/// Most bytes of a value, as JSON text.
pub const MAX_VALUE: usize = 1 << 20;
/// Longest time to live: 10 years, in milliseconds.
pub const MAX_TTL: u64 = 10 * 366 * 24 * 3600 * 1000;
/// Most entries of one listing.
pub const MAX_LIST: usize = 1000;
/// Most operations of one transaction.
pub const MAX_OPERATIONS: usize = 256;
const DEFAULT_LIST: usize = 100;
/// A listing stops at the entry that takes it beyond this, so that it fits into one answer.
const LIST_BYTES: usize = 2 << 20;
/// Parameters with one value, and with those of a transaction.
const ONE_VALUE: usize = MAX_VALUE + (4 << 10);
const MANY_VALUES: usize = 3 << 20;

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidParams, message)
}

fn fail(error: Arc<StorageError>) -> Failure {
    Failure::from(&*error)
}

/// The asker's open file, and its quota.
fn file(storage: &Storage, cx: &Context) -> Result<(Arc<Handle>, u64), Failure> {
    let instance = cx.instance().ok_or(StorageError::NoPlugin)?;
    let handle = storage.handle(&instance.plugin)?;
    Ok((handle, cx.caller.disk().unwrap_or(u64::MAX)))
}

fn set_action(storage: &Storage, value: &RawValue, ttl: Option<u64>) -> Result<Action, Failure> {
    let text = value.get();
    if text.len() > MAX_VALUE {
        let message = format!("a value has at most {MAX_VALUE} bytes, this one has {}", text.len());
        return Err(Failure::new(ErrorCode::LimitExceeded, message)
            .hint("keep it in parts, or in a file of the data folder"));
    }
    let expires = match ttl {
        None => None,
        Some(ttl) if (1..=MAX_TTL).contains(&ttl) => Some(now_ms(storage.clock()) + ttl),
        Some(_) => return Err(invalid(format!("ttl_ms is 1 to {MAX_TTL}"))),
    };
    // A raw line break can only stand between tokens of JSON, and what is read back goes on one line.
    Ok(Action::Set { value: text.replace(['\n', '\r'], " "), expires })
}

fn raw(text: String) -> Result<Box<RawValue>, Failure> {
    // What was stored was JSON; a file that somebody else changed may have anything.
    RawValue::from_string(text).map_err(|_| {
        Failure::new(ErrorCode::Unavailable, "the stored value is not JSON")
            .hint("somebody changed the file of the storage; set the key anew")
    })
}

fn ttl(row: &Row, now: u64) -> Option<u64> {
    row.expires.map(|at| at.saturating_sub(now))
}

async fn write_one(
    storage: &Storage,
    cx: &Context,
    key: Key,
    action: Action,
    version: Option<u64>,
) -> Result<Applied, Failure> {
    let (handle, quota) = file(storage, cx)?;
    let change = Change { key: key.as_str().to_owned(), action, version };
    handle.write(vec![change], quota).await.map_err(fail)
}

/// The entry, and in how many milliseconds it expires.
async fn read_one(
    storage: &Storage,
    cx: &Context,
    key: Key,
) -> Result<Option<(Option<u64>, Row)>, Failure> {
    let (handle, _) = file(storage, cx)?;
    let (row, now) = handle.get(key.as_str()).await.map_err(fail)?;
    Ok(row.map(|row| (ttl(&row, now), row)))
}

/// The value under `key`, for other names of `storage.get`.
pub(crate) async fn read_value(
    storage: &Storage,
    cx: &Context,
    key: Key,
) -> Result<Option<Box<RawValue>>, Failure> {
    read_one(storage, cx, key).await?.map(|(_, row)| raw(row.value)).transpose()
}

/// Sets `key`, for other names of `storage.set`.
pub(crate) async fn write_value(
    storage: &Storage,
    cx: &Context,
    key: Key,
    value: &RawValue,
) -> Result<SetResult, Failure> {
    let action = set_action(storage, value, None)?;
    let applied = write_one(storage, cx, key, action, None).await?;
    Ok(SetResult { version: only(&applied).1 })
}

/// The versions before and after of the only change.
fn only(applied: &Applied) -> (u64, u64) {
    match applied {
        Applied::Done(versions) => versions.first().copied().unwrap_or_default(),
        Applied::Conflict { version, .. } => (*version, *version),
    }
}

fn on_key(key: &Key) -> Option<Need> {
    Some(Need::new(Kind::StorageKv, key.as_str()))
}

const ON_KEY: &str = "storage.kv:KEY";

fn get(storage: Storage) -> Service<GetParams> {
    Service::method("storage.get", move |cx: Context, params: GetParams| {
        let storage = storage.clone();
        async move {
            Ok(match read_one(&storage, &cx, params.key).await? {
                Some((ttl_ms, row)) => {
                    let Row { value, version, .. } = row;
                    GetResult { found: true, value: raw(value)?, version, ttl_ms }
                }
                None => {
                    let value = RawValue::NULL.to_owned();
                    GetResult { found: false, value, version: 0, ttl_ms: None }
                }
            })
        }
    })
    .describe("Reads an entry of the plugin's own storage. What has expired is not found.")
    .capability(ON_KEY, |params: &GetParams| on_key(&params.key))
    .max_params(4 << 10)
    .idempotent()
    .coalesce()
}

fn set(storage: Storage) -> Service<SetParams> {
    Service::method("storage.set", move |cx: Context, params: SetParams| {
        let storage = storage.clone();
        async move {
            let action = set_action(&storage, &params.value, params.ttl_ms)?;
            let applied = write_one(&storage, &cx, params.key, action, None).await?;
            Ok(SetResult { version: only(&applied).1 })
        }
    })
    .describe(
        "Writes an entry of the plugin's own storage. Once it is answered it is on disk. All entries \
         together (key, value, and 64 bytes for each) may have as many bytes as the plugin's limit \
         `disk` says, apart from its data folder; more is refused with `PAL-LIMIT`.",
    )
    .capability(ON_KEY, |params: &SetParams| on_key(&params.key))
    .max_params(ONE_VALUE)
    .idempotent()
    .coalesce()
}

fn compare_and_set(storage: Storage) -> Service<CompareParams> {
    Service::method("storage.compare_and_set", move |cx: Context, params: CompareParams| {
        let storage = storage.clone();
        async move {
            let action = set_action(&storage, &params.value, params.ttl_ms)?;
            let version = Some(params.version);
            let applied = write_one(&storage, &cx, params.key, action, version).await?;
            let stored = matches!(applied, Applied::Done(_));
            Ok(CompareResult { stored, version: only(&applied).1 })
        }
    })
    .describe(
        "Writes an entry if it has the version that was read before, so that two who change the same \
         entry do not lose what the other wrote.",
    )
    .capability(ON_KEY, |params: &CompareParams| on_key(&params.key))
    .max_params(ONE_VALUE)
    .coalesce()
}

fn delete(storage: Storage) -> Service<DeleteParams> {
    Service::method("storage.delete", move |cx: Context, params: DeleteParams| {
        let storage = storage.clone();
        async move {
            let applied = write_one(&storage, &cx, params.key, Action::Delete, None).await?;
            Ok(DeleteResult { deleted: only(&applied).0 != 0 })
        }
    })
    .describe("Deletes an entry of the plugin's own storage.")
    .capability(ON_KEY, |params: &DeleteParams| on_key(&params.key))
    .max_params(4 << 10)
    .idempotent()
    .coalesce()
}

fn list(storage: Storage) -> Service<ListParams> {
    Service::method("storage.list", move |cx: Context, params: ListParams| {
        let storage = storage.clone();
        async move {
            let limit = params.limit.unwrap_or(DEFAULT_LIST);
            if !(1..=MAX_LIST).contains(&limit) {
                return Err(invalid(format!("limit is 1 to {MAX_LIST}")));
            }
            let (handle, _) = file(&storage, &cx)?;
            let ListParams { prefix, after, values, .. } = params;
            let (rows, more, now) = handle
                .read(move |database, now| {
                    let end = prefix.end();
                    let prefix = prefix.as_str();
                    let after = after.as_ref().map(Key::as_str).filter(|after| *after >= prefix);
                    let from = after.unwrap_or(prefix);
                    let range = (from, after.is_some(), end.as_deref());
                    let (rows, more) = database.list(range, limit, LIST_BYTES, values, now)?;
                    Ok((rows, more, now))
                })
                .await
                .map_err(fail)?;
            let next = rows.last().filter(|_| more).map(|row| row.key.clone());
            // A forbid may lie within what the prefix covers.
            let rules = cx.caller.rules();
            let allowed = |row: &Row| {
                let access = Access::new(Kind::StorageKv, &row.key);
                rules.as_ref().is_none_or(|rules| rules.decide(&access).is_allowed())
            };
            let entries = rows.into_iter().filter(allowed).map(|row| {
                let ttl_ms = ttl(&row, now);
                let Row { key, value, version, .. } = row;
                let value = if values { Some(raw(value)?) } else { None };
                Ok(Entry { key, value, version, ttl_ms })
            });
            Ok(ListResult { entries: entries.collect::<Result<_, Failure>>()?, next })
        }
    })
    .describe(
        "Lists entries of the plugin's own storage by what their keys begin with, in pages. The right \
         must cover every key that begins so; keys that a forbid covers are left out.",
    )
    .capability("storage.kv:PREFIX*", |params: &ListParams| {
        Some(Need::every(Kind::StorageKv, params.prefix.scope()))
    })
    .max_params(4 << 10)
    .idempotent()
    .coalesce()
}

fn change(storage: &Storage, operation: Operation) -> Result<Change, Failure> {
    let Operation { op, key, version, value, ttl_ms } = operation;
    let action = match (op, &value) {
        (OperationKind::Set, Some(value)) => set_action(storage, value, ttl_ms)?,
        (OperationKind::Set, None) => return Err(invalid("an operation `set` needs a value")),
        (OperationKind::Check, None) if version.is_none() => {
            return Err(invalid("an operation `check` needs a version"));
        }
        (_, Some(_)) => return Err(invalid("only an operation `set` has a value")),
        (_, None) if ttl_ms.is_some() => {
            return Err(invalid("only an operation `set` has a ttl_ms"));
        }
        (OperationKind::Delete, None) => Action::Delete,
        (OperationKind::Check, None) => Action::Check,
    };
    Ok(Change { key: key.as_str().to_owned(), action, version })
}

fn transaction(storage: Storage) -> Service<TransactionParams> {
    Service::method("storage.transaction", move |cx: Context, params: TransactionParams| {
        let storage = storage.clone();
        async move {
            let count = params.operations.len();
            if !(1..=MAX_OPERATIONS).contains(&count) {
                let message = format!("a transaction has 1 to {MAX_OPERATIONS} operations");
                return Err(invalid(message));
            }
            let changes: Vec<Change> = params
                .operations
                .into_iter()
                .map(|operation| change(&storage, operation))
                .collect::<Result<_, _>>()?;
            let (handle, quota) = file(&storage, &cx)?;
            Ok(match handle.write(changes, quota).await.map_err(fail)? {
                Applied::Done(versions) => TransactionResult {
                    committed: true,
                    versions: versions.into_iter().map(|(_, after)| after).collect(),
                    conflict: None,
                    found: None,
                },
                Applied::Conflict { index, version } => TransactionResult {
                    committed: false,
                    versions: Vec::new(),
                    conflict: Some(index),
                    found: Some(version),
                },
            })
        }
    })
    .describe(
        "Does several operations on entries of the plugin's own storage, all or none. The right must \
         cover each key. The values together may have about 3 MiB.",
    )
    .capabilities(ON_KEY, |params: &TransactionParams| {
        // More are refused whatever the rights.
        let operations = params.operations.iter().take(MAX_OPERATIONS + 1);
        operations.filter_map(|operation| on_key(&operation.key)).collect()
    })
    .max_params(MANY_VALUES)
}

/// Registers `storage.*`.
///
/// # Errors
/// [`BrokerError::DuplicateService`] where one of the names is taken.
pub fn register(services: &ServiceRegistry, storage: &Storage) -> Result<(), BrokerError> {
    services.register(get(storage.clone()))?;
    services.register(set(storage.clone()))?;
    services.register(compare_and_set(storage.clone()))?;
    services.register(delete(storage.clone()))?;
    services.register(list(storage.clone()))?;
    services.register(transaction(storage.clone()))
}
