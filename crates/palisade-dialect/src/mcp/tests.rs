use palisade_model::{ErrorCode, Failure, Payload};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{DialectError, ERROR_TEXT_CHARS, Id, Line};

fn text(line: Vec<u8>) -> String {
    String::from_utf8(line).unwrap()
}

fn json_text(value: &Value) -> Payload {
    Payload::from_json_text(value.to_string())
}

fn value(payload: &Payload) -> Value {
    payload.parse().unwrap()
}

#[test]
fn messages_of_json_rpc_are_told_apart() {
    for (line, expected) in [
        (
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}"#,
            Line::Answer { id: Id::Number(1), outcome: Ok(&br#"{"tools":[]}"#[..]) },
        ),
        (
            r#"{"id":"a","method":"roots/list","jsonrpc":"2.0"}"#,
            Line::Request {
                id: Id::Text("a".into()),
                method: "roots/list".into(),
                params: b"null",
            },
        ),
        (
            r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info"}}"#,
            Line::Notification { method: MESSAGE.into(), params: br#"{"level":"info"}"# },
        ),
        (
            r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32601,"message":"what?"}}"#,
            Line::Answer {
                id: Id::Number(0),
                outcome: Err(Failure::new(ErrorCode::NotFound, "what?")),
            },
        ),
        (
            // Words do not count here: the protocol has a number for an unknown method.
            r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32602,"message":"Unknown method\u001b"}}"#,
            Line::Answer {
                id: Id::Number(0),
                outcome: Err(Failure::new(ErrorCode::PluginError, "Unknown method\\u{1b}")),
            },
        ),
    ] {
        assert_eq!(decode_line(line.as_bytes()), expected, "{line}");
    }
}

#[test]
fn what_is_no_json_rpc_2_is_noise() {
    let deep =
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{}{}}}"#, "[".repeat(64), "]".repeat(64));
    for line in [
        "Server running on stdio",
        r#"{"id":1,"result":1}"#,
        r#"{"jsonrpc":2.0,"id":1,"result":1}"#,
        r#"{"jsonrpc":"1.0","id":1,"result":1}"#,
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","result":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a b"}"#,
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
        r#"[{"jsonrpc":"2.0","id":1,"result":1}]"#,
        r#"{"level":"info","method":"GET","msg":"a structured log line"}"#,
        &deep,
    ] {
        assert_eq!(decode_line(line.as_bytes()), Line::Noise, "{line}");
    }
}

#[test]
fn requests_notifications_and_answers_are_written_as_the_specification_has_them() {
    let id = Id::Number(3);
    assert_eq!(
        text(encode_request(&id, PING, &json_text(&json!({}))).unwrap()),
        "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"ping\",\"params\":{}}\n"
    );
    assert_eq!(
        text(initialized().unwrap()),
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\",\"params\":{}}\n"
    );
    let cancel: Value = serde_json::from_slice(&cancelled(7).unwrap()).unwrap();
    assert_eq!(cancel["method"], CANCELLED);
    assert_eq!(cancel["params"]["requestId"], 7);
    assert!(cancel.get("id").is_none());
    for (code, number) in [
        (ErrorCode::NotFound, -32601),
        (ErrorCode::ProtocolBreach, -32600),
        (ErrorCode::InvalidParams, -32602),
    ] {
        let line = encode_answer(&id, Err(&Failure::new(code, "no"))).unwrap();
        let answer: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(answer["error"]["code"], number);
        assert!(answer["error"]["message"].as_str().unwrap().contains("no"));
    }
    assert!(encode_notification("a b", &Payload::null()).is_err());
    assert!(encode_request(&id, PING, &Payload::from_json_text("}")).is_err());
}

#[test]
fn the_parameters_of_a_servers_request_are_an_object_or_nothing() {
    for fine in ["{}", "null", r#"{"a":1}"#] {
        assert_eq!(check_request(&Payload::from_json_text(fine)), Ok(()), "{fine}");
    }
    for bad in ["[]", "1", "\"x\"", "nullx"] {
        let failure = check_request(&Payload::from_json_text(bad)).unwrap_err();
        assert_eq!(failure.code, ErrorCode::ProtocolBreach, "{bad}");
    }
}

#[test]
fn older_servers_are_spoken_with_and_unknown_versions_are_not() {
    assert_eq!(value(&initialize_params())["protocolVersion"], "2025-06-18");
    assert_eq!(value(&initialize_params())["capabilities"], json!({}));
    let answer = |version: &str| {
        json_text(&json!({
            "protocolVersion": version,
            "capabilities": { "tools": {}, "logging": {} },
            "serverInfo": { "name": "t\u{202e}", "version": "x".repeat(500) },
        }))
    };
    for version in VERSIONS {
        let server = Server::read(&answer(version)).unwrap();
        assert_eq!((server.version, server.has_tools), (version, true));
        let (name, says) = server.party.unwrap();
        assert_eq!(name, "t\\u{202e}");
        assert!(says.chars().count() <= 128);
    }
    let error = Server::read(&answer("2099-01-01")).unwrap_err();
    assert!(matches!(&error, DialectError::Version { chosen, .. } if chosen == "2099-01-01"));
    assert_eq!(Failure::from(error).code, ErrorCode::ProtocolBreach);
    for bad in
        [json!({}), json!([]), json!(null), json!({"protocolVersion": 1, "capabilities": {}})]
    {
        assert!(matches!(Server::read(&json_text(&bad)), Err(DialectError::Shape { .. })), "{bad}");
    }
    let silent = json!({"protocolVersion": VERSIONS[1], "capabilities": {}});
    let server = Server::read(&json_text(&silent)).unwrap();
    assert_eq!((server.has_tools, server.party), (false, None));
}

#[test]
fn tools_are_listed_page_by_page() {
    let mut tools = Tools::default();
    assert_eq!(value(&tools.params()), json!({}));
    let page = json!({"tools": [{"name": "a", "inputSchema": {}}], "nextCursor": "c\"1"});
    assert_eq!(tools.page(&json_text(&page)), Ok(true));
    assert_eq!(value(&tools.params()), json!({"cursor": "c\"1"}));
    assert_eq!(tools.page(&json_text(&json!({"tools": [{"name": "b"}]}))), Ok(false));
    assert_eq!(tools.names(), ["a", "b"]);
}

#[test]
fn pages_tools_names_and_cursors_are_bounded() {
    let shape = |pages: &mut dyn Iterator<Item = Value>| {
        let mut tools = Tools::default();
        for page in pages {
            match tools.page(&json_text(&page)) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(error.to_string()),
            }
        }
        panic!("it went on");
    };
    let many = |n: usize| json!({"tools": vec![json!({"name": "t"}); n]});
    assert_eq!(shape(&mut std::iter::once(many(TOOLS))), None);
    let too_many = shape(&mut std::iter::once(many(TOOLS + 1))).unwrap();
    assert!(too_many.contains("256 tools"), "{too_many}");
    let endless = json!({"tools": [], "nextCursor": "again"});
    let endless = shape(&mut std::iter::repeat_n(endless, PAGES)).unwrap();
    assert!(endless.contains("64 pages"), "{endless}");
    for bad in [
        json!({"tools": [{"name": ""}]}),
        json!({"tools": [{"name": "x".repeat(TOOL_NAME_CHARS + 1)}]}),
        json!({"tools": [{"title": "no name"}]}),
        json!({"tools": [], "nextCursor": "x".repeat(CURSOR_BYTES + 1)}),
        json!({}),
        json!("tools"),
    ] {
        assert!(shape(&mut std::iter::once(bad.clone())).is_some(), "{bad}");
    }
}

#[test]
fn a_call_keeps_its_arguments_as_they_are_written() {
    let params = Payload::from_json_text(r#"{"tool":"a\"b","args":{ "n": 9007199254740993 }}"#);
    let made = call_params(&params).unwrap();
    assert_eq!(made.bytes(), &br#"{"name":"a\"b","arguments":{ "n": 9007199254740993 }}"#[..]);
    let bare = call_params(&Payload::from_json_text(r#"{"tool":"a"}"#)).unwrap();
    assert_eq!(value(&bare), json!({"name": "a", "arguments": {}}));
    for bad in [r#"{"tool":"a","args":[1]}"#, r#"{"tool":"a","args":1}"#, r#"{"args":{}}"#, "null"]
    {
        let failure = Failure::from(call_params(&Payload::from_json_text(bad)).unwrap_err());
        assert_eq!(failure.code, ErrorCode::InvalidParams, "{bad}");
    }
}

#[test]
fn a_result_is_handed_on_and_an_error_of_the_tool_is_a_failure() {
    for fine in [
        json!({"content": [{"type": "text", "text": "hi"}]}),
        json!({"content": [], "isError": false, "structuredContent": {"a": 1}}),
        json!({}),
        json!({"content": "odd", "isError": null}),
    ] {
        assert_eq!(call_result(json_text(&fine)), Ok(json_text(&fine)));
    }
    let failed = json!({"isError": true, "content": [
        {"type": "text", "text": "no\u{1b}[31m"},
        {"type": "image", "data": "AAAA", "mimeType": "image/png"},
        {"type": "text", "text": "z".repeat(9000)},
    ]});
    let failure = call_result(json_text(&failed)).unwrap_err();
    assert_eq!(failure.code, ErrorCode::PluginError);
    assert!(failure.message.starts_with("no\\u{1b}[31m\\nzzz"), "{failure}");
    assert!(failure.message.len() < ERROR_TEXT_CHARS + 100);
    for wordless in [json!({"isError": true}), json!({"isError": true, "content": [1]})] {
        let failure = call_result(json_text(&wordless)).unwrap_err();
        assert_eq!(failure.code, ErrorCode::PluginError);
        assert!(!failure.message.is_empty());
    }
    for odd in [json!(null), json!([true, []]), json!("ok"), json!({"isError": "yes"})] {
        let failure = call_result(json_text(&odd)).unwrap_err();
        assert_eq!(failure.code, ErrorCode::ProtocolBreach, "{odd}");
    }
}

#[test]
fn a_log_message_is_one_bounded_line() {
    let line = |params: Value| log_line(params.to_string().as_bytes());
    assert_eq!(
        line(json!({"level": "error", "logger": "db", "data": "a\nb"})).unwrap(),
        "error db: a\\nb"
    );
    assert_eq!(line(json!({"level": "info", "data": {"k": 1}})).unwrap(), "info: {\"k\":1}");
    let long = line(json!({"level": "info", "data": "\u{202e}é".repeat(LOG_LINE_BYTES)})).unwrap();
    assert!(long.len() <= LOG_LINE_BYTES, "{}", long.len());
    for none in [json!(null), json!({}), json!({"level": 1, "data": 1}), json!({"level": "info"})] {
        assert_eq!(line(none.clone()), None, "{none}");
    }
}

#[test]
fn the_client_features_are_capabilities() {
    for (method, kind) in [
        ("sampling/createMessage", "mcp.sampling"),
        ("elicitation/create", "mcp.elicitation"),
        ("roots/list", "mcp.roots"),
    ] {
        assert_eq!(capability_of(method), Some(kind));
        assert!(format!("{kind}:*").parse::<palisade_model::Capability>().is_ok(), "{kind}");
    }
    assert_eq!(capability_of("event.publish"), None);
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        // The keys that mean something come often, with values of any kind.
        let key = prop_oneof![
            Just("tools".to_owned()),
            Just("name".to_owned()),
            Just("content".to_owned()),
            Just("isError".to_owned()),
            Just("capabilities".to_owned()),
            Just("level".to_owned()),
            Just("data".to_owned()),
            any::<String>(),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4).prop_map(Value::from_iter),
        ]
    })
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_line(&bytes);
        let _ = decode_line(&[b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"", &bytes[..], b"\"}"].concat());
        let _ = log_line(&bytes);
    }

    #[test]
    fn any_answer_is_read_or_refused_without_panic(answer in json()) {
        let payload = json_text(&answer);
        let _ = Server::read(&payload);
        let mut tools = Tools::default();
        if tools.page(&payload).is_ok() {
            prop_assert!(tools.names().len() <= TOOLS);
        }
        match call_result(payload.clone()) {
            Ok(same) => prop_assert_eq!(&same, &payload),
            Err(failure) => {
                prop_assert!(!failure.message.chars().any(palisade_model::text::is_deceptive));
            }
        }
        if let Some(line) = log_line(payload.bytes()) {
            prop_assert!(line.len() <= LOG_LINE_BYTES);
            prop_assert!(!line.chars().any(palisade_model::text::is_deceptive));
        }
    }

    #[test]
    fn what_is_written_is_read_again(
        id in 0..=crate::ID_MAX, method in "[a-zA-Z0-9._/$-]{1,128}", params in json(),
    ) {
        let (id, payload) = (Id::Number(id), json_text(&params));
        let (raw, params) = (payload.bytes().to_vec(), payload.clone());
        let line = encode_request(&id, &method, &params).unwrap();
        let request = Line::Request { id: id.clone(), method: method.clone(), params: &raw };
        prop_assert_eq!(decode_line(&line), request);
        let line = encode_notification(&method, &params).unwrap();
        prop_assert_eq!(decode_line(&line), Line::Notification { method, params: &raw });
        let line = encode_answer(&id, Ok(&params)).unwrap();
        prop_assert_eq!(decode_line(&line), Line::Answer { id, outcome: Ok(&raw) });
    }

    #[test]
    fn a_call_goes_through_unchanged(tool in any::<String>(), args in json()) {
        let params = json_text(&json!({"tool": tool, "args": args}));
        match call_params(&params) {
            Ok(made) => {
                let args = if args.is_null() { json!({}) } else { args };
                prop_assert_eq!(value(&made), json!({"name": tool, "arguments": args}));
            }
            Err(_) => prop_assert!(!args.is_object() && !args.is_null()),
        }
    }
}
