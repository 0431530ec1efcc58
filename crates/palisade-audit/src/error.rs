//! What can go wrong with the record.

use palisade_model::{ErrorCode, Failure};

/// An error of a recorder. Its code is always [`ErrorCode::RecordFailed`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A step on the file failed.
    #[error("{step}: {why}")]
    Io {
        /// Which step.
        step: &'static str,
        /// The machine's answer.
        why: String,
    },
    /// Another process writes this file.
    #[error("another process is writing this record")]
    InUse,
    /// The file holds something that is not a record.
    #[error("the file is not a record of Palisade's and is left as it is")]
    NotARecord,
    /// Its last lines do not follow from each other (see [`mod@crate::verify`]).
    #[error("the record was changed after it was written{}", record(.seq))]
    Altered {
        /// The number of the first of its last lines that does not fit, where it has one.
        seq: Option<u64>,
    },
    /// The record was not confirmed in time.
    #[error("the record was not confirmed within {0} ms")]
    Timeout(u64),
    /// The recorder has stopped.
    #[error("the recorder has stopped")]
    Stopped,
}

fn record(seq: &Option<u64>) -> String {
    seq.map_or_else(String::new, |seq| {
        format!(" (record {seq} does not follow from the one before)")
    })
}

impl RecordError {
    pub(crate) fn io(step: &'static str, error: &std::io::Error) -> Self {
        Self::Io { step, why: error.to_string() }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        ErrorCode::RecordFailed
    }
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Failure {
        let hint = match &error {
            RecordError::Io { .. } | RecordError::Timeout(_) => {
                "free space on the disk that holds the record, or name another file with --audit"
            }
            RecordError::InUse | RecordError::NotARecord => "name another file with --audit",
            RecordError::Altered { .. } => {
                "keep the file, name another with --audit, and see `palisade audit verify FILE`"
            }
            RecordError::Stopped => "start the host again",
        };
        Failure::new(
            error.code(),
            format!("the act could not be recorded, so it was not done: {error}"),
        )
        .hint(hint)
    }
}
