//! Errors as they stand on the wire: a stable text, a number, one sentence.

use std::time::Duration;

use serde::Serialize;

use crate::error::{PalisadeError, cut};

/// Texts and numbers. Of several texts with one number the first stands for it.
const NUMBERS: [(&str, i64); 18] = [
    ("PAL-NOT-FOUND", -32601),
    ("PAL-PARAMS", -32602),
    ("PAL-USAGE", -32602),
    ("PAL-MANIFEST", -32602),
    ("PAL-INTERNAL", -32603),
    ("PAL-DENIED", -32001),
    ("PAL-RATE", -32002),
    ("PAL-CONFLICT", -32003),
    ("PAL-DEADLINE", -32004),
    ("PAL-CANCELLED", -32005),
    ("PAL-LIMIT", -32006),
    ("PAL-PLUGIN", -32007),
    ("PAL-PROTOCOL", -32008),
    ("PAL-CRASHED", -32009),
    ("PAL-POLICY-KILL", -32010),
    ("PAL-NO-BACKEND", -32011),
    ("PAL-RECORD", -32012),
    ("PAL-UNAVAILABLE", -32013),
];

/// The number of a code of the plugin's own.
const OWN_NUMBER: i64 = -32000;

/// What a request ends with when the connection has.
pub(super) fn closed() -> PalisadeError {
    PalisadeError::new("PAL-UNAVAILABLE", "the connection with the host is closed")
}

/// The JSON-RPC error object.
pub(super) fn to_wire(error: &PalisadeError) -> String {
    let number = NUMBERS.iter().find(|(code, _)| *code == error.code);
    let wire = WireError {
        code: number.map_or(OWN_NUMBER, |(_, number)| *number),
        message: cut(&error.message),
        data: WireData {
            code: &error.code,
            rule: error.rule.as_deref().map(cut),
            hint: error.hint.as_deref().map(cut),
            retry_after_ms: error
                .retry_after
                .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        },
    };
    serde_json::to_string(&wire).unwrap_or_else(|_| r#"{"code":-32007,"message":""}"#.to_owned())
}

/// Reads an error object; what has another shape than it should is left out.
pub(super) fn from_wire(text: &str) -> PalisadeError {
    let error: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let word = |value: Option<&serde_json::Value>| {
        value.and_then(serde_json::Value::as_str).map(str::to_owned)
    };
    let data = error.get("data");
    let of_data = |name: &str| data.and_then(|data| data.get(name));
    let number = error.get("code").and_then(serde_json::Value::as_i64);
    let by_number = NUMBERS.iter().find(|(_, n)| Some(*n) == number).map(|(code, _)| *code);
    PalisadeError {
        code: word(of_data("code"))
            .unwrap_or_else(|| by_number.unwrap_or("PAL-INTERNAL").to_owned()),
        message: word(error.get("message")).unwrap_or_default(),
        rule: word(of_data("rule")),
        hint: word(of_data("hint")),
        retry_after: of_data("retry_after_ms")
            .and_then(serde_json::Value::as_f64)
            .and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok()),
    }
}

#[derive(Serialize)]
struct WireError<'a> {
    code: i64,
    message: &'a str,
    data: WireData<'a>,
}

#[derive(Serialize)]
struct WireData<'a> {
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_wire() {
        let error = PalisadeError::new("PAL-RATE", "slow down")
            .rule("rate")
            .hint("wait")
            .retry_after(Duration::from_millis(250));
        assert_eq!(
            to_wire(&error),
            r#"{"code":-32002,"message":"slow down","data":{"code":"PAL-RATE","rule":"rate","hint":"wait","retry_after_ms":250}}"#
        );
        assert_eq!(from_wire(&to_wire(&error)), error);
    }

    #[test]
    fn what_has_another_shape_is_left_out() {
        let read = from_wire;
        assert_eq!(read(r#"{"code":-32601,"message":"m"}"#), PalisadeError::not_found("m"));
        assert_eq!(read(r#"{"code":7,"message":"m","data":"x"}"#).code, "PAL-INTERNAL");
        assert_eq!(read("[]"), PalisadeError::new("PAL-INTERNAL", ""));
        let odd = read(r#"{"message":1,"data":{"code":2,"hint":[],"retry_after_ms":-1}}"#);
        assert_eq!(odd, PalisadeError::new("PAL-INTERNAL", ""));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "ä".repeat(5000);
        let error = PalisadeError::new("MINE", long.as_str()).hint(long);
        let back = from_wire(&to_wire(&error));
        assert_eq!(back.message, "ä".repeat(2000));
        assert_eq!(back.hint, Some("ä".repeat(2000)));
        assert!(to_wire(&error).starts_with(r#"{"code":-32000,"#));
    }
}
