//! What a component exports beside `guest` is found by looking, and called through the lane; what it does not
//! export is told apart from a failure. One guest in Rust exports everything, one written by hand nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{sync::Arc, time::Duration};

use palisade_model::ErrorCode as C;
use palisade_sandbox::{Calls, ExitCause, Instance, KillReason};
use serde_json::{Value, json};
use support::{ALL_RIGHTS, Bench, ask, bench, code, guest, initialize, quick, rust_guest, tool};

const TIME: Duration = Duration::from_secs(5);

fn everything(calls: Calls) -> Bench {
    let mut bench = bench(&rust_guest(), calls);
    bench.rights(&ALL_RIGHTS);
    // What it asks of the host is answered with this.
    *bench.host.answer.lock().unwrap() = Some(Ok(r#"{"kept":true}"#.into()));
    bench
}

async fn asked(instance: &Arc<dyn Instance>, method: &'static str, params: Value) -> Value {
    let answer = ask(instance, method, &params.to_string(), TIME).await;
    answer.unwrap_or_else(|e| panic!("{method} {params}: {e}")).parse().unwrap()
}

async fn told(instance: &Arc<dyn Instance>, name: &str) -> Value {
    serde_json::from_str(&quick(instance, name).await.unwrap()).unwrap()
}

#[tokio::test]
async fn events_arrive_as_they_were_sent() {
    let bench = everything(Calls::Stateful);
    let instance = bench.started().await;
    let event =
        json!({"delivery": "d-1", "subject": "mail.new", "data": {"n": [1, "ä"]}, "hops": 3});
    assert_eq!(asked(&instance, "handle_event", event).await, json!({}));
    assert_eq!(told(&instance, "events").await, json!([["d-1", "mail.new", {"n": [1, "ä"]}, 3]]));
}

#[tokio::test]
async fn a_hook_passes_replaces_and_vetoes() {
    let bench = everything(Calls::Stateful);
    let instance = bench.started().await;
    let hook = |name: &str| json!({"hook": name, "data": {"text": "x"}});
    assert_eq!(asked(&instance, "hook", hook("pass")).await, json!({}));
    assert_eq!(asked(&instance, "hook", hook("veto")).await, json!({"veto": "as told"}));
    let replaced = asked(&instance, "hook", hook("replace")).await;
    assert_eq!(replaced, json!({"data": {"was": {"text": "x"}}}));
    // A failure is not a veto, and what is no JSON is not data.
    let failed = ask(&instance, "hook", &hook("fail").to_string(), TIME).await.unwrap_err();
    assert_eq!((failed.code, failed.message.as_str()), (C::InvalidParams, "as told"));
    let nonsense = ask(&instance, "hook", &hook("nonsense").to_string(), TIME).await;
    assert_eq!(code(nonsense), C::PluginError);
    assert_eq!(asked(&instance, "hook", hook("pass")).await, json!({}), "it lives on");
}

#[tokio::test]
async fn a_command_is_run_with_its_arguments() {
    let bench = everything(Calls::Stateful);
    let instance = bench.started().await;
    let params = json!({"command": "greet", "args": ["one", "two ü"]});
    let outcome = asked(&instance, "run_command", params).await;
    assert_eq!(outcome, json!({"status": 2, "output": "greet one+two ü"}));
}

#[tokio::test]
async fn a_new_configuration_counts_for_the_instance_after_a_trap_too() {
    for calls in [Calls::Stateful, Calls::Stateless { instances: 2 }] {
        let bench = everything(calls);
        let instance = bench.launch().await.unwrap();
        initialize(&instance, r#"{"word":"old"}"#).await.unwrap();
        assert_eq!(told(&instance, "config").await, json!({"word": "old"}));
        let new = json!({"config": {"word": "new"}});
        assert_eq!(asked(&instance, "configure", new).await, json!({}), "{calls:?}");
        assert_eq!(told(&instance, "config").await, json!({"word": "new"}), "{calls:?}");
        assert_eq!(code(quick(&instance, "trap").await), C::Crashed);
        assert_eq!(told(&instance, "config").await, json!({"word": "new"}), "{calls:?}");
        assert_eq!(told(&instance, "count").await, 2, "{calls:?}: another instance");
        // One that the plugin refuses changes nothing, now or later.
        let refused = ask(&instance, "configure", r#"{"config":{"refuse":true}}"#, TIME).await;
        assert_eq!(code(refused), C::InvalidParams);
        assert_eq!(code(quick(&instance, "trap").await), C::Crashed);
        assert_eq!(told(&instance, "config").await, json!({"word": "new"}), "{calls:?}");
    }
}

#[tokio::test]
async fn a_fresh_instance_that_cannot_begin_fails_its_call_and_not_the_next() {
    let bench = everything(Calls::Stateful);
    let instance = bench.launch().await.unwrap();
    initialize(&instance, "{}").await.unwrap();
    asked(&instance, "configure", json!({"config": {"trap": true}})).await;
    assert_eq!(code(quick(&instance, "trap").await), C::Crashed);
    // It traps while it is initialized with what it was given.
    for _ in 0..2 {
        assert_eq!(code(quick(&instance, "config").await), C::Crashed);
    }
    // Another configuration reaches nobody: there is no instance that could take it.
    let other = ask(&instance, "configure", r#"{"config":{}}"#, TIME).await;
    assert_eq!(code(other), C::Crashed);
}

#[tokio::test]
async fn state_is_handed_over() {
    let bench = everything(Calls::Stateful);
    let (first, second) = (bench.started().await, bench.started().await);
    for _ in 0..3 {
        told(&first, "count").await;
    }
    let saved = asked(&first, "save_state", Value::Null).await;
    assert_eq!(saved, json!({"schema": 1, "state": 3}));
    assert_eq!(asked(&second, "restore_state", saved).await, json!({}));
    assert_eq!(told(&second, "count").await, 4);
    let unknown = ask(&second, "restore_state", r#"{"schema":9,"state":1}"#, TIME).await;
    assert_eq!(code(unknown), C::InvalidParams);
}

#[tokio::test]
async fn it_is_told_before_it_ends_and_ends_whatever_it_does() {
    let bench = everything(Calls::Stateful);
    let instance = bench.started().await;
    let exit = instance.stop(TIME).await;
    assert_eq!(exit.cause, ExitCause::Killed(KillReason::Asked));
    let asked = bench.host.requests.lock().unwrap().clone();
    let [(method, line)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(method, "log");
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["message"], "shutdown: stop");
    assert_eq!(line["fields"]["grace-ms"], 5000);
    assert_eq!(code(quick(&instance, "count").await), C::Unavailable);

    // A plugin that waits for ever while it is told.
    *bench.host.answer.lock().unwrap() = None;
    let instance = bench.started().await;
    let begun = std::time::Instant::now();
    instance.stop(Duration::from_millis(200)).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_is_not_exported_is_not_found_and_does_no_harm() {
    let bench = bench(&guest(), Calls::Stateful);
    let instance = bench.started().await;
    assert_eq!(quick(&instance, "count").await.unwrap(), "1");
    for (method, params, interface) in [
        ("handle_event", r#"{"delivery":"d","subject":"a","data":1,"hops":0}"#, "events"),
        ("hook", r#"{"hook":"a","data":1}"#, "hooks"),
        ("run_command", r#"{"command":"a","args":[]}"#, "commands"),
        ("configure", r#"{"config":{}}"#, "configure"),
        ("save_state", "null", "state"),
        ("restore_state", r#"{"schema":1,"state":1}"#, "state"),
    ] {
        let failure = ask(&instance, method, params, TIME).await.unwrap_err();
        assert_eq!(failure.code, C::NotFound, "{method}: {failure}");
        assert!(failure.message.contains(&format!("palisade:plugin/{interface}")), "{failure}");
    }
    assert_eq!(ask(&instance, "shutdown", "null", TIME).await.unwrap().bytes(), "{}");
    let strange = ask(&instance, "teleport", "null", TIME).await.unwrap_err();
    assert_eq!(strange.code, C::NotFound, "{strange}");
    let broken = ask(&instance, "call", r#"{"tool":7}"#, TIME).await.unwrap_err();
    assert_eq!(broken.code, C::InvalidParams, "{broken}");
    assert_eq!(tool(&instance, "count", "{}", TIME).await.unwrap(), "2", "the same instance");
}
