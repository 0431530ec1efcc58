//! One line and the message in it: what the dialects have in common.
//!
//! Reading is where hostile bytes are bounded: depth, ids, method names and surrogate escapes are held
//! before anything is believed. What a method means, and how an error is worded, is the dialect's.

use std::{borrow::Cow, fmt};

use palisade_model::{Encoding, ErrorCode, Failure, Payload, text::escape};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::DialectError;

/// Longest line, without its line break, in bytes: 4 MiB.
pub const LINE_BYTES: usize = 4 << 20;
/// Deepest nesting of arrays and objects in a line; a deeper one is noise.
pub const DEPTH_LEVELS: u32 = 64;
/// Longest method name of a plugin's request, in bytes.
pub const METHOD_BYTES: usize = 128;
/// Longest textual id, in bytes.
pub const ID_BYTES: usize = 64;
/// Largest numeric id: 2^53.
pub const ID_MAX: u64 = 1 << 53;
/// Longest text taken over from a plugin's error, in characters.
pub const ERROR_TEXT_CHARS: usize = 2000;

/// A request's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Id {
    /// An integer from 0 to 2^53.
    Number(u64),
    /// A text of at most [`ID_BYTES`] bytes, such as `init-1`.
    Text(Box<str>),
}

impl Id {
    fn parse(raw: &str) -> Option<Self> {
        if raw.starts_with('"') {
            let text: Cow<'_, str> = serde_json::from_str(raw).ok()?;
            return (text.len() <= ID_BYTES).then(|| Self::Text(text.into()));
        }
        // `u64` takes digits only: no sign, fraction or exponent, and no more than fit.
        let number = serde_json::from_str(raw).ok()?;
        (number <= ID_MAX).then_some(Self::Number(number))
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        // Numbers and texts always serialise, and a Vec takes every byte.
        drop(match self {
            Self::Number(number) => serde_json::to_writer(out, number),
            Self::Text(text) => serde_json::to_writer(out, text),
        });
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "\"{}\"", escape(text, ID_BYTES)),
        }
    }
}

/// What a line from a plugin is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// An answer. Whether the id belongs to a pending request is for the caller to say.
    Answer {
        /// The id of the request it answers.
        id: Id,
        /// JSON text of the result; or the error, its text cut at [`ERROR_TEXT_CHARS`] and escaped:
        /// [`ErrorCode::NotFound`] where the plugin does not know the method, else
        /// [`ErrorCode::PluginError`].
        outcome: Result<&'a [u8], Failure>,
    },
    /// A request of the plugin, such as `data_request`.
    Request {
        /// The id to answer with.
        id: Id,
        /// 1..=[`METHOD_BYTES`] characters of `A-Z a-z 0-9 . _ - / $`.
        method: String,
        /// JSON text; `null` where the line has none.
        params: &'a [u8],
    },
    /// A message that no answer is due to. Only [`crate::mcp`] has them; in `jsonl` they are noise.
    Notification {
        /// As in a request.
        method: String,
        /// JSON text; `null` where the line has none.
        params: &'a [u8],
    },
    /// Anything else.
    Noise,
}

/// The fields of a line that count, not yet made sense of.
#[derive(Deserialize)]
pub(crate) struct Fields<'a> {
    #[serde(borrow)]
    pub(crate) jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// Keeps `null` apart from a missing field.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl<'a> Fields<'a> {
    /// Reads a line that is one JSON object within the bounds; `None` for every other.
    pub(crate) fn read(line: &'a [u8]) -> Option<Self> {
        // Most noise is no object; it need not be looked at further.
        if line.len() > LINE_BYTES || line.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{')
        {
            return None;
        }
        let text = std::str::from_utf8(line).ok()?;
        // Before the parse, which goes as deep as the line does.
        if !is_sound(line) {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    /// The message. `fail` words an error, given as JSON text.
    pub(crate) fn message(self, fail: impl FnOnce(&str) -> Failure) -> Option<Line<'a>> {
        let id = match self.id {
            Some(raw) => Some(Id::parse(raw.get())?),
            None => None,
        };
        if let Some(method) = self.method {
            let params = self.params.map_or(&b"null"[..], |raw| raw.get().as_bytes());
            let method = is_method_name(&method).then(|| method.into_owned())?;
            return Some(match id {
                Some(id) => Line::Request { id, method, params },
                None => Line::Notification { method, params },
            });
        }
        // `"error": null` beside a result is how JSON-RPC 1.0 says success.
        let outcome = match (self.error.filter(|e| e.get() != "null"), self.result) {
            (Some(error), _) => Err(fail(error.get())),
            (None, Some(result)) => Ok(result.get().as_bytes()),
            (None, None) => return None,
        };
        Some(Line::Answer { id: id?, outcome })
    }
}

pub(crate) fn is_method_name(name: &str) -> bool {
    (1..=METHOD_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b'$'))
}

/// The words and the number of an error: a text, or an object whose `message` counts.
pub(crate) fn error_parts(raw: &str) -> (String, Option<i64>) {
    #[derive(Deserialize)]
    struct Object {
        message: Option<String>,
        code: Option<serde_json::Number>,
    }
    if let Ok(text) = serde_json::from_str::<String>(raw) {
        (text, None)
    } else if let Ok(Object { message: Some(message), code }) = serde_json::from_str(raw) {
        (message, code.and_then(|code| code.as_i64()))
    } else {
        (raw.to_owned(), None)
    }
}

/// The failure of an error that a plugin answered with.
pub(crate) fn plugin_failure(text: &str, is_unknown_method: bool) -> Failure {
    let code = if is_unknown_method { ErrorCode::NotFound } else { ErrorCode::PluginError };
    Failure::new(code, escape(text, ERROR_TEXT_CHARS))
}

/// Whether text is nested no deeper than allowed and holds no lone surrogate escape. The text need not
/// be JSON: what is not is noticed by the parse that follows.
fn is_sound(text: &[u8]) -> bool {
    let (mut depth, mut in_string, mut high) = (0u32, false, false);
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escaped = in_string && byte == b'\\';
        // A high half must be followed at once by the escape of a low half.
        if high && !(escaped && rest.first() == Some(&b'u')) {
            return false;
        }
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                let Some((&kind, after)) = rest.split_first() else { return false };
                rest = after;
                if kind != b'u' {
                    continue;
                }
                let digits = rest.get(..4).and_then(|d| std::str::from_utf8(d).ok());
                let Some(unit) = digits.and_then(|d| u16::from_str_radix(d, 16).ok()) else {
                    return false;
                };
                rest = rest.get(4..).unwrap_or_default();
                match unit {
                    0xD800..=0xDBFF if high => return false,
                    0xD800..=0xDBFF => high = true,
                    0xDC00..=0xDFFF if !high => return false,
                    0xDC00..=0xDFFF => high = false,
                    _ if high => return false,
                    _ => {}
                }
            }
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > DEPTH_LEVELS {
                    return false;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    !high
}

/// JSON text, with the line breaks between its tokens (there are none inside) made spaces.
pub(crate) fn write_raw(payload: &Payload, out: &mut Vec<u8>) -> Result<(), DialectError> {
    let valid = payload.encoding() == Encoding::Json
        && is_sound(payload.bytes())
        && serde_json::from_slice::<&RawValue>(payload.bytes()).is_ok();
    if !valid {
        return Err(DialectError::Unsendable("the payload is not JSON of at most 64 levels"));
    }
    let spaced = payload.bytes().iter().map(|b| if *b == b'\n' { b' ' } else { *b });
    out.extend(spaced);
    Ok(())
}

/// Closes an object and its line.
pub(crate) fn finish(mut line: Vec<u8>) -> Result<Vec<u8>, DialectError> {
    line.extend_from_slice(b"}\n");
    if line.len() > LINE_BYTES + 1 {
        return Err(DialectError::Unsendable("the line is too long"));
    }
    Ok(line)
}
