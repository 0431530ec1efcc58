//! What is not touched passes byte for byte; what is not clearly a message passes in no direction.

use serde_json::json;

use crate::support::{Setup, Stage, call, done};

#[tokio::test]
async fn messages_pass_byte_for_byte_in_both_directions() {
    let mut stage = Stage::new();
    for line in [
        "{ \"params\" : {\"z\":1.00e+2, \"a\":\"\\u0041\\/\"},\"method\":\"custom/thing\" ,\"id\":-7.50, \"jsonrpc\":\"2.0\" }\n",
        "{\"jsonrpc\":\"2.0\",\"id\":\"\\u00e9\",\"method\":\"resources/read\",\"params\":{\"uri\":\"x\"},\"extra\":[1,{}]}\r\n",
        "{\"jsonrpc\":\"2.0\",\"id\":12345678901234567890,\"method\":\"x\",\"params\":[1, 2]}\n",
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/whatever\",\"params\":{\"n\":0.10}}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":\"?\"}}\n",
    ] {
        stage.client.write(line).await;
        assert_eq!(stage.server.line().await.unwrap(), line);
    }
    for line in [
        "{\"result\":{\"contents\":[ ],\"n\":1E5}, \"id\":-7.5,\"jsonrpc\":\"2.0\"}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":\"\u{e9}\",\"error\":{\"code\":-32602,\"message\":\"no\\u001b\", \"data\":{\"k\":[]}}}\r\n",
        "{\"jsonrpc\":\"2.0\",\"id\":12345678901234567890,\"result\":7}\n",
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":\"\u{2028}\"}}\n",
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/unknown\"}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":\"s-1\",\"method\":\"ping\"}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":99,\"method\":\"server/unknown\",\"params\":{\"a\":1}}\n",
    ] {
        stage.server.write(line).await;
        assert_eq!(stage.client.line().await.unwrap(), line);
    }
    for line in [
        "{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{ }}\n",
        "{\"id\":\"s-1\",\"jsonrpc\":\"2.0\",\"result\":{}}\n",
    ] {
        stage.client.write(line).await;
        assert_eq!(stage.server.line().await.unwrap(), line);
    }
    assert_eq!(stage.notices(), Vec::<String>::new());
}

#[tokio::test]
async fn cancel_progress_and_logging_pass() {
    let mut stage = Stage::new();
    stage.list(json!([{"name": "slow"}])).await;
    let mut request = call(json!("c1"), "slow");
    request["params"]["_meta"] = json!({"progressToken": "p"});
    assert_eq!(stage.ask(request.clone()).await, request);
    let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "p", "progress": 0.5}});
    assert_eq!(stage.answer(progress.clone()).await, progress);
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "c1", "reason": "enough"}});
    assert_eq!(stage.ask(cancel.clone()).await, cancel);
    let call_record =
        stage.records().into_iter().rfind(|r| r.target.as_deref() == Some("slow")).unwrap();
    assert_eq!(call_record.code.unwrap().as_str(), "PAL-CANCELLED");
    // The server had answered already: the client does not wait for it any more, and it harms nobody.
    stage.server.send(done(json!("c1"))).await;
    let level = json!({"jsonrpc": "2.0", "id": 2, "method": "logging/setLevel", "params": {"level": "debug"}});
    assert_eq!(stage.ask(level.clone()).await, level);
    let answer = json!({"jsonrpc": "2.0", "id": 2, "result": {}});
    assert_eq!(stage.answer(answer.clone()).await, answer);
    assert_eq!(stage.notices(), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_client_writes_unclearly_is_answered_and_not_passed() {
    let mut stage = Stage::new();
    let deep = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\",\"params\":{{\"a\":{}{}}}}}",
        "[".repeat(200),
        "]".repeat(200)
    );
    for (line, number, id) in [
        ("hello", -32700, json!(null)),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\"", -32700, json!(null)),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\0\"}", -32700, json!(null)),
        ("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]", -32600, json!(null)),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"method\":\"tools/call\"}",
            -32600,
            json!(null),
        ),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"Method\":\"tools/call\"}",
            -32600,
            json!(null),
        ),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":\r{\"jsonrpc\":\"2.0\",\"method\":\"x\"}\r}",
            -32600,
            json!(null),
        ),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"tools/call\",\"params\":{\"name\":\"a\",\"name\":\"b\"}}",
            -32602,
            json!(4),
        ),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"tools/call\",\"params\":{\"name\":\"a\",\"NAME\":\"b\"}}",
            -32602,
            json!(5),
        ),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":6,\"method\":\"tools/call\",\"params\":{\"Name\":\"b\"}}",
            -32602,
            json!(6),
        ),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":[\"b\"]}",
            -32602,
            json!(7),
        ),
        ("{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"tools/call\"}", -32602, json!(8)),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"x\",\"params\":{\"_meta\":{},\"_meta\":{}}}",
            -32602,
            json!(9),
        ),
        (&deep, -32600, json!(null)),
    ] {
        stage.client.write(format!("{line}\n")).await;
        let answer = stage.client.next().await;
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(number), &id), "{line}");
        assert!(answer["error"]["data"]["code"].as_str().unwrap().starts_with("PAL-"), "{answer}");
    }
    stage.client.write(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}\n").await;
    assert_eq!(stage.client.next().await["error"]["code"], -32700);
    // Nothing of all this has reached the server.
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    assert_eq!(stage.ask(ping.clone()).await, ping);
}

#[tokio::test]
async fn a_giant_line_of_the_client_is_skipped_and_answered() {
    let mut setup = Setup::default();
    setup.options.line_bytes = 10_000;
    let mut stage = setup.start();
    stage.client.write(format!("{}\n", "x".repeat(50_000))).await;
    let answer = stage.client.next().await;
    assert_eq!(answer["error"]["data"]["code"], "PAL-LIMIT");
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    assert_eq!(stage.ask(ping.clone()).await, ping);
}

#[tokio::test]
async fn what_the_server_writes_unclearly_does_not_reach_the_client() {
    let mut stage = Stage::new();
    stage.ask(json!({"jsonrpc": "2.0", "id": 1, "method": "x"})).await;
    for line in [
        "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"method\":\"b\"}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"Params\":{}}",
        "[{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}]",
        // A reader in text mode would see the inner message on a line of its own.
        "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":\r{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\r}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":1,\"progressToken\":2}}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"result\":{}}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"roots/list\",\"result\":{}}",
    ] {
        stage.server.write(format!("{line}\n")).await;
    }
    // An answer that is not clear settles its request.
    let answer = stage
        .answer(
            json!({"jsonrpc": "2.0", "id": 1, "result": {}, "error": {"code": 1, "message": ""}}),
        )
        .await;
    assert_eq!(
        (&answer["id"], &answer["error"]["data"]["code"]),
        (&json!(1), &json!("PAL-PROTOCOL"))
    );
    stage.ask(json!({"jsonrpc": "2.0", "id": 2, "method": "x"})).await;
    stage.server.write("{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"a\":1,\"a\":2}}\n").await;
    assert_eq!(stage.client.next().await["error"]["data"]["code"], "PAL-PROTOCOL");
    assert!(stage.records().iter().any(|r| r.kind == palisade_audit::RecordKind::Breach));
}

#[tokio::test]
async fn banners_go_to_the_log_and_harm_nothing() {
    let mut stage = Stage::new();
    stage.server.write("Server v1 \x1b[31mrunning\nTypeError: x\n\n{\"level\":\"info\"}\n").await;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    assert_eq!(stage.ask(ping.clone()).await, ping);
    let pong = json!({"jsonrpc": "2.0", "id": 1, "result": {}});
    assert_eq!(stage.answer(pong.clone()).await, pong);
    let strays = stage.said.strays.lock().unwrap().clone();
    assert_eq!(strays, ["Server v1 \u{1b}[31mrunning", "TypeError: x", "{\"level\":\"info\"}"]);
}

#[tokio::test]
async fn ids_are_not_confused() {
    let mut stage = Stage::new();
    stage.list(json!([{"name": "a"}])).await;
    // Nobody asked that.
    stage.server.send(done(json!(77))).await;
    stage.ask(call(json!(1), "a")).await;
    // A request with an id that is still open is refused, the open one is not touched.
    stage.client.send(json!({"jsonrpc": "2.0", "id": 1.0, "method": "tools/list"})).await;
    assert_eq!(stage.client.next().await["error"]["code"], -32600);
    // The text is not the number; a server that answers with the text of the number is understood.
    stage.ask(call(json!("1"), "a")).await;
    let second = stage.answer(done(json!("1"))).await;
    assert_eq!(second["id"], json!("1"));
    let first = stage.answer(done(json!("1"))).await;
    assert_eq!(first["id"], json!("1"));
    // It was answered: once more is once too often.
    stage.server.send(done(json!(1))).await;
    stage.ask(call(json!(1), "a")).await;
    assert_eq!(stage.answer(done(json!(1))).await["id"], 1);
    assert!(stage.notices().iter().any(|n| n.contains("nobody made")), "{:?}", stage.notices());
}

#[tokio::test]
async fn requests_are_recorded() {
    let mut stage = Stage::new();
    stage.list(json!([{"name": "a"}])).await;
    stage.ask(call(json!(1), "a")).await;
    stage
        .answer(json!({"jsonrpc": "2.0", "id": 1, "result": {"isError": true, "content": []}}))
        .await;
    stage.ask(call(json!(2), "a")).await;
    stage.answer(done(json!(2))).await;
    stage
        .ask(json!({"jsonrpc": "2.0", "id": 3, "method": "resources/read", "params": {"uri": "x"}}))
        .await;
    stage
        .answer(json!({"jsonrpc": "2.0", "id": 3, "error": {"code": -32602, "message": "?"}}))
        .await;
    // What follows an answer on the wire was recorded after it.
    stage.ask(json!({"jsonrpc": "2.0", "id": 4, "method": "ping"})).await;
    let records = stage.records();
    let outcomes: Vec<_> = records
        .iter()
        .filter(|r| r.phase == palisade_audit::Phase::Outcome)
        .map(|r| (r.target.as_deref().unwrap(), r.code.map(|c| c.as_str())))
        .collect();
    assert_eq!(
        outcomes,
        [
            ("tools/list", None),
            ("a", Some("PAL-PLUGIN")),
            ("a", None),
            ("resources/read", Some("PAL-PLUGIN"))
        ]
    );
    let call = records.iter().find(|r| r.target.as_deref() == Some("a")).unwrap();
    assert_eq!(call.payload_bytes, Some(2));
}
