//! This side's requests in flight: ids, answers, deadlines.
//!
//! Ids count up from 1 and the slot is the id modulo the table's size, so an answer finds its request
//! without a map, and an id is never used twice: a late answer cannot reach a later request.

use std::{task::Waker, time::Instant};

use palisade_model::{ErrorCode, Failure, Payload};

use crate::{CloseReason, FrameError, bounds};

/// What became of a request.
pub(super) type Outcome = Result<Payload, Failure>;

enum Slot {
    Free,
    Waiting { id: u64, sent: bool, deadline: Option<Instant>, waker: Option<Waker> },
    Done { id: u64, outcome: Outcome },
}

/// The requests that this side has sent and that nobody has answered or forgotten.
pub(super) struct Table {
    /// A power of two of them.
    slots: Box<[Slot]>,
    limit: usize,
    live: usize,
    next: u64,
    /// Requests that were sent and given up, and may still be answered.
    forgiven: u64,
    late: u64,
    strikes: u32,
    /// The earliest deadline, or one before it. The driver's timer stands at it.
    earliest: Option<Instant>,
    closed: Option<CloseReason>,
}

/// What a poll finds.
pub(super) enum Look {
    Pending,
    Done(Outcome),
}

/// What forgetting a request calls for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Forgotten {
    Nothing,
    /// The other side works on it and should be told.
    Cancel,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, bounds::IN_FLIGHT_REQUESTS_MAX);
        Self {
            slots: (0..limit.next_power_of_two()).map(|_| Slot::Free).collect(),
            limit,
            live: 0,
            next: 1,
            forgiven: 0,
            late: 0,
            strikes: 0,
            earliest: None,
            closed: None,
        }
    }

    pub(super) fn late(&self) -> u64 {
        self.late
    }

    pub(super) fn strikes(&self) -> u32 {
        self.strikes
    }

    pub(super) fn closed(&self) -> Option<&CloseReason> {
        self.closed.as_ref()
    }

    pub(super) fn earliest(&self) -> Option<Instant> {
        self.earliest
    }

    fn slot(&mut self, id: u64) -> Option<&mut Slot> {
        let mask = self.slots.len() as u64 - 1;
        self.slots.get_mut(usize::try_from(id & mask).unwrap_or(usize::MAX))
    }

    /// Takes an id. The flag says whether the driver's timer must be set anew.
    pub(super) fn begin(&mut self, deadline: Option<Instant>) -> Result<(u64, bool), Failure> {
        if let Some(reason) = &self.closed {
            return Err(reason.failure());
        }
        if self.live >= self.limit {
            return Err(Failure::new(
                ErrorCode::LimitExceeded,
                format!("{} requests are in flight already", self.limit),
            )
            .rule("protocol:requests-in-flight"));
        }
        // Fewer are live than there are slots, so one of the next ids has a free slot.
        let id = loop {
            let id = self.next;
            self.next += 1;
            if let Some(slot @ Slot::Free) = self.slot(id) {
                *slot = Slot::Waiting { id, sent: true, deadline, waker: None };
                break id;
            }
        };
        self.live += 1;
        let sooner = deadline.is_some_and(|d| self.earliest.is_none_or(|e| d < e));
        if sooner {
            self.earliest = deadline;
        }
        Ok((id, sooner))
    }

    /// Notes that a request waits for room in the queue (`false`) or has left (`true`). Returns whether
    /// anybody still waits for its answer.
    pub(super) fn set_sent(&mut self, now_sent: bool, id: u64) -> bool {
        match self.slot(id) {
            Some(Slot::Waiting { id: waiting, sent, .. }) if *waiting == id => {
                *sent = now_sent;
                true
            }
            _ => false,
        }
    }

    /// What the request's future polls.
    pub(super) fn look(&mut self, id: u64, by: &Waker) -> Look {
        match self.slot(id) {
            Some(Slot::Waiting { id: waiting, waker, .. }) if *waiting == id => {
                match waker {
                    Some(old) if old.will_wake(by) => {}
                    other => *other = Some(by.clone()),
                }
                Look::Pending
            }
            Some(slot @ Slot::Done { .. }) => match std::mem::replace(slot, Slot::Free) {
                Slot::Done { id: done, outcome } if done == id => {
                    self.live -= 1;
                    Look::Done(outcome)
                }
                other => {
                    *slot = other;
                    Look::Done(Err(lost()))
                }
            },
            _ => Look::Done(Err(lost())),
        }
    }

    /// Forgets a request whose future is dropped or failed.
    pub(super) fn forget(&mut self, id: u64) -> Forgotten {
        let Some(slot) = self.slot(id) else { return Forgotten::Nothing };
        let was_sent = match slot {
            Slot::Waiting { id: waiting, sent, .. } if *waiting == id => *sent,
            Slot::Done { id: done, .. } if *done == id => false,
            _ => return Forgotten::Nothing,
        };
        *slot = Slot::Free;
        self.live -= 1;
        if was_sent && self.closed.is_none() {
            self.forgiven += 1;
            Forgotten::Cancel
        } else {
            Forgotten::Nothing
        }
    }

    /// Takes an answer. `id` is `None` where it is not even of our kind.
    pub(super) fn answer(
        &mut self,
        id: Option<u64>,
        outcome: Outcome,
    ) -> Result<Option<Waker>, FrameError> {
        if let Some(id) = id {
            if let Some(slot) = self.slot(id)
                && let Slot::Waiting { id: waiting, sent: true, waker, .. } = slot
                && *waiting == id
            {
                let waker = waker.take();
                *slot = Slot::Done { id, outcome };
                return Ok(waker);
            }
            // Nothing tells a late answer from a second one but that so many can be late.
            if (1..self.next).contains(&id) && self.forgiven > 0 {
                self.forgiven -= 1;
                self.late += 1;
                return Ok(None);
            }
        }
        self.strike().map(|()| None)
    }

    /// Counts something odd that is not worth a connection.
    pub(super) fn strike(&mut self) -> Result<(), FrameError> {
        self.strikes += 1;
        if self.strikes > bounds::STRIKES { Err(FrameError::Strikes) } else { Ok(()) }
    }

    /// Fails what is due at `now`; returns the ids to cancel and the wakers to wake.
    pub(super) fn expire(&mut self, now: Instant) -> (Vec<u64>, Vec<Waker>) {
        let (mut cancelled, mut wakers, mut earliest) = (Vec::new(), Vec::new(), None);
        for slot in &mut self.slots {
            let Slot::Waiting { id, sent, deadline: Some(deadline), waker } = slot else {
                continue;
            };
            if *deadline > now {
                earliest = Some(earliest.map_or(*deadline, |e: Instant| e.min(*deadline)));
                continue;
            }
            if *sent {
                cancelled.push(*id);
            }
            wakers.extend(waker.take());
            let outcome =
                Err(Failure::new(ErrorCode::Deadline, "no answer came before the deadline"));
            *slot = Slot::Done { id: *id, outcome };
        }
        self.forgiven += cancelled.len() as u64;
        self.earliest = earliest;
        (cancelled, wakers)
    }

    /// Fails everything; `None` if that was done before.
    pub(super) fn close(&mut self, reason: &CloseReason) -> Option<Vec<Waker>> {
        if self.closed.is_some() {
            return None;
        }
        self.closed = Some(reason.clone());
        self.earliest = None;
        let mut wakers = Vec::new();
        for slot in &mut self.slots {
            if let Slot::Waiting { id, waker, .. } = slot {
                wakers.extend(waker.take());
                *slot = Slot::Done { id: *id, outcome: Err(reason.failure()) };
            }
        }
        Some(wakers)
    }
}

fn lost() -> Failure {
    Failure::new(ErrorCode::Internal, "the answer was taken before")
}
