//! The backend seam: one implementation for each kind of wall.

use std::{path::Path, sync::Arc};

use palisade_model::{Capability, Guarantee, GuaranteeSet, Level};
use serde::Serialize;

use crate::{Artifact, BoxFuture, HostCalls, Instance, LaunchSpec, Runtime, SandboxError};

/// Why a backend cannot be used here, and what would change that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unavailable {
    /// What is missing.
    pub reason: String,
    /// What to do about it; a command where there is one.
    pub remedy: String,
}

/// One thing that a probe found out, for `palisade doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, a few words.
    pub topic: String,
    /// Whether it helps.
    pub good: bool,
    /// What was found.
    pub detail: String,
    /// What to do about it, where something can be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What a backend found on this machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Facts {
    /// Whether it can launch at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<Unavailable>,
    /// What it guarantees here for a launch that weakens nothing.
    pub guarantees: GuaranteeSet,
    /// What was looked at.
    pub findings: Vec<Finding>,
}

/// What a backend would guarantee for one launch, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Assessment {
    /// The guarantees.
    pub guarantees: GuaranteeSet,
    /// How each holds, or why it does not: guarantee, level, one sentence.
    pub reasons: Vec<(Guarantee, Level, String)>,
    /// Rights that this wall cannot make true, each with the reason. Not empty: the launch is refused.
    pub unsupported: Vec<(Capability, String)>,
}

impl Assessment {
    /// Notes that `guarantee` holds at `level`, and how.
    pub fn hold(&mut self, guarantee: Guarantee, level: Level, how: impl Into<String>) {
        self.guarantees.raise(guarantee, level);
        self.reasons.push((guarantee, level, how.into()));
    }

    /// Notes that `guarantee` holds only at `level` because of something about this launch.
    pub fn weaken(&mut self, guarantee: Guarantee, level: Level, why: impl Into<String>) {
        self.guarantees.lower(guarantee, level);
        self.reasons.push((guarantee, level, why.into()));
    }
}

/// One kind of wall.
pub trait Backend: Send + Sync {
    /// The name used in `--backend`, policy and records.
    fn name(&self) -> &'static str;

    /// Whether it runs programs of this kind; it is not asked about others. The default: what runs in a
    /// process of its own.
    fn runs(&self, runtime: &Runtime) -> bool {
        runtime.is_process()
    }

    /// Names a folder that is the host's own and private to it. A backend that keeps something between runs
    /// makes a folder of its name in it. Told once, before anything is prepared.
    fn keep_in(&self, folder: &Path) {
        let _ = folder;
    }

    /// Looks at the machine. The result is cached by the implementation; cheap after the first time.
    fn probe(&self) -> BoxFuture<'_, Arc<Facts>>;

    /// What would be guaranteed for this launch. Never more than will be achieved.
    fn assess<'a>(&'a self, spec: &'a LaunchSpec) -> BoxFuture<'a, Assessment>;

    /// Does what can be done once for an artifact (find the interpreter, compile, build an image).
    ///
    /// # Errors
    /// When the artifact cannot run behind this wall; the error says what is missing.
    fn prepare<'a>(
        &'a self,
        artifact: &'a Artifact,
    ) -> BoxFuture<'a, Result<Arc<dyn Prepared>, SandboxError>>;
}

/// An artifact that is ready to be launched.
pub trait Prepared: Send + Sync {
    /// Launches it. The plugin's requests go to `host`.
    ///
    /// # Errors
    /// When the wall could not be built as demanded; nothing of the plugin is left running then.
    fn launch(
        &self,
        spec: LaunchSpec,
        host: Arc<dyn HostCalls>,
    ) -> BoxFuture<'_, Result<Arc<dyn Instance>, SandboxError>>;
}
