//! What can be wrong with a policy, and with limits measured against it.

use palisade_model::{ErrorCode, Failure, text::escape};

use crate::Excess;

/// Why a policy text, or limits under a policy, are refused. Lines and columns count from 1, columns in
/// characters.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Longer than [`crate::MAX_POLICY_LEN`].
    #[error("a policy has at most {} bytes, this one has {len}", crate::MAX_POLICY_LEN)]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not TOML.
    #[error("policy, line {line}, column {column}: not valid TOML: {message}")]
    Syntax {
        /// Line of the first thing that does not fit.
        line: usize,
        /// Column there.
        column: usize,
        /// The TOML parser's words, escaped.
        message: String,
    },
    /// A key that has no meaning here. Refused, since a misspelt rule would be no rule.
    #[error("policy, line {line}, column {column}: unknown key {given:?} {place}{}", did_you_mean(.nearest))]
    UnknownKey {
        /// Line of the key.
        line: usize,
        /// Column of the key.
        column: usize,
        /// The key, escaped.
        given: String,
        /// Where it stands, in words.
        place: &'static str,
        /// The known key with the nearest name, if one is near.
        nearest: Option<&'static str>,
    },
    /// A value that does not fit its key.
    #[error("policy, line {line}, column {column}: {key}: {why}")]
    BadValue {
        /// Line of the value.
        line: usize,
        /// Column of the value.
        column: usize,
        /// The key, with its table.
        key: String,
        /// What does not fit.
        why: String,
    },
    /// A manifest asks for more than the operator's ceilings.
    #[error("asks for more than the operator's policy allows: {}", listed(.0))]
    OverCeiling(Vec<Excess>),
}

fn did_you_mean(nearest: &Option<&'static str>) -> String {
    nearest.map(|n| format!("; did you mean {n:?}?")).unwrap_or_default()
}

fn listed(excesses: &[Excess]) -> String {
    excesses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl PolicyError {
    /// The stable code: `PAL-USAGE` for a policy that cannot be read, `PAL-DENIED` for limits above the
    /// operator's ceilings.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::OverCeiling(_) => ErrorCode::Denied,
            _ => ErrorCode::Usage,
        }
    }
}

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        let failure = Failure::new(error.code(), escape(&error.to_string(), 2000));
        match &error {
            PolicyError::OverCeiling(excesses) => failure
                .rule(
                    excesses
                        .iter()
                        .map(|e| format!("max.{} = {}", e.key, e.ceiling))
                        .collect::<Vec<_>>()
                        .join(", "),
                )
                .hint("ask for less in the manifest's resources, or raise 'max' in the operator's policy"),
            _ => failure.hint("docs/reference/policy.md lists the keys and their values"),
        }
    }
}
