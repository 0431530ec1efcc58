use std::time::Duration;

use palisade_audit::{Phase, RecordKind};
use palisade_host::{CallOptions, State};
use palisade_model::ErrorCode;
use palisade_sandbox::{ExitCause, KillReason};
use serde_json::{json, value::RawValue};

use crate::support::Stage;

#[tokio::test]
async fn raw_json_goes_through_unchanged_and_nothing_else_than_objects_does() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", "").await;
    let text = r#"{ "big":12345678901234567890123,"b" : [ ] }"#;
    let raw = RawValue::from_string(text.to_owned()).unwrap();
    assert_eq!(plugin.call("echo", &*raw).await.unwrap().bytes(), text);
    assert_eq!(plugin.call("echo", &()).await.unwrap().bytes(), "{}");
    for bad in [json!([1]), json!("x"), json!(3)] {
        let failure = plugin.call("echo", &bad).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::InvalidParams, "{bad}");
    }
}

#[tokio::test]
async fn arguments_are_held_against_the_tools_schema_before_the_plugin_sees_them() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", "").await;
    let failure = plugin.call("typed", &json!({"n": "three"})).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::InvalidParams);
    assert!(failure.message.contains("/n"), "{failure}");
    assert_eq!(plugin.status().counts.calls, 0);
    let refusal = &stage.recorder.of(RecordKind::Call)[0];
    assert_eq!((refusal.phase, refusal.code), (Phase::Note, Some(ErrorCode::InvalidParams)));
    let reached = plugin.call("typed", &json!({"n": 3})).await.unwrap_err();
    assert_eq!(reached.message, "no tool typed", "the plugin itself answered");
}

#[tokio::test]
async fn a_tool_that_is_not_there_is_named_with_the_nearest() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", "").await;
    let failure = plugin.call("ecko", &()).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::NotFound);
    assert_eq!(failure.hint.as_deref(), Some("did you mean echo?"));
    let hostile = plugin.call("x\x1b[31m", &()).await.unwrap_err();
    assert!(!hostile.message.contains('\x1b'));
}

#[tokio::test]
async fn a_call_is_recorded_with_its_rule_payload_and_outcome() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", "").await;
    plugin.call("echo", &()).await.unwrap();
    plugin.call("fail", &()).await.unwrap_err();
    let records = stage.recorder.of(RecordKind::Call);
    assert_eq!(records.len(), 4, "two intents, two outcomes");
    assert_eq!(records[0].phase, Phase::Intent);
    assert_eq!(records[0].target.as_deref(), Some("echo"));
    assert_eq!(records[0].rule.as_deref(), Some("tool:echo"));
    assert!(records[0].payload_sha256.is_some());
    assert_eq!(records[3].code, Some(ErrorCode::PluginError));
    let counts = plugin.status().counts;
    assert_eq!((counts.calls, counts.calls_failed), (2, 1));
}

#[tokio::test]
async fn the_rate_of_calls_is_kept() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", "resources: { rates: { calls: 3 } }\n").await;
    let mut refused = Vec::new();
    for _ in 0..6 {
        refused.extend(plugin.call("echo", &()).await.err());
    }
    assert_eq!(refused.len(), 3);
    assert!(refused.iter().all(|f| f.code == ErrorCode::RateLimited && f.retry_after_ms.is_some()));
}

#[tokio::test]
async fn the_rate_of_requests_is_kept() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", "resources: { rates: { requests: 2 } }\n").await;
    let ask = json!({"method": "log", "params": {"message": "hi"}});
    plugin.call("ask", &ask).await.unwrap();
    plugin.call("ask", &ask).await.unwrap();
    assert_eq!(plugin.call("ask", &ask).await.unwrap_err().code, ErrorCode::RateLimited);
}

#[tokio::test]
async fn many_calls_at_once_are_answered_each_with_its_own() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", "").await;
    let mut calls = tokio::task::JoinSet::new();
    for i in 0..200 {
        let plugin = plugin.clone();
        calls.spawn(async move {
            let answer = plugin.call("echo", &json!({"i": i})).await.unwrap();
            assert_eq!(answer.bytes(), format!(r#"{{"i":{i}}}"#).as_str());
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    assert_eq!(plugin.status().counts.calls, 200);
}

#[tokio::test]
async fn a_call_has_a_deadline_and_the_plugin_lives_on() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", "resources: { timeouts: { call: 50ms } }\n").await;
    assert_eq!(plugin.call("hang", &()).await.unwrap_err().code, ErrorCode::Deadline);
    let longer = CallOptions::new().timeout(Duration::from_millis(10));
    assert_eq!(plugin.call_with("hang", &(), longer).await.unwrap_err().code, ErrorCode::Deadline);
    plugin.call("echo", &()).await.unwrap();
    let dropped = tokio::time::timeout(Duration::from_millis(5), plugin.call("hang", &())).await;
    assert!(dropped.is_err());
    let outcome = stage.recorder.ends(RecordKind::Call).last().unwrap().1;
    assert_eq!(outcome, Some(ErrorCode::Cancelled), "a call that was given up is recorded as that");
}

#[tokio::test]
async fn a_trace_is_carried_if_it_is_one() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", "").await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    plugin.call_with("echo", &(), CallOptions::new().trace(trace)).await.unwrap();
    assert_eq!(stage.recorder.of(RecordKind::Call)[0].trace.as_deref(), Some(trace));
    let bad = plugin.call_with("echo", &(), CallOptions::new().trace("x\ny")).await.unwrap_err();
    assert_eq!(bad.code, ErrorCode::InvalidParams);
}

#[tokio::test]
async fn a_call_that_ends_with_the_plugin_says_how_it_ended() {
    let stage = Stage::new().await;
    for (tool, code, state) in [
        ("oom", ErrorCode::LimitExceeded, State::Crashed),
        ("sigsys", ErrorCode::PolicyKill, State::Crashed),
        ("segv", ErrorCode::Crashed, State::Crashed),
        ("exit", ErrorCode::Crashed, State::Stopped),
    ] {
        let plugin = stage.started(&format!("p-{tool}"), "").await;
        let failure = plugin.call(tool, &()).await.unwrap_err();
        assert_eq!(failure.code, code, "{tool}: {failure}");
        assert!(!failure.message.contains("connection closed"), "{tool}: {failure}");
        assert_eq!(plugin.status().state, state, "{tool}");
        let after = plugin.call("echo", &()).await.unwrap_err();
        assert_eq!(after.code, ErrorCode::Unavailable);
    }
    let codes: Vec<_> = stage.recorder.ends(RecordKind::Exit).into_iter().map(|e| e.1).collect();
    use ErrorCode as C;
    assert_eq!(codes, [Some(C::LimitExceeded), Some(C::PolicyKill), Some(C::Crashed), None]);
}

#[tokio::test]
async fn calls_that_wait_learn_how_the_plugin_ended() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", "").await;
    let waiting = tokio::spawn({
        let plugin = plugin.clone();
        async move { plugin.call("hang", &()).await }
    });
    tokio::time::sleep(Duration::from_millis(30)).await;
    plugin.call("oom", &()).await.unwrap_err();
    assert_eq!(waiting.await.unwrap().unwrap_err().code, ErrorCode::LimitExceeded);
    plugin.start().await.unwrap();
    let waiting = tokio::spawn({
        let plugin = plugin.clone();
        async move { plugin.call("hang", &()).await }
    });
    tokio::time::sleep(Duration::from_millis(30)).await;
    plugin.kill().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().code, ErrorCode::Cancelled);
}

#[tokio::test]
async fn a_breach_of_the_protocol_ends_the_plugin() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", "").await;
    let failure = plugin.call("breach", &()).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::ProtocolBreach);
    assert_eq!(plugin.status().state, State::Crashed);
    let kills = stage.echo.knobs.kills.lock().unwrap().clone();
    assert_eq!(kills, [KillReason::Breach("half a frame".into())]);
    assert_eq!(stage.recorder.ends(RecordKind::Breach).len(), 1);
    let exit = plugin.wait().await.unwrap();
    assert!(matches!(exit.cause, ExitCause::Killed(KillReason::Breach(_))));
}
