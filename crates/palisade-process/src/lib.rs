//! Linux walls: namespaces, a new root, seccomp, Landlock, cgroups, built by a small static helper.
//!
//! Two backends with truthful guarantees each: [`ProcessBackend`] (`process`) needs user namespaces;
//! [`LandlockBackend`] (`landlock`) is for machines that forbid them, guarantees less, and is chosen only
//! where the demand allows it. The helper in `helper/` does what must be done in a process with one
//! thread; everything that can be decided beforehand is decided here, as data.

#[cfg(palisade_helper)]
mod ablation;
pub mod additions;
#[cfg(palisade_helper)]
mod ahead;
#[cfg(palisade_helper)]
mod assess;
#[cfg(palisade_helper)]
mod backend;
#[cfg(palisade_helper)]
mod cgroup;
#[cfg(palisade_helper)]
mod disk;
#[cfg(palisade_helper)]
mod ends;
#[cfg(palisade_helper)]
mod extract;
#[cfg(palisade_helper)]
pub mod filter;
#[cfg(all(palisade_helper, any(test, fuzzing)))]
#[doc(hidden)]
#[allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a finding is a panic"
)]
pub mod fuzz;
#[cfg(palisade_helper)]
mod instance;
#[cfg(palisade_helper)]
mod landlock;
#[cfg(palisade_helper)]
mod launch;
#[cfg(palisade_helper)]
mod layout;
#[cfg(palisade_helper)]
mod lookout;
#[cfg(palisade_helper)]
mod looks;
#[cfg(palisade_helper)]
mod observe;
#[cfg(palisade_helper)]
mod output;
#[cfg(palisade_helper)]
mod pace;
#[cfg(palisade_helper)]
mod plan;
#[cfg(palisade_helper)]
mod probe;
#[cfg(palisade_helper)]
mod processes;
#[cfg(palisade_helper)]
mod processors;
pub mod programs;
#[cfg(palisade_helper)]
mod quota;
#[cfg(palisade_helper)]
mod runtime;
#[cfg(palisade_helper)]
mod slice;
#[cfg(palisade_helper)]
mod spares;
#[cfg(palisade_helper)]
mod spawner;
#[cfg(palisade_helper)]
mod status;
#[cfg(palisade_helper)]
mod steps;
// Of the helper, which has no tests of its own.
#[cfg(all(palisade_helper, test))]
#[path = "../helper/times.rs"]
#[allow(clippy::indexing_slicing, dead_code, unreachable_pub)]
mod times;
#[cfg(palisade_helper)]
mod watched;
#[cfg(palisade_helper)]
mod way_out;

#[cfg(all(palisade_helper, feature = "ablation"))]
pub use ablation::Layer;
#[cfg(palisade_helper)]
pub use assess::POLICED_MEMORY_OVERSHOOT;
#[cfg(palisade_helper)]
pub use backend::{LandlockBackend, Options, ProcessBackend};

use std::sync::Arc;

use palisade_sandbox::{Backend, SandboxError};

/// The backends of this crate for this platform, cheapest first. Empty where there are no Linux walls.
#[must_use]
pub fn backends() -> Vec<Arc<dyn Backend>> {
    #[cfg(palisade_helper)]
    return backends_with(Options::default());
    #[cfg(not(palisade_helper))]
    Vec::new()
}

/// As [`backends`], with an operator's choices: how many walls stand ready, which host users plugins get.
#[cfg(palisade_helper)]
#[must_use]
pub fn backends_with(options: Options) -> Vec<Arc<dyn Backend>> {
    vec![Arc::new(ProcessBackend::new(options.clone())), Arc::new(LandlockBackend::new(options))]
}

/// Why no wall of this crate can make a right true; `None` where one can.
#[must_use]
pub fn refuses(right: &palisade_model::Capability) -> Option<String> {
    #[cfg(palisade_helper)]
    return layout::unsupported(right, true);
    #[cfg(not(palisade_helper))]
    return Some(format!("there are no walls for {right} on this platform"));
}

/// Writes the embedded helper into a new folder that only this user may enter, and gives its path. For
/// installing it where an AppArmor profile can name it.
///
/// # Errors
/// [`SandboxError::Step`] where it cannot be written, [`SandboxError::Unavailable`] where there is no
/// helper for this platform.
pub fn extract_helper() -> Result<std::path::PathBuf, SandboxError> {
    #[cfg(palisade_helper)]
    {
        extract::extract(&std::env::temp_dir())
    }
    #[cfg(not(palisade_helper))]
    Err(SandboxError::Unavailable {
        backend: "process",
        reason: "there is no helper for this platform".into(),
        remedy: "run Palisade on Linux, on x86_64 or aarch64".into(),
    })
}
