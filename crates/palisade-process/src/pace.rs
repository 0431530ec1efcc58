//! Who takes all the processor time that it may gives way to everybody else.
//!
//! The quota bounds how much a plugin gets, not when: within its share it may hold every processor, and a
//! neighbour that wakes up then waits for the scheduler's next turn, some milliseconds at a time. So a
//! plugin that the quota has stopped since the last look
//! - is confined to as many processors as its quota is worth (`processors`), and
//! - gets its time behind others (`cpu.idle`, Linux 5.15): behind the host and the other plugins with
//!   version 1 of cgroups, behind the other plugins with version 2,
//!
//! until the quota has not had to stop it for a while. Who is stopped again soon after is held for longer.
//! Where nobody else wants the time it gets its whole share as before.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{cgroup::Group, processors::Confined};

/// Between two looks.
const PACE: Duration = Duration::from_millis(250);
/// The same for one that has just been started: half a period of the quota.
const FIRST_PACE: Duration = Duration::from_millis(50);
/// How many such looks there are.
const FIRST_LOOKS: u32 = 20;
/// Looks without a stop by the quota after which a plugin is an ordinary one again, at first.
const CALM: u32 = 8;
/// The same at the most, for one that comes back again and again.
const LONGEST_CALM: u32 = 128;

/// What is remembered of one plugin from look to look.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    turns: Turns,
    looks: u32,
    confined: Option<Confined>,
}

#[derive(Debug)]
struct Turns {
    stops: u64,
    /// Looks that are left to it behind the others.
    behind: u32,
    /// How long it will be put there the next time.
    calm: u32,
    /// Looks since it came back.
    free: u32,
}

impl Default for Turns {
    fn default() -> Self {
        Self { stops: 0, behind: 0, calm: CALM, free: LONGEST_CALM }
    }
}

impl Pace {
    /// Looks, and acts; gives the time until the next look. Reads one file of the kernel's, and more only
    /// where it acts.
    pub(crate) fn look(&self, group: &Group) -> Duration {
        let Some(stops) = group.quota_stops() else { return PACE };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.looks = state.looks.saturating_add(1);
        match state.turns.look(stops) {
            Turn::GoBehind => {
                // What cannot be written leaves it where it is; the confinement does not depend on it.
                let _ = group.give_way(true);
                state.confined = group.quota().and_then(Confined::to);
            }
            Turn::ComeBack => {
                let _ = group.give_way(false);
                if let Some(confined) = state.confined.take() {
                    confined.release(|| group.threads());
                }
            }
            Turn::Stay => {}
        }
        // At every look: what it started meanwhile may have slipped through.
        if let Some(confined) = &state.confined {
            confined.hold(|| group.threads());
        }
        if state.looks < FIRST_LOOKS { FIRST_PACE } else { PACE }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Turn {
    GoBehind,
    ComeBack,
    Stay,
}

impl Turns {
    fn look(&mut self, stops: u64) -> Turn {
        let stopped = stops > self.stops;
        self.stops = stops;
        match (self.behind, stopped) {
            (0, false) => {
                self.free = self.free.saturating_add(1);
                Turn::Stay
            }
            (0, true) => {
                let relapse = self.free < self.calm;
                self.calm = if relapse { (self.calm * 2).min(LONGEST_CALM) } else { CALM };
                self.behind = self.calm;
                Turn::GoBehind
            }
            (_, true) => {
                self.behind = self.calm;
                Turn::Stay
            }
            (1, false) => {
                (self.behind, self.free) = (0, 0);
                Turn::ComeBack
            }
            (_, false) => {
                self.behind -= 1;
                Turn::Stay
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks until it comes back, without a stop.
    fn looks_until_back(turns: &mut Turns) -> u32 {
        let stops = turns.stops;
        (1..1000).find(|_| turns.look(stops) == Turn::ComeBack).unwrap()
    }

    #[test]
    fn who_is_stopped_goes_behind_and_comes_back_after_a_calm_time() {
        let mut turns = Turns::default();
        assert_eq!(turns.look(0), Turn::Stay);
        assert_eq!(turns.look(3), Turn::GoBehind);
        assert_eq!(turns.look(4), Turn::Stay, "it is there already");
        assert_eq!(looks_until_back(&mut turns), CALM);
        assert_eq!(turns.look(4), Turn::Stay);
        for _ in 0..CALM {
            turns.look(4);
        }
        assert_eq!(turns.look(5), Turn::GoBehind);
        assert_eq!(looks_until_back(&mut turns), CALM, "it had behaved for long enough");
    }

    #[test]
    fn who_comes_back_to_it_at_once_is_held_for_longer_each_time() {
        let mut turns = Turns::default();
        let mut held = Vec::new();
        for stop in 1..8 {
            assert_eq!(turns.look(stop), Turn::GoBehind);
            held.push(looks_until_back(&mut turns));
        }
        assert_eq!(held, [8, 16, 32, 64, 128, 128, 128]);
    }
}
