//! What is about to happen, in the form that the gate hands to a recorder.
//!
//! Building an [`Act`] is on the path of a call: it copies, hashes as a rule nothing, and leaves hashing,
//! rendering and escaping to the recorder's own thread.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use palisade_model::{Access, ErrorCode, InstanceId, Kind, Payload, PluginRef, Principal};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Stamp;

/// Most characters of a target, rule or detail in a record.
pub const MAX_TEXT_CHARS: usize = 512;
/// Most characters of a trace context in a record; a W3C traceparent has 55.
pub const MAX_TRACE_CHARS: usize = 128;
/// Payloads up to this many bytes are always copied and hashed by the recorder; larger ones where the
/// copies of all of them together stay within [`MAX_HELD_BYTES`], else by the caller.
const MAX_DEFERRED_BYTES: usize = 512;
/// Most bytes of larger payloads that wait in this process for their hash: 16 MiB.
const MAX_HELD_BYTES: usize = 16 << 20;
/// How many wait now.
static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);

/// What kind of act a record is about. Plugins never choose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RecordKind {
    /// An instance is started.
    Launch,
    /// An instance is asked to end.
    Stop,
    /// An instance has ended.
    Exit,
    /// A call into a plugin.
    Call,
    /// A request from a plugin to the host.
    Request,
    /// An event is published or delivered.
    Event,
    /// Events are subscribed to.
    Subscribe,
    /// A person was asked and answered.
    Consent,
    /// A right is granted or taken back.
    Grant,
    /// The operator's rules change.
    Policy,
    /// Something that a plugin offers is registered.
    Registration,
    /// A secret is handed out.
    Secret,
    /// A destination on the network is allowed or refused.
    Egress,
    /// A connection to the network has ended; how much went over it stands in the detail.
    EgressClosed,
    /// A plugin broke the protocol, or made a system call that no honest program makes.
    Breach,
    /// Output of a plugin was dropped because it wrote faster than it may.
    LogDropped,
    /// Records were dropped; `repeats` says how many.
    RecordsDropped,
    /// The record was opened: `seq` goes on from the file's last, `correlation` starts again at 1.
    LogOpened,
    /// The record was closed in order.
    LogClosed,
}

/// How firmly an act is tied to its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The intent is on disk before the act; without it there is no act.
    FailClosed,
    /// Written soon after (within 10 ms as a rule); what had to be dropped is counted.
    Bulk,
}

impl RecordKind {
    /// The class. The kind decides, so that nobody can pass a grant off as an event.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Launch
            | Self::Stop
            | Self::Consent
            | Self::Grant
            | Self::Policy
            | Self::Secret => Class::FailClosed,
            _ => Class::Bulk,
        }
    }
}

/// Which side of an act a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It is about to happen.
    Intent,
    /// What came of it. Where the intent stands in the same group commit, this is the only record.
    Outcome,
    /// A fact without duration.
    Note,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// It may happen.
    Allow,
    /// It may not.
    Deny,
}

/// What came of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It failed with this code.
    Failed(ErrorCode),
    /// Whoever asked gave up first; how far it had got is not known.
    Cancelled,
}

impl Outcome {
    /// The error code, if it was not done.
    #[must_use]
    pub const fn code(self) -> Option<ErrorCode> {
        match self {
            Self::Done => None,
            Self::Failed(code) => Some(code),
            Self::Cancelled => Some(ErrorCode::Cancelled),
        }
    }
}

/// The parameters' hash, or the bytes that it will be computed from.
#[derive(Clone, Debug)]
pub(crate) enum PayloadHash {
    Deferred(Box<[u8]>),
    Held(Arc<Held>),
    Ready([u8; 32]),
}

/// A copy of a larger payload, within what may be held of them.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: Box<[u8]>,
    digest: OnceLock<[u8; 32]>,
}

impl Held {
    fn new(bytes: &[u8]) -> Option<Arc<Self>> {
        let more =
            |held: usize| held.checked_add(bytes.len()).filter(|held| *held <= MAX_HELD_BYTES);
        HELD_BYTES.try_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Arc::new(Self { bytes: bytes.into(), digest: OnceLock::new() }))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD_BYTES.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

impl PayloadHash {
    fn new(bytes: &[u8]) -> Self {
        if bytes.len() <= MAX_DEFERRED_BYTES {
            return Self::Deferred(bytes.into());
        }
        match Held::new(bytes) {
            Some(held) => Self::Held(held),
            None => Self::Ready(Sha256::digest(bytes).into()),
        }
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        match self {
            Self::Deferred(bytes) => Sha256::digest(bytes).into(),
            Self::Held(held) => *held.digest.get_or_init(|| Sha256::digest(&held.bytes).into()),
            Self::Ready(digest) => *digest,
        }
    }
}

/// What is about to happen, or has happened: who, what kind, on what, and what was decided.
#[derive(Clone, Debug)]
pub struct Act {
    pub(crate) kind: RecordKind,
    pub(crate) actor: Arc<Principal>,
    pub(crate) plugin: Option<Arc<PluginRef>>,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) capability: Option<Kind>,
    pub(crate) target: Option<Box<str>>,
    pub(crate) decision: Option<Decision>,
    pub(crate) rule: Option<String>,
    pub(crate) payload: Option<(PayloadHash, u64)>,
    pub(crate) trace: Option<Arc<str>>,
    pub(crate) detail: Option<Box<str>>,
    pub(crate) coalesce: bool,
}

/// The first `max + 1` characters, so that the renderer sees that there was more and marks the cut.
fn bounded(text: &str, max: usize) -> &str {
    match text.char_indices().nth(max.saturating_add(1)) {
        Some((end, _)) => text.get(..end).unwrap_or_default(),
        None => text,
    }
}

impl Act {
    /// An act of `kind` by `actor`.
    #[must_use]
    pub fn new(kind: RecordKind, actor: Arc<Principal>) -> Self {
        Self {
            kind,
            actor,
            plugin: None,
            instance: None,
            capability: None,
            target: None,
            decision: None,
            rule: None,
            payload: None,
            trace: None,
            detail: None,
            coalesce: false,
        }
    }

    /// Which kind of act this is.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// Names the plugin that it is about. Without it, the actor if that is a plugin.
    #[must_use]
    pub fn plugin(mut self, plugin: Arc<PluginRef>) -> Self {
        self.plugin = Some(plugin);
        self
    }

    /// Names the instance that it is about. Without it, the actor if that is a plugin.
    #[must_use]
    pub fn instance(mut self, instance: InstanceId) -> Self {
        self.instance = Some(instance);
        self
    }

    /// Names what is accessed: capability and target.
    #[must_use]
    pub fn access(mut self, access: &Access<'_>) -> Self {
        self.capability = Some(access.kind);
        self.target(access.target)
    }

    /// Names what it is done to, where that is not an access: a tool, a method, a capability in words.
    /// At most [`MAX_TEXT_CHARS`] characters are kept, and they are escaped.
    #[must_use]
    pub fn target(mut self, target: &str) -> Self {
        self.target = Some(bounded(target, MAX_TEXT_CHARS).into());
        self
    }

    /// What was decided, and by which rule.
    #[must_use]
    pub fn decision(mut self, decision: Decision, rule: Option<String>) -> Self {
        self.decision = Some(decision);
        self.rule = rule;
        self
    }

    /// Puts the parameters' size and SHA-256 into the record, never their content.
    #[must_use]
    pub fn payload(mut self, payload: &Payload) -> Self {
        let bytes = payload.bytes();
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.payload = Some((PayloadHash::new(bytes), size));
        self
    }

    /// Ties the record to a W3C trace context.
    #[must_use]
    pub fn trace(mut self, trace: Option<Arc<str>>) -> Self {
        self.trace = trace.map(|t| match bounded(&t, MAX_TRACE_CHARS) {
            short if short.len() < t.len() => short.into(),
            _ => t,
        });
        self
    }

    /// Adds a few words. At most [`MAX_TEXT_CHARS`] characters are kept, and they are escaped.
    #[must_use]
    pub fn detail(mut self, detail: &str) -> Self {
        self.detail = Some(bounded(detail, MAX_TEXT_CHARS).into());
        self
    }

    /// Allows the recorder to count repetitions of this act within a second instead of writing each.
    /// Denials are always counted so. Has no effect on the fail-closed class.
    #[must_use]
    pub fn coalesce(mut self) -> Self {
        self.coalesce = true;
        self
    }

    /// Keeps of a large payload only the hash: for whoever holds acts for long.
    pub(crate) fn hashed(mut self) -> Self {
        if let Some((hash @ PayloadHash::Held(_), _)) = &mut self.payload {
            *hash = PayloadHash::Ready(hash.digest());
        }
        self
    }

    pub(crate) fn may_coalesce(&self) -> bool {
        self.kind.class() == Class::Bulk && (self.coalesce || self.decision == Some(Decision::Deny))
    }
}

/// An act with the moment at which it was recorded.
#[derive(Debug)]
pub(crate) struct Stamped {
    pub(crate) act: Act,
    pub(crate) at: Stamp,
    pub(crate) correlation: u64,
}

/// A recorded intent: the ticket with which its outcome is recorded.
#[derive(Debug)]
#[must_use = "an intent without an outcome says that the host died in between"]
pub struct Intent(pub(crate) Arc<Stamped>);

impl Intent {
    /// The number that ties intent and outcome together, unique since the record was opened.
    #[must_use]
    pub fn correlation(&self) -> u64 {
        self.0.correlation
    }
}
