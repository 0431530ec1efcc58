//! Which method comes first, and what its answer means.

use palisade_model::{ErrorCode, Failure};

use super::{INIT, INITIALIZE, InitMethod};

/// The beginning of a conversation: sends one or two methods until the plugin takes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    method: &'static str,
    may_retry: bool,
}

/// What to do after the plugin answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The plugin is ready.
    Ready,
    /// Send [`Handshake::method`], which is another one now.
    Again,
    /// The plugin refuses to start.
    Failed(Failure),
}

impl Handshake {
    pub(super) fn new(init: InitMethod) -> Self {
        Self {
            method: if init == InitMethod::Init { INIT } else { INITIALIZE },
            may_retry: init == InitMethod::Auto,
        }
    }

    /// The method to send.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// Takes the answer to [`Handshake::method`].
    pub fn answered<T>(&mut self, outcome: &Result<T, Failure>) -> Step {
        match outcome {
            Ok(_) => Step::Ready,
            Err(failure) if self.may_retry && failure.code == ErrorCode::NotFound => {
                self.method = INIT;
                self.may_retry = false;
                Step::Again
            }
            Err(failure) => Step::Failed(failure.clone()),
        }
    }
}

/// Whether an error text says that the plugin does not know the method. There is no standard for the
/// words, so this knows the usual ones; the only thing that hangs on it is whether `init` is tried.
#[must_use]
pub fn is_unknown_method(text: &str) -> bool {
    let text: String = text.chars().take(200).collect::<String>().to_lowercase();
    let unknown = ["unknown", "not found", "unsupported", "not supported", "no such", "invalid"];
    let unknown = unknown.iter().any(|word| text.contains(word));
    let named = ["method", "command", "request"].iter().any(|word| text.contains(word));
    (unknown && named) || text.contains("not implemented") || text.contains("unrecognized")
}
