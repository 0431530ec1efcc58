//! The gate: decide, rate, record the intent, act, record the outcome.
//!
//! Both directions pass it: what plugins ask of the host, and what is asked of plugins. Control
//! operations (launch, stop, grant …) pass it too and are open to owners only. Deciding alone
//! ([`Gate::decide`]) touches neither rates nor record and is meant for the hot path of enforcement
//! points that record for themselves.

use std::{sync::Arc, time::Instant};

use palisade_audit::{Act, Decision, Intent, Outcome, RecordKind, Recorder};
use palisade_model::{
    Access, Capability, ErrorCode, Failure, Kind, Payload, PluginRef, capability::SubjectPattern,
};

use crate::{Bucket, Caller, Need, Routine};

mod counted;

pub use counted::Open;

/// The rule by which an owner may do everything.
const OWNER: &str = "owner";

/// What is about to be done, and what must hold for it.
#[derive(Clone)]
pub struct Action<'a> {
    kind: RecordKind,
    access: Option<Access<'a>>,
    towards: Option<&'a Caller>,
    target_access: Option<Access<'a>>,
    rate: Option<Bucket>,
    target_rate: Option<Bucket>,
    about: Option<Arc<PluginRef>>,
    name: Option<&'a str>,
    decided: Option<String>,
    payload: Option<&'a Payload>,
    trace: Option<Arc<str>>,
    detail: Option<&'a str>,
    coalesce: bool,
    routine: Option<(&'a Routine, Instant)>,
}

impl<'a> Action<'a> {
    /// An action that is recorded as `kind`.
    #[must_use]
    #[inline]
    pub fn new(kind: RecordKind) -> Self {
        Self {
            kind,
            access: None,
            towards: None,
            target_access: None,
            rate: None,
            target_rate: None,
            about: None,
            name: None,
            decided: None,
            payload: None,
            trace: None,
            detail: None,
            coalesce: false,
            routine: None,
        }
    }

    /// What the caller's rules must allow.
    #[must_use]
    #[inline]
    pub fn access(mut self, access: Access<'a>) -> Self {
        self.access = Some(access);
        self
    }

    /// The plugin that is called, delivered to or controlled.
    #[must_use]
    #[inline]
    pub fn towards(mut self, target: &'a Caller) -> Self {
        self.towards = Some(target);
        self
    }

    /// What the target's rules must allow: `tool:NAME` for a call, `event.subscribe:SUBJECT` for a
    /// delivery. Denied where there is no target.
    #[must_use]
    #[inline]
    pub fn target_access(mut self, access: Access<'a>) -> Self {
        self.target_access = Some(access);
        self
    }

    /// Takes a token from the caller's bucket.
    #[must_use]
    #[inline]
    pub fn rate(mut self, bucket: Bucket) -> Self {
        self.rate = Some(bucket);
        self
    }

    /// Takes a token from the target's bucket.
    #[must_use]
    #[inline]
    pub fn target_rate(mut self, bucket: Bucket) -> Self {
        self.target_rate = Some(bucket);
        self
    }

    /// The plugin that it is about, where there is no instance yet.
    #[must_use]
    #[inline]
    pub fn about(mut self, plugin: Arc<PluginRef>) -> Self {
        self.about = Some(plugin);
        self
    }

    /// What stands in the record as target, where there is no access: a method, a capability.
    #[must_use]
    #[inline]
    pub fn name(mut self, name: &'a str) -> Self {
        self.name = Some(name);
        self
    }

    /// The right that was found to allow it, where what is asked is no single access.
    pub(crate) fn decided(mut self, rule: String) -> Self {
        self.decided = Some(rule);
        self
    }

    /// The parameters; the record has their hash and size.
    #[must_use]
    #[inline]
    pub fn payload(mut self, payload: &'a Payload) -> Self {
        self.payload = Some(payload);
        self
    }

    /// W3C trace context.
    #[must_use]
    #[inline]
    pub fn trace(mut self, trace: Option<Arc<str>>) -> Self {
        self.trace = trace;
        self
    }

    /// A few words for the record.
    #[must_use]
    #[inline]
    pub fn detail(mut self, detail: &'a str) -> Self {
        self.detail = Some(detail);
        self
    }

    /// Lets the record count repetitions within a second. For frequent acts of little weight.
    #[must_use]
    #[inline]
    pub fn coalesce(mut self) -> Self {
        self.coalesce = true;
        self
    }

    /// One of many that are alike but for payload and trace: by the same owner, on the same target, to the
    /// same running plugin; `routine` belongs to these alone. It may be counted then instead of recorded
    /// by itself, unless it has a trace. `now`: when it begins.
    #[must_use]
    #[inline]
    pub fn routine(mut self, routine: &'a Routine, now: Instant) -> Self {
        self.routine = Some((routine, now));
        self
    }

    /// Whether only owners may do it.
    fn is_control(&self) -> bool {
        use RecordKind as R;
        matches!(self.kind, R::Launch | R::Stop | R::Grant | R::Consent | R::Policy)
    }

    fn act(&self, caller: &Caller) -> Act {
        let mut act = Act::new(self.kind, Arc::clone(caller.principal()));
        if let Some(instance) = self.towards.and_then(Caller::instance) {
            act = act.instance(instance.clone());
        }
        if let Some(plugin) = &self.about {
            act = act.plugin(Arc::clone(plugin));
        }
        act = match (&self.access, &self.target_access, self.name) {
            (Some(access), _, _) | (None, Some(access), _) => act.access(access),
            (None, None, Some(name)) => act.target(name),
            (None, None, None) => act,
        };
        if let Some(payload) = self.payload {
            act = act.payload(payload);
        }
        if let Some(detail) = self.detail {
            act = act.detail(detail);
        }
        if self.coalesce {
            act = act.coalesce();
        }
        act.trace(self.trace.clone())
    }
}

/// Decides about everything and records it. Cloning shares the recorder.
#[derive(Clone)]
pub struct Gate {
    recorder: Arc<dyn Recorder>,
}

impl Gate {
    /// A gate that records with `recorder`.
    #[must_use]
    pub fn new(recorder: Arc<dyn Recorder>) -> Self {
        Self { recorder }
    }

    /// The recorder.
    #[must_use]
    pub fn recorder(&self) -> &Arc<dyn Recorder> {
        &self.recorder
    }

    /// Whether `caller` may do `access` now. Takes no token and records nothing.
    ///
    /// # Errors
    /// [`ErrorCode::Denied`] with the rule and what would allow it.
    pub fn decide(&self, caller: &Caller, access: &Access<'_>) -> Result<(), Failure> {
        caller.with_rules(|rules| rules.decide(access).into_result().map(|_| ())).unwrap_or(Ok(()))
    }

    /// Whether `caller` may subscribe to everything that fits `pattern`: one of its rights must cover
    /// the whole pattern. Forbids are no part of this; they are held against each delivery (see
    /// [`Action::target_access`]), since a pattern may lie partly within one.
    ///
    /// # Errors
    /// [`ErrorCode::Denied`] with the rule and what would allow it.
    pub fn decide_pattern(&self, caller: &Caller, pattern: &SubjectPattern) -> Result<(), Failure> {
        decide_every(caller, Kind::EventSubscribe, pattern.as_str()).map(|_| ())
    }

    /// Whether `caller` has the right that a request takes, and which right that is, in words. Takes no
    /// token and records nothing.
    ///
    /// # Errors
    /// As [`Gate::decide`]; for a need on everything that a scope covers as [`Gate::decide_pattern`].
    pub fn decide_need(&self, caller: &Caller, need: &Need) -> Result<String, Failure> {
        match need.is_every() {
            true => decide_every(caller, need.kind, &need.target),
            false => decide_one(caller, &need.access()),
        }
    }

    /// Decides, takes the tokens and records the intent. The effect may begin when this gives a
    /// [`Pass`], and not before.
    ///
    /// Tokens are taken for denied actions too, and what exceeds a rate is answered so whatever the
    /// decision, so that asking for the forbidden is not free.
    ///
    /// # Errors
    /// [`ErrorCode::Denied`], [`ErrorCode::RateLimited`], or [`ErrorCode::RecordFailed`] where an act
    /// of the fail-closed class could not be recorded.
    pub async fn admit(&self, caller: &Caller, action: Action<'_>) -> Result<Pass, Failure> {
        // Before the decision: rules that are replaced meanwhile make it void.
        let target = action.towards.map(|target| (target, target.version()));
        let decided = decide(caller, &action);
        let rated = rate(caller, &action);
        let rule = match (rated, decided) {
            (Err(failure), _) => return Err(self.over_rate(caller, &action, failure)),
            (Ok(()), Err(failure)) => return Err(self.refused(action.act(caller), failure)),
            (Ok(()), Ok(rule)) => rule,
        };
        if let (Some((routine, _)), Some((target, version))) = (action.routine, target) {
            let like = || {
                let bare = Action { payload: None, trace: None, ..action.clone() };
                bare.act(caller).decision(Decision::Allow, Some(rule.clone()))
            };
            routine.keep(caller, target, version, &rule, &*self.recorder, like);
        }
        let act = action.act(caller).decision(Decision::Allow, Some(rule));
        let intent = self.recorder.intent(act).await?;
        Ok(Pass { recorder: Arc::clone(&self.recorder), intent: Some(intent) })
    }

    /// Lets `effect` happen if `action` is admitted, and records what came of it: also when the
    /// returned future is dropped on the way.
    ///
    /// # Errors
    /// As [`Gate::admit`], and those of the effect.
    pub async fn run<T, F>(
        &self,
        caller: &Caller,
        action: Action<'_>,
        effect: impl FnOnce() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        if let Some(open) = self.counted(caller, &action) {
            let open = open?;
            let result = effect().await;
            open.end(&result);
            return result;
        }
        self.run_recorded(caller, action, effect).await
    }

    /// [`Gate::run`] of what [`Gate::counted`] has not counted.
    ///
    /// # Errors
    /// As [`Gate::run`].
    pub async fn run_recorded<T, F>(
        &self,
        caller: &Caller,
        action: Action<'_>,
        effect: impl FnOnce() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let pass = self.admit(caller, action).await?;
        let result = effect().await;
        match &result {
            Ok(_) => pass.done(),
            Err(failure) => pass.failed(failure),
        }
        result
    }

    /// Records that a rate was exceeded. Named without its target: a flood of different targets is one
    /// line a second.
    fn over_rate(&self, caller: &Caller, action: &Action<'_>, failure: Failure) -> Failure {
        let act = Act::new(action.kind, Arc::clone(caller.principal()));
        let act = match action.towards.and_then(Caller::instance) {
            Some(instance) => act.instance(instance.clone()),
            None => act,
        };
        self.refused(act, failure)
    }

    /// Records a refusal that was found outside of the gate (no such method, parameters that do not
    /// fit), and gives it back.
    #[must_use]
    pub fn refuse(&self, caller: &Caller, action: &Action<'_>, failure: Failure) -> Failure {
        self.refused(action.act(caller), failure)
    }

    /// Records a fact: an exit, a breach.
    pub fn note(&self, act: Act, code: Option<ErrorCode>) {
        self.recorder.note(act, code);
    }

    fn refused(&self, act: Act, failure: Failure) -> Failure {
        let act = act.decision(Decision::Deny, failure.rule.clone());
        self.recorder.note(act, Some(failure.code));
        failure
    }
}

/// The right that allows one access.
fn decide_one(who: &Caller, access: &Access<'_>) -> Result<String, Failure> {
    who.with_rules(|rules| rules.decide(access).into_result().map(ToString::to_string))
        .unwrap_or_else(|| Ok(OWNER.to_owned()))
}

/// The right that covers everything that `kind:scope` covers.
fn decide_every(caller: &Caller, kind: Kind, scope: &str) -> Result<String, Failure> {
    let Some(rules) = caller.rules() else { return Ok(OWNER.to_owned()) };
    let wanted = Capability::new(kind, scope)
        .map_err(|e| Failure::new(ErrorCode::InvalidParams, e.to_string()))?;
    if let Some(right) = rules.rights().iter().find(|right| wanted.is_subset_of(right)) {
        return Ok(right.to_string());
    }
    let option = palisade_policy::grant_option(&wanted)
        .unwrap_or_else(|| format!("grant a capability that covers {wanted}"));
    let what = match kind {
        Kind::EventSubscribe => "pattern",
        _ => "scope",
    };
    Err(Failure::new(ErrorCode::Denied, format!("{wanted} is not granted"))
        .rule(format!("no effective {kind} right covers the whole {what}"))
        .hint(option))
}

/// The rule that allows the action, or the denial.
fn decide(caller: &Caller, action: &Action<'_>) -> Result<String, Failure> {
    if action.is_control() && !caller.is_owner() {
        let message = format!("{} may not control plugins", caller.principal());
        return Err(Failure::new(ErrorCode::Denied, message)
            .rule("only the application and its operators control plugins")
            .hint("ask the operator of this host"));
    }
    let own = match &action.access {
        Some(access) => Some(decide_one(caller, access)?),
        None => action.decided.clone(),
    };
    let target = match (&action.target_access, action.towards) {
        (None, _) => None,
        (Some(access), Some(target)) => Some(decide_one(target, access)?),
        (Some(access), None) => {
            let message = format!("{access} is asked of nobody");
            return Err(Failure::new(ErrorCode::Denied, message).rule("no target"));
        }
    };
    Ok(match (own, target) {
        (Some(own), Some(target)) => format!("{own}; target: {target}"),
        (Some(rule), None) | (None, Some(rule)) => rule,
        (None, None) if caller.is_owner() => OWNER.to_owned(),
        (None, None) => "takes no right".to_owned(),
    })
}

fn rate(caller: &Caller, action: &Action<'_>) -> Result<(), Failure> {
    let take = |who: Option<&Caller>, bucket: Option<Bucket>| match (
        who.and_then(Caller::rates),
        bucket,
    ) {
        (Some(rates), Some(bucket)) => match action.routine {
            Some((_, now)) => rates.take_at(bucket, now),
            None => rates.take(bucket),
        },
        _ => Ok(()),
    };
    take(Some(caller), action.rate)?;
    take(action.towards, action.target_rate)
}

/// What may stand in the record of a failure: the words of a plugin's error are its data.
fn own_words(failure: &Failure) -> Option<&str> {
    (failure.code != ErrorCode::PluginError).then_some(failure.message.as_str())
}

/// Leave to act. The outcome is recorded when it is used up; dropping it records "cancelled".
#[must_use = "dropping a pass records that the act was cancelled"]
pub struct Pass {
    recorder: Arc<dyn Recorder>,
    intent: Option<Intent>,
}

impl Pass {
    /// The act was done.
    pub fn done(mut self) {
        self.record(Outcome::Done, None);
    }

    /// The act failed. The record has the code, and the host's own words; the words of a plugin's
    /// error are its data and stay out.
    pub fn failed(mut self, failure: &Failure) {
        let outcome = match failure.code {
            ErrorCode::Cancelled => Outcome::Cancelled,
            code => Outcome::Failed(code),
        };
        self.record(outcome, own_words(failure));
    }

    /// Ties this act to what follows from it.
    #[must_use]
    pub fn correlation(&self) -> Option<u64> {
        self.intent.as_ref().map(Intent::correlation)
    }

    fn record(&mut self, outcome: Outcome, detail: Option<&str>) {
        if let Some(intent) = self.intent.take() {
            self.recorder.outcome(intent, outcome, detail);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.record(Outcome::Failed(ErrorCode::Internal), Some("the effect panicked"));
        } else {
            self.record(Outcome::Cancelled, None);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
