//! What the server asks of the client: by requests of its own, and inside its answers.

use serde_json::{Value, json};

use crate::support::{Setup, Stage, call, tool};

const ALL: [&str; 4] = ["tool:*", "mcp.sampling:*", "mcp.elicitation:*", "mcp.roots:*"];

fn asks(id: Value, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn sampling() -> Value {
    json!({"messages": [{"role": "user", "content": {"type": "text", "text": "hi"}}], "maxTokens": 5})
}

#[tokio::test]
async fn what_is_not_granted_is_refused_and_the_client_never_sees_it() {
    let mut stage = Stage::new();
    for (method, params, hint) in [
        ("sampling/createMessage", sampling(), "mcp.sampling"),
        (
            "elicitation/create",
            json!({"message": "your password?", "requestedSchema": {}}),
            "mcp.elicitation",
        ),
        (
            "elicitation/create",
            json!({"mode": "url", "url": "https://example.org"}),
            "mcp.elicitation:url",
        ),
        ("roots/list", json!({}), "mcp.roots"),
    ] {
        stage.server.send(asks(json!(method), method, params)).await;
        let answer = stage.server.next().await;
        assert_eq!(
            (&answer["id"], &answer["error"]["code"]),
            (&json!(method), &json!(-32601)),
            "{answer}"
        );
        assert_eq!(answer["error"]["data"]["code"], "PAL-DENIED");
        assert!(answer["error"]["data"]["hint"].as_str().unwrap().contains(hint), "{answer}");
        assert!(stage.notices().iter().any(|n| n.contains(hint)), "{:?}", stage.notices());
    }
    for params in [json!({"mode": 1}), json!({"Mode": "url"}), json!([])] {
        stage.server.send(asks(json!(1), "elicitation/create", params)).await;
        assert_eq!(stage.server.next().await["error"]["code"], -32602);
    }
    let ping = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
    assert_eq!(stage.answer(ping.clone()).await, ping, "the first thing that the client sees");
    let refused =
        stage.records().into_iter().filter(|r| r.code.is_some_and(|c| c.as_str() == "PAL-DENIED"));
    assert_eq!(refused.count(), 4);
}

#[tokio::test]
async fn what_is_granted_passes_and_its_answer_too() {
    let mut stage = Setup::rights(&ALL).start();
    for (id, method, params) in [
        (json!(1), "sampling/createMessage", sampling()),
        (json!("e"), "elicitation/create", json!({"mode": "url", "url": "https://example.org"})),
        (json!(2), "roots/list", json!({})),
    ] {
        let request = asks(id.clone(), method, params);
        assert_eq!(stage.answer(request.clone()).await, request);
        // Its id is taken until it is answered.
        stage.server.send(asks(id.clone(), "ping", json!({}))).await;
        assert_eq!(stage.server.next().await["error"]["code"], -32600);
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": {"n": 1.5}});
        assert_eq!(stage.ask(answer.clone()).await, answer);
    }
    // An answer to what nobody asked, or to what was answered, goes nowhere.
    stage.client.send(json!({"jsonrpc": "2.0", "id": 1, "result": {}})).await;
    let ping = json!({"jsonrpc": "2.0", "id": 3, "method": "ping"});
    assert_eq!(stage.ask(ping.clone()).await, ping);
}

#[tokio::test]
async fn one_mode_of_elicitation_can_be_granted_alone() {
    let mut stage = Setup::rights(&["mcp.elicitation:form"]).start();
    let form = asks(json!(1), "elicitation/create", json!({"message": "?"}));
    assert_eq!(stage.answer(form.clone()).await, form);
    stage.server.send(asks(json!(2), "elicitation/create", json!({"mode": "url"}))).await;
    assert_eq!(stage.server.next().await["error"]["code"], -32601);
}

#[tokio::test]
async fn the_client_announces_only_what_is_granted() {
    let capabilities =
        r#"{ "roots": {"listChanged":true}, "sampling":{}, "elicitation":{},"x":1.0 }"#;
    let old = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"2025-11-25", "capabilities":{capabilities},"clientInfo":{{"name":"c"}}}}}}"#
    );
    let new = format!(
        r#"{{"jsonrpc":"2.0","id":2,"method":"server/discover","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{capabilities}, "k":0.0}}}}}}"#
    );
    let other = new.replace("server/discover", "prompts/list").replace("\"id\":2", "\"id\":3");
    for (rights, left) in [
        (&["tool:*"][..], r#"{"x":1.0 }"#),
        (&["mcp.roots:*"], r#"{ "roots": {"listChanged":true},"x":1.0 }"#),
        (&ALL, capabilities),
    ] {
        let mut stage = Setup::rights(rights).start();
        for line in [&old, &new, &other] {
            stage.client.write(format!("{line}\n")).await;
            assert_eq!(
                stage.server.line().await.unwrap().trim_end(),
                line.replace(capabilities, left)
            );
        }
    }
    let mut stage = Stage::new();
    for twice in [
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":{"sampling":{},"sampling":{}}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":{},"Capabilities":{"sampling":{}}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":{"Sampling":{}}}}"#,
    ] {
        stage.client.write(format!("{twice}\n")).await;
        assert_eq!(stage.client.next().await["error"]["code"], -32602, "{twice}");
    }
}

#[tokio::test]
async fn an_answer_that_asks_for_what_is_not_granted_is_replaced() {
    let ask = |method: &str| json!({"inputRequests": {"k": {"method": method, "params": {}}}, "requestState": "s"});
    let mut as_result = ask("sampling/createMessage");
    as_result["resultType"] = json!("input_required");
    let as_task = json!({"resultType": "task", "task": ask("roots/list")});
    let mut stage = Stage::new();
    stage.list(json!([tool("a")])).await;
    for (result, feature) in [
        (as_result.clone(), "sampling"),
        (ask("elicitation/create"), "elicitation"),
        (as_task, "roots"),
    ] {
        stage.ask(call(json!(1), "a")).await;
        let answer = stage.answer(json!({"jsonrpc": "2.0", "id": 1, "result": result})).await;
        assert_eq!(answer["error"]["code"], -32021, "{answer}");
        let data = &answer["error"]["data"];
        assert_eq!(
            (&data["requiredCapabilities"], &data["code"]),
            (&json!({feature: {}}), &json!("PAL-DENIED"))
        );
        let record =
            stage.records().into_iter().rfind(|r| r.target.as_deref() == Some("a")).unwrap();
        assert_eq!(record.code.unwrap().as_str(), "PAL-DENIED");
    }
    // 2025-11-25: an error that sends the user to a page.
    stage.ask(call(json!(2), "a")).await;
    let url = json!({"code": -32042, "message": "go there", "data": {"elicitations": [{"mode": "url", "url": "https://example.org"}]}});
    let answer = stage.answer(json!({"jsonrpc": "2.0", "id": 2, "error": url})).await;
    assert_eq!(answer["error"]["code"], -32021);
    assert!(!answer.to_string().contains("example.org"));
    // What cannot be told for certain is refused as well.
    for result in [
        json!({"resultType": "input_required", "inputRequests": {"k": {"method": "some/other"}}}),
        json!({"InputRequests": {"k": {"method": "roots/list"}}}),
    ] {
        stage.ask(call(json!(3), "a")).await;
        let answer = stage.answer(json!({"jsonrpc": "2.0", "id": 3, "result": result})).await;
        assert_eq!(answer["error"]["data"]["code"], "PAL-PROTOCOL", "{answer}");
    }
    // The state of a task in a notification.
    stage.server.send(json!({"jsonrpc": "2.0", "method": "notifications/tasks", "params": ask("sampling/createMessage")})).await;
    // A request that pretends to be a notification.
    let pretends = json!({"jsonrpc": "2.0", "method": "sampling/createMessage", "params": {}});
    stage.server.send(pretends).await;
    let state =
        json!({"jsonrpc": "2.0", "method": "notifications/tasks", "params": {"status": "working"}});
    assert_eq!(stage.answer(state.clone()).await, state, "those before did not come");

    let mut stage = Setup::rights(&ALL).start();
    stage.list(json!([tool("a")])).await;
    stage.ask(call(json!(1), "a")).await;
    let answer = json!({"jsonrpc": "2.0", "id": 1, "result": as_result});
    assert_eq!(stage.answer(answer.clone()).await, answer);
}

#[tokio::test]
async fn a_server_that_asks_without_end_is_held_to_its_rate_and_to_a_bound() {
    let mut setup = Setup::rights(&ALL);
    setup.limits.rates.requests_per_second = 70;
    let mut stage = setup.start();
    let mut codes = std::collections::BTreeMap::new();
    for id in 0..100 {
        stage.server.send(asks(json!(id), "roots/list", json!({}))).await;
    }
    // 64 wait for the client; the client has not answered one.
    for _ in 0..64 {
        assert_eq!(stage.client.next().await["method"], "roots/list");
    }
    for _ in 64..100 {
        let answer = stage.server.next().await;
        let code = answer["error"]["data"]["code"].as_str().unwrap().to_owned();
        *codes.entry(code).or_insert(0) += 1;
    }
    assert_eq!(codes.into_iter().collect::<Vec<_>>(), [("PAL-LIMIT".to_owned(), 36)]);
    let mut setup = Setup::default();
    setup.limits.rates.requests_per_second = 5;
    let mut stage = setup.start();
    for id in 0..20 {
        stage.server.send(asks(json!(id), "sampling/createMessage", sampling())).await;
    }
    let mut limited = 0;
    for _ in 0..20 {
        limited += usize::from(stage.server.next().await["error"]["data"]["code"] == "PAL-RATE");
    }
    assert!((10..=15).contains(&limited), "{limited}");
}
