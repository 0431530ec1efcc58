//! The backend: what the engine holds for a guest, and from a file to code that can be launched.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use palisade_model::{Guarantee as G, GuaranteeSet, Kind, Level, text::escape};
use palisade_sandbox::{
    Artifact, Assessment, Backend, BoxFuture, ExtismOutput, Facts, Finding, LaunchSpec, Prepared,
    Runtime, SandboxError, Unavailable,
};

use wasmtime::{Module, component::Component};

use crate::{
    NAME, WasmError,
    cache::{Compiler, Current, WINCH_FROM},
    componentize::componentize,
    engine::{self, Engines},
    extism::{self, ExtismCode},
    guest::Code,
    inspect::{self, Form, Inspection},
    prepared::PreparedCode,
    reflect::Reflected,
    wasi::{self, Trust},
    world::since_v0_1_0::PluginCode,
};

/// Choices of the operator that every launch shares.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Most instances of all plugins together, 1 to 100000; backends of one process with the same number share it.
    /// Each memory takes 4 GiB of address space, and none of
    /// memory, until it is used; three for each instance are set aside, 48 TiB of 128 for the default of 4096,
    /// and fewer where there are more instances. What the kernel allows in mappings (`vm.max_map_count`) may make
    /// it less.
    pub instances: u32,
    /// From how many bytes of WebAssembly on a first start takes code of Winch, which compiles in a fraction of the
    /// time to code that is slower, while Cranelift's is made in the background for the next start. Only where
    /// compiled code is kept ([`Backend::keep_in`]), on Linux on x86_64; [`u64::MAX`]: never.
    pub winch_from: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { instances: 4096, winch_from: WINCH_FROM }
    }
}

impl Options {
    /// With so many instances at most.
    #[must_use]
    pub fn instances(mut self, most: u32) -> Self {
        self.instances = most;
        self
    }

    /// With Winch from so many bytes on: see [`Options`](field@Options::winch_from).
    #[must_use]
    pub fn winch_from(mut self, bytes: u64) -> Self {
        self.winch_from = bytes;
        self
    }
}

/// Backend `wasm`: the engine's own walls around code that has no system calls.
pub struct WasmBackend {
    options: Options,
    compiler: OnceLock<Result<Arc<Compiler>, String>>,
    folder: OnceLock<std::path::PathBuf>,
    facts: OnceLock<Arc<Facts>>,
    trust: Trust,
    /// Code that was compiled already, where nothing may be compiled here.
    #[cfg(target_os = "linux")]
    given: Option<(std::path::PathBuf, crate::CompiledBy)>,
}

impl WasmBackend {
    /// A backend with these options. The engine is made when it is first needed, and shared by all backends
    /// of this process with the same options.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            compiler: OnceLock::new(),
            folder: OnceLock::new(),
            facts: OnceLock::new(),
            trust: Trust::default(),
            #[cfg(target_os = "linux")]
            given: None,
        }
    }

    /// The same for an application whose plugins make requests to servers with certificates of its own
    /// authorities: `wasi:http` trusts the certificates in `pem` beside Mozilla's roots. Empty text adds
    /// none; at most 1 MiB. What `http.fetch` trusts is said where that service is made.
    ///
    /// # Errors
    /// [`WasmError::Roots`] where there is no certificate in it, and [`WasmError::TooMany`].
    pub fn with_roots(options: Options, pem: &str) -> Result<Self, WasmError> {
        Ok(Self { trust: Trust::with_roots(pem)?, ..Self::new(options) })
    }

    /// A backend for one file, the compiled code of which is given: see [`Compiler::given`].
    #[cfg(target_os = "linux")]
    pub(crate) fn with_code(
        options: Options,
        given: (std::path::PathBuf, crate::CompiledBy),
        trust: Trust,
    ) -> Self {
        Self { given: Some(given), trust, ..Self::new(options) }
    }

    fn compiler(&self) -> Result<&Arc<Compiler>, WasmError> {
        let made = self.compiler.get_or_init(|| {
            let engines = Engines::shared(self.options.instances).map_err(|e| e.to_string())?;
            #[cfg(target_os = "linux")]
            if let Some((given, by)) = &self.given {
                return Ok(Arc::new(Compiler::given(engines, given.clone(), *by)));
            }
            let compiler = Compiler::new(engines, self.options.winch_from);
            if let Some(folder) = self.folder.get() {
                compiler.keep_in(folder.clone());
            }
            Ok(Arc::new(compiler))
        });
        made.as_ref().map_err(|e| WasmError::Engine(e.clone()))
    }

    /// [`Backend::prepare`] for who wants to know which compiler made the code.
    ///
    /// # Errors
    /// As there.
    pub async fn prepare_code(&self, artifact: &Artifact) -> Result<PreparedCode, SandboxError> {
        let compiler = Arc::clone(self.compiler()?);
        let bytes = read(artifact).await?;
        let (calls, code) = match &artifact.program.runtime {
            Runtime::Wasm { calls } => (*calls, component(&compiler, bytes).await?),
            Runtime::Extism { calls, output } => (*calls, module(&compiler, bytes, *output).await?),
            other => {
                return Err(SandboxError::Artifact {
                    what: format!("this backend does not run {} entries", other.word()),
                    hint: "use another backend".into(),
                });
            }
        };
        let (engines, trust) = (Arc::clone(&compiler.engines), self.trust.clone());
        Ok(PreparedCode { code, calls, engines, trust })
    }

    fn facts(&self) -> Arc<Facts> {
        let facts = self.facts.get_or_init(|| {
            Arc::new(match self.compiler() {
                Ok(compiler) => Facts {
                    unavailable: None,
                    guarantees: assess(None).guarantees,
                    findings: findings(&compiler.engines),
                },
                Err(error) => Facts {
                    unavailable: Some(Unavailable {
                        reason: error.to_string(),
                        remedy: "use a machine that wasmtime runs on".into(),
                    }),
                    guarantees: GuaranteeSet::new(),
                    findings: Vec::new(),
                },
            })
        });
        Arc::clone(facts)
    }
}

fn findings(engines: &Engines) -> Vec<Finding> {
    let mut findings = vec![Finding {
        topic: "WebAssembly".into(),
        good: engines.is_pooled(),
        detail: if engines.is_pooled() {
            format!("instances out of a pool, at most {} at one time", engines.places().most())
        } else {
            format!(
                "instances made one by one (no address space for a pool), at most {} at one time",
                engines.places().most()
            )
        },
        remedy: (!engines.is_pooled())
            .then(|| "raise the limit on address space (ulimit -v unlimited)".into()),
    }];
    if let Some(maps) = engine::max_map_count() {
        let enough = engines.places().most() >= engines.wanted();
        findings.push(Finding {
            topic: "mappings".into(),
            good: enough,
            detail: format!("vm.max_map_count is {maps}"),
            remedy: (!enough).then(|| {
                let needed = u64::from(engines.wanted()) * engine::MAPS_EACH * 4 / 3;
                format!("sysctl -w vm.max_map_count={needed} for {} instances", engines.wanted())
            }),
        });
    }
    findings
}

impl Backend for WasmBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn runs(&self, runtime: &Runtime) -> bool {
        matches!(runtime, Runtime::Wasm { .. } | Runtime::Extism { .. })
    }

    fn keep_in(&self, folder: &Path) {
        let _ = self.folder.set(folder.join("wasm"));
        if let (Some(Ok(compiler)), Some(folder)) = (self.compiler.get(), self.folder.get()) {
            compiler.keep_in(folder.clone());
        }
    }

    fn probe(&self) -> BoxFuture<'_, Arc<Facts>> {
        Box::pin(std::future::ready(self.facts()))
    }

    fn assess<'a>(&'a self, spec: &'a LaunchSpec) -> BoxFuture<'a, Assessment> {
        Box::pin(std::future::ready(assess(Some(spec))))
    }

    fn prepare<'a>(
        &'a self,
        artifact: &'a Artifact,
    ) -> BoxFuture<'a, Result<Arc<dyn Prepared>, SandboxError>> {
        Box::pin(async { Ok(Arc::new(self.prepare_code(artifact).await?) as Arc<dyn Prepared>) })
    }
}

/// What holds for every guest, and for this launch.
pub(crate) fn assess(spec: Option<&LaunchSpec>) -> Assessment {
    let mut found = Assessment::default();
    let files = "a guest sees the granted folders and nothing else: it has no system calls";
    for (guarantee, how) in [
        (G::FsIsolated, files),
        (
            G::NetIsolated,
            "a guest opens no socket; requests and connections are made by the host, through its guard",
        ),
        (G::IpcIsolated, "there is no interface for it"),
        (G::PeersIsolated, "there is no interface for it; every instance has memory of its own"),
        (G::SyscallsFiltered, "a guest has no system calls, only what it imports and is linked"),
        (G::PidsCapped, "a guest can start neither processes nor threads"),
        (G::MemoryCapped, "memories and tables are counted together, at every growth"),
        (G::DiesWithHost, "a guest is part of the host's process"),
        (G::NoJit, "a guest's memory is never executed"),
    ] {
        found.hold(guarantee, Level::Kernel, how);
    }
    found.hold(
        G::CpuCapped,
        Level::Policed,
        "looked at every 5 ms while it runs; at most 100 ms ahead of its share",
    );
    found.hold(G::DiskCapped, Level::Kernel, "a guest has no folder of its own to fill");
    let Some(spec) = spec else { return found };
    if spec.rights.of_kind(Kind::FsWrite).next().is_some() {
        let why = "what is written into granted folders is not counted";
        found.weaken(G::DiskCapped, Level::None, why);
    }
    for right in spec.rights.iter() {
        if let Some(why) = wasi::unsupported(right) {
            found.unsupported.push((right.clone(), why));
        }
    }
    found
}

/// The bytes of the program. The name was checked to lie in the content when the manifest was read; links
/// in it must not lead out.
pub(crate) async fn read(artifact: &Artifact) -> Result<Vec<u8>, SandboxError> {
    let (root, file) = (artifact.content.root.clone(), artifact.program.file.clone());
    let refused = |what: String| SandboxError::Artifact {
        what: format!("{}: {what}", escape(&artifact.program.file, 200)),
        hint: "`entry.file` names a file in the plugin's folder".into(),
    };
    let read = move || -> std::io::Result<Vec<u8>> {
        use std::io::Read;
        let path = root.join(&file).canonicalize()?;
        if !path.starts_with(root.canonicalize()?) {
            return Err(std::io::Error::other("it leads out of the plugin's folder"));
        }
        let file = std::fs::File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("it is not a file"));
        }
        let most = inspect::MAX_BYTES as u64;
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(std::io::Error::other(format!("it is longer than {most} bytes")));
        }
        Ok(bytes)
    };
    blocking(read).await?.map_err(|e| refused(escape(&e.to_string(), 200)))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WasmError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| WasmError::Engine(format!("reading the file was given up: {e}")))
}

/// Code of a component.
pub(crate) async fn component(
    compiler: &Compiler,
    bytes: Vec<u8>,
) -> Result<Arc<Current<Arc<dyn Code>>>, WasmError> {
    let (bytes, inspection) = blocking(move || looked_at(&bytes)).await??;
    let engine = engine_for(&compiler.engines, &inspection)?;
    let inspection = Arc::new(inspection);
    let link = move |component: &Component| {
        let inspection = Arc::clone(&inspection);
        Ok(match inspection.form {
            Form::Plugin => Arc::new(PluginCode::new(component, inspection)?) as Arc<dyn Code>,
            _ => Arc::new(Reflected::new(component, inspection)?),
        })
    };
    compiler.code(engine, bytes, link).await
}

/// The component and what it says about itself; refused where it imports what nobody provides.
fn looked_at(bytes: &[u8]) -> Result<(Vec<u8>, Inspection), WasmError> {
    let bytes = componentize(bytes)?.into_owned();
    let inspection = inspect::inspect(&bytes)?;
    inspection.check_known()?;
    Ok((bytes, inspection))
}

fn engine_for<'a>(
    engines: &'a Engines,
    inspection: &Inspection,
) -> Result<&'a wasmtime::Engine, WasmError> {
    if inspect::needs_concurrency(inspection) { engines.concurrent() } else { Ok(engines.plain()) }
}

/// The machine code of a component, or of a module for Extism, for [`Compiler::given`], and who made it: Winch
/// where it is `asked` and takes the code. Takes its time.
#[cfg(target_os = "linux")]
pub(crate) fn machine_code(
    bytes: &[u8],
    is_extism: bool,
    asked: crate::CompiledBy,
) -> Result<(crate::CompiledBy, Vec<u8>), WasmError> {
    use crate::cache::{self, CompiledBy, Kind as CodeKind};
    let engines = Engines::shared(1)?;
    let (kind, engine, wasm) = if is_extism {
        (CodeKind::Module, engines.plain(), extism::link(bytes)?)
    } else {
        let (wasm, inspection) = looked_at(bytes)?;
        (CodeKind::Component, engine_for(&engines, &inspection)?, wasm)
    };
    if asked == CompiledBy::Winch
        && let Some(winch) = engines.winch_for(engine)
        && let Some(code) = cache::machine_code_by_winch(winch, kind, &wasm)
    {
        return Ok((CompiledBy::Winch, code));
    }
    Ok((CompiledBy::Cranelift, cache::machine_code(engine, kind, &wasm)?))
}

/// Code of a module for Extism.
async fn module(
    compiler: &Compiler,
    bytes: Vec<u8>,
    output: ExtismOutput,
) -> Result<Arc<Current<Arc<dyn Code>>>, WasmError> {
    let linked = blocking(move || extism::link(&bytes)).await??;
    let link =
        move |module: &Module| Ok(Arc::new(ExtismCode::new(module, output)?) as Arc<dyn Code>);
    compiler.code(compiler.engines.plain(), linked, link).await
}
