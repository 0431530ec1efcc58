//! Calls that are alike: what was decided about them, and their count in the record.
//!
//! The same owner calls the same tool of the same running plugin again and again. Rules do not change
//! under a decision, so that what they said stays right until the plugin's rules are replaced; then it is
//! decided anew. Rates are no part of this: they are taken at each call.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use palisade_audit::{Act, Recorder, Tally};
use palisade_model::Principal;

use crate::Caller;

/// See the module. Belongs to one tool of one running plugin, and is empty before the first call.
#[derive(Default)]
pub struct Routine {
    kept: OnceLock<Option<Kept>>,
}

struct Kept {
    caller: Arc<Principal>,
    target: Arc<Principal>,
    rule: String,
    /// Of the target's rules, when they were last found to allow it by this rule.
    version: AtomicU64,
    tally: Box<dyn Tally>,
}

/// An act that was counted, and has not ended.
pub(crate) struct Counted<'a> {
    tally: &'a dyn Tally,
    /// By which it is allowed.
    pub(crate) rule: &'a str,
}

impl Counted<'_> {
    pub(crate) fn done(self) {
        self.tally.done();
    }

    pub(crate) fn failed(self) {
        self.tally.failed();
    }
}

impl Routine {
    /// Counts an act that is about to happen, if it is known to be allowed and one of many.
    pub(crate) fn count(
        &self,
        caller: &Caller,
        target: &Caller,
        now: Instant,
    ) -> Option<Counted<'_>> {
        let kept = self.kept.get()?.as_ref()?;
        let known = Arc::ptr_eq(&kept.caller, caller.principal())
            && Arc::ptr_eq(&kept.target, target.principal())
            && kept.version.load(Ordering::Acquire) == target.version();
        if !known || !kept.tally.begin(now) {
            return None;
        }
        Some(Counted { tally: &*kept.tally, rule: &kept.rule })
    }

    /// Keeps that `target`'s rules allow it in this version by `rule`. `act` is what the record says
    /// about each such act.
    pub(crate) fn keep(
        &self,
        caller: &Caller,
        target: &Caller,
        version: u64,
        rule: &str,
        recorder: &dyn Recorder,
        act: impl FnOnce() -> Act,
    ) {
        if !caller.is_owner() {
            return;
        }
        let kept = self.kept.get_or_init(|| {
            let tally = recorder.tally(&act())?;
            let version = AtomicU64::new(version);
            let caller = Arc::clone(caller.principal());
            let target = Arc::clone(target.principal());
            Some(Kept { caller, target, rule: rule.to_owned(), version, tally })
        });
        // Another rule would need another count; such calls are recorded one by one. A version says
        // something about this target's rules only.
        if let Some(kept) = kept
            && kept.rule == rule
            && Arc::ptr_eq(&kept.target, target.principal())
        {
            kept.version.fetch_max(version, Ordering::AcqRel);
        }
    }
}
