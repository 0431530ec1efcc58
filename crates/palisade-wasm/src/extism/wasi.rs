//! WASI preview 1 for Extism modules: what components are shown, in its older form.

use palisade_model::Failure;
use wasmtime::Linker;
use wasmtime_wasi::{
    WasiCtxBuilder,
    p1::{self, WasiP1Ctx},
};

use crate::state::{Shared, State};

/// The module that plugins import from.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";

/// Defines all of it.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    p1::add_to_linker_async(linker, |state: &mut State| {
        let extism = state.extism.get_or_insert_default();
        // There is one since the instance was made; without, it would show nothing.
        extism.wasi.get_or_insert_with(|| WasiCtxBuilder::new().build_p1())
    })
}

/// What an instance of this launch is shown.
pub(crate) fn context(shared: &Shared) -> Result<WasiP1Ctx, Failure> {
    crate::wasi::preview1(shared)
}
