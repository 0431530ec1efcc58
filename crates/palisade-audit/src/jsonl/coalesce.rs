//! Counting equal records instead of writing each.
//!
//! The first of its kind is written in full. Those that follow within the window are counted, and one
//! line with `repeats` says how many there were. Somebody who varies the target to fill the record is
//! counted without it after a while. The table is bounded: when it is full, records are written in full
//! again, so that nothing is lost.

use std::{collections::HashMap, sync::Arc};

use palisade_model::{ErrorCode, Kind, Principal};

use crate::{Decision, Phase, RecordKind, act::Stamped};

/// Most different records counted at a time.
const MAX_KEYS: usize = 1024;
/// Most different records of one actor that are told apart by their targets within a window.
const MAX_KEYS_PER_ACTOR: u32 = 64;

#[derive(PartialEq, Eq, Hash)]
enum Target {
    This(Option<Box<str>>),
    Any,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    kind: RecordKind,
    phase_is_note: bool,
    actor: Arc<Principal>,
    instance: Option<palisade_model::InstanceId>,
    capability: Option<Kind>,
    target: Target,
    denied: bool,
    code: Option<ErrorCode>,
}

struct Counted {
    since_ns: u64,
    repeats: u64,
    last: Arc<Stamped>,
    phase: Phase,
}

/// A line that stands for records that were counted.
pub(super) struct Summary {
    pub(super) stamped: Arc<Stamped>,
    pub(super) phase: Phase,
    pub(super) code: Option<ErrorCode>,
    pub(super) repeats: u64,
    /// It stands for different targets.
    pub(super) mixed: bool,
}

#[derive(Default)]
pub(super) struct Coalescer {
    counted: HashMap<Key, Counted>,
    /// How many of the keys are of each actor.
    of_actor: HashMap<Arc<Principal>, u32>,
}

impl Coalescer {
    /// Whether this record is to be written in full; if not, it was counted.
    pub(super) fn is_first(
        &mut self,
        stamped: &Arc<Stamped>,
        phase: Phase,
        code: Option<ErrorCode>,
        now_ns: u64,
    ) -> bool {
        let act = &stamped.act;
        let mut key = Key {
            kind: act.kind,
            phase_is_note: phase == Phase::Note,
            actor: Arc::clone(&act.actor),
            instance: act.instance.clone(),
            capability: act.capability,
            target: Target::This(act.target.clone()),
            denied: act.decision == Some(Decision::Deny),
            code,
        };
        if self.count(&key, stamped) {
            return false;
        }
        if self.of_actor.get(&key.actor).is_some_and(|n| *n >= MAX_KEYS_PER_ACTOR) {
            key.target = Target::Any;
            if self.count(&key, stamped) {
                return false;
            }
        }
        if self.counted.len() < MAX_KEYS {
            *self.of_actor.entry(Arc::clone(&key.actor)).or_default() += 1;
            let last = Arc::clone(stamped);
            self.counted.insert(key, Counted { since_ns: now_ns, repeats: 0, last, phase });
        }
        true
    }

    fn count(&mut self, key: &Key, stamped: &Arc<Stamped>) -> bool {
        let Some(counted) = self.counted.get_mut(key) else { return false };
        counted.repeats += 1;
        counted.last = Arc::clone(stamped);
        true
    }

    /// Takes out what was counted for at least `window_ns`; all of it where `window_ns` is 0.
    pub(super) fn expire(&mut self, now_ns: u64, window_ns: u64) -> Vec<Summary> {
        let over = |c: &Counted| now_ns.saturating_sub(c.since_ns) >= window_ns;
        let mut summaries = Vec::new();
        for (key, c) in self.counted.extract_if(|_, c| over(c)) {
            if let Some(n) = self.of_actor.get_mut(&key.actor) {
                *n = n.saturating_sub(1);
            }
            if c.repeats > 0 {
                let (mixed, code) = (key.target == Target::Any, key.code);
                let Counted { last: stamped, phase, repeats, .. } = c;
                summaries.push(Summary { stamped, phase, code, repeats, mixed });
            }
        }
        self.of_actor.retain(|_, n| *n > 0);
        summaries.sort_by_key(|s| s.stamped.correlation);
        summaries
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counted.is_empty()
    }
}
