//! What the guard asks of the broker: whose rights count, and where decisions are recorded.
//!
//! Every way out of one instance shares one [`Rights`]: `http.fetch`, and the proxy for programs that
//! make their own connections. It decides nothing by itself; the caller's rules do.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use palisade_audit::{Act, Decision, RecordKind};
use palisade_broker::{Caller, Gate};
use palisade_egress::{Authority, Decide, Entry, Standing, Verdict, decide::names};
use palisade_model::{Access, Failure};
use palisade_policy::{Decision as Answer, DenyRule};

/// The rights of one caller towards the network, as they are at each question: a grant that is taken
/// back counts at the next one.
///
/// Repetitions within a second are counted in the record, not written. So that no byte is lost with
/// them, the end of a connection names the sums over all connections of this value too; make one for
/// each instance.
pub struct Rights {
    gate: Gate,
    caller: Arc<Caller>,
    closed: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Rights {
    /// The rights of `caller`, decided and recorded by `gate`.
    #[must_use]
    pub fn new(gate: Gate, caller: Arc<Caller>) -> Self {
        let zero = || AtomicU64::new(0);
        Self { gate, caller, closed: zero(), sent: zero(), received: zero() }
    }

    /// Whose rights they are.
    #[must_use]
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// Adds to the sums and puts them into words.
    fn account(&self, sent: u64, received: u64) -> String {
        let add = |sum: &AtomicU64, n: u64| sum.fetch_add(n, Ordering::Relaxed).wrapping_add(n);
        let all_sent = add(&self.sent, sent);
        let all_received = add(&self.received, received);
        let connections = add(&self.closed, 1);
        format!(
            "{sent} bytes sent, {received} received; in {connections} connections so far \
             {all_sent} sent, {all_received} received"
        )
    }
}

impl Decide for Rights {
    fn decide(&self, access: &Access<'_>) -> Result<(), Failure> {
        self.gate.decide(&self.caller, access)
    }

    /// For an owner nothing is named: it may ask for every name, and addresses that are not of the open
    /// internet are still the operator's to allow.
    fn standing(&self, access: &Access<'_>) -> Standing {
        let Some(rules) = self.caller.rules() else { return Standing::Silent };
        if let Answer::Deny(denial) = rules.decide(access)
            && matches!(denial.rule, DenyRule::Forbidden(_) | DenyRule::NotATarget)
        {
            return Standing::Forbidden;
        }
        let Ok(authority) = Authority::parse(access.target) else { return Standing::Forbidden };
        match rules.rights().iter().any(|right| names(right, access.kind, &authority)) {
            true => Standing::Named,
            false => Standing::Silent,
        }
    }

    fn record(&self, entry: &Entry<'_>) {
        let kind = match entry.verdict {
            Verdict::Closed { .. } => RecordKind::EgressClosed,
            _ => RecordKind::Egress,
        };
        let target = entry.authority.to_string();
        let act = Act::new(kind, Arc::clone(self.caller.principal()))
            .access(&Access::new(entry.kind, &target))
            .coalesce();
        let (act, code) = match entry.verdict {
            Verdict::Allowed { address } => {
                let act =
                    act.decision(Decision::Allow, self.rule(&Access::new(entry.kind, &target)));
                (act.detail(&format!("at {address}")), None)
            }
            Verdict::Refused { failure } => {
                let act = act.decision(Decision::Deny, failure.rule.clone());
                (act.detail(&failure.message), Some(failure.code))
            }
            Verdict::Closed { sent, received, failure } => {
                let counts = self.account(sent, received);
                match failure {
                    None => (act.detail(&counts), None),
                    Some(failure) => {
                        let detail = format!("{counts}; {}", failure.message);
                        (act.detail(&detail), Some(failure.code))
                    }
                }
            }
            // A verdict that is not known here yet: who and where still stand in the record.
            _ => (act, None),
        };
        self.gate.note(act, code);
    }
}

impl Rights {
    /// The right that allows `access`, in words.
    fn rule(&self, access: &Access<'_>) -> Option<String> {
        let Some(rules) = self.caller.rules() else { return Some("owner".to_owned()) };
        rules.decide(access).into_result().ok().map(ToString::to_string)
    }
}

#[cfg(test)]
mod tests;
