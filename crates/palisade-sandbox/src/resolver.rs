//! The resolver: which wall a launch gets.
//!
//! It takes the cheapest available backend whose guarantees for this very launch cover the demand. When
//! none does, the answer says for each candidate what is missing; there is no fallback. Running a
//! plugin inside the host's own process is not a backend and never a candidate.

use std::{fmt, sync::Arc};

use palisade_model::{ErrorCode, Failure, Guarantee, Level};
use serde::Serialize;

use crate::{Assessment, Backend, LaunchSpec};

/// Why one backend was not taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// Its name.
    pub backend: &'static str,
    /// It cannot be used here: reason and remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<crate::Unavailable>,
    /// Demanded, but not given: guarantee, demanded level, level at hand.
    pub missing: Vec<(Guarantee, Level, Level)>,
    /// Rights that it cannot make true: capability and reason.
    pub unsupported: Vec<(String, String)>,
}

/// No backend covers the demand.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NoBackend {
    /// Each candidate, cheapest first.
    pub candidates: Vec<Candidate>,
}

impl fmt::Display for NoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no backend on this machine covers the demand")?;
        for c in &self.candidates {
            write!(f, "; {}: ", c.backend)?;
            if let Some(u) = &c.unavailable {
                write!(f, "{}", u.reason)?;
                continue;
            }
            let missing =
                c.missing.iter().map(|(g, want, have)| format!("{g} is {have}, demanded {want}"));
            let unsupported =
                c.unsupported.iter().map(|(cap, why)| format!("cannot enforce {cap}: {why}"));
            let all: Vec<String> = missing.chain(unsupported).collect();
            f.write_str(&all.join(", "))?;
        }
        Ok(())
    }
}

impl std::error::Error for NoBackend {}

impl From<NoBackend> for Failure {
    fn from(error: NoBackend) -> Failure {
        let remedy =
            error.candidates.iter().find_map(|c| c.unavailable.as_ref().map(|u| u.remedy.clone()));
        let failure = Failure::new(ErrorCode::NoBackend, error.to_string());
        failure.hint(
            remedy.unwrap_or_else(|| {
                "run `palisade doctor` to see what this machine can enforce".into()
            }),
        )
    }
}

/// The backend that was chosen, with what it will guarantee.
#[derive(Clone)]
pub struct Resolved {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// What it guarantees for this launch.
    pub assessment: Assessment,
}

/// Chooses among backends.
#[derive(Clone, Default)]
pub struct Resolver {
    backends: Vec<Arc<dyn Backend>>,
}

impl Resolver {
    /// A resolver over `backends`, cheapest first.
    #[must_use]
    pub fn new(backends: Vec<Arc<dyn Backend>>) -> Self {
        Self { backends }
    }

    /// The backends, cheapest first.
    #[must_use]
    pub fn backends(&self) -> &[Arc<dyn Backend>] {
        &self.backends
    }

    /// Chooses for one launch. `allowed` restricts the candidates by name; `None` allows all.
    ///
    /// # Errors
    /// [`NoBackend`] when no candidate covers `spec.demand` or can make all of `spec.rights` true.
    pub async fn resolve(
        &self,
        spec: &LaunchSpec,
        allowed: Option<&[String]>,
    ) -> Result<Resolved, NoBackend> {
        let mut candidates = Vec::new();
        for backend in &self.backends {
            if allowed.is_some_and(|names| !names.iter().any(|n| n == backend.name())) {
                continue;
            }
            let facts = backend.probe().await;
            if let Some(unavailable) = &facts.unavailable {
                candidates.push(Candidate {
                    backend: backend.name(),
                    unavailable: Some(unavailable.clone()),
                    missing: Vec::new(),
                    unsupported: Vec::new(),
                });
                continue;
            }
            let assessment = backend.assess(spec).await;
            let missing = assessment.guarantees.missing(&spec.demand);
            if missing.is_empty() && assessment.unsupported.is_empty() {
                return Ok(Resolved { backend: Arc::clone(backend), assessment });
            }
            candidates.push(Candidate {
                backend: backend.name(),
                unavailable: None,
                missing,
                unsupported: assessment
                    .unsupported
                    .iter()
                    .map(|(c, why)| (c.to_string(), why.clone()))
                    .collect(),
            });
        }
        Err(NoBackend { candidates })
    }
}
