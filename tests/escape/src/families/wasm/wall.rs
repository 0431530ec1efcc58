//! The two places where the engine runs.

use std::{path::Path, sync::Arc};

use palisade_process::ProcessBackend;
use palisade_sandbox::Backend;
use palisade_wasm::{
    Options, WasmBackend,
    ablation::Layer,
    walled::{EngineProgram, WalledBackend},
};

use super::room::INSTANCES;
use crate::record::Launcher;

/// Where the engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wall {
    /// In the host's process.
    Host,
    /// Behind the walls around processes.
    Process,
}

impl Wall {
    /// The backend's name.
    pub(super) fn backend(self) -> &'static str {
        match self {
            Self::Host => "wasm",
            Self::Process => "wasm+process",
        }
    }

    /// The folder of its attempts.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Host => "wasm",
            Self::Process => "walled",
        }
    }

    /// What stands behind a variant.
    pub(super) fn with(self) -> &'static str {
        match self {
            Self::Host => "",
            Self::Process => super::WITH,
        }
    }

    /// Whether a layer can be taken away: it is the runner's own.
    pub(super) fn can_lack(self, layer: Layer) -> bool {
        self == Self::Host || layer == Layer::Mac
    }

    /// A backend that keeps compiled code in `folder`.
    pub(super) fn backend_in(self, folder: &Path, launcher: Launcher) -> Arc<dyn Backend> {
        let backend: Arc<dyn Backend> = match self {
            Self::Host => Arc::new(WasmBackend::new(Options::default().instances(INSTANCES))),
            Self::Process => {
                let options = palisade_process::Options {
                    cgroups: launcher.cgroups(),
                    ..palisade_process::Options::default()
                };
                let walls = Arc::new(ProcessBackend::new(options));
                Arc::new(WalledBackend::new(walls, EngineProgram::this()))
            }
        };
        backend.keep_in(folder);
        backend
    }
}
