use std::time::Duration;

use palisade_audit::RecordKind;
use palisade_host::{Plugin, State};
use palisade_model::ErrorCode;
use serde_json::json;

use crate::support::{Stage, write_plugin};

async fn per_call(stage: &Stage, id: &str) -> Plugin {
    let dir = write_plugin(&stage.tmp.path().join("plugins").join(id), id, "");
    let manifest = std::fs::read_to_string(dir.join("plugin.yaml")).unwrap().replace(
        "entry: { kind: python, file: main.py }",
        "entry: { kind: jsonl, file: main.py, runtime: python, mode: per-call }",
    );
    std::fs::write(dir.join("plugin.yaml"), manifest).unwrap();
    stage.host.load(&dir).await.unwrap()
}

#[tokio::test]
async fn each_call_has_an_instance_of_its_own_that_ends_with_it() {
    let stage = Stage::new().await;
    let plugin = per_call(&stage, "a").await;
    plugin.start().await.unwrap();
    assert_eq!(stage.echo.alive(), 0, "nothing runs between calls");
    for i in 0..3 {
        let answer = plugin.call("echo", &json!({"i": i})).await.unwrap();
        assert_eq!(answer.bytes(), format!(r#"{{"i":{i}}}"#).as_str());
    }
    stage.echo.all_gone().await;
    let specs = stage.echo.knobs.specs.lock().unwrap().clone();
    let serials: Vec<u64> = specs.iter().map(|s| s.instance.serial).collect();
    assert_eq!(serials, [2, 3, 4]);
    assert_eq!(stage.echo.knobs.initialized.lock().unwrap().len(), 3);
    assert_eq!(stage.recorder.ends(RecordKind::Launch).len(), 4, "each launch is recorded");
    assert_eq!(stage.recorder.ends(RecordKind::Exit).len(), 3);
    plugin.stop().await.unwrap();
    assert_eq!(plugin.status().state, State::Stopped);
    assert_eq!(plugin.call("echo", &()).await.unwrap_err().code, ErrorCode::Unavailable);
}

#[tokio::test]
async fn a_crash_ends_its_call_and_nothing_else() {
    let stage = Stage::new().await;
    let plugin = per_call(&stage, "a").await;
    plugin.start().await.unwrap();
    assert_eq!(plugin.call("oom", &()).await.unwrap_err().code, ErrorCode::LimitExceeded);
    plugin.call("echo", &()).await.unwrap();
    assert_eq!(plugin.status().state, State::Running);
}

#[tokio::test]
async fn stopping_ends_the_calls_that_are_being_answered() {
    let stage = Stage::new().await;
    let plugin = per_call(&stage, "a").await;
    plugin.start().await.unwrap();
    let waiting = tokio::spawn({
        let plugin = plugin.clone();
        async move { plugin.call("hang", &()).await }
    });
    while stage.echo.alive() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    plugin.stop().await.unwrap();
    assert_eq!(stage.echo.alive(), 0, "stop returned while an instance was left");
    assert_eq!(waiting.await.unwrap().unwrap_err().code, ErrorCode::Cancelled);
}

#[tokio::test]
async fn a_call_that_is_given_up_takes_its_instance_with_it() {
    let stage = Stage::new().await;
    let plugin = per_call(&stage, "a").await;
    plugin.start().await.unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(100), plugin.call("hang", &())).await;
    assert!(given_up.is_err());
    stage.echo.all_gone().await;
}

#[tokio::test]
async fn no_more_than_sixteen_run_at_once() {
    let stage = Stage::new().await;
    let plugin = per_call(&stage, "a").await;
    plugin.start().await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let plugin = plugin.clone();
        calls.spawn(async move { plugin.call("hang", &()).await });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stage.echo.alive(), 16);
    plugin.kill().await.unwrap();
    assert_eq!(stage.echo.alive(), 0);
}
