use std::{path::PathBuf, sync::Arc, time::Instant};

use palisade_audit::{JsonLinesRecorder, Options, Phase, Record, RecordKind, SystemClock};
use palisade_model::{Access, Kind, Limits, Payload, Rates};

use super::*;
use crate::{
    Bucket, Routine,
    gate::tests::{plugin, plugin_with, rules},
};

/// A gate whose record counts what goes beyond `each` a window, and the record's file.
fn counting(each: u32) -> (Gate, tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let options =
        Options { each, coalesce: std::time::Duration::from_secs(3600), ..Options::default() };
    let recorder = JsonLinesRecorder::open_with(&path, options, Arc::new(SystemClock)).unwrap();
    (Gate::new(Arc::new(recorder)), dir, path)
}

async fn calls(gate: &Gate, path: &PathBuf) -> Vec<Record> {
    gate.recorder().flush().await.unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let all = text.lines().map(|l| serde_json::from_str::<Record>(l).expect(l));
    all.filter(|r| r.kind == RecordKind::Call).collect()
}

fn call<'a>(target: &'a Caller, routine: &'a Routine) -> Action<'a> {
    Action::new(RecordKind::Call)
        .towards(target)
        .target_access(Access::new(Kind::Tool, "echo"))
        .target_rate(Bucket::Calls)
        .routine(routine, Instant::now())
}

async fn done(gate: &Gate, caller: &Caller, action: Action<'_>) -> Result<(), Failure> {
    gate.run(caller, action, || std::future::ready(Ok(()))).await
}

#[tokio::test]
async fn calls_that_are_alike_are_counted_with_who_what_and_why() {
    let (gate, _dir, path) = counting(2);
    let (caller, target) = (Caller::application(), plugin("p", &["tool:echo"]));
    let routine = Routine::default();
    for _ in 0..10 {
        done(&gate, &caller, call(&target, &routine)).await.unwrap();
    }
    let records = calls(&gate, &path).await;
    let counted: Vec<_> = records.iter().filter(|r| r.repeats.is_some()).collect();
    assert_eq!(counted.len(), 1, "{records:#?}");
    // The first, by which the decision is found, and two of the window are recorded one by one.
    assert_eq!((counted[0].repeats, counted[0].phase), (Some(7), Phase::Outcome));
    let one = records.iter().find(|r| r.repeats.is_none()).unwrap();
    let about = |r: &Record| {
        let Record { actor, plugin, serial, capability, target, rule, decision, .. } = r.clone();
        (actor, plugin, serial, capability, target, rule, decision)
    };
    assert_eq!(about(counted[0]), about(one), "it says what each would have said");
}

#[tokio::test]
async fn rules_that_are_replaced_are_asked_at_the_next_call() {
    let (gate, _dir, _path) = counting(0);
    let (caller, target) = (Caller::application(), plugin("p", &["tool:echo"]));
    let routine = Routine::default();
    for _ in 0..3 {
        done(&gate, &caller, call(&target, &routine)).await.unwrap();
    }
    target.set_rules(rules(&[], &[]));
    for _ in 0..3 {
        let denied = done(&gate, &caller, call(&target, &routine)).await.unwrap_err();
        assert_eq!(denied.code, ErrorCode::Denied);
    }
    target.set_rules(rules(&["tool:*"], &["tool:echo"]));
    assert!(done(&gate, &caller, call(&target, &routine)).await.is_err());
    target.set_rules(rules(&["tool:echo"], &[]));
    assert!(done(&gate, &caller, call(&target, &routine)).await.is_ok());
}

#[tokio::test]
async fn another_rule_is_never_counted_under_the_first() {
    let (gate, _dir, path) = counting(0);
    let (caller, target) = (Caller::application(), plugin("p", &["tool:echo"]));
    let routine = Routine::default();
    for _ in 0..3 {
        done(&gate, &caller, call(&target, &routine)).await.unwrap();
    }
    target.set_rules(rules(&["tool:*"], &[]));
    for _ in 0..4 {
        done(&gate, &caller, call(&target, &routine)).await.unwrap();
    }
    let records = calls(&gate, &path).await;
    let by = |rule: &str| -> u64 {
        let of = records.iter().filter(|r| r.rule.as_deref() == Some(rule));
        of.map(|r| r.repeats.unwrap_or(1)).sum()
    };
    assert_eq!((by("tool:echo"), by("tool:*")), (3, 4), "{records:#?}");
}

#[tokio::test]
async fn only_the_owner_that_was_counted_first_is_counted() {
    let (gate, _dir, path) = counting(0);
    let (caller, target) = (Caller::application(), plugin("p", &["tool:echo"]));
    let routine = Routine::default();
    for _ in 0..3 {
        done(&gate, &caller, call(&target, &routine)).await.unwrap();
    }
    let others = [Caller::operator("root"), plugin("other", &["plugin.call:p"])];
    for other in &others {
        done(&gate, other, call(&target, &routine)).await.unwrap();
        done(&gate, other, call(&target, &routine)).await.unwrap();
    }
    let traced = call(&target, &routine).trace(Some("00-x".into()));
    done(&gate, &caller, traced).await.unwrap();
    let records = calls(&gate, &path).await;
    let of = |actor: &str| records.iter().filter(|r| r.actor.starts_with(actor)).count();
    assert_eq!((of("operator"), of("plugin other")), (2, 2), "{records:#?}");
    assert_eq!(records.iter().filter(|r| r.trace.is_some()).count(), 1);
}

#[tokio::test]
async fn what_is_known_about_one_target_holds_for_no_other() {
    let (gate, _dir, path) = counting(0);
    let (caller, first) = (Caller::application(), plugin("first", &["tool:echo"]));
    let (routine, second) = (Routine::default(), plugin("second", &["tool:echo"]));
    done(&gate, &caller, call(&first, &routine)).await.unwrap();
    done(&gate, &caller, call(&first, &routine)).await.unwrap();
    // Its rules are in the same version and allow the same by the same rule.
    done(&gate, &caller, call(&second, &routine)).await.unwrap();
    let records = calls(&gate, &path).await;
    let of = |id: &str| -> Vec<_> {
        records.iter().filter(|r| r.plugin.as_deref() == Some(id)).map(|r| r.repeats).collect()
    };
    let numbers: u64 = of("first").iter().map(|n| n.unwrap_or(1)).sum();
    assert_eq!((numbers, of("second")), (2, vec![None]), "{records:#?}");

    // What the second's rules came to allow in a later version says nothing about the first's.
    second.set_rules(rules(&["tool:echo"], &[]));
    done(&gate, &caller, call(&second, &routine)).await.unwrap();
    first.set_rules(rules(&[], &[]));
    let denied = done(&gate, &caller, call(&first, &routine)).await.unwrap_err();
    assert_eq!(denied.code, ErrorCode::Denied);
}

#[tokio::test]
async fn what_fails_or_is_given_up_has_a_record_of_its_own() {
    let (gate, _dir, path) = counting(0);
    let (caller, target) = (Caller::application(), plugin("p", &["tool:echo"]));
    let routine = Routine::default();
    let payload = Payload::from_json_text("{}");
    done(&gate, &caller, call(&target, &routine)).await.unwrap();
    done(&gate, &caller, call(&target, &routine)).await.unwrap();
    let failing = call(&target, &routine).payload(&payload);
    let failed: Result<(), _> = gate
        .run(&caller, failing, || async { Err(Failure::new(ErrorCode::Deadline, "too late")) })
        .await;
    assert_eq!(failed.unwrap_err().code, ErrorCode::Deadline);
    let given_up =
        gate.run(&caller, call(&target, &routine), std::future::pending::<Result<(), Failure>>);
    tokio::select! { biased; _ = given_up => unreachable!(), () = std::future::ready(()) => {} }
    let records = calls(&gate, &path).await;
    let ends: Vec<_> = records
        .iter()
        .filter(|r| r.code.is_some())
        .map(|r| (r.code, r.decision, r.detail.as_deref(), r.payload_bytes))
        .collect();
    let allow = Some(Decision::Allow);
    let expected = [
        (Some(ErrorCode::Deadline), allow, Some("too late"), Some(2)),
        (Some(ErrorCode::Cancelled), allow, None, None),
    ];
    assert_eq!(ends, expected, "{records:#?}");
    let counted: u64 = records.iter().filter_map(|r| r.repeats).sum();
    assert_eq!(counted, 1, "the first was recorded, the second counted, the others failed");
}

#[tokio::test]
async fn a_rate_is_taken_of_what_is_counted() {
    let (gate, _dir, path) = counting(0);
    let rates = Rates { calls_per_second: 5, ..Rates::default() };
    let target = plugin_with("p", &["tool:echo"], &Limits { rates, ..Limits::default() });
    let caller = Caller::application();
    let routine = Routine::default();
    let mut passed = 0;
    for _ in 0..50 {
        match done(&gate, &caller, call(&target, &routine)).await {
            Ok(()) => passed += 1,
            Err(failure) => assert_eq!(failure.code, ErrorCode::RateLimited),
        }
    }
    assert!((5..=6).contains(&passed), "{passed}");
    let records = calls(&gate, &path).await;
    assert!(records.iter().any(|r| r.code == Some(ErrorCode::RateLimited)));
    let done: u64 =
        records.iter().filter(|r| r.code.is_none()).map(|r| r.repeats.unwrap_or(1)).sum();
    assert_eq!(done, passed, "{records:#?}");
}
