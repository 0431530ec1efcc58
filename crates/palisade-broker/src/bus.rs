//! The event bus: who publishes what to whom, as a trait.
//!
//! A delivery is acknowledged by its reply. It is attempted once, unless the subscription asks for
//! redelivery: then it comes again under the same id when it is refused, dropped or not acknowledged in
//! time, up to a bound. What happens when a queue is full is declared by the subscription, and the
//! publisher is told. A slow subscriber never holds up a publisher or another subscriber.
//!
//! A bus decides nothing about rights: the host asks the gate when somebody subscribes, and again for
//! each delivery.

use std::{fmt, sync::Arc, time::Duration};

use palisade_audit::BoxFuture;
use palisade_model::{Payload, Principal, capability::SubjectPattern};
use serde::{Deserialize, Serialize};

use crate::BrokerError;

/// How often an event may be passed on from handler to publisher.
pub const MAX_HOPS: u8 = 16;
/// Most bytes of an event's data.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is about: a subject without wildcards.
    pub subject: Arc<str>,
    /// What is said.
    pub data: Payload,
    /// How often it was passed on; 0 at its origin.
    pub hops: u8,
    /// W3C trace context.
    pub trace: Option<Arc<str>>,
    /// Who published it, as the host knows it.
    pub source: Arc<Principal>,
}

impl Event {
    /// An event at its origin.
    pub fn new(subject: impl Into<Arc<str>>, data: Payload, source: Arc<Principal>) -> Self {
        Self { subject: subject.into(), data, hops: 0, trace: None, source }
    }

    /// What keeps it in memory, in bytes, counted for queues.
    pub(crate) fn weight(&self) -> usize {
        self.data.len() + self.subject.len() + 128
    }

    /// What every bus checks before it takes an event.
    ///
    /// # Errors
    /// [`BrokerError`] for a subject that is none, too much data, or too many hops.
    pub fn check(&self) -> Result<(), BrokerError> {
        if !palisade_model::capability::is_valid_subject(&self.subject) {
            let shown = self.subject.chars().take(80).collect();
            return Err(BrokerError::Subject(shown));
        }
        if self.data.len() > MAX_EVENT_BYTES {
            let bytes = self.data.len();
            return Err(BrokerError::EventTooLarge { bytes, max: MAX_EVENT_BYTES });
        }
        if self.hops > MAX_HOPS {
            return Err(BrokerError::Loop { hops: self.hops, max: MAX_HOPS });
        }
        Ok(())
    }
}

/// What became of an event, over all subscriptions whose pattern fits.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Published {
    /// Queues that took it.
    pub queued: u32,
    /// Deliveries that were dropped for it: itself, or an older one in its place.
    pub dropped: u32,
    /// Subscriptions that were full and refuse rather than drop.
    pub blocked: u32,
}

/// What a subscription does with an event for which it has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// Drops the oldest that waits.
    #[default]
    DropOldest,
    /// Drops the new one.
    DropNewest,
    /// Takes nothing until there is room; the publisher is told (`blocked`) and may try again.
    Refuse,
}

/// Asks for delivery at least once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Redelivery {
    /// How often one delivery is attempted. At least 1.
    pub max_attempts: u32,
    /// How long an acknowledgement may take.
    pub ack_timeout: Duration,
}

/// How a subscription wants to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscribeOptions {
    /// Most deliveries that wait, those without acknowledgement included. 1..=65536 (values outside
    /// are brought in).
    pub capacity: usize,
    /// Most bytes that wait.
    pub max_bytes: usize,
    /// What happens when there is no room.
    pub overflow: Overflow,
    /// `None`: each delivery is attempted once.
    pub redelivery: Option<Redelivery>,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        let overflow = Overflow::default();
        Self { capacity: 1024, max_bytes: 16 << 20, overflow, redelivery: None }
    }
}

/// Names one delivery to one subscription; the same in each attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub Arc<str>);

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settlement {
    /// It was handled.
    Acknowledged,
    /// It was refused, or its handler went away.
    Refused,
}

type Settle = Box<dyn FnOnce(Settlement) + Send>;

/// One event for one subscription. Dropping it refuses it.
pub struct Delivery {
    id: DeliveryId,
    event: Arc<Event>,
    attempt: u32,
    settle: Option<Settle>,
}

impl Delivery {
    /// For buses: a delivery that calls `settle` once, when it has ended.
    #[must_use]
    pub fn new(
        id: DeliveryId,
        event: Arc<Event>,
        attempt: u32,
        settle: impl FnOnce(Settlement) + Send + 'static,
    ) -> Self {
        Self { id, event, attempt, settle: Some(Box::new(settle)) }
    }

    /// Which delivery this is.
    #[must_use]
    pub fn id(&self) -> &DeliveryId {
        &self.id
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> &Arc<Event> {
        &self.event
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// It was handled.
    pub fn ack(mut self) {
        self.end(Settlement::Acknowledged);
    }

    /// It was not handled: where the subscription asked for redelivery, it comes again.
    pub fn nack(mut self) {
        self.end(Settlement::Refused);
    }

    fn end(&mut self, settlement: Settlement) {
        if let Some(settle) = self.settle.take() {
            settle(settlement);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.end(Settlement::Refused);
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.id)
            .field("subject", &self.event.subject)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// What a subscription has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Events that were taken into its queue.
    pub queued: u64,
    /// Deliveries that were dropped for want of room.
    pub dropped: u64,
    /// Events that it had no room for and refused.
    pub blocked: u64,
    /// Deliveries that were acknowledged.
    pub acknowledged: u64,
    /// Attempts that were made again.
    pub redelivered: u64,
    /// Deliveries that were given up: refused where one attempt is made, or in the last attempt.
    pub given_up: u64,
    /// Deliveries that wait now.
    pub waiting: u64,
    /// Deliveries that are with a handler and will be attempted again if that fails.
    pub unacknowledged: u64,
}

/// A stream of deliveries. Dropping it ends the subscription.
pub trait Subscription: Send {
    /// The next delivery; `None` when the bus has ended and nothing waits. Dropping the future loses
    /// nothing.
    fn next(&mut self) -> BoxFuture<'_, Option<Delivery>>;

    /// What it has seen.
    fn counters(&self) -> Counters;
}

/// Carries events from publishers to subscribers.
pub trait EventBus: Send + Sync {
    /// Offers `event` to all subscriptions whose pattern fits. Events of one publisher that waits for
    /// each to return arrive in that order at each subscription, in their first attempts.
    ///
    /// # Errors
    /// As [`Event::check`], or when the bus cannot be reached.
    fn publish(&self, event: Event) -> BoxFuture<'_, Result<Published, BrokerError>>;

    /// Subscribes to every subject that fits `pattern`, from now on.
    ///
    /// # Errors
    /// When the bus takes no more subscriptions or cannot be reached.
    fn subscribe(
        &self,
        pattern: SubjectPattern,
        options: SubscribeOptions,
    ) -> BoxFuture<'_, Result<Box<dyn Subscription>, BrokerError>>;

    /// Whether events that wait outlive this process.
    fn is_durable(&self) -> bool;
}
