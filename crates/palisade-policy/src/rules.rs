//! Compiled rules: the effective rights and the forbids of one instance, ready to be asked at each
//! request.

use std::collections::BTreeSet;

use palisade_model::{Access, Capability, CapabilitySet, Enforcement, Failure};

use crate::{Decision, Denial, DenyRule, forbid, index::Index};

/// What one plugin may do. Immutable; a changed grant makes a new one.
///
/// Deciding takes well under a microsecond for hundreds of rights and allocates nothing on allow, unless
/// the target has to be brought into canonical form first (upper case hosts, `//` in paths, IPv6).
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rights: Vec<Capability>,
    right_index: Index,
    /// Each forbid as it stands in the policy, once for each entry of its index.
    forbids: Vec<Capability>,
    forbid_index: Index,
    requested: Option<CapabilitySet>,
}

impl Rules {
    /// Compiles `rights` and the policy's `forbids`.
    #[must_use]
    pub fn new<'f>(
        rights: CapabilitySet,
        forbids: impl IntoIterator<Item = &'f Capability>,
    ) -> Self {
        let unique: BTreeSet<&Capability> = forbids.into_iter().collect();
        let (mut expanded, mut origins) = (Vec::new(), Vec::new());
        for rule in unique {
            for one in forbid::expand(rule) {
                expanded.push(one);
                origins.push(rule.clone());
            }
        }
        let rights: Vec<Capability> = rights.iter().cloned().collect();
        Self {
            right_index: Index::new(rights.iter()),
            forbid_index: Index::new(expanded.iter()),
            rights,
            forbids: origins,
            requested: None,
        }
    }

    /// Adds what the manifest asks for, so that a denial can say whether a grant would help.
    #[must_use]
    pub fn with_requested(mut self, requested: CapabilitySet) -> Self {
        self.requested = Some(requested);
        self
    }

    /// Allowed if a right covers the access and no forbid does; all else is denied.
    #[must_use]
    pub fn decide<'a>(&self, access: &Access<'a>) -> Decision<'_, 'a> {
        let deny = |rule| {
            let requested = self.requested.as_ref().map(|r| r.allows(access).is_some());
            Decision::Deny(Denial { access: *access, rule, requested })
        };
        let Some(target) = access.canonical_target() else {
            return deny(DenyRule::NotATarget);
        };
        if let Some(rule) =
            self.forbid_index.find(access.kind, &target).and_then(|n| self.forbids.get(n))
        {
            return deny(DenyRule::Forbidden(rule));
        }
        // The matcher of the model has the last word, so that a mistake in the index could only deny.
        let right = self.right_index.find(access.kind, &target).and_then(|n| self.rights.get(n));
        match right.filter(|right| right.covers(&Access::new(access.kind, &target))) {
            Some(by) => Decision::Allow { by },
            None if access.kind.enforcement() == Enforcement::Registration => {
                deny(DenyRule::NotDeclared)
            }
            None => deny(DenyRule::NotGranted),
        }
    }

    /// The rights, ordered by kind and scope.
    #[must_use]
    pub fn rights(&self) -> &[Capability] {
        &self.rights
    }
}

/// Whether a contribution (`tool`, `command`, `channel`, `service`, `hook`) may be registered. `declared`
/// is compiled from what the manifest declares, not from grants: declaring is enough, a forbid still
/// wins, and what is not declared is not registered.
///
/// # Errors
/// `PAL-DENIED` for what is not declared or is forbidden, and for every access of another kind.
pub fn registration_allowed<'r>(
    declared: &'r Rules,
    access: &Access<'_>,
) -> Result<&'r Capability, Failure> {
    if access.kind.enforcement() == Enforcement::Registration {
        return declared.decide(access).into_result();
    }
    let denial = Denial { access: *access, rule: DenyRule::NotDeclared, requested: None };
    Err(denial.to_failure())
}
