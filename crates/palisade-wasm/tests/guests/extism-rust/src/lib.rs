//! An Extism plugin that uses all of its PDK. Built twice by the tests: for wasm32-unknown-unknown and, with
//! WASI in it, for wasm32-wasip1.

use extism_pdk::{
    Error, FnResult, FromBytes, HttpRequest, Json, Memory, ToBytes, WithReturnCode, config, error,
    extism, host_fn, http, info, input_bytes, output, plugin_fn, var, warn,
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize, FromBytes, ToBytes)]
#[encoding(Json)]
pub struct Sum {
    a: i64,
    b: i64,
}

#[host_fn]
extern "ExtismHost" {
    fn lookup(key: String) -> String;
    fn combine(first: String, second: Vec<u8>) -> String;
}

/// Bytes in, the same bytes out.
#[plugin_fn]
pub fn echo(input: Vec<u8>) -> FnResult<Vec<u8>> {
    Ok(input)
}

/// JSON in and out.
#[plugin_fn]
pub fn add(Json(sum): Json<Sum>) -> FnResult<Json<Vec<i64>>> {
    Ok(Json(vec![sum.a, sum.b, sum.a + sum.b]))
}

/// How often it was called in this instance.
#[plugin_fn]
pub fn count() -> FnResult<String> {
    let count = var::get::<String>("count")?.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) + 1;
    var::set("count", count.to_string())?;
    Ok(count.to_string())
}

/// Keeps more and more until there is no room.
#[plugin_fn]
pub fn hoard() -> FnResult<()> {
    for number in 0.. {
        var::set(format!("v{number}"), vec![0_u8; 100_000])?;
    }
    Ok(())
}

/// A value of the configuration.
#[plugin_fn]
pub fn configured(key: String) -> FnResult<String> {
    Ok(config::get(key)?.unwrap_or_else(|| "none".into()))
}

/// Sets its output itself, and gives `()`.
#[plugin_fn]
pub fn sets_output() -> FnResult<()> {
    output("set by hand")?;
    Ok(())
}

/// Writes log lines of several levels.
#[plugin_fn]
pub fn talks(text: String) -> FnResult<()> {
    info!("info {text}");
    warn!("warn {text}");
    error!("error {text}");
    println!("stdout {text}");
    Ok(())
}

/// Says what went wrong.
#[plugin_fn]
pub fn fails(text: String) -> FnResult<String> {
    Err(WithReturnCode::new(Error::msg(format!("no {text}")), 3))
}

/// Panics.
#[plugin_fn]
pub fn panics() -> FnResult<String> {
    panic!("the guest panicked");
}

/// Never ends.
#[plugin_fn]
pub fn spins() -> FnResult<()> {
    loop {
        std::hint::spin_loop();
    }
}

/// A request, and its answer: status, a header field, the body.
#[plugin_fn]
pub fn fetch(url: String) -> FnResult<Json<(u16, Option<String>, String)>> {
    let request = HttpRequest::new(url).with_header("x-from", "extism").with_method("POST");
    let answer = http::request(&request, Some("the body"))?;
    let body = String::from_utf8(answer.body())?;
    Ok(Json((answer.status_code(), answer.header("x-answer").map(str::to_owned), body)))
}

/// Asks the application.
#[plugin_fn]
pub fn asks(key: String) -> FnResult<String> {
    Ok(unsafe { lookup(key)? })
}

/// Asks the application with two blocks.
#[plugin_fn]
pub fn asks_twice(key: String) -> FnResult<String> {
    Ok(unsafe { combine(key, vec![255_u8, 0])? })
}

/// Blocks by hand: allocated, found, freed, and freed once more.
#[plugin_fn]
pub fn blocks() -> FnResult<String> {
    let memory = Memory::new(&"some text")?;
    let offset = memory.offset();
    let found = Memory::find(offset).map(|m| m.len());
    let foreign = Memory::find(offset + 1).map(|m| m.len());
    memory.free();
    unsafe { extism::free(offset) };
    let gone = Memory::find(offset).map(|m| m.len());
    Ok(format!("{found:?} {foreign:?} {gone:?} {}", input_bytes().len()))
}

/// Reads where no memory is.
#[plugin_fn]
pub fn reads_nowhere() -> FnResult<String> {
    Ok(unsafe { extism::load_u64(u64::MAX - 3) }.to_string())
}

/// Hands the host something that is no block.
#[plugin_fn]
pub fn lies() -> FnResult<String> {
    unsafe { extism::log_info(12345) };
    Ok("unheard".into())
}

/// What is not text.
#[plugin_fn]
pub fn bytes() -> FnResult<Vec<u8>> {
    Ok(vec![0, 255, 1])
}

/// What the environment shows.
#[plugin_fn]
pub fn variable(name: String) -> FnResult<String> {
    Ok(std::env::var(name).unwrap_or_else(|_| "none".into()))
}
