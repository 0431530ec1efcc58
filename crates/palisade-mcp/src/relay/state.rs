//! What a relay keeps in mind: who waits for what.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::RandomState},
    hash::BuildHasher as _,
    sync::Arc,
};

use bytes::Bytes;
use palisade_broker::Pass;
use tokio::time::Instant;

use crate::{message::IdKey, tools::Tools};

/// Requests of the client that may be open at the same time.
pub(super) const OPEN: usize = 1024;
/// Requests of the server that may wait for the client at the same time.
pub(super) const ASKED: usize = 64;
/// Calls that may wait for the list of tools at the same time.
pub(super) const HELD: usize = 32;
/// Bytes of them.
pub(super) const HELD_BYTES: usize = 32 << 20;
/// Requests that were given up and may still be answered; older ones are forgotten.
const GONE: usize = 1024;

/// What a request's answer is looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// `initialize` and `server/discover`.
    Start,
    /// `tools/list`.
    List,
    /// `tools/call`.
    Call,
    /// Anything else.
    Other,
}

/// A request of the client that was not answered yet.
pub(super) struct Open {
    /// The id as it was spelled.
    pub(super) id: Box<str>,
    pub(super) key: IdKey,
    pub(super) method: Box<str>,
    pub(super) what: What,
    pub(super) pass: Option<Pass>,
    pub(super) token: Option<IdKey>,
    pub(super) since: Instant,
    /// When it is given up; `None`: never.
    pub(super) deadline: Option<Instant>,
    /// A server that does not answer it in time is ended.
    pub(super) is_start: bool,
    /// The specification forbids it for `initialize`.
    pub(super) may_cancel: bool,
    /// It has not gone to the server yet.
    pub(super) is_held: bool,
}

/// A call that waits for the list of tools.
pub(super) struct Held {
    pub(super) key: IdKey,
    pub(super) id: Box<str>,
    /// The line as it is to go to the server.
    pub(super) line: Bytes,
    pub(super) call: Call,
}

/// What is known of a call.
pub(super) struct Call {
    pub(super) tool: Box<str>,
    pub(super) arguments: Bytes,
    pub(super) trace: Option<Arc<str>>,
    pub(super) token: Option<IdKey>,
}

/// The relay's own question for the list of tools.
pub(super) struct Listing {
    pub(super) key: IdKey,
    /// The `_meta` that its requests carry, where the client's have one.
    pub(super) meta: Option<String>,
    pub(super) pages: usize,
    pub(super) deadline: Instant,
}

pub(super) struct State {
    pub(super) open: HashMap<IdKey, Open>,
    /// Requests of the server that the client was shown.
    pub(super) asked: HashMap<IdKey, Pass>,
    pub(super) held: VecDeque<Held>,
    pub(super) held_bytes: usize,
    pub(super) listing: Option<Listing>,
    pub(super) tools: Tools,
    pub(super) client_closed: bool,
    gone: HashSet<IdKey>,
    gone_order: VecDeque<IdKey>,
    /// What the relay's own ids begin with.
    prefix: String,
    next: u64,
}

impl State {
    pub(super) fn new() -> Self {
        // Not a secret: it only has to be what no client happens to use.
        let salt = RandomState::new().hash_one(std::process::id());
        Self {
            open: HashMap::new(),
            asked: HashMap::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            listing: None,
            tools: Tools::default(),
            client_closed: false,
            gone: HashSet::new(),
            gone_order: VecDeque::new(),
            prefix: format!("palisade:{salt:016x}:"),
            next: 1,
        }
    }

    /// Whether an id is one that only the relay uses.
    pub(super) fn is_reserved(&self, key: &IdKey) -> bool {
        matches!(key, IdKey::Text(text) if text.starts_with(&self.prefix))
    }

    /// A new id of the relay's own, as text.
    pub(super) fn own_id(&mut self) -> String {
        let id = format!("{}{}", self.prefix, self.next);
        self.next += 1;
        id
    }

    pub(super) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether a request is open that will be answered one day: a subscription need not be.
    pub(super) fn owes_answers(&self) -> bool {
        self.open.values().any(|open| open.deadline.is_some())
    }

    pub(super) fn reopen(&mut self, open: Open) {
        self.open.insert(open.key.clone(), open);
    }

    /// Takes the request that an answer belongs to. Some servers answer a number with its text.
    pub(super) fn answered(&mut self, key: &IdKey) -> Option<Open> {
        let is_sent = |open: &Open| !open.is_held;
        if self.open.get(key).is_some_and(is_sent) {
            return self.open.remove(key);
        }
        let IdKey::Text(text) = key else { return None };
        let number = IdKey::Integer(text.parse().ok()?);
        if self.open.get(&number).is_some_and(is_sent) { self.open.remove(&number) } else { None }
    }

    /// Takes a request that the client gives up. Its answer may still come.
    pub(super) fn give_up(&mut self, key: &IdKey) -> Option<Open> {
        let open = self.open.remove(key)?;
        if open.is_held {
            self.unhold(key);
        } else {
            self.will_be_late(key.clone());
        }
        Some(open)
    }

    fn unhold(&mut self, key: &IdKey) {
        if let Some(at) = self.held.iter().position(|held| held.key == *key)
            && let Some(held) = self.held.remove(at)
        {
            self.held_bytes = self.held_bytes.saturating_sub(held.line.len());
        }
    }

    fn will_be_late(&mut self, key: IdKey) {
        if self.gone.insert(key.clone()) {
            self.gone_order.push_back(key);
        }
        if self.gone_order.len() > GONE
            && let Some(oldest) = self.gone_order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }

    /// Whether an answer belongs to a request that was given up; it counts once.
    pub(super) fn is_late(&mut self, key: &IdKey) -> bool {
        self.gone.remove(key)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let listing = self.listing.as_ref().map(|l| l.deadline);
        self.open.values().filter_map(|open| open.deadline).chain(listing).min()
    }

    /// Takes the requests whose time has passed.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<Open> {
        let late = |open: &Open| open.deadline.is_some_and(|at| at <= now);
        let keys: Vec<IdKey> =
            self.open.iter().filter(|(_, o)| late(o)).map(|(k, _)| k.clone()).collect();
        keys.iter().filter_map(|key| self.give_up(key)).collect()
    }

    pub(super) fn listing_is_late(&self, now: Instant) -> bool {
        self.listing.as_ref().is_some_and(|listing| listing.deadline <= now)
    }
}
