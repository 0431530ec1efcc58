//! Sets of capabilities.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use super::{Access, Capability, Kind};

/// Rights held together. Allows what one of its members covers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CapabilitySet(BTreeSet<Capability>);

impl CapabilitySet {
    /// The empty set: everything denied.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a capability; says whether it was new.
    pub fn insert(&mut self, capability: Capability) -> bool {
        self.0.insert(capability)
    }

    /// The member that covers `access`, if one does.
    #[must_use]
    pub fn allows(&self, access: &Access<'_>) -> Option<&Capability> {
        self.of_kind(access.kind).find(|c| c.covers(access))
    }

    /// The members of one kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Capability> + '_ {
        self.0.iter().filter(move |c| c.kind() == kind)
    }

    /// All members, ordered by kind and scope.
    pub fn iter(&self) -> impl Iterator<Item = &Capability> + '_ {
        self.0.iter()
    }

    /// Whether one member of this set covers all that `capability` covers.
    #[must_use]
    pub fn contains(&self, capability: &Capability) -> bool {
        self.of_kind(capability.kind()).any(|c| capability.is_subset_of(c))
    }

    /// Whether each member of this set lies within one member of `other`. True only if everything that
    /// this set allows is allowed by `other`. The converse does not hold where several members of
    /// `other` would have to be put together to cover one of this set: that counts as "no".
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.0.iter().all(|c| other.contains(c))
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Capability> for CapabilitySet {
    fn from_iter<T: IntoIterator<Item = Capability>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl Extend<Capability> for CapabilitySet {
    fn extend<T: IntoIterator<Item = Capability>>(&mut self, iter: T) {
        self.0.extend(iter);
    }
}

impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, c) in self.0.iter().enumerate() {
            write!(f, "{}{c}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
