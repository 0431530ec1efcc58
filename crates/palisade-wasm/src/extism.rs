//! Modules that were made for Extism, run as they are.
//!
//! `entry: { kind: extism }` names a core module that a PDK of Extism built. Its functions are tools; what
//! it imports of `extism:host/env` and `extism:host/user` is provided here, and WASI preview 1 with nothing
//! in it. The memory half is a small kernel of our own (`kernel.wat`) that is linked into the module.
//! `docs/reference/extism.md` says how bytes and JSON are mapped.

pub(crate) mod env;
mod guest;
pub(crate) mod kernel;
pub(crate) mod link;
pub(crate) mod mapping;
pub(crate) mod vars;
mod wasi;

use std::collections::BTreeMap;

use wasmtime_wasi::p1::WasiP1Ctx;

pub(crate) use guest::ExtismCode;
pub(crate) use link::link;

use kernel::Kernel;
use vars::Vars;

/// What one instance has beside its memories.
#[derive(Default)]
pub(crate) struct Extism {
    kernel: Option<Kernel>,
    config: BTreeMap<String, String>,
    vars: Vars,
    /// Status of the last request; 0 before one.
    http_status: u16,
    /// Header fields of the last answer: a JSON object.
    http_headers: Option<Vec<u8>>,
    wasi: Option<WasiP1Ctx>,
}

#[cfg(test)]
mod tests;
