//! Backend `wasm+process`: the engine behind the walls around processes, for plugins that are not trusted
//! with our engine.
//!
//! Nothing of a plugin is compiled or run in the host's process. A program of ours ([`EngineProgram`]) is
//! launched as the process wall launches plugins, to compile and once for each instance; it is shown
//! the WebAssembly, the machine code and what is granted, and asks the host for everything else as a plugin
//! would. So whoever gets out of the engine stands where an attacker stands who is a process plugin: what
//! this backend guarantees is what the wall guarantees then, and [`palisade_model::Guarantee::EngineWalled`].
//!
//! Compiled code. It is made behind the walls, in a run that sees nothing but the WebAssembly, and is taken
//! from there by the host, which keeps it and looks at none of it. It is native code of unknown intent, and
//! is only ever mapped behind the walls again, by engines that run the very same WebAssembly (`code.rs`). The
//! cache of the backend `wasm`, whose code runs in the host, is another one, and nothing gets from here to
//! there. An engine that runs cannot write what it was given: what it is talked into at run time is gone with
//! it.
//!
//! The wall is any backend that runs [`Runtime::Engine`]; nothing here knows how it is built.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use palisade_model::{
    Capability, CapabilitySet, Enforcement, Guarantee as G, GuaranteeSet, Kind, Level, Limits,
    text::escape,
};
use palisade_sandbox::{
    Artifact, Assessment, Backend, BoxFuture, Facts, LaunchSpec, Prepared, Runtime, SandboxError,
    Unavailable, Wire,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use crate::{
    WasmError,
    cache::WINCH_FROM,
    engine_process::SAID,
    wasi::{self, Trust},
};

mod code;
mod compile;
mod instance;
mod prepared;

use code::Store;
use compile::Refused;
use prepared::Walled;

/// The backend's name.
pub const NAME: &str = "wasm+process";

/// What the engine takes beside the guest's memory, in bytes: its own heap, stacks and buffers of the lane.
const ENGINE_MEMORY: u64 = 64 << 20;
/// The same for each instance: stack, tables, what the engine keeps for it.
const INSTANCE_MEMORY: u64 = 2 << 20;
/// How often the WebAssembly is counted: it is read, parsed and described.
const MODULE_TIMES: u64 = 4;
/// Threads of the engine; a guest can start none.
const ENGINE_THREADS: u32 = 64;
/// Handles of the engine itself. Each instance takes one more for a granted folder and for a request.
const ENGINE_FILES: u32 = 64;

/// The walls without which nothing stands around an engine.
const WALLS: [G; 5] =
    [G::FsIsolated, G::NetIsolated, G::IpcIsolated, G::PeersIsolated, G::SyscallsFiltered];

/// The program that is run as the engine.
#[derive(Clone, Debug)]
pub struct EngineProgram(Result<PathBuf, String>);

impl EngineProgram {
    /// This very program, which calls [`enter`](crate::engine_process::enter) first thing in `main`.
    #[must_use]
    pub fn this() -> Self {
        Self(std::env::current_exe().map_err(|e| format!("this program has no path: {e}")))
    }

    /// Another one: `palisade-engine` of the same version, or a program that calls
    /// [`enter`](crate::engine_process::enter).
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(Ok(path.into()))
    }

    /// Where it is, every link resolved, and what it is now: another build is another engine.
    fn found(&self) -> Result<(PathBuf, String), String> {
        use std::os::unix::fs::MetadataExt as _;
        let path = self.0.as_ref().map_err(Clone::clone)?;
        let shown = escape(&path.to_string_lossy(), 200);
        let found = path.canonicalize().and_then(|real| Ok((fs::metadata(&real)?, real)));
        let (meta, real) = found.map_err(|e| format!("the engine program {shown}: {e}"))?;
        if !meta.is_file() {
            return Err(format!("the engine program {shown} is not a file"));
        }
        let (changed, nanos) = (meta.mtime(), meta.mtime_nsec());
        let stamp = format!("{}:{}:{}:{changed}.{nanos}", meta.dev(), meta.ino(), meta.len());
        Ok((real, format!("{} {stamp}", env!("CARGO_PKG_VERSION"))))
    }
}

/// See the [module](self).
pub struct WalledBackend {
    inner: Arc<Inner>,
    winch_from: u64,
}

pub(crate) struct Inner {
    pub(crate) wall: Arc<dyn Backend>,
    pub(crate) engine: EngineProgram,
    pub(crate) store: Store,
    pub(crate) refused: Refused,
    /// The same of what Winch took and Cranelift did not.
    pub(crate) refused_later: Refused,
    /// Certificates that requests trust beside Mozilla's, as PEM text.
    pub(crate) roots: String,
    facts: OnceCell<Arc<Facts>>,
}

impl WalledBackend {
    /// The engine `program` behind `wall`: backend `process`, or one that guarantees as much.
    #[must_use]
    pub fn new(wall: Arc<dyn Backend>, engine: EngineProgram) -> Self {
        Self::trusting(wall, engine, String::new())
    }

    /// The same where `wasi:http` trusts the certificates in `pem` beside Mozilla's roots. The host tells each
    /// engine before its plugin is there. As [`WasmBackend::with_roots`](crate::WasmBackend::with_roots).
    ///
    /// # Errors
    /// [`WasmError::Roots`] where there is no certificate in it, and [`WasmError::TooMany`].
    pub fn with_roots(
        wall: Arc<dyn Backend>,
        engine: EngineProgram,
        pem: &str,
    ) -> Result<Self, WasmError> {
        Trust::with_roots(pem)?;
        Ok(Self::trusting(wall, engine, pem.to_owned()))
    }

    fn trusting(wall: Arc<dyn Backend>, engine: EngineProgram, roots: String) -> Self {
        let inner = Inner {
            wall,
            engine,
            store: Store::default(),
            refused: Refused::default(),
            refused_later: Refused::default(),
            roots,
            facts: OnceCell::new(),
        };
        Self { inner: Arc::new(inner), winch_from: WINCH_FROM }
    }

    /// With Winch for first starts from so many bytes of WebAssembly on, as
    /// [`Options::winch_from`](field@crate::Options::winch_from): here too while Cranelift's code is made behind the
    /// walls, in a run that gives way to those that somebody waits for.
    #[must_use]
    pub fn winch_from(mut self, bytes: u64) -> Self {
        self.winch_from = bytes;
        self
    }
}

/// The engine behind the walls of the backend `process`, if that is among `backends`.
#[must_use]
pub fn behind(backends: &[Arc<dyn Backend>], program: EngineProgram) -> Option<Arc<dyn Backend>> {
    let wall = backends.iter().find(|backend| backend.name() == "process")?;
    Some(Arc::new(WalledBackend::new(Arc::clone(wall), program)))
}

impl Backend for WalledBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn runs(&self, runtime: &Runtime) -> bool {
        matches!(runtime, Runtime::Wasm { .. } | Runtime::Extism { .. })
    }

    fn keep_in(&self, folder: &Path) {
        self.inner.store.keep_in(&folder.join(NAME));
    }

    fn probe(&self) -> BoxFuture<'_, Arc<Facts>> {
        Box::pin(async { Arc::clone(self.inner.facts.get_or_init(|| self.inner.look()).await) })
    }

    fn assess<'a>(&'a self, spec: &'a LaunchSpec) -> BoxFuture<'a, Assessment> {
        Box::pin(async { self.inner.assess(spec).await })
    }

    fn prepare<'a>(
        &'a self,
        artifact: &'a Artifact,
    ) -> BoxFuture<'a, Result<Arc<dyn Prepared>, SandboxError>> {
        Box::pin(async {
            let inner = Arc::clone(&self.inner);
            let walled = Walled::new(inner, artifact.clone(), self.winch_from)?;
            // What cannot be compiled is told now, and what can need not be waited for at the start.
            walled.ready().await?;
            Ok(Arc::new(walled) as Arc<dyn Prepared>)
        })
    }
}

impl Inner {
    async fn look(&self) -> Arc<Facts> {
        let facts = self.wall.probe().await;
        let behind = |what: &str| format!("the walls around the engine: {what}");
        let unavailable = match (&facts.unavailable, self.engine.found()) {
            (Some(why), _) => {
                Some(Unavailable { reason: behind(&why.reason), remedy: why.remedy.clone() })
            }
            (None, _) if !self.wall.runs(&Runtime::Engine) => Some(Unavailable {
                reason: format!("the backend {} runs no engine", self.wall.name()),
                remedy: "use the backend process".into(),
            }),
            (None, Err(reason)) => Some(Unavailable {
                reason,
                remedy: "give the engine's program by an absolute path, or install Palisade again"
                    .into(),
            }),
            (None, Ok(_)) => None,
        };
        let mut found = Assessment { guarantees: facts.guarantees.clone(), ..Default::default() };
        ours(&mut found, None);
        let guarantees = if unavailable.is_some() { GuaranteeSet::new() } else { found.guarantees };
        Arc::new(Facts { unavailable, guarantees, findings: Vec::new() })
    }

    pub(crate) async fn assess(&self, spec: &LaunchSpec) -> Assessment {
        let inside = behind_walls(spec, 0, 1);
        let mut found = self.wall.assess(&inside).await;
        ours(&mut found, Some(spec));
        for right in spec.rights.iter() {
            if let Some(why) = wasi::unsupported(right)
                && !found.unsupported.iter().any(|(known, _)| known == right)
            {
                found.unsupported.push((right.clone(), why));
            }
        }
        found
    }
}

/// What differs from the wall's own guarantees. What the engine holds for its guests besides (its count of
/// memory, its clock) is left out: this backend is for those who do not trust it.
pub(crate) fn ours(found: &mut Assessment, spec: Option<&LaunchSpec>) {
    let engine = "it is compiled and run by a process of its own behind these walls, which is shown \
                  the module and what is granted, and has a system call filter of its own";
    // As much as the weakest of the walls that keep an engine from the host.
    let level = WALLS.map(|wall| found.guarantees.level(wall)).into_iter().min();
    let level = level.unwrap_or(Level::None);
    found.hold(G::EngineWalled, level, engine);
    found.weaken(G::NoJit, Level::None, "the engine makes machine code of what it is given");
    if spec.is_some_and(|spec| spec.rights.of_kind(Kind::FsWrite).next().is_some()) {
        let why = "what is written into granted folders is not counted";
        found.weaken(G::DiskCapped, Level::None, why);
    } else {
        let how = "the engine is shown no folder that it could write to";
        found.hold(G::DiskCapped, level, how);
    }
}

/// What the wall is asked to launch for `spec`: an engine for so many instances of a module of `module`
/// bytes.
pub(crate) fn behind_walls(spec: &LaunchSpec, module: u64, instances: u32) -> LaunchSpec {
    let mut demand = spec.demand.clone();
    // Checked over the whole, and no part of the wall alone.
    for guarantee in [G::EngineWalled, G::DiskCapped, G::NoJit] {
        demand.remove(guarantee);
    }
    let walled = |right: &&Capability| {
        matches!(right.kind(), Kind::FsRead | Kind::FsWrite)
            || right.kind().enforcement() == Enforcement::Egress
    };
    let limits = engine_limits(&spec.limits, module, instances);
    let rights = [Kind::FsRead, Kind::FsWrite].map(|kind| spec.rights.of_kind(kind).count());
    let folders = u32::try_from(rights.into_iter().sum::<usize>()).unwrap_or(u32::MAX);
    let wants_network = spec.rights.iter().any(|r| r.kind().enforcement() == Enforcement::Egress);
    let connections = if wants_network { wasi::CONNECTIONS } else { 0 };
    let files = folders.saturating_add(connections).saturating_mul(instances);
    LaunchSpec {
        instance: spec.instance.clone(),
        rights: Arc::new(spec.rights.iter().filter(walled).cloned().collect::<CapabilitySet>()),
        limits: Limits { files: files.saturating_add(limits.files), ..limits },
        demand,
        wire: Wire::Native,
        data: spec.data.clone(),
        slot: spec.slot,
        // The plugin's variables are told to the engine, and are none of the engine's.
        env: Default::default(),
        workdir: None,
        observe: None,
    }
}

/// The guest's limits, with room for the engine.
pub(crate) fn engine_limits(limits: &Limits, module: u64, instances: u32) -> Limits {
    let own = ENGINE_MEMORY
        .saturating_add(module.saturating_mul(MODULE_TIMES))
        .saturating_add(INSTANCE_MEMORY.saturating_mul(instances.into()));
    Limits {
        memory: limits.memory.saturating_add(own),
        pids: ENGINE_THREADS,
        files: limits.files.saturating_add(ENGINE_FILES),
        ..limits.clone()
    }
}

/// An engine's hint, shown as the engine's: it may look like one of the host's. One that is a plugin's says so.
pub(crate) fn engines(hint: String) -> String {
    if hint.starts_with(SAID) { hint } else { format!("the engine says: {hint}") }
}

/// What a piece of WebAssembly is known by here.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
