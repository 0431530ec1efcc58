//! Arguments and results: a tool takes a JSON object and answers with a JSON value, a function of an Extism
//! module takes bytes and gives bytes.
//!
//! `docs/reference/extism.md` has the rules for people. They look at the bytes only as far as they must:
//! most arguments go in as they came.

use std::borrow::Cow;

use data_encoding::BASE64;
use palisade_model::{ErrorCode, Failure, Payload, text::escape};
use palisade_protocol::{bounds, scan};
use palisade_sandbox::ExtismOutput;
use serde::Deserialize;

use crate::world::json;

/// Levels of JSON that an answer can have.
const LEVELS: u32 = bounds::DEPTH_LEVELS - 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text<'a> {
    #[serde(borrow)]
    input: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64<'a> {
    #[serde(borrow)]
    input_base64: Cow<'a, str>,
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn trim(text: &[u8]) -> &[u8] {
    text.get(text.iter().take_while(|byte| is_space(byte)).count()..).unwrap_or_default()
}

/// The bytes that a function gets for a tool's arguments, which are well-formed JSON text.
///
/// # Errors
/// `input_base64` is not base64.
pub(crate) fn input(args: &[u8]) -> Result<Cow<'_, [u8]>, Failure> {
    let first_key = trim(args).strip_prefix(b"{").map(trim).unwrap_or_default();
    if first_key.starts_with(b"\"input\"") {
        if let Ok(text) = serde_json::from_slice::<Text<'_>>(args) {
            return Ok(match text.input {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            });
        }
    } else if first_key.starts_with(b"\"input_base64\"")
        && let Ok(text) = serde_json::from_slice::<Base64<'_>>(args)
    {
        let bytes = BASE64.decode(text.input_base64.as_bytes()).map_err(|e| {
            Failure::new(ErrorCode::InvalidParams, format!("input_base64 is not base64: {e}"))
        })?;
        return Ok(Cow::Owned(bytes));
    }
    Ok(Cow::Borrowed(args))
}

/// The tool's answer for a function's output.
///
/// # Errors
/// The answer would be longer than 4 MiB of JSON text, or was to be JSON and is not.
pub(crate) fn output(bytes: &[u8], means: ExtismOutput) -> Result<Payload, Failure> {
    let theirs =
        |what: String| Failure::new(ErrorCode::PluginError, format!("the plugin's answer: {what}"));
    if means == ExtismOutput::Json {
        if bytes.is_empty() {
            return Ok(Payload::null());
        }
        json::check(bytes, LEVELS).map_err(theirs)?;
        return Ok(Payload::from_json_text(bytes.to_vec()));
    }
    let answer = match std::str::from_utf8(bytes) {
        Ok(text) if means == ExtismOutput::Text => quoted(text),
        Ok(text) => as_json(text).map_or_else(|| quoted(text), |json| json.as_bytes().to_vec()),
        Err(_) => in_base64(bytes),
    };
    if answer.len() > bounds::FRAME_BYTES {
        return Err(theirs(format!("it is longer than {} bytes", bounds::FRAME_BYTES)));
    }
    Ok(Payload::from_json_text(answer))
}

/// The text without what stands around it, where it is one JSON object or array that can be passed on.
fn as_json(text: &str) -> Option<&str> {
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    let fits = matches!(text.as_bytes().first(), Some(b'{' | b'['))
        && scan::validate(text.as_bytes(), LEVELS).is_ok();
    fits.then_some(text)
}

/// The text as a JSON string.
fn quoted(text: &str) -> Vec<u8> {
    // Looked at in pieces without a way out, which compilers turn into few instructions.
    let needs_escape = |piece: &[u8]| {
        piece.iter().fold(false, |found, b| found | (*b < 0x20) | (*b == b'"') | (*b == b'\\'))
    };
    if !text.as_bytes().chunks(256).any(needs_escape) {
        return [b"\"", text.as_bytes(), b"\""].concat();
    }
    // A str always serialises.
    serde_json::to_vec(text).unwrap_or_default()
}

fn in_base64(bytes: &[u8]) -> Vec<u8> {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4 + 16);
    text.push_str("{\"base64\":\"");
    BASE64.encode_append(bytes, &mut text);
    text.push_str("\"}");
    text.into_bytes()
}

/// What a function says went wrong.
pub(crate) fn failure(error: Option<&[u8]>, status: i32) -> Failure {
    let message = match error {
        Some(text) => escape(&String::from_utf8_lossy(text), 2000),
        None => format!("the function ended with {status} and said nothing about it"),
    };
    Failure::new(ErrorCode::PluginError, message)
}

/// The parameters of a `host.call` for what a plugin handed to a function of `extism:host/user`: a single
/// JSON object as it is, everything else as `{"args": […]}`.
pub(crate) fn host_params(args: &[&[u8]]) -> Vec<u8> {
    if let [only] = args
        && trim(only).first() == Some(&b'{')
        && let Ok(text) = std::str::from_utf8(only)
        && let Some(json) = as_json(text)
    {
        return json.as_bytes().to_vec();
    }
    let mut params = b"{\"args\":[".to_vec();
    for (number, arg) in args.iter().enumerate() {
        if number > 0 {
            params.push(b',');
        }
        params.append(&mut match std::str::from_utf8(arg) {
            Ok("") => b"null".to_vec(),
            Ok(text) => quoted(text),
            Err(_) => in_base64(arg),
        });
    }
    params.extend_from_slice(b"]}");
    params
}

/// The bytes that a plugin gets for the result of a `host.call`: a string's own, none for `null`, otherwise
/// the JSON text.
pub(crate) fn host_result(result: &Payload) -> Cow<'_, [u8]> {
    let text = result.bytes().as_ref();
    match trim(text).first() {
        Some(b'"') => match serde_json::from_slice::<Cow<'_, str>>(text) {
            Ok(text) => Cow::Owned(text.into_owned().into_bytes()),
            Err(_) => Cow::Borrowed(text),
        },
        Some(b'n') => Cow::Borrowed(&[]),
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(args: &str) -> String {
        String::from_utf8(input(args.as_bytes()).expect("bytes").into_owned()).expect("text")
    }

    fn answered(bytes: &[u8]) -> String {
        meant(bytes, ExtismOutput::Auto)
    }

    fn meant(bytes: &[u8], means: ExtismOutput) -> String {
        let payload = output(bytes, means).expect("a result");
        String::from_utf8(payload.bytes().to_vec()).expect("text")
    }

    #[test]
    fn one_text_goes_in_as_its_bytes() {
        assert_eq!(given(r#"{"input":"Hello, \"world\"\u00e4"}"#), "Hello, \"world\"ä");
        assert_eq!(given(" { \"input\" : \"x\" } "), "x");
        assert_eq!(given(r#"{"input":""}"#), "");
        assert_eq!(input(br#"{"input_base64":"AP8="}"#).expect("bytes").as_ref(), [0, 255]);
    }

    #[test]
    fn every_other_object_goes_in_as_its_json_text() {
        for args in [
            "{}",
            r#"{"input":"a","count":2}"#,
            r#"{"count":2,"input":"a"}"#,
            r#"{"input":5}"#,
            r#"{"inputs":"a"}"#,
            r#"{"input_base64":null}"#,
        ] {
            assert_eq!(given(args), args);
        }
    }

    #[test]
    fn what_is_said_to_be_base64_and_is_not_is_refused() {
        let refused = input(br#"{"input_base64":"?"}"#).expect_err("a refusal");
        assert_eq!(refused.code, ErrorCode::InvalidParams);
    }

    #[test]
    fn output_is_json_where_it_is_an_object_or_array_and_else_text_or_base64() {
        assert_eq!(answered(b" {\"count\": 3}\n"), "{\"count\": 3}");
        assert_eq!(answered(b"[1,2]"), "[1,2]");
        assert_eq!(answered(b"{\"count\":"), r#""{\"count\":""#);
        assert_eq!(answered(b"{} {}"), r#""{} {}""#);
        assert_eq!(answered(b"12"), r#""12""#);
        assert_eq!(answered(b""), r#""""#);
        assert_eq!(answered(&[0, 255]), r#"{"base64":"AP8="}"#);
        assert_eq!(answered(b"{\"a\":\"\xff\"}"), r#"{"base64":"eyJhIjoi/yJ9"}"#);
        let deep = "[".repeat(64) + &"]".repeat(64);
        assert_eq!(answered(deep.as_bytes()), format!("\"{deep}\""), "deeper than a message goes");
        assert_eq!(answered(br#"["\ud83d"]"#), r#""[\"\\ud83d\"]""#, "no character");
    }

    #[test]
    fn output_that_is_said_to_be_json_is_that_or_a_mistake_of_the_plugin() {
        let json = |bytes| meant(bytes, ExtismOutput::Json);
        for text in ["12", "null", "true", "\"x\"", "[1]", "{\"a\": 1}"] {
            assert_eq!(json(text.as_bytes()), text);
        }
        assert_eq!(json(b""), "null");
        let deep = "[".repeat(64) + &"]".repeat(64);
        for (bytes, says) in [
            (&b"twelve"[..], "not JSON"),
            (b"1 2", "not JSON"),
            (&[0, 255], "not JSON"),
            (br#""\ud83d""#, "surrogate"),
            (deep.as_bytes(), "deep"),
        ] {
            let refused = output(bytes, ExtismOutput::Json).expect_err("a refusal");
            assert_eq!(refused.code, ErrorCode::PluginError);
            assert!(refused.message.contains(says), "{refused}");
        }
    }

    #[test]
    fn output_that_is_said_to_be_text_is_a_string() {
        let text = |bytes| meant(bytes, ExtismOutput::Text);
        assert_eq!(text(b"[1]"), r#""[1]""#);
        assert_eq!(text(b"{}"), r#""{}""#);
        assert_eq!(text(&[0, 255]), r#"{"base64":"AP8="}"#);
    }

    #[test]
    fn text_of_any_length_is_quoted_as_json_has_it() {
        for special in ["", "\"", "\\", "\u{1f}", "\n", "\u{7f}", "ä", "\u{2028}"] {
            for before in [0, 1, 255, 256, 1000] {
                let text = format!("{}{special}{}", "x".repeat(before), "y".repeat(300));
                assert_eq!(quoted(&text), serde_json::to_vec(&text).expect("JSON"), "{text:?}");
            }
        }
    }

    #[test]
    fn a_result_over_the_limit_is_refused() {
        for means in [ExtismOutput::Auto, ExtismOutput::Text, ExtismOutput::Json] {
            let refused =
                output(&vec![b'x'; bounds::FRAME_BYTES + 1], means).expect_err("a refusal");
            assert_eq!(refused.code, ErrorCode::PluginError);
            assert!(refused.message.contains("longer than 4194304 bytes"), "{refused}");
        }
    }

    #[test]
    fn host_functions_get_an_object_as_it_is_and_other_blocks_in_a_list() {
        let params = |args: &[&[u8]]| String::from_utf8(host_params(args)).expect("text");
        assert_eq!(params(&[b" {\"a\":1}"]), "{\"a\":1}");
        assert_eq!(params(&[b"[1]"]), r#"{"args":["[1]"]}"#);
        assert_eq!(params(&[b"{\"a\":1}", b"k"]), r#"{"args":["{\"a\":1}","k"]}"#);
        assert_eq!(params(&[b"", &[255]]), r#"{"args":[null,{"base64":"/w=="}]}"#);
        assert_eq!(params(&[]), r#"{"args":[]}"#);
    }

    #[test]
    fn what_a_host_function_answers_comes_in_as_text_or_json() {
        let bytes = |json: &'static str| {
            let payload = Payload::from_json_text(json.as_bytes().to_vec());
            String::from_utf8(host_result(&payload).into_owned()).expect("text")
        };
        assert_eq!(bytes(r#""a\nb""#), "a\nb");
        assert_eq!(bytes("null"), "");
        assert_eq!(bytes(r#"{"a":1}"#), r#"{"a":1}"#);
        assert_eq!(bytes("12"), "12");
    }
}
