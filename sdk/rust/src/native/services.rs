//! What a plugin asks of the host, as requests on the wire.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    args,
    call::Call,
    error::PalisadeError,
    handle::{Handle, Published},
    http::{Request, Response},
    json::{raw, to_json},
    native::{base64, call_state::Id},
    storage::{Compared, List, Operation, Row, Transaction},
};

/// Sends a request and reads its result.
fn request<T: DeserializeOwned>(
    handle: &Handle,
    method: &str,
    params: &impl Serialize,
) -> Result<T, PalisadeError> {
    let params = to_json(params)?;
    let result = handle.session.request(method, &params, handle.timeout, handle.call.as_ref())?;
    args::read(result.get(), "result").map_err(|e| {
        PalisadeError::new("PAL-INTERNAL", format!("the answer to {method}: {}", e.message))
    })
}

pub(crate) fn log(
    handle: &Handle,
    level: &'static str,
    message: String,
    fields: Map<String, Value>,
) {
    #[derive(Serialize)]
    struct Line {
        level: &'static str,
        message: String,
        #[serde(skip_serializing_if = "Map::is_empty")]
        fields: Map<String, Value>,
    }
    handle.session.notify("log", &Line { level, message, fields });
}

pub(crate) fn progress(call: &Call, done: f64, total: Option<f64>, message: Option<&str>) {
    #[derive(Serialize)]
    struct Progress<'a> {
        id: &'a Id,
        done: Number,
        #[serde(skip_serializing_if = "Option::is_none")]
        total: Option<Number>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
    }
    let id = &call.state.id;
    let progress = Progress { id, done: Number(done), total: total.map(Number), message };
    call.handle.session.notify("$/progress", &progress);
}

/// A number that is written without a fraction where it has none.
#[derive(Clone, Copy)]
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Whole numbers up to 2^53 are exact.
        if self.0.fract() == 0.0 && self.0.abs() <= 9_007_199_254_740_992.0 {
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

pub(crate) fn publish(
    handle: &Handle,
    subject: &str,
    data: String,
) -> Result<Published, PalisadeError> {
    #[derive(Serialize)]
    struct Params<'a> {
        subject: &'a str,
        data: Box<RawValue>,
    }
    request(handle, "event.publish", &Params { subject, data: raw(data) })
}

/// Gives the result, JSON.
pub(crate) fn host_call(
    handle: &Handle,
    method: &str,
    params: String,
) -> Result<String, PalisadeError> {
    #[derive(Serialize)]
    struct Params<'a> {
        method: &'a str,
        params: Box<RawValue>,
    }
    let params = to_json(&Params { method, params: raw(params) })?;
    let (timeout, call) = (handle.timeout, handle.call.as_ref());
    let result = handle.session.request("host.call", &params, timeout, call)?;
    Ok(Box::<str>::from(result).into())
}

pub(crate) fn secret(handle: &Handle, name: &str) -> Result<String, PalisadeError> {
    #[derive(Serialize)]
    struct Params<'a> {
        name: &'a str,
    }
    #[derive(Deserialize)]
    struct Secret {
        value: String,
    }
    request(handle, "secret.get", &Params { name }).map(|Secret { value }| value)
}

#[derive(Serialize)]
struct Key<'a> {
    key: &'a str,
}

#[derive(Serialize)]
struct Set<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    value: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
}

pub(crate) fn storage_get(handle: &Handle, key: &str) -> Result<Option<Row>, PalisadeError> {
    #[derive(Deserialize)]
    struct Found {
        found: bool,
        value: Box<RawValue>,
        #[serde(default)]
        version: u64,
        #[serde(default)]
        ttl_ms: Option<u64>,
    }
    let Found { found, value, version, ttl_ms } = request(handle, "storage.get", &Key { key })?;
    Ok(found.then(|| Row { key: key.to_owned(), value: Some(value), version, ttl_ms }))
}

pub(crate) fn storage_set(
    handle: &Handle,
    key: &str,
    value: String,
    ttl_ms: Option<u64>,
) -> Result<u64, PalisadeError> {
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    let params = Set { key, version: None, value: raw(value), ttl_ms };
    request(handle, "storage.set", &params).map(|Version { version }| version)
}

pub(crate) fn storage_compare_and_set(
    handle: &Handle,
    key: &str,
    version: u64,
    value: String,
    ttl_ms: Option<u64>,
) -> Result<Compared, PalisadeError> {
    let params = Set { key, version: Some(version), value: raw(value), ttl_ms };
    request(handle, "storage.compare_and_set", &params)
}

pub(crate) fn storage_delete(handle: &Handle, key: &str) -> Result<bool, PalisadeError> {
    #[derive(Deserialize)]
    struct Deleted {
        deleted: bool,
    }
    request(handle, "storage.delete", &Key { key }).map(|Deleted { deleted }| deleted)
}

/// Gives the entries, and what to go on after where there are more.
pub(crate) fn storage_list(
    handle: &Handle,
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
    let page: Page = request(handle, "storage.list", &Params { which, values })?;
    Ok((page.entries, page.next))
}

pub(crate) fn storage_transaction(
    handle: &Handle,
    operations: &[Operation],
) -> Result<Transaction, PalisadeError> {
    #[derive(Serialize)]
    struct Params<'a> {
        operations: &'a [Operation],
    }
    request(handle, "storage.transaction", &Params { operations })
}

pub(crate) fn http_fetch(handle: &Handle, asked: Request) -> Result<Response, PalisadeError> {
    #[derive(Serialize)]
    struct Params {
        url: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        method: Option<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
        #[serde(skip_serializing_if = "Option::is_none")]
        body: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        body_base64: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        redirect: Option<bool>,
    }
    #[derive(Deserialize)]
    struct Answer {
        status: u16,
        headers: Vec<(String, String)>,
        #[serde(default)]
        body: Option<String>,
        #[serde(default)]
        body_base64: Option<String>,
        url: String,
        #[serde(default)]
        redirects: u8,
    }
    let Request { url, method, headers, body, timeout, redirect } = asked;
    // The host tells what took too long; this side only must not give up before it.
    let wait = timeout.map(|time| time.saturating_add(Duration::from_secs(2)));
    let handle = wait.map_or_else(|| handle.clone(), |wait| handle.timeout(wait));
    let timeout_ms = timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let (body, body_base64) = text_or_base64(body);
    let params = Params { url, method, headers, body, body_base64, timeout_ms, redirect };
    let answer: Answer = request(&handle, "http.fetch", &params)?;
    let body = match (answer.body, answer.body_base64) {
        (_, Some(text)) => base64::decode(&text).ok_or_else(|| {
            PalisadeError::new("PAL-INTERNAL", "the answer to http.fetch: not base64")
        })?,
        (text, None) => text.unwrap_or_default().into_bytes(),
    };
    let Answer { status, headers, url, redirects, .. } = answer;
    Ok(Response { status, headers, body, url, redirects })
}

fn text_or_base64(body: Option<Vec<u8>>) -> (Option<String>, Option<String>) {
    match body.map(String::from_utf8) {
        None => (None, None),
        Some(Ok(text)) => (Some(text), None),
        Some(Err(bytes)) => (None, Some(base64::encode(bytes.as_bytes()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_text_where_it_can_be() {
        let text = text_or_base64(Some("é".into()));
        assert_eq!(text, (Some("é".to_owned()), None));
        assert_eq!(text_or_base64(Some(vec![0xff, 0])), (None, Some("/wA=".to_owned())));
    }
}
