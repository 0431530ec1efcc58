//! The host's functions of `extism:host/env`, and those of `extism:host/user`.
//!
//! A handle that a function takes is given back by it, and one that it gives is the plugin's. What a plugin
//! hands over that is no block ends the call, as with every host of Extism. Everything that leaves the
//! instance is a request to [`HostCalls`](palisade_sandbox::HostCalls) like any other plugin's.

use std::{collections::BTreeMap, time::Instant};

use data_encoding::BASE64;
use palisade_model::{ErrorCode, Failure, Payload, text::escape};
use palisade_protocol::methods::LogLevel;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wasmtime::{Caller, FuncType, Linker, Val, ValType};

use super::{
    Extism,
    kernel::{Full, Kernel},
    link::ENV,
    mapping,
};
use crate::state::State;

/// The module that plugins import the application's functions from.
pub(crate) const USER: &str = "extism:host/user";
/// Longest name of a configuration value or variable, in bytes.
const MAX_NAME: usize = 64 << 10;
/// Most bytes of a log line; the rest is cut off.
const MAX_LINE: usize = 8 << 10;
/// Most bytes of the JSON text that describes a request.
const MAX_REQUEST: usize = 256 << 10;
/// Most bytes of a request's body.
const MAX_BODY: usize = 2 << 20;
/// Longest time of a request, in milliseconds.
const MAX_TIMEOUT_MS: u64 = 60_000;
/// Most arguments of a function of the application.
const MAX_ARGS: usize = 16;

/// The error of a host function: ends the call with this failure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) Failure);

type Result<T> = wasmtime::Result<T>;

fn refused(failure: Failure) -> wasmtime::Error {
    wasmtime::Error::new(Refused(failure))
}

fn misuse(what: impl Into<String>) -> wasmtime::Error {
    refused(Failure::new(ErrorCode::PluginError, what))
}

impl From<Full> for Failure {
    fn from(_: Full) -> Self {
        Self::new(ErrorCode::LimitExceeded, "out of memory: there is no room for another block")
            .rule("memory")
            .hint("resources.memory in the manifest gives more")
    }
}

fn plugin<'a>(caller: &'a mut Caller<'_, State>) -> Result<&'a mut Extism> {
    caller.data_mut().extism.as_deref_mut().ok_or_else(|| misuse("there is no instance yet"))
}

fn kernel(caller: &mut Caller<'_, State>) -> Result<Kernel> {
    plugin(caller)?.kernel.ok_or_else(|| misuse("there is no instance yet"))
}

/// The bytes of a block, which is given back.
fn take(caller: &mut Caller<'_, State>, handle: i64, what: &str, most: usize) -> Result<Vec<u8>> {
    let kernel = kernel(caller)?;
    let handle = handle.cast_unsigned();
    let bytes = kernel
        .bytes(&*caller, handle)
        .ok_or_else(|| misuse(format!("{what}: {handle} is the handle of no block")))?;
    if bytes.len() > most {
        let message =
            format!("{what}: at most {most} bytes, and the plugin handed over {}", bytes.len());
        return Err(refused(Failure::new(ErrorCode::LimitExceeded, message)));
    }
    let bytes = bytes.to_vec();
    kernel.free(&mut *caller, handle);
    Ok(bytes)
}

fn take_name(caller: &mut Caller<'_, State>, handle: i64, what: &str) -> Result<String> {
    String::from_utf8(take(caller, handle, what, MAX_NAME)?)
        .map_err(|_| misuse(format!("{what}: the name is not UTF-8")))
}

/// A block for the plugin; 0 where there is nothing in it.
fn give(caller: &mut Caller<'_, State>, bytes: &[u8]) -> Result<i64> {
    let kernel = kernel(caller)?;
    let handle = kernel.block(caller, bytes).map_err(|full| refused(full.into()))?;
    Ok(handle.cast_signed())
}

/// Defines what is not in the kernel.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(ENV, "config_get", |mut caller: Caller<'_, State>, name: i64| {
        let name = take_name(&mut caller, name, "config_get")?;
        match plugin(&mut caller)?.config.get(&name).cloned() {
            Some(value) => give(&mut caller, value.as_bytes()),
            None => Ok(0),
        }
    })?;
    linker.func_wrap(ENV, "var_get", |mut caller: Caller<'_, State>, name: i64| {
        let name = take_name(&mut caller, name, "var_get")?;
        match plugin(&mut caller)?.vars.get(&name).map(<[u8]>::to_vec) {
            Some(value) => give(&mut caller, &value),
            None => Ok(0),
        }
    })?;
    linker.func_wrap(ENV, "var_set", |mut caller: Caller<'_, State>, name: i64, value: i64| {
        let name = take_name(&mut caller, name, "var_set")?;
        if value == 0 {
            plugin(&mut caller)?.vars.remove(&name);
            return Ok(());
        }
        let value = take(&mut caller, value, "var_set", super::vars::MAX_BYTES)?;
        if plugin(&mut caller)?.vars.set(name, value) {
            return Ok(());
        }
        let message = "var_set: the variables of an instance have at most 1 MiB";
        Err(refused(Failure::new(ErrorCode::LimitExceeded, message)))
    })?;
    linker.func_wrap_async(
        ENV,
        "http_request",
        |mut caller: Caller<'_, State>, (request, body): (i64, i64)| {
            Box::new(async move { http_request(&mut caller, request, body).await })
        },
    )?;
    linker.func_wrap(ENV, "http_status_code", |mut caller: Caller<'_, State>| {
        Ok(i32::from(plugin(&mut caller)?.http_status))
    })?;
    linker.func_wrap(ENV, "http_headers", |mut caller: Caller<'_, State>| {
        match plugin(&mut caller)?.http_headers.clone() {
            Some(headers) => give(&mut caller, &headers),
            None => Ok(0),
        }
    })?;
    for (name, level) in [
        ("log_trace", LogLevel::Trace),
        ("log_debug", LogLevel::Debug),
        ("log_info", LogLevel::Info),
        ("log_warn", LogLevel::Warn),
        ("log_error", LogLevel::Error),
    ] {
        linker.func_wrap_async(
            ENV,
            name,
            move |mut caller: Caller<'_, State>, (line,): (i64,)| {
                Box::new(async move { log(&mut caller, level, line).await })
            },
        )?;
    }
    // Every line is taken; the plugin's log rate decides what is kept.
    linker.func_wrap(ENV, "get_log_level", || 0_i32)?;
    Ok(())
}

#[derive(Serialize)]
struct Line<'a> {
    level: LogLevel,
    message: &'a str,
}

async fn log(caller: &mut Caller<'_, State>, level: LogLevel, line: i64) -> Result<()> {
    let mut text = take(caller, line, "log", usize::MAX)?;
    text.truncate(MAX_LINE);
    let message = String::from_utf8_lossy(&text);
    let payload = Payload::json(&Line { level, message: &message })?;
    let asked = caller.data().request("log", payload);
    // A line over the rate is dropped; the plugin goes on.
    let _ = asked.await?;
    Ok(())
}

/// What a plugin asks for, as the PDKs write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpRequest {
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    method: Option<String>,
}

/// Parameters of `http.fetch`.
#[derive(Serialize)]
struct Fetch {
    url: String,
    method: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    timeout_ms: u64,
}

/// Result of `http.fetch`.
#[derive(Deserialize)]
struct Fetched {
    status: u16,
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    body_base64: Option<String>,
}

async fn http_request(caller: &mut Caller<'_, State>, request: i64, body: i64) -> Result<i64> {
    {
        let plugin = plugin(caller)?;
        plugin.http_status = 0;
        plugin.http_headers = None;
    }
    let request = take(caller, request, "http_request", MAX_REQUEST)?;
    let request: HttpRequest = serde_json::from_slice(&request).map_err(|e| {
        misuse(format!(
            "http_request: the request is not understood: {}",
            escape(&e.to_string(), 200)
        ))
    })?;
    let (body, body_base64) = match body {
        0 => (None, None),
        body => match String::from_utf8(take(caller, body, "http_request", MAX_BODY)?) {
            Ok(text) => (Some(text), None),
            Err(bytes) => (None, Some(BASE64.encode(bytes.as_bytes()))),
        },
    };
    let left = caller.data().deadline.saturating_duration_since(Instant::now()).as_millis();
    let fetch = Fetch {
        url: request.url,
        method: request.method.unwrap_or_else(|| "GET".into()).to_ascii_uppercase(),
        headers: request.headers.into_iter().collect(),
        body,
        body_base64,
        timeout_ms: u64::try_from(left).unwrap_or(u64::MAX).clamp(1, MAX_TIMEOUT_MS),
    };
    let asked = caller.data().request("http.fetch", Payload::json(&fetch)?);
    let answer = asked.await?.map_err(refused)?;
    let unread = |_| misuse("http_request: the host's answer is not understood");
    let fetched: Fetched = answer.parse().map_err(unread)?;
    let body = match (fetched.body, fetched.body_base64) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(text)) => BASE64
            .decode(text.as_bytes())
            .map_err(|_| misuse("http_request: the host's answer is not understood"))?,
        (None, None) => Vec::new(),
    };
    let headers: BTreeMap<String, String> = fetched.headers.into_iter().collect();
    let plugin = plugin(caller)?;
    plugin.http_status = fetched.status;
    plugin.http_headers = Some(serde_json::to_vec(&headers)?);
    give(caller, &body)
}

/// Whether a function of the application can have this type: handles in, at most one out.
pub(crate) fn is_user_type(ty: &FuncType) -> bool {
    ty.params().len() <= MAX_ARGS
        && ty.results().len() <= 1
        && ty.params().chain(ty.results()).all(|ty| matches!(ty, ValType::I64))
}

/// Defines a function of the application: the service `name`, called with `host.call`.
pub(crate) fn add_user_function(
    linker: &mut Linker<State>,
    name: &str,
    ty: FuncType,
) -> Result<()> {
    let service = name.to_owned();
    linker.func_new_async(USER, name, ty, move |mut caller, args, results| {
        let service = service.clone();
        Box::new(async move {
            let args = args.iter().map(|arg| arg.i64().unwrap_or_default()).collect::<Vec<_>>();
            let answer = user(&mut caller, &service, &args).await?;
            if let Some(result) = results.first_mut() {
                *result = Val::I64(give(&mut caller, &mapping::host_result(&answer))?);
            }
            Ok(())
        })
    })?;
    Ok(())
}

#[derive(Serialize)]
struct HostCall<'a> {
    method: &'a str,
    params: Box<RawValue>,
}

async fn user(caller: &mut Caller<'_, State>, name: &str, args: &[i64]) -> Result<Payload> {
    let shown = escape(name, 100);
    let mut blocks = Vec::with_capacity(args.len());
    for arg in args {
        blocks.push(take(caller, *arg, &shown, MAX_BODY)?);
    }
    let blocks = blocks.iter().map(Vec::as_slice).collect::<Vec<_>>();
    let params = String::from_utf8(mapping::host_params(&blocks))?;
    let payload =
        Payload::json(&HostCall { method: name, params: RawValue::from_string(params)? })?;
    let asked = caller.data().request("host.call", payload);
    asked.await?.map_err(refused)
}
