//! What a line says, read so that no other parser can read it as something else.
//!
//! Only what decides is read: the version, the id, the method, whether it is a request, a notification or
//! an answer. Everything else stays text. A line that two parsers could read differently, or that a reader
//! could cut into two lines, is no message here.

use std::borrow::Cow;

use palisade_model::{ErrorCode, Failure};
use serde_json::{Map, Value, json, value::RawValue};

use crate::json::{Object, string};

/// Deepest nesting of a message. Deeper than any schema or result that is meant to be read.
pub const DEPTH_LEVELS: u32 = 128;
/// Longest id of a request, in bytes of its text.
pub const ID_BYTES: usize = 256;
/// Longest method name, in bytes.
const METHOD_BYTES: usize = 256;

/// JSON-RPC 2.0, section 5.1.
pub(crate) const PARSE_ERROR: i64 = -32700;
pub(crate) const INVALID_REQUEST: i64 = -32600;
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
pub(crate) const INVALID_PARAMS: i64 = -32602;
pub(crate) const INTERNAL_ERROR: i64 = -32603;

/// An id as requests and answers are matched by it: the other side may spell it differently.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum IdKey {
    Text(String),
    Integer(i128),
    /// A number that is no integer of a size that all parsers hold.
    Number(String),
}

impl IdKey {
    fn parse(raw: &str) -> Option<Self> {
        if raw.len() > ID_BYTES {
            return None;
        }
        if raw.starts_with('"') {
            return string(raw).map(|text| Self::Text(text.into_owned()));
        }
        if !raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            return None;
        }
        if let Ok(integer) = raw.parse() {
            return Some(Self::Integer(integer));
        }
        match raw.parse::<f64>() {
            // 2^53: up to here every integer is a number of its own.
            Ok(n) if n.fract() == 0.0 && n.abs() <= 9_007_199_254_740_992.0 =>
            {
                #[allow(clippy::cast_possible_truncation, reason = "it is whole and small")]
                Some(Self::Integer(n as i128))
            }
            Ok(n) if n.is_finite() && n.fract() != 0.0 => Some(Self::Number(n.to_string())),
            _ => Some(Self::Number(raw.to_owned())),
        }
    }
}

/// An id, as it is spelled and as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Id<'a> {
    pub(crate) raw: &'a str,
    pub(crate) key: IdKey,
}

impl<'a> Id<'a> {
    /// Reads an id's text.
    pub(crate) fn parse(raw: &'a str) -> Option<Self> {
        Some(Self { raw, key: IdKey::parse(raw)? })
    }
}

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    Request {
        id: Id<'a>,
        method: Cow<'a, str>,
        params: Option<&'a str>,
    },
    Notification {
        method: Cow<'a, str>,
        params: Option<&'a str>,
    },
    Answer {
        id: Id<'a>,
        outcome: Result<&'a str, &'a str>,
    },
    /// An error that answers nothing that could be named.
    Complaint,
}

/// A line that is no message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Nothing but space.
    Blank,
    /// Not JSON, or not JSON-RPC 2.0: a banner, a line for the log.
    Stray,
    /// It would be a message, but is not clearly one.
    Unclear {
        /// What is wrong, escaped.
        why: String,
        /// The id as it is spelled, where there is one that can be trusted to be it.
        id: Option<String>,
    },
}

fn unclear(why: impl Into<String>, id: Option<&str>) -> Unfit {
    Unfit::Unclear { why: why.into(), id: id.map(str::to_owned) }
}

/// Whether the nesting of `text` stays within [`DEPTH_LEVELS`]. The text need not be JSON.
fn is_shallow(text: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0u32, false, false);
    for byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_LEVELS {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

const TOP: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

/// Reads a line (with or without its line break).
pub(crate) fn read(line: &[u8]) -> Result<Message<'_>, Unfit> {
    let body = line.strip_suffix(b"\n").unwrap_or(line);
    let body = body.strip_suffix(b"\r").unwrap_or(body);
    match body.iter().find(|b| !b.is_ascii_whitespace()) {
        None => return Err(Unfit::Blank),
        Some(b'{') => {}
        Some(b'[') if serde_json::from_slice::<&RawValue>(body).is_ok() => {
            return Err(unclear("batches are not spoken here; send one message a line", None));
        }
        Some(_) => return Err(Unfit::Stray),
    }
    let text = std::str::from_utf8(body).map_err(|_| Unfit::Stray)?;
    if !is_shallow(body) {
        return Err(unclear(format!("it is nested deeper than {DEPTH_LEVELS} levels"), None));
    }
    if serde_json::from_str::<&RawValue>(text).is_err() {
        return Err(Unfit::Stray);
    }
    let object = match Object::read(text, &TOP) {
        Ok(object) => object,
        Err(why) => return Err(unclear(why.to_string(), None)),
    };
    // What some readers take for the end of a line would make two messages of one (Python's text mode).
    if memchr::memchr(b'\r', body).is_some() {
        return Err(unclear("there is a carriage return inside", None));
    }
    let Some(version) = object.get("jsonrpc") else { return Err(Unfit::Stray) };
    if string(version).as_deref() != Some("2.0") {
        return Err(Unfit::Stray);
    }
    classify(&object)
}

fn classify<'a>(object: &Object<'a>) -> Result<Message<'a>, Unfit> {
    let raw = object.get("id").filter(|raw| *raw != "null");
    let id = match raw {
        Some(raw) => match Id::parse(raw) {
            Some(id) => Some(id),
            None => return Err(unclear("the id is no text and no number, or too long", None)),
        },
        None => None,
    };
    let has_null_id = object.get("id").is_some() && id.is_none();
    let params = object.get("params");
    // `"error": null` beside a result, and the other way round, is how some say that there is none.
    let (result, error) = match (object.get("result"), object.get("error")) {
        (Some(result), Some("null")) => (Some(result), None),
        (Some("null"), Some(error)) => (None, Some(error)),
        both => both,
    };
    let Some(method) = object.get("method") else {
        if params.is_some() {
            return Err(unclear("it has params but no method", raw));
        }
        return match (id, result, error) {
            (Some(id), Some(result), None) => Ok(Message::Answer { id, outcome: Ok(result) }),
            (Some(id), None, Some(error)) => Ok(Message::Answer { id, outcome: Err(error) }),
            (None, None, Some(_)) => Ok(Message::Complaint),
            (_, Some(_), Some(_)) => Err(unclear("it has a result and an error", raw)),
            _ => Err(unclear("it is no request, no notification and no answer", raw)),
        };
    };
    if result.is_some() || error.is_some() {
        return Err(unclear("it has a method and an answer", None));
    }
    if has_null_id {
        return Err(unclear("the id is null", None));
    }
    let method = string(method).filter(|m| (1..=METHOD_BYTES).contains(&m.len()));
    let Some(method) = method else { return Err(unclear("the method is no name", raw)) };
    Ok(match id {
        Some(id) => Message::Request { id, method, params },
        None => Message::Notification { method, params },
    })
}

/// The line of an error.
pub(crate) fn error_line(id: Option<&str>, number: i64, failure: &Failure) -> Vec<u8> {
    error_line_with(id, number, failure, Map::new())
}

/// The line of an error with more `data` than the failure has.
pub(crate) fn error_line_with(
    id: Option<&str>,
    number: i64,
    failure: &Failure,
    mut data: Map<String, Value>,
) -> Vec<u8> {
    data.insert("code".to_owned(), json!(failure.code));
    for (key, value) in [("rule", &failure.rule), ("hint", &failure.hint)] {
        if let Some(value) = value {
            data.insert(key.to_owned(), json!(value));
        }
    }
    if let Some(after) = failure.retry_after_ms {
        data.insert("retryAfterMs".to_owned(), json!(after));
    }
    let error = json!({ "code": number, "message": failure.message, "data": data });
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"error\":{error}}}\n", id.unwrap_or("null"))
        .into_bytes()
}

/// The number for a failure of Palisade's own. The protocol has the range from -32768 to -32000 for
/// itself (specification 2026-07-28, basic, error codes); beside it, ours keep their order.
pub(crate) fn number(code: ErrorCode) -> i64 {
    match code {
        ErrorCode::NotFound => METHOD_NOT_FOUND,
        ErrorCode::InvalidParams => INVALID_PARAMS,
        ErrorCode::Internal => INTERNAL_ERROR,
        code => i64::from(code.json_rpc()) + 1000,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(line: &str) -> &'static str {
        match read(line.as_bytes()) {
            Ok(Message::Request { .. }) => "request",
            Ok(Message::Notification { .. }) => "notification",
            Ok(Message::Answer { .. }) => "answer",
            Ok(Message::Complaint) => "complaint",
            Err(Unfit::Blank) => "blank",
            Err(Unfit::Stray) => "stray",
            Err(Unfit::Unclear { .. }) => "unclear",
        }
    }

    #[test]
    fn messages_are_told_apart() {
        for (line, expected) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, "request"),
            ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\r\n", "request"),
            (r#" {"method":"x/y","params":[1],"id":"a","jsonrpc":"2.\u0030"}"#, "request"),
            (r#"{"jsonrpc":"2.0","id":-1.5,"method":"x"}"#, "request"),
            (r#"{"jsonrpc":"2.0","method":"x","extra":{"method":"y"}}"#, "notification"),
            (r#"{"jsonrpc":"2.0","id":1,"result":null}"#, "answer"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#, "answer"),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#, "answer"),
            (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":""}}"#, "complaint"),
            (r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":""}}"#, "complaint"),
            ("", "blank"),
            (" \r\n", "blank"),
            ("Server running on stdio", "stray"),
            (r#"{"level":"info","msg":"started"}"#, "stray"),
            (r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#, "stray"),
            (r#"{"jsonrpc":2.0,"id":1,"method":"x"}"#, "stray"),
            ("{\"jsonrpc\":\"2.0\",\"method\":\"a\u{0}\"}", "stray"),
            (r#"{"jsonrpc":"2.0","method":"x","params":NaN}"#, "stray"),
        ] {
            assert_eq!(kind(line), expected, "{line}");
        }
        assert_eq!(read(b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}"), Err(Unfit::Stray));
    }

    #[test]
    fn what_could_be_read_differently_is_unclear() {
        for line in [
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","param\u017f":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","x":1,"x":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"params":{}}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":""}"#,
            r#"{"jsonrpc":"2.0","\ud800id":1,"method":"x"}"#,
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
            "{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":\r{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\r}",
            &format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"x"}}"#, "i".repeat(ID_BYTES)),
            &format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, "i".repeat(METHOD_BYTES + 1)),
            &format!(
                r#"{{"jsonrpc":"2.0","method":"x","params":{}{}}}"#,
                "[".repeat(128),
                "]".repeat(128)
            ),
        ] {
            assert_eq!(kind(line), "unclear", "{line}");
        }
        let deep = format!(
            r#"{{"jsonrpc":"2.0","method":"x","params":{}{}}}"#,
            "[".repeat(127),
            "]".repeat(127)
        );
        assert_eq!(kind(&deep), "notification");
    }

    #[test]
    fn ids_are_the_same_however_they_are_spelled() {
        let key = |raw| IdKey::parse(raw);
        for (a, b) in [
            ("1", "1.0"),
            ("100", "1e2"),
            ("0", "-0"),
            ("-7.50", "-75e-1"),
            (r#""ab""#, r#""\u0061b""#),
        ] {
            assert_eq!(key(a).unwrap(), key(b).unwrap(), "{a} {b}");
        }
        for (a, b) in [("1", r#""1""#), ("1", "1.5"), ("9007199254740993", "9007199254740992")] {
            assert_ne!(key(a).unwrap(), key(b).unwrap(), "{a} {b}");
        }
        for none in ["true", "null", "[]", "{}", r#""\ud800""#] {
            assert_eq!(key(none), None, "{none}");
        }
    }

    #[test]
    fn an_error_keeps_the_id_as_it_was_spelled() {
        let failure = Failure::new(ErrorCode::Denied, "no\u{1b}\"").hint("ask");
        let line = String::from_utf8(error_line(Some("1.0e0"), -31001, &failure)).unwrap();
        assert!(line.starts_with(r#"{"jsonrpc":"2.0","id":1.0e0,"error":{"#), "{line}");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["error"]["data"], json!({"code": "PAL-DENIED", "hint": "ask"}));
        assert_eq!(number(ErrorCode::Denied), -31001);
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let _ = read(&[b"{\"jsonrpc\":\"2.0\",\"id\":", &bytes[..], b"}"].concat());
        }
    }
}
