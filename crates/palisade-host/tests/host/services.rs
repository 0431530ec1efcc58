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
