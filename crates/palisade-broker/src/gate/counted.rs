//! Acts that are counted instead of recorded one by one: the same order of decision, rate, effect and
//! outcome, without a record to build.

use palisade_audit::Decision;
use palisade_model::{ErrorCode, Failure};

use super::{Action, Gate};
use crate::{Caller, routine::Counted};

impl Gate {
    /// The way in for an act that is counted ([`Action::routine`]): decided, and its rate taken. `None`: it
    /// is not counted, and [`Gate::run_recorded`] is the way.
    ///
    /// # Errors
    /// [`ErrorCode::RateLimited`].
    pub fn counted<'g>(
        &'g self,
        caller: &'g Caller,
        action: &'g Action<'g>,
    ) -> Option<Result<Open<'g>, Failure>> {
        let ((routine, now), target) = (action.routine?, action.towards?);
        // A trace ties one act to others.
        if action.trace.is_some() {
            return None;
        }
        let counted = routine.count(caller, target, now)?;
        let mut open = Open { gate: self, caller, action, counted: Some(counted) };
        if let Err(failure) = super::rate(caller, action) {
            open.close();
            return Some(Err(self.over_rate(caller, action, failure)));
        }
        Some(Ok(open))
    }
}

/// A counted act that is under way. Dropping it records that it was given up.
#[must_use = "dropping it records that the act was cancelled"]
pub struct Open<'g> {
    gate: &'g Gate,
    caller: &'g Caller,
    action: &'g Action<'g>,
    counted: Option<Counted<'g>>,
}

impl Open<'_> {
    /// It has ended so. That it was done is counted; a failure has a record of its own.
    pub fn end<T>(mut self, result: &Result<T, Failure>) {
        match result {
            Ok(_) => {
                if let Some(counted) = self.counted.take() {
                    counted.done();
                }
            }
            Err(failure) => self.failed(failure.code, super::own_words(failure)),
        }
    }

    /// It did not begin.
    fn close(&mut self) {
        if let Some(counted) = self.counted.take() {
            counted.failed();
        }
    }

    #[cold]
    fn failed(&mut self, code: ErrorCode, detail: Option<&str>) {
        let Some(counted) = self.counted.take() else { return };
        let rule = Some(counted.rule.to_owned());
        let mut act = self.action.act(self.caller).decision(Decision::Allow, rule).coalesce();
        if let Some(detail) = detail {
            act = act.detail(detail);
        }
        self.gate.recorder.note(act, Some(code));
        counted.failed();
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.counted.is_none() {
            return;
        }
        if std::thread::panicking() {
            self.failed(ErrorCode::Internal, Some("the effect panicked"));
        } else {
            self.failed(ErrorCode::Cancelled, None);
        }
    }
}

#[cfg(test)]
mod tests;
