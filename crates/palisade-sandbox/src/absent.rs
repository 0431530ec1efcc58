//! A wall that is not there.

use std::sync::Arc;

use palisade_model::GuaranteeSet;

use crate::{
    Artifact, Assessment, Backend, BoxFuture, Facts, LaunchSpec, Prepared, Runtime, SandboxError,
    Unavailable,
};

/// Stands in the place of a backend that this build or this system lacks: a plugin that needs it, or a person who
/// names it, learns why it is not there and what to do. It starts nothing.
pub struct AbsentBackend {
    name: &'static str,
    runs: fn(&Runtime) -> bool,
    why: Unavailable,
}

impl AbsentBackend {
    /// The absent backend's name, and what it would run.
    #[must_use]
    pub fn new(name: &'static str, runs: fn(&Runtime) -> bool, why: Unavailable) -> Self {
        Self { name, runs, why }
    }
}

impl Backend for AbsentBackend {
    fn name(&self) -> &'static str {
        self.name
    }

    fn runs(&self, runtime: &Runtime) -> bool {
        (self.runs)(runtime)
    }

    fn probe(&self) -> BoxFuture<'_, Arc<Facts>> {
        let facts = Facts {
            unavailable: Some(self.why.clone()),
            guarantees: GuaranteeSet::new(),
            findings: Vec::new(),
        };
        Box::pin(std::future::ready(Arc::new(facts)))
    }

    fn assess<'a>(&'a self, _: &'a LaunchSpec) -> BoxFuture<'a, Assessment> {
        Box::pin(std::future::ready(Assessment::default()))
    }

    fn prepare<'a>(
        &'a self,
        _: &'a Artifact,
    ) -> BoxFuture<'a, Result<Arc<dyn Prepared>, SandboxError>> {
        let Unavailable { reason, remedy } = self.why.clone();
        let error = SandboxError::Unavailable { backend: self.name, reason, remedy };
        Box::pin(std::future::ready(Err(error)))
    }
}
