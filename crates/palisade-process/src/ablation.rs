//! Which layers of the walls are built: all of them, unless a test takes one away to see whether the next one
//! holds (feature `ablation`, refused in builds without debug assertions).
//!
//! Some layers are left out of the plan, by the host. The others are the helper's, and the helper that is
//! released has no switch for them: a second one, which exists in builds with the feature only, is asked.

use crate::{backend::Options, spawner::HELPER};

/// A layer of the walls that a test can take away.
#[cfg_attr(not(feature = "ablation"), allow(unreachable_pub, dead_code))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The system call filter.
    Seccomp,
    /// The Landlock ruleset.
    Landlock,
    /// Set-id bits and file capabilities count for nothing on mounts of the host's files.
    Nosuid,
    /// Device nodes count for nothing there.
    Nodev,
    /// What the plugin can write to cannot be run.
    Noexec,
    /// The host's files are out of sight. Without it they are in sight: read-only, and what lies beside a
    /// folder that is granted for writing as writable as that.
    MountNamespace,
    /// A network of the plugin's own. Nothing can be granted of the network without it.
    NetworkNamespace,
    /// No further namespaces.
    NamespaceLimit,
    /// An exec gives no rights (the helper's).
    NoNewPrivileges,
    /// No capabilities, not even in the plugin's own user namespace (the helper's).
    Capabilities,
    /// Pid 1 cannot be looked into (the helper's).
    Undumpable,
    /// /proc shows processes only (the helper's).
    ProcSubset,
    /// /proc cannot be written to (the helper's).
    ReadOnlyProc,
    /// /proc shows the plugin's own processes only; without it, the host's /proc (the helper's). Memory and
    /// processor time are not sampled then, since that would find those of the host.
    OwnProc,
}

#[cfg(all(feature = "ablation", not(debug_assertions)))]
compile_error!(
    "the feature `ablation` weakens the walls and exists for tests only; do not release with it"
);

impl Options {
    /// Whether a layer is built.
    pub(crate) fn has(&self, layer: Layer) -> bool {
        #[cfg(feature = "ablation")]
        return self.without != Some(layer);
        #[cfg(not(feature = "ablation"))]
        {
            let _ = layer;
            true
        }
    }

    /// What is left of a mount's attributes.
    pub(crate) fn attributes(&self, attributes: u64) -> u64 {
        // MOUNT_ATTR_* of mount_setattr(2).
        [(Layer::Nosuid, 2), (Layer::Nodev, 4), (Layer::Noexec, 8)]
            .into_iter()
            .filter(|(layer, _)| !self.has(*layer))
            .fold(attributes, |left, (_, bit)| left & !bit)
    }

    /// What is left of the flags for new namespaces.
    pub(crate) fn namespaces(&self, flags: u64) -> u64 {
        const NEW_NETWORK: u64 = 0x4000_0000;
        if self.has(Layer::NetworkNamespace) { flags } else { flags & !NEW_NETWORK }
    }

    /// What the helper is asked to take away, as switches of the plan.
    #[cfg(feature = "ablation")]
    pub(crate) fn switches(&self) -> u64 {
        use crate::plan::format::without;
        match self.without {
            Some(Layer::NoNewPrivileges) => without::NO_NEW_PRIVILEGES,
            Some(Layer::Capabilities) => without::CAPABILITIES,
            Some(Layer::Undumpable) => without::UNDUMPABLE,
            Some(Layer::ProcSubset) => without::PROC_SUBSET,
            Some(Layer::ReadOnlyProc) => without::READ_ONLY_PROC,
            Some(Layer::OwnProc) => without::OWN_PROC,
            _ => 0,
        }
    }

    /// Nothing can be taken away.
    #[cfg(not(feature = "ablation"))]
    pub(crate) fn switches(&self) -> u64 {
        0
    }

    /// The helper that builds these walls: the one that is released, unless it is to take something away.
    pub(crate) fn helper(&self) -> &'static [u8] {
        #[cfg(feature = "ablation")]
        if self.switches() != 0 && !self.released_helper {
            return crate::spawner::ABLATION_HELPER;
        }
        HELPER
    }
}
