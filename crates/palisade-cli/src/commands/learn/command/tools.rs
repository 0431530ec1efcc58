//! Which tools of an MCP server are offered and called, from what passes. Looks at lines of JSON and
//! changes nothing; what is no such line, or too long, is passed over.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use palisade_model::text::escape;
use serde_json::{Value, json};

/// Longest line that is looked at, in bytes.
const MAX_LINE: usize = 4 << 20;
/// Most tools, names called and open questions that are kept.
const MOST: usize = 256;
const MAX_DESCRIPTION: usize = 400;

/// Which way a piece goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToServer,
    FromServer,
}

#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    too_long: bool,
}

impl Line {
    /// Takes a piece; gives the lines that it completes.
    fn take(&mut self, piece: &[u8]) -> Vec<Vec<u8>> {
        let mut done = Vec::new();
        for part in piece.split_inclusive(|b| *b == b'\n') {
            if self.bytes.len() + part.len() > MAX_LINE {
                self.too_long = true;
                self.bytes.clear();
            }
            if !self.too_long {
                self.bytes.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.bytes);
                if !std::mem::take(&mut self.too_long) {
                    done.push(line);
                }
            }
        }
        done
    }
}

#[derive(Default)]
struct Inner {
    to: Line,
    from: Line,
    /// Ids of `tools/list` requests that are not answered yet.
    asked: BTreeSet<String>,
    is_mcp: bool,
    offered: BTreeMap<String, Value>,
    called: BTreeSet<String>,
}

#[derive(Default)]
pub(super) struct Tools(Mutex<Inner>);

impl Tools {
    /// Looks at what passes.
    pub(super) fn look(&self, direction: Direction, piece: &[u8]) {
        let mut inner = self.lock();
        let lines = match direction {
            Direction::ToServer => inner.to.take(piece),
            Direction::FromServer => inner.from.take(piece),
        };
        for line in lines {
            let Ok(message) = serde_json::from_slice::<Value>(&line) else { continue };
            match direction {
                Direction::ToServer => inner.request(&message),
                Direction::FromServer => inner.answer(&message),
            }
        }
    }

    /// Whether a client spoke MCP.
    pub(super) fn is_mcp(&self) -> bool {
        self.lock().is_mcp
    }

    /// The tools that were called, as a manifest declares them.
    pub(super) fn used(&self) -> Vec<Value> {
        let inner = self.lock();
        inner.called.iter().filter_map(|name| inner.offered.get(name).cloned()).collect()
    }

    /// The names of those that were not, escaped.
    pub(super) fn not_called(&self) -> Vec<String> {
        let inner = self.lock();
        let names = inner.offered.keys().filter(|name| !inner.called.contains(*name));
        names.map(|name| escape(name, 80)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn request(&mut self, message: &Value) {
        let method = message.get("method").and_then(Value::as_str).unwrap_or_default();
        if matches!(method, "initialize" | "server/discover") && message.get("jsonrpc").is_some() {
            self.is_mcp = true;
        }
        if method == "tools/list" && self.asked.len() < MOST {
            self.asked.extend(message.get("id").map(Value::to_string));
        }
        let name = message.pointer("/params/name").and_then(Value::as_str);
        if let Some(name) = name.filter(|_| method == "tools/call" && self.called.len() < MOST) {
            self.called.insert(name.to_owned());
        }
    }

    fn answer(&mut self, message: &Value) {
        let Some(id) = message.get("id").map(Value::to_string) else { return };
        if !self.asked.remove(&id) {
            return;
        }
        let tools = message.pointer("/result/tools").and_then(Value::as_array);
        for tool in tools.into_iter().flatten() {
            let Some(name) = tool.get("name").and_then(Value::as_str) else { continue };
            if self.offered.len() >= MOST {
                return;
            }
            let text = tool.get("description").and_then(Value::as_str).unwrap_or("No description.");
            let text = match escape(text, MAX_DESCRIPTION) {
                text if text.trim().is_empty() => "No description.".to_owned(),
                text => text,
            };
            self.offered.insert(name.to_owned(), json!({ "name": name, "description": text }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_those_that_were_listed_and_called() {
        let tools = Tools::default();
        let to = b"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\"}\n{\"id\":1,\"method\":\"tools/list\"}\n{\"id\":2,\"method\":\"tools/call\",\"params\":{\"name\":\"echo\"}}\nnoise\n";
        for piece in to.chunks(7) {
            tools.look(Direction::ToServer, piece);
        }
        let from = b"banner\n{\"id\":1,\"result\":{\"tools\":[{\"name\":\"echo\",\"description\":\"Echo\\u001b[2J\"},{\"name\":\"add\"}]}}\n{\"id\":9,\"result\":{\"tools\":[{\"name\":\"unasked\"}]}}\n";
        for piece in from.chunks(11) {
            tools.look(Direction::FromServer, piece);
        }
        assert!(tools.is_mcp());
        assert_eq!(tools.used(), [json!({"name": "echo", "description": "Echo\\u{1b}[2J"})]);
        assert_eq!(tools.not_called(), ["add"]);
    }

    #[test]
    fn a_line_without_an_end_costs_a_bounded_amount() {
        let mut line = Line::default();
        for _ in 0..10 {
            assert!(line.take(&vec![b'x'; 1 << 20]).is_empty());
        }
        assert!(line.bytes.len() <= MAX_LINE);
        assert_eq!(line.take(b"x\n{}\n"), [b"{}\n".to_vec()], "the next line is whole again");
    }
}
