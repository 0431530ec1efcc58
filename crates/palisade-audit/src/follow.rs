//! Whether lines follow from each other: what a host asks of the end of a record, and [`crate::verify()`] of all of it.

use serde::Deserialize;

use crate::{
    Chain,
    chain::{Link, MEMBER},
};

/// Longest line with its line break, in bytes. Those that are written are far shorter.
pub const MAX_LINE: usize = 1 << 20;
/// Highest number of a line: there is always one after it.
const MOST: u64 = u64::MAX >> 1;
/// Longest time of a line.
const MAX_TIME: usize = 64;

/// The last line of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number; 0 where there is none.
    pub seq: u64,
    /// Its `chain`.
    pub chain: Chain,
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, chain: Chain::START }
    }
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
    #[error("no chain at its end: it was changed, or an earlier version wrote it")]
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
    /// It has no line break, and what is there is not the beginning of the next line either.
    #[error("no line break, and not what a crash leaves of a line: something was put at the end")]
    Ending,
}

/// What is read of a line. A later version may have kinds and members that this one does not know.
#[derive(Deserialize)]
pub(crate) struct Seen {
    pub(crate) seq: u64,
    pub(crate) time: String,
    kind: String,
}

impl Seen {
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let seen: Self = serde_json::from_slice(line).ok()?;
        (seen.seq <= MOST && seen.time.len() <= MAX_TIME).then_some(seen)
    }

    /// Whether the record ends with it.
    pub(crate) fn closes(&self) -> bool {
        self.kind == "log-closed"
    }
}

/// The place after a line.
pub(crate) struct Follow {
    /// `None`: nothing is known of the line before.
    before: Option<Head>,
}

impl Follow {
    /// At the beginning of a record.
    pub(crate) fn start() -> Self {
        Self { before: Some(Head::default()) }
    }

    /// In the middle of a record: the first line is taken as it is.
    pub(crate) fn middle() -> Self {
        Self { before: None }
    }

    /// The last line that was looked at; `None` in the middle of a record before the first one.
    pub(crate) fn head(&self) -> Option<Head> {
        self.before
    }

    /// Looks at the next line, which comes without its line break.
    pub(crate) fn next(&mut self, line: &[u8]) -> Result<Seen, Fault> {
        if line.len() >= MAX_LINE {
            return Err(Fault::TooLong);
        }
        let seen = Seen::parse(line).ok_or(Fault::NoRecord)?;
        let link = Link::parse(line).ok_or(Fault::NoChain)?;
        if let Some(before) = &self.before {
            let (expected, found) = (before.seq + 1, seen.seq);
            if found != expected {
                return Err(Fault::Number { expected, found });
            }
            if !link.follows(&before.chain) {
                return Err(Fault::Chain);
            }
        }
        self.before = Some(Head { seq: seen.seq, chain: link.chain });
        Ok(seen)
    }

    /// Looks at what stands behind the last line break: nothing, or as much of the next line as a crash or a writer at
    /// work has left. A file system that lost its power may have left zero bytes.
    pub(crate) fn unfinished(&self, rest: &[u8]) -> Result<(), Fault> {
        if rest.len() >= MAX_LINE {
            return Err(Fault::TooLong);
        }
        let zeros = rest.iter().rev().take_while(|b| **b == 0).count();
        let said = rest.get(..rest.len() - zeros).unwrap_or_default();
        let next = self.before.map_or_else(String::new, |head| (head.seq + 1).to_string());
        let begins =
            format!("{{\"seq\":{next}{}", if next.is_empty() { "" } else { ",\"boot\":\"" });
        let common = said.len().min(begins.len());
        if said.get(..common) != begins.as_bytes().get(..common) {
            return Err(Fault::Ending);
        }
        // Behind a chain there is a line break or nothing.
        let chain = said.windows(MEMBER.len()).position(|w| w == MEMBER);
        let rest = chain.and_then(|at| said.get(at + MEMBER.len()..)).unwrap_or_default();
        let (digits, end) = rest.split_at_checked(Chain::DIGITS).unwrap_or((rest, &[]));
        if digits.iter().all(u8::is_ascii_hexdigit) && b"\"}".starts_with(end) {
            Ok(())
        } else {
            Err(Fault::Ending)
        }
    }
}
