use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn parse(text: &str) -> Result<Message<'_>, FrameError> {
    Message::parse(text.as_bytes())
}

fn name(text: &[u8]) -> &'static str {
    Message::parse(text).map_or_else(|e| e.name(), |_| "ok")
}

#[test]
fn the_three_kinds_of_messages_are_told_apart() {
    assert_eq!(
        parse(
            r#" { "id" : 7, "method":"call","extra":[{}],"jsonrpc":"2.0", "params": {"a": 1 } } "#
        ),
        Ok(Message::Request { id: Id::Number(7), method: "call", params: br#"{"a": 1 }"# })
    );
    assert_eq!(
        parse(r#"{"jsonrpc":"2.0","method":"$/cancel"}"#),
        Ok(Message::Notification { method: "$/cancel", params: b"null" })
    );
    assert_eq!(
        parse(r#"{"jsonrpc":"2.0","id":"a\u0062","result":null}"#),
        Ok(Message::Response { id: Id::Text("ab".into()), outcome: Ok(b"null") })
    );
    let Ok(Message::Response { outcome: Err(error), .. }) =
        parse(r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32601,"message":"no","x":1}}"#)
    else {
        panic!("an error answer was expected");
    };
    assert_eq!((error.code, error.message.as_str(), error.data), (-32601, "no", None));
}

#[test]
fn every_malformed_frame_has_its_own_typed_error() {
    let deep = format!(
        r#"{{"jsonrpc":"2.0","method":"m","params":{}1{}}}"#,
        "[".repeat(64),
        "]".repeat(64)
    );
    let cases: &[(&[u8], &str)] = &[
        (b"hello", "syntax"),
        (b"{", "syntax"),
        (b"{\"a\":}", "syntax"),
        (b"{\"a\":01}", "trailing-or-syntax"),
        (b"{\"a\":+1}", "syntax"),
        (b"{\"a\":1.}", "syntax"),
        (b"{\"a\":.5}", "syntax"),
        (b"{\"a\":1e}", "syntax"),
        (b"{\"a\":NaN}", "syntax"),
        (b"{\"a\":nul}", "syntax"),
        (b"{\"a\":1,}", "syntax"),
        (b"{\"a\":[1,]}", "syntax"),
        (b"{\"a\":[1}", "syntax"),
        (b"{'a':1}", "syntax"),
        (b"{\"a\":\"\\x\"}", "syntax"),
        (b"{\"a\":\"\\u12g4\"}", "syntax"),
        (b"{\"a\":\"\xff\"}", "not-utf8"),
        (b"{\"a\":\"\xed\xa0\x80\"}", "not-utf8"),
        (b"{\"a\":\"\x01\"}", "control-character"),
        (b"{\"a\":\"\t\"}", "control-character"),
        (b"{\"a\":\"\\ud800\"}", "lone-surrogate"),
        (b"{\"a\":\"\\udc00\"}", "lone-surrogate"),
        (b"{\"a\":\"\\ud800\\ud800\"}", "lone-surrogate"),
        (b"{\"a\":\"\\ud83dx\"}", "lone-surrogate"),
        (b"{\"\\ud800\":1}", "lone-surrogate"),
        (deep.as_bytes(), "too-deep"),
        (b"{} {}", "trailing"),
        (b"{}x", "trailing"),
        (b"[]", "batch"),
        (b" [{\"jsonrpc\":\"2.0\"}]", "batch"),
        (b"\"x\"", "syntax"),
        (b"{}", "envelope"),
        (br#"{"jsonrpc":"1.0","method":"m"}"#, "envelope"),
        (br#"{"jsonrpc":2.0,"method":"m"}"#, "envelope"),
        (br#"{"jsonrpc":"2.0"}"#, "envelope"),
        (br#"{"jsonrpc":"2.0","id":1}"#, "envelope"),
        (br#"{"jsonrpc":"2.0","result":1}"#, "envelope"),
        (br#"{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":""}}"#, "envelope"),
        (br#"{"jsonrpc":"2.0","id":1,"method":"m","result":1}"#, "envelope"),
        (br#"{"jsonrpc":"2.0","id":1,"error":"text"}"#, "envelope"),
        (br#"{"jsonrpc":"2.0","id":1,"id":1,"method":"m"}"#, "envelope"),
        (br#"{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"m"}"#, "envelope"),
        (br#"{"jsonrpc":"2.0","x":1,"x":1,"method":"m"}"#, "envelope"),
        (br#"{"jsonrpc":"2.0","id":null,"method":"m"}"#, "id"),
        (br#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#, "id"),
        (br#"{"jsonrpc":"2.0","id":1.0,"method":"m"}"#, "id"),
        (br#"{"jsonrpc":"2.0","id":1e2,"method":"m"}"#, "id"),
        (br#"{"jsonrpc":"2.0","id":-1,"method":"m"}"#, "id"),
        (br#"{"jsonrpc":"2.0","id":-0,"method":"m"}"#, "id"),
        (br#"{"jsonrpc":"2.0","id":9007199254740993,"method":"m"}"#, "id"),
        (br#"{"jsonrpc":"2.0","id":99999999999999999999999,"method":"m"}"#, "id"),
        (br#"{"jsonrpc":"2.0","id":[1],"method":"m"}"#, "id"),
        (br#"{"jsonrpc":"2.0","id":true,"method":"m"}"#, "id"),
        (br#"{"jsonrpc":"2.0","id":1,"method":""}"#, "method"),
        (br#"{"jsonrpc":"2.0","id":1,"method":7}"#, "method"),
        (br#"{"jsonrpc":"2.0","id":1,"method":"a b"}"#, "method"),
        (br#"{"jsonrpc":"2.0","id":1,"method":"\u0061"}"#, "method"),
        ("{\"jsonrpc\":\"2.0\",\"method\":\"é\"}".as_bytes(), "method"),
    ];
    for (text, expected) in cases {
        let found = name(text);
        let shown = String::from_utf8_lossy(text);
        if *expected == "trailing-or-syntax" {
            assert!(["trailing", "syntax"].contains(&found), "{shown}: {found}");
        } else {
            assert_eq!(found, *expected, "{shown}");
        }
    }
    let long = format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, "m".repeat(129));
    assert_eq!(name(long.as_bytes()), "method");
    let long = format!(r#"{{"jsonrpc":"2.0","method":"m","id":"{}"}}"#, "é".repeat(33));
    assert_eq!(name(long.as_bytes()), "id");
    let fields: String = (0..40).map(|n| format!(",\"x{n}\":0")).collect();
    assert_eq!(name(format!(r#"{{"jsonrpc":"2.0","method":"m"{fields}}}"#).as_bytes()), "envelope");
}

#[test]
fn what_is_just_within_the_bounds_is_taken() {
    for good in [
        format!(
            r#"{{"jsonrpc":"2.0","method":"m","params":{}1{}}}"#,
            "[".repeat(63),
            "]".repeat(63)
        ),
        format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, "m".repeat(128)),
        format!(r#"{{"jsonrpc":"2.0","method":"m","id":"{}"}}"#, "é".repeat(32)),
        r#"{"jsonrpc":"2.0","method":"m","id":9007199254740992}"#.to_owned(),
        r#"{"jsonrpc":"2.0","method":"m","params":"\ud83d\ude00 \u0000 \/"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","method":"m","params":[-0,0.5,-1.5E-7,1e400,{},[],[[]],{"":{}}]}"#
            .to_owned(),
    ] {
        assert_eq!(name(good.as_bytes()), "ok", "{good}");
    }
}

#[test]
fn numbers_beyond_what_a_double_holds_stay_the_text_they_are() {
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"m","params":[9007199254740993,1.000000000000000000001]}"#;
    let Ok(Message::Request { params, .. }) = parse(text) else { panic!("a request was expected") };
    assert_eq!(params, b"[9007199254740993,1.000000000000000000001]");
    let again = encode_request(&Id::Number(1), "m", params);
    assert_eq!(again, [text.as_bytes(), b"\n"].concat());
}

#[test]
fn line_breaks_in_a_payload_do_not_break_the_frame() {
    let frame = encode_notification("m", b"{\n\"a\":\r\n1}");
    assert_eq!(frame.iter().filter(|b| **b == b'\n').count(), 1);
    assert_eq!(name(&frame[..frame.len() - 1]), "ok");
}

/// Any JSON value, with texts full of what needs an escape.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(Value::from_iter),
        ]
    })
}

fn id() -> impl Strategy<Value = Id> {
    prop_oneof![
        (0..=bounds::ID_MAX).prop_map(Id::Number),
        any::<String>()
            .prop_filter("short", |s| s.len() <= bounds::ID_BYTES)
            .prop_map(|s| Id::Text(s.into())),
    ]
}

proptest! {
    #[test]
    fn parsing_anything_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::parse(&bytes);
        let _ = scan::validate(&bytes, 64);
    }

    #[test]
    fn parsing_almost_json_never_panics(
        text in r#"[\[\]{}",:0-9eE+\-.\\unrtdDcC8 a-f]{0,80}"#
    ) {
        let ours = scan::validate(text.as_bytes(), 64);
        let theirs = serde_json::from_str::<Value>(&text);
        // What we take, serde_json takes, but for numbers too large for a double.
        if ours.is_ok() {
            prop_assert!(theirs.as_ref().map_err(|e| e.to_string()).map_or_else(
                |e| e.contains("out of range"), |_| true), "{text}");
        } else {
            prop_assert!(theirs.is_err(), "{text}: {ours:?}");
        }
    }

    #[test]
    fn all_json_is_taken(value in json()) {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            prop_assert_eq!(scan::validate(text.as_bytes(), 64), Ok(()));
        }
    }

    #[test]
    fn what_is_encoded_is_parsed_again(
        id in id(), method in "[a-zA-Z0-9._/$-]{1,128}", value in json(), pretty in any::<bool>(),
    ) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let frame = encode_request(&id, &method, text.as_bytes());
        let (line, end) = frame.split_at(frame.len() - 1);
        prop_assert_eq!(end, b"\n");
        prop_assert!(!line.contains(&b'\n'));
        let expected = text.replace('\n', " ");
        match Message::parse(line) {
            Ok(Message::Request { id: i, method: m, params }) => {
                prop_assert_eq!((i, m, params), (id.clone(), &*method, expected.as_bytes()));
            }
            other => prop_assert!(false, "{other:?}"),
        }
        let frame = encode_response(&id, Ok(text.as_bytes()));
        match Message::parse(&frame) {
            Ok(Message::Response { id: i, outcome: Ok(result) }) => {
                prop_assert_eq!((i, result), (id.clone(), expected.as_bytes()));
            }
            other => prop_assert!(false, "{other:?}"),
        }
        let error = WireError { code: -1, message: text.clone(), data: None };
        match Message::parse(&encode_response(&id, Err(&error))) {
            Ok(Message::Response { id: i, outcome: Err(e) }) => prop_assert_eq!((i, e), (id, error)),
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
