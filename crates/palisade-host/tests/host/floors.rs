//! Floors of single plugins: who is named gets the stronger wall or none.

use palisade_model::{ErrorCode, Guarantee, GuaranteeSet, Level};
use palisade_sandbox::KillReason;

use crate::{echo::Echo, support::Stage};

const POLICY: &str = r#"
[plugins."org.example.*".floor]
engine-walled = "kernel"
"#;

fn strong() -> GuaranteeSet {
    GuaranteeSet::default_floor().with(Guarantee::EngineWalled, Level::Kernel)
}

#[tokio::test]
async fn a_plugin_that_the_policy_names_gets_the_wall_that_it_demands_and_others_the_cheaper() {
    let walled = Echo::named("walled");
    *walled.knobs.guarantees.lock().unwrap() = strong();
    let policy = palisade_policy::parse(POLICY).unwrap();
    let stage = Stage::with(|b| b.policy(policy).backend(walled.clone())).await;
    let named = stage.started("org.example.notes", "").await;
    assert_eq!(named.status().backend, Some("walled"));
    let demand = walled.knobs.specs.lock().unwrap()[0].demand.clone();
    assert_eq!(demand, strong(), "the wall itself is told");
    let plan = named.plan().await.unwrap();
    assert_eq!((plan.demand, plan.wall.unwrap().backend), (strong(), "walled"));
    for other in ["org.example", "org.examples.notes", "notes"] {
        let other = stage.started(other, "").await;
        assert_eq!(other.status().backend, Some("echo"));
    }
    assert_eq!(walled.alive(), 1);
}

#[tokio::test]
async fn without_the_wall_that_it_demands_a_named_plugin_does_not_start() {
    let policy = palisade_policy::parse(POLICY).unwrap();
    let stage = Stage::with(|b| b.policy(policy)).await;
    let named = stage.load("org.example.notes", "").await;
    for failure in
        [named.start().await.unwrap_err(), named.plan().await.unwrap().verdict().unwrap_err()]
    {
        assert_eq!(failure.code, ErrorCode::NoBackend);
        let said = "echo: engine-walled is none, demanded kernel";
        assert!(failure.message.contains(said), "{failure}");
        assert_eq!(failure.rule.as_deref(), Some("plugins.\"org.example.*\".floor"));
    }
    assert!(stage.echo.knobs.specs.lock().unwrap().is_empty(), "nothing was launched");
    let other = stage.started("notes", "").await;
    assert_eq!(other.status().backend, Some("echo"));
    // What a manifest demands by itself is none of the policy's rules.
    let demanding = stage.load("other", "guarantees: { own-kernel: true }\n").await;
    assert_eq!(demanding.start().await.unwrap_err().rule, None);
}

#[tokio::test]
async fn a_wall_that_only_promises_what_the_policy_demands_of_a_plugin_is_not_trusted() {
    let policy = palisade_policy::parse(POLICY).unwrap();
    let stage = Stage::with(|b| b.policy(policy)).await;
    *stage.echo.knobs.guarantees.lock().unwrap() = strong();
    *stage.echo.knobs.achieved.lock().unwrap() = Some(GuaranteeSet::default_floor());
    let failure = stage.load("org.example.notes", "").await.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::NoBackend);
    assert!(failure.message.contains("engine-walled"), "{failure}");
    assert_eq!(*stage.echo.knobs.kills.lock().unwrap(), [KillReason::WallTooWeak]);
    assert!(stage.echo.knobs.initialized.lock().unwrap().is_empty(), "it was heard");
}
