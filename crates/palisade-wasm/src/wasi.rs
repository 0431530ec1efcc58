//! WASI for components, from a plugin's rights: folders, variables, standard streams, clocks, random numbers,
//! outgoing HTTP and TCP connections.
//!
//! Only what a component imports is linked, and what each interface shows comes from the launch's rights.
//! No socket of the machine is opened here: whatever leaves goes through the host's guard.

mod bounds;
mod files;
mod folders;
mod http;
mod link;
#[cfg(unix)]
mod list;
mod open;
pub(crate) mod sockets;
mod stdio;

use std::sync::Arc;

use palisade_model::Failure;
use palisade_sandbox::{LaunchSpec, OutputStream};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::state::{MAX_RANDOM, MAX_RESOURCES, Shared, State};

pub(crate) use bounds::within;
pub(crate) use files::Files;
#[cfg(target_os = "linux")]
pub(crate) use files::alone;
pub use folders::unsupported;
pub(crate) use http::Trust;
pub(crate) use link::link;

/// Connections of one instance at once, as requests and by itself.
#[cfg(target_os = "linux")]
pub(crate) const CONNECTIONS: u32 = http::AT_ONCE + sockets::AT_ONCE;
/// Most bytes of one set of header fields, as they lie in memory.
pub(crate) const MAX_FIELDS: usize = 32 << 10;

/// What WASI's interfaces work on in one store.
pub(crate) struct Contexts {
    wasi: WasiCtx,
    fields: WasiHttpCtx,
    http: http::Hooks,
    net: sockets::Net,
}

impl Contexts {
    /// The contexts of an instance of this launch.
    ///
    /// # Errors
    /// Where a granted folder cannot be opened.
    pub(crate) fn new(shared: &Shared) -> Result<Self, Failure> {
        let mut contexts = Self::empty(shared);
        contexts.wasi = granted(shared)?.build();
        Ok(contexts)
    }

    /// Contexts that show nothing.
    fn empty(shared: &Shared) -> Self {
        let mut fields = WasiHttpCtx::new();
        fields.set_field_size_limit(MAX_FIELDS);
        Self {
            wasi: base(shared).build(),
            fields,
            http: http::Hooks::new(Arc::clone(&shared.host), shared.trust.clone()),
            net: sockets::Net::new(Arc::clone(&shared.host)),
        }
    }
}

/// The same as [`Contexts::new`] for core modules, which know WASI's preview 1 only.
///
/// # Errors
/// Where a granted folder cannot be opened.
pub(crate) fn preview1(shared: &Shared) -> Result<wasmtime_wasi::p1::WasiP1Ctx, Failure> {
    let mut context = granted(shared)?.build_p1();
    // It keeps its own table of what is open.
    context.ctx().table.set_max_capacity(MAX_RESOURCES);
    Ok(context)
}

/// What the launch's rights show.
fn granted(shared: &Shared) -> Result<wasmtime_wasi::WasiCtxBuilder, Failure> {
    let mut builder = base(shared);
    let LaunchSpec { rights, env, .. } = &shared.spec;
    for (name, value) in env {
        builder.env(name, value);
    }
    folders::open(&mut builder, rights)?;
    Ok(builder)
}

/// No arguments, standard input at its end, standard output to the log, and none of the machine's network:
/// what there is of it is [`sockets`].
fn base(shared: &Shared) -> wasmtime_wasi::WasiCtxBuilder {
    let mut builder = WasiCtx::builder();
    builder
        .stdout(stdio::Log::new(&shared.output, OutputStream::Stdout))
        .stderr(stdio::Log::new(&shared.output, OutputStream::Stderr))
        .max_random_size(MAX_RANDOM)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false);
    builder
}

impl State {
    /// Gives the store what WASI works on. Asked once for a component that imports any of it; without,
    /// everything is empty.
    ///
    /// # Errors
    /// Where a granted folder cannot be opened.
    pub(crate) fn attach_wasi(&mut self) -> Result<(), Failure> {
        self.wasi = Some(Box::new(Contexts::new(&self.shared)?));
        Ok(())
    }

    /// Its connections.
    fn net(&mut self) -> sockets::View<'_> {
        let State { wasi, table, shared, .. } = self;
        let contexts = wasi.get_or_insert_with(|| Box::new(Contexts::empty(shared)));
        sockets::View::new(&mut contexts.net, table)
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let State { wasi, table, shared, .. } = self;
        let contexts = wasi.get_or_insert_with(|| Box::new(Contexts::empty(shared)));
        WasiCtxView { ctx: &mut contexts.wasi, table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let State { wasi, table, shared, .. } = self;
        let contexts = wasi.get_or_insert_with(|| Box::new(Contexts::empty(shared)));
        WasiHttpCtxView { ctx: &mut contexts.fields, table, hooks: &mut contexts.http }
    }
}

#[cfg(test)]
mod tests;
