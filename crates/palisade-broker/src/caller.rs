//! Who asks: a principal with its rules and rates.
//!
//! A caller is made by the transport that knows who is at the other end (the lane of an instance, the
//! control socket of a user), never from a message.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use palisade_audit::Clock;
use palisade_model::{InstanceId, Limits, Principal};
use palisade_policy::Rules;

use crate::{RateGate, bus::MAX_HOPS};

/// By what right a caller acts.
enum Authority {
    /// It owns the host: everything is allowed, and recorded.
    Owner,
    /// What its rules allow. They can be replaced while it runs.
    Rules(RwLock<Arc<Rules>>),
}

/// Somebody who asks, or of whom something is asked.
pub struct Caller {
    principal: Arc<Principal>,
    authority: Authority,
    /// How often the rules were replaced.
    version: AtomicU64,
    rates: Option<RateGate>,
    disk: Option<u64>,
    /// How many deliveries it is handling, by the hop count of the event.
    handling: [AtomicU32; MAX_HOPS as usize + 1],
}

impl Caller {
    /// The application that embeds Palisade: full authority, no rates.
    #[must_use]
    pub fn application() -> Arc<Self> {
        Self::make(Principal::Application, Authority::Owner, None, None)
    }

    /// A person who controls this host: full authority, no rates.
    #[must_use]
    pub fn operator(user: impl Into<String>) -> Arc<Self> {
        Self::make(Principal::Operator(user.into()), Authority::Owner, None, None)
    }

    /// A running plugin, held to its rules and rates.
    #[must_use]
    pub fn plugin(
        instance: InstanceId,
        rules: Arc<Rules>,
        limits: &Limits,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Self::limited(Principal::Plugin(instance), rules, limits, clock)
    }

    /// Anybody else (a client, another node), held to rules and rates. Never an owner, whatever
    /// `principal` says.
    #[must_use]
    pub fn limited(
        principal: Principal,
        rules: Arc<Rules>,
        limits: &Limits,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let authority = Authority::Rules(RwLock::new(rules));
        Self::make(principal, authority, Some(RateGate::new(limits, clock)), Some(limits.disk))
    }

    fn make(
        principal: Principal,
        authority: Authority,
        rates: Option<RateGate>,
        disk: Option<u64>,
    ) -> Arc<Self> {
        let handling = std::array::from_fn(|_| AtomicU32::new(0));
        let (principal, version) = (Arc::new(principal), AtomicU64::new(0));
        Arc::new(Self { principal, authority, version, rates, disk, handling })
    }

    /// Who it is.
    #[must_use]
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// Which instance it is, if it is a plugin.
    #[must_use]
    pub fn instance(&self) -> Option<&InstanceId> {
        match &*self.principal {
            Principal::Plugin(id) => Some(id),
            _ => None,
        }
    }

    /// Whether it owns the host.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        matches!(self.authority, Authority::Owner)
    }

    /// The rules in force; `None` for an owner.
    #[must_use]
    pub fn rules(&self) -> Option<Arc<Rules>> {
        match &self.authority {
            Authority::Owner => None,
            Authority::Rules(rules) => {
                Some(Arc::clone(&rules.read().unwrap_or_else(PoisonError::into_inner)))
            }
        }
    }

    /// Replaces the rules; the next decision uses them. An owner has none, and nothing changes.
    pub fn set_rules(&self, new: Arc<Rules>) {
        if let Authority::Rules(rules) = &self.authority {
            let mut rules = rules.write().unwrap_or_else(PoisonError::into_inner);
            *rules = new;
            // Under the lock: whoever sees the new number sees the new rules.
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Changes whenever the rules are replaced. Who wants to keep a decision asks for this first.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Asks the rules in force, without copying the handle to them. `None` for an owner.
    pub(crate) fn with_rules<T>(&self, ask: impl FnOnce(&Rules) -> T) -> Option<T> {
        match &self.authority {
            Authority::Owner => None,
            Authority::Rules(rules) => {
                Some(ask(&rules.read().unwrap_or_else(PoisonError::into_inner)))
            }
        }
    }

    /// Its rates; an owner has none.
    #[must_use]
    pub fn rates(&self) -> Option<&RateGate> {
        self.rates.as_ref()
    }

    /// How many bytes a service may keep for it on disk ([`Limits::disk`]); an owner has no bound.
    #[must_use]
    pub fn disk(&self) -> Option<u64> {
        self.disk
    }

    /// Notes that it handles a delivery of an event that was passed on `hops` times, until the guard
    /// is dropped. What it publishes meanwhile counts as passed on once more, so that plugins that
    /// answer each other's events in a circle are stopped even if they do not say what they answer.
    pub fn handle_delivery(self: &Arc<Self>, hops: u8) -> HopGuard {
        let hops = hops.min(MAX_HOPS);
        if let Some(count) = self.handling.get(usize::from(hops)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        HopGuard { caller: Arc::clone(self), hops }
    }

    /// The hop count of what it publishes now: 0, or one more than the highest of what it handles.
    #[must_use]
    pub fn hops(&self) -> u8 {
        let highest = self.handling.iter().rposition(|n| n.load(Ordering::Relaxed) > 0);
        highest.map_or(0, |h| u8::try_from(h).unwrap_or(MAX_HOPS).saturating_add(1))
    }
}

/// Held while a plugin handles a delivery.
#[must_use = "the delivery counts as handled when this is dropped"]
pub struct HopGuard {
    caller: Arc<Caller>,
    hops: u8,
}

impl Drop for HopGuard {
    fn drop(&mut self) {
        if let Some(count) = self.caller.handling.get(usize::from(self.hops)) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_while_an_event_is_handled_has_gone_one_hop_further() {
        let caller = Caller::application();
        assert_eq!(caller.hops(), 0);
        let third = caller.handle_delivery(3);
        let first = caller.handle_delivery(1);
        assert_eq!(caller.hops(), 4);
        drop(third);
        assert_eq!(caller.hops(), 2);
        drop(first);
        assert_eq!(caller.hops(), 0);
        let last = caller.handle_delivery(200);
        assert_eq!(caller.hops(), MAX_HOPS + 1, "one more than may be published");
        drop(last);
    }
}
