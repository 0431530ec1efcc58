//! Whether a record is as it was written.
//!
//! Everything is looked at that can be known from the file alone: each line is a record, numbered without a gap from
//! 1, and tied to the one before it ([`Chain`]). Whoever can write the file can also write all of it anew from some
//! line on, cut off its end or go on with it, and no file can show that by itself. For that somebody has to have noted
//! a `chain` elsewhere: everything up to that line is then known to be as it was.

use std::io::{BufRead, Read as _};

use serde::Serialize;

pub use crate::follow::{Fault, MAX_LINE};
use crate::{
    Chain,
    follow::{Follow, Head},
};

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

/// Reads a record to its end. Each of `noted` must be the `chain` of one of its lines, or [`Chain::START`], which every
/// record begins with.
///
/// # Errors
/// The first [`VerifyError`]: faults of lines in their order, then what is missing.
pub fn verify(mut record: impl BufRead, noted: &[Chain]) -> Result<Verified, VerifyError> {
    let mut follow = Follow::start();
    let (mut first, mut last, mut closed) = (None, None, false);
    let mut missing = noted.to_vec();
    missing.retain(|chain| *chain != Chain::START);
    let mut line = Vec::new();
    let unfinished = loop {
        let head = follow.head().unwrap_or_default();
        let altered = |fault| VerifyError::Altered { line: head.seq + 1, fault };
        line.clear();
        let read = record.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line);
        let read = read.map_err(|e| VerifyError::Io(e.to_string()))?;
        if line.pop_if(|last| *last == b'\n').is_none() {
            follow.unfinished(&line).map_err(altered)?;
            break read as u64;
        }
        let seen = follow.next(&line).map_err(altered)?;
        missing.retain(|chain| follow.head().is_none_or(|head| head.chain != *chain));
        closed = seen.closes();
        let place = Place { seq: seen.seq, time: seen.time };
        first.get_or_insert_with(|| place.clone());
        last = Some(place);
    };
    let Head { seq: records, chain: head } = follow.head().unwrap_or_default();
    match missing.first() {
        Some(chain) => Err(VerifyError::Missing(*chain)),
        None => Ok(Verified { records, first, last, head, closed, unfinished }),
    }
}

#[cfg(test)]
mod tests;
