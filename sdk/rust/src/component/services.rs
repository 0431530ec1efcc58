//! What a plugin asks of the host, as calls of what the component imports.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{
    bindings::palisade::plugin::{
        event_bus, host_call as hosts, http, log as logs, secrets,
        storage::{self, Committed, KeyOperation, Operation as WitOperation, Query, SetOperation},
        types::Failure,
    },
    read_failure,
};
use crate::{
    call::Call,
    error::PalisadeError,
    handle::{Handle, Published},
    http::{Request, Response},
    json::raw,
    storage::{Compared, List, Operation, Row, Transaction},
};

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn read<T>(outcome: Result<T, Failure>) -> Result<T, PalisadeError> {
    outcome.map_err(read_failure)
}

pub(crate) fn log(_: &Handle, level: &'static str, message: String, fields: Map<String, Value>) {
    let level = match level {
        "trace" => logs::Level::Trace,
        "debug" => logs::Level::Debug,
        "warn" => logs::Level::Warn,
        "error" => logs::Level::Error,
        _ => logs::Level::Info,
    };
    let fields: Vec<_> =
        fields.into_iter().map(|(name, value)| (name, value.to_string())).collect();
    logs::write(level, &message, &fields);
}

/// Nobody hears it: a component is asked one thing at a time and tells nothing between.
pub(crate) fn progress(_: &Call, _: f64, _: Option<f64>, _: Option<&str>) {}

pub(crate) fn publish(_: &Handle, subject: &str, data: String) -> Result<Published, PalisadeError> {
    let told = read(event_bus::publish(subject, &data))?;
    Ok(Published {
        queued: told.queued.into(),
        dropped: told.dropped.into(),
        blocked: told.blocked.into(),
    })
}

/// Gives the result, JSON.
pub(crate) fn host_call(_: &Handle, method: &str, params: String) -> Result<String, PalisadeError> {
    read(hosts::call(method, &params))
}

pub(crate) fn secret(_: &Handle, name: &str) -> Result<String, PalisadeError> {
    read(secrets::get(name))
}

pub(crate) fn storage_get(_: &Handle, key: &str) -> Result<Option<Row>, PalisadeError> {
    let entry = read(storage::get(key))?;
    Ok(entry.map(|entry| Row {
        key: key.to_owned(),
        value: Some(raw(entry.value)),
        version: entry.version,
        ttl_ms: entry.ttl_ms,
    }))
}

pub(crate) fn storage_set(
    _: &Handle,
    key: &str,
    value: String,
    ttl_ms: Option<u64>,
) -> Result<u64, PalisadeError> {
    read(storage::set(key, &value, ttl_ms))
}

pub(crate) fn storage_compare_and_set(
    _: &Handle,
    key: &str,
    version: u64,
    value: String,
    ttl_ms: Option<u64>,
) -> Result<Compared, PalisadeError> {
    let storage::Compared { stored, version } =
        read(storage::compare_and_set(key, version, &value, ttl_ms))?;
    Ok(Compared { stored, version })
}

pub(crate) fn storage_delete(_: &Handle, key: &str) -> Result<bool, PalisadeError> {
    read(storage::delete(key))
}

/// Gives the entries, and what to go on after where there are more.
pub(crate) fn storage_list(
    _: &Handle,
    which: &List,
    values: bool,
) -> Result<(Vec<Row>, Option<String>), PalisadeError> {
    let query = Query {
        prefix: which.prefix.clone(),
        after: which.after.clone(),
        limit: which.limit.map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
        values,
    };
    let page = read(storage::list(&query))?;
    let rows = page.entries.into_iter().map(|entry| Row {
        key: entry.key,
        value: entry.value.map(raw),
        version: entry.version,
        ttl_ms: entry.ttl_ms,
    });
    Ok((rows.collect(), page.next))
}

pub(crate) fn storage_transaction(
    _: &Handle,
    operations: &[Operation],
) -> Result<Transaction, PalisadeError> {
    let operations: Vec<_> = operations.iter().map(operation).collect();
    Ok(match read(storage::transaction(&operations))? {
        Committed::Done(versions) => {
            Transaction { committed: true, versions, conflict: None, found: None }
        }
        Committed::Conflict(conflict) => Transaction {
            committed: false,
            versions: Vec::new(),
            conflict: usize::try_from(conflict.operation).ok(),
            found: Some(conflict.found),
        },
    })
}

fn operation(operation: &Operation) -> WitOperation {
    let (key, version) = (operation.key.clone(), operation.version);
    match (operation.op, &operation.value) {
        ("set", Some(value)) => WitOperation::Set(SetOperation {
            key,
            value: value.get().to_owned(),
            version,
            ttl_ms: operation.ttl_ms,
        }),
        ("delete", _) => WitOperation::Delete(KeyOperation { key, version }),
        _ => WitOperation::Check(KeyOperation { key, version }),
    }
}

pub(crate) fn http_fetch(_: &Handle, asked: Request) -> Result<Response, PalisadeError> {
    let request = http::Request {
        url: asked.url,
        method: asked.method,
        headers: asked.headers,
        body: asked.body,
        follow_redirects: asked.redirect.unwrap_or(true),
        timeout_ms: asked.timeout.map(|time| u32::try_from(millis(time)).unwrap_or(u32::MAX)),
    };
    let http::Response { status, url, headers, body, redirects } = read(http::fetch(&request))?;
    let redirects = u8::try_from(redirects).unwrap_or(u8::MAX);
    Ok(Response { status, headers, body, url, redirects })
}
