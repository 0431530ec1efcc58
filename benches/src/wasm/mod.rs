//! `wasm`: what WebAssembly behind our gate costs, against Extism and against wasmtime alone.
//!
//! Everything is driven from here, in turns, in one run. The guests are the same program: it gives back
//! the text that it is given.

pub(crate) mod bare;
mod cold;
mod extism;
mod first_start;
mod guests;
pub(crate) mod idle;
mod ours;
mod warm;

pub(crate) use extism::forget_variables;

use tokio::runtime::{Builder, Runtime};

use crate::{plugin::Result, report::Row};

pub(crate) const NAMES: &[&str] = &["warm", "cold", "first_start", "rss_per_idle_instance"];

/// One of [`NAMES`], or all of it.
pub(crate) fn run(name: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let is = |part: &str| name == "wasm" || name.starts_with(part);
    if is("warm") {
        rows.extend(warm::run()?);
    }
    if is("cold") {
        rows.extend(cold::run(name)?);
    }
    if is("first_start") {
        rows.extend(first_start::run(name)?);
    }
    if is("rss_per_idle_instance") {
        rows.extend(idle::run()?);
    }
    Ok(rows)
}

/// A runtime as an application's, with a task of it for `what`.
fn on<T: Send + 'static>(what: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let runtime: Runtime = Builder::new_multi_thread().enable_all().build()?;
    let task = runtime.spawn(async { what.await.map_err(|e| e.to_string()) });
    Ok(runtime.block_on(task)??)
}

/// JSON of exactly `length` bytes: an object with one string.
fn message(length: usize) -> &'static str {
    let (head, tail) = (r#"{"text":""#, r#""}"#);
    let words = "the quick brown fox jumps over the lazy dog, twice. ";
    let room = length.saturating_sub(head.len() + tail.len());
    let text: String = words.chars().cycle().take(room).collect();
    Box::leak(format!("{head}{text}{tail}").into_boxed_str())
}

/// An answer that is not the message would mean that something else was measured.
fn check(answer: &[u8], message: &str) -> Result<()> {
    if answer == message.as_bytes() { Ok(()) } else { Err("the echo is wrong".into()) }
}
