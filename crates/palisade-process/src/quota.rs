//! The cap on the data folder of one running plugin: has it measured when that is due, and ends the plugin
//! where it holds too much or hides what it holds.

use std::{
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use palisade_sandbox::KillReason;

use crate::{
    disk::{self, Held},
    instance::Shared,
    looks::{IDLE, LONGEST, Looks},
    processes,
};

/// Of the time, looking through /proc takes at most one part in this many.
const LOOK_SHARE: u32 = 25;

/// One plugin's.
pub(crate) struct Quota {
    folder: PathBuf,
    looks: Looks,
    /// Bytes left to the plugin when everything could be seen.
    left: u64,
    clock: Clock,
    /// The first of the measurements in a row at which something could not be seen.
    unseen: Option<Unseen>,
}

/// Who tells how much processor time the plugin has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    /// Its group, or, where it has none that counts, this process from what it sees of the plugin's.
    Seen(Estimate),
    /// Pid 1, which samples more often.
    Told,
}

/// An estimate that errs upwards: processes that are busy at a look count as busy since the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Estimate {
    at: Instant,
    ticks: u64,
    ran: Duration,
}

impl Estimate {
    /// What is used by now, of `ticks` that the living have used; `busy`: one of them is at work.
    fn turn(&mut self, now: Instant, ticks: u64, busy: bool) -> Duration {
        /// USER_HZ.
        const TICK: Duration = Duration::from_millis(10);
        let used = TICK * u32::try_from(ticks.saturating_sub(self.ticks)).unwrap_or(u32::MAX);
        let since = if busy { now - self.at } else { Duration::ZERO };
        *self = Self { at: now, ticks, ran: self.ran + used.max(since) };
        self.ran
    }
}

#[derive(Clone, Copy, Debug)]
struct Unseen {
    /// When the first of them was done.
    since: Instant,
    /// Bytes free on the file system then.
    free: Option<u64>,
}

impl Unseen {
    /// Whether it lasts too long at a measurement that has begun at `begun`. How long a measurement takes is not the
    /// plugin's doing alone, so the time of neither counts.
    fn is_long(&self, begun: Instant) -> bool {
        begun.saturating_duration_since(self.since) >= LONGEST
    }
}

/// What is wrong.
#[derive(Debug, PartialEq, Eq)]
enum Breach {
    Hidden,
    KeptUnseen,
    /// Unseen, while this much of the file system's free space went.
    GrewUnseen(u64),
    TooMuch,
}

/// Judges a measurement. `unseen`: whether something has been unseen for too long; `None` where that is new.
/// `gone`: the free space that went since. `left`: what was left to the plugin before.
fn judge(held: &Held, limit: u64, unseen: Option<bool>, gone: u64, left: u64) -> Option<Breach> {
    match (held.hidden, unseen) {
        (true, _) => Some(Breach::Hidden),
        (_, Some(true)) => Some(Breach::KeptUnseen),
        _ if held.bytes > limit || held.entries > disk::MAX_ENTRIES => Some(Breach::TooMuch),
        // Somebody else may have written too, and the plugin before it was noticed.
        (_, Some(false)) if gone > left / 2 => Some(Breach::GrewUnseen(gone)),
        _ => None,
    }
}

impl Quota {
    pub(crate) fn new(folder: PathBuf) -> Self {
        let now = Instant::now();
        let clock = Clock::Seen(Estimate { at: now, ticks: 0, ran: Duration::ZERO });
        Self { folder, looks: Looks::new(now), left: u64::MAX, clock, unseen: None }
    }

    /// Looks, where that takes some microseconds; when to look again. `None` where it takes longer:
    /// [`Self::look_closely`] is due.
    pub(crate) fn look(&mut self, shared: &Shared) -> Option<Instant> {
        let used = Some(self.counted(shared)?);
        let now = Instant::now();
        (!self.looks.is_due(now, used)).then(|| now + self.looks.sleep(used))
    }

    /// Looks, and measures where that is due; when to look again. May take long.
    pub(crate) fn look_closely(&mut self, shared: &Shared) -> Instant {
        let begun = Instant::now();
        let counted = self.counted(shared);
        let used = counted.or_else(|| self.estimated(shared));
        // Looking through /proc costs more than reading what somebody else counts, most of all where a
        // plugin has many processes, and it is the neighbours' time.
        let estimates = counted.is_none();
        let pause = if estimates { begun.elapsed() * LOOK_SHARE } else { Duration::ZERO };
        // An estimate that stands still proves nothing: what runs may not have been seen.
        let is_due = self.looks.is_due(begun, used);
        if is_due || (estimates && self.looks.is_due(begun, None)) {
            let (left, again) = self.measure(shared);
            self.looks.measured(begun, Instant::now(), used, left, again);
        }
        let rest = self.looks.sleep(used);
        let dear = estimates && rest == IDLE;
        Instant::now() + (if dear { 2 * rest } else { rest }).max(pause.min(LONGEST))
    }

    /// Processor time that the plugin has used, where its group or pid 1 counts it.
    fn counted(&mut self, shared: &Shared) -> Option<Duration> {
        if let Some(counted) = shared.cpu_time() {
            return Some(counted);
        }
        let told = shared.ran()?;
        if self.clock != Clock::Told {
            self.clock = Clock::Told;
            self.looks.rebase();
        }
        Some(told)
    }

    /// The same, from what this process sees of the plugin's.
    fn estimated(&mut self, shared: &Shared) -> Option<Duration> {
        let (ticks, busy) = processes::pid_of(shared.pidfd.get_ref()).map(processes::activity)?;
        match &mut self.clock {
            Clock::Seen(estimate) => Some(estimate.turn(Instant::now(), ticks, busy)),
            Clock::Told => None,
        }
    }

    /// How many bytes are left to the plugin, and whether it has to be looked at once more.
    fn measure(&mut self, shared: &Shared) -> (u64, bool) {
        let begun = Instant::now();
        let limit = shared.disk_limit.load(Ordering::Relaxed);
        let free = disk::free(&self.folder);
        let mut held = disk::measure(&self.folder);
        disk::add_nameless(&mut held, &self.folder, shared.pidfd.get_ref(), limit);
        let before = self.unseen.filter(|_| held.unseen);
        let long = before.map(|before| before.is_long(begun));
        let gone = match (before.and_then(|before| before.free), free) {
            (Some(before), Some(now)) => before.saturating_sub(now),
            _ => 0,
        };
        if let Some(breach) = judge(&held, limit, long, gone, self.left) {
            shared.kill(KillReason::Limit(words(&breach, &held, limit)));
        }
        if held.unseen {
            self.unseen.get_or_insert(Unseen { since: Instant::now(), free });
            // Looked at again as soon as it runs.
            return (0, true);
        }
        (self.unseen, self.left) = (None, limit.saturating_sub(held.bytes));
        (self.left, false)
    }
}

fn words(breach: &Breach, held: &Held, limit: u64) -> String {
    match breach {
        Breach::Hidden => {
            "disk: the data folder holds folders that cannot be measured (closed to the host, or too deep)"
                .into()
        }
        Breach::KeptUnseen => {
            "disk: the plugin keeps handles in a socket, where their files cannot be measured".into()
        }
        Breach::GrewUnseen(gone) => format!(
            "disk: {gone} bytes went while the plugin kept handles in a socket, where their files cannot be measured"
        ),
        Breach::TooMuch => format!(
            "disk: the data folder holds {} bytes in {} entries, allowed are {limit} bytes and {} entries",
            held.bytes,
            held.entries,
            disk::MAX_ENTRIES
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1000;

    #[test]
    fn what_is_kept_unseen_or_grows_unseen_ends_it() {
        let held = Held { bytes: 900, unseen: true, ..Held::default() };
        let of = |unseen, gone| judge(&held, LIMIT, unseen, gone, 100);
        assert_eq!(of(None, 5000), None, "it may be a moment's");
        assert_eq!(of(Some(false), 50), None, "somebody else may have written");
        assert_eq!(of(Some(false), 51), Some(Breach::GrewUnseen(51)));
        assert_eq!(of(Some(true), 0), Some(Breach::KeptUnseen));
    }

    #[test]
    fn a_slow_measurement_does_not_make_a_moment_long() {
        let since = Instant::now();
        let unseen = Unseen { since, free: None };
        assert!(!unseen.is_long(since + LONGEST - Duration::from_millis(1)));
        assert!(unseen.is_long(since + LONGEST));
        // Begun before the first was done: both are one moment.
        assert!(!unseen.is_long(since.checked_sub(LONGEST).unwrap()));
    }

    #[test]
    fn who_is_busy_at_a_look_was_busy_since_the_last_one() {
        let at = Instant::now();
        let after = |millis| at + Duration::from_millis(millis);
        let mut estimate = Estimate { at, ticks: 0, ran: Duration::ZERO };
        let mut turn = |millis, ticks, busy| estimate.turn(after(millis), ticks, busy).as_millis();
        assert_eq!(turn(25, 0, false), 0);
        assert_eq!(turn(50, 0, true), 25);
        assert_eq!(turn(75, 4, true), 65, "on two processors");
        // One has ended and taken its time along.
        assert_eq!(turn(100, 1, false), 65);
        assert_eq!(turn(125, 2, false), 75);
    }

    #[test]
    fn too_much_and_what_cannot_be_measured_ends_it() {
        let of = |held: Held| judge(&held, LIMIT, None, 0, LIMIT);
        let full = Held { bytes: LIMIT, entries: disk::MAX_ENTRIES, ..Held::default() };
        assert_eq!(of(full), None);
        assert_eq!(of(Held { bytes: LIMIT + 1, ..full }), Some(Breach::TooMuch));
        assert_eq!(of(Held { entries: disk::MAX_ENTRIES + 1, ..full }), Some(Breach::TooMuch));
        assert_eq!(of(Held { hidden: true, ..Held::default() }), Some(Breach::Hidden));
    }
}
