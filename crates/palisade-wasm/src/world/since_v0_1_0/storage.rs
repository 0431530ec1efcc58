//! `palisade:plugin/storage`: the requests `storage.*`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    super::json::{self, Object},
    bindings::palisade::plugin::storage::{
        self, Committed, Compared, Conflict, Entry, Listed, Operation, Page, Query,
    },
    imports::{Given, too_many},
};
use crate::state::State;

/// Most operations of a transaction.
const MAX_OPERATIONS: usize = 256;

#[derive(Deserialize)]
struct Found {
    found: bool,
    value: Box<RawValue>,
    version: u64,
    #[serde(default)]
    ttl_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Deserialize)]
struct Stored {
    stored: bool,
    version: u64,
}

#[derive(Deserialize)]
struct Deleted {
    deleted: bool,
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

#[derive(Deserialize)]
struct Rows {
    entries: Vec<Row>,
    #[serde(default)]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Done {
    committed: bool,
    #[serde(default)]
    versions: Vec<u64>,
    #[serde(default)]
    conflict: Option<u32>,
    #[serde(default)]
    found: Option<u64>,
}

impl storage::Host for State {
    async fn get(&mut self, key: String) -> Given<Option<Entry>> {
        let method = "storage.get";
        self.ask(method, Ok(Object::new().text("key", &key)), |answer| {
            let Found { found, value, version, ttl_ms } = json::read(method, &answer)?;
            Ok(found.then(|| Entry { value: text(value), version, ttl_ms }))
        })
        .await
    }

    async fn set(&mut self, key: String, value: String, ttl_ms: Option<u64>) -> Given<u64> {
        let method = "storage.set";
        let params = Object::new().text("key", &key).json("value", &value);
        let params = params.map(|params| params.maybe_number("ttl_ms", ttl_ms));
        self.ask(method, params, |answer| {
            json::read(method, &answer).map(|Version { version }| version)
        })
        .await
    }

    async fn compare_and_set(
        &mut self,
        key: String,
        version: u64,
        value: String,
        ttl_ms: Option<u64>,
    ) -> Given<Compared> {
        let method = "storage.compare_and_set";
        let params = Object::new().text("key", &key).number("version", version);
        let params = params.json("value", &value).map(|p| p.maybe_number("ttl_ms", ttl_ms));
        self.ask(method, params, |answer| {
            let Stored { stored, version } = json::read(method, &answer)?;
            Ok(Compared { stored, version })
        })
        .await
    }

    async fn delete(&mut self, key: String) -> Given<bool> {
        let method = "storage.delete";
        self.ask(method, Ok(Object::new().text("key", &key)), |answer| {
            json::read(method, &answer).map(|Deleted { deleted }| deleted)
        })
        .await
    }

    async fn list(&mut self, query: Query) -> Given<Page> {
        let method = "storage.list";
        let params = Object::new()
            .text("prefix", &query.prefix)
            .maybe_text("after", query.after.as_deref())
            .maybe_number("limit", query.limit.map(u64::from))
            .flag("values", query.values);
        self.ask(method, Ok(params), |answer| {
            let Rows { entries, next } = json::read(method, &answer)?;
            let entries = entries.into_iter().map(|Row { key, value, version, ttl_ms }| Listed {
                key,
                value: value.map(text),
                version,
                ttl_ms,
            });
            Ok(Page { entries: entries.collect(), next })
        })
        .await
    }

    async fn transaction(&mut self, operations: Vec<Operation>) -> Given<Committed> {
        let method = "storage.transaction";
        if operations.len() > MAX_OPERATIONS {
            return Ok(Err(too_many("operations of a transaction", MAX_OPERATIONS).into()));
        }
        let operations = operations.iter().map(|operation| {
            Ok(match operation {
                Operation::Set(set) => Object::new()
                    .text("op", "set")
                    .text("key", &set.key)
                    .maybe_number("version", set.version)
                    .json("value", &set.value)?
                    .maybe_number("ttl_ms", set.ttl_ms),
                Operation::Delete(key) => Object::new()
                    .text("op", "delete")
                    .text("key", &key.key)
                    .maybe_number("version", key.version),
                Operation::Check(key) => Object::new()
                    .text("op", "check")
                    .text("key", &key.key)
                    .maybe_number("version", key.version),
            }
            .end())
        });
        let params = operations
            .collect::<Result<Vec<_>, _>>()
            .map(|operations| Object::new().checked("operations", &json::list(operations)));
        self.ask(method, params, |answer| {
            let Done { committed, versions, conflict, found } = json::read(method, &answer)?;
            Ok(if committed {
                Committed::Done(versions)
            } else {
                Committed::Conflict(Conflict {
                    operation: conflict.unwrap_or(0),
                    found: found.unwrap_or(0),
                })
            })
        })
        .await
    }
}

fn text(value: Box<RawValue>) -> String {
    String::from(Box::<str>::from(value))
}
