//! The `jsonl` dialect as a lane, against plugins that behave and plugins that do not.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/mod.rs"]
mod support;

use std::{
    io::{BufRead, Read, Write},
    sync::Arc,
    time::Duration,
};

use palisade_dialect::jsonl::{InitMethod, Jsonl};
use palisade_model::ErrorCode;
use palisade_sandbox::{
    Lane,
    stream::{End, jsonl},
};
use serde_json::{Value, json};
use support::{Host, Input, LONG, answer, call};

fn talk(
    config: Jsonl,
    plugin: fn(Input, std::io::PipeWriter),
) -> (Arc<dyn Lane>, tokio::task::JoinHandle<End>) {
    support::talk(plugin, |to, from| jsonl(to, from, config, Arc::new(Host::default())))
}

fn echo(input: Input, mut out: std::io::PipeWriter) {
    for line in input.lines() {
        let message: Value = serde_json::from_str(&line.unwrap()).unwrap();
        answer(&mut out, &message["id"], &message["params"]);
    }
}

#[tokio::test]
async fn many_calls_at_once_each_get_their_own_answer() {
    let (lane, _end) = talk(Jsonl::default(), echo);
    let calls: Vec<_> = (0..100)
        .map(|n| {
            let lane = Arc::clone(&lane);
            tokio::spawn(async move { call(&lane, "call", json!({ "n": n }), LONG).await })
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap(), json!({ "n": n }));
    }
}

#[tokio::test]
async fn init_is_tried_where_initialize_is_unknown_and_only_in_auto_mode() {
    fn old(input: Input, mut out: std::io::PipeWriter) {
        for line in input.lines() {
            let m: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if m["method"] == "init" {
                answer(&mut out, &m["id"], &json!("ok"));
            } else {
                writeln!(out, "{}", json!({"id": m["id"], "error": "Unknown method"})).unwrap();
            }
        }
    }
    let (lane, _end) = talk(Jsonl::default(), old);
    assert_eq!(call(&lane, "initialize", json!({}), LONG).await.unwrap()["protocol"], json!(1));
    let strict = Jsonl { init: InitMethod::Initialize, ..Jsonl::default() };
    let (lane, _end) = talk(strict, old);
    assert!(call(&lane, "initialize", json!({}), LONG).await.is_err());
}

#[tokio::test]
async fn banners_late_and_double_answers_are_noise_within_a_bound() {
    let (lane, end) = talk(Jsonl { noise_lines: 50, ..Jsonl::default() }, |input, mut out| {
        writeln!(out, "Welcome to my plugin!").unwrap();
        for line in input.lines() {
            let m: Value = serde_json::from_str(&line.unwrap()).unwrap();
            answer(&mut out, &m["id"], &json!(1));
            answer(&mut out, &m["id"], &json!(2));
            if m["method"] == "spam" {
                for _ in 0..60 {
                    writeln!(out, "spam").unwrap();
                }
            }
        }
    });
    assert_eq!(call(&lane, "call", json!({}), LONG).await.unwrap(), json!(1));
    assert_eq!(call(&lane, "call", json!({}), LONG).await.unwrap(), json!(1));
    let _ = call(&lane, "spam", json!({}), LONG).await;
    assert!(matches!(end.await.unwrap(), End::Breach(why) if why.contains("50")));
    let after = call(&lane, "call", json!({}), LONG).await.unwrap_err();
    assert_eq!(after.code, ErrorCode::Crashed);
}

#[tokio::test]
async fn an_endless_line_is_a_breach_and_not_memory() {
    let (_lane, end) = talk(Jsonl::default(), |_, mut out| {
        let chunk = vec![b'x'; 1 << 20];
        // A gibibyte, if anybody takes it.
        for _ in 0..1024 {
            if out.write_all(&chunk).is_err() {
                return;
            }
        }
    });
    assert!(matches!(tokio::time::timeout(LONG, end).await.unwrap().unwrap(), End::Breach(_)));
}

#[tokio::test]
async fn silence_is_a_deadline_and_the_end_fails_what_waits() {
    let (lane, _end) = talk(Jsonl::default(), |mut input, _out| {
        let mut rest = Vec::new();
        let _ = input.read_to_end(&mut rest);
    });
    let silent = call(&lane, "call", json!({}), Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(silent.code, ErrorCode::Deadline);
    let (lane, end) = talk(Jsonl::default(), |mut input, out| {
        let mut line = String::new();
        let _ = input.read_line(&mut line);
        drop(out);
    });
    let gone = call(&lane, "call", json!({}), LONG).await.unwrap_err();
    assert_eq!(gone.code, ErrorCode::Crashed);
    assert_eq!(end.await.unwrap(), End::Closed);
}

#[tokio::test]
async fn a_plugin_that_never_reads_costs_a_deadline_and_bounded_memory() {
    let (lane, _end) =
        talk(Jsonl::default(), |_input, _out| std::thread::sleep(Duration::from_secs(20)));
    let big = json!({ "x": "y".repeat(1 << 20) });
    for _ in 0..3 {
        let stuck = call(&lane, "call", big.clone(), Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(stuck.code, ErrorCode::Deadline | ErrorCode::Crashed), "{stuck}");
    }
}

#[tokio::test]
async fn the_plugins_own_requests_are_served() {
    let (lane, _end) = talk(Jsonl::default(), |mut input, mut out| {
        let mut line = String::new();
        input.read_line(&mut line).unwrap();
        let m: Value = serde_json::from_str(&line).unwrap();
        writeln!(
            out,
            "{}",
            json!({"id": "q-1", "method": "data_request", "params": {"name": "x"}})
        )
        .unwrap();
        writeln!(out, "{}", json!({"id": "q-2", "method": "nonsense", "params": {}})).unwrap();
        let mut answers = Vec::new();
        for _ in 0..2 {
            let mut line = String::new();
            input.read_line(&mut line).unwrap();
            answers.push(serde_json::from_str::<Value>(&line).unwrap());
        }
        answers.sort_by_key(|a| a["id"].to_string());
        answer(&mut out, &m["id"], &json!(answers));
    });
    let answers = call(&lane, "call", json!({}), LONG).await.unwrap();
    assert_eq!(answers[0], json!({"id": "q-1", "result": {"name": "x"}}));
    assert!(answers[1]["error"].as_str().unwrap().contains("PAL-NOT-FOUND"), "{answers}");
}

#[tokio::test]
async fn requests_without_end_are_a_breach_and_not_memory() {
    let (_lane, end) = talk(Jsonl::default(), |_input, mut out| {
        // It never reads its answers.
        let line = json!({"id": "q", "method": "data_request", "params": "x".repeat(4096)});
        for _ in 0..100_000 {
            if writeln!(out, "{line}").is_err() {
                return;
            }
        }
    });
    assert!(matches!(tokio::time::timeout(LONG, end).await.unwrap().unwrap(), End::Breach(_)));
}

#[tokio::test]
async fn the_input_is_closed_after_shutdown_is_answered() {
    let (lane, end) = talk(Jsonl::default(), echo);
    call(&lane, "shutdown", json!({}), LONG).await.unwrap();
    let after = call(&lane, "call", json!({}), LONG).await.unwrap_err();
    assert_eq!(after.code, ErrorCode::Crashed);
    assert!(!end.is_finished(), "an end that was asked for is nobody's news");
}
