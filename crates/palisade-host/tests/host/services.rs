use std::sync::Arc;

use palisade_audit::{Phase, RecordKind};
use palisade_broker::Service;
use palisade_host::{Host, HostError};
use palisade_model::{ErrorCode, Failure};
use palisade_services::log::Tail;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::support::Stage;

#[derive(Deserialize, JsonSchema)]
struct UserQuery {
    id: u64,
}

#[derive(Serialize, JsonSchema)]
struct UserProfile {
    name: String,
}

fn profile() -> Service<UserQuery> {
    Service::new("get_user_profile", |_cx, query: UserQuery| async move {
        match query.id {
            7 => Ok(UserProfile { name: "Ada".into() }),
            other => Err(Failure::new(ErrorCode::NotFound, format!("there is no user {other}"))),
        }
    })
}

const CALLER: &str = "capabilities:\n  required:\n    - { capability: 'host.call:get_user_profile', reason: greets by name }\n";

fn ask(id: u64) -> serde_json::Value {
    json!({"method": "host.call", "params": {"method": "get_user_profile", "params": {"id": id}}})
}

#[tokio::test]
async fn a_plugin_with_the_right_reaches_the_applications_service() {
    let stage = Stage::with(|b| b.service(profile())).await;
    let plugin = stage.started("a", CALLER).await;
    assert_eq!(plugin.call("ask", &ask(7)).await.unwrap().bytes(), r#"{"name":"Ada"}"#);
    assert_eq!(plugin.call("ask", &ask(8)).await.unwrap_err().code, ErrorCode::NotFound);
    let record = &stage.recorder.of(RecordKind::Request)[0];
    assert_eq!(
        (record.phase, record.rule.as_deref()),
        (Phase::Intent, Some("host.call:get_user_profile"))
    );
    let counts = plugin.status().counts;
    assert_eq!((counts.requests, counts.requests_failed), (2, 1));

    let without = stage.started("b", "").await;
    let refused = without.call("ask", &ask(7)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Denied);
    assert_eq!(
        without.call("ask", &json!({"method": "launch", "params": {}})).await.unwrap_err().code,
        ErrorCode::NotFound
    );
}

#[tokio::test]
async fn two_services_of_one_name_fail_the_build() {
    let tmp = tempfile::tempdir().unwrap();
    let built =
        Host::builder().state_dir(tmp.path()).service(profile()).service(profile()).build().await;
    assert!(matches!(built, Err(HostError::Service(_))), "{built:?}");
}

#[tokio::test]
async fn what_a_plugin_prints_and_logs_is_escaped_and_ends_up_in_the_sink() {
    let tail = Arc::new(Tail::new(100, 1 << 16));
    let stage = Stage::with(|b| b.log_sink(tail.clone())).await;
    let plugin = stage.started("a", "").await;
    plugin.call("print", &()).await.unwrap();
    let log = json!({"method": "log", "params": {"level": "warn", "message": "two\nlines"}});
    plugin.call("ask", &log).await.unwrap();
    let lines = tail.lines();
    assert_eq!(lines.len(), 2);
    let shown = format!("{lines:?}");
    assert!(!shown.contains('\x1b') && shown.contains("print"), "{shown}");
    assert_eq!(plugin.status().counts.output_lines, 1);
}

#[tokio::test]
async fn what_a_plugin_stores_is_there_after_a_restart_and_for_nobody_else() {
    let stage = Stage::with(|b| b).await;
    const KEEPER: &str = "capabilities:\n  required:\n    - { capability: 'storage.kv:notes/*', reason: keeps notes }\nresources: { disk: 4KiB }\n";
    let plugin = stage.started("a", KEEPER).await;
    let ask = |method: &str, params: serde_json::Value| json!({"method": method, "params": params});
    let set = ask("storage.set", json!({"key": "notes/1", "value": "mine"}));
    plugin.call("ask", &set).await.unwrap();
    plugin.stop().await.unwrap();
    plugin.start().await.unwrap();
    let get = ask("storage.get", json!({"key": "notes/1"}));
    let found: serde_json::Value = plugin.call("ask", &get).await.unwrap().parse().unwrap();
    assert_eq!(found["value"], "mine");
    let other = stage.started("b", KEEPER).await;
    let found: serde_json::Value = other.call("ask", &get).await.unwrap().parse().unwrap();
    assert_eq!(found["found"], false);
    // The manifest's disk limit is the quota.
    let large = ask("storage.set", json!({"key": "notes/2", "value": "x".repeat(4096)}));
    assert_eq!(plugin.call("ask", &large).await.unwrap_err().code, ErrorCode::LimitExceeded);
}

#[tokio::test]
async fn named_data_of_the_application_is_asked_for_by_data_request() {
    let stage = Stage::with(|b| {
        b.data("profile", |cx, params| async move {
            let plugin = cx.instance().map(|i| i.plugin.id.to_string());
            Ok(json!({"to": plugin, "about": params}))
        })
    })
    .await;
    const ASKER: &str = "capabilities:\n  required:\n    - { capability: 'host.call:data.profile', reason: greets }\n";
    let plugin = stage.started("a", ASKER).await;
    let ask = json!({"method": "data_request", "params": {"name": "profile", "params": 7}});
    let found: serde_json::Value = plugin.call("ask", &ask).await.unwrap().parse().unwrap();
    assert_eq!(found, json!({"to": "a", "about": 7}));
    let without = stage.started("b", "").await;
    assert_eq!(without.call("ask", &ask).await.unwrap_err().code, ErrorCode::Denied);

    let tmp = tempfile::tempdir().unwrap();
    let twice = Host::builder()
        .state_dir(tmp.path())
        .data("a", |_, _| async { Ok(1) })
        .data("a", |_, _| async { Ok(2) });
    assert!(matches!(twice.build().await, Err(HostError::Service(_))));
}

const CALLS_B: &str =
    "capabilities:\n  required:\n    - { capability: 'plugin.call:b', reason: lets it count }\n";

fn ask_b(tool: &str, args: serde_json::Value) -> serde_json::Value {
    json!({"method": "plugin.call", "params": {"plugin": "b", "tool": tool, "args": args}})
}

#[tokio::test]
async fn a_plugin_with_the_right_calls_a_tool_of_another_that_runs() {
    let stage = Stage::new().await;
    let a = stage.started("a", CALLS_B).await;
    let question = ask_b("echo", json!({"n": 1}));
    // Loaded, but not started, and not even loaded: both are told to whoever may call it.
    assert_eq!(a.call("ask", &question).await.unwrap_err().code, ErrorCode::NotFound);
    let b = stage.load("b", "").await;
    assert_eq!(a.call("ask", &question).await.unwrap_err().code, ErrorCode::Unavailable);
    b.start().await.unwrap();
    let direct = b.call("echo", &json!({"n": 1})).await.unwrap();
    assert_eq!(a.call("ask", &question).await.unwrap(), direct);
    let no_tool = a.call("ask", &ask_b("nonsense", json!({}))).await.unwrap_err();
    assert_eq!(no_tool.code, ErrorCode::NotFound);
    assert_eq!(
        a.call("ask", &ask_b("fail", json!({}))).await.unwrap_err().code,
        ErrorCode::PluginError
    );

    // The call is on record as the asker's, by the right that allowed it.
    let calls = stage.recorder.of(RecordKind::Call);
    let by_right = |r: &palisade_audit::Record| {
        r.rule.as_deref().is_some_and(|rule| rule.starts_with("plugin.call:b"))
    };
    assert!(calls.iter().any(by_right), "{calls:?}");
}

#[tokio::test]
async fn without_the_right_no_other_plugin_is_called_or_told_of() {
    let stage = Stage::new().await;
    stage.started("b", "").await;
    let a = stage.started("a", "").await;
    for plugin in ["b", "c", "a"] {
        let question =
            json!({"method": "plugin.call", "params": {"plugin": plugin, "tool": "echo"}});
        let refused = a.call("ask", &question).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Denied, "{plugin}: {refused}");
    }
}

#[tokio::test]
async fn a_circle_of_plugins_that_call_each_other_ends() {
    let stage = Stage::new().await;
    let both = "capabilities:\n  required:\n    - { capability: 'plugin.call:*', reason: talks }\n";
    let (a, _b) = (stage.started("a", both).await, stage.started("b", both).await);
    // Each asks the other to ask it again, further than the bound on hops.
    let mut question = json!({"plugin": "b", "tool": "echo"});
    for round in 0..20 {
        let plugin = if round % 2 == 0 { "a" } else { "b" };
        question = json!({"plugin": plugin, "tool": "ask", "args": {"method": "plugin.call", "params": question}});
    }
    let ended =
        a.call("ask", &json!({"method": "plugin.call", "params": question})).await.unwrap_err();
    assert_eq!(ended.code, ErrorCode::LimitExceeded, "{ended}");
}
