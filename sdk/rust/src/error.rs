//! Errors as they stand on the wire: a stable text, a number, one sentence.

use std::{error::Error, fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// What a handler fails with. Any error becomes one with `?`, and `"some text".into()` is one too.
///
/// A [`PalisadeError`] is answered as it is, a [`Veto`] refuses in a hook, and any other error is
/// answered as `PAL-PLUGIN` and goes to the log.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What handlers give.
pub type Result<T, E = BoxError> = std::result::Result<T, E>;

/// The host cuts at so many characters; a longer text would only cost room.
pub(crate) const MAX_TEXT: usize = 2000;

/// A request failed. Requests to the host give it; return it from a handler to answer with it.
///
/// Match on `code`, never on `message`. Of a plugin's errors the host believes `PAL-NOT-FOUND`,
/// `PAL-PARAMS`, `PAL-CONFLICT`, `PAL-CANCELLED` and `PAL-UNAVAILABLE`; any other counts as `PAL-PLUGIN`.
///
/// ```
/// use palisade_plugin::PalisadeError;
///
/// let error = PalisadeError::new("PAL-CONFLICT", "there is one of that name").hint("choose another");
/// assert_eq!(error.to_string(), "PAL-CONFLICT: there is one of that name (choose another)");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PalisadeError {
    /// The stable text, as `PAL-DENIED`.
    pub code: String,
    /// One sentence for people.
    pub message: String,
    /// What decided. The host drops it from a plugin's own errors.
    pub rule: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// After how long a retry can succeed.
    pub retry_after: Option<Duration>,
}

impl PalisadeError {
    /// An error with a code and a sentence.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        let (code, message) = (code.into(), message.into());
        Self { code, message, rule: None, hint: None, retry_after: None }
    }

    /// With what decided.
    #[must_use]
    pub fn rule(mut self, rule: impl Into<String>) -> Self {
        self.rule = Some(rule.into());
        self
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the time after which a retry can succeed; sent in milliseconds.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub(crate) fn params(message: impl Into<String>) -> Self {
        Self::new("PAL-PARAMS", message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new("PAL-NOT-FOUND", message)
    }

    pub(crate) fn cancelled() -> Self {
        Self::new("PAL-CANCELLED", "cancelled")
    }

    /// What a failed handler is answered with.
    pub(crate) fn of_handler(error: BoxError) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(own) => return *own,
            Err(other) => other,
        };
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::new("PAL-PLUGIN", message)
    }
}

/// At most [`MAX_TEXT`] characters.
pub(crate) fn cut(text: &str) -> &str {
    text.char_indices().nth(MAX_TEXT).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

impl fmt::Display for PalisadeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

impl Error for PalisadeError {}

/// Returned from a hook: what the hook is about shall not happen. The reason is shown to people.
///
/// ```
/// use palisade_plugin::{Result, Veto};
///
/// fn moderate(text: &str) -> Result<()> {
///     if text == "spam" { Err(Veto::new("spam is not welcome").into()) } else { Ok(()) }
/// }
/// assert_eq!(moderate("spam").unwrap_err().to_string(), "spam is not welcome");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Veto {
    /// Why, for people.
    pub reason: String,
}

impl Veto {
    /// A refusal and why.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl fmt::Display for Veto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Error for Veto {}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told() {
        #[derive(Debug)]
        struct Outer(std::num::ParseIntError);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("no number")
            }
        }
        impl Error for Outer {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }
        let error = PalisadeError::of_handler(Box::new(Outer("x".parse::<i32>().unwrap_err())));
        assert_eq!(error.code, "PAL-PLUGIN");
        assert_eq!(error.message, "no number: invalid digit found in string");
    }
}
