//! What a foreign plugin can do that its dialect does not allow.

use palisade_model::{ErrorCode, Failure};

use crate::jsonl;

/// Why a conversation in a dialect cannot go on, or a message cannot be written in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialectError {
    /// A line grew beyond [`jsonl::LINE_BYTES`].
    #[error("a line is longer than {} bytes", jsonl::LINE_BYTES)]
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
