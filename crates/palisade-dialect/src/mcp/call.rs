//! Calls and their results, and lines for the log.

use std::borrow::Cow;

use palisade_model::{ErrorCode, Failure, Payload, text::escape};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{CANCELLED, LOG_LINE_BYTES, TOOLS_CALL, codec};
use crate::{DialectError, ERROR_TEXT_CHARS};

/// From the parameters of a native `call` (`{tool, args}`) to those of [`TOOLS_CALL`]
/// (`{name, arguments}`). The arguments stay as they are written.
///
/// # Errors
/// [`DialectError::Unsendable`] where they are no such parameters, or the arguments are no object.
pub fn call_params(params: &Payload) -> Result<Payload, DialectError> {
    #[derive(Deserialize)]
    struct Call<'a> {
        #[serde(borrow)]
        tool: Cow<'a, str>,
        #[serde(borrow)]
        args: Option<&'a RawValue>,
    }
    let call: Call<'_> = serde_json::from_slice(params.bytes())
        .map_err(|_| DialectError::Unsendable("a call has a tool and arguments"))?;
    let args = call.args.map_or("{}", RawValue::get);
    if !args.starts_with('{') {
        return Err(DialectError::Unsendable("the arguments of a tool are an object"));
    }
    let mut text = Vec::with_capacity(params.len() + 24);
    text.extend_from_slice(b"{\"name\":");
    // A text always serialises, and a Vec takes every byte.
    drop(serde_json::to_writer(&mut text, &call.tool));
    text.extend_from_slice(b",\"arguments\":");
    text.extend_from_slice(args.as_bytes());
    text.push(b'}');
    Ok(Payload::from_json_text(text))
}

/// The line that says that a request is given up ([`CANCELLED`]), its line break included.
///
/// # Errors
/// None in practice; as [`codec::encode_notification`].
pub fn cancelled(id: u64) -> Result<Vec<u8>, DialectError> {
    let params = format!("{{\"requestId\":{id},\"reason\":\"the caller gave up\"}}");
    codec::encode_notification(CANCELLED, &Payload::from_json_text(params))
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
}

/// What the answer to [`TOOLS_CALL`] says: the result object as it is, or, with `isError`, the tool's
/// own error with the text of its content, cut at [`ERROR_TEXT_CHARS`] and escaped.
///
/// # Errors
/// The tool's error ([`ErrorCode::PluginError`]), and [`DialectError::Shape`] as a failure for an answer
/// that is no object or whose `isError` is no boolean.
pub fn call_result(answer: Payload) -> Result<Payload, Failure> {
    #[derive(Deserialize)]
    struct CallResult<'a> {
        #[serde(rename = "isError")]
        is_error: Option<bool>,
        #[serde(borrow)]
        content: Option<&'a RawValue>,
    }
    // serde takes an array for a struct as well.
    let is_object = answer.bytes().trim_ascii_start().first() == Some(&b'{');
    let result = serde_json::from_slice::<CallResult<'_>>(answer.bytes());
    let content = match result {
        Ok(CallResult { is_error: Some(true), content }) if is_object => content,
        Ok(_) if is_object => return Ok(answer),
        _ => {
            let what = "is no result of a tool".to_owned();
            return Err(DialectError::Shape { method: TOOLS_CALL, what }.into());
        }
    };
    let content: Vec<Content<'_>> =
        content.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let texts = content.iter().filter(|c| c.kind == "text").filter_map(|c| c.text.as_deref());
    let text = texts.collect::<Vec<_>>().join("\n");
    let text = if text.is_empty() { "the tool failed and did not say why" } else { &text };
    Err(Failure::new(ErrorCode::PluginError, escape(text, ERROR_TEXT_CHARS)))
}

/// The line for the log that the parameters of [`super::MESSAGE`] make, escaped, at most
/// [`LOG_LINE_BYTES`] long; `None` where they are none.
#[must_use]
pub fn log_line(params: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        level: Cow<'a, str>,
        #[serde(borrow)]
        logger: Option<Cow<'a, str>>,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let message: Message<'_> = serde_json::from_slice(params).ok()?;
    let data = message.data.get();
    let text = serde_json::from_str::<Cow<'_, str>>(data).unwrap_or(Cow::Borrowed(data));
    let logger = message.logger.map(|l| format!(" {}", escape(&l, 64))).unwrap_or_default();
    let mut line =
        format!("{}{logger}: {}", escape(&message.level, 16), escape(&text, LOG_LINE_BYTES));
    line.truncate(line.floor_char_boundary(LOG_LINE_BYTES));
    Some(line)
}
