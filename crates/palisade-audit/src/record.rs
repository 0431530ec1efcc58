//! One record, as it is written and read: one JSON object on one line.
//!
//! Everything that a plugin can influence is a string that was bounded and escaped; it never decides
//! about the kind, the actor or the plugin that a record names.

use palisade_model::{ErrorCode, InstanceId, Principal, text::escape};
use serde::{Deserialize, Serialize};

use crate::{
    Chain, Decision, Outcome, Phase, RecordKind, Stamp,
    act::{MAX_TEXT_CHARS, MAX_TRACE_CHARS, Stamped},
    clock::rfc3339,
};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Position in the record, from 1, without gaps.
    pub seq: u64,
    /// Which boot of the machine `monotonic_ns` belongs to.
    pub boot: String,
    /// Wall time, RFC 3339 in UTC.
    pub time: String,
    /// Wall time in nanoseconds since 1970. Clocks are set, so this may go back; `seq` never does.
    pub unix_ns: u64,
    /// Monotonic time in nanoseconds, comparable within one boot.
    pub monotonic_ns: u64,
    /// Ties intent and outcome; unique since the last `log-opened`.
    pub correlation: u64,
    /// What it is about.
    pub kind: RecordKind,
    /// Intent, outcome or note.
    pub phase: Phase,
    /// Who acts.
    pub actor: String,
    /// The plugin that it is about: its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// Where that plugin comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Which loaded version of the plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Which start of the plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<u64>,
    /// The kind of right that it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// On what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// By which rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// SHA-256 of the parameters, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_sha256: Option<String>,
    /// Size of the parameters in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<u64>,
    /// Why it failed or was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    /// A few more words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// From intent to outcome in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// How many more of the same there were (or how many records were dropped).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<u64>,
    /// Where acts were counted as they happened: since when (RFC 3339 in UTC); `time` is until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// What ties the line to those before it ([`crate::Chain`]); only in a file, and always last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Chain>,
}

/// What a record says beyond its act.
pub(crate) struct Finish<'a> {
    pub(crate) phase: Phase,
    pub(crate) at: Stamp,
    pub(crate) code: Option<ErrorCode>,
    pub(crate) detail: Option<&'a str>,
    pub(crate) duration_us: Option<u64>,
}

impl<'a> Finish<'a> {
    /// An intent or a note of `stamped`.
    pub(crate) fn plain(phase: Phase, stamped: &Stamped, code: Option<ErrorCode>) -> Self {
        Finish { phase, at: stamped.at, code, detail: None, duration_us: None }
    }

    /// The outcome of `stamped` at `at`.
    pub(crate) fn outcome(
        stamped: &Stamped,
        at: Stamp,
        outcome: Outcome,
        detail: Option<&'a str>,
    ) -> Self {
        let ns = at.monotonic_ns.saturating_sub(stamped.at.monotonic_ns);
        let (phase, code) = (Phase::Outcome, outcome.code());
        Finish { phase, at, code, detail, duration_us: Some(ns / 1000) }
    }
}

/// Renders one record.
pub(crate) fn render(seq: u64, boot: &str, stamped: &Stamped, finish: &Finish<'_>) -> Record {
    let act = &stamped.act;
    let instance: Option<&InstanceId> = act.instance.as_ref().or(match &*act.actor {
        Principal::Plugin(id) if act.plugin.is_none() => Some(id),
        _ => None,
    });
    let plugin = act.plugin.as_ref().or(instance.map(|i| &i.plugin));
    let text = |t: &str| escape(t, MAX_TEXT_CHARS);
    Record {
        seq,
        boot: boot.to_owned(),
        time: rfc3339(finish.at.unix_ns),
        unix_ns: finish.at.unix_ns,
        monotonic_ns: finish.at.monotonic_ns,
        correlation: stamped.correlation,
        kind: act.kind,
        phase: finish.phase,
        actor: act.actor.to_string(),
        plugin: plugin.map(|p| p.id.to_string()),
        origin: plugin.map(|p| p.origin.to_string()),
        generation: instance.map(|i| i.generation.0),
        serial: instance.map(|i| i.serial),
        capability: act.capability.map(|k| k.as_str().to_owned()),
        target: act.target.as_deref().map(text),
        decision: act.decision,
        rule: act.rule.as_deref().map(text),
        payload_sha256: act.payload.as_ref().map(|(hash, _)| hex(&hash.digest())),
        payload_bytes: act.payload.as_ref().map(|(_, bytes)| *bytes),
        code: finish.code,
        detail: finish.detail.or(act.detail.as_deref()).map(text),
        duration_us: finish.duration_us,
        trace: act.trace.as_deref().map(|t| escape(t, MAX_TRACE_CHARS)),
        repeats: None,
        since: None,
        chain: None,
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0');
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}
