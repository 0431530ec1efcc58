//! Who takes all the processor time that it may gives way to the other plugins.
//!
//! The quota bounds how much a plugin gets, not when: within its share it may hold every processor, and a
//! neighbour that wakes up then waits for the scheduler's next turn, some milliseconds at a time. So a
//! plugin that the quota has stopped since the last look gets its time behind others (`cpu.idle`, Linux
//! 5.15), until it has kept within its share for a while: behind the host and the other plugins with
//! version 1 of cgroups, behind the other plugins with version 2. Where nobody else wants the time it gets
//! its whole share as before.

use std::sync::{Mutex, PoisonError};

use crate::cgroup::Group;

/// Looks without a stop by the quota after which a plugin is an ordinary one again.
const CALM: u32 = 8;

/// What is remembered of one plugin from look to look.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    stops: u64,
    /// Looks that are left to it behind the others.
    behind: u32,
}

impl Pace {
    /// Looks, and acts. Reads one file of the kernel's, and seldom writes one.
    pub(crate) fn look(&self, group: &Group) {
        let Some(stops) = group.quota_stops() else { return };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.turn(stops) {
            Some(behind) if group.give_way(behind).is_err() => state.behind = 0,
            _ => {}
        }
    }
}

impl State {
    /// What has to change: true to put it behind the others.
    fn turn(&mut self, stops: u64) -> Option<bool> {
        let before = self.behind;
        let stopped = stops > self.stops;
        self.stops = stops;
        self.behind = if stopped { CALM } else { before.saturating_sub(1) };
        ((before == 0) != (self.behind == 0)).then_some(self.behind > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_stopped_goes_behind_and_comes_back_after_a_calm_time() {
        let mut state = State::default();
        assert_eq!(state.turn(0), None);
        assert_eq!(state.turn(3), Some(true));
        assert_eq!(state.turn(4), None, "it is there already");
        for _ in 1..CALM {
            assert_eq!(state.turn(4), None);
        }
        assert_eq!(state.turn(4), Some(false));
        assert_eq!(state.turn(4), None);
        assert_eq!(state.turn(5), Some(true));
    }
}
