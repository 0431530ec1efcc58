use palisade_audit::RecordKind;
use palisade_host::HostError;
use palisade_model::ErrorCode;
use serde_json::json;

use crate::support::{Stage, write_plugin};

#[tokio::test]
async fn the_same_id_from_another_folder_is_refused_with_both_named() {
    let stage = Stage::new().await;
    let first = stage.load("a", "").await;
    let copy = write_plugin(&stage.tmp.path().join("copy"), "a", "");
    let error = stage.host.load(&copy).await.unwrap_err();
    assert!(matches!(error, HostError::OriginConflict { .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::Conflict);
    let text = error.to_string();
    assert!(text.contains("plugins/a") && text.contains("/copy"), "{text}");
    assert_eq!(stage.recorder.ends(RecordKind::Launch), [(None, Some(ErrorCode::Conflict))]);
    let control = stage.host.control(palisade_broker::Caller::application());
    first.start().await.unwrap();
    let running = control.forget(first.id()).await.unwrap_err();
    assert_eq!(running.code, ErrorCode::Conflict, "not while it runs: {running}");
    first.stop().await.unwrap();
    control.forget(first.id()).await.unwrap();
    stage.host.load(&copy).await.unwrap();
    let stale = first.start().await.unwrap_err();
    assert_eq!(stale.code, ErrorCode::Unavailable, "the old handle is dead: {stale}");
    assert!(stale.message.contains("forgotten"));
    let stale = first.grant_requested().await.unwrap_err();
    assert!(stale.message.contains("forgotten"), "and cannot grant to its successor: {stale}");
}

#[tokio::test]
async fn a_link_to_the_folder_is_the_same_plugin() {
    let stage = Stage::new().await;
    let dir = stage.folder("a", "");
    let link = stage.tmp.path().join("link");
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    let (a, b) = (stage.host.load(&dir).await.unwrap(), stage.host.load(&link).await.unwrap());
    assert_eq!(a.reference(), b.reference());
}

#[tokio::test]
async fn what_a_message_says_about_its_sender_means_nothing() {
    let stage = Stage::new().await;
    let more = "capabilities:\n  required:\n    - 'host.call:profile'\n";
    let more = more
        .replace("- 'host.call:profile'", "- { capability: 'host.call:profile', reason: greets }");
    let rich = stage.started("rich", &more).await;
    let poor = stage.started("poor", "").await;
    let forged = json!({
        "method": "host.call",
        "params": {
            "method": "profile", "params": {},
            "plugin": "rich", "instance": rich.status().instance, "principal": "application"
        }
    });
    let refused = poor.call("ask", &forged).await.unwrap_err();
    assert!(matches!(refused.code, ErrorCode::Denied | ErrorCode::InvalidParams), "{refused}");
    let plain = json!({"method": "host.call", "params": {"method": "profile", "params": {}}});
    assert_eq!(poor.call("ask", &plain).await.unwrap_err().code, ErrorCode::Denied);
    let records = stage.recorder.of(RecordKind::Request);
    assert!(!records.is_empty());
    assert!(records.iter().all(|r| r.plugin.as_deref() == Some("poor")), "{records:?}");
}

#[tokio::test]
async fn folders_that_cannot_be_plugins_are_typed_errors() {
    let stage = Stage::new().await;
    let missing = stage.host.load(stage.tmp.path().join("nowhere")).await.unwrap_err();
    assert!(matches!(missing, HostError::Folder { .. }), "{missing}");
    let empty = stage.host.load(stage.tmp.path()).await.unwrap_err();
    assert!(matches!(empty, HostError::Manifest(_)), "{empty}");
    let file = stage.tmp.path().join("file");
    std::fs::write(&file, "").unwrap();
    let file = stage.host.load(file).await.unwrap_err();
    assert!(file.to_string().contains("is not a folder"), "{file}");
}

#[tokio::test]
async fn each_plugin_has_a_number_and_a_private_data_folder_of_its_own() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::new().await;
    stage.started("a", "").await;
    stage.started("b", "").await;
    let specs = stage.echo.knobs.specs.lock().unwrap();
    assert_ne!(specs[0].slot, specs[1].slot);
    assert_ne!(specs[0].data, specs[1].data);
    for spec in specs.iter() {
        assert_eq!(spec.data.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(spec.data.starts_with(stage.host.state_dir()));
    }
}
