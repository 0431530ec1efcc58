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

/// Texts and numbers. Of several texts with one number the first stands for it.
const NUMBERS: [(&str, i64); 18] = [
    ("PAL-NOT-FOUND", -32601),
    ("PAL-PARAMS", -32602),
    ("PAL-USAGE", -32602),
    ("PAL-MANIFEST", -32602),
    ("PAL-INTERNAL", -32603),
    ("PAL-DENIED", -32001),
    ("PAL-RATE", -32002),
    ("PAL-CONFLICT", -32003),
    ("PAL-DEADLINE", -32004),
    ("PAL-CANCELLED", -32005),
    ("PAL-LIMIT", -32006),
    ("PAL-PLUGIN", -32007),
    ("PAL-PROTOCOL", -32008),
    ("PAL-CRASHED", -32009),
    ("PAL-POLICY-KILL", -32010),
    ("PAL-NO-BACKEND", -32011),
    ("PAL-RECORD", -32012),
    ("PAL-UNAVAILABLE", -32013),
];

/// The number of a code of the plugin's own.
const OWN_NUMBER: i64 = -32000;

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

    pub(crate) fn closed() -> Self {
        Self::new("PAL-UNAVAILABLE", "the connection with the host is closed")
    }

    /// The JSON-RPC error object.
    pub(crate) fn to_wire(&self) -> String {
        let number = NUMBERS.iter().find(|(code, _)| *code == self.code);
        let wire = WireError {
            code: number.map_or(OWN_NUMBER, |(_, number)| *number),
            message: cut(&self.message),
            data: WireData {
                code: &self.code,
                rule: self.rule.as_deref().map(cut),
                hint: self.hint.as_deref().map(cut),
                retry_after_ms: self
                    .retry_after
                    .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            },
        };
        serde_json::to_string(&wire)
            .unwrap_or_else(|_| r#"{"code":-32007,"message":""}"#.to_owned())
    }

    /// Reads an error object; what has another shape than it should is left out.
    pub(crate) fn from_wire(text: &str) -> Self {
        let error: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let word = |value: Option<&serde_json::Value>| {
            value.and_then(serde_json::Value::as_str).map(str::to_owned)
        };
        let data = error.get("data");
        let of_data = |name: &str| data.and_then(|data| data.get(name));
        let number = error.get("code").and_then(serde_json::Value::as_i64);
        let by_number = NUMBERS.iter().find(|(_, n)| Some(*n) == number).map(|(code, _)| *code);
        Self {
            code: word(of_data("code"))
                .unwrap_or_else(|| by_number.unwrap_or("PAL-INTERNAL").to_owned()),
            message: word(error.get("message")).unwrap_or_default(),
            rule: word(of_data("rule")),
            hint: word(of_data("hint")),
            retry_after: of_data("retry_after_ms")
                .and_then(serde_json::Value::as_f64)
                .and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok()),
        }
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

#[derive(Serialize)]
struct WireError<'a> {
    code: i64,
    message: &'a str,
    data: WireData<'a>,
}

#[derive(Serialize)]
struct WireData<'a> {
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
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
    fn an_error_survives_the_wire() {
        let error = PalisadeError::new("PAL-RATE", "slow down")
            .rule("rate")
            .hint("wait")
            .retry_after(Duration::from_millis(250));
        assert_eq!(
            error.to_wire(),
            r#"{"code":-32002,"message":"slow down","data":{"code":"PAL-RATE","rule":"rate","hint":"wait","retry_after_ms":250}}"#
        );
        assert_eq!(PalisadeError::from_wire(&error.to_wire()), error);
    }

    #[test]
    fn what_has_another_shape_is_left_out() {
        let read = PalisadeError::from_wire;
        assert_eq!(read(r#"{"code":-32601,"message":"m"}"#), PalisadeError::not_found("m"));
        assert_eq!(read(r#"{"code":7,"message":"m","data":"x"}"#).code, "PAL-INTERNAL");
        assert_eq!(read("[]"), PalisadeError::new("PAL-INTERNAL", ""));
        let odd = read(r#"{"message":1,"data":{"code":2,"hint":[],"retry_after_ms":-1}}"#);
        assert_eq!(odd, PalisadeError::new("PAL-INTERNAL", ""));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "ä".repeat(5000);
        let error = PalisadeError::new("MINE", long.as_str()).hint(long);
        let back = PalisadeError::from_wire(&error.to_wire());
        assert_eq!(back.message, "ä".repeat(2000));
        assert_eq!(back.hint, Some("ä".repeat(2000)));
        assert!(error.to_wire().starts_with(r#"{"code":-32000,"#));
    }

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
