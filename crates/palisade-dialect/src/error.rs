//! What a foreign plugin can do that its dialect does not allow.

use palisade_model::{ErrorCode, Failure};

use crate::LINE_BYTES;

/// Why a conversation in a dialect cannot go on, or a message cannot be written in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialectError {
    /// A line grew beyond [`LINE_BYTES`].
    #[error("a line is longer than {} bytes", LINE_BYTES)]
    TooLong,
    /// More lines that are no answers than are allowed between two answers.
    #[error("more than {limit} lines came between two answers that are no answers")]
    NoiseLines {
        /// The bound.
        limit: u32,
    },
    /// More bytes in lines that are no answers than are allowed between two answers.
    #[error("more than {limit} bytes came between two answers in lines that are no answers")]
    NoiseBytes {
        /// The bound, in bytes.
        limit: u64,
    },
    /// An answer has not the form that the dialect gives it.
    #[error("the answer to {method} {what}")]
    Shape {
        /// What was asked.
        method: &'static str,
        /// What is wrong with the answer, escaped.
        what: String,
    },
    /// The plugin chose a version of the dialect that is not spoken here.
    #[error("the plugin speaks version {chosen}, and {spoken} are spoken here")]
    Version {
        /// What the plugin chose, escaped.
        chosen: String,
        /// What could have been chosen.
        spoken: String,
    },
    /// What is to be sent cannot be said in this dialect.
    #[error("cannot be sent: {0}")]
    Unsendable(&'static str),
}

impl DialectError {
    /// The stable name, for records and tests.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::NoiseLines { .. } => "noise-lines",
            Self::NoiseBytes { .. } => "noise-bytes",
            Self::Shape { .. } => "shape",
            Self::Version { .. } => "version",
            Self::Unsendable(_) => "unsendable",
        }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Unsendable(_) => ErrorCode::InvalidParams,
            _ => ErrorCode::ProtocolBreach,
        }
    }
}

impl From<DialectError> for Failure {
    fn from(error: DialectError) -> Self {
        Failure::new(error.code(), error.to_string()).rule(format!("dialect:{}", error.name()))
    }
}
