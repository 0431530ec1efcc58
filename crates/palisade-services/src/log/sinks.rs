//! Where log lines go: to `tracing`, into a bounded tail in memory, or to several sinks.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use palisade_audit::{Clock, SystemClock};
use palisade_model::Principal;
use serde::Serialize;

use super::{LogLevel, LogLine, LogSink, LogStream};

/// Hands each line to `tracing`, target `palisade::plugin`, with the plugin and the fields beside it.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingSink;

/// The fields as `name=value`, space-separated.
fn joined(fields: &BTreeMap<String, String>) -> String {
    let each: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    each.join(" ")
}

macro_rules! emit {
    ($level:ident, $line:expr, $fields:expr) => {
        tracing::$level!(
            target: "palisade::plugin",
            plugin = %$line.source,
            stream = ?$line.stream,
            fields = %$fields,
            "{}",
            $line.message
        )
    };
}

impl LogSink for TracingSink {
    fn line(&self, line: &LogLine<'_>) {
        let fields = joined(line.fields);
        match line.level {
            LogLevel::Trace => emit!(trace, line, fields),
            LogLevel::Debug => emit!(debug, line, fields),
            LogLevel::Info => emit!(info, line, fields),
            LogLevel::Warn => emit!(warn, line, fields),
            LogLevel::Error => emit!(error, line, fields),
        }
    }

    fn dropped(&self, source: &Principal, bytes: usize) {
        tracing::debug!(target: "palisade::plugin", plugin = %source, bytes, "log output dropped");
    }
}

/// A line kept by [`Tail`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TailLine {
    /// When it came: nanoseconds since 1970.
    pub unix_ns: u64,
    /// Who said it.
    pub source: String,
    /// How it came.
    pub stream: LogStream,
    /// How much it matters.
    pub level: LogLevel,
    /// What was said, escaped.
    pub message: String,
    /// Names and values, escaped.
    pub fields: BTreeMap<String, String>,
}

impl TailLine {
    fn weight(&self) -> usize {
        let fields: usize = self.fields.iter().map(|(n, v)| n.len() + v.len() + 64).sum();
        self.message.len() + self.source.len() + fields + 128
    }
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<TailLine>,
    bytes: usize,
    dropped_bytes: u64,
}

/// Keeps the last lines of all plugins in memory.
pub struct Tail {
    kept: Mutex<Kept>,
    max_lines: usize,
    max_bytes: usize,
    clock: Arc<dyn Clock>,
}

impl Tail {
    /// Keeps at most `max_lines` lines and about `max_bytes` bytes.
    #[must_use]
    pub fn new(max_lines: usize, max_bytes: usize) -> Self {
        Self::with_clock(max_lines, max_bytes, Arc::new(SystemClock))
    }

    /// As [`Tail::new`], with a clock.
    #[must_use]
    pub fn with_clock(max_lines: usize, max_bytes: usize, clock: Arc<dyn Clock>) -> Self {
        Self { kept: Mutex::default(), max_lines, max_bytes, clock }
    }

    /// The lines that are kept, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<TailLine> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.lines.iter().cloned().collect()
    }

    /// Bytes that plugins said beyond their rates.
    #[must_use]
    pub fn dropped_bytes(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).dropped_bytes
    }
}

impl LogSink for Tail {
    fn line(&self, line: &LogLine<'_>) {
        let line = TailLine {
            unix_ns: self.clock.now().unix_ns,
            source: line.source.to_string(),
            stream: line.stream,
            level: line.level,
            message: line.message.to_owned(),
            fields: line.fields.clone(),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += line.weight();
        kept.lines.push_back(line);
        while kept.lines.len() > self.max_lines || kept.bytes > self.max_bytes {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes = kept.bytes.saturating_sub(oldest.weight());
        }
    }

    fn dropped(&self, _source: &Principal, bytes: usize) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.dropped_bytes = kept.dropped_bytes.saturating_add(bytes as u64);
    }
}

/// Hands each line to several sinks in order.
pub struct Fanout(pub Vec<Arc<dyn LogSink>>);

impl LogSink for Fanout {
    fn line(&self, line: &LogLine<'_>) {
        for sink in &self.0 {
            sink.line(line);
        }
    }

    fn dropped(&self, source: &Principal, bytes: usize) {
        for sink in &self.0 {
            sink.dropped(source, bytes);
        }
    }
}
