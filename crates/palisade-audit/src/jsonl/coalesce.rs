//! Counting equal records instead of writing each.
//!
//! The first of its kind is written in full. Those that follow within the window are counted, and one
//! line with `repeats` says how many there were. The table is bounded: when it is full, records are
//! written in full again, so that nothing is lost.

use std::{collections::HashMap, sync::Arc};

use palisade_model::{ErrorCode, Kind, Principal};

use crate::{Decision, Phase, RecordKind, act::Stamped};

/// Most different records counted at a time.
const MAX_KEYS: usize = 1024;

#[derive(PartialEq, Eq, Hash)]
struct Key {
    kind: RecordKind,
    phase_is_note: bool,
    actor: Arc<Principal>,
    instance: Option<palisade_model::InstanceId>,
    capability: Option<Kind>,
    target: Option<Box<str>>,
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
}

#[derive(Default)]
pub(super) struct Coalescer {
    counted: HashMap<Key, Counted>,
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
        let key = Key {
            kind: act.kind,
            phase_is_note: phase == Phase::Note,
            actor: Arc::clone(&act.actor),
            instance: act.instance.clone(),
            capability: act.capability,
            target: act.target.clone(),
            denied: act.decision == Some(Decision::Deny),
            code,
        };
        if let Some(counted) = self.counted.get_mut(&key) {
            counted.repeats += 1;
            counted.last = Arc::clone(stamped);
            return false;
        }
        if self.counted.len() < MAX_KEYS {
            let last = Arc::clone(stamped);
            self.counted.insert(key, Counted { since_ns: now_ns, repeats: 0, last, phase });
        }
        true
    }

    /// Takes out what was counted for at least `window_ns`; all of it where `window_ns` is 0.
    pub(super) fn expire(&mut self, now_ns: u64, window_ns: u64) -> Vec<Summary> {
        let over = |c: &Counted| now_ns.saturating_sub(c.since_ns) >= window_ns;
        let mut summaries: Vec<Summary> = self
            .counted
            .extract_if(|_, c| over(c))
            .filter(|(_, c)| c.repeats > 0)
            .map(|(key, c)| Summary {
                stamped: c.last,
                phase: c.phase,
                code: key.code,
                repeats: c.repeats,
            })
            .collect();
        summaries.sort_by_key(|s| s.stamped.correlation);
        summaries
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counted.is_empty()
    }
}
