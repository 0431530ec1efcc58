//! What a hook is told and what it tells: options, steps, vetoes, outcome.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use palisade_model::{ErrorCode, Failure, Payload, PluginId, text::escape};
use serde::{Serialize, de::DeserializeOwned};

/// What a plugin's failure means for a hook: no answer in time, a crash, an error, an answer that is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailurePolicy {
    /// It is passed over: the next plugin gets the data as it was. For hooks that watch or decorate.
    #[default]
    Skip,
    /// It refuses, as a veto would. For hooks that protect something. A loaded plugin that declares the
    /// hook and is starting, has crashed or failed to start refuses too; one that was never started, was
    /// stopped, or ended by itself in order does not (see [`HookOptions::require`]).
    Veto,
}

/// How a hook is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HookOptions {
    /// What a plugin's failure means.
    pub on_failure: FailurePolicy,
    /// How long each plugin may take. `None`: 5 s, or the manifest's `resources.timeouts.call` where that
    /// is less.
    pub timeout: Option<Duration>,
    /// How long all of them together may take. `None`: 30 s. Whoever has not answered by then has failed.
    pub total: Option<Duration>,
    /// Plugins that must take part: where one of them does not run, does not offer the hook, or fails,
    /// the hook refuses, whatever `on_failure` says.
    pub require: BTreeSet<PluginId>,
    /// How many events, hooks and calls led to this one. Inside a service's handler the host knows; where
    /// the handler goes on in another task, give it `cx.hops()`.
    pub hops: u8,
    /// W3C trace context of the caller (`traceparent`), for the record.
    pub trace: Option<Arc<str>>,
}

impl HookOptions {
    /// Failures are passed over; the default times.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a plugin's failure means.
    #[must_use]
    pub fn on_failure(mut self, policy: FailurePolicy) -> Self {
        self.on_failure = policy;
        self
    }

    /// How long each plugin may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long all plugins together may take.
    #[must_use]
    pub fn total(mut self, total: Duration) -> Self {
        self.total = Some(total);
        self
    }

    /// Adds a plugin that must take part.
    #[must_use]
    pub fn require(mut self, plugin: PluginId) -> Self {
        self.require.insert(plugin);
        self
    }

    /// How many events, hooks and calls led to this one.
    #[must_use]
    pub fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// W3C trace context, for the record.
    #[must_use]
    pub fn trace(mut self, traceparent: impl Into<Arc<str>>) -> Self {
        self.trace = Some(traceparent.into());
        self
    }
}

/// What one plugin did with a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HookAnswer {
    /// It left the data as it was.
    Unchanged,
    /// It replaced the data.
    Changed,
    /// It refused.
    Vetoed,
    /// It gave no answer that counts; why.
    Failed(Failure),
}

/// One plugin's part in a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HookStep {
    /// Who.
    pub plugin: PluginId,
    /// What it did.
    pub answer: HookAnswer,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Veto {
    /// Who refused, or whose failure did.
    pub plugin: PluginId,
    /// Why: the plugin's words, at most 500 characters, escaped. Safe to show; not to be believed.
    pub reason: String,
    /// The failure, where the plugin did not refuse but failed.
    pub failure: Option<Failure>,
}

/// What came of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HookOutcome {
    /// The hook.
    pub hook: String,
    /// The data as the plugins left it; after a veto, as it was when it was refused.
    pub data: Payload,
    /// Who refused and why, if anybody did. Nobody is asked after that.
    pub veto: Option<Veto>,
    /// What each plugin did, in the order in which they were asked.
    pub steps: Vec<HookStep>,
}

impl HookOutcome {
    /// The data, unless somebody refused.
    ///
    /// # Errors
    /// [`ErrorCode::Denied`] that says who refused and why.
    pub fn allowed(self) -> Result<Payload, Failure> {
        let Some(Veto { plugin, reason, failure }) = self.veto else { return Ok(self.data) };
        let hook = self.hook;
        Err(match failure {
            None => Failure::new(ErrorCode::Denied, format!("plugin {plugin} refuses: {reason}"))
                .rule(format!("a veto in the hook {hook}")),
            Some(_) => Failure::new(ErrorCode::Denied, format!("plugin {plugin}: {reason}"))
                .rule(format!("the hook {hook} refuses where this plugin fails")),
        })
    }

    /// [`HookOutcome::allowed`], read as `T`.
    ///
    /// # Errors
    /// As [`HookOutcome::allowed`], and [`ErrorCode::PluginError`] where a plugin made something else of
    /// the data.
    pub fn parse<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let by: Vec<String> = self
            .steps
            .iter()
            .filter(|step| step.answer == HookAnswer::Changed)
            .map(|step| step.plugin.to_string())
            .collect();
        let hook = self.hook.clone();
        self.allowed()?.parse().map_err(|e: serde_json::Error| {
            let what = escape(&e.to_string(), 200);
            let message = format!("the data of the hook {hook} does not fit any more: {what}");
            Failure::new(ErrorCode::PluginError, message)
                .hint(format!("it was changed by: {}", by.join(", ")))
        })
    }
}
