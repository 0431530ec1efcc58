//! `http.fetch`: the host makes a request for a plugin, through the guard.
//!
//! The right is `net.http:HOST:PORT`, computed from the URL; each redirect is decided anew. The plugin
//! itself has no network: what it gets is the answer, unpacked and bounded.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::{BodyExt as _, Full};
use palisade_broker::{Caller, Context, Gate, Need, Service};
use palisade_egress::{
    EgressError, Guard, Target,
    http::{Caps, Client, Request, Response, Tls},
};
use palisade_model::{ErrorCode, Failure, Kind, Principal, text::escape};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use tokio::sync::Semaphore;

use crate::egress::Rights;

/// Most bytes of an answer's body, unpacked: in base64 it still fits into a result.
pub const MAX_BODY: usize = 5 << 19;
/// Most bytes of a request's body.
pub const MAX_REQUEST_BODY: usize = 2 << 20;
/// Longest time for a request, in milliseconds.
pub const MAX_TIMEOUT_MS: u64 = 60_000;
const DEFAULT_TIMEOUT_MS: u64 = 30_000;
/// Requests of one plugin that are under way at once; others wait.
const AT_ONCE: usize = 8;
/// Most callers whose turns are remembered; the rest are forgotten when nothing is under way.
const MAX_CALLERS: usize = 1024;

/// Makes the requests of all plugins. Cloning shares it.
#[derive(Clone)]
pub struct Fetcher {
    gate: Gate,
    guard: Guard,
    tls: Tls,
    callers: Arc<Mutex<HashMap<Arc<Principal>, Arc<Turns>>>>,
}

/// What the requests of one caller share, so that no other waits for them.
struct Turns {
    client: Client,
    turns: Semaphore,
}

impl Fetcher {
    /// Goes out through `guard`, trusts what `tls` trusts, and records with `gate`.
    #[must_use]
    pub fn new(gate: Gate, guard: Guard, tls: Tls) -> Self {
        Self { gate, guard, tls, callers: Arc::default() }
    }

    fn turns(&self, caller: &Caller) -> Arc<Turns> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= MAX_CALLERS {
            callers.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        let turns = callers.entry(Arc::clone(caller.principal())).or_insert_with(|| {
            let client = Client::new(self.guard.for_plugin(), self.tls.clone());
            Arc::new(Turns { client, turns: Semaphore::new(AT_ONCE) })
        });
        Arc::clone(turns)
    }
}

/// A URL that can be requested, checked when it is read.
#[derive(Clone, Debug)]
pub struct Url(Target);

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Target::parse(&text).map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for Url {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Url".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "uri", "maxLength": 8192})
    }
}

/// Header fields: an object, or a list of `[name, value]` where a name stands more than once.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Headers {
    /// By name.
    Map(BTreeMap<String, String>),
    /// In order.
    List(Vec<(String, String)>),
}

/// Parameters of `http.fetch`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FetchParams {
    /// What is requested: `http` or `https`, ASCII, without a user name; at most 8 KiB.
    pub url: Url,
    /// The method, `GET` say; not `CONNECT` or `TRACE`. Default: `GET`, with a body `POST`.
    #[serde(default)]
    pub method: Option<String>,
    /// Header fields, as `{name: value}` or `[[name, value], …]`; at most 100 of 64 KiB. `Host`,
    /// `Content-Length` and what is about the connection are refused, `User-Agent` is replaced.
    #[serde(default)]
    pub headers: Option<Headers>,
    /// The body as text.
    #[serde(default)]
    pub body: Option<String>,
    /// The body in base64 (RFC 4648, 4), instead of `body`. At most 2 MiB of bytes.
    #[serde(default)]
    pub body_base64: Option<String>,
    /// How long everything may take: 1 to 60000 ms. Default: 30000.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Whether redirects are followed: at most 10, never from `https` to `http`. Default: yes. If not,
    /// they are answers like others.
    #[serde(default)]
    pub redirect: Option<bool>,
}

/// Result of `http.fetch`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FetchResult {
    /// The status, whichever it is: 404 is an answer.
    pub status: u16,
    /// The header fields as `[name, value]`, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as text, where it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body in base64, where it is not text, or would be longer as text in JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// What was requested in the end.
    pub url: String,
    /// How many redirects led there.
    pub redirects: u8,
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidParams, message)
}

fn header_map(headers: Option<Headers>) -> Result<HeaderMap, Failure> {
    let fields: Vec<(String, String)> = match headers {
        None => Vec::new(),
        Some(Headers::Map(map)) => map.into_iter().collect(),
        Some(Headers::List(list)) => list,
    };
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let shown = || escape(&name, 60);
        let field = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| invalid(format!("{} is not the name of a header field", shown())))?;
        let value = HeaderValue::from_str(&value).map_err(|_| {
            invalid(format!("the value of {} has a character that none has", shown()))
        })?;
        map.try_append(field, value).map_err(|_| invalid("there are too many header fields"))?;
    }
    Ok(map)
}

fn body_of(params: &FetchParams) -> Result<Bytes, Failure> {
    let body = match (&params.body, &params.body_base64) {
        (Some(_), Some(_)) => return Err(invalid("body and body_base64 stand for the same")),
        (Some(text), None) => Bytes::copy_from_slice(text.as_bytes()),
        (None, Some(text)) => Bytes::from(
            BASE64
                .decode(text.as_bytes())
                .map_err(|e| invalid(format!("body_base64 is not base64: {e}")))?,
        ),
        (None, None) => Bytes::new(),
    };
    if body.len() > MAX_REQUEST_BODY {
        let message = format!("the body has at most {MAX_REQUEST_BODY} bytes");
        return Err(Failure::new(ErrorCode::LimitExceeded, message));
    }
    Ok(body)
}

fn caps(timeout_ms: u64) -> Caps {
    Caps {
        request_bytes: MAX_REQUEST_BODY as u64,
        response_bytes: MAX_BODY as u64,
        decompressed_bytes: MAX_BODY as u64,
        header_bytes: 64 << 10,
        total: Duration::from_millis(timeout_ms),
        ..Caps::default()
    }
}

/// How many bytes `text` has as a JSON string, without its quotes.
fn json_len(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

fn result(response: Response) -> FetchResult {
    let Response { status, headers, body, target, redirects } = response;
    let text = match std::str::from_utf8(&body) {
        Ok(text) if json_len(text) <= body.len() * 4 / 3 + 64 => Some(text.to_owned()),
        _ => None,
    };
    let base64 = text.is_none().then(|| BASE64.encode(&body));
    let headers = headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect();
    FetchResult {
        status: status.as_u16(),
        headers,
        body: text,
        body_base64: base64,
        url: target.to_string(),
        redirects,
    }
}

/// One request, of which a redirect is the answer.
async fn send_once(
    client: &Client,
    rights: &Rights,
    request: Request,
    caps: &Caps,
) -> Result<Response, EgressError> {
    let Request { method, target, headers, body } = request;
    let mut one = http::Request::new(Full::new(body));
    *one.method_mut() = method;
    *one.headers_mut() = headers;
    let answer = client.send(rights, &target, one, caps).await?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Response { status: parts.status, headers: parts.headers, body, target, redirects: 0 })
}

async fn fetch(
    fetcher: &Fetcher,
    cx: &Context,
    params: FetchParams,
) -> Result<FetchResult, Failure> {
    let timeout_ms = params.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
    if !(1..=MAX_TIMEOUT_MS).contains(&timeout_ms) {
        return Err(invalid(format!("timeout_ms is 1 to {MAX_TIMEOUT_MS}")));
    }
    let body = body_of(&params)?;
    let has_body = params.body.is_some() || params.body_base64.is_some();
    let FetchParams { url, method, headers, redirect, .. } = params;
    let method = match method {
        None if has_body => Method::POST,
        None => Method::GET,
        Some(name) => Method::from_bytes(name.as_bytes())
            .ok()
            .filter(|_| name.len() <= 32)
            .ok_or_else(|| invalid(format!("{} is not a method", escape(&name, 32))))?,
    };
    let headers = header_map(headers)?;
    let request = Request { method, target: url.0, headers, body };

    let turns = fetcher.turns(&cx.caller);
    let limit = Duration::from_millis(timeout_ms);
    let late = || EgressError::Deadline { what: "waiting for the plugin's other requests", limit };
    let _turn = tokio::time::timeout(limit, turns.turns.acquire())
        .await
        .map_err(|_| late())?
        .map_err(|_| late())?;
    let rights = Rights::new(fetcher.gate.clone(), Arc::clone(&cx.caller));
    let caps = caps(timeout_ms);
    let response = match redirect {
        Some(false) => send_once(&turns.client, &rights, request, &caps).await?,
        _ => turns.client.fetch(&rights, request, &caps).await?,
    };
    Ok(result(response))
}

/// The service `http.fetch` of `fetcher`.
#[must_use]
pub fn service(fetcher: Fetcher) -> Service<FetchParams> {
    Service::method("http.fetch", move |cx: Context, params: FetchParams| {
        let fetcher = fetcher.clone();
        async move { fetch(&fetcher, &cx, params).await }
    })
    .describe(
        "Makes an HTTP request and gives the answer, with its body unpacked: at most 2.5 MiB. Each \
         redirect takes its own right. Addresses of this machine, of private networks and of the \
         cloud's metadata are refused unless a right names that very address. There are no cookies \
         and no cache.",
    )
    .capability("net.http:HOST:PORT", |params: &FetchParams| {
        Some(Need::new(Kind::NetHttp, params.url.0.authority().to_string()))
    })
    // A body in base64, the URL and the headers.
    .max_params(MAX_REQUEST_BODY * 4 / 3 + (128 << 10))
    .deadline(Duration::from_millis(MAX_TIMEOUT_MS * 2 + 5_000))
}

#[cfg(test)]
mod tests;
