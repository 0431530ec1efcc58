//! What stands on the Linux walls. [`no_walls`](super) has the same functions for the other systems.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use palisade_model::Failure;
use palisade_sandbox::Backend;
use palisade_wasm::{engine_process, walled};

pub(crate) use crate::{
    commands::{
        doctor::filter::filter,
        explain::Explaining,
        learn::learn,
        mcp::serve::serve,
        wrap::{unwrap, wrap},
    },
    demo::demo,
};

/// Whether this process is the engine behind walls (`--backend wasm+process`), which is this same program.
pub(crate) fn entered() -> Option<ExitCode> {
    engine_process::enter()
}

/// Every kind of wall, cheapest first; which of them runs a plugin depends on its entry.
pub(crate) fn backends() -> Vec<Arc<dyn Backend>> {
    let mut found = palisade_process::backends();
    let walled = walled::behind(&found, walled::EngineProgram::this());
    found.extend(palisade_wasm::backends());
    found.extend(walled);
    found
}

/// Why a native plugin cannot run on this system.
pub(crate) fn no_native() -> Option<String> {
    None
}

/// Writes the helper into a new private folder.
pub(crate) fn extract_helper() -> Result<PathBuf, Failure> {
    palisade_process::extract_helper().map_err(Failure::from)
}
