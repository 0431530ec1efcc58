//! Lines to messages and messages to lines.

use palisade_model::{ErrorCode, Failure, Payload};

use crate::{
    DialectError, Id, Line,
    line::{Fields, error_parts, finish, is_method_name, plugin_failure, write_raw},
};

/// JSON-RPC 2.0, section 5.1: the method does not exist.
const METHOD_NOT_FOUND: i64 = -32601;
/// JSON-RPC 2.0, section 5.1: not a valid request.
const INVALID_REQUEST: i32 = -32600;

/// Reads a line. Everything that is not clearly a message of JSON-RPC 2.0 is [`Line::Noise`], batches
/// (which one old revision allowed) too.
#[must_use]
pub fn decode_line(line: &[u8]) -> Line<'_> {
    let fail = |raw: &str| {
        let (text, number) = error_parts(raw);
        plugin_failure(&text, number == Some(METHOD_NOT_FOUND))
    };
    Fields::read(line)
        .filter(|fields| fields.jsonrpc.is_some_and(|version| version.get() == "\"2.0\""))
        .and_then(|fields| fields.message(fail))
        .unwrap_or(Line::Noise)
}

/// Whether the parameters of a server's request are what the specification allows: an object or nothing.
///
/// # Errors
/// A [`ErrorCode::ProtocolBreach`], which [`encode_answer`] writes as -32600.
pub fn check_request(params: &Payload) -> Result<(), Failure> {
    match params.bytes().first() {
        Some(b'{') => Ok(()),
        _ if params.bytes().as_ref() == b"null" => Ok(()),
        _ => Err(Failure::new(ErrorCode::ProtocolBreach, "the parameters are not an object")),
    }
}

fn begin(capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity + 96);
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\"");
    out
}

fn write_call(out: &mut Vec<u8>, method: &str, params: &Payload) -> Result<(), DialectError> {
    if !is_method_name(method) {
        return Err(DialectError::Unsendable("not a method name"));
    }
    out.extend_from_slice(b",\"method\":\"");
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(b"\",\"params\":");
    write_raw(params, out)
}

/// Writes a request as one line, its line break included.
///
/// # Errors
/// [`DialectError::Unsendable`] where `params` is no JSON, the method has no usual name or the line
/// would be longer than [`crate::LINE_BYTES`].
pub fn encode_request(id: &Id, method: &str, params: &Payload) -> Result<Vec<u8>, DialectError> {
    let mut out = begin(method.len() + params.len());
    out.extend_from_slice(b",\"id\":");
    id.write(&mut out);
    write_call(&mut out, method, params)?;
    finish(out)
}

/// Writes a notification as one line, its line break included.
///
/// # Errors
/// As [`encode_request`].
pub fn encode_notification(method: &str, params: &Payload) -> Result<Vec<u8>, DialectError> {
    let mut out = begin(method.len() + params.len());
    write_call(&mut out, method, params)?;
    finish(out)
}

/// Writes the answer to a server's request as one line, its line break included. A failure becomes an
/// error object with the number of its code; a breach of the protocol is -32600 here.
///
/// # Errors
/// As [`encode_request`].
pub fn encode_answer(
    id: &Id,
    outcome: Result<&Payload, &Failure>,
) -> Result<Vec<u8>, DialectError> {
    let mut out = begin(outcome.map_or(256, Payload::len));
    out.extend_from_slice(b",\"id\":");
    id.write(&mut out);
    match outcome {
        Ok(result) => {
            out.extend_from_slice(b",\"result\":");
            write_raw(result, &mut out)?;
        }
        Err(failure) => {
            let number = match failure.code {
                ErrorCode::ProtocolBreach => INVALID_REQUEST,
                code => code.json_rpc(),
            };
            out.extend_from_slice(
                format!(",\"error\":{{\"code\":{number},\"message\":").as_bytes(),
            );
            // A text always serialises, and a Vec takes every byte.
            drop(serde_json::to_writer(&mut out, &failure.to_string()));
            out.push(b'}');
        }
    }
    finish(out)
}
