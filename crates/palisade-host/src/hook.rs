//! Hooks: places in the application's work where plugins are asked, one after the other, and may change
//! what it works on or refuse it.
//!
//! A plugin that fails breaks nothing: the application says, hook by hook, whether a failure is passed
//! over or refuses. Who takes part is settled when the hook begins.

mod outcome;

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_audit::{Act, Decision, RecordKind};
use palisade_broker::{Action, Bucket, Caller};
use palisade_model::{
    Access, Capability, ErrorCode, Failure, Kind, Payload, PluginId, capability::Scope,
    text::escape,
};
use palisade_policy::{Rules, registration_allowed};
use palisade_protocol::methods;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{
    Control, State, call::check_trace, cell::PluginCell, hops, host::HostInner, running::Running,
    status::count,
};

pub use outcome::{FailurePolicy, HookAnswer, HookOptions, HookOutcome, HookStep, Veto};

/// Most bytes of a hook's data, going in and coming back.
pub const MAX_HOOK_BYTES: usize = 1 << 20;
/// Most plugins that are asked by one hook.
pub const MAX_HOOK_PLUGINS: usize = 64;
/// Most characters of a veto's reason.
pub const MAX_VETO_CHARS: usize = 500;
/// How long one plugin may take, unless the application or the plugin's manifest says less.
pub const DEFAULT_HOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long all plugins together may take, unless the application says otherwise.
pub const DEFAULT_HOOK_TOTAL: Duration = Duration::from_secs(30);

/// Room for an answer that came in time to be read.
const SLACK: Duration = Duration::from_millis(200);

impl Control {
    /// Runs a hook: asks every running plugin that offers it, the lowest priority first (0 to 1000,
    /// default 50; then by id), each with the data as the one before left it, until one refuses.
    ///
    /// Plugins' failures are passed over; see [`Control::hook_with`]. What a plugin does meanwhile
    /// (events, requests) follows from this hook, and a circle ends after 16 steps.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParams`] for a name that is none or data that is not JSON,
    /// [`ErrorCode::LimitExceeded`] for more than 1 MiB of data or a circle, [`ErrorCode::Denied`] for
    /// callers that are not owners. What plugins do is never an error here.
    pub async fn hook<T: Serialize + ?Sized>(
        &self,
        hook: &str,
        data: &T,
    ) -> Result<HookOutcome, Failure> {
        self.hook_with(hook, data, HookOptions::default()).await
    }

    /// [`Control::hook`] with a failure policy, deadlines, or plugins that must take part.
    ///
    /// Who takes part is settled at the beginning: a plugin that starts meanwhile is asked by the next
    /// hook, one that ends meanwhile has failed. Of more than 64 plugins the rest count as failed.
    ///
    /// # Errors
    /// As [`Control::hook`].
    pub async fn hook_with<T: Serialize + ?Sized>(
        &self,
        hook: &str,
        data: &T,
        options: HookOptions,
    ) -> Result<HookOutcome, Failure> {
        let host = self.host();
        host.check_open()?;
        check_name(hook)?;
        check_trace(options.trace.as_deref())?;
        if !self.caller().is_owner() {
            let message = format!("{} may not run hooks", self.caller().principal());
            let failure = Failure::new(ErrorCode::Denied, message)
                .rule("only the application and its operators run hooks");
            let action = Action::new(RecordKind::Call).access(Access::new(Kind::Hook, hook));
            return Err(host.gate().refuse(self.caller(), &action, failure));
        }
        let data = Payload::json(data).map_err(|e| {
            let what = escape(&e.to_string(), 200);
            Failure::new(ErrorCode::InvalidParams, format!("the hook's data: {what}"))
        })?;
        check_size(&data)?;
        let hops = options.hops.max(hops::current().unwrap_or(0));
        hops::check(hops)?;
        let (host, caller) = (Arc::clone(host), Arc::clone(self.caller()));
        let run = Run { host, caller, hook: hook.to_owned(), options, hops };
        if hops::current().is_none() {
            return run.run(data).await;
        }
        // Where walls are called directly, hooks within hooks would stand on one stack.
        let mut task = tokio::task::JoinSet::new();
        task.spawn(run.run(data));
        match task.join_next().await {
            Some(Ok(outcome)) => outcome,
            _ => Err(Failure::new(ErrorCode::Unavailable, "the host is stopping")),
        }
    }
}

/// One run of a hook.
struct Run {
    host: Arc<HostInner>,
    caller: Arc<Caller>,
    hook: String,
    options: HookOptions,
    hops: u8,
}

/// Who takes part, in order.
struct Participants {
    here: Vec<Arc<Running>>,
    /// Whose absence refuses, and why.
    absent: Option<(PluginId, Failure)>,
}

impl Run {
    async fn run(self, mut data: Payload) -> Result<HookOutcome, Failure> {
        let Participants { here, absent } = self.participants();
        let (mut veto, mut steps) = (None, Vec::with_capacity(here.len()));
        if let Some((plugin, failure)) = absent {
            self.record(None, &failure);
            let answer = HookAnswer::Failed(failure.clone());
            steps.push(HookStep { plugin: plugin.clone(), answer });
            veto = Some(refused_by_failure(plugin, failure));
        }
        let end = Instant::now() + self.options.total.unwrap_or(DEFAULT_HOOK_TOTAL);
        for (place, running) in here.iter().enumerate() {
            if veto.is_some() {
                break;
            }
            let plugin = running.loaded.manifest.id.clone();
            let asked = match place < MAX_HOOK_PLUGINS {
                true => self.ask(running, &data, end).await,
                false => Err(too_many()),
            };
            let answer = match asked {
                Ok(Answer::Unchanged) => HookAnswer::Unchanged,
                Ok(Answer::Changed(new)) => {
                    data = new;
                    HookAnswer::Changed
                }
                Ok(Answer::Veto(reason)) => {
                    let denied = Failure::new(ErrorCode::Denied, "").rule("veto");
                    self.record(Some(running), &denied);
                    veto = Some(Veto { plugin: plugin.clone(), reason, failure: None });
                    HookAnswer::Vetoed
                }
                Err(failure) => {
                    tracing::debug!(%plugin, hook = %self.hook, "hook not answered: {failure}");
                    if self.is_needed(&plugin) {
                        self.record(Some(running), &failure);
                        veto = Some(refused_by_failure(plugin.clone(), failure.clone()));
                    }
                    HookAnswer::Failed(failure)
                }
            };
            steps.push(HookStep { plugin, answer });
        }
        Ok(HookOutcome { hook: self.hook, data, veto, steps })
    }

    /// Whether a failure of this plugin refuses.
    fn is_needed(&self, plugin: &PluginId) -> bool {
        self.options.on_failure == FailurePolicy::Veto || self.options.require.contains(plugin)
    }

    /// Whether the plugin would take part if it ran: it declares the hook, and the policy lets it.
    fn may_offer(&self, cell: &PluginCell, access: &Access<'_>) -> bool {
        let declared = Rules::new(cell.loaded().declared.clone(), self.host.policy.forbids());
        registration_allowed(&declared, access).is_ok()
    }

    fn participants(&self) -> Participants {
        let access = Access::new(Kind::Hook, &self.hook);
        let (mut here, mut absent) = (Vec::new(), None);
        let mut missing = self.options.require.clone();
        for cell in self.host.cells() {
            let running = cell.running().filter(|_| cell.state() == State::Running);
            match running {
                Some(running) if running.offer.registered.allows(&access).is_some() => {
                    missing.remove(&cell.reference.id);
                    here.push((priority(&running, &self.hook), running));
                }
                Some(_) => {}
                None => {
                    let broken = self.options.on_failure == FailurePolicy::Veto
                        && matches!(cell.state(), State::Starting | State::Crashed | State::Failed)
                        && self.may_offer(&cell, &access);
                    if broken && absent.is_none() {
                        absent =
                            cell.require_running().err().map(|f| (cell.reference.id.clone(), f));
                    }
                }
            }
        }
        if let (None, Some(id)) = (&absent, missing.pop_first()) {
            let message = format!("it is needed for the hook {} and does not take part", self.hook);
            let failure = Failure::new(ErrorCode::Unavailable, message)
                .hint("start it; its manifest has to declare the hook, and the policy to allow it");
            absent = Some((id, failure));
        }
        // Cells come by id, and the sort keeps that order among equals.
        here.sort_by_key(|(priority, _)| *priority);
        Participants { here: here.into_iter().map(|(_, running)| running).collect(), absent }
    }

    /// Asks one plugin, through the gate, within its time and what is left of the total.
    async fn ask(
        &self,
        running: &Arc<Running>,
        data: &Payload,
        end: Instant,
    ) -> Result<Answer, Failure> {
        let params = params(&self.hook, data);
        let action = Action::new(RecordKind::Call)
            .towards(&running.caller)
            .target_access(Access::new(Kind::Hook, &self.hook))
            .target_rate(Bucket::Calls)
            .payload(&params)
            .trace(self.options.trace.clone());
        let usual = DEFAULT_HOOK_TIMEOUT.min(running.loaded.limits.call_timeout);
        let own = Instant::now() + self.options.timeout.unwrap_or(usual);
        let deadline = own.min(end);
        let late = || {
            let what = if end < own { "all plugins together had" } else { "it had" };
            let message = format!("no answer to the hook {} in the time that {what}", self.hook);
            Failure::new(ErrorCode::Deadline, message)
        };
        let _handling = running.caller.handle_delivery(self.hops);
        count(&running.counters.calls);
        let answer = self
            .host
            .gate()
            .run(&self.caller, action, || async {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(late());
                }
                let trace = self.options.trace.clone();
                let asked = running.invoke(&self.host, methods::HOOK, params.clone(), left, trace);
                // A lane that has failed is looked into, which must not take longer than the answer may.
                let answer = tokio::time::timeout_at((deadline + SLACK).into(), asked)
                    .await
                    .unwrap_or_else(|_| Err(late()))?;
                read(&answer)
            })
            .await;
        if answer.is_err() {
            count(&running.counters.calls_failed);
        }
        answer
    }

    /// Records that the hook was refused: by a plugin, or because of its failure. The words of the veto
    /// are the plugin's data and stay out.
    fn record(&self, running: Option<&Arc<Running>>, failure: &Failure) {
        let vetoed = failure.rule.as_deref() == Some("veto");
        let actor = match running.filter(|_| vetoed) {
            Some(running) => running.caller.principal(),
            None => self.caller.principal(),
        };
        let mut act = Act::new(RecordKind::Call, Arc::clone(actor))
            .access(&Access::new(Kind::Hook, &self.hook))
            .trace(self.options.trace.clone());
        if let Some(instance) = running.and_then(|r| r.caller.instance()) {
            act = act.instance(instance.clone());
        }
        let rule = if vetoed { "veto" } else { "a failure refuses" };
        self.host
            .gate()
            .note(act.decision(Decision::Deny, Some(rule.to_owned())), Some(failure.code));
    }
}

/// What a plugin answered.
#[derive(Debug, PartialEq)]
enum Answer {
    Unchanged,
    Changed(Payload),
    Veto(String),
}

/// The wire form of an answer. Unknown fields are ignored.
#[derive(Deserialize)]
struct Wire<'a> {
    /// `null` is data too.
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    veto: Option<Cow<'a, str>>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads a plugin's answer. A veto beside data is a veto.
fn read(answer: &Payload) -> Result<Answer, Failure> {
    let none = |what: String| {
        let message =
            format!("its answer to a hook is none of {{}}, {{data}} and {{veto}}: {what}");
        Failure::new(ErrorCode::PluginError, message)
    };
    let bytes = answer.bytes();
    // An array would be read as the fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(none("it is not an object".into()));
    }
    let wire: Wire<'_> =
        serde_json::from_slice(bytes).map_err(|e| none(escape(&e.to_string(), 200)))?;
    match (wire.veto, wire.data) {
        (Some(reason), _) if reason.trim().is_empty() => {
            Ok(Answer::Veto("no reason given".to_owned()))
        }
        (Some(reason), _) => Ok(Answer::Veto(escape(&reason, MAX_VETO_CHARS))),
        (None, Some(data)) => {
            let data = Payload::from_json_text(bytes.slice_ref(data.get().as_bytes()));
            check_size(&data)?;
            Ok(Answer::Changed(data))
        }
        (None, None) => Ok(Answer::Unchanged),
    }
}

/// `{"hook":NAME,"data":DATA}`, without reading the data again.
fn params(hook: &str, data: &Payload) -> Payload {
    let mut text = Vec::with_capacity(hook.len() + data.len() + 24);
    text.extend_from_slice(b"{\"hook\":");
    text.extend_from_slice(Value::from(hook).to_string().as_bytes());
    text.extend_from_slice(b",\"data\":");
    text.extend_from_slice(data.bytes());
    text.push(b'}');
    Payload::from_json_text(text)
}

/// Where the manifest puts the plugin in this hook.
fn priority(running: &Running, hook: &str) -> u16 {
    let hooks = &running.loaded.manifest.contributes.hooks;
    hooks.iter().find(|h| h.event == hook).map_or(u16::MAX, |h| h.priority)
}

fn refused_by_failure(plugin: PluginId, failure: Failure) -> Veto {
    Veto { plugin, reason: failure.message.clone(), failure: Some(failure) }
}

fn too_many() -> Failure {
    let message =
        format!("more than {MAX_HOOK_PLUGINS} plugins offer this hook, and it was not asked");
    Failure::new(ErrorCode::LimitExceeded, message).hint("stop plugins that are not needed")
}

fn check_name(hook: &str) -> Result<(), Failure> {
    let exact = Capability::new(Kind::Hook, hook)
        .is_ok_and(|c| matches!(c.scope(), Scope::Name(name) if name.exact().is_some()));
    if exact {
        return Ok(());
    }
    let message = format!("{} is no name of a hook", escape(hook, 128));
    Err(Failure::new(ErrorCode::InvalidParams, message)
        .hint("a name has 1 to 256 characters of A-Z a-z 0-9 . _ - : / @ $ +"))
}

fn check_size(data: &Payload) -> Result<(), Failure> {
    if data.len() <= MAX_HOOK_BYTES {
        return Ok(());
    }
    let message = format!(
        "the data of a hook has at most {MAX_HOOK_BYTES} bytes, and this has {}",
        data.len()
    );
    Err(Failure::new(ErrorCode::LimitExceeded, message)
        .hint("give a reference to the data instead of the data"))
}

#[cfg(test)]
mod tests;
