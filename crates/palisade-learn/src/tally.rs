//! Counting what is seen: the same thing again costs no memory, and different things have a bound.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use palisade_model::{Access, CapabilitySet, Kind};
use palisade_sandbox::{
    Observation, Observer,
    observe::{Found, Outcome, PathAccess, Subject},
};

/// Most different things that are kept. What comes after them is counted only.
pub const MAX_ENTRIES: usize = 20_000;
/// Most bytes of paths and texts that are kept; what comes after them is counted only.
const MAX_BYTES: usize = 16 << 20;
/// Most names of calls that are kept of one thing.
const MAX_CALLS: usize = 8;

/// What one entry is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Path(PathBuf, PathAccess),
    Address(std::net::SocketAddr),
    Socket(String),
    /// The call is what it is about.
    Call(String, String),
}

/// One thing that was seen, once or many times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The calls by which it was done, sorted; at most eight.
    pub calls: BTreeSet<String>,
    /// What it was about: as it was seen first.
    pub subject: Subject,
    /// What the walls had to say.
    pub outcome: Outcome,
    /// How often it was seen.
    pub count: u64,
    /// When it was seen last: a number that grows with everything that is seen.
    pub last: u64,
}

/// Everything that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// In the order in which they were seen first.
    pub entries: Vec<Entry>,
    /// How much more there was than is kept.
    pub dropped: u64,
    /// How many calls could not be looked at.
    pub missed: u64,
}

#[derive(Debug, Default)]
struct Inner {
    places: BTreeMap<(Key, Outcome), usize>,
    seen: Seen,
    bytes: usize,
    clock: u64,
}

/// Collects what an observer is told. Give a clone of its `Arc` to the launch, and read it afterwards.
#[derive(Debug, Default)]
pub struct Tally {
    /// What goes through is kept where one of these covers it.
    within: CapabilitySet,
    inner: Mutex<Inner>,
}

impl Tally {
    /// Keeps what the walls refuse.
    #[must_use]
    pub fn of_denials() -> Self {
        Self::default()
    }

    /// Keeps what the walls refuse, and the use of files that one of these rights covers.
    #[must_use]
    pub fn within(ceiling: CapabilitySet) -> Self {
        Self { within: ceiling, inner: Mutex::default() }
    }

    /// What was seen until now.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).seen.clone()
    }

    fn is_wanted(&self, observation: &Observation) -> bool {
        if !observation.outcome.is_passed() {
            return true;
        }
        let Subject::Path { path, asked, .. } = &observation.subject else { return false };
        [Some(path), asked.as_ref()].into_iter().flatten().any(|path| {
            let Some(path) = path.to_str() else { return false };
            [Kind::FsRead, Kind::FsWrite, Kind::Exec, Kind::Device]
                .iter()
                .any(|kind| self.within.allows(&Access::new(*kind, path)).is_some())
        })
    }
}

impl Observer for Tally {
    fn saw(&self, observation: Observation) {
        if !self.is_wanted(&observation) {
            return;
        }
        let Observation { call, subject, outcome } = observation;
        let key = match &subject {
            Subject::Path { path, access, .. } => Key::Path(path.clone(), *access),
            Subject::Address(address) => Key::Address(*address),
            Subject::Socket(name) => Key::Socket(name.clone()),
            Subject::Arguments(arguments) => Key::Call(call.to_string(), arguments.clone()),
        };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        inner.clock += 1;
        let next = inner.seen.entries.len();
        let at = match inner.places.get(&(key.clone(), outcome)) {
            Some(at) => *at,
            None if next >= MAX_ENTRIES || inner.bytes + size(&subject) > MAX_BYTES => {
                inner.seen.dropped += 1;
                return;
            }
            None => {
                inner.bytes += size(&subject);
                inner.places.insert((key, outcome), next);
                inner.seen.entries.push(Entry {
                    calls: BTreeSet::new(),
                    subject: subject.clone(),
                    outcome,
                    count: 0,
                    last: 0,
                });
                next
            }
        };
        let Some(entry) = inner.seen.entries.get_mut(at) else { return };
        entry.count += 1;
        entry.last = inner.clock;
        if entry.calls.len() < MAX_CALLS && !entry.calls.contains(call.as_ref()) {
            entry.calls.insert(call.into_owned());
        }
        merge(&mut entry.subject, subject);
    }

    fn missed(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).seen.missed += 1;
    }
}

/// How much of the program's own text is in it.
fn size(subject: &Subject) -> usize {
    match subject {
        Subject::Path { path, asked, .. } => {
            path.as_os_str().len() + asked.as_ref().map_or(0, |asked| asked.as_os_str().len())
        }
        Subject::Socket(text) | Subject::Arguments(text) => text.len(),
        Subject::Address(_) => 0,
    }
}

/// Keeps what says more: that there was something, and that a link led there.
fn merge(kept: &mut Subject, new: Subject) {
    if let (
        Subject::Path { found, asked, .. },
        Subject::Path { found: new_found, asked: new_asked, .. },
    ) = (kept, new)
    {
        if *found == Found::Nothing {
            *found = new_found;
        }
        if asked.is_none() {
            *asked = new_asked;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(path: &str, outcome: Outcome) -> Observation {
        Observation {
            call: "openat".into(),
            subject: Subject::Path {
                path: path.into(),
                asked: None,
                access: PathAccess::Read,
                found: Found::File,
            },
            outcome,
        }
    }

    #[test]
    fn the_same_again_is_counted_and_what_goes_through_is_kept_only_within_the_ceiling() {
        let ceiling = ["fs.read:/srv/**".parse().unwrap()].into_iter().collect();
        let tally = Tally::within(ceiling);
        for _ in 0..3 {
            tally.saw(look("/etc/shadow", Outcome::NotThere));
        }
        tally.saw(look("/srv/a", Outcome::Passed));
        tally.saw(look("/usr/lib/x.so", Outcome::Passed));
        tally.missed();
        let seen = tally.seen();
        assert_eq!(seen.entries.len(), 2);
        assert_eq!((seen.entries[0].count, seen.entries[0].last), (3, 3));
        assert_eq!(seen.missed, 1);
        let denials = Tally::of_denials();
        denials.saw(look("/srv/a", Outcome::Passed));
        assert!(denials.seen().entries.is_empty());
    }

    #[test]
    fn a_flood_of_different_things_has_a_bound() {
        let tally = Tally::of_denials();
        for n in 0..MAX_ENTRIES + 5 {
            tally.saw(look(&format!("/x/{n}"), Outcome::NotThere));
        }
        tally.saw(look("/x/1", Outcome::NotThere));
        let long = Tally::of_denials();
        for n in 0..6000 {
            long.saw(look(&format!("/{n}/{}", "x".repeat(4000)), Outcome::NotThere));
        }
        let kept = long.seen();
        assert!(kept.dropped > 0 && kept.entries.len() > 4000, "{}", kept.entries.len());
        let seen = tally.seen();
        assert_eq!((seen.entries.len(), seen.dropped), (MAX_ENTRIES, 5));
        assert_eq!(seen.entries[1].count, 2, "what is kept is counted on");
    }
}
