//! What can go wrong in the harness itself, as against in an attempt.

use std::{fmt, io};

/// The suite could not do its own work: the scene, the attacker's build, a runner. Never an outcome.
#[derive(Debug)]
pub struct Trouble(pub String);

/// Result of the harness' own work.
pub type Result<T> = std::result::Result<T, Trouble>;

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Trouble {}

impl From<io::Error> for Trouble {
    fn from(e: io::Error) -> Self {
        Self(e.to_string())
    }
}

impl From<rustix::io::Errno> for Trouble {
    fn from(e: rustix::io::Errno) -> Self {
        Self(io::Error::from(e).to_string())
    }
}

impl From<serde_json::Error> for Trouble {
    fn from(e: serde_json::Error) -> Self {
        Self(e.to_string())
    }
}

impl From<palisade_sandbox::SandboxError> for Trouble {
    fn from(e: palisade_sandbox::SandboxError) -> Self {
        Self(e.to_string())
    }
}

/// Says what was being done.
pub trait While<T> {
    /// `what` is put in front of the error.
    ///
    /// # Errors
    /// The same error, with `what` in front.
    fn doing(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> While<T> for std::result::Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Trouble(format!("{what}: {e}")))
    }
}
