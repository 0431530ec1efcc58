//! Whether a record is as it was written.
//!
//! Everything is looked at that can be known from the file alone: each line is a record, numbered without a gap from
//! 1, and tied to the one before it ([`Chain`]). Whoever can write the file can also write all of it anew, or cut off
//! its end, and no file can show that by itself. For that somebody has to have noted a `chain` elsewhere: everything
//! up to that line is then known to be as it was.

use std::io::{BufRead, Read as _};

use serde::Serialize;

use crate::{Chain, Record, RecordKind, chain::Link};

/// Longest line, in bytes. Those that are written are far shorter.
pub const MAX_LINE: u64 = 1 << 20;

/// A line of the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Its number, from 1.
    pub seq: u64,
    /// When it was written, by the clock of then.
    pub time: String,
}

/// A record that is as it was written, as far as the file and the `chain`s that were asked for show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How many lines it has.
    pub records: u64,
    /// The first one.
    pub first: Option<Place>,
    /// The last one.
    pub last: Option<Place>,
    /// The last one's `chain`: what to note elsewhere.
    pub head: Chain,
    /// Its last line says that it was closed. If not, a host is writing it, was ended or has lost its end.
    pub closed: bool,
    /// Bytes of a line at the end that is not whole: one that is being written, or that a crash has left.
    pub unfinished: u64,
}

/// Why a record is not known to be as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It could not be read.
    #[error("it cannot be read: {0}")]
    Io(String),
    /// A line is not what was written there.
    #[error("line {line}: {fault}")]
    Altered {
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        fault: Fault,
    },
    /// Nothing in it has a `chain` that was noted.
    #[error(
        "no line has the chain {0}, which was noted: the end was cut off, or the record was written anew"
    )]
    Missing(Chain),
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It is longer than [`MAX_LINE`].
    #[error("longer than any record")]
    TooLong,
    /// It is no record.
    #[error("no record")]
    NoRecord,
    /// It has no `chain`.
    #[error("no chain at its end: it was changed, or was written before there were chains")]
    NoChain,
    /// Its number is another one than the line's.
    #[error(
        "it says that it is record {found}, and not {expected}: lines were taken out or put in"
    )]
    Number {
        /// Which number it must have.
        expected: u64,
        /// Which one it has.
        found: u64,
    },
    /// Its `chain` is another one.
    #[error(
        "it does not follow from the one before: one of both was changed, or lines between them were taken out"
    )]
    Chain,
}

/// Reads a record to its end. Each of `noted` must be the `chain` of one of its lines.
///
/// # Errors
/// The first [`VerifyError`]: faults of lines in their order, then what is missing.
pub fn verify(mut record: impl BufRead, noted: &[Chain]) -> Result<Verified, VerifyError> {
    let mut seen = Verified {
        records: 0,
        first: None,
        last: None,
        head: Chain::START,
        closed: false,
        unfinished: 0,
    };
    let mut missing = noted.to_vec();
    missing.retain(|chain| *chain != Chain::START);
    let mut line = Vec::new();
    loop {
        line.clear();
        let expected = seen.records + 1;
        let altered = |fault| VerifyError::Altered { line: expected, fault };
        let read = record
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(|e| VerifyError::Io(e.to_string()))?;
        if line.pop_if(|last| *last == b'\n').is_none() {
            if read as u64 >= MAX_LINE {
                return Err(altered(Fault::TooLong));
            }
            seen.unfinished = read as u64;
            break;
        }
        let found: Record = serde_json::from_slice(&line).map_err(|_| altered(Fault::NoRecord))?;
        let link = Link::parse(&line).ok_or_else(|| altered(Fault::NoChain))?;
        if found.seq != expected {
            return Err(altered(Fault::Number { expected, found: found.seq }));
        }
        if !link.follows(&seen.head) {
            return Err(altered(Fault::Chain));
        }
        missing.retain(|chain| *chain != link.chain);
        let place = Place { seq: found.seq, time: found.time };
        seen.first.get_or_insert_with(|| place.clone());
        seen.last = Some(place);
        (seen.records, seen.head) = (expected, link.chain);
        seen.closed = found.kind == RecordKind::LogClosed;
    }
    match missing.first() {
        Some(chain) => Err(VerifyError::Missing(*chain)),
        None => Ok(seen),
    }
}

#[cfg(test)]
mod tests;
