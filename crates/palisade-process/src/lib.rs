//! Linux walls: namespaces, a new root, seccomp, Landlock, cgroups, built by a small static helper.
//!
//! Two backends with truthful guarantees each: [`ProcessBackend`] (`process`) needs user namespaces;
//! [`LandlockBackend`] (`landlock`) is for machines that forbid them, guarantees less, and is chosen only
//! where the demand allows it. The helper in `helper/` does what must be done in a process with one
//! thread; everything that can be decided beforehand is decided here, as data.

#[cfg(palisade_helper)]
mod backend;
#[cfg(palisade_helper)]
mod cgroup;
#[cfg(palisade_helper)]
mod disk;
#[cfg(palisade_helper)]
mod instance;
#[cfg(palisade_helper)]
mod landlock;
#[cfg(palisade_helper)]
mod layout;
#[cfg(palisade_helper)]
mod output;
#[cfg(palisade_helper)]
mod plan;
#[cfg(palisade_helper)]
mod probe;
#[cfg(palisade_helper)]
mod runtime;
#[cfg(palisade_helper)]
mod spawner;
#[cfg(palisade_helper)]
mod status;
#[cfg(palisade_helper)]
mod watched;

#[cfg(all(palisade_helper, feature = "ablation"))]
pub use backend::Layer;
#[cfg(palisade_helper)]
pub use backend::{LandlockBackend, Options, POLICED_MEMORY_OVERSHOOT, ProcessBackend};

use std::sync::Arc;

use palisade_sandbox::Backend;

/// The backends of this crate for this platform, cheapest first. Empty where there are no Linux walls.
#[must_use]
pub fn backends() -> Vec<Arc<dyn Backend>> {
    #[cfg(palisade_helper)]
    {
        let options = Options::default();
        vec![
            Arc::new(ProcessBackend::new(options.clone())),
            Arc::new(LandlockBackend::new(options)),
        ]
    }
    #[cfg(not(palisade_helper))]
    Vec::new()
}
