//! The operator's policy: what is demanded of every wall and of those of single plugins, what nobody may
//! have, and how much of each resource.

use palisade_model::{Capability, ErrorCode, Failure, GuaranteeSet, Limits, PluginId};

use crate::{Ceilings, Forbidden, PluginFloor, PolicyError, forbid};

/// Longest policy text, in bytes.
pub const MAX_POLICY_LEN: usize = 1 << 20;

/// The most forbids in one policy.
pub const MAX_FORBIDS: usize = 4096;

/// The most patterns of plugins in one policy.
pub const MAX_PLUGINS: usize = 4096;

/// What the operator of this host decided. [`Default`] is the policy without any text: the default floor,
/// no forbids, consent allowed, no ceilings, every backend.
#[derive(Clone, Debug, PartialEq)]
pub struct OperatorPolicy {
    pub(crate) floor: GuaranteeSet,
    pub(crate) plugin_floors: Vec<PluginFloor>,
    pub(crate) forbids: Vec<Capability>,
    pub(crate) allow_consent: bool,
    pub(crate) require_seal: bool,
    pub(crate) ceilings: Ceilings,
    pub(crate) backends: Option<Vec<String>>,
}

impl Default for OperatorPolicy {
    fn default() -> Self {
        Self {
            floor: GuaranteeSet::default_floor(),
            plugin_floors: Vec::new(),
            forbids: Vec::new(),
            allow_consent: true,
            require_seal: false,
            ceilings: Ceilings::default(),
            backends: None,
        }
    }
}

impl OperatorPolicy {
    /// What every wall must give at least.
    #[must_use]
    pub fn floor(&self) -> &GuaranteeSet {
        &self.floor
    }

    /// What the walls of single plugins must give besides, in the order of their patterns.
    #[must_use]
    pub fn plugin_floors(&self) -> &[PluginFloor] {
        &self.plugin_floors
    }

    /// What the walls of the plugin with this id must give at least: the floor of every wall, and of each
    /// pattern that names the plugin, each guarantee at its highest level.
    #[must_use]
    pub fn floor_of(&self, id: &PluginId) -> GuaranteeSet {
        let of_it = self.plugin_floors.iter().filter(|of| of.names(id));
        of_it.fold(self.floor.clone(), |floor, of| floor.union(of.floor()))
    }

    /// What nobody may have, whatever is granted.
    #[must_use]
    pub fn forbids(&self) -> &[Capability] {
        &self.forbids
    }

    /// Whether people may consent on a terminal. Where not, only grants given beforehand count.
    #[must_use]
    pub fn allows_consent(&self) -> bool {
        self.allow_consent
    }

    /// Asked before a plugin is loaded.
    ///
    /// # Errors
    /// `PAL-DENIED` where only plugins may be loaded whose manifest names the digest of their files, their
    /// program among them, and this one's does not (`is_sealed`).
    pub fn check_seal(&self, is_sealed: bool) -> Result<(), Failure> {
        if is_sealed || !self.require_seal {
            return Ok(());
        }
        Err(Failure::new(
            ErrorCode::Denied,
            "the operator's policy takes only plugins whose manifest names the digest of their files, their program among them",
        )
        .rule("require-seal = true")
        .hint("palisade seal DIR writes the digest, and entry must start a file of the plugin's folder; do it for files that you know"))
    }

    /// Asked before a person is asked.
    ///
    /// # Errors
    /// `PAL-DENIED` where the policy does not let people consent on a terminal.
    pub fn check_consent(&self) -> Result<(), Failure> {
        if self.allow_consent {
            return Ok(());
        }
        Err(Failure::new(
            ErrorCode::Denied,
            "the operator's policy does not let people consent on a terminal",
        )
        .rule("allow-consent = false")
        .hint("name what you grant with --grant, or ask the operator"))
    }

    /// The most that a manifest may ask for.
    #[must_use]
    pub fn ceilings(&self) -> &Ceilings {
        &self.ceilings
    }

    /// What a plugin gets whose manifest says nothing about resources: the defaults, lowered to the
    /// ceilings.
    #[must_use]
    pub fn default_limits(&self) -> Limits {
        self.ceilings.lower(Limits::default())
    }

    /// The backends that may be used, in order of preference; `None` for all of them in the resolver's
    /// order. An empty list allows none.
    #[must_use]
    pub fn backends(&self) -> Option<&[String]> {
        self.backends.as_deref()
    }

    /// Of the backends at hand, those that the policy allows, in the policy's order.
    #[must_use]
    pub fn candidates<'b>(&self, at_hand: &[&'b str]) -> Vec<&'b str> {
        match &self.backends {
            None => at_hand.to_vec(),
            Some(allowed) => allowed
                .iter()
                .filter_map(|name| at_hand.iter().find(|b| *b == name).copied())
                .collect(),
        }
    }

    /// The first forbid that takes `right` away, if one does: the right lies within it, or is made true
    /// by a mount and overlaps it. Lexical: to be asked again with the real path once symbolic links
    /// were resolved.
    #[must_use]
    pub fn refuses(&self, right: &Capability) -> Option<Forbidden> {
        self.forbids.iter().find_map(|rule| {
            let why = forbid::refuses(rule, right)?;
            Some(Forbidden { right: right.clone(), rule: rule.clone(), why })
        })
    }
}

/// What the walls of the plugin with this id must give: the policy's floor for it and what its manifest adds. A
/// manifest can only raise it.
#[must_use]
pub fn demand(
    policy: &OperatorPolicy,
    id: &PluginId,
    manifest_adds: &GuaranteeSet,
) -> GuaranteeSet {
    policy.floor_of(id).union(manifest_adds)
}

/// Whether the limits that a manifest asks for lie under the operator's ceilings.
///
/// # Errors
/// [`PolicyError::OverCeiling`] naming every limit that does not, what is asked and what is allowed.
pub fn check_limits(limits: &Limits, policy: &OperatorPolicy) -> Result<(), PolicyError> {
    let excesses = policy.ceilings.exceeded_by(limits);
    if excesses.is_empty() { Ok(()) } else { Err(PolicyError::OverCeiling(excesses)) }
}
