use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use palisade_audit::{
    BoxFuture, Clock, JsonLinesRecorder, MemoryRecorder, Phase, Record, RecordError, Stamp,
    SystemClock,
};
use palisade_model::{
    CapabilitySet, Generation, InstanceId, Limits, NodeId, Origin, PluginId, PluginRef, Principal,
    Rates,
};
use palisade_policy::Rules;
use proptest::prelude::*;

use super::*;

/// A clock that goes only when told to.
#[derive(Default)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Stamp {
        let monotonic_ns = self.0.load(Ordering::SeqCst);
        Stamp { unix_ns: monotonic_ns, monotonic_ns }
    }
}

pub(crate) fn rules(rights: &[&str], forbids: &[&str]) -> Arc<Rules> {
    let set: CapabilitySet = rights.iter().map(|c| c.parse().unwrap()).collect();
    let forbids: CapabilitySet = forbids.iter().map(|c| c.parse().unwrap()).collect();
    Arc::new(Rules::new(set, forbids.iter()))
}

pub(crate) fn plugin_with(id: &str, rights: &[&str], limits: &Limits) -> Arc<Caller> {
    let origin = Origin::Folder { path: format!("/srv/{id}"), owner: 1000 };
    let plugin = Arc::new(PluginRef { id: PluginId::parse(id).unwrap(), origin });
    let node = NodeId::local();
    let instance = InstanceId { node, plugin, generation: Generation(1), serial: 1 };
    Caller::plugin(instance, rules(rights, &[]), limits, Arc::new(SystemClock))
}

pub(crate) fn plugin(id: &str, rights: &[&str]) -> Arc<Caller> {
    plugin_with(id, rights, &Limits::default())
}

pub(crate) fn memory_gate() -> (Gate, Arc<MemoryRecorder>) {
    let recorder = Arc::new(MemoryRecorder::new(10_000));
    (Gate::new(recorder.clone()), recorder)
}

fn shape(r: &Record) -> (Phase, Option<Decision>, Option<ErrorCode>) {
    (r.phase, r.decision, r.code)
}

#[tokio::test]
async fn an_allowed_act_is_recorded_before_and_after_with_the_rule_that_allowed_it() {
    let (gate, recorder) = memory_gate();
    let caller = plugin("a", &["event.publish:app.*"]);
    let payload = Payload::from_json_text(r#"{"x":1}"#);
    let action = Action::new(RecordKind::Event)
        .access(Access::new(Kind::EventPublish, "app.x"))
        .payload(&payload)
        .trace(Some("00-abc".into()));
    let seen = gate
        .run(&caller, action, || async { Ok::<_, Failure>(recorder.records().len()) })
        .await
        .unwrap();
    assert_eq!(seen, 1, "the intent stood before the effect");
    let records = recorder.records();
    assert_eq!(shape(&records[0]), (Phase::Intent, Some(Decision::Allow), None));
    assert_eq!(shape(&records[1]), (Phase::Outcome, Some(Decision::Allow), None));
    assert_eq!(records[0].correlation, records[1].correlation);
    assert_eq!(records[0].rule.as_deref(), Some("event.publish:app.*"));
    assert_eq!(records[0].plugin.as_deref(), Some("a"));
    assert_eq!(records[0].trace.as_deref(), Some("00-abc"));
    assert_eq!(records[0].payload_bytes, Some(7));
}

#[tokio::test]
async fn a_denied_act_has_no_effect_and_says_what_would_allow_it() {
    let (gate, recorder) = memory_gate();
    let caller = plugin("a", &[]);
    let action = Action::new(RecordKind::Event).access(Access::new(Kind::EventPublish, "app.x"));
    let failure = gate
        .run(&caller, action, || async {
            panic!("the effect of a denied act ran");
            #[allow(unreachable_code)]
            Ok::<(), Failure>(())
        })
        .await
        .unwrap_err();
    assert_eq!(failure.code, ErrorCode::Denied);
    assert_eq!(failure.hint.as_deref(), Some("--grant event.publish:app.x"));
    let records = recorder.records();
    assert_eq!(records.len(), 1);
    let denied = (Phase::Note, Some(Decision::Deny), Some(ErrorCode::Denied));
    assert_eq!(shape(&records[0]), denied);
    assert_eq!(records[0].target.as_deref(), Some("app.x"));
}

#[tokio::test]
async fn rules_that_are_replaced_are_in_force_at_the_next_decision() {
    let (gate, _) = memory_gate();
    let caller = plugin("a", &["env:HOME"]);
    let access = Access::new(Kind::Env, "HOME");
    assert!(gate.decide(&caller, &access).is_ok());
    caller.set_rules(rules(&["env:HOME"], &["env:HOME"]));
    let failure = gate.decide(&caller, &access).unwrap_err();
    assert!(failure.rule.unwrap().contains("forbid"), "a forbid wins over a right");
    caller.set_rules(rules(&[], &[]));
    assert!(gate.decide(&caller, &access).is_err());
}

#[tokio::test]
async fn a_call_needs_the_targets_right_and_counts_against_the_targets_rate() {
    let (gate, recorder) = memory_gate();
    let rates = Rates { calls_per_second: 2, ..Rates::default() };
    let target = plugin_with("counter", &["tool:count"], &Limits { rates, ..Limits::default() });
    let operator = Caller::operator("ada");
    let call = |tool| {
        let action = Action::new(RecordKind::Call)
            .towards(&target)
            .target_access(Access::new(Kind::Tool, tool))
            .target_rate(Bucket::Calls);
        gate.run(&operator, action, || async { Ok::<_, Failure>(()) })
    };
    assert!(call("count").await.is_ok());
    assert_eq!(call("wipe").await.unwrap_err().code, ErrorCode::Denied);
    let over = call("count").await.unwrap_err();
    assert_eq!(over.code, ErrorCode::RateLimited, "the denied call took a token too");
    assert!(over.retry_after_ms.unwrap() >= 1);
    assert_eq!(call("wipe").await.unwrap_err().code, ErrorCode::RateLimited);
    let records = recorder.records();
    assert_eq!(records[0].actor, "operator ada");
    assert_eq!(records[0].plugin.as_deref(), Some("counter"));
    let limited = records.iter().filter(|r| r.code == Some(ErrorCode::RateLimited));
    assert!(limited.clone().count() == 2 && limited.clone().all(|r| r.target.is_none()));
}

#[tokio::test]
async fn a_plugin_that_calls_another_needs_its_own_right_too() {
    let (gate, recorder) = memory_gate();
    let target = plugin("b", &["tool:t"]);
    let call = |caller: Arc<Caller>| {
        let (gate, target) = (gate.clone(), target.clone());
        async move {
            let action = Action::new(RecordKind::Call)
                .access(Access::new(Kind::PluginCall, "b"))
                .towards(&target)
                .target_access(Access::new(Kind::Tool, "t"));
            gate.run(&caller, action, || async { Ok::<_, Failure>(()) }).await
        }
    };
    assert!(call(plugin("a", &["plugin.call:b"])).await.is_ok());
    let rule = recorder.records()[0].rule.clone().unwrap();
    assert_eq!(rule, "plugin.call:b; target: tool:t");
    assert_eq!(call(plugin("a", &["tool:t"])).await.unwrap_err().code, ErrorCode::Denied);
}

#[tokio::test]
async fn an_access_that_is_asked_of_nobody_is_denied() {
    let (gate, _) = memory_gate();
    let action = Action::new(RecordKind::Call).target_access(Access::new(Kind::Tool, "t"));
    let result = gate.run(&Caller::application(), action, || async { Ok::<_, Failure>(()) }).await;
    assert_eq!(result.unwrap_err().code, ErrorCode::Denied);
}

#[tokio::test]
async fn only_owners_control_plugins() {
    let (gate, _) = memory_gate();
    use RecordKind as R;
    let everything = ["plugin.call:*", "host.call:*", "tool:*"];
    let pretender = Caller::limited(
        Principal::Operator("root".into()),
        rules(&everything, &[]),
        &Limits::default(),
        Arc::new(SystemClock),
    );
    for kind in [R::Launch, R::Stop, R::Grant, R::Consent, R::Policy] {
        for who in [plugin("a", &everything), pretender.clone()] {
            let result = gate.admit(&who, Action::new(kind)).await;
            assert_eq!(result.err().map(|f| f.code), Some(ErrorCode::Denied), "{kind:?}");
        }
        gate.admit(&Caller::application(), Action::new(kind)).await.unwrap().done();
    }
}

#[tokio::test]
async fn a_dropped_effect_is_recorded_as_cancelled_and_a_failed_one_with_its_code() {
    let (gate, recorder) = memory_gate();
    let caller = Caller::application();
    {
        let run = gate.run(&caller, Action::new(RecordKind::Call), || {
            std::future::pending::<Result<(), Failure>>()
        });
        assert!(tokio::time::timeout(Duration::from_millis(5), run).await.is_err());
    }
    let own = Failure::new(ErrorCode::Deadline, "too slow");
    let _ = gate.run(&caller, Action::new(RecordKind::Call), || async { Err::<(), _>(own) }).await;
    let theirs = Failure::new(ErrorCode::PluginError, "the password is 12345");
    let _ =
        gate.run(&caller, Action::new(RecordKind::Call), || async { Err::<(), _>(theirs) }).await;
    let outcomes: Vec<_> = recorder
        .records()
        .into_iter()
        .filter(|r| r.phase == Phase::Outcome)
        .map(|r| (r.code.unwrap(), r.detail))
        .collect();
    assert_eq!(
        outcomes,
        [
            (ErrorCode::Cancelled, None),
            (ErrorCode::Deadline, Some("too slow".to_owned())),
            (ErrorCode::PluginError, None),
        ]
    );
}

#[tokio::test]
async fn an_effect_that_panics_leaves_an_outcome() {
    let (gate, recorder) = memory_gate();
    let inner = gate.clone();
    let task = tokio::spawn(async move {
        let caller = Caller::application();
        inner
            .run(&caller, Action::new(RecordKind::Call), || async {
                if true {
                    panic!("an error in the host");
                }
                Ok::<(), Failure>(())
            })
            .await
    });
    assert!(task.await.unwrap_err().is_panic());
    let last = recorder.records().pop().unwrap();
    assert_eq!(shape(&last), (Phase::Outcome, Some(Decision::Allow), Some(ErrorCode::Internal)));
}

#[tokio::test]
async fn a_subscription_needs_a_right_over_its_whole_pattern() {
    let (gate, _) = memory_gate();
    let caller = plugin("a", &["event.subscribe:app.*"]);
    let decide = |p: &str| gate.decide_pattern(&caller, &SubjectPattern::parse(p).unwrap());
    assert!(decide("app.*").is_ok());
    assert!(decide("app.one").is_ok());
    let denied = decide("app.>").unwrap_err();
    assert_eq!(denied.code, ErrorCode::Denied);
    assert_eq!(denied.hint.as_deref(), Some("--grant 'event.subscribe:app.>'"));
    let owner = gate.decide_pattern(&Caller::application(), &SubjectPattern::parse(">").unwrap());
    assert!(owner.is_ok());
}

/// Refuses when told to; else keeps what it is given in order.
#[derive(Default)]
struct Switch {
    broken: AtomicBool,
    log: Mutex<Vec<&'static str>>,
}

struct Switched(MemoryRecorder, Arc<Switch>);

impl Recorder for Switched {
    fn intent(&self, act: Act) -> BoxFuture<'_, Result<Intent, RecordError>> {
        let firm = act.kind().class() == palisade_audit::Class::FailClosed;
        if firm && self.1.broken.load(Ordering::SeqCst) {
            return Box::pin(std::future::ready(Err(RecordError::Stopped)));
        }
        self.1.log.lock().unwrap().push("intent");
        self.0.intent(act)
    }

    fn outcome(&self, intent: Intent, outcome: Outcome, detail: Option<&str>) {
        self.1.log.lock().unwrap().push("outcome");
        self.0.outcome(intent, outcome, detail);
    }

    fn note(&self, act: Act, code: Option<ErrorCode>) {
        self.0.note(act, code);
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), RecordError>> {
        self.0.flush()
    }

    fn is_durable(&self) -> bool {
        false
    }
}

proptest! {
    /// Whatever kind of act, whether the record works or not, whether the effect succeeds, fails or is
    /// dropped: a fail-closed act without a record has no effect, an effect always lies between its
    /// intent and its outcome, and a refused one leaves neither.
    #[test]
    fn no_effect_without_intent_and_no_intent_without_outcome(
        steps in prop::collection::vec((0usize..6, any::<bool>(), 0u8..3), 1..20)
    ) {
        use RecordKind as R;
        let kinds = [R::Launch, R::Grant, R::Secret, R::Call, R::Event, R::Request];
        let switch = Arc::new(Switch::default());
        let recorder = Switched(MemoryRecorder::new(1000), switch.clone());
        let gate = Gate::new(Arc::new(recorder));
        let caller = Caller::application();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (kind, broken, end) in steps {
            let kind = kinds[kind];
            switch.broken.store(broken, Ordering::SeqCst);
            switch.log.lock().unwrap().clear();
            let (effects, gate, caller) = (switch.clone(), gate.clone(), caller.clone());
            let result = runtime.block_on(async move {
                let run = gate.run(&caller, Action::new(kind), || async move {
                    effects.log.lock().unwrap().push("effect");
                    match end {
                        0 => Ok(()),
                        1 => Err(Failure::new(ErrorCode::Conflict, "no")),
                        _ => std::future::pending().await,
                    }
                });
                tokio::select! { biased; r = run => Some(r), () = std::future::ready(()) => None }
            });
            let log = switch.log.lock().unwrap().clone();
            if broken && kind.class() == palisade_audit::Class::FailClosed {
                prop_assert!(log.is_empty(), "{:?}", log);
                prop_assert_eq!(result.unwrap().unwrap_err().code, ErrorCode::RecordFailed);
            } else {
                prop_assert_eq!(log, ["intent", "effect", "outcome"]);
            }
        }
    }
}

#[tokio::test]
async fn with_a_file_a_grant_is_on_disk_when_its_effect_begins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let gate = Gate::new(Arc::new(JsonLinesRecorder::open(&path).unwrap()));
    let action = Action::new(RecordKind::Grant).name("fs.read:/srv/**");
    let seen = gate
        .run(&Caller::operator("ada"), action, || async {
            Ok::<_, Failure>(std::fs::read_to_string(&path).unwrap())
        })
        .await
        .unwrap();
    let last: Record = serde_json::from_str(seen.lines().last().unwrap()).unwrap();
    assert_eq!((last.kind, last.phase), (RecordKind::Grant, Phase::Intent));
    assert_eq!(last.target.as_deref(), Some("fs.read:/srv/**"));
}
