//! Backend `wasm`: WebAssembly components on wasmtime.
//!
//! A guest has no system calls: what it can do is what it imports, and only what is granted is linked.
//! Calls run on the caller's task, without a channel or another thread between. What this crate does not
//! do is decide about rights: every request of a guest goes to
//! [`HostCalls`](palisade_sandbox::HostCalls), and with it through the gate.
#![deny(unsafe_code)]

#[cfg(feature = "ablation")]
pub mod ablation;
#[cfg(not(feature = "ablation"))]
mod ablation;
mod backend;
mod cache;
mod componentize;
mod engine;
#[cfg(target_os = "linux")]
pub mod engine_process;
mod error;
mod extism;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a finding is a panic"
)]
pub mod fuzz;
mod guest;
pub mod inspect;
mod instance;
mod lane;
mod prepared;
pub mod reflect;
mod state;
#[cfg(test)]
mod testing;
#[cfg(target_os = "linux")]
pub mod walled;
pub mod wasi;
mod world;

pub use backend::{Options, WasmBackend};
pub use cache::CompiledBy;
pub use componentize::componentize;
pub use error::WasmError;
pub use prepared::PreparedCode;

/// The backend's name.
pub(crate) const NAME: &str = "wasm";

/// This backend with its default options, for lists of backends.
#[must_use]
pub fn backends() -> Vec<std::sync::Arc<dyn palisade_sandbox::Backend>> {
    vec![std::sync::Arc::new(WasmBackend::new(Options::default()))]
}
