//! Lines to messages and messages to lines.

use std::{borrow::Cow, fmt};

use palisade_model::{Encoding, ErrorCode, Failure, Payload, text::escape};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    DEPTH_LEVELS, ERROR_TEXT_CHARS, ID_BYTES, ID_MAX, LINE_BYTES, METHOD_BYTES, is_unknown_method,
};
use crate::DialectError;

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

    fn write(&self, out: &mut Vec<u8>) {
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
    /// Anything else.
    Noise,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
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

/// Reads a line. Everything that is not clearly a message is [`Line::Noise`].
#[must_use]
pub fn decode_line(line: &[u8]) -> Line<'_> {
    decode(line).unwrap_or(Line::Noise)
}

fn decode(line: &[u8]) -> Option<Line<'_>> {
    // Most noise is no object; it need not be looked at further.
    if line.len() > LINE_BYTES || line.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        return None;
    }
    let text = std::str::from_utf8(line).ok()?;
    // Before the parse, which goes as deep as the line does.
    if !is_sound(line) {
        return None;
    }
    let fields: Fields<'_> = serde_json::from_str(text).ok()?;
    let id = Id::parse(fields.id?.get())?;
    if let Some(method) = fields.method {
        let params = fields.params.map_or(&b"null"[..], |raw| raw.get().as_bytes());
        return is_method_name(&method).then(|| Line::Request {
            id,
            method: method.into_owned(),
            params,
        });
    }
    // `"error": null` beside a result is how JSON-RPC 1.0 says success.
    let outcome = match (fields.error.filter(|e| e.get() != "null"), fields.result) {
        (Some(error), _) => Err(failure(error.get())),
        (None, Some(result)) => Ok(result.get().as_bytes()),
        (None, None) => return None,
    };
    Some(Line::Answer { id, outcome })
}

fn is_method_name(name: &str) -> bool {
    (1..=METHOD_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b'$'))
}

/// The error as text or as an object; of an object the `message` counts, and the JSON-RPC number
/// -32601 says that the method is not known.
fn failure(raw: &str) -> Failure {
    #[derive(Deserialize)]
    struct Object {
        message: Option<String>,
        code: Option<serde_json::Number>,
    }
    let (text, number) = if let Ok(text) = serde_json::from_str::<String>(raw) {
        (text, None)
    } else if let Ok(Object { message: Some(message), code }) = serde_json::from_str(raw) {
        (message, code.and_then(|code| code.as_i64()))
    } else {
        (raw.to_owned(), None)
    };
    let unknown = number == Some(-32601) || is_unknown_method(&text);
    let code = if unknown { ErrorCode::NotFound } else { ErrorCode::PluginError };
    Failure::new(code, escape(&text, ERROR_TEXT_CHARS))
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

/// Writes a request as one line, its line break included.
///
/// # Errors
/// [`DialectError::Unsendable`] where `params` is no JSON, the method has no usual name or the line
/// would be longer than [`LINE_BYTES`].
pub fn encode_request(id: &Id, method: &str, params: &Payload) -> Result<Vec<u8>, DialectError> {
    if !is_method_name(method) {
        return Err(DialectError::Unsendable("not a method name"));
    }
    let mut out = Vec::with_capacity(params.len() + method.len() + 64);
    out.extend_from_slice(b"{\"id\":");
    id.write(&mut out);
    out.extend_from_slice(b",\"method\":\"");
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(b"\",\"params\":");
    write_raw(params, &mut out)?;
    finish(out)
}

/// Writes the answer to a plugin's request as one line, its line break included.
///
/// # Errors
/// As [`encode_request`].
pub fn encode_answer(
    id: &Id,
    outcome: Result<&Payload, &Failure>,
) -> Result<Vec<u8>, DialectError> {
    let mut out = Vec::with_capacity(outcome.map_or(0, Payload::len) + 256);
    out.extend_from_slice(b"{\"id\":");
    id.write(&mut out);
    match outcome {
        Ok(result) => {
            out.extend_from_slice(b",\"result\":");
            write_raw(result, &mut out)?;
        }
        Err(failure) => {
            out.extend_from_slice(b",\"error\":");
            // A text always serialises, and a Vec takes every byte.
            drop(serde_json::to_writer(&mut out, &failure.to_string()));
        }
    }
    finish(out)
}

/// The parameters of [`super::CALL`]. `args` is JSON text; it is checked when the request is encoded.
#[must_use]
pub fn call_params(tool: &str, args: &Payload) -> Payload {
    let mut text = Vec::with_capacity(tool.len() + args.len() + 24);
    text.extend_from_slice(b"{\"tool\":");
    drop(serde_json::to_writer(&mut text, tool));
    text.extend_from_slice(b",\"args\":");
    text.extend_from_slice(args.bytes());
    text.push(b'}');
    Payload::from_json_text(text)
}

/// JSON text, with the line breaks between its tokens (there are none inside) made spaces.
fn write_raw(payload: &Payload, out: &mut Vec<u8>) -> Result<(), DialectError> {
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

fn finish(mut line: Vec<u8>) -> Result<Vec<u8>, DialectError> {
    line.extend_from_slice(b"}\n");
    if line.len() > LINE_BYTES + 1 {
        return Err(DialectError::Unsendable("the line is too long"));
    }
    Ok(line)
}
