//! JSON-RPC 2.0 envelopes: reading them out of frames and writing them into frames. No I/O.
//!
//! `params` and `result` are carried as the JSON text they are and are never rebuilt, so a number
//! beyond 2^53 in them reaches the other side digit by digit.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    FrameError, WireError, bounds,
    scan::{self, RawString, Scanner},
};

/// A request's id. The host uses integers; a plugin may use integers or strings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Id {
    /// An integer from 0 to 2^53.
    Number(u64),
    /// A text of at most [`bounds::ID_BYTES`] bytes.
    Text(Box<str>),
}

impl Id {
    /// Reads an id from JSON text.
    ///
    /// # Errors
    /// [`FrameError::Id`] for null, fractions, negative or larger numbers, longer texts, anything else.
    pub fn parse(raw: &[u8]) -> Result<Self, FrameError> {
        if raw.first() == Some(&b'"') {
            let text: Cow<'_, str> = serde_json::from_slice(raw).map_err(|_| FrameError::Id)?;
            return if text.len() <= bounds::ID_BYTES {
                Ok(Self::Text(text.into()))
            } else {
                Err(FrameError::Id)
            };
        }
        // Digits only: `1.0`, `1e0` and `-0` are integers to some readers and not to others. 2^53 has 16
        // digits, so no more are read and nothing overflows.
        let plain = (1..=16).contains(&raw.len()) && raw.iter().all(u8::is_ascii_digit);
        if !plain || (raw.len() > 1 && raw.first() == Some(&b'0')) {
            return Err(FrameError::Id);
        }
        let number = raw.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0'));
        if number <= bounds::ID_MAX { Ok(Self::Number(number)) } else { Err(FrameError::Id) }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => write_number(*number, out),
            // Writing a str to a Vec cannot fail.
            Self::Text(text) => drop(serde_json::to_writer(out, text)),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => {
                write!(f, "\"{}\"", palisade_model::text::escape(text, bounds::ID_BYTES))
            }
        }
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<serde_json::value::RawValue>::deserialize(deserializer)?;
        Self::parse(raw.get().as_bytes()).map_err(serde::de::Error::custom)
    }
}

/// One message, borrowing from its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Wants an answer.
    Request {
        /// Chosen by the sender, unique among its requests in flight.
        id: Id,
        /// What is asked.
        method: &'a str,
        /// JSON text; `null` where the envelope has none.
        params: &'a [u8],
    },
    /// Wants no answer.
    Notification {
        /// What is said.
        method: &'a str,
        /// JSON text; `null` where the envelope has none.
        params: &'a [u8],
    },
    /// Answers a request.
    Response {
        /// The request's id.
        id: Id,
        /// JSON text of the result, or the error.
        outcome: Result<&'a [u8], WireError>,
    },
}

/// The fields of an envelope that mean something, as JSON text.
#[derive(Default)]
struct Envelope<'a> {
    jsonrpc: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    method: Option<&'a [u8]>,
    params: Option<&'a [u8]>,
    result: Option<&'a [u8]>,
    error: Option<&'a [u8]>,
    /// Unknown fields, kept only to notice one that stands twice.
    unknown: Vec<Cow<'a, [u8]>>,
}

impl<'a> Envelope<'a> {
    fn put(&mut self, key: RawString<'a>, value: &'a [u8]) -> Result<(), FrameError> {
        // An escaped key is the same key: `"\u0069d"` is `"id"`.
        let name: Cow<'a, [u8]> = if key.escaped {
            let mut quoted = Vec::with_capacity(key.text.len() + 2);
            quoted.push(b'"');
            quoted.extend_from_slice(key.text);
            quoted.push(b'"');
            let text: String =
                serde_json::from_slice(&quoted).map_err(|_| FrameError::Envelope("a key"))?;
            Cow::Owned(text.into_bytes())
        } else {
            Cow::Borrowed(key.text)
        };
        let field = match &*name {
            b"jsonrpc" => &mut self.jsonrpc,
            b"id" => &mut self.id,
            b"method" => &mut self.method,
            b"params" => &mut self.params,
            b"result" => &mut self.result,
            b"error" => &mut self.error,
            _ => {
                if self.unknown.contains(&name) {
                    return Err(FrameError::Envelope("a field stands twice"));
                }
                if self.unknown.len() >= bounds::ENVELOPE_FIELDS {
                    return Err(FrameError::Envelope("it has too many fields"));
                }
                self.unknown.push(name);
                return Ok(());
            }
        };
        match field.replace(value) {
            None => Ok(()),
            Some(_) => Err(FrameError::Envelope("a field stands twice")),
        }
    }
}

impl<'a> Message<'a> {
    /// Reads a frame. One linear scan checks everything that [`scan::validate`] checks.
    ///
    /// # Errors
    /// Every variant of [`FrameError`] that speaks of a frame's content.
    pub fn parse(frame: &'a [u8]) -> Result<Self, FrameError> {
        let text = scan::utf8(frame)?;
        let mut scanner = Scanner::new(text.as_bytes());
        let mut envelope = Envelope::default();
        scanner.space();
        if scanner.peek() == Some(b'[') {
            return Err(FrameError::Batch);
        }
        scanner.expect(b'{')?;
        scanner.space();
        if !scanner.take(b'}') {
            loop {
                scanner.space();
                let key = scanner.string()?;
                scanner.space();
                scanner.expect(b':')?;
                let value = scanner.value(bounds::DEPTH_LEVELS - 1)?;
                envelope.put(key, value)?;
                scanner.space();
                if !scanner.take(b',') {
                    scanner.expect(b'}')?;
                    break;
                }
            }
        }
        scanner.end()?;
        Self::from_envelope(envelope)
    }

    fn from_envelope(envelope: Envelope<'a>) -> Result<Self, FrameError> {
        if envelope.jsonrpc != Some(b"\"2.0\"") {
            return Err(FrameError::Envelope("`jsonrpc` is not \"2.0\""));
        }
        let id = envelope.id.map(Id::parse).transpose()?;
        match (envelope.method, envelope.result, envelope.error) {
            (Some(method), None, None) => {
                let method = method_name(method)?;
                let params = envelope.params.unwrap_or(b"null");
                Ok(match id {
                    Some(id) => Self::Request { id, method, params },
                    None => Self::Notification { method, params },
                })
            }
            (None, result, error) => {
                let id = id.ok_or(FrameError::Envelope("an answer has no id"))?;
                let outcome = match (result, error) {
                    (Some(result), None) => Ok(result),
                    (None, Some(error)) => Err(WireError::parse(error)?),
                    (Some(_), Some(_)) => {
                        return Err(FrameError::Envelope("it has both `result` and `error`"));
                    }
                    (None, None) => {
                        return Err(FrameError::Envelope(
                            "it has none of `method`, `result` and `error`",
                        ));
                    }
                };
                Ok(Self::Response { id, outcome })
            }
            (Some(_), _, _) => {
                Err(FrameError::Envelope("it has a `method` and a `result` or `error`"))
            }
        }
    }
}

/// Whether `name` may name a method: 1..=[`bounds::METHOD_BYTES`] characters of `A-Z a-z 0-9 . _ - / $`.
#[must_use]
pub fn is_method_name(name: &str) -> bool {
    (1..=bounds::METHOD_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b'$'))
}

/// The name within the quotes. Names have no characters that need an escape, so one with is refused.
fn method_name(raw: &[u8]) -> Result<&str, FrameError> {
    raw.strip_prefix(b"\"")
        .and_then(|r| r.strip_suffix(b"\""))
        .and_then(|name| std::str::from_utf8(name).ok())
        .filter(|name| is_method_name(name))
        .ok_or(FrameError::Method)
}

/// Writes a request as one frame, its line break included. `params` is JSON text; `null` is left out.
#[must_use]
pub fn encode_request(id: &Id, method: &str, params: &[u8]) -> Vec<u8> {
    let mut out = begin(method.len() + params.len());
    out.extend_from_slice(b",\"id\":");
    id.write(&mut out);
    write_method(method, params, &mut out);
    out
}

/// Writes a notification as one frame, its line break included. `params` is JSON text.
#[must_use]
pub fn encode_notification(method: &str, params: &[u8]) -> Vec<u8> {
    let mut out = begin(method.len() + params.len());
    write_method(method, params, &mut out);
    out
}

/// Writes an answer as one frame, its line break included. The result is JSON text.
#[must_use]
pub fn encode_response(id: &Id, outcome: Result<&[u8], &WireError>) -> Vec<u8> {
    let mut out = begin(outcome.map_or(256, <[u8]>::len));
    out.extend_from_slice(b",\"id\":");
    id.write(&mut out);
    match outcome {
        Ok(result) => {
            out.extend_from_slice(b",\"result\":");
            write_raw(result, &mut out);
        }
        Err(error) => {
            out.extend_from_slice(b",\"error\":");
            // A struct of texts and numbers always serialises, and a Vec takes every byte.
            drop(serde_json::to_writer(&mut out, error));
        }
    }
    out.extend_from_slice(b"}\n");
    out
}

/// Room for the fixed parts of every envelope beside the method and the payload, in bytes.
const ENVELOPE_BYTES: usize = 96;

fn begin(payload: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload + ENVELOPE_BYTES);
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\"");
    out
}

fn write_method(method: &str, params: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"method\":\"");
    out.extend_from_slice(method.as_bytes());
    out.push(b'"');
    if params != b"null" {
        out.extend_from_slice(b",\"params\":");
        write_raw(params, out);
    }
    out.extend_from_slice(b"}\n");
}

/// JSON text, with the line breaks between its tokens (there are none inside) made spaces.
fn write_raw(text: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(text);
    if memchr::memchr(b'\n', text).is_some() {
        for byte in out.iter_mut().skip(start).filter(|b| **b == b'\n') {
            *byte = b' ';
        }
    }
}

fn write_number(mut number: u64, out: &mut Vec<u8>) {
    let start = out.len();
    loop {
        // The remainder is a single digit.
        out.push(b'0' + u8::try_from(number % 10).unwrap_or_default());
        number /= 10;
        if number == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

#[cfg(test)]
mod tests;
