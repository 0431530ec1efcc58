use palisade_audit::{Decision, RecordKind};
use palisade_model::ErrorCode;

use crate::{echo::Init, support::Stage};

#[tokio::test]
async fn a_tool_that_is_announced_but_not_declared_is_refused_and_recorded() {
    let stage = Stage::new().await;
    *stage.echo.knobs.init.lock().unwrap() = Init::Tools(Some(vec!["echo", "shell", "a\u{202e}b"]));
    let plugin = stage.started("a", "").await;
    plugin.call("echo", &()).await.unwrap();
    let refused = plugin.call("shell", &()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotFound);
    let records = stage.recorder.of(RecordKind::Registration);
    let targets: Vec<_> = records.iter().map(|r| r.target.clone().unwrap()).collect();
    assert_eq!(targets, ["shell", "a\\u{202e}b"]);
    assert!(records.iter().all(|r| r.decision == Some(Decision::Deny)));
}

#[tokio::test]
async fn what_is_declared_but_not_announced_is_not_offered() {
    let stage = Stage::new().await;
    *stage.echo.knobs.init.lock().unwrap() = Init::Tools(Some(vec!["echo"]));
    let plugin = stage.started("a", "").await;
    plugin.call("echo", &()).await.unwrap();
    let refused = plugin.call("fail", &()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotFound);
    assert!(refused.message.contains("declares the tool fail, but does not offer it"), "{refused}");
}

#[tokio::test]
async fn a_plugin_that_announces_nothing_offers_what_it_declares() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", "").await;
    plugin.call("echo", &()).await.unwrap();
    assert_eq!(plugin.call("fail", &()).await.unwrap_err().code, ErrorCode::PluginError);
}

#[tokio::test]
async fn a_forbidden_tool_is_not_registered() {
    let policy = palisade_policy::parse("forbid = [\"tool:ech*\"]").unwrap();
    let stage = Stage::with(|b| b.policy(policy)).await;
    let plugin = stage.started("a", "").await;
    assert_eq!(plugin.call("echo", &()).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(stage.recorder.ends(RecordKind::Registration).len(), 1);
}
