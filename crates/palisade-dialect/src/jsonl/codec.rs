//! Lines to messages and messages to lines.

use palisade_model::{Failure, Payload};

use super::is_unknown_method;
use crate::{
    DialectError, Id, Line,
    line::{Fields, error_parts, finish, is_method_name, plugin_failure, write_raw},
};

/// The JSON-RPC number of an error that says that a method is not known.
const UNKNOWN_METHOD: i64 = -32601;

/// Reads a line. Everything that is not clearly a message is [`Line::Noise`].
#[must_use]
pub fn decode_line(line: &[u8]) -> Line<'_> {
    let fail = |raw: &str| {
        let (text, number) = error_parts(raw);
        plugin_failure(&text, number == Some(UNKNOWN_METHOD) || is_unknown_method(&text))
    };
    match Fields::read(line).and_then(|fields| fields.message(fail)) {
        None | Some(Line::Notification { .. }) => Line::Noise,
        Some(message) => message,
    }
}

/// Writes a request as one line, its line break included.
///
/// # Errors
/// [`DialectError::Unsendable`] where `params` is no JSON, the method has no usual name or the line
/// would be longer than [`crate::LINE_BYTES`].
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
