use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use palisade_audit::{Decision, Phase, RecordKind};
use palisade_broker::{Caller, Service};
use palisade_host::{
    FailurePolicy, HookAnswer, HookOptions, HookOutcome, Host, MAX_HOOK_BYTES, MAX_HOOK_PLUGINS,
    Plugin, State,
};
use palisade_model::{ErrorCode, Limits, PluginId, Principal};
use palisade_policy::Rules;
use palisade_sandbox::ExitCause;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{echo::Does, support::Stage};

const HOOK: &str = "message.received";

async fn hooked(stage: &Stage, id: &'static str, priority: Option<u16>, does: Does) -> Plugin {
    stage.echo.knobs.hooks.lock().unwrap().insert(id, does);
    let priority = priority.map(|p| format!(", priority: {p}")).unwrap_or_default();
    stage.started(id, &format!("  hooks:\n    - {{ event: {HOOK}{priority} }}\n")).await
}

fn data(outcome: &HookOutcome) -> Value {
    outcome.data.parse().unwrap()
}

/// Who was asked and what each did, in order; failures by their code.
fn steps(outcome: &HookOutcome) -> Vec<(String, String)> {
    let did = |answer: &HookAnswer| match answer {
        HookAnswer::Unchanged => "unchanged".to_owned(),
        HookAnswer::Changed => "changed".to_owned(),
        HookAnswer::Vetoed => "vetoed".to_owned(),
        HookAnswer::Failed(failure) => failure.code.to_string(),
        other => format!("{other:?}"),
    };
    outcome.steps.iter().map(|s| (s.plugin.to_string(), did(&s.answer))).collect()
}

fn id(text: &str) -> PluginId {
    PluginId::parse(text).unwrap()
}

fn fail_closed() -> HookOptions {
    HookOptions::new().on_failure(FailurePolicy::Veto)
}

#[tokio::test]
async fn plugins_are_asked_by_priority_then_by_id_each_with_what_the_last_one_left() {
    let stage = Stage::new().await;
    for (id, priority) in
        [("late", Some(1000)), ("b", None), ("a", Some(50)), ("first", Some(0)), ("c", Some(51))]
    {
        hooked(&stage, id, priority, Does::Wrap(id)).await;
    }
    stage.started("other", "").await;
    let outcome = stage.host.hook(HOOK, &json!(0)).await.unwrap();
    assert_eq!(data(&outcome), json!([[[[[0, "first"], "a"], "b"], "c"], "late"]));
    assert_eq!(outcome.veto, None);
    assert!(outcome.steps.iter().all(|s| s.answer == HookAnswer::Changed));
    let asked = stage.echo.knobs.hooked.lock().unwrap().clone();
    assert_eq!(asked.len(), 5, "who does not offer the hook is not asked");
    assert_eq!(asked[0].1, json!({"hook": HOOK, "data": 0}));

    let nobody = stage.host.hook("message.sent", &json!({"n": 1})).await.unwrap();
    assert_eq!((data(&nobody), nobody.steps.len()), (json!({"n": 1}), 0));
}

#[tokio::test]
async fn a_veto_stops_and_says_who_and_why_and_is_recorded() {
    let stage = Stage::new().await;
    hooked(&stage, "a", Some(1), Does::Wrap("a")).await;
    let no = format!("\x1b[31mno\u{202e}\n{}", "x".repeat(10_000));
    hooked(&stage, "b", Some(2), Does::Answer(json!({ "veto": no, "data": 1 }).to_string())).await;
    hooked(&stage, "c", Some(3), Does::Wrap("c")).await;
    let outcome = stage.host.hook(HOOK, &json!(0)).await.unwrap();
    let veto = outcome.veto.clone().unwrap();
    assert_eq!((veto.plugin.as_str(), &veto.failure), ("b", &None));
    assert!(veto.reason.starts_with("\\u{1b}[31mno\\u{202e}\\n"), "{}", veto.reason);
    assert!(veto.reason.len() < 700);
    assert_eq!(data(&outcome), json!([0, "a"]), "as it was when it was refused");
    assert_eq!(steps(&outcome).last().unwrap(), &("b".into(), "vetoed".into()));
    assert_eq!(stage.echo.knobs.hooked.lock().unwrap().len(), 2, "nobody is asked after a veto");
    let refused = outcome.allowed().unwrap_err();
    assert_eq!(refused.code, ErrorCode::Denied);
    assert!(refused.message.starts_with("plugin b refuses: "), "{refused}");

    let records = stage.recorder.of(RecordKind::Call);
    let noted: Vec<_> = records.iter().filter(|r| r.phase == Phase::Note).collect();
    assert_eq!(noted.len(), 1, "{noted:?}");
    assert_eq!((noted[0].decision, noted[0].target.as_deref()), (Some(Decision::Deny), Some(HOOK)));
    assert!(noted[0].actor.to_string().contains('b'), "{:?}", noted[0]);
    assert_eq!((noted[0].rule.as_deref(), noted[0].detail.as_deref()), (Some("veto"), None));
    // Each plugin that was asked stands in the record, with the right that was looked at.
    let asked = records.iter().filter(|r| r.rule.as_deref() == Some("hook:message.received"));
    assert_eq!(asked.filter(|r| r.phase == Phase::Intent).count(), 2);
}

#[tokio::test]
async fn what_fails_is_passed_over_unless_the_application_says_otherwise() {
    let stage = Stage::new().await;
    let nested = format!("{{\"data\":\"{}\"}}", "x".repeat(MAX_HOOK_BYTES));
    for (id, does) in [
        ("a-error", Does::Fail),
        ("b-crash", Does::Die(ExitCause::Signalled(11))),
        ("c-hang", Does::Hang),
        ("d-rubbish", Does::Answer("[]".into())),
        ("e-huge", Does::Answer(nested)),
        ("f-good", Does::Wrap("good")),
    ] {
        hooked(&stage, id, None, does).await;
    }
    let quick = HookOptions::new().timeout(Duration::from_millis(100));
    let outcome = stage.host.hook_with(HOOK, &json!(0), quick).await.unwrap();
    let expected = [
        ("a-error", "PAL-PLUGIN"),
        ("b-crash", "PAL-CRASHED"),
        ("c-hang", "PAL-DEADLINE"),
        ("d-rubbish", "PAL-PLUGIN"),
        ("e-huge", "PAL-LIMIT"),
        ("f-good", "changed"),
    ];
    let expected: Vec<_> = expected.map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec();
    assert_eq!(steps(&outcome), expected);
    assert_eq!(data(&outcome), json!([0, "good"]), "what failed changes nothing");

    let closed = stage.host.hook_with(HOOK, &json!(0), fail_closed()).await.unwrap();
    let veto = closed.veto.clone().unwrap();
    assert_eq!(veto.plugin.as_str(), "b-crash", "a plugin that has crashed answers nothing");
    assert_eq!(veto.failure.unwrap().code, ErrorCode::Unavailable);
    assert_eq!(closed.allowed().unwrap_err().code, ErrorCode::Denied);
    stage.host.plugin(&id("b-crash")).unwrap().start().await.unwrap();
    let closed = stage.host.hook_with(HOOK, &json!(0), fail_closed()).await.unwrap();
    assert_eq!(closed.veto.unwrap().plugin.as_str(), "a-error");
    assert_eq!(closed.steps.len(), 1);
}

#[tokio::test]
async fn a_plugin_that_must_take_part_refuses_by_its_absence_and_its_failure() {
    let stage = Stage::new().await;
    let filter = hooked(&stage, "filter", None, Does::Answer("{}".into())).await;
    hooked(&stage, "stats", None, Does::Fail).await;
    let needs = |who: &str| HookOptions::new().require(id(who));
    let run = |options: HookOptions| stage.host.hook_with(HOOK, &0, options);
    assert_eq!(run(needs("filter")).await.unwrap().veto, None, "stats may fail");
    let failed = run(needs("stats")).await.unwrap().veto.unwrap();
    assert_eq!(failed.failure.unwrap().code, ErrorCode::PluginError);
    assert!(run(needs("unknown")).await.unwrap().veto.is_some());

    filter.stop().await.unwrap();
    assert_eq!(
        run(fail_closed().require(id("filter"))).await.unwrap().veto.unwrap().plugin,
        id("filter")
    );
    let asked = stage.echo.knobs.hooked.lock().unwrap().len();
    let absent = run(needs("filter")).await.unwrap();
    assert_eq!(absent.veto.unwrap().failure.unwrap().code, ErrorCode::Unavailable);
    assert_eq!(stage.echo.knobs.hooked.lock().unwrap().len(), asked, "nobody was asked");
    assert_eq!(run(HookOptions::new()).await.unwrap().veto, None, "stopped, and not needed");
}

#[tokio::test]
async fn all_plugins_together_have_a_deadline() {
    let stage = Stage::new().await;
    for id in ["a", "b", "c"] {
        hooked(&stage, id, None, Does::Hang).await;
    }
    let begun = Instant::now();
    let options = HookOptions::new().total(Duration::from_millis(200));
    let outcome = stage.host.hook_with(HOOK, &json!(0), options).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let deadline = "PAL-DEADLINE".to_owned();
    assert!(steps(&outcome).iter().all(|(_, did)| *did == deadline), "{:?}", outcome.steps);
    assert_eq!(outcome.steps.len(), 3);
    assert_eq!(stage.echo.knobs.hooked.lock().unwrap().len(), 1, "no time was left for the others");
}

#[tokio::test]
async fn data_and_names_are_checked_before_anybody_is_asked() {
    let stage = Stage::new().await;
    hooked(&stage, "a", None, Does::Wrap("a")).await;
    let code = |r: Result<HookOutcome, palisade_model::Failure>| r.unwrap_err().code;
    let large = "x".repeat(MAX_HOOK_BYTES);
    assert_eq!(code(stage.host.hook(HOOK, &large).await), ErrorCode::LimitExceeded);
    for bad in ["", "*", "message.*", "a b"] {
        assert_eq!(code(stage.host.hook(bad, &0).await), ErrorCode::InvalidParams, "{bad:?}");
    }
    let client = Caller::limited(
        Principal::Client("web".into()),
        Arc::new(Rules::default()),
        &Limits::default(),
        Arc::new(palisade_audit::SystemClock),
    );
    assert_eq!(code(stage.host.control(client).hook(HOOK, &0).await), ErrorCode::Denied);
    assert!(stage.echo.knobs.hooked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_hook_that_is_forbidden_or_not_declared_is_not_called() {
    let policy = palisade_policy::parse("forbid = [\"hook:message.*\"]").unwrap();
    let stage = Stage::with(|b| b.policy(policy)).await;
    hooked(&stage, "a", None, Does::Wrap("a")).await;
    let outcome = stage.host.hook(HOOK, &json!(0)).await.unwrap();
    assert_eq!((data(&outcome), outcome.steps.len()), (json!(0), 0));
    assert_eq!(stage.recorder.ends(RecordKind::Registration).len(), 1, "refused and recorded");
}

#[tokio::test]
async fn a_plugin_that_is_stopped_during_a_hook_has_failed() {
    let stage = Stage::new().await;
    let plugin = hooked(&stage, "a", None, Does::Hang).await;
    hooked(&stage, "b", None, Does::Wrap("b")).await;
    let (host, asked) = (stage.host.clone(), &stage.echo.knobs.hooked);
    let running = tokio::spawn(async move { host.hook(HOOK, &json!(0)).await });
    while asked.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    plugin.stop().await.unwrap();
    let outcome = running.await.unwrap().unwrap();
    assert_eq!(steps(&outcome)[0], ("a".into(), "PAL-CRASHED".into()));
    assert_eq!(data(&outcome), json!([0, "b"]));
    assert_eq!(plugin.status().state, State::Stopped);
    // Who takes part is settled anew by the next one.
    plugin.start().await.unwrap();
    stage.echo.knobs.hooks.lock().unwrap().insert("a", Does::Wrap("a"));
    assert_eq!(data(&stage.host.hook(HOOK, &json!(0)).await.unwrap()), json!([[0, "a"], "b"]));
}

#[tokio::test]
async fn a_hook_that_is_given_up_gives_up_its_call() {
    let stage = Stage::new().await;
    hooked(&stage, "a", None, Does::Hang).await;
    let given_up = stage.host.hook(HOOK, &0);
    assert!(tokio::time::timeout(Duration::from_millis(100), given_up).await.is_err());
    let calls = stage.recorder.ends(RecordKind::Call);
    assert_eq!(calls, [(Some(HOOK.to_owned()), Some(ErrorCode::Cancelled))]);
}

#[tokio::test]
async fn more_plugins_than_one_hook_asks_count_as_failed() {
    let stage = Stage::new().await;
    let more = format!("  hooks:\n    - {{ event: {HOOK} }}\n");
    for i in 0..=MAX_HOOK_PLUGINS {
        stage.started(&format!("p{i:03}"), &more).await;
    }
    let outcome = stage.host.hook(HOOK, &json!(0)).await.unwrap();
    assert_eq!(stage.echo.knobs.hooked.lock().unwrap().len(), MAX_HOOK_PLUGINS);
    assert_eq!(steps(&outcome).last().unwrap().1, "PAL-LIMIT");
    let closed = stage.host.hook_with(HOOK, &json!(0), fail_closed()).await.unwrap();
    assert_eq!(closed.veto.unwrap().plugin.as_str(), "p064");
}

#[tokio::test]
async fn a_plugin_that_is_still_starting_refuses_where_failures_do() {
    let stage = Stage::new().await;
    *stage.echo.knobs.launch_delay.lock().unwrap() = Duration::from_millis(300);
    let plugin = stage.load("a", &format!("  hooks:\n    - {{ event: {HOOK} }}\n")).await;
    let run = || stage.host.hook_with(HOOK, &0, fail_closed());
    assert_eq!(run().await.unwrap().veto, None, "nobody wants it to run");
    let starting = tokio::spawn({
        let plugin = plugin.clone();
        async move { plugin.start().await }
    });
    while plugin.status().state != State::Starting {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(run().await.unwrap().veto.unwrap().plugin.as_str(), "a");
    assert_eq!(stage.host.hook(HOOK, &0).await.unwrap().veto, None, "passed over else");
    starting.await.unwrap().unwrap();
    assert_eq!(run().await.unwrap().veto, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hooks_run_while_plugins_start_and_end() {
    let stage = Stage::new().await;
    hooked(&stage, "steady", Some(1), Does::Wrap("steady")).await;
    let restless = hooked(&stage, "restless", Some(2), Does::Wrap("restless")).await;
    let churn = tokio::spawn(async move {
        for i in 0..40 {
            match i % 3 {
                0 => restless.stop().await.unwrap(),
                1 => restless.kill().await.unwrap(),
                _ => tokio::task::yield_now().await,
            }
            if restless.status().state.is_resting() {
                restless.start().await.unwrap();
            }
        }
    });
    let mut hooks = tokio::task::JoinSet::new();
    for worker in 0..4 {
        let host = stage.host.clone();
        hooks.spawn(async move {
            for i in 0..100 {
                let outcome = host.hook(HOOK, &json!([worker, i])).await.unwrap();
                assert_eq!(outcome.veto, None);
                let steady = json!([[worker, i], "steady"]);
                let both = json!([steady.clone(), "restless"]);
                let got = data(&outcome);
                let changed = outcome.steps.last().unwrap().answer == HookAnswer::Changed;
                let expected = match outcome.steps.len() {
                    2 if changed => both,
                    1 | 2 => steady,
                    other => panic!("{other} steps"),
                };
                assert_eq!(got, expected, "{:?}", outcome.steps);
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(done) = hooks.join_next().await {
        done.unwrap();
    }
    churn.await.unwrap();
}

#[test]
fn calls_that_go_in_a_circle_end_after_sixteen_hops_too() {
    // On a wall that is called directly all of them stand on one stack.
    let body = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let slot: Arc<OnceLock<Plugin>> = Arc::new(OnceLock::new());
            let again = json!({"method": "host.call", "params": {"method": "again", "params": {}}});
            let (plugin, args) = (Arc::clone(&slot), again.clone());
            let service = Service::new("again", move |_cx, _: Nothing| {
                let (plugin, args) = (plugin.get().unwrap().clone(), args.clone());
                async move { plugin.call("ask", &args).await?.parse::<Value>().map_err(|_| unreachable!()) }
            });
            let stage = Stage::with(|b| b.service(service)).await;
            let more = "capabilities:\n  required:\n    - { capability: 'host.call:again', reason: goes round }\n";
            let plugin = stage.started("a", more).await;
            assert!(slot.set(plugin.clone()).is_ok());
            let ended = plugin.call("ask", &again).await.unwrap_err();
            assert_eq!(ended.code, ErrorCode::LimitExceeded, "{ended}");
            assert!(ended.message.contains("circle"), "{ended}");
            // The first is no hop; then 0 to 16.
            assert_eq!(plugin.status().counts.calls, 18);
        });
    };
    std::thread::Builder::new().stack_size(64 << 20).spawn(body).unwrap().join().unwrap();
}

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

/// A service of the application that runs the hook, and counts how often it was asked.
fn circle(host: &Arc<OnceLock<Host>>) -> Service<Nothing> {
    let host = Arc::clone(host);
    Service::new("again", move |cx, _: Nothing| {
        let host = host.get().unwrap().clone();
        async move {
            assert!(cx.hops() > 0, "it is asked from within a hook");
            let outcome = host.hook(HOOK, &json!(0)).await?;
            Ok(json!({ "steps": outcome.steps.len(), "inner": outcome.parse::<Value>()? }))
        }
    })
}

#[tokio::test]
async fn a_hook_that_runs_itself_through_a_service_ends_after_sixteen_hops() {
    let slot = Arc::new(OnceLock::new());
    let stage = Stage::with(|b| b.service(circle(&slot))).await;
    assert!(slot.set(stage.host.clone()).is_ok());
    let ask = Does::Ask("host.call", json!({"method": "again", "params": {}}));
    stage.echo.knobs.hooks.lock().unwrap().insert("a", ask);
    let more = format!(
        "  hooks:\n    - {{ event: {HOOK} }}\ncapabilities:\n  required:\n    - {{ capability: 'host.call:again', reason: goes round }}\n"
    );
    let plugin = stage.started("a", &more).await;
    let outcome = stage.host.hook(HOOK, &json!(0)).await.unwrap();
    assert_eq!(outcome.steps.len(), 1);
    assert_eq!(stage.echo.knobs.hooked.lock().unwrap().len(), 17, "hops 0 to 16");
    assert_eq!(plugin.status().counts.calls, 17);
    // And it can be asked again: nothing is left of the circle.
    stage.echo.knobs.hooks.lock().unwrap().insert("a", Does::Wrap("a"));
    assert_eq!(data(&stage.host.hook(HOOK, &json!(0)).await.unwrap()), json!([0, "a"]));
}

#[tokio::test]
async fn what_a_plugin_publishes_within_a_hook_is_one_hop_further() {
    let stage = Stage::new().await;
    let publish = json!({"subject": "mail.new", "data": 1});
    stage.echo.knobs.hooks.lock().unwrap().insert("a", Does::Ask("event.publish", publish));
    let more = format!(
        "  hooks:\n    - {{ event: {HOOK} }}\ncapabilities:\n  required:\n    - {{ capability: 'event.publish:mail.>', reason: tells }}\n    - 'event.subscribe:mail.>'\n"
    );
    stage.started("a", &more).await;
    stage.host.hook_with(HOOK, &json!(0), HookOptions::new().hops(3)).await.unwrap();
    for _ in 0..500 {
        if !stage.echo.knobs.events.lock().unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let hops = stage.echo.knobs.events.lock().unwrap()[0]["hops"].clone();
    assert_eq!(hops, 4);
    let too_far = stage.host.hook_with(HOOK, &json!(0), HookOptions::new().hops(17)).await;
    assert_eq!(too_far.unwrap_err().code, ErrorCode::LimitExceeded);
}

#[tokio::test]
async fn what_the_application_does_for_a_plugin_follows_from_it() {
    let slot: Arc<OnceLock<Host>> = Arc::new(OnceLock::new());
    let host = Arc::clone(&slot);
    let tell = Service::new("tell", move |_cx, _: Nothing| {
        let host = host.get().unwrap().clone();
        async move { host.emit("mail.new", &1).await }
    });
    let stage = Stage::with(|b| b.service(tell)).await;
    assert!(slot.set(stage.host.clone()).is_ok());
    let ask = Does::Ask("host.call", json!({"method": "tell", "params": {}}));
    stage.echo.knobs.hooks.lock().unwrap().insert("a", ask);
    let more = format!(
        "  hooks:\n    - {{ event: {HOOK} }}\ncapabilities:\n  required:\n    - {{ capability: 'host.call:tell', reason: tells }}\n    - 'event.subscribe:mail.>'\n"
    );
    stage.started("a", &more).await;
    stage.host.hook(HOOK, &json!(0)).await.unwrap();
    stage.host.emit("mail.new", &2).await.unwrap();
    for _ in 0..500 {
        if stage.echo.knobs.events.lock().unwrap().len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let events = stage.echo.knobs.events.lock().unwrap();
    let hops: Vec<_> = events.iter().map(|e| (e["data"].clone(), e["hops"].clone())).collect();
    assert_eq!(hops, [(json!(1), json!(1)), (json!(2), json!(0))]);
}
