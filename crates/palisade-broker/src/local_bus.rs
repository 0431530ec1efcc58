//! The event bus within one process.
//!
//! Volatile: what waits is gone with the process, and what is published while nobody subscribes goes
//! nowhere. Publishing touches each fitting queue once and never waits.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use palisade_audit::BoxFuture;
use palisade_model::capability::SubjectPattern;
use tokio::{sync::Notify, time::Instant};

use crate::{
    BrokerError, Counters, Delivery, DeliveryId, Event, EventBus, Overflow, Published, Settlement,
    SubscribeOptions, Subscription,
};

/// Most subscriptions of one bus.
pub const MAX_SUBSCRIPTIONS: usize = 10_000;
/// Most deliveries that may wait for one subscription.
const MAX_CAPACITY: usize = 65_536;

/// A bus within this process.
pub struct LocalBus {
    /// Sets this bus's delivery ids apart from those of earlier ones.
    epoch: u64,
    next: AtomicU64,
    subscribers: RwLock<Vec<Weak<Subscriber>>>,
}

struct Subscriber {
    id: String,
    pattern: SubjectPattern,
    options: SubscribeOptions,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// With a handler, to be attempted again unless acknowledged. By number, so oldest first.
    unacknowledged: BTreeMap<u64, (Waiting, Instant)>,
    /// Bytes of both, and of the unacknowledged alone.
    bytes: usize,
    held_bytes: usize,
    next: u64,
    counters: Counters,
    ended: bool,
}

struct Waiting {
    number: u64,
    event: Arc<Event>,
    attempt: u32,
}

/// What one subscriber did with an event.
enum Offered {
    Queued,
    QueuedInPlaceOf(u32),
    Dropped,
    Refused,
}

impl LocalBus {
    /// A bus without subscriptions.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Arc::new(Self {
            epoch: u64::try_from(since.as_micros()).unwrap_or_default(),
            next: AtomicU64::new(1),
            subscribers: RwLock::default(),
        })
    }

    fn offer_to_all(&self, event: Event) -> Result<Published, BrokerError> {
        event.check()?;
        let event = Arc::new(event);
        let mut published = Published::default();
        let subscribers = self.subscribers.read().unwrap_or_else(PoisonError::into_inner);
        for subscriber in subscribers.iter().filter_map(Weak::upgrade) {
            if !subscriber.pattern.matches(&event.subject) {
                continue;
            }
            match subscriber.offer(&event) {
                Offered::Queued => published.queued += 1,
                Offered::QueuedInPlaceOf(older) => {
                    published.queued += 1;
                    published.dropped += older;
                }
                Offered::Dropped => published.dropped += 1,
                Offered::Refused => published.blocked += 1,
            }
        }
        Ok(published)
    }

    fn add(
        &self,
        pattern: SubjectPattern,
        options: SubscribeOptions,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        let options =
            SubscribeOptions { capacity: options.capacity.clamp(1, MAX_CAPACITY), ..options };
        let mut subscribers = self.subscribers.write().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|s| s.strong_count() > 0);
        if subscribers.len() >= MAX_SUBSCRIPTIONS {
            return Err(BrokerError::TooManySubscriptions(MAX_SUBSCRIPTIONS));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let subscriber = Arc::new(Subscriber {
            id: format!("{:x}-{number}", self.epoch),
            pattern,
            options,
            state: Mutex::default(),
            wake: Notify::new(),
        });
        subscribers.push(Arc::downgrade(&subscriber));
        Ok(Box::new(LocalSubscription(subscriber)))
    }
}

impl EventBus for LocalBus {
    fn publish(&self, event: Event) -> BoxFuture<'_, Result<Published, BrokerError>> {
        Box::pin(async move { self.offer_to_all(event) })
    }

    fn subscribe(
        &self,
        pattern: SubjectPattern,
        options: SubscribeOptions,
    ) -> BoxFuture<'_, Result<Box<dyn Subscription>, BrokerError>> {
        Box::pin(async move { self.add(pattern, options) })
    }

    fn is_durable(&self) -> bool {
        false
    }
}

impl Drop for LocalBus {
    fn drop(&mut self) {
        let subscribers = self.subscribers.get_mut().unwrap_or_else(PoisonError::into_inner);
        for subscriber in subscribers.iter().filter_map(Weak::upgrade) {
            subscriber.lock().ended = true;
            subscriber.wake.notify_one();
        }
    }
}

impl State {
    fn has_room(&self, options: &SubscribeOptions, weight: usize) -> bool {
        self.waiting.len() + self.unacknowledged.len() < options.capacity
            && self.bytes.saturating_add(weight) <= options.max_bytes
    }

    /// Whether there would be room if nothing waited.
    fn could_make_room(&self, options: &SubscribeOptions, weight: usize) -> bool {
        self.unacknowledged.len() < options.capacity
            && self.held_bytes.saturating_add(weight) <= options.max_bytes
    }

    /// Takes a delivery back from its handler.
    fn take_back(&mut self, number: u64) -> Option<Waiting> {
        let (waiting, _) = self.unacknowledged.remove(&number)?;
        self.held_bytes = self.held_bytes.saturating_sub(waiting.event.weight());
        Some(waiting)
    }

    fn forget(&mut self, event: &Event) {
        self.bytes = self.bytes.saturating_sub(event.weight());
    }

    /// Puts a delivery back in its place by number, or gives it up.
    fn again(&mut self, mut waiting: Waiting, max_attempts: u32) {
        if waiting.attempt >= max_attempts {
            self.counters.given_up += 1;
            self.forget(&waiting.event);
            return;
        }
        waiting.attempt += 1;
        self.counters.redelivered += 1;
        let place = self.waiting.partition_point(|w| w.number < waiting.number);
        self.waiting.insert(place, waiting);
    }

    /// Takes back what was not acknowledged in time.
    fn expire(&mut self, now: Instant, max_attempts: u32) {
        let late: Vec<u64> = self
            .unacknowledged
            .iter()
            .filter(|(_, (_, due))| *due <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            if let Some(waiting) = self.take_back(number) {
                self.again(waiting, max_attempts);
            }
        }
    }
}

/// What the consumer does next.
enum Step {
    Deliver(Delivery),
    End,
    /// Until woken, or until an acknowledgement is overdue.
    Wait(Option<Instant>),
}

impl Subscriber {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, event: &Arc<Event>) -> Offered {
        let weight = event.weight();
        let mut state = self.lock();
        let mut older = 0;
        if self.options.overflow == Overflow::DropOldest
            && state.could_make_room(&self.options, weight)
        {
            while !state.has_room(&self.options, weight) {
                let Some(oldest) = state.waiting.pop_front() else { break };
                state.forget(&oldest.event);
                state.counters.dropped += 1;
                older += 1;
            }
        }
        if !state.has_room(&self.options, weight) {
            if self.options.overflow == Overflow::Refuse {
                state.counters.blocked += 1;
                return Offered::Refused;
            }
            state.counters.dropped += 1;
            return Offered::Dropped;
        }
        let number = state.next;
        state.next += 1;
        state.bytes += weight;
        state.counters.queued += 1;
        state.waiting.push_back(Waiting { number, event: Arc::clone(event), attempt: 1 });
        drop(state);
        self.wake.notify_one();
        if older == 0 { Offered::Queued } else { Offered::QueuedInPlaceOf(older) }
    }

    fn step(self: &Arc<Self>) -> Step {
        let mut state = self.lock();
        let redelivery = self.options.redelivery;
        if let Some(redelivery) = redelivery {
            state.expire(Instant::now(), redelivery.max_attempts);
        }
        let Some(waiting) = state.waiting.pop_front() else {
            let due = state.unacknowledged.values().map(|(_, due)| *due).min();
            return if state.ended && due.is_none() { Step::End } else { Step::Wait(due) };
        };
        let (number, attempt) = (waiting.number, waiting.attempt);
        let event = Arc::clone(&waiting.event);
        match redelivery {
            Some(redelivery) => {
                let due = Instant::now() + redelivery.ack_timeout;
                state.held_bytes += event.weight();
                state.unacknowledged.insert(number, (waiting, due));
            }
            None => state.forget(&event),
        }
        drop(state);
        let id = DeliveryId(format!("{}-{number}", self.id).into());
        let subscriber = Arc::downgrade(self);
        Step::Deliver(Delivery::new(id, event, attempt, move |settlement| {
            if let Some(subscriber) = subscriber.upgrade() {
                subscriber.settle(number, attempt, settlement);
            }
        }))
    }

    fn settle(&self, number: u64, attempt: u32, settlement: Settlement) {
        let mut state = self.lock();
        let Some(redelivery) = self.options.redelivery else {
            match settlement {
                Settlement::Acknowledged => state.counters.acknowledged += 1,
                Settlement::Refused => state.counters.given_up += 1,
            }
            return;
        };
        // An answer to an attempt that was given up in the meantime counts for nothing.
        if state.unacknowledged.get(&number).is_none_or(|(w, _)| w.attempt != attempt) {
            return;
        }
        let Some(waiting) = state.take_back(number) else { return };
        match settlement {
            Settlement::Acknowledged => {
                state.counters.acknowledged += 1;
                state.forget(&waiting.event);
            }
            Settlement::Refused => state.again(waiting, redelivery.max_attempts),
        }
        drop(state);
        self.wake.notify_one();
    }
}

struct LocalSubscription(Arc<Subscriber>);

impl Subscription for LocalSubscription {
    fn next(&mut self) -> BoxFuture<'_, Option<Delivery>> {
        Box::pin(async move {
            loop {
                match self.0.step() {
                    Step::Deliver(delivery) => return Some(delivery),
                    Step::End => return None,
                    Step::Wait(None) => self.0.wake.notified().await,
                    Step::Wait(Some(due)) => {
                        // Either way the queue is looked at again.
                        let _ = tokio::time::timeout_at(due, self.0.wake.notified()).await;
                    }
                }
            }
        })
    }

    fn counters(&self) -> Counters {
        let state = self.0.lock();
        Counters {
            waiting: state.waiting.len() as u64,
            unacknowledged: state.unacknowledged.len() as u64,
            ..state.counters
        }
    }
}

#[cfg(test)]
mod tests;
