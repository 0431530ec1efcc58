//! The reference plugin as a module for Extism, as far as its interface has words for it; ../../README.md
//! says what each tool does, conformance.json what is missing and why.

use std::{collections::BTreeMap, thread, time::Duration};

use extism_pdk::{Error, FnResult, HttpRequest, LogLevel, config, host_fn, http, log, plugin_fn};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

/// Services of the application are functions of fixed names here.
#[host_fn]
extern "ExtismHost" {
    fn get_user_profile(params: String) -> String;
    fn slow(params: String) -> String;
    fn busy(params: String) -> String;
}

fn answer(value: &impl Serialize) -> FnResult<String> {
    Ok(serde_json::to_string(value)?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Echo {
    #[serde(default)]
    value: Option<Box<RawValue>>,
}

#[plugin_fn]
pub fn echo(args: String) -> FnResult<String> {
    answer(&serde_json::from_str::<Echo>(&args)?.value)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    a: i128,
    #[serde(default = "one")]
    b: i128,
}

fn one() -> i128 {
    1
}

#[plugin_fn]
pub fn add(args: String) -> FnResult<String> {
    let Add { a, b } = serde_json::from_str(&args)?;
    answer(&a.checked_add(b).ok_or_else(|| Error::msg("too large"))?)
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    text: String,
    kind: Kind,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    size: Option<Size>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    A,
    B,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Size {
    width: i64,
    #[serde(default = "one_i64")]
    height: i64,
}

fn one_i64() -> i64 {
    1
}

#[plugin_fn]
pub fn shape(args: String) -> FnResult<String> {
    answer(&serde_json::from_str::<Shape>(&args)?)
}

#[derive(Deserialize)]
struct Fail {
    message: String,
}

#[plugin_fn]
pub fn fail(args: String) -> FnResult<String> {
    let Fail { message } = serde_json::from_str(&args)?;
    Err(Error::msg(message).into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    ms: u64,
}

#[plugin_fn]
pub fn sleep(args: String) -> FnResult<String> {
    let Pause { ms } = serde_json::from_str(&args)?;
    thread::sleep(Duration::from_millis(ms));
    answer(&json!({ "slept": ms }))
}

#[plugin_fn]
pub fn wait() -> FnResult<String> {
    thread::sleep(Duration::from_secs(3600));
    Err(Error::msg("nobody cancelled it").into())
}

#[plugin_fn]
pub fn noise() -> FnResult<String> {
    println!("noise on stdout");
    eprintln!("noise on stderr");
    answer(&"quiet")
}

#[derive(Deserialize)]
struct Text {
    length: usize,
}

#[plugin_fn]
pub fn text(args: String) -> FnResult<String> {
    let Text { length } = serde_json::from_str(&args)?;
    answer(&"x".repeat(length))
}

#[derive(Deserialize)]
struct Deep {
    levels: usize,
}

#[plugin_fn]
pub fn deep(args: String) -> FnResult<String> {
    let Deep { levels } = serde_json::from_str(&args)?;
    Ok("[".repeat(levels) + &"]".repeat(levels))
}

#[plugin_fn]
pub fn half() -> FnResult<String> {
    Ok(r#""\ud83d""#.to_owned())
}

/// Values are asked for by name; what is no text comes as its JSON.
#[plugin_fn]
pub fn config() -> FnResult<String> {
    let mut all = BTreeMap::new();
    if let Some(greeting) = config::get("greeting")? {
        all.insert("greeting", Value::String(greeting));
    }
    if let Some(n) = config::get("n")? {
        all.insert("n", serde_json::from_str(&n)?);
    }
    answer(&all)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    method: String,
    #[serde(default)]
    params: Value,
}

#[plugin_fn]
pub fn host(args: String) -> FnResult<String> {
    let Ask { method, params } = serde_json::from_str(&args)?;
    let params = params.to_string();
    // SAFETY: the kit makes the pointers; the application gives a block, or none.
    let answered = unsafe {
        match method.as_str() {
            "get_user_profile" => get_user_profile(params),
            "slow" => slow(params),
            "busy" => busy(params),
            other => return Err(Error::msg(format!("it imports no function {other}")).into()),
        }
    };
    Ok(answered?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fetch {
    url: String,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
    bytes: Option<Vec<u8>>,
}

#[plugin_fn]
pub fn fetch(args: String) -> FnResult<String> {
    let Fetch { url, method, headers, body, bytes } = serde_json::from_str(&args)?;
    let request = HttpRequest { url, headers, method };
    let answered = http::request(&request, bytes.or(body.map(String::into_bytes)))?;
    let body = answered.body();
    answer(&json!({
        "status": answered.status_code(),
        "header": answered.header("x"),
        "text": String::from_utf8_lossy(&body),
        "length": body.len(),
    }))
}

#[derive(Deserialize)]
struct Line {
    level: Level,
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

#[plugin_fn]
pub fn log(args: String) -> FnResult<String> {
    let Line { level, message } = serde_json::from_str(&args)?;
    let level = match level {
        Level::Trace => LogLevel::Trace,
        Level::Debug => LogLevel::Debug,
        Level::Info => LogLevel::Info,
        Level::Warn => LogLevel::Warn,
        Level::Error => LogLevel::Error,
    };
    log!(level, "{message}");
    answer(&())
}
