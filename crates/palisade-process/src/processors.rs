//! Which processors a plugin runs on while it takes all the time that it may.
//!
//! A quota bounds how much time a plugin gets, not on how many processors at once. Who is confined runs on as
//! many as its quota is worth, so that the others stay free for everybody else. It loses nothing by it, as
//! long as no other plugin is confined to the same ones. See sched_setaffinity(2); the filter keeps plugins
//! from choosing for themselves.

use std::{
    collections::HashSet,
    sync::{Mutex, OnceLock, PoisonError},
};

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// How many plugins are confined to each processor.
static TAKEN: Mutex<Vec<u32>> = Mutex::new(Vec::new());
/// How often a group is gone through until nothing new is found in it: what forks meanwhile may have missed
/// one turn.
const TURNS: usize = 3;
/// Most threads of a group that one look confines.
const MOST_THREADS: usize = 4096;

/// Processors that a plugin is confined to. They count as taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Confined(Vec<usize>);

impl Confined {
    /// As many processors as `cpu` is worth, the least taken ones. `None` where that would be all that this
    /// process may use itself.
    pub(crate) fn to(cpu: f64) -> Option<Self> {
        Self::among(own(), cpu)
    }

    fn among(allowed: &[usize], cpu: f64) -> Option<Self> {
        let wanted = cpu.ceil().max(1.0) as usize;
        if wanted >= allowed.len() {
            return None;
        }
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let most = allowed.iter().max().map_or(0, |last| last + 1);
        if taken.len() < most {
            taken.resize(most, 0);
        }
        let mut free: Vec<usize> = allowed.to_vec();
        // The last ones first: devices interrupt the first one most.
        free.sort_by_key(|&c| (taken.get(c).copied().unwrap_or(0), usize::MAX - c));
        free.truncate(wanted);
        for &chosen in &free {
            if let Some(count) = taken.get_mut(chosen) {
                *count += 1;
            }
        }
        Some(Self(free))
    }

    /// How many they are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Confines these threads, and those that `threads` finds after them.
    pub(crate) fn hold(&self, threads: impl Fn() -> Vec<i32>) {
        set(&self.0, threads);
    }

    /// Lets these threads run wherever this process may.
    pub(crate) fn release(self, threads: impl Fn() -> Vec<i32>) {
        set(own(), threads);
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        for &held in &self.0 {
            if let Some(count) = taken.get_mut(held) {
                *count = count.saturating_sub(1);
            }
        }
    }
}

/// The processors that this process may use: those of its first thread, since others may have been bound to
/// some of them.
fn own() -> &'static [usize] {
    static OWN: OnceLock<Vec<usize>> = OnceLock::new();
    OWN.get_or_init(|| {
        let first = i32::try_from(std::process::id()).ok().and_then(Pid::from_raw);
        let Ok(set) = sched_getaffinity(first) else { return Vec::new() };
        (0..CpuSet::MAX_CPU).filter(|&c| set.is_set(c)).collect()
    })
}

fn set(processors: &[usize], threads: impl Fn() -> Vec<i32>) {
    let mut wanted = CpuSet::new();
    for &processor in processors {
        wanted.set(processor);
    }
    let mut seen = HashSet::new();
    for _ in 0..TURNS {
        let mut new: Vec<i32> = threads();
        new.retain(|t| !seen.contains(t));
        new.truncate(MOST_THREADS.saturating_sub(seen.len()));
        if new.is_empty() {
            break;
        }
        for &thread in &new {
            // Fails only where it has ended.
            if let Some(pid) = Pid::from_raw(thread) {
                let _ = sched_setaffinity(Some(pid), &wanted);
            }
        }
        seen.extend(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_taken_are_chosen_and_one_is_left_over() {
        // Numbers that no machine of the tests has, because the counts are the process's.
        let allowed = [1000, 1001, 1002];
        let first = Confined::among(&allowed, 1.0).unwrap();
        assert_eq!(first.0, [1002]);
        let second = Confined::among(&allowed, 1.5).unwrap();
        assert_eq!(second.0, [1001, 1000]);
        let third = Confined::among(&allowed, 0.1).unwrap();
        assert_eq!(third.0, [1002]);
        drop((first, third));
        assert_eq!(Confined::among(&allowed, 1.0).unwrap().0, [1002]);
        assert!(Confined::among(&allowed, 2.1).is_none(), "nothing would be left for the others");
        assert!(Confined::among(&allowed[..1], 0.5).is_none());
    }
}
