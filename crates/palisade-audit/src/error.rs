//! What can go wrong with the record.

use palisade_model::{ErrorCode, Failure};

use crate::verify::Fault;

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
    #[error("{} of this file is not as it was written: {fault}", record(.seq))]
    Altered {
        /// The number that the first of its last lines that does not fit should have, where that is known.
        seq: Option<u64>,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The record was not confirmed in time.
    #[error("the record was not confirmed within {0} ms")]
    Timeout(u64),
    /// The recorder has stopped.
    #[error("the recorder has stopped")]
    Stopped,
}

fn record(seq: &Option<u64>) -> String {
    seq.map_or_else(|| "a record".to_owned(), |seq| format!("record {seq}"))
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
                "move the file away, so that a new one is begun, or name another with --audit; \
                 `palisade audit verify FILE` looks at all of it"
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
