//! Stable error codes.
//!
//! Every error that crosses a room's wall carries one of these. The text form (`PAL-…`) is what logs,
//! `--json` and the wire show; it never changes meaning once released. What a code says about the
//! `palisade` command's exit status is decided here too, so that no two transports disagree.

use serde::{Deserialize, Serialize};

/// Why something failed, in a form that programs may match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request is not covered by an effective grant, or a rule forbids it.
    #[serde(rename = "PAL-DENIED")]
    Denied,
    /// A rate was exceeded; the error says after how long a retry can succeed.
    #[serde(rename = "PAL-RATE")]
    RateLimited,
    /// There is no such tool, method, service, plugin or file.
    #[serde(rename = "PAL-NOT-FOUND")]
    NotFound,
    /// The parameters do not fit the method's schema.
    #[serde(rename = "PAL-PARAMS")]
    InvalidParams,
    /// The caller used the command or the library in a way that cannot work.
    #[serde(rename = "PAL-USAGE")]
    Usage,
    /// The manifest is missing, unreadable or not valid.
    #[serde(rename = "PAL-MANIFEST")]
    ManifestInvalid,
    /// Two things claim the same name, or a state change does not fit the current state.
    #[serde(rename = "PAL-CONFLICT")]
    Conflict,
    /// A deadline passed.
    #[serde(rename = "PAL-DEADLINE")]
    Deadline,
    /// The caller gave up.
    #[serde(rename = "PAL-CANCELLED")]
    Cancelled,
    /// A limit on memory, processes, disk, size or volume was hit.
    #[serde(rename = "PAL-LIMIT")]
    LimitExceeded,
    /// The plugin answered with an error of its own.
    #[serde(rename = "PAL-PLUGIN")]
    PluginError,
    /// The plugin broke the protocol and was ended for it.
    #[serde(rename = "PAL-PROTOCOL")]
    ProtocolBreach,
    /// The plugin ended by a signal, or without being asked to.
    #[serde(rename = "PAL-CRASHED")]
    Crashed,
    /// The plugin did something that its walls answer with death (a forbidden system call).
    #[serde(rename = "PAL-POLICY-KILL")]
    PolicyKill,
    /// No backend on this machine covers the demand.
    #[serde(rename = "PAL-NO-BACKEND")]
    NoBackend,
    /// The record could not be written, and without a record the act is not allowed.
    #[serde(rename = "PAL-RECORD")]
    RecordFailed,
    /// A part that is needed is not running or not reachable now.
    #[serde(rename = "PAL-UNAVAILABLE")]
    Unavailable,
    /// An error of the host or the machine that is nobody's request.
    #[serde(rename = "PAL-INTERNAL")]
    Internal,
}

impl ErrorCode {
    /// Every code, for documentation and tests.
    pub const ALL: [ErrorCode; 18] = [
        Self::Denied,
        Self::RateLimited,
        Self::NotFound,
        Self::InvalidParams,
        Self::Usage,
        Self::ManifestInvalid,
        Self::Conflict,
        Self::Deadline,
        Self::Cancelled,
        Self::LimitExceeded,
        Self::PluginError,
        Self::ProtocolBreach,
        Self::Crashed,
        Self::PolicyKill,
        Self::NoBackend,
        Self::RecordFailed,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The stable text, `PAL-…`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "PAL-DENIED",
            Self::RateLimited => "PAL-RATE",
            Self::NotFound => "PAL-NOT-FOUND",
            Self::InvalidParams => "PAL-PARAMS",
            Self::Usage => "PAL-USAGE",
            Self::ManifestInvalid => "PAL-MANIFEST",
            Self::Conflict => "PAL-CONFLICT",
            Self::Deadline => "PAL-DEADLINE",
            Self::Cancelled => "PAL-CANCELLED",
            Self::LimitExceeded => "PAL-LIMIT",
            Self::PluginError => "PAL-PLUGIN",
            Self::ProtocolBreach => "PAL-PROTOCOL",
            Self::Crashed => "PAL-CRASHED",
            Self::PolicyKill => "PAL-POLICY-KILL",
            Self::NoBackend => "PAL-NO-BACKEND",
            Self::RecordFailed => "PAL-RECORD",
            Self::Unavailable => "PAL-UNAVAILABLE",
            Self::Internal => "PAL-INTERNAL",
        }
    }

    /// The code with this stable text, if there is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == text)
    }

    /// The JSON-RPC 2.0 error number used on the wire (section 5.1 of the specification reserves
    /// -32768..=-32000; the server-defined part is -32099..=-32000).
    #[must_use]
    pub const fn json_rpc(self) -> i32 {
        match self {
            Self::NotFound => -32601,
            Self::InvalidParams | Self::Usage | Self::ManifestInvalid => -32602,
            Self::Internal => -32603,
            Self::Denied => -32001,
            Self::RateLimited => -32002,
            Self::Conflict => -32003,
            Self::Deadline => -32004,
            Self::Cancelled => -32005,
            Self::LimitExceeded => -32006,
            Self::PluginError => -32007,
            Self::ProtocolBreach => -32008,
            Self::Crashed => -32009,
            Self::PolicyKill => -32010,
            Self::NoBackend => -32011,
            Self::RecordFailed => -32012,
            Self::Unavailable => -32013,
        }
    }

    /// The exit status of the `palisade` command for this code (see docs/reference/cli.md).
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::PluginError
            | Self::NotFound
            | Self::InvalidParams
            | Self::Conflict
            | Self::Cancelled
            | Self::Unavailable
            | Self::Internal => 1,
            Self::Usage | Self::ManifestInvalid => 2,
            Self::Denied | Self::RateLimited | Self::RecordFailed => 3,
            Self::NoBackend => 4,
            Self::Deadline | Self::LimitExceeded | Self::PolicyKill => 5,
            Self::Crashed | Self::ProtocolBreach => 6,
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn text_serde_and_parse_agree_and_are_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ErrorCode::ALL {
            assert!(seen.insert(code.as_str()), "{code} stands twice");
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{code}\""));
            assert!((1..=6).contains(&code.exit_status()), "{code}");
        }
    }
}
