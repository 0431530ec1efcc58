//! Servers of the Model Context Protocol as a lane: those that behave and those that do not.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/mod.rs"]
mod support;

use std::{
    io::{PipeWriter, Read, Write},
    sync::{Arc, mpsc},
    time::Duration,
};

use palisade_dialect::mcp::Mcp;
use palisade_model::ErrorCode;
use palisade_sandbox::{
    Lane,
    stream::{End, mcp},
};
use serde_json::{Value, json};
use support::{Host, Input, LONG, answer, call, next};

type Talk = (Arc<dyn Lane>, tokio::task::JoinHandle<End>, Arc<Host>);

fn talk_with(config: &Mcp, server: impl FnOnce(Input, PipeWriter) + Send + 'static) -> Talk {
    let host = Arc::new(Host::default());
    let (lane, end) =
        support::talk(server, |to, from| mcp(to, from, config, Arc::clone(&host) as _));
    (lane, end, host)
}

fn talk(server: impl FnOnce(Input, PipeWriter) + Send + 'static) -> Talk {
    talk_with(&Mcp::default(), server)
}

/// Does the handshake as a server that has tools, up to the first `tools/list`, which it gives back.
fn greet(input: &mut Input, out: &mut PipeWriter, version: &str) -> Value {
    let hello = next(input).unwrap();
    assert_eq!(hello["jsonrpc"], "2.0");
    assert_eq!(hello["method"], "initialize");
    assert_eq!(hello["params"]["protocolVersion"], "2025-06-18");
    assert_eq!(hello["params"]["capabilities"], json!({}));
    assert_eq!(hello["params"]["clientInfo"]["name"], "palisade");
    let result = json!({
        "protocolVersion": version,
        "capabilities": { "tools": {} },
        "serverInfo": { "name": "test", "version": "1" },
    });
    answer(out, &hello["id"], &result);
    let Some(initialized) = next(input) else { return Value::Null };
    assert_eq!(initialized["method"], "notifications/initialized");
    assert!(initialized.get("id").is_none());
    let list = next(input).unwrap();
    assert_eq!(list["method"], "tools/list");
    list
}

/// A whole server with the tools `echo` and `fail`, then what `more` does with every other line.
fn serve(mut input: Input, mut out: PipeWriter, mut more: impl FnMut(&mut PipeWriter, &Value)) {
    let list = greet(&mut input, &mut out, "2025-06-18");
    let tool = |name: &str| json!({"name": name, "inputSchema": {"type": "object"}});
    answer(&mut out, &list["id"], &json!({"tools": [tool("echo"), tool("fail")]}));
    while let Some(m) = next(&mut input) {
        let (name, id) = (m["params"]["name"].clone(), &m["id"]);
        if m["method"] == "ping" {
            answer(&mut out, id, &json!({}));
        } else if name == "echo" {
            let text = m["params"]["arguments"].to_string();
            answer(&mut out, id, &json!({"content": [{"type": "text", "text": text}]}));
        } else if name == "fail" {
            let content = json!([{"type": "text", "text": "it \u{1b}[31mbroke"}]);
            answer(&mut out, id, &json!({"content": content, "isError": true}));
        } else {
            more(&mut out, &m);
        }
    }
}

fn tool(name: &str, args: Value) -> Value {
    json!({ "tool": name, "args": args })
}

#[tokio::test]
async fn a_server_is_greeted_listed_called_and_closed() {
    let (tell, told) = mpsc::channel();
    let (lane, end, _) = talk(move |input, out| {
        serve(input, out, |_, m| panic!("{m}"));
        tell.send(()).unwrap();
    });
    let hello = call(&lane, "initialize", json!({"protocol": {"min": 1, "max": 1}}), LONG).await;
    let expected = json!({
        "protocol": 1,
        "features": [],
        "plugin": {"name": "test", "version": "1"},
        "tools": [{"name": "echo"}, {"name": "fail"}],
    });
    assert_eq!(hello.unwrap(), expected);
    let result = call(&lane, "call", tool("echo", json!({"a": 1})), LONG).await.unwrap();
    assert_eq!(result, json!({"content": [{"type": "text", "text": "{\"a\":1}"}]}));
    let failed = call(&lane, "call", tool("fail", json!({})), LONG).await.unwrap_err();
    assert_eq!(failed.code, ErrorCode::PluginError);
    assert_eq!(failed.message, "it \\u{1b}[31mbroke");
    assert_eq!(call(&lane, "ping", json!({}), LONG).await.unwrap(), json!({}));
    let event = call(&lane, "handle_event", json!({}), LONG).await.unwrap_err();
    assert_eq!(event.code, ErrorCode::NotFound);
    let list = call(&lane, "call", tool("echo", json!([1])), LONG).await.unwrap_err();
    assert_eq!(list.code, ErrorCode::InvalidParams);
    call(&lane, "shutdown", json!({"reason": "stop"}), LONG).await.unwrap();
    told.recv_timeout(LONG).expect("the server's input ended");
    assert!(!end.is_finished(), "an end that was asked for is nobody's news");
}

#[tokio::test]
async fn a_call_does_not_outwait_the_conversation() {
    let ((lane, end, _), told) = silent();
    call(&lane, "initialize", json!({}), LONG).await.unwrap();
    let waiting = tokio::spawn(async move { call(&lane, "ping", json!({}), LONG).await });
    tokio::task::spawn_blocking(move || told.recv_timeout(LONG).unwrap()).await.unwrap();
    // Whoever sees the plugin's end first may drop the reader.
    end.abort();
    assert_eq!(waiting.await.unwrap().unwrap_err().code, ErrorCode::Crashed);
}

#[tokio::test]
async fn many_calls_at_once_each_get_their_own_answer() {
    let (lane, _end, _) = talk(|input, out| serve(input, out, |_, m| panic!("{m}")));
    call(&lane, "initialize", json!({}), LONG).await.unwrap();
    let calls: Vec<_> = (0..100)
        .map(|n| {
            let lane = Arc::clone(&lane);
            tokio::spawn(
                async move { call(&lane, "call", tool("echo", json!(n_of(n))), LONG).await },
            )
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        let result = call.await.unwrap().unwrap();
        assert_eq!(result["content"][0]["text"], n_of(n).to_string());
    }
}

fn n_of(n: usize) -> Value {
    json!({ "n": n })
}

#[tokio::test]
async fn older_versions_are_spoken_and_others_are_refused() {
    for (version, spoken) in
        [("2024-11-05", true), ("2025-03-26", true), ("2025-06-18", true), ("1.0", false)]
    {
        let (lane, _end, _) = talk(move |mut input, mut out| {
            let list = greet(&mut input, &mut out, version);
            answer(&mut out, &list["id"], &json!({"tools": []}));
            let _ = next(&mut input);
        });
        let hello = call(&lane, "initialize", json!({}), LONG).await;
        match hello {
            Ok(hello) => assert!(spoken && hello["tools"] == json!([]), "{version}"),
            Err(failure) => {
                assert!(!spoken && failure.message.contains("1.0"), "{version}: {failure}");
                assert_eq!(failure.code, ErrorCode::ProtocolBreach);
            }
        }
    }
}

#[tokio::test]
async fn a_server_without_tools_is_not_asked_for_them() {
    let (lane, _end, _) = talk(|mut input, mut out| {
        let hello = next(&mut input).unwrap();
        let result = json!({"protocolVersion": "2025-06-18", "capabilities": {"prompts": {}}});
        answer(&mut out, &hello["id"], &result);
        assert_eq!(next(&mut input).unwrap()["method"], "notifications/initialized");
        let third = next(&mut input).unwrap();
        answer(&mut out, &third["id"], &json!({"method": third["method"]}));
    });
    let hello = call(&lane, "initialize", json!({}), LONG).await.unwrap();
    assert_eq!(hello["tools"], json!([]));
    assert_eq!(call(&lane, "ping", json!({}), LONG).await.unwrap(), json!({"method": "ping"}));
}

#[tokio::test]
async fn tools_come_in_pages_and_pages_have_an_end() {
    let paged = |pages: Option<usize>| {
        talk(move |mut input, mut out| {
            let mut list = greet(&mut input, &mut out, "2025-06-18");
            for n in 0.. {
                let cursor = list["params"]["cursor"].clone();
                assert_eq!(cursor, if n == 0 { Value::Null } else { json!(format!("c{n}")) });
                let mut page = json!({"tools": [{"name": format!("t{n}")}]});
                if pages.is_none_or(|pages| n + 1 < pages) {
                    page["nextCursor"] = json!(format!("c{}", n + 1));
                }
                answer(&mut out, &list["id"], &page);
                match next(&mut input) {
                    Some(more) => list = more,
                    None => return,
                }
            }
        })
    };
    let (lane, _end, _) = paged(Some(3));
    let hello = call(&lane, "initialize", json!({}), LONG).await.unwrap();
    assert_eq!(hello["tools"], json!([{"name": "t0"}, {"name": "t1"}, {"name": "t2"}]));
    let (lane, _end, _) = paged(None);
    let endless = call(&lane, "initialize", json!({}), LONG).await.unwrap_err();
    assert_eq!(endless.code, ErrorCode::ProtocolBreach);
    assert!(endless.message.contains("64 pages"), "{endless}");
}

#[tokio::test]
async fn banners_are_noise_within_a_bound() {
    let config = Mcp { noise_lines: 20, ..Mcp::default() };
    let (lane, end, _) = talk_with(&config, |input, mut out| {
        writeln!(out, "Server running on stdio\n\n{{\"level\":\"info\",\"msg\":\"ready\"}}")
            .unwrap();
        serve(input, out, |out, m| {
            for _ in 0..30 {
                // An answer to nothing is noise as well.
                answer(out, &m["id"], &json!({"content": []}));
            }
        });
    });
    call(&lane, "initialize", json!({}), LONG).await.unwrap();
    call(&lane, "call", tool("echo", json!({})), LONG).await.unwrap();
    let _ = call(&lane, "call", tool("spam", json!({})), LONG).await;
    assert!(matches!(end.await.unwrap(), End::Breach(why) if why.contains("20 lines")));
    let after = call(&lane, "call", tool("echo", json!({})), LONG).await.unwrap_err();
    assert_eq!(after.code, ErrorCode::Crashed);
}

#[tokio::test]
async fn what_a_server_asks_of_its_client_is_refused_and_says_what_it_needs() {
    let ask = |out: &mut PipeWriter, id: u32, method: &str, params: Value| {
        let line = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        writeln!(out, "{line}").unwrap();
    };
    let (lane, _end, host) = talk(move |mut input, mut out| {
        let list = greet(&mut input, &mut out, "2025-06-18");
        answer(&mut out, &list["id"], &json!({"tools": []}));
        let m = next(&mut input).unwrap();
        ask(&mut out, 0, "sampling/createMessage", json!({"messages": []}));
        ask(&mut out, 1, "elicitation/create", json!({"message": "your password?"}));
        ask(&mut out, 2, "roots/list", Value::Null);
        ask(&mut out, 3, "event.publish", json!({"subject": "a"}));
        ask(&mut out, 4, "ping", json!({}));
        ask(&mut out, 5, "roots/list", json!([1]));
        let mut answers: Vec<Value> = (0..6).map(|_| next(&mut input).unwrap()).collect();
        answers.sort_by_key(|a| a["id"].as_u64());
        answer(&mut out, &m["id"], &json!({"answers": answers}));
    });
    call(&lane, "initialize", json!({}), LONG).await.unwrap();
    let result = call(&lane, "call", tool("any", json!({})), LONG).await.unwrap();
    let answers = &result["answers"];
    for (id, code, word) in [
        (0, -32601, "mcp.sampling"),
        (1, -32601, "mcp.elicitation"),
        (2, -32601, "mcp.roots"),
        (3, -32601, "event.publish"),
        (5, -32600, "not an object"),
    ] {
        let error = &answers[id]["error"];
        assert_eq!(error["code"], code, "{error}");
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
    }
    assert_eq!(answers[4]["result"], json!({}));
    // The host saw what has a capability, and only that: nothing of ours is reached by another name.
    let mut asked = host.asked.lock().unwrap().clone();
    asked.sort();
    assert_eq!(asked, ["elicitation/create", "roots/list", "sampling/createMessage"]);
}

#[tokio::test]
async fn log_messages_go_to_the_log_and_other_notifications_nowhere() {
    let config = Mcp { noise_lines: 5, ..Mcp::default() };
    let (lane, _end, host) = talk_with(&config, |input, out| {
        serve(input, out, |out, m| {
            for n in 0..100 {
                let params = json!({"level": "info", "data": format!("line {n}\nand more")});
                for method in ["notifications/message", "notifications/progress"] {
                    let line = json!({"jsonrpc": "2.0", "method": method, "params": params});
                    writeln!(out, "{line}").unwrap();
                }
            }
            answer(out, &m["id"], &json!({"content": []}));
        });
    });
    call(&lane, "initialize", json!({}), LONG).await.unwrap();
    call(&lane, "call", tool("log", json!({})), LONG).await.unwrap();
    let lines = host.lines.lock().unwrap();
    assert_eq!(lines.len(), 100);
    assert_eq!(lines[7], "info: line 7\\nand more");
}

/// A server that tells what it got after the handshake and never answers.
fn silent() -> (Talk, mpsc::Receiver<Value>) {
    let (tell, told) = mpsc::channel();
    let talk = talk(move |mut input, mut out| {
        let list = greet(&mut input, &mut out, "2025-06-18");
        answer(&mut out, &list["id"], &json!({"tools": []}));
        while let Some(m) = next(&mut input) {
            let _ = tell.send(m);
        }
    });
    (talk, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_is_cancelled() {
    let ((lane, _end, _), told) = silent();
    call(&lane, "initialize", json!({}), LONG).await.unwrap();
    let cancelled = |name: &str| {
        let asked = told.recv_timeout(LONG).unwrap();
        assert_eq!(asked["params"]["name"], name);
        let cancelled = told.recv_timeout(LONG).unwrap();
        assert_eq!(cancelled["method"], "notifications/cancelled");
        assert_eq!(cancelled["params"]["requestId"], asked["id"]);
        assert!(cancelled.get("id").is_none());
    };
    let late = call(&lane, "call", tool("a", json!({})), Duration::from_millis(100)).await;
    assert_eq!(late.unwrap_err().code, ErrorCode::Deadline);
    cancelled("a");
    let dropped = call(&lane, "call", tool("b", json!({})), LONG);
    assert!(tokio::time::timeout(Duration::from_millis(100), dropped).await.is_err());
    cancelled("b");
}

#[tokio::test(flavor = "multi_thread")]
async fn initialize_is_never_cancelled() {
    let (tell, told) = mpsc::channel();
    let (lane, _end, _) = talk(move |mut input, _out| {
        while let Some(m) = next(&mut input) {
            let _ = tell.send(m["method"].clone());
        }
    });
    let silent = call(&lane, "initialize", json!({}), Duration::from_millis(100)).await;
    assert_eq!(silent.unwrap_err().code, ErrorCode::Deadline);
    let _ = call(&lane, "ping", json!({}), Duration::from_millis(100)).await;
    let said: Vec<Value> = (0..3).map(|_| told.recv_timeout(LONG).unwrap()).collect();
    assert_eq!(said, ["initialize", "ping", "notifications/cancelled"]);
}

#[tokio::test]
async fn floods_and_endless_lines_are_breaches_and_not_memory() {
    let flood = |piece: Vec<u8>| {
        talk(move |_input, mut out| {
            // A gibibyte, if anybody takes it.
            for _ in 0..(1 << 30) / piece.len() {
                if out.write_all(&piece).is_err() {
                    return;
                }
            }
        })
    };
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    for piece in [vec![b'x'; 1 << 20], vec![b'\n'; 4096], format!("{request}\n").into_bytes()] {
        let (lane, end, _) = flood(piece);
        let end = tokio::time::timeout(LONG, end).await.unwrap().unwrap();
        assert!(matches!(end, End::Breach(_)), "{end:?}");
        let after = call(&lane, "initialize", json!({}), LONG).await.unwrap_err();
        assert_eq!(after.code, ErrorCode::Crashed);
    }
}

#[tokio::test]
async fn the_end_of_a_server_fails_what_waits() {
    let (lane, end, _) = talk(|mut input, out| {
        let _ = next(&mut input);
        drop(out);
        let _ = input.read_to_end(&mut Vec::new());
    });
    let gone = call(&lane, "initialize", json!({}), LONG).await.unwrap_err();
    assert_eq!(gone.code, ErrorCode::Crashed);
    assert_eq!(end.await.unwrap(), End::Closed);
}
