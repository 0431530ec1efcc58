use std::time::Duration;

use palisade_audit::RecordKind;
use palisade_host::{CallOptions, MAX_COMMAND_ARGS};
use palisade_model::ErrorCode;
use serde_json::json;

use crate::{echo::Does, support::Stage};

const COMMANDS: &str = "  commands:\n    - { name: greet, description: Greets. }\n    - { name: part, description: Parts. }\n";

#[tokio::test]
async fn a_command_gets_its_arguments_and_gives_status_and_text() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", COMMANDS).await;
    let answer = json!({"status": 3, "output": "hello\n\x1b[31mAda"}).to_string();
    stage.echo.knobs.hooks.lock().unwrap().insert("a", Does::Answer(answer));
    let out = plugin.run_command("greet", &["Ada", "--loud", ""]).await.unwrap();
    assert_eq!((out.status, out.output.as_str()), (3, "hello\n\x1b[31mAda"));
    assert_eq!(out.shown(), "hello\n\\u{1b}[31mAda");
    let asked = stage.echo.knobs.hooked.lock().unwrap().clone();
    assert_eq!(asked[0].1, json!({"command": "greet", "args": ["Ada", "--loud", ""]}));
    let records = stage.recorder.of(RecordKind::Call);
    assert_eq!(records[0].target.as_deref(), Some("greet"));
    assert_eq!(records[0].rule.as_deref(), Some("command:greet"));
    assert_eq!(plugin.status().counts.calls, 1);
}

#[tokio::test]
async fn only_declared_commands_of_a_running_plugin_are_run() {
    let policy = palisade_policy::parse("forbid = [\"command:part\"]").unwrap();
    let stage = Stage::with(|b| b.policy(policy)).await;
    let plugin = stage.load("a", COMMANDS).await;
    let none: [&str; 0] = [];
    assert_eq!(plugin.run_command("greet", &none).await.unwrap_err().code, ErrorCode::Unavailable);
    plugin.start().await.unwrap();
    plugin.run_command("greet", &none).await.unwrap();
    let unknown = plugin.run_command("gret", &none).await.unwrap_err();
    assert_eq!(
        (unknown.code, unknown.hint.as_deref()),
        (ErrorCode::NotFound, Some("did you mean greet?"))
    );
    let forbidden = plugin.run_command("part", &none).await.unwrap_err();
    assert_eq!(
        (forbidden.code, forbidden.hint.as_deref()),
        (ErrorCode::NotFound, Some("the policy forbids it"))
    );
    // A tool is no command, and a command no tool.
    assert_eq!(plugin.run_command("echo", &none).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(plugin.call("greet", &()).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(stage.echo.knobs.hooked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn rubbish_and_silence_are_failures() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", COMMANDS).await;
    let says = |does| stage.echo.knobs.hooks.lock().unwrap().insert("a", does);
    let quick = || CallOptions::new().timeout(Duration::from_millis(50));
    let run = || plugin.run_command_with("greet", &["a"], quick());
    says(Does::Answer("null".into()));
    assert_eq!(run().await.unwrap_err().code, ErrorCode::PluginError);
    says(Does::Answer(r#"{"status": 256}"#.into()));
    assert_eq!(run().await.unwrap_err().code, ErrorCode::PluginError);
    says(Does::Hang);
    assert_eq!(run().await.unwrap_err().code, ErrorCode::Deadline);
    let many = vec!["a"; MAX_COMMAND_ARGS + 1];
    assert_eq!(
        plugin.run_command("greet", &many).await.unwrap_err().code,
        ErrorCode::LimitExceeded
    );
    assert_eq!(plugin.status().counts.calls_failed, 3);
}
