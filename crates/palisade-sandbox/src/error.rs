//! What can go wrong between asking for a wall and having one.

use palisade_model::{ErrorCode, Failure};

/// An error of a backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The backend cannot be used on this machine.
    #[error("backend {backend} is not available: {reason}")]
    Unavailable {
        /// Which.
        backend: &'static str,
        /// What is missing.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// The artifact does not fit the wall (no such file, no such interpreter, wrong architecture).
    #[error("{what}")]
    Artifact {
        /// What does not fit.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// A granted path is not there, or is not what it was when it was granted.
    #[error("granted path {path}: {what}")]
    Path {
        /// The path, escaped.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// What the wall gives does not cover the demand.
    #[error("the wall does not cover the demand: {0}")]
    WallTooWeak(String),
    /// A right that this wall cannot make true.
    #[error("{capability} cannot be enforced by this wall: {why}")]
    Unsupported {
        /// The right.
        capability: String,
        /// Why not.
        why: String,
    },
    /// A step of building the wall failed.
    #[error("{step}: {source}")]
    Step {
        /// Which step.
        step: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The helper does not answer, or answers nonsense.
    #[error("the helper process {0}")]
    Helper(String),
    /// The instance has ended.
    #[error("the instance has ended")]
    Ended,
    /// The plugin ended before it was ready, or answered `initialize` wrongly.
    #[error("{0}")]
    Start(Failure),
}

impl SandboxError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unavailable { .. } | Self::WallTooWeak(_) | Self::Unsupported { .. } => {
                ErrorCode::NoBackend
            }
            Self::Artifact { .. } => ErrorCode::ManifestInvalid,
            Self::Path { .. } => ErrorCode::NotFound,
            Self::Step { .. } | Self::Helper(_) => ErrorCode::Internal,
            Self::Ended => ErrorCode::Unavailable,
            Self::Start(failure) => failure.code,
        }
    }

    /// A step that failed with the kernel's answer.
    pub fn step(step: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Step { step: step.into(), source: source.into() }
    }
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Failure {
        let code = error.code();
        let message = error.to_string();
        match error {
            SandboxError::Start(failure) => failure,
            SandboxError::Unavailable { remedy, .. } => Failure::new(code, message).hint(remedy),
            SandboxError::Artifact { hint, .. } => Failure::new(code, message).hint(hint),
            _ => Failure::new(code, message),
        }
    }
}
