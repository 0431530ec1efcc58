//! Guarantees: what a wall really enforces, here and now.
//!
//! A guarantee is reported only by a backend that enforces it and is attacked by the escape suite.
//! Limits come at a [`Level`]; everything else either holds or does not.

use serde::{Deserialize, Serialize};

/// One thing that a wall enforces.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Guarantee {
    /// Files outside the plugin's own tree and its grants can be neither read, written nor listed.
    FsIsolated,
    /// No address can be reached but through the host.
    NetIsolated,
    /// No System V IPC, POSIX message queue, abstract or path-named socket of the host is reachable.
    IpcIsolated,
    /// Other processes can be neither seen, signalled nor traced.
    PeersIsolated,
    /// System calls pass a filter that answers by allow-list.
    SyscallsFiltered,
    /// The plugin runs as a host user id that no other plugin and no person has.
    OwnUid,
    /// The number of processes and threads is capped.
    PidsCapped,
    /// Memory is capped.
    MemoryCapped,
    /// CPU time is capped.
    CpuCapped,
    /// Disk use is capped.
    DiskCapped,
    /// Nothing of the plugin survives the death of the host, SIGKILL included.
    DiesWithHost,
    /// The plugin runs on a kernel that is not the host's.
    OwnKernel,
    /// The engine that runs the plugin's code stands inside a wall of its own.
    EngineWalled,
    /// Memory that was written never becomes code: what runs is what was on disk.
    NoJit,
}

impl Guarantee {
    /// Every guarantee, in the order in which reports list them.
    pub const ALL: [Guarantee; 14] = [
        Self::FsIsolated,
        Self::NetIsolated,
        Self::IpcIsolated,
        Self::PeersIsolated,
        Self::SyscallsFiltered,
        Self::OwnUid,
        Self::PidsCapped,
        Self::MemoryCapped,
        Self::CpuCapped,
        Self::DiskCapped,
        Self::DiesWithHost,
        Self::OwnKernel,
        Self::EngineWalled,
        Self::NoJit,
    ];

    /// The name used in manifests, reports and options.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FsIsolated => "fs-isolated",
            Self::NetIsolated => "net-isolated",
            Self::IpcIsolated => "ipc-isolated",
            Self::PeersIsolated => "peers-isolated",
            Self::SyscallsFiltered => "syscalls-filtered",
            Self::OwnUid => "own-uid",
            Self::PidsCapped => "pids-capped",
            Self::MemoryCapped => "memory-capped",
            Self::CpuCapped => "cpu-capped",
            Self::DiskCapped => "disk-capped",
            Self::DiesWithHost => "dies-with-host",
            Self::OwnKernel => "own-kernel",
            Self::EngineWalled => "engine-walled",
            Self::NoJit => "no-jit",
        }
    }

    /// The guarantee with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|g| g.as_str() == name)
    }
}

impl std::fmt::Display for Guarantee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How firmly a guarantee holds. Ordered: `None < Policed < Kernel`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Not enforced.
    #[default]
    None,
    /// Sampled by the host, which ends the plugin; the report states the overshoot bound.
    Policed,
    /// Enforced by the kernel (or the hypervisor, or the engine) at every step.
    Kernel,
}

impl Level {
    /// The name used in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Policed => "policed",
            Self::Kernel => "kernel",
        }
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Guarantees with their levels: what a wall gives, or what a plugin demands.
///
/// ```
/// use palisade_model::{Guarantee, GuaranteeSet, Level};
/// let wall = GuaranteeSet::new()
///     .with(Guarantee::NetIsolated, Level::Kernel)
///     .with(Guarantee::MemoryCapped, Level::Policed);
/// let demand = GuaranteeSet::new().with(Guarantee::MemoryCapped, Level::Kernel);
/// assert_eq!(wall.missing(&demand), [(Guarantee::MemoryCapped, Level::Kernel, Level::Policed)]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GuaranteeSet(std::collections::BTreeMap<Guarantee, Level>);

impl GuaranteeSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What every plugin is given unless an operator's policy says otherwise: file system, network,
    /// IPC and peers isolated, system calls filtered, processes capped, death with the host, and
    /// memory at least policed.
    #[must_use]
    pub fn default_floor() -> Self {
        use Guarantee as G;
        [G::FsIsolated, G::NetIsolated, G::IpcIsolated, G::PeersIsolated, G::SyscallsFiltered]
            .into_iter()
            .chain([G::PidsCapped, G::DiesWithHost])
            .fold(Self::new(), |set, g| set.with(g, Level::Kernel))
            .with(G::MemoryCapped, Level::Policed)
    }

    /// This set with `guarantee` at `level`, or at its present level if that is higher.
    #[must_use]
    pub fn with(mut self, guarantee: Guarantee, level: Level) -> Self {
        self.raise(guarantee, level);
        self
    }

    /// Raises `guarantee` to at least `level`.
    pub fn raise(&mut self, guarantee: Guarantee, level: Level) {
        if level > Level::None {
            let have = self.0.entry(guarantee).or_default();
            *have = (*have).max(level);
        }
    }

    /// Takes a guarantee out, because something about this launch weakens it.
    pub fn remove(&mut self, guarantee: Guarantee) {
        self.0.remove(&guarantee);
    }

    /// Lowers `guarantee` to at most `level`.
    pub fn lower(&mut self, guarantee: Guarantee, level: Level) {
        if level == Level::None {
            self.remove(guarantee);
        } else if let Some(have) = self.0.get_mut(&guarantee) {
            *have = (*have).min(level);
        }
    }

    /// Both sets' guarantees, each at the higher level.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        for (g, l) in other.iter() {
            self.raise(g, l);
        }
        self
    }

    /// The level at which `guarantee` holds.
    #[must_use]
    pub fn level(&self, guarantee: Guarantee) -> Level {
        self.0.get(&guarantee).copied().unwrap_or_default()
    }

    /// Whether every demanded guarantee holds at the demanded level or above.
    #[must_use]
    pub fn covers(&self, demand: &Self) -> bool {
        demand.iter().all(|(g, level)| self.level(g) >= level)
    }

    /// What of `demand` is not covered: guarantee, demanded level, level at hand.
    #[must_use]
    pub fn missing(&self, demand: &Self) -> Vec<(Guarantee, Level, Level)> {
        demand
            .iter()
            .filter(|(g, level)| self.level(*g) < *level)
            .map(|(g, level)| (g, level, self.level(g)))
            .collect()
    }

    /// The guarantees that hold, with their levels, in report order.
    pub fn iter(&self) -> impl Iterator<Item = (Guarantee, Level)> + '_ {
        self.0.iter().map(|(g, l)| (*g, *l))
    }

    /// Whether nothing is guaranteed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Guarantee, Level)> for GuaranteeSet {
    fn from_iter<T: IntoIterator<Item = (Guarantee, Level)>>(iter: T) -> Self {
        iter.into_iter().fold(Self::new(), |set, (g, l)| set.with(g, l))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_serde_and_parse_agree() {
        for g in Guarantee::ALL {
            assert_eq!(Guarantee::parse(g.as_str()), Some(g));
            assert_eq!(serde_json::to_string(&g).unwrap(), format!("\"{g}\""));
        }
    }

    #[test]
    fn a_demand_can_only_be_raised() {
        let floor = GuaranteeSet::default_floor();
        let raised = floor.clone().union(
            &GuaranteeSet::new()
                .with(Guarantee::MemoryCapped, Level::None)
                .with(Guarantee::OwnUid, Level::Kernel),
        );
        assert_eq!(raised.level(Guarantee::MemoryCapped), Level::Policed);
        assert!(raised.covers(&floor));
        assert!(!floor.covers(&raised));
    }
}
