//! From what was observed to words: which denials matter, and the smallest manifest that would have
//! allowed what happened.
//!
//! Pure: a [`Tally`] collects what an observer is told, [`denials`] says what the walls refused and which
//! grant would change that, [`Draft`] writes a manifest. Nothing here runs, reads or decides anything; what
//! has to be looked up outside the walls is asked of the caller ([`World`]), after the program has ended.
#![forbid(unsafe_code)]

mod draft;
mod explain;
mod fold;
mod noise;
mod tally;
mod yaml;

pub use draft::{Candidate, Draft, Drafted, TODO, is_todo};
pub use explain::{Advice, Denial, World, denials};
pub use fold::{MAX_FILES, Use, fold, uses};
pub use tally::{Entry, MAX_ENTRIES, Seen, Tally};
