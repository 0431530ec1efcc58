//! JSON between the guest's values and the host's requests: objects are put together as text, so that
//! what a guest wrote as JSON is checked once and copied once.

use palisade_model::{ErrorCode, Failure, Payload, text::escape};
use palisade_protocol::{FrameError, bounds, scan};
use serde::de::DeserializeOwned;

/// Levels that stand around a guest's JSON in a request.
const AROUND: u32 = 4;

/// An object that is written field by field.
pub(crate) struct Object {
    text: Vec<u8>,
}

impl Object {
    pub(crate) fn new() -> Self {
        Self { text: vec![b'{'] }
    }

    fn key(&mut self, key: &str) {
        if self.text.len() > 1 {
            self.text.push(b',');
        }
        // Keys are ours and need no escapes.
        self.text.push(b'"');
        self.text.extend_from_slice(key.as_bytes());
        self.text.extend_from_slice(b"\":");
    }

    /// A text.
    pub(crate) fn text(mut self, key: &str, text: &str) -> Self {
        self.key(key);
        write_text(&mut self.text, text);
        self
    }

    /// A text, if there is one.
    pub(crate) fn maybe_text(self, key: &str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(key, text),
            None => self,
        }
    }

    /// A number.
    pub(crate) fn number(mut self, key: &str, number: u64) -> Self {
        self.key(key);
        self.text.extend_from_slice(number.to_string().as_bytes());
        self
    }

    /// A number, if there is one.
    pub(crate) fn maybe_number(self, key: &str, number: Option<u64>) -> Self {
        match number {
            Some(number) => self.number(key, number),
            None => self,
        }
    }

    /// Yes or no.
    pub(crate) fn flag(mut self, key: &str, flag: bool) -> Self {
        self.key(key);
        self.text.extend_from_slice(if flag { b"true" } else { b"false" });
        self
    }

    /// JSON that the guest wrote, and that was not looked at yet.
    pub(crate) fn json(self, key: &str, json: &str) -> Result<Self, Failure> {
        check_text(json, bounds::DEPTH_LEVELS - AROUND)
            .map_err(|what| Failure::new(ErrorCode::InvalidParams, format!("{key}: {what}")))?;
        Ok(self.checked(key, json.as_bytes()))
    }

    /// JSON that is known to be well formed.
    pub(crate) fn checked(mut self, key: &str, json: &[u8]) -> Self {
        self.key(key);
        self.text.extend_from_slice(json);
        self
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.text.push(b'}');
        self.text
    }

    pub(crate) fn payload(self) -> Payload {
        Payload::from_json_text(self.end())
    }
}

/// A list of `items`, each JSON.
pub(crate) fn list<T: AsRef<[u8]>>(items: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut out = vec![b'['];
    for item in items {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(item.as_ref());
    }
    out.push(b']');
    out
}

/// `text` as a JSON string.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    // A str always serialises, and a Vec takes every byte.
    drop(serde_json::to_writer(out, text));
}

/// Checks what a guest gave out as JSON: one value, at most 4 MiB, at most `levels` deep. The error is a
/// sentence about it.
pub(crate) fn check(json: &[u8], levels: u32) -> Result<(), String> {
    check_length(json)?;
    scan::validate(json, levels).map_err(|e| not_json(&e))
}

/// [`check`] of what is known to be text.
pub(crate) fn check_text(json: &str, levels: u32) -> Result<(), String> {
    check_length(json.as_bytes())?;
    scan::validate_text(json, levels).map_err(|e| not_json(&e))
}

fn check_length(json: &[u8]) -> Result<(), String> {
    if json.len() > bounds::FRAME_BYTES {
        return Err(format!("it is longer than {} bytes", bounds::FRAME_BYTES));
    }
    Ok(())
}

fn not_json(why: &FrameError) -> String {
    format!("it is not JSON: {}", escape(&why.to_string(), 200))
}

/// The JSON that a guest answered with, as a payload.
pub(crate) fn answer(json: String) -> Result<Payload, Failure> {
    check_text(&json, bounds::DEPTH_LEVELS - 1).map_err(|what| {
        Failure::new(ErrorCode::PluginError, format!("the plugin's answer: {what}"))
    })?;
    Ok(Payload::from_json_text(json))
}

/// The text of JSON that a service answered with.
pub(crate) fn text(payload: &Payload) -> Result<String, Failure> {
    std::str::from_utf8(payload.bytes())
        .map(str::to_owned)
        .map_err(|_| Failure::new(ErrorCode::Internal, "the answer is not UTF-8"))
}

/// Reads what a service answered with.
pub(crate) fn read<T: DeserializeOwned>(method: &str, payload: &Payload) -> Result<T, Failure> {
    payload
        .parse()
        .map_err(|e| Failure::new(ErrorCode::Internal, format!("the answer to {method}: {e}")))
}
