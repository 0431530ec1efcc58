//! What can go wrong with pins. The relay itself ends with an [`crate::Ended`].

use std::path::PathBuf;

use palisade_model::{ErrorCode, Failure};

/// Why pins could not be read or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum McpError {
    /// The file system refused.
    #[error("the pins {}: {source}", palisade_model::text::escape(&.path.to_string_lossy(), 400))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not what Palisade writes.
    #[error("the pins {} cannot be read: {what}", palisade_model::text::escape(&.path.to_string_lossy(), 400))]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// No pin, and no change that waits, has this name.
    #[error("there is nothing named {0} to accept or forget")]
    NoSuchPin(String),
}

impl McpError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Io { .. } => ErrorCode::Unavailable,
            Self::Corrupt { .. } => ErrorCode::Internal,
            Self::NoSuchPin(_) => ErrorCode::NotFound,
        }
    }
}

impl From<McpError> for Failure {
    fn from(error: McpError) -> Self {
        let failure = Failure::new(error.code(), error.to_string());
        match error {
            McpError::Corrupt { .. } => failure
                .hint("look at the file; without it every tool is pinned anew at first sight"),
            McpError::NoSuchPin(_) => failure.hint("palisade mcp pins lists what there is"),
            McpError::Io { .. } => failure,
        }
    }
}
