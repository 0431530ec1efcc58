//! What can be wrong with a command line, or with getting what it names.

use palisade_egress::EgressError;
use palisade_model::{ErrorCode, Failure};
use palisade_sandbox::{NoBackend, SandboxError};

/// An error of this crate. Text that came from packages or registries is escaped in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The command line cannot be used as it is.
    #[error("{what}")]
    Usage {
        /// What does not fit.
        what: String,
        /// What to write instead.
        hint: String,
    },
    /// A program, script or module that it names is not there.
    #[error("{what}")]
    NotFound {
        /// What is missing.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// A package wants to run scripts when it is installed, or to be built, and that is not done.
    #[error("{package} {why}")]
    NeedsScripts {
        /// The package.
        package: String,
        /// What it wants to do.
        why: String,
        /// What to do about it.
        hint: String,
    },
    /// The client is configured in a way that the resolve step cannot follow.
    #[error("{what}")]
    Configuration {
        /// What is configured, and where.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// The package could not be fetched.
    #[error("{package} could not be installed: {why}")]
    Install {
        /// What was asked for.
        package: String,
        /// The last words of the client, escaped.
        why: String,
        /// What to do about it.
        hint: String,
    },
    /// It took too long.
    #[error("{package} was not installed within {seconds} s")]
    Deadline {
        /// What was asked for.
        package: String,
        /// The limit.
        seconds: u64,
    },
    /// The registry could not be asked.
    #[error("the registry could not be asked: {0}")]
    Registry(#[from] EgressError),
    /// The cache cannot be used.
    #[error("{step}: {source}")]
    Cache {
        /// What was being done.
        step: String,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The walls of the resolve step could not be built.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// There are no walls for the resolve step.
    #[error(transparent)]
    NoBackend(#[from] NoBackend),
}

impl CommandError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Usage { .. } | Self::Configuration { .. } => ErrorCode::Usage,
            Self::NotFound { .. } => ErrorCode::NotFound,
            Self::NeedsScripts { .. } => ErrorCode::Denied,
            Self::Install { .. } => ErrorCode::Unavailable,
            Self::Deadline { .. } => ErrorCode::Deadline,
            Self::Registry(error) => error.code(),
            Self::Cache { .. } => ErrorCode::Internal,
            Self::Sandbox(error) => error.code(),
            Self::NoBackend(_) => ErrorCode::NoBackend,
        }
    }

    pub(crate) fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), hint: hint.into() }
    }

    pub(crate) fn not_found(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::NotFound { what: what.into(), hint: hint.into() }
    }

    pub(crate) fn cache(step: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Cache { step: step.into(), source: source.into() }
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Failure {
        let (code, message) = (error.code(), error.to_string());
        match error {
            CommandError::Usage { hint, .. }
            | CommandError::NotFound { hint, .. }
            | CommandError::NeedsScripts { hint, .. }
            | CommandError::Configuration { hint, .. }
            | CommandError::Install { hint, .. } => Failure::new(code, message).hint(hint),
            CommandError::Sandbox(error) => error.into(),
            CommandError::NoBackend(error) => error.into(),
            CommandError::Deadline { .. } => {
                Failure::new(code, message).hint("try again, or look whether the registry answers")
            }
            _ => Failure::new(code, message),
        }
    }
}
