//! Acts that are alike, counted where they happen.
//!
//! A record of its own costs more than a short act does. While there are few, each act has one; once
//! there are many of a kind within a second, the rest of them is counted by whoever acts, and the
//! recorder writes how many there were. Nothing here decides what is alike: the gate does.

use std::time::Instant;

/// Counts acts of which a record would say the same but for payload and time.
///
/// Made by [`crate::Recorder::tally`]. Whoever acts calls [`Tally::begin`] first, and where that counted
/// the act, exactly one of the others when it has ended.
pub trait Tally: Send + Sync {
    /// Counts an act that is about to happen. `false`: it was not counted, and is to be recorded as any
    /// other is.
    fn begin(&self, now: Instant) -> bool;

    /// A counted act was done.
    fn done(&self);

    /// A counted act was not done. How it ended stands in a record of its own.
    fn failed(&self);
}
