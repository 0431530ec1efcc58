//! From requests, grants and the policy to the rights that hold.

use std::fmt;

use palisade_model::{Capability, CapabilitySet, ErrorCode, Failure, text::escape};
use serde::Serialize;

use crate::{Forbidden, Grant, OperatorPolicy, Requested, grant_option};

/// The rights that hold, and what became of everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// What the plugin may do, but for forbids that only overlap; those are asked at each decision.
    pub rights: CapabilitySet,
    /// Required capabilities of which no part is granted (or what was granted is forbidden). Not empty:
    /// the plugin does not start.
    pub missing_required: Vec<Capability>,
    /// Optional capabilities of which no part is granted.
    pub missing_optional: Vec<Capability>,
    /// Grants that gave nothing, and why.
    pub unused_grants: Vec<UnusedGrant>,
    /// Rights that the policy takes away. A request that nobody granted stands here too if no grant
    /// could help.
    pub forbidden: Vec<Forbidden>,
}

/// A grant that gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnusedGrant {
    /// What was granted.
    pub capability: Capability,
    /// Why it gave nothing.
    pub why: Unused,
}

/// Why a grant gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unused {
    /// It was given for another version of the manifest.
    OtherManifest,
    /// Its time is over.
    Expired {
        /// The first second in which it no longer counted, since 1970.
        until: u64,
    },
    /// The manifest asks for nothing that lies within it or that it lies within.
    NotRequested,
}

impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherManifest => f.write_str("it was given for another version of the manifest"),
            Self::Expired { until } => write!(f, "it ended at {until} seconds since 1970"),
            Self::NotRequested => f.write_str("the manifest does not ask for it"),
        }
    }
}

/// What holds at `now` (seconds since 1970) for the manifest with this digest.
///
/// For each request and each grant that counts: a request within the grant holds as requested; a grant
/// within the request holds as granted, since a person may narrow what is asked; where neither lies
/// within the other nothing holds, because intersections of patterns are never computed. Then the
/// policy's forbids take away what lies within them, and mounted rights that overlap them.
#[must_use]
pub fn effective(
    requested: &Requested,
    grants: &[Grant],
    policy: &OperatorPolicy,
    now: u64,
    digest: &[u8; 32],
) -> Effective {
    let mut out = Effective::default();
    let mut counting = Vec::new();
    for grant in grants {
        let capability = &grant.capability;
        let related = |r: &Capability| r.is_subset_of(capability) || capability.is_subset_of(r);
        match grant.counts(now, digest) {
            Err(why) => out.unused_grants.push(UnusedGrant { capability: capability.clone(), why }),
            Ok(()) if requested.all().any(related) => counting.push(capability),
            Ok(()) => out
                .unused_grants
                .push(UnusedGrant { capability: capability.clone(), why: Unused::NotRequested }),
        }
    }
    for (requests, required) in [(&requested.required, true), (&requested.optional, false)] {
        for request in requests.iter() {
            if !out.add_from(request, &counting, policy) {
                let missing =
                    if required { &mut out.missing_required } else { &mut out.missing_optional };
                missing.push(request.clone());
            }
        }
    }
    out
}

impl Effective {
    /// Adds what `grants` give of `request`; says whether that is anything.
    fn add_from(
        &mut self,
        request: &Capability,
        grants: &[&Capability],
        policy: &OperatorPolicy,
    ) -> bool {
        let candidates: CapabilitySet = grants
            .iter()
            .filter_map(|grant| {
                if request.is_subset_of(grant) {
                    Some(request.clone())
                } else {
                    grant.is_subset_of(request).then(|| (*grant).clone())
                }
            })
            .collect();
        if candidates.is_empty() {
            if let Some(forbidden) = policy.refuses(request) {
                self.note(forbidden);
            }
            return false;
        }
        let mut any = false;
        for right in candidates.iter() {
            match policy.refuses(right) {
                Some(forbidden) => self.note(forbidden),
                None => {
                    self.rights.insert(right.clone());
                    any = true;
                }
            }
        }
        any
    }

    fn note(&mut self, forbidden: Forbidden) {
        if !self.forbidden.contains(&forbidden) {
            self.forbidden.push(forbidden);
        }
    }

    /// Whether the plugin has all that it must have.
    ///
    /// # Errors
    /// `PAL-DENIED` naming every missing required capability, with the options that would grant those
    /// that can be granted.
    pub fn require(&self) -> Result<(), Failure> {
        if self.missing_required.is_empty() {
            return Ok(());
        }
        let names: Vec<String> =
            self.missing_required.iter().map(|c| escape(&c.to_string(), 400)).collect();
        let rule = |c: &Capability| self.forbidden.iter().find(|f| f.right.is_subset_of(c));
        let (mut rules, mut options) = (Vec::new(), Vec::new());
        for missing in &self.missing_required {
            match (rule(missing), grant_option(missing)) {
                (Some(forbidden), _) => rules.push(forbidden.to_string()),
                (None, Some(option)) => options.push(option),
                (None, None) => {}
            }
        }
        let mut failure = Failure::new(
            ErrorCode::Denied,
            format!("required capabilities are missing: {}", names.join(", ")),
        );
        if options.len() < self.missing_required.len() && !rules.is_empty() {
            failure = failure.rule(rules.join("; "));
        } else {
            failure = failure.rule("a required capability needs a grant that counts");
        }
        Err(if options.is_empty() { failure } else { failure.hint(options.join(" ")) })
    }
}
