//! Where plugins' log lines go: stderr for people, NDJSON on stdout for programs.
//!
//! A thread writes, so that a terminal that has been stopped does not stop the host. What does not fit in
//! its queue is counted and said later. Lines come escaped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use palisade_model::Principal;
use palisade_services::log::{LogLevel, LogLine, LogSink, LogStream};
use serde_json::json;

use crate::terminal::{self, Paint};

/// Lines that wait for the writer.
const QUEUE: usize = 1024;

enum Entry {
    Line(String),
    End,
}

/// A sink that prints.
pub(crate) struct Printer {
    sender: SyncSender<Entry>,
    lost: Arc<AtomicU64>,
    as_json: bool,
    paint: Paint,
}

/// Waits for the lines that are still to be printed.
pub(crate) struct Finish(SyncSender<Entry>, Option<JoinHandle<()>>);

impl Finish {
    /// Prints what is left.
    pub(crate) fn finish(mut self) {
        if let (Ok(()), Some(thread)) = (self.0.send(Entry::End), self.1.take()) {
            let _ = thread.join();
        }
    }
}

impl Printer {
    /// Starts the writer.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(as_json: bool) -> std::io::Result<(Arc<Self>, Finish)> {
        let (sender, receiver) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        let thread = std::thread::Builder::new()
            .name("palisade-log".into())
            .spawn(move || print(&receiver, &counted, as_json))?;
        let finish = Finish(sender.clone(), Some(thread));
        Ok((Arc::new(Self { sender, lost, as_json, paint: Paint::stderr() }), finish))
    }

    /// Prints a line behind the others.
    pub(crate) fn send(&self, line: String) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Entry::Line(line)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn print(receiver: &Receiver<Entry>, lost: &AtomicU64, as_json: bool) {
    let write = |line: &str| if as_json { terminal::out(line) } else { terminal::err(line) };
    while let Ok(Entry::Line(line)) = receiver.recv() {
        write(&line);
        let lines = lost.swap(0, Ordering::Relaxed);
        if lines > 0 {
            write(&if as_json {
                json!({"event": "lost", "lines": lines}).to_string()
            } else {
                format!("palisade: {lines} log lines came faster than they could be printed")
            });
        }
    }
}

/// The plugin's id; other sources as they are called.
fn name(source: &Principal) -> String {
    match source {
        Principal::Plugin(instance) => instance.plugin.id.to_string(),
        other => other.to_string(),
    }
}

/// One line for people.
fn line_text(line: &LogLine<'_>, paint: Paint) -> String {
    let level = match line.level {
        LogLevel::Error => format!("{} ", paint.bad("error:")),
        LogLevel::Warn => format!("{} ", paint.warn("warning:")),
        _ => String::new(),
    };
    let fields: String =
        line.fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    format!(
        "{} {level}{}{}",
        paint.dim(format!("{} |", name(line.source))),
        line.message,
        paint.dim(fields)
    )
}

impl LogSink for Printer {
    fn line(&self, line: &LogLine<'_>) {
        self.send(if self.as_json {
            let stream = match line.stream {
                LogStream::Log => "log",
                LogStream::Stdout => "stdout",
                LogStream::Stderr => "stderr",
            };
            json!({
                "event": "log", "plugin": name(line.source), "stream": stream, "level": line.level,
                "message": line.message, "fields": line.fields,
            })
            .to_string()
        } else {
            line_text(line, self.paint)
        });
    }

    fn dropped(&self, source: &Principal, bytes: usize) {
        self.send(if self.as_json {
            json!({"event": "dropped", "plugin": name(source), "bytes": bytes}).to_string()
        } else {
            let source = self.paint.dim(format!("{} |", name(source)));
            format!(
                "{source} {}",
                self.paint.warn(format!("({bytes} bytes of log dropped: it wrote too fast)"))
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_line_names_its_source_its_level_and_its_fields() {
        let fields = BTreeMap::from([("file".to_owned(), "a.txt".to_owned())]);
        let line = LogLine {
            source: &Principal::Application,
            stream: LogStream::Log,
            level: LogLevel::Warn,
            message: "left out",
            fields: &fields,
        };
        assert_eq!(line_text(&line, Paint::NONE), "application | warning: left out file=a.txt");
    }
}
