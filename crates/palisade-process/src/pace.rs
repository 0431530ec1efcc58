//! Who takes all the processor time that it may gives way to everybody else.
//!
//! The quota bounds how much a plugin gets, not when: within its share it may hold every processor, and a
//! neighbour that wakes up then waits for the scheduler's next turn, some milliseconds at a time. So a
//! plugin that the quota has stopped since the last look
//! - is confined to as many processors as its quota is worth (`processors`), and
//! - gets its time behind others (`cpu.idle`, Linux 5.15): behind the host and the other plugins with
//!   version 1 of cgroups, behind the other plugins with version 2,
//!
//! until the quota has not had to stop it for a while. Who is stopped again soon after is held for longer. While
//! it is new it is looked at more often, and the while is as long.
//! Where nobody else wants the time it gets its whole share as before.
//!
//! One that takes most of its quota without ever being stopped, as a single thread does, is confined too, but not
//! put behind: it weighs little there (`cpu.shares`, `cpu.weight`). Who wakes up beside it twice in a row has had
//! more than its share the second time, and kernels that look again only with the next tick let it wait for that;
//! against a light one the share is hardly used up. A processor with a light one at work still counts as taken.
//! Version 2 weighs plugins against each other and not against the host. There, as long as it has no more threads
//! than processors, a light one runs in long slices too (`slice.rs`), so that whoever wakes up goes first.
//!
//! A plugin that a limit has ended counts as one that was stopped, and an end wipes nothing out: started again
//! soon after, it begins confined. Otherwise one that is started again and again would never be at it for long
//! enough to be stopped, and taking down what it had held costs the kernel as much as it did. That is done within
//! the kernel, which many kernels do not interrupt; and a processor with nothing but such a group at work counts
//! as free when somebody wakes up. So one that begins confined gets its time behind others only when the quota
//! stops it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use palisade_model::PluginRef;

use crate::{
    cgroup::{Group, Standing},
    processors::Confined,
    slice::Slice,
};

/// Between two looks.
const PACE: Duration = Duration::from_millis(250);
/// The same for one that has just been started: half a period of the quota.
const FIRST_PACE: Duration = Duration::from_millis(50);
/// How many such looks there are.
const FIRST_LOOKS: u32 = 20;
/// For how many [`PACE`]s without a stop by the quota it is held, until it is an ordinary one again; at first.
const CALM: u32 = 8;
/// The same at the most, for one that comes back again and again.
const LONGEST_CALM: u32 = 128;

/// What part of its quota is most of it.
const MOST: f64 = 0.75;
/// Threads that are there and do not work: pid 1, and one that waits for its child.
const RESTING: usize = 2;
/// For how long the turns of an instance that has ended count for the next one.
const REMEMBERED: Duration = PACE.saturating_mul(LONGEST_CALM);
/// Of how many plugins they are kept.
const MOST_REMEMBERED: usize = 4096;

/// What is remembered of one instance from look to look.
#[derive(Debug)]
pub(crate) struct Pace {
    plugin: Arc<PluginRef>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    turns: Turns,
    looks: u32,
    confined: Option<Confined>,
    standing: Standing,
    in_long_slices: bool,
    /// When it was last put behind the others because the quota had stopped it.
    stopped_at: Option<Instant>,
    /// When the last look was that counted: there is one in each [`PACE`].
    counted: Option<Instant>,
    /// Processor time that it had used, and when.
    used: Option<(Instant, Duration)>,
}

/// The turns of plugins whose instances have ended, and when. Only of those that were confined, light or behind the
/// others then.
#[derive(Debug, Default)]
struct Ended(HashMap<Arc<PluginRef>, (Instant, Turns)>);

#[derive(Clone, Debug)]
struct Turns {
    stops: u64,
    /// Looks that count and are left to it behind the others.
    behind: u32,
    /// How long it will be put there the next time.
    calm: u32,
    /// Looks that counted since it came back.
    free: u32,
}

impl Default for Turns {
    fn default() -> Self {
        Self { stops: 0, behind: 0, calm: CALM, free: LONGEST_CALM }
    }
}

impl Pace {
    /// That of a plugin's next instance, which goes on where the one before has ended.
    pub(crate) fn of(plugin: &Arc<PluginRef>) -> Self {
        let ended = ended().lock().unwrap_or_else(PoisonError::into_inner);
        let turns = ended.last(plugin, Instant::now()).unwrap_or_default();
        let state = Mutex::new(State { turns, ..State::default() });
        Self { plugin: Arc::clone(plugin), state }
    }

    /// Confines an instance that has not begun, where that is its place.
    pub(crate) fn begin(&self, group: &Group) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.turns.behind > 0 {
            state.confine(group);
            state.stand(group, Standing::Light);
        }
    }

    /// Whether it is confined, light or behind the others.
    pub(crate) fn is_behind(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).turns.behind > 0
    }

    /// The instance has ended; `by_limit`: a limit has ended it.
    pub(crate) fn ended(&self, by_limit: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if by_limit {
            state.turns.stopped();
        }
        let mut ended = ended().lock().unwrap_or_else(PoisonError::into_inner);
        ended.put(&self.plugin, &state.turns, Instant::now());
        state.confined = None;
    }

    /// Looks, and acts; gives the time until the next look. Reads two files of the kernel's, and more only
    /// where the plugin is at work.
    pub(crate) fn look(&self, group: &Group) -> Duration {
        let Some(stops) = group.quota_stops() else { return PACE };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.looks = state.looks.saturating_add(1);
        let now = Instant::now();
        let counts = state.counts(now);
        let takes_most = state.takes_most(group, now);
        match state.turns.look(stops, takes_most, counts) {
            Turn::GoBehind => {
                state.confine(group);
                state.stopped_at = Some(now);
                state.stand(group, Standing::Behind);
                state.end_long_slices(group);
            }
            Turn::GoAside => {
                state.confine(group);
                if state.may_be_light(now) {
                    state.stand(group, Standing::Light);
                }
                state.in_long_slices = group.is_unified() && state.standing == Standing::Light;
            }
            Turn::ComeBack => {
                state.stand(group, Standing::Ordinary);
                state.end_long_slices(group);
                if let Some(confined) = state.confined.take() {
                    confined.release(|| group.threads());
                }
            }
            // Once more, where it could not be written.
            Turn::Stay if state.turns.behind == 0 => state.stand(group, Standing::Ordinary),
            Turn::Stay => {}
        }
        // At every look: what it started meanwhile may have slipped through.
        if let Some(confined) = &state.confined {
            confined.hold(|| group.threads());
        }
        if state.in_long_slices {
            let threads = group.threads();
            // With more threads than that the quota would stop it; and those that it starts begin with its slice.
            let most = state.confined.as_ref().map_or(0, Confined::count) + RESTING;
            let few = threads.len() <= most;
            let slice = if few { Slice::Long } else { Slice::Short };
            slice.give(&threads);
        }
        if state.looks < FIRST_LOOKS { FIRST_PACE } else { PACE }
    }
}

impl State {
    /// Where there are processors left for the others.
    fn confine(&mut self, group: &Group) {
        if self.confined.is_none() {
            self.confined = group.quota().and_then(Confined::to);
        }
    }

    /// Who is behind the others stays there until the quota has not stopped it for a while.
    fn may_be_light(&self, now: Instant) -> bool {
        let calm = PACE * self.turns.calm;
        self.standing != Standing::Behind
            || self.stopped_at.is_none_or(|at| now.saturating_duration_since(at) >= calm)
    }

    fn end_long_slices(&mut self, group: &Group) {
        if std::mem::take(&mut self.in_long_slices) {
            Slice::Short.give(&group.threads());
        }
    }

    /// Whether the last look that counted was [`PACE`] ago.
    fn counts(&mut self, now: Instant) -> bool {
        let last = *self.counted.get_or_insert(now);
        let counts = now.saturating_duration_since(last) >= PACE;
        if counts {
            self.counted = Some(now);
        }
        counts
    }

    /// Whether it has taken most of its quota since it was last asked, [`PACE`] ago or longer.
    fn takes_most(&mut self, group: &Group, now: Instant) -> bool {
        let Some(used) = group.cpu_time() else { return false };
        let (since, before) = *self.used.get_or_insert((now, used));
        let time = now.saturating_duration_since(since);
        if time < PACE {
            return false;
        }
        self.used = Some((now, used));
        let part = used.saturating_sub(before).div_duration_f64(time);
        part > 0.01 && group.quota().is_some_and(|quota| part >= MOST * quota)
    }

    fn stand(&mut self, group: &Group, standing: Standing) {
        // What cannot be written leaves it where it is; the confinement does not depend on it.
        if self.standing != standing && group.stand(self.standing, standing).is_ok() {
            self.standing = standing;
        }
    }
}

fn ended() -> &'static Mutex<Ended> {
    static ENDED: OnceLock<Mutex<Ended>> = OnceLock::new();
    ENDED.get_or_init(Mutex::default)
}

impl Ended {
    fn put(&mut self, plugin: &Arc<PluginRef>, turns: &Turns, now: Instant) {
        if turns.behind == 0 {
            self.0.remove(plugin);
            return;
        }
        if self.0.len() >= MOST_REMEMBERED {
            self.0.retain(|_, (at, _)| now.saturating_duration_since(*at) < REMEMBERED);
        }
        if self.0.len() < MOST_REMEMBERED {
            self.0.insert(Arc::clone(plugin), (now, turns.clone()));
        }
    }

    /// The turns for a new instance, whose group has counted no stops yet.
    fn last(&self, plugin: &PluginRef, now: Instant) -> Option<Turns> {
        let (at, turns) = self.0.get(plugin)?;
        let counts = now.saturating_duration_since(*at) < REMEMBERED;
        counts.then(|| Turns { stops: 0, ..turns.clone() })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Or stay there for as long again.
    GoBehind,
    /// The same for who is only confined.
    GoAside,
    ComeBack,
    Stay,
}

impl Turns {
    /// It goes behind, or stays there for as long again.
    fn stopped(&mut self) {
        if self.behind == 0 {
            let relapse = self.free < self.calm;
            self.calm = if relapse { (self.calm * 2).min(LONGEST_CALM) } else { CALM };
        }
        self.behind = self.calm;
    }

    /// `counts`: whether [`PACE`] has passed since the last look that did.
    fn look(&mut self, stops: u64, takes_most: bool, counts: bool) -> Turn {
        let stopped = stops > self.stops;
        self.stops = stops;
        match (self.behind, stopped) {
            (_, false) if takes_most => {
                self.stopped();
                Turn::GoAside
            }
            (_, true) => {
                self.stopped();
                Turn::GoBehind
            }
            (_, false) if !counts => Turn::Stay,
            (0, false) => {
                self.free = self.free.saturating_add(1);
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
    use crate::cgroup::tests::{In, weight};

    /// Looks until it comes back, without a stop.
    fn looks_until_back(turns: &mut Turns) -> u32 {
        let stops = turns.stops;
        (1..1000).find(|_| turns.look(stops, false, true) == Turn::ComeBack).unwrap()
    }

    #[test]
    fn who_is_stopped_goes_behind_and_comes_back_after_a_calm_time() {
        let mut turns = Turns::default();
        assert_eq!(turns.look(0, false, true), Turn::Stay);
        assert_eq!(turns.look(3, false, true), Turn::GoBehind);
        assert_eq!(turns.look(4, false, true), Turn::GoBehind, "for as long again");
        assert_eq!(looks_until_back(&mut turns), CALM);
        assert_eq!(turns.look(4, false, true), Turn::Stay);
        for _ in 0..CALM {
            turns.look(4, false, true);
        }
        assert_eq!(turns.look(5, false, true), Turn::GoBehind);
        assert_eq!(looks_until_back(&mut turns), CALM, "it had behaved for long enough");
    }

    fn plugin(id: &str) -> Arc<PluginRef> {
        let origin = palisade_model::Origin::Folder { path: "/p".into(), owner: 0 };
        Arc::new(PluginRef { id: palisade_model::PluginId::parse(id).unwrap(), origin })
    }

    #[test]
    fn an_end_by_a_limit_counts_for_the_next_instance() {
        let (one, other) = (plugin("pace.one"), plugin("pace.other"));
        let behind = |pace: &Pace| pace.state.lock().unwrap().turns.behind;
        let first = Pace::of(&one);
        assert_eq!(behind(&first), 0);
        first.ended(false);
        let second = Pace::of(&one);
        assert_eq!(behind(&second), 0, "it ended by itself");
        second.ended(true);
        assert_eq!(behind(&Pace::of(&other)), 0, "it was somebody else");
        let third = Pace::of(&one);
        assert_eq!(behind(&third), CALM);
        third.state.lock().unwrap().turns.look(0, false, true);
        third.ended(false);
        let fourth = Pace::of(&one);
        assert_eq!(behind(&fourth), CALM - 1, "an end wipes nothing out");
        let mut state = fourth.state.lock().unwrap();
        assert_eq!(looks_until_back(&mut state.turns), CALM - 1);
        drop(state);
        fourth.ended(false);
        assert_eq!(behind(&Pace::of(&one)), 0, "it had rested");
    }

    #[test]
    fn looks_in_quick_succession_count_once() {
        let mut state = State::default();
        let begun = Instant::now();
        let counted = (0..=20u32).filter(|&look| state.counts(begun + FIRST_PACE * look));
        assert_eq!(counted.collect::<Vec<_>>(), [5, 10, 15, 20]);
        let mut turns = Turns::default();
        turns.stopped();
        assert_eq!(turns.look(0, false, false), Turn::Stay);
        assert_eq!(turns.behind, CALM);
        assert_eq!(turns.look(1, false, false), Turn::GoBehind, "a stop counts at once");
    }

    #[test]
    fn what_ended_is_remembered_for_a_while_and_of_so_many() {
        let mut ended = Ended::default();
        let now = Instant::now();
        let stopped = Turns { stops: 7, behind: 8, ..Turns::default() };
        ended.put(&plugin("a"), &stopped, now);
        assert!(ended.last(&plugin("a"), now + REMEMBERED).is_none());
        for i in 0..=MOST_REMEMBERED {
            ended.put(&plugin(&format!("a{i}")), &stopped, now);
        }
        assert_eq!(ended.0.len(), MOST_REMEMBERED);
        let late = now + REMEMBERED;
        ended.put(&plugin("late"), &stopped, late);
        assert_eq!(ended.0.len(), 1, "the others no longer count");
        assert_eq!(ended.last(&plugin("late"), late).unwrap().stops, 0);
    }

    #[test]
    fn who_takes_most_goes_aside_and_comes_back() {
        let mut turns = Turns::default();
        assert_eq!(turns.look(0, true, true), Turn::GoAside);
        assert_eq!(turns.look(0, false, true), Turn::Stay);
        assert_eq!(turns.look(0, true, true), Turn::GoAside, "for as long again");
        assert_eq!(turns.look(1, true, true), Turn::GoBehind);
        assert_eq!(looks_until_back(&mut turns), CALM);
    }

    #[test]
    fn who_takes_most_is_light_at_once_unless_it_is_behind_and_was_stopped_just_now() {
        let stopped = Instant::now();
        let state = |standing| State { standing, stopped_at: Some(stopped), ..State::default() };
        let soon = stopped + PACE;
        assert!(state(Standing::Ordinary).may_be_light(soon), "it had come back");
        assert!(!state(Standing::Behind).may_be_light(soon));
        assert!(state(Standing::Behind).may_be_light(stopped + PACE * CALM));
    }

    /// Looks at a group at work or at rest until it weighs so much.
    fn weighs(pace: &Pace, group: &Group, wanted: impl Fn(Option<f64>) -> bool) -> bool {
        (0..1200).any(|_| {
            pace.look(group);
            std::thread::sleep(FIRST_PACE);
            wanted(weight(group))
        })
    }

    #[test]
    #[allow(clippy::print_stderr)]
    fn who_takes_most_of_its_quota_weighs_little_until_it_rests() {
        // Little, so that a busy machine has it left, and more than most of its quota.
        let limits = palisade_model::Limits { cpu: 0.2, ..Default::default() };
        let cgroups = crate::cgroup::of_this_process();
        let Some(group) = cgroups.create(&limits).unwrap().filter(Group::has_weight) else {
            assert!(std::env::var("CI").is_err(), "in CI nothing may be skipped");
            eprintln!("SKIPPED: there is no group with processor time for this process here");
            return;
        };
        let pace = Pace::of(&plugin("pace.heavy"));
        assert_eq!(weight(&group), Some(1.0));
        let busy = "import time\nwhile True:\n end = time.monotonic() + 0.0018\n while time.monotonic() < end: pass\n time.sleep(0.0082)";
        let child = In::group(&group, std::process::Command::new("python3").args(["-c", busy]));
        let light = weighs(&pace, &group, |weight| weight.is_some_and(|w| w < 0.1));
        drop(child);
        assert!(light, "it weighs as much as the others");
        assert!(weighs(&pace, &group, |weight| weight == Some(1.0)), "it stayed there at rest");
    }

    #[test]
    #[allow(clippy::print_stderr)]
    fn who_is_stopped_is_idle_and_who_begins_confined_is_light() {
        let limits = palisade_model::Limits { cpu: 0.2, ..Default::default() };
        let cgroups = crate::cgroup::of_this_process();
        let make = || cgroups.create(&limits).unwrap().filter(Group::has_weight);
        let (Some(group), Some(next)) = (make(), make()) else {
            assert!(std::env::var("CI").is_err(), "in CI nothing may be skipped");
            eprintln!("SKIPPED: there is no group with processor time for this process here");
            return;
        };
        let plugin = plugin("pace.stopped");
        let pace = Pace::of(&plugin);
        let spins = ["-c", "while :; do :; done"];
        let child = In::group(&group, std::process::Command::new("/bin/sh").args(spins));
        let has_idle = group.has_idle();
        let behind =
            |weight: Option<f64>| if has_idle { weight.is_none() } else { weight < Some(0.1) };
        assert!(weighs(&pace, &group, behind), "it is not behind the others");
        drop(child);
        pace.ended(false);
        Pace::of(&plugin).begin(&next);
        assert!(weight(&next).is_some_and(|w| w < 0.1), "{:?}", weight(&next));
    }

    #[test]
    fn who_comes_back_to_it_at_once_is_held_for_longer_each_time() {
        let mut turns = Turns::default();
        let mut held = Vec::new();
        for stop in 1..8 {
            assert_eq!(turns.look(stop, false, true), Turn::GoBehind);
            held.push(looks_until_back(&mut turns));
        }
        assert_eq!(held, [8, 16, 32, 64, 128, 128, 128]);
    }
}
