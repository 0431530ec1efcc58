use palisade_host::RightState;
use palisade_model::{ErrorCode, Guarantee, Risk};

use crate::support::{Stage, cap};

#[tokio::test]
async fn the_plan_shows_what_is_asked_what_is_missing_and_the_wall() {
    let stage = Stage::new().await;
    let more = "capabilities:\n  required:\n    - { capability: 'host.call:*', reason: \"be\\u202ehaves\" }\n  optional:\n    - 'storage.kv:notes'\nresources: { memory: 32MiB }\n";
    let plugin = stage.load("a", more).await;
    plugin.grant(cap("storage.kv:notes")).await.unwrap();
    let plan = plugin.plan().await.unwrap();
    assert_eq!(plan.id, "a");
    assert_eq!(plan.limits.memory, 32 << 20);
    let first = &plan.requested[0];
    assert_eq!(
        (first.required, first.risk, &first.state),
        (true, Risk::High, &RightState::Missing)
    );
    assert_eq!(first.reason.as_deref(), Some("be\\u{202e}haves [hidden characters]"));
    assert_eq!(plan.requested[1].state, RightState::Granted);
    assert_eq!(plan.missing_options(true), ["--grant 'host.call:*'"]);
    assert!(plan.assumes_consent, "the wall is looked for as if consent were given");
    let wall = plan.wall.as_ref().unwrap();
    assert_eq!(wall.backend, "echo");
    assert!(wall.guarantees.level(Guarantee::NetIsolated) > palisade_model::Level::None);
    assert_eq!(plan.verdict().unwrap_err().code, ErrorCode::Denied);
    assert_eq!(plan.contributes.len(), crate::support::TOOLS.len());
    serde_json::to_string(&plan).unwrap();

    plugin.grant_requested().await.unwrap();
    let plan = plugin.plan().await.unwrap();
    plan.verdict().unwrap();
    assert!(!plan.assumes_consent);
    assert!(stage.echo.knobs.specs.lock().unwrap().is_empty(), "nothing was launched");
}

#[tokio::test]
async fn a_right_that_opens_the_wall_shows_before_it_is_granted() {
    let stage = Stage::new().await;
    let more =
        "capabilities:\n  required:\n    - { capability: 'fs.write:/**', reason: everything }\n";
    let plugin = stage.load("a", more).await;
    let plan = plugin.plan().await.unwrap();
    assert!(plan.wall.is_none());
    assert_eq!(plan.candidates.unwrap().candidates[0].missing[0].0, Guarantee::FsIsolated);
    plugin.grant_requested().await.unwrap();
    assert_eq!(plugin.start().await.unwrap_err().code, ErrorCode::NoBackend);
}

#[tokio::test]
async fn an_entry_that_needs_another_backend_is_said_so() {
    let stage = Stage::new().await;
    let dir = stage.folder("a", "");
    let manifest = std::fs::read_to_string(dir.join("plugin.yaml")).unwrap();
    let library =
        manifest.replace("{ kind: python, file: main.py }", "{ kind: library, file: plugin.so }");
    std::fs::write(dir.join("plugin.yaml"), library).unwrap();
    let plugin = stage.host.load(&dir).await.unwrap();
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::NoBackend);
    assert!(failure.message.contains("needs backend library"), "{failure}");
    assert_eq!(plugin.plan().await.unwrap().verdict().unwrap_err().code, ErrorCode::NoBackend);
}

#[tokio::test]
async fn an_entry_that_no_backend_runs_is_said_so() {
    let stage = Stage::new().await;
    let dir = stage.folder("a", "");
    let manifest = std::fs::read_to_string(dir.join("plugin.yaml")).unwrap();
    let wasm =
        manifest.replace("{ kind: python, file: main.py }", "{ kind: wasm, file: plugin.wasm }");
    std::fs::write(dir.join("plugin.yaml"), wasm).unwrap();
    let plugin = stage.host.load(&dir).await.unwrap();
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::NoBackend);
    assert!(failure.message.contains("no backend runs wasm entries"), "{failure}");
}
