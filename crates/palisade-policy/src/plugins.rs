//! What the policy demands of the walls of single plugins, beside what it demands of every wall.

use palisade_model::{Access, Capability, GuaranteeSet, Kind, PluginId};

/// The floor of the plugins that a pattern names. It comes on top of the policy's floor, and only raises it.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginFloor {
    /// The ids as the scope of a right to call them, so that there is one way to write names.
    named: Capability,
    pub(crate) floor: GuaranteeSet,
}

impl PluginFloor {
    /// For the plugins that `pattern` names: an id, the beginning of ids followed by `*`, or `*`. A pattern that no
    /// id can fit is refused, since a rule for nobody is a mistake. Nothing is demanded yet.
    pub(crate) fn of(pattern: &str) -> Result<Self, String> {
        let fits = match pattern.strip_suffix('*') {
            None => PluginId::parse(pattern).map(drop),
            // What comes after it may be nothing.
            Some(prefix) => PluginId::parse(prefix)
                .or_else(|_| PluginId::parse(&format!("{prefix}0")))
                .map(drop),
        };
        let words = "a plugin is named by its id, or by the beginning of ids and a last '*'";
        fits.map_err(|why| format!("{words}: {why}"))?;
        let named = Capability::new(Kind::PluginCall, pattern).map_err(|_| words.to_owned())?;
        Ok(Self { named, floor: GuaranteeSet::new() })
    }

    /// The pattern, as it stands in the policy.
    #[must_use]
    pub fn pattern(&self) -> String {
        self.named.scope().to_string()
    }

    /// What the walls of these plugins must give at least.
    #[must_use]
    pub fn floor(&self) -> &GuaranteeSet {
        &self.floor
    }

    /// Whether it is about the plugin with this id.
    #[must_use]
    pub fn names(&self, id: &PluginId) -> bool {
        self.named.covers(&Access::new(Kind::PluginCall, id.as_str()))
    }

    /// Its place in the policy, for errors.
    #[must_use]
    pub fn rule(&self) -> String {
        format!("plugins.\"{}\".floor", self.pattern())
    }
}
