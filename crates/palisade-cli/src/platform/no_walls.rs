//! Systems without the Linux walls: the same functions as in `walls`, and each of them says that it cannot be
//! done here, which rule that is, and what to do.
//!
//! The walls of Linux stand here as backends that are not available, so that a plugin that needs one, or a
//! person who names one, is told so like about any other wall that a machine lacks.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use palisade_host::Plugin;
use palisade_model::{ErrorCode, Failure};
use palisade_sandbox::{AbsentBackend, Backend, Runtime, Unavailable};

use crate::{
    cli::native::{Demo, Explain, Learn, Serve, Unwrap, Wrap},
    trouble::Trouble,
};

const RULE: &str = "native programs run behind the Linux walls, or not at all";
const REMEDY: &str = "run Palisade on Linux, on x86_64 or aarch64 (a virtual machine will do), or use plugins that \
                      are WebAssembly components, which run here";

/// The system as people call it.
fn system() -> &'static str {
    match std::env::consts::OS {
        "macos" => "macOS",
        "windows" => "Windows",
        other => other,
    }
}

fn refusal(what: &str) -> Failure {
    let message = format!("{what} stands on the Linux walls, and there are none on {}", system());
    Failure::new(ErrorCode::NoBackend, message).rule(RULE).hint(REMEDY)
}

fn refused(what: &str) -> Result<(), Trouble> {
    Err(refusal(what).into())
}

/// `palisade demo`.
pub(crate) async fn demo(_: &Demo) -> Result<(), Trouble> {
    refused("palisade demo")
}

/// `palisade learn`.
pub(crate) async fn learn(_: &Learn) -> Result<(), Trouble> {
    refused("palisade learn")
}

/// `palisade mcp -- COMMAND`.
pub(crate) async fn serve(_: &Serve) -> Result<(), Trouble> {
    refused("palisade mcp -- COMMAND")
}

/// `palisade mcp wrap`: the servers would not start any more.
pub(crate) async fn wrap(_: &Wrap) -> Result<(), Trouble> {
    refused("palisade mcp wrap")
}

/// `palisade mcp unwrap`.
pub(crate) async fn unwrap(_: &Unwrap) -> Result<(), Trouble> {
    refused("palisade mcp unwrap")
}

/// `palisade doctor --seccomp`.
pub(crate) fn filter(_: &str, _: bool) -> Result<(), Trouble> {
    refused("palisade doctor --seccomp")
}

/// `palisade doctor --extract-helper`.
pub(crate) fn extract_helper() -> Result<PathBuf, Failure> {
    Err(refusal("palisade doctor --extract-helper"))
}

/// `--explain`, for which the kernel has to report system calls.
pub(crate) struct Explaining;

impl Explaining {
    pub(crate) fn of(args: &Explain, _: &Plugin, _: bool) -> Result<Self, Failure> {
        if args.explain { Err(refusal("--explain")) } else { Ok(Self) }
    }

    pub(crate) fn tell(&self, _: bool) {}
}

/// Why a native plugin cannot run on this system.
pub(crate) fn no_native() -> Option<String> {
    let system = system();
    Some(format!(
        "it runs on Linux only: {RULE}, and there are none on {system}; `palisade new --help` lists the languages of components"
    ))
}

/// Nothing starts this program as an engine here.
pub(crate) fn entered() -> Option<ExitCode> {
    None
}

/// Every kind of wall, as on Linux; those that are Linux's are not available.
pub(crate) fn backends() -> Vec<Arc<dyn Backend>> {
    let mut found =
        vec![absent("process", Runtime::is_process), absent("landlock", Runtime::is_process)];
    found.extend(palisade_wasm::backends());
    // The engine behind those walls.
    found.push(absent("wasm+process", |runtime| !runtime.is_process()));
    found
}

/// A backend of Linux, here.
fn absent(name: &'static str, runs: fn(&Runtime) -> bool) -> Arc<dyn Backend> {
    let reason = format!("its walls are Linux's, and there are none on {}", system());
    let why = Unavailable { reason, remedy: REMEDY.to_owned() };
    Arc::new(AbsentBackend::new(name, runs, why))
}

#[cfg(test)]
mod tests;
