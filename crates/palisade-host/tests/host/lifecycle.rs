use std::{sync::Arc, time::Duration};

use palisade_audit::{Phase, RecordKind};
use palisade_broker::Caller;
use palisade_host::{HostError, LoadOptions, State};
use palisade_model::{ErrorCode, Guarantee, GuaranteeSet, Level, Principal};
use palisade_policy::Rules;
use palisade_sandbox::{Deadline, ExitCause, KillReason, Unavailable};
use serde_json::json;

use crate::{
    echo::{Echo, Init},
    support::Stage,
};

const SHORT: &str = "resources: { timeouts: { start: 100ms, call: 200ms } }\n";

#[tokio::test]
async fn a_plugin_is_loaded_started_called_and_stopped() {
    let stage = Stage::new().await;
    let plugin = stage.load("a", "").await;
    assert_eq!(plugin.status().state, State::Stopped);
    plugin.start().await.unwrap();
    let status = plugin.status();
    assert_eq!(status.state, State::Running);
    assert_eq!(status.backend, Some("echo"));
    assert_eq!(status.instance.unwrap().to_string(), "a@local#1.1");
    let answer = plugin.call("echo", &json!({"x": [1, 2]})).await.unwrap();
    assert_eq!(answer.bytes(), r#"{"x":[1,2]}"#);
    assert_eq!(plugin.usage().await.unwrap().pids, Some(1));
    plugin.stop().await.unwrap();
    assert_eq!(plugin.status().state, State::Stopped);
    assert_eq!(plugin.wait().await.unwrap().cause, ExitCause::Exited(0));
    assert_eq!(stage.echo.alive(), 0);

    plugin.start().await.unwrap();
    assert_eq!(plugin.status().instance.unwrap().serial, 2, "each start has a number of its own");
    assert_eq!(
        stage.echo.knobs.prepared.load(std::sync::atomic::Ordering::SeqCst),
        1,
        "prepared once"
    );
    plugin.kill().await.unwrap();
    assert_eq!(plugin.wait().await.unwrap().cause, ExitCause::Killed(KillReason::Asked));
    assert_eq!(plugin.status().state, State::Stopped);
}

#[tokio::test]
async fn the_intent_is_recorded_before_the_launch_and_the_outcome_after_it() {
    let stage = Stage::new().await;
    let plugin = stage.load("a", "").await;
    let order = Arc::clone(&stage.recorder.order);
    *stage.echo.knobs.on_launch.lock().unwrap() =
        Some(Box::new(move || order.lock().unwrap().push("launched".into())));
    plugin.start().await.unwrap();
    let order = stage.recorder.order.lock().unwrap().clone();
    assert_eq!(order, ["intent Launch", "launched", "outcome Done"]);
    plugin.kill().await.unwrap();
    let exit = &stage.recorder.of(RecordKind::Exit)[0];
    assert_eq!(exit.detail.as_deref(), Some("ended by Palisade: asked for"));
    assert_eq!((exit.code, exit.serial, exit.phase), (None, Some(1), Phase::Note));
}

#[tokio::test]
async fn without_a_record_nothing_starts_and_nothing_is_granted() {
    let stage = Stage::new().await;
    let plugin = stage.load("a", "capabilities: { required: [storage.kv:notes] }\n").await;
    *stage.recorder.fail.lock().unwrap() = Some(RecordKind::Grant);
    let refused = plugin.grant_requested().await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RecordFailed);
    assert!(plugin.grants().await.unwrap().is_empty());
    *stage.recorder.fail.lock().unwrap() = Some(RecordKind::Launch);
    plugin.grant_requested().await.unwrap();
    let refused = plugin.start().await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RecordFailed);
    assert!(stage.echo.knobs.specs.lock().unwrap().is_empty(), "it was launched without a record");
    assert_eq!(plugin.status().state, State::Stopped);
}

#[tokio::test]
async fn a_running_plugin_is_not_started_twice() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", "").await;
    let refused = plugin.start().await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert_eq!(plugin.status().state, State::Running, "and goes on running");
    assert_eq!(stage.echo.alive(), 1);
}

#[tokio::test]
async fn a_start_that_takes_too_long_ends_with_the_deadline_as_its_cause() {
    let stage = Stage::new().await;
    *stage.echo.knobs.init.lock().unwrap() = Init::Hang;
    let plugin = stage.load("a", SHORT).await;
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Deadline);
    assert!(failure.message.contains("start deadline"), "{failure}");
    assert!(failure.hint.unwrap().contains("100 ms"));
    assert_eq!(plugin.status().state, State::Failed);
    assert_eq!(*stage.echo.knobs.kills.lock().unwrap(), [KillReason::Deadline(Deadline::Start)]);
    assert_eq!(stage.echo.alive(), 0);
    // The wall itself may take no longer either.
    *stage.echo.knobs.launch_delay.lock().unwrap() = Duration::from_secs(60);
    assert_eq!(plugin.start().await.unwrap_err().code, ErrorCode::Deadline);
}

#[tokio::test]
async fn a_plugin_that_dies_while_it_starts_tells_how() {
    let stage = Stage::new().await;
    *stage.echo.knobs.init.lock().unwrap() = Init::Die(ExitCause::OutOfMemory);
    let plugin = stage.load("a", "").await;
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::LimitExceeded);
    assert!(failure.message.contains("out of memory"), "{failure}");
    assert_eq!(plugin.status().state, State::Failed);
    let call = plugin.call("echo", &()).await.unwrap_err();
    assert_eq!(call.code, ErrorCode::Unavailable);
    assert!(
        call.message.contains("failed to start") && call.message.contains("out of memory"),
        "{call}"
    );
}

#[tokio::test]
async fn a_wrong_answer_to_initialize_is_a_breach() {
    let stage = Stage::new().await;
    let plugin = stage.load("a", "").await;
    for nonsense in [r#"{"protocol":7}"#, r#"{"protocol":"1"}"#, "[]", "null"] {
        *stage.echo.knobs.init.lock().unwrap() = Init::Raw(nonsense);
        let failure = plugin.start().await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::ProtocolBreach, "{nonsense}: {failure}");
        assert_eq!(stage.echo.alive(), 0, "{nonsense}");
    }
    let breaches = stage.recorder.of(RecordKind::Breach);
    assert_eq!(breaches.len(), 4, "each is recorded");
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing_running() {
    let stage = Stage::new().await;
    *stage.echo.knobs.init.lock().unwrap() = Init::Hang;
    let plugin = stage.load("a", "").await;
    let started = tokio::time::timeout(Duration::from_millis(100), plugin.start()).await;
    assert!(started.is_err(), "the caller gave up");
    stage.echo.all_gone().await;
    assert_eq!(plugin.status().state, State::Failed);
    *stage.echo.knobs.init.lock().unwrap() = Init::Tools(None);
    plugin.start().await.unwrap();
}

#[tokio::test]
async fn a_plugin_can_be_stopped_while_it_starts() {
    let stage = Stage::new().await;
    *stage.echo.knobs.init.lock().unwrap() = Init::Hang;
    let plugin = stage.load("a", "").await;
    let starting = tokio::spawn({
        let plugin = plugin.clone();
        async move { plugin.start().await }
    });
    while stage.echo.alive() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    plugin.stop().await.unwrap();
    assert_eq!(stage.echo.alive(), 0, "stop returned while something was left");
    assert_eq!(starting.await.unwrap().unwrap_err().code, ErrorCode::Cancelled);
    assert_eq!(plugin.status().state, State::Stopped);
}

#[tokio::test]
async fn the_longest_life_is_enforced() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", "resources: { timeouts: { lifetime: 1s } }\n").await;
    let exit = plugin.wait().await.unwrap();
    assert_eq!(exit.cause, ExitCause::Killed(KillReason::Deadline(Deadline::Lifetime)));
    assert_eq!(plugin.status().state, State::Crashed);
    let record = &stage.recorder.of(RecordKind::Exit)[0];
    assert_eq!(record.code, Some(ErrorCode::Deadline));
}

#[tokio::test]
async fn dropping_the_host_kills_everything() {
    let stage = Stage::new().await;
    let plugin = stage.started("a", "").await;
    stage.started("b", "").await;
    let Stage { host, echo, .. } = stage;
    let second = host.clone();
    drop(host);
    plugin.call("echo", &()).await.unwrap();
    drop(second);
    echo.all_gone().await;
    for failure in [plugin.call("echo", &()).await.unwrap_err(), plugin.start().await.unwrap_err()]
    {
        assert_eq!(failure.code, ErrorCode::Unavailable);
        assert!(failure.message.contains("the host was dropped"), "{failure}");
    }
}

#[tokio::test]
async fn shutdown_stops_in_order() {
    let stage = Stage::new().await;
    let (a, b) = (stage.started("a", "").await, stage.started("b", "").await);
    stage.host.shutdown().await.unwrap();
    for plugin in [a, b] {
        assert_eq!(plugin.wait().await.unwrap().cause, ExitCause::Exited(0));
    }
}

#[tokio::test]
async fn without_a_wall_that_covers_the_demand_nothing_starts() {
    let stage = Stage::new().await;
    let plugin = stage.load("a", "guarantees: { own-kernel: true }\n").await;
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::NoBackend);
    assert!(failure.message.contains("echo: own-kernel is none, demanded kernel"), "{failure}");
    let plan = plugin.plan().await.unwrap();
    assert_eq!(plan.verdict().unwrap_err().code, ErrorCode::NoBackend);
    assert_eq!(plan.candidates.unwrap().candidates[0].missing[0].0, Guarantee::OwnKernel);

    let unavailable = Unavailable { reason: "no namespaces".into(), remedy: "enable them".into() };
    *stage.echo.knobs.unavailable.lock().unwrap() = Some(unavailable);
    let failure = stage.load("b", "").await.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::NoBackend);
    assert_eq!(failure.hint.as_deref(), Some("enable them"));
}

#[tokio::test]
async fn a_wall_that_is_weaker_than_promised_is_not_trusted() {
    let stage = Stage::new().await;
    let weaker = GuaranteeSet::default_floor().with(Guarantee::NetIsolated, Level::None);
    let mut weaker = weaker;
    weaker.remove(Guarantee::NetIsolated);
    *stage.echo.knobs.achieved.lock().unwrap() = Some(weaker);
    let plugin = stage.load("a", "").await;
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::NoBackend);
    assert!(failure.message.contains("net-isolated"), "{failure}");
    assert_eq!(*stage.echo.knobs.kills.lock().unwrap(), [KillReason::WallTooWeak]);
    assert!(stage.echo.knobs.initialized.lock().unwrap().is_empty(), "it was heard");
}

#[tokio::test]
async fn the_cheapest_wall_that_covers_is_taken_unless_policy_or_choice_say_otherwise() {
    let stage = Stage::with(|b| b.backend(Echo::named("second"))).await;
    let dir = stage.folder("a", "");
    let plugin = stage.host.load(&dir).await.unwrap();
    plugin.start().await.unwrap();
    assert_eq!(plugin.status().backend, Some("echo"));
    let refused = stage.host.load_with(&dir, LoadOptions::new().backend("second")).await;
    assert!(matches!(refused, Err(HostError::ChangedWhileRunning(_))), "{refused:?}");
    plugin.stop().await.unwrap();
    let plugin = stage.host.load_with(&dir, LoadOptions::new().backend("second")).await.unwrap();
    plugin.start().await.unwrap();
    assert_eq!(plugin.status().backend, Some("second"));
    plugin.stop().await.unwrap();
    let plugin = stage.host.load_with(&dir, LoadOptions::new().backend("third")).await.unwrap();
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Usage);
    assert_eq!(failure.hint.as_deref(), Some("there are: echo, second"));

    let policy = palisade_policy::parse("backends = [\"second\"]").unwrap();
    let stage = Stage::with(|b| b.policy(policy).backend(Echo::named("second"))).await;
    let dir = stage.folder("a", "");
    let plugin = stage.host.load(&dir).await.unwrap();
    plugin.start().await.unwrap();
    assert_eq!(plugin.status().backend, Some("second"));
    plugin.stop().await.unwrap();
    let plugin = stage.host.load_with(&dir, LoadOptions::new().backend("echo")).await.unwrap();
    assert_eq!(plugin.start().await.unwrap_err().code, ErrorCode::Denied);
}

#[tokio::test]
async fn only_owners_control_plugins_and_everybody_is_recorded_by_name() {
    let stage = Stage::new().await;
    let dir = stage.folder("a", "");
    let ann = stage.host.control(Caller::operator("ann"));
    let plugin = ann.load(&dir, LoadOptions::new()).await.unwrap();
    plugin.start().await.unwrap();
    let launch = &stage.recorder.of(RecordKind::Launch)[0];
    assert!(format!("{:?}", launch.actor).contains("ann"), "{:?}", launch.actor);

    let clock = Arc::new(palisade_audit::SystemClock);
    let rights = ["plugin.call:a".parse().unwrap()].into_iter().collect();
    let client = |rules: Rules| {
        let limits = palisade_model::Limits::default();
        let who = Principal::Client("web".into());
        stage.host.control(Caller::limited(who, Arc::new(rules), &limits, clock.clone()))
    };
    let web = client(Rules::new(rights, []));
    let id = plugin.id();
    let theirs = web.plugin(id).unwrap();
    theirs.call("echo", &()).await.unwrap();
    for refused in [
        theirs.stop().await.unwrap_err(),
        theirs.kill().await.unwrap_err(),
        theirs.grant_requested().await.unwrap_err(),
        theirs.start().await.unwrap_err(),
        theirs.plan().await.unwrap_err(),
        theirs.grants().await.unwrap_err(),
        web.list().unwrap_err(),
        web.forget(id).await.unwrap_err(),
        web.emit("a.b", &()).await.unwrap_err(),
        web.load(&dir, LoadOptions::new()).await.unwrap_err().into(),
    ] {
        assert_eq!(refused.code, ErrorCode::Denied, "{refused}");
    }
    assert_eq!(plugin.status().state, State::Running);
    assert_eq!(stage.recorder.ends(RecordKind::Stop).len(), 2, "refusals are recorded");
    let nobody = client(Rules::new(Default::default(), []));
    assert_eq!(nobody.plugin(id).unwrap_err().code, ErrorCode::Denied);
}

#[tokio::test]
async fn limits_above_the_ceiling_do_not_start() {
    let policy = palisade_policy::parse("[max]\nmemory = \"64MiB\"").unwrap();
    let stage = Stage::with(|b| b.policy(policy)).await;
    let plugin = stage.load("a", "resources: { memory: 128MiB }\n").await;
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Denied);
    assert!(failure.message.contains("memory 128MiB (at most 64MiB)"), "{failure}");
    let modest = stage.load("b", "").await;
    modest.start().await.unwrap();
    assert_eq!(
        stage.echo.knobs.specs.lock().unwrap()[0].limits.memory,
        64 << 20,
        "defaults are lowered"
    );
}

#[tokio::test]
async fn the_configuration_is_checked_completed_and_handed_over() {
    let stage = Stage::new().await;
    let more = "config:\n  schema: { type: object, properties: { lang: { type: string }, depth: { type: integer } } }\n  defaults: { lang: en, depth: 2 }\n";
    let dir = stage.folder("a", more);
    let bad = stage.host.load_with(&dir, LoadOptions::new().config(json!({"depth": "x"}))).await;
    assert!(matches!(bad, Err(HostError::Config { .. })), "{bad:?}");
    let good = LoadOptions::new().config(json!({"lang": "ja"}));
    let plugin = stage.host.load_with(&dir, good).await.unwrap();
    plugin.start().await.unwrap();
    let params = stage.echo.knobs.initialized.lock().unwrap()[0].clone();
    assert_eq!(params["config"], json!({"lang": "ja", "depth": 2}));
    assert_eq!(params["plugin"], json!({"id": "a"}));
    assert_eq!(params["protocol"], json!({"min": 1, "max": 1}));
}
