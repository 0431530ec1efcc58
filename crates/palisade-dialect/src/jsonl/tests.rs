use palisade_model::{ErrorCode, Failure, Payload};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{DialectError, ERROR_TEXT_CHARS, ID_BYTES, ID_MAX, Id, LINE_BYTES, Line, Lines};

fn ok<'a>(id: Id, result: &'a str) -> Line<'a> {
    Line::Answer { id, outcome: Ok(result.as_bytes()) }
}

fn text(id: &str) -> Id {
    Id::Text(id.into())
}

#[test]
fn answers_are_recognised_with_any_kind_of_id() {
    for (line, expected) in [
        (r#"{"id":"init-1","result":{"ok":true}}"#, ok(text("init-1"), r#"{"ok":true}"#)),
        (r#" {"id":7,"result":null} "#, ok(Id::Number(7), "null")),
        (r#"{"jsonrpc":"2.0","result":[1, 2],"error":null,"id":0}"#, ok(Id::Number(0), "[1, 2]")),
        (r#"{"id":"\u0061","result":9007199254740993}"#, ok(text("a"), "9007199254740993")),
        (
            r#"{"id":9007199254740992,"result":"\ud83d\ude00"}"#,
            ok(Id::Number(1 << 53), r#""\ud83d\ude00""#),
        ),
        (r#"{"id":1,"result":1e999}"#, ok(Id::Number(1), "1e999")),
    ] {
        assert_eq!(decode_line(line.as_bytes()), expected, "{line}");
    }
}

#[test]
fn errors_are_texts_or_objects_and_are_escaped() {
    for (error, code, message) in [
        (r#""it broke""#, ErrorCode::PluginError, "it broke"),
        (r#""a\u001b[31m\nb""#, ErrorCode::PluginError, "a\\u{1b}[31m\\nb"),
        (r#"{"message":"bad","code":5}"#, ErrorCode::PluginError, "bad"),
        (r#"{"message":"?","code":-32601}"#, ErrorCode::NotFound, "?"),
        (r#""Unknown method: initialize""#, ErrorCode::NotFound, "Unknown method: initialize"),
        (r#"{"reason":1}"#, ErrorCode::PluginError, r#"{"reason":1}"#),
        ("true", ErrorCode::PluginError, "true"),
    ] {
        let line = format!(r#"{{"id":1,"error":{error}}}"#);
        let expected =
            Line::Answer { id: Id::Number(1), outcome: Err(Failure::new(code, message)) };
        assert_eq!(decode_line(line.as_bytes()), expected, "{line}");
    }
    let long = format!(r#"{{"id":1,"result":1,"error":"{}"}}"#, "x".repeat(9000));
    let Line::Answer { outcome: Err(failure), .. } = decode_line(long.as_bytes()) else {
        panic!("an error beside a result is an error");
    };
    assert_eq!(failure.message.chars().count(), ERROR_TEXT_CHARS + 1);
}

#[test]
fn requests_of_the_plugin_are_recognised() {
    assert_eq!(
        decode_line(br#"{"id":"d1","method":"data_request","params":{"name":"profile"}}"#),
        Line::Request {
            id: text("d1"),
            method: "data_request".into(),
            params: br#"{"name":"profile"}"#
        }
    );
    assert_eq!(
        decode_line(br#"{"id":1,"method":"x"}"#),
        Line::Request { id: Id::Number(1), method: "x".into(), params: b"null" }
    );
}

#[test]
fn everything_else_is_noise() {
    let deep = format!(r#"{{"id":1,"result":{}{}}}"#, "[".repeat(64), "]".repeat(64));
    let abyss = format!(r#"{{"id":1,"result":{}"#, "[".repeat(1_000_000));
    let method = format!(r#"{{"id":1,"method":"{}"}}"#, "m".repeat(129));
    let id = format!(r#"{{"id":"{}","result":1}}"#, "x".repeat(65));
    let cases: &[&[u8]] = &[
        b"",
        b"Loading plugin v1.0 ...",
        b"[]",
        b"42",
        b"{",
        b"{\"id\":1,\"result\":1",
        b"{\"id\":1,\"result\":1} x",
        br#"{"id":1}"#,
        br#"{"id":1,"error":null}"#,
        br#"{"result":1}"#,
        br#"{"id":null,"result":1}"#,
        br#"{"id":1.0,"result":1}"#,
        br#"{"id":-1,"result":1}"#,
        br#"{"id":9007199254740993,"result":1}"#,
        br#"{"id":[1],"result":1}"#,
        br#"{"id":1,"id":1,"result":1}"#,
        br#"{"id":1,"result":1,"result":2}"#,
        br#"{"id":1,"method":""}"#,
        br#"{"id":1,"method":"a b"}"#,
        br#"{"id":1,"method":7}"#,
        br#"{"method":"log","params":{}}"#,
        b"{\"id\":1,\"result\":\"\xff\"}",
        b"{\"id\":1,\"result\":\"\x01\"}",
        br#"{"id":1,"result":"\ud800"}"#,
        br#"{"id":1,"result":"\udc00"}"#,
        br#"{"id":1,"result":"\ud800\ud800"}"#,
        br#"{"id":1,"result":"\ud800x"}"#,
        br#"{"id":1,"result":"\ud800\n"}"#,
        br#"{"id":1,"result":"\ud800","x":"\udc00"}"#,
        deep.as_bytes(),
        abyss.as_bytes(),
        method.as_bytes(),
        id.as_bytes(),
    ];
    for line in cases {
        let shown = String::from_utf8_lossy(line);
        assert_eq!(decode_line(line), Line::Noise, "{}", &shown[..shown.len().min(80)]);
    }
}

#[test]
fn noise_is_bounded_between_answers() {
    let dialect = Jsonl { noise_lines: 3, noise_bytes: 100, ..Jsonl::default() };
    let mut noise = dialect.noise();
    for _ in 0..2 {
        for _ in 0..3 {
            assert_eq!(noise.note(10), Ok(()));
        }
        noise.reset();
    }
    assert_eq!(noise.note(101), Err(DialectError::NoiseBytes { limit: 100 }));
    noise.reset();
    assert_eq!(noise.note(usize::MAX), Err(DialectError::NoiseBytes { limit: 100 }));
    noise.reset();
    (0..3).for_each(|_| noise.note(0).unwrap());
    let error = noise.note(0).unwrap_err();
    assert_eq!(error, DialectError::NoiseLines { limit: 3 });
    assert_eq!(Failure::from(error).code, ErrorCode::ProtocolBreach);
}

#[test]
fn the_handshake_tries_init_only_when_initialize_is_not_known() {
    let unknown = || Err::<(), _>(Failure::new(ErrorCode::NotFound, "unknown method"));
    let broken = Failure::new(ErrorCode::PluginError, "no licence");
    let auto = Jsonl::default();

    let mut handshake = auto.handshake();
    assert_eq!(handshake.method(), "initialize");
    assert_eq!(handshake.answered(&unknown()), Step::Again);
    assert_eq!(handshake.method(), "init");
    assert_eq!(handshake.clone().answered(&Ok(())), Step::Ready);
    assert!(matches!(handshake.answered(&unknown()), Step::Failed(_)), "it is tried once");

    assert_eq!(auto.handshake().answered(&Ok(())), Step::Ready);
    assert_eq!(auto.handshake().answered(&Err::<(), _>(broken.clone())), Step::Failed(broken));
    for (init, method) in [(InitMethod::Init, "init"), (InitMethod::Initialize, "initialize")] {
        let mut handshake = Jsonl { init, ..Jsonl::default() }.handshake();
        assert_eq!(handshake.method(), method);
        assert!(matches!(handshake.answered(&unknown()), Step::Failed(_)));
    }
}

#[test]
fn the_words_for_an_unknown_method_are_known() {
    for yes in [
        "unknown method",
        "Unknown method 'initialize'",
        "Method not found",
        "unsupported command: initialize",
        "no such method",
        "initialize: not implemented",
        "Invalid request method",
    ] {
        assert!(is_unknown_method(yes), "{yes}");
    }
    for no in ["config file not found", "invalid licence", "unknown user", ""] {
        assert!(!is_unknown_method(no), "{no}");
    }
}

#[test]
fn configuration_is_data_and_unknown_keys_are_refused() {
    let read = |json: &str| serde_json::from_str::<Jsonl>(json);
    assert_eq!(read("{}").unwrap(), Jsonl::default());
    let custom = read(r#"{"init":"init","lifecycle":"per-call","noise_lines":5}"#).unwrap();
    assert_eq!((custom.init, custom.lifecycle), (InitMethod::Init, Lifecycle::PerCall));
    assert_eq!((custom.noise_lines, custom.noise_bytes), (5, NOISE_BYTES));
    assert!(read(r#"{"lifecicle":"per-call"}"#).is_err());
}

#[test]
fn what_cannot_be_sent_is_said_so() {
    let encode = |payload: Payload| encode_request(&Id::Number(1), "call", &payload);
    for bad in ["}", "1,\"x\":2", "\"\\ud800\"", ""] {
        assert!(encode(Payload::from_json_text(bad)).is_err(), "{bad}");
    }
    assert!(encode(Payload::octets("1")).is_err());
    let long = Payload::from_json_text(format!("\"{}\"", "x".repeat(LINE_BYTES)));
    assert_eq!(encode(long), Err(DialectError::Unsendable("the line is too long")));
    assert!(encode_request(&Id::Number(1), "a\"b", &Payload::null()).is_err());
    let line = encode(call_params("t\"x", &Payload::from_json_text("{\n\"a\": 1}"))).unwrap();
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "{\"id\":1,\"method\":\"call\",\"params\":{\"tool\":\"t\\\"x\",\"args\":{ \"a\": 1}}}\n"
    );
    let denied = Failure::new(ErrorCode::Denied, "not granted").rule("absent");
    assert_eq!(
        String::from_utf8(encode_answer(&text("d1"), Err(&denied)).unwrap()).unwrap(),
        "{\"id\":\"d1\",\"error\":\"PAL-DENIED: not granted (rule: absent)\"}\n"
    );
}

#[test]
fn a_line_beyond_the_bound_is_refused_before_it_is_buffered() {
    for end in [&b"\n"[..], b"\r\n"] {
        let mut lines = Lines::default();
        lines.feed(&vec![b'x'; LINE_BYTES]);
        assert_eq!(lines.next_line(), Ok(None));
        lines.feed(end);
        assert_eq!(lines.next_line().unwrap().unwrap().len(), LINE_BYTES, "{end:?}");
    }
    let mut lines = Lines::default();
    let mut fed = 0;
    while lines.next_line().is_ok() {
        lines.feed(&[b'x'; 65536]);
        fed += 65536;
    }
    assert_eq!(lines.next_line(), Err(DialectError::TooLong));
    assert!(fed <= LINE_BYTES + 2 * 65536, "{fed}");
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 30, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..5).prop_map(Value::from_iter),
        ]
    })
}

fn id() -> impl Strategy<Value = Id> {
    prop_oneof![
        (0..=ID_MAX).prop_map(Id::Number),
        any::<String>()
            .prop_filter("short", |s| s.len() <= ID_BYTES)
            .prop_map(|s| Id::Text(s.into())),
    ]
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_line(&bytes);
        let _ = decode_line(&[b"{\"id\":1,\"result\":\"", &bytes[..], b"\"}"].concat());
    }

    #[test]
    fn almost_json_never_panics(text in r#"\{"id":1,"result":[\[\]{}",:0-9eE.\\urdDcC8a-f-]{0,60}"#) {
        if let Line::Answer { outcome: Ok(raw), .. } = decode_line(text.as_bytes()) {
            prop_assert!(serde_json::from_slice::<&serde_json::value::RawValue>(raw).is_ok());
        }
    }

    #[test]
    fn what_is_written_is_read_again(
        id in id(), method in "[a-zA-Z0-9._/$-]{1,128}", value in json(), pretty in any::<bool>(),
    ) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let payload = Payload::from_json_text(text.clone());
        let expected = text.replace('\n', " ");
        let line = encode_request(&id, &method, &payload).unwrap();
        prop_assert_eq!(
            decode_line(&line),
            Line::Request { id: id.clone(), method, params: expected.as_bytes() }
        );
        let line = encode_answer(&id, Ok(&payload)).unwrap();
        prop_assert_eq!(decode_line(&line), Line::Answer { id, outcome: Ok(expected.as_bytes()) });
    }

    #[test]
    fn how_the_stream_is_split_makes_no_difference(
        stream in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200),
        step in 1usize..20,
    ) {
        let read = |step: usize| {
            let (mut lines, mut out) = (Lines::default(), Vec::new());
            for piece in stream.chunks(step) {
                lines.feed(piece);
                while let Some(line) = lines.next_line().unwrap() {
                    out.push(line);
                }
            }
            (out, lines.rest().to_vec())
        };
        let whole = read(1000);
        prop_assert_eq!(read(step), whole.clone());
        let expected: Vec<&[u8]> = stream.split(|b| *b == b'\n').collect();
        let (rest, expected) = expected.split_last().unwrap();
        prop_assert_eq!(&whole.1, rest);
        let cut: Vec<&[u8]> = expected.iter().map(|l| l.strip_suffix(b"\r").unwrap_or(l)).collect();
        prop_assert_eq!(whole.0, cut);
    }
}
