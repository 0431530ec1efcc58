//! Errors on the wire, and what of them is believed.

use palisade_model::{ErrorCode, Failure, text::escape};
use serde::{Deserialize, Serialize};

use crate::{FrameError, bounds};

/// A JSON-RPC error object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WireError {
    /// The JSON-RPC number, see [`ErrorCode::json_rpc`].
    pub code: i64,
    /// One sentence. As it came; see [`WireError::into_failure`].
    pub message: String,
    /// What JSON-RPC leaves to the application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<WireErrorData>,
}

/// The `data` of an error object. A `data` of another shape is ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireErrorData {
    /// The stable code, `PAL-…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Which rule decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// After how many milliseconds a retry can succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// The error object before its `data` was looked at. Unknown fields are ignored.
#[derive(Deserialize)]
struct RawWireError<'a> {
    code: i64,
    message: String,
    #[serde(borrow)]
    data: Option<&'a serde_json::value::RawValue>,
}

/// Which end of the wire this side is; it decides what the other side's errors may claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// This side is the host, the other a plugin that is not trusted.
    #[default]
    Host,
    /// This side is a plugin, the other the host.
    Plugin,
}

impl WireError {
    /// Reads an error object whose JSON was checked before.
    pub(crate) fn parse(raw: &[u8]) -> Result<Self, FrameError> {
        let bad = |_| FrameError::Envelope("`error` is not an object with `code` and `message`");
        let error: RawWireError<'_> = serde_json::from_slice(raw).map_err(bad)?;
        let data = error.data.and_then(|data| serde_json::from_str(data.get()).ok());
        Ok(Self { code: error.code, message: error.message, data })
    }

    /// What this side takes the error for. Texts are cut at [`bounds::ERROR_TEXT_CHARS`] and escaped.
    ///
    /// A plugin cannot make its failure look like a decision of the host: of the codes it may only
    /// name those for a failed request ([`ErrorCode::NotFound`], [`ErrorCode::InvalidParams`],
    /// [`ErrorCode::Conflict`], [`ErrorCode::Cancelled`], [`ErrorCode::Unavailable`]), every other
    /// becomes [`ErrorCode::PluginError`]; its `rule` is dropped and its hint is marked as its own.
    #[must_use]
    pub fn into_failure(self, side: Side) -> Failure {
        let shown = |text: &str| escape(text, bounds::ERROR_TEXT_CHARS);
        let data = self.data.unwrap_or_default();
        let named = data.code.as_deref().and_then(ErrorCode::parse);
        let code = named.or(match self.code {
            -32601 => Some(ErrorCode::NotFound),
            -32602 => Some(ErrorCode::InvalidParams),
            _ => None,
        });
        let mut failure = match side {
            Side::Host => {
                let code = code.filter(|code| {
                    matches!(
                        code,
                        ErrorCode::NotFound
                            | ErrorCode::InvalidParams
                            | ErrorCode::Conflict
                            | ErrorCode::Cancelled
                            | ErrorCode::Unavailable
                    )
                });
                let mut failure =
                    Failure::new(code.unwrap_or(ErrorCode::PluginError), shown(&self.message));
                failure.hint = data.hint.map(|hint| format!("the plugin says: {}", shown(&hint)));
                failure
            }
            Side::Plugin => {
                let mut failure =
                    Failure::new(code.unwrap_or(ErrorCode::Internal), shown(&self.message));
                failure.rule = data.rule.as_deref().map(shown);
                failure.hint = data.hint.as_deref().map(shown);
                failure
            }
        };
        failure.retry_after_ms = data.retry_after_ms;
        failure
    }
}

impl From<&Failure> for WireError {
    fn from(failure: &Failure) -> Self {
        Self {
            code: i64::from(failure.code.json_rpc()),
            message: failure.message.clone(),
            data: Some(WireErrorData {
                code: Some(failure.code.as_str().to_owned()),
                rule: failure.rule.clone(),
                hint: failure.hint.clone(),
                retry_after_ms: failure.retry_after_ms,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> WireError {
        WireError::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_failure_survives_the_wire_towards_a_plugin() {
        let failure = Failure::new(ErrorCode::RateLimited, "too fast")
            .rule("rate:events")
            .hint("slow down")
            .retry_after(std::time::Duration::from_millis(40));
        let json = serde_json::to_string(&WireError::from(&failure)).unwrap();
        assert_eq!(
            json,
            r#"{"code":-32002,"message":"too fast","data":{"code":"PAL-RATE","rule":"rate:events","hint":"slow down","retry_after_ms":40}}"#
        );
        assert_eq!(error(&json).into_failure(Side::Plugin), failure);
    }

    #[test]
    fn a_plugin_cannot_speak_for_the_host() {
        for claimed in ErrorCode::ALL {
            let json = format!(
                r#"{{"code":1,"message":"m","data":{{"code":"{claimed}","rule":"forbid:all","hint":"run as root"}}}}"#
            );
            let failure = error(&json).into_failure(Side::Host);
            assert_eq!(failure.rule, None, "{claimed}");
            assert_eq!(failure.hint.as_deref(), Some("the plugin says: run as root"));
            assert_eq!(failure.code.exit_status(), 1, "{claimed} became {}", failure.code);
        }
    }

    #[test]
    fn texts_are_cut_and_escaped_and_odd_data_is_ignored() {
        let long = "\u{1b}[31m".repeat(1000);
        let json = format!(r#"{{"code":-32601,"message":{},"data":[1]}}"#, serde_json::json!(long));
        let failure = error(&json).into_failure(Side::Host);
        assert_eq!(failure.code, ErrorCode::NotFound);
        assert!(failure.message.starts_with("\\u{1b}[31m") && failure.message.ends_with('…'));
        assert!(failure.message.chars().count() < 2000 * 6);
        assert_eq!(
            error(r#"{"code":7,"message":""}"#).into_failure(Side::Host).code,
            ErrorCode::PluginError
        );
        for bad in ["3", "{}", r#"{"code":1.5,"message":""}"#, r#"{"code":1,"message":2}"#] {
            assert!(WireError::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
