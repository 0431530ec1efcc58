//! `log`: a plugin says something to whoever runs it.
//!
//! Lines of the `log` method and of the plugin's standard output and error come together in one
//! [`LogSink`]. All of them count against one rate in bytes; what exceeds it is dropped and counted,
//! not answered with an error. Whatever a sink is given was bounded and escaped.

mod sinks;

use std::{collections::BTreeMap, sync::Arc};

use palisade_broker::{Caller, Context, Service};
use palisade_model::{ErrorCode, Failure, Principal, text::escape};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use sinks::{Fanout, Tail, TailLine, TracingSink};

/// Most bytes of a message that are kept.
pub const MAX_MESSAGE: usize = 8 << 10;
/// Most fields of a line.
pub const MAX_FIELDS: usize = 32;
/// Longest name of a field in bytes.
pub const MAX_FIELD_NAME: usize = 64;
/// Most bytes of a field's value that are kept.
pub const MAX_FIELD_VALUE: usize = 1 << 10;

/// How much a line matters.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// For whoever looks for an error.
    Debug,
    /// For whoever runs the plugin.
    #[default]
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something failed.
    Error,
}

impl LogLevel {
    /// The name used in `log` and in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// How a line came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// By the method `log`.
    Log,
    /// On standard output.
    Stdout,
    /// On standard error.
    Stderr,
}

/// One line of a plugin's log. Texts are escaped.
#[derive(Clone, Debug)]
pub struct LogLine<'a> {
    /// Who said it.
    pub source: &'a Principal,
    /// How it came.
    pub stream: LogStream,
    /// How much it matters. [`LogLevel::Info`] for standard output and error.
    pub level: LogLevel,
    /// What was said: one line.
    pub message: &'a str,
    /// Names and values, by name.
    pub fields: &'a BTreeMap<String, String>,
}

/// Where lines go. Called on the plugin's request path: must not block.
pub trait LogSink: Send + Sync {
    /// Takes one line.
    fn line(&self, line: &LogLine<'_>);

    /// `bytes` of what `source` said were dropped because it said too much.
    fn dropped(&self, source: &Principal, bytes: usize);
}

/// Parameters of `log`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogParams {
    /// How much it matters.
    #[serde(default)]
    pub level: LogLevel,
    /// What is said. At most 8 KiB are kept, line breaks are shown as `\n`.
    pub message: String,
    /// Names with values of any JSON type: at most 32, names of at most 64 bytes, 1 KiB of each value.
    #[serde(default)]
    pub fields: BTreeMap<String, Value>,
}

/// Result of `log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogResult {
    /// Whether the line was kept; `false` where the plugin's log rate was exceeded.
    pub kept: bool,
}

/// The service `log` into `sink`.
pub fn service(sink: Arc<dyn LogSink>) -> Service<LogParams> {
    Service::method("log", move |cx: Context, params: LogParams| {
        let result = log(&cx.caller, &*sink, &params);
        async move { result }
    })
    .describe(
        "Writes one line to the plugin's log. Counts against the plugin's log rate in bytes, together \
         with its standard output and error; a line over that rate is dropped, which is no error.",
    )
    .max_params(256 << 10)
    .coalesce()
}

/// The first `max` bytes of `text`, less what would split a character.
fn first(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or_default()
}

/// `text` cut to `max` bytes and escaped; a cut is marked.
fn shown(text: &str, max: usize) -> String {
    let kept = first(text, max);
    let mut out = escape(kept, max);
    if kept.len() < text.len() {
        out.push('…');
    }
    out
}

fn log(caller: &Caller, sink: &dyn LogSink, params: &LogParams) -> Result<LogResult, Failure> {
    if params.fields.len() > MAX_FIELDS {
        let message = format!("a line has at most {MAX_FIELDS} fields");
        return Err(Failure::new(ErrorCode::InvalidParams, message));
    }
    let mut fields = BTreeMap::new();
    let mut bytes = params.message.len().min(MAX_MESSAGE);
    for (name, value) in &params.fields {
        if name.is_empty() || name.len() > MAX_FIELD_NAME {
            let message = format!("a field's name has 1 to {MAX_FIELD_NAME} bytes");
            return Err(Failure::new(ErrorCode::InvalidParams, message));
        }
        let value = match value {
            Value::String(text) => shown(text, MAX_FIELD_VALUE),
            other => shown(&other.to_string(), MAX_FIELD_VALUE),
        };
        bytes += name.len() + value.len();
        fields.insert(escape(name, MAX_FIELD_NAME), value);
    }
    let kept = emit(caller, sink, LogStream::Log, params.level, &params.message, &fields, bytes);
    Ok(LogResult { kept })
}

/// Takes one line of a plugin's standard output or error, as it came. Says whether it was kept.
pub fn output_line(caller: &Caller, sink: &dyn LogSink, stream: LogStream, line: &str) -> bool {
    let bytes = line.len().min(MAX_MESSAGE);
    emit(caller, sink, stream, LogLevel::Info, line, &BTreeMap::new(), bytes)
}

fn emit(
    caller: &Caller,
    sink: &dyn LogSink,
    stream: LogStream,
    level: LogLevel,
    message: &str,
    fields: &BTreeMap<String, String>,
    bytes: usize,
) -> bool {
    let source = &**caller.principal();
    // An empty line is a line too.
    let bytes = bytes.max(1);
    if caller.rates().is_some_and(|rates| !rates.take_log_bytes(bytes)) {
        sink.dropped(source, bytes);
        return false;
    }
    let message = shown(message, MAX_MESSAGE);
    sink.line(&LogLine { source, stream, level, message: &message, fields });
    true
}

#[cfg(test)]
mod tests;
