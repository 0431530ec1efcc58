use std::time::Duration;

use palisade_audit::RecordKind;
use palisade_model::ErrorCode;
use serde_json::{Value, json};

use crate::support::{Stage, cap};

const SUBSCRIBER: &str = "capabilities:\n  required:\n    - 'event.subscribe:mail.>'\n    - 'event.subscribe:mail.new'\n    - 'event.subscribe:*.new'\n    - 'event.subscribe:refused.event'\n";
const PUBLISHER: &str =
    "capabilities:\n  required:\n    - { capability: 'event.publish:mail.>', reason: tells }\n";

async fn received(stage: &Stage, n: usize) -> Vec<Value> {
    for _ in 0..500 {
        if stage.echo.knobs.events.lock().unwrap().len() >= n {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What should not come has a moment to come.
    tokio::time::sleep(Duration::from_millis(50)).await;
    stage.echo.knobs.events.lock().unwrap().drain(..).collect()
}

#[tokio::test]
async fn an_event_reaches_the_plugins_that_may_receive_it_once_and_in_order() {
    let stage = Stage::new().await;
    stage.started("a", SUBSCRIBER).await;
    stage.started("b", "").await;
    for i in 0..20 {
        let published = stage.host.emit("mail.new", &json!({"i": i})).await.unwrap();
        assert!(published.queued >= 1);
    }
    let other = stage.host.emit("other.subject", &1).await.unwrap();
    assert_eq!(other.queued, 0, "nobody may receive it");
    let events = received(&stage, 20).await;
    let order: Vec<i64> = events.iter().map(|e| e["data"]["i"].as_i64().unwrap()).collect();
    assert_eq!(order, (0..20).collect::<Vec<_>>(), "each once, in order, whatever rights overlap");
    assert_eq!(events[0]["subject"], "mail.new");
    assert_eq!(events[0]["hops"], 0);
    assert!(events[0]["delivery"].is_string());
    // One is a second pattern, the other lies within the first.
    assert_eq!(stage.recorder.ends(RecordKind::Subscribe).len(), 3);
}

#[tokio::test]
async fn a_plugins_event_reaches_another_through_the_gate() {
    let stage = Stage::new().await;
    let subscriber = stage.started("sub", SUBSCRIBER).await;
    let publisher = stage.started("pub", PUBLISHER).await;
    let publish = |subject: &str| json!({"method": "event.publish", "params": {"subject": subject, "data": {"n": 1}}});
    let answer = publisher.call("ask", &publish("mail.old")).await.unwrap();
    assert_eq!(answer.parse::<Value>().unwrap()["queued"], 1);
    let events = received(&stage, 1).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["data"], json!({"n": 1}));
    assert_eq!(subscriber.status().counts.events, 1);
    let refused = publisher.call("ask", &publish("bank.transfer")).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Denied);
    assert_eq!(
        refused.hint.as_deref(),
        Some("the manifest does not ask for it; once it does: --grant event.publish:bank.transfer")
    );
}

#[tokio::test]
async fn an_event_that_the_plugin_refuses_counts_as_not_handled() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", SUBSCRIBER).await;
    stage.host.emit("refused.event", &()).await.unwrap();
    received(&stage, 1).await;
    let counts = plugin.status().counts;
    assert_eq!((counts.events, counts.events_failed), (0, 1));
}

#[tokio::test]
async fn a_stopped_plugin_receives_nothing_and_a_revoked_subject_neither() {
    let stage = Stage::new().await;
    let more = "capabilities:\n  optional:\n    - 'event.subscribe:mail.>'\n    - 'event.subscribe:news.>'\n";
    let plugin = stage.started("a", more).await;
    plugin.revoke(cap("event.subscribe:mail.>")).await.unwrap();
    stage.host.emit("mail.new", &1).await.unwrap();
    stage.host.emit("news.new", &2).await.unwrap();
    let events = received(&stage, 1).await;
    assert_eq!(events.iter().map(|e| e["data"].clone()).collect::<Vec<_>>(), [json!(2)]);
    plugin.grant(cap("event.subscribe:mail.>")).await.unwrap();
    stage.host.emit("mail.new", &3).await.unwrap();
    assert_eq!(received(&stage, 1).await.len(), 1);
    plugin.stop().await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(stage.host.emit("mail.new", &4).await.unwrap().queued, 0);
}

#[tokio::test]
async fn what_is_no_subject_cannot_be_published() {
    let stage = Stage::new().await;
    for bad in ["", "a.*", "a..b", "a b"] {
        assert_eq!(
            stage.host.emit(bad, &()).await.unwrap_err().code,
            ErrorCode::InvalidParams,
            "{bad:?}"
        );
    }
}
