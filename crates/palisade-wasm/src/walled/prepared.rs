//! A module whose machine code is there, and its launch.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use palisade_model::{ErrorCode, Failure, Payload};
use palisade_sandbox::{
    Artifact, BoxFuture, Calls, HostCalls, Instance, Invocation, KillReason, LaunchSpec, Prepared,
    Program, Runtime, SandboxError, Trace,
};
use tokio::sync::Mutex;

use super::{
    Inner, behind_walls,
    code::{Kept, Name, Nothing},
    compile::{Compiling, IdleTurn, compile, compile_later},
    digest, engines,
    instance::WalledInstance,
    ours,
};
use crate::{
    CompiledBy,
    backend::read,
    cache::LATER,
    engine::{HAS_WINCH, made_for},
    engine_process::{ARGUMENT, Bounds, Output, START, Start, decoded},
};

/// What an engine answers to [`START`] whose code does not fit it ([`WasmError::Unfit`](crate::WasmError::Unfit)).
const UNFIT: ErrorCode = ErrorCode::Conflict;

/// See the module.
pub(crate) struct Walled {
    inner: Arc<Inner>,
    artifact: Artifact,
    calls: Calls,
    extism: Option<Output>,
    winch_from: u64,
    /// One at a time: two starts must not compile the same thing twice.
    ready: Arc<Mutex<Option<Arc<Ready>>>>,
    /// Cranelift's code on its way, after Winch's, and what it will be found by. Given up with this value.
    later: std::sync::Mutex<Option<(Name, Later)>>,
    /// An engine has said that the code does not fit it. It is asked once: what it says of the code that is made
    /// anew is its own failing, and compiling takes much of the machine.
    thrown_away: AtomicBool,
}

/// Work that ends with this value.
struct Later(tokio::task::JoinHandle<()>);

impl Drop for Later {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why an engine does not run.
enum Refusal {
    /// The code was compiled for another one.
    Unfit(Failure),
    Other(SandboxError),
}

impl From<SandboxError> for Refusal {
    fn from(error: SandboxError) -> Self {
        Self::Other(error)
    }
}

/// What the wall launches.
pub(crate) struct Ready {
    code: Arc<Kept>,
    by: CompiledBy,
    digest: String,
    /// What the engine is run from, as it was.
    stamp: String,
    /// Bytes of the module and of its code.
    bytes: u64,
    engine: Arc<dyn Prepared>,
    nothing: Nothing,
}

impl Walled {
    pub(crate) fn new(
        inner: Arc<Inner>,
        artifact: Artifact,
        winch_from: u64,
    ) -> Result<Self, SandboxError> {
        let (calls, extism) = match &artifact.program.runtime {
            Runtime::Wasm { calls } => (*calls, None),
            Runtime::Extism { calls, output } => (*calls, Some(Output::from(*output))),
            other => {
                return Err(SandboxError::Artifact {
                    what: format!("this backend does not run {} entries", other.word()),
                    hint: "use another backend".into(),
                });
            }
        };
        let (ready, later) = (Arc::default(), std::sync::Mutex::default());
        let thrown_away = AtomicBool::new(false);
        Ok(Self { inner, artifact, calls, extism, winch_from, ready, later, thrown_away })
    }

    fn instances(&self) -> u32 {
        self.calls.instances()
    }

    /// The code, compiled where it is not there (any more).
    pub(crate) async fn ready(&self) -> Result<Arc<Ready>, SandboxError> {
        let unavailable = |reason| SandboxError::Unavailable {
            backend: super::NAME,
            reason,
            remedy: "give the engine's program by an absolute path".into(),
        };
        let (program, stamp) = self.inner.engine.found().map_err(unavailable)?;
        let mut slot = self.ready.lock().await;
        if let Some(ready) = slot.as_ref().filter(|r| r.stamp == stamp && r.code.path.is_file()) {
            return Ok(Arc::clone(ready));
        }
        let wasm = read(&self.artifact).await?;
        let (digest, module) = (digest(&wasm), wasm.len() as u64);
        let machine = blocking(made_for).await??;
        let is_extism = self.extism.is_some();
        let name = |by| Name::new(&digest, is_extism, &stamp, &machine, by);
        let (code, by) = self.code(&program, &stamp, &digest, wasm, name).await?;
        let artifact = Artifact {
            content: self.artifact.content.clone(),
            program: Program {
                runtime: Runtime::Engine,
                file: program.to_str().unwrap_or_default().to_owned(),
                args: vec![ARGUMENT.to_owned()],
            },
            code: vec![code.path.clone()],
        };
        let engine = self.inner.wall.prepare(&artifact).await?;
        let bytes = module.saturating_add(code.bytes);
        let inner = Arc::clone(&self.inner);
        let nothing = blocking(move || inner.store.nothing()).await?;
        let nothing = nothing.map_err(|e| SandboxError::step("making an empty folder", e))?;
        let ready = Arc::new(Ready { code, by, digest, stamp, bytes, engine, nothing });
        *slot = Some(Arc::clone(&ready));
        Ok(ready)
    }

    /// The code: what is kept, of Cranelift before Winch; else what is compiled now.
    async fn code(
        &self,
        program: &Path,
        stamp: &str,
        digest: &str,
        wasm: Vec<u8>,
        name: impl Fn(CompiledBy) -> Name,
    ) -> Result<(Arc<Kept>, CompiledBy), SandboxError> {
        let is_quick =
            HAS_WINCH && self.inner.store.keeps() && wasm.len() as u64 >= self.winch_from;
        let (lasting, quick) = (name(CompiledBy::Cranelift), name(CompiledBy::Winch));
        let (inner, names) = (Arc::clone(&self.inner), (lasting.clone(), quick.clone()));
        let find = move || {
            let found = |name, by| Some((inner.store.find(name)?, by));
            found(&names.0, CompiledBy::Cranelift)
                .or_else(|| found(&names.1, CompiledBy::Winch).filter(|_| is_quick))
        };
        let found = match blocking(find).await? {
            Some(found) => found,
            None => {
                self.inner.refused.find(&lasting)?;
                let asked = if is_quick { CompiledBy::Winch } else { CompiledBy::Cranelift };
                let compiled = compile(self.compiling(program), &wasm, asked).await;
                let (by, code) =
                    compiled.inspect_err(|error| self.inner.refused.put(&lasting, error))?;
                let name = if by == CompiledBy::Winch { quick } else { lasting.clone() };
                (put(&self.inner, name, code).await?, by)
            }
        };
        if found.1 == CompiledBy::Winch {
            self.improve(lasting, digest, stamp);
        }
        Ok(found)
    }

    fn compiling<'a>(&'a self, engine: &'a Path) -> Compiling<'a> {
        let (wall, store) = (&*self.inner.wall, &self.inner.store);
        Compiling { wall, store, engine, is_extism: self.extism.is_some() }
    }

    /// Begins to make Cranelift's code for the engine with this stamp, unless that is under way.
    fn improve(&self, lasting: Name, digest: &str, stamp: &str) {
        let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        if later.as_ref().is_some_and(|(of, later)| *of == lasting && !later.0.is_finished()) {
            return;
        }
        let improvement = Improvement {
            inner: Arc::clone(&self.inner),
            artifact: self.artifact.clone(),
            is_extism: self.extism.is_some(),
            lasting: lasting.clone(),
            digest: digest.to_owned(),
            stamp: stamp.to_owned(),
            ready: Arc::clone(&self.ready),
        };
        let work = async move {
            tokio::time::sleep(LATER).await;
            // What comes to nothing leaves the plugin with what it has.
            let _ = improvement.run().await;
        };
        *later = Some((lasting, Later(tokio::spawn(work))));
    }

    async fn launch(
        &self,
        spec: LaunchSpec,
        host: Arc<dyn HostCalls>,
    ) -> Result<Arc<dyn Instance>, SandboxError> {
        let assessed = self.inner.assess(&spec).await;
        if let Some((capability, why)) = assessed.unsupported.first() {
            let (capability, why) = (capability.to_string(), why.clone());
            return Err(SandboxError::Unsupported { capability, why });
        }
        let ready = self.ready().await?;
        let said = match self.launch_of(&ready, &spec, &host).await {
            Ok(instance) => return Ok(instance),
            Err(Refusal::Other(error)) => return Err(error),
            Err(Refusal::Unfit(said)) => said,
        };
        if self.thrown_away.swap(true, Ordering::AcqRel) {
            return Err(SandboxError::Start(believed(said)));
        }
        self.throw_away(&ready).await?;
        let ready = self.ready().await?;
        match self.launch_of(&ready, &spec, &host).await {
            Ok(instance) => Ok(instance),
            Err(Refusal::Other(error)) => Err(error),
            Err(Refusal::Unfit(said)) => Err(SandboxError::Start(believed(said))),
        }
    }

    /// Forgets code, so that it is compiled anew. Who runs it keeps it.
    async fn throw_away(&self, ready: &Arc<Ready>) -> Result<(), SandboxError> {
        let mut slot = self.ready.lock().await;
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, ready)) {
            *slot = None;
        }
        let path = ready.code.path.clone();
        // Another one may have been faster.
        blocking(move || drop(std::fs::remove_file(path))).await
    }

    async fn launch_of(
        &self,
        ready: &Ready,
        spec: &LaunchSpec,
        host: &Arc<dyn HostCalls>,
    ) -> Result<Arc<dyn Instance>, Refusal> {
        let deadline = Instant::now() + spec.limits.start_timeout;
        let data = ready.nothing.path.clone();
        let inside = LaunchSpec { data, ..behind_walls(spec, ready.bytes, self.instances()) };
        let engine = ready.engine.launch(inside, Arc::clone(host)).await?;
        let mut achieved = engine.achieved().clone();
        ours(&mut achieved, Some(spec));
        let missing = achieved.guarantees.missing(&spec.demand);
        if let Some((guarantee, want, have)) = missing.first() {
            engine.kill(KillReason::WallTooWeak).await;
            let what = format!("{guarantee} is {have}, demanded {want}");
            return Err(SandboxError::WallTooWeak(what).into());
        }
        if let Err(failure) = self.start(&*engine, ready, spec, deadline).await {
            let exit = engine.kill(KillReason::Asked).await;
            let failure = match decoded(&failure) {
                Some(said) if said.code == UNFIT => return Err(Refusal::Unfit(said)),
                Some(said) => believed(said),
                // It ended before it could answer: its end says more than the closed lane.
                None if failure.code == ErrorCode::Crashed => exit.to_failure(),
                None => failure,
            };
            return Err(SandboxError::Start(failure).into());
        }
        let extra = (ready.bytes, self.instances());
        Ok(Arc::new(WalledInstance::new(engine, achieved, spec.clone(), extra)))
    }

    /// Tells the engine what to run, and waits until it is there.
    async fn start(
        &self,
        engine: &dyn Instance,
        ready: &Ready,
        spec: &LaunchSpec,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let internal = |e: serde_json::Error| Failure::new(ErrorCode::Internal, e.to_string());
        let start = Start {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            file: self.artifact.program.file.clone(),
            digest: ready.digest.clone(),
            code: ready.code.path.clone(),
            winch: ready.by == CompiledBy::Winch,
            extism: self.extism,
            instances: (self.calls != Calls::Stateful).then(|| self.calls.instances()),
            per_call: matches!(self.calls, Calls::PerCall { .. }),
            rights: spec.rights.iter().map(ToString::to_string).collect(),
            env: spec.env.clone(),
            limits: Bounds { memory: spec.limits.memory, cpu: spec.limits.cpu },
            files: spec.limits.files,
            start_ms: u64::try_from(spec.limits.start_timeout.as_millis()).unwrap_or(u64::MAX),
            roots: self.inner.roots.clone(),
        };
        let payload = Payload::json(&start).map_err(internal)?;
        let trace = Trace::default();
        let told = Invocation { method: START, payload, tool: None, deadline, trace };
        engine.lane().call(told).await.map(drop)
    }
}

/// Makes and keeps Cranelift's code, and has the next start take it instead of Winch's.
struct Improvement {
    inner: Arc<Inner>,
    artifact: Artifact,
    is_extism: bool,
    lasting: Name,
    /// Of the WebAssembly.
    digest: String,
    /// Of the engine that the code is for.
    stamp: String,
    ready: Arc<Mutex<Option<Arc<Ready>>>>,
}

impl Improvement {
    async fn run(self) -> Result<(), SandboxError> {
        let lasts = loop {
            let turn = IdleTurn::new().await?;
            self.inner.refused_later.find(&self.lasting)?;
            // Another plugin with the same file may have been faster, or another process.
            if self.is_there().await? {
                break true;
            }
            let Some(program) = self.same_engine() else { return Ok(()) };
            let Some(wasm) = self.same_wasm().await? else { return Ok(()) };
            let (wall, store) = (&*self.inner.wall, &self.inner.store);
            let compiling = Compiling { wall, store, engine: &program, is_extism: self.is_extism };
            let made = compile_later(compiling, &wasm, turn).await;
            let made =
                made.inspect_err(|error| self.inner.refused_later.put(&self.lasting, error))?;
            if let Some(code) = made {
                // A program that was exchanged meanwhile has made code that is not for this one's.
                break self.same_engine().is_some()
                    && put(&self.inner, self.lasting.clone(), code).await?.is_lasting();
            }
        };
        if !lasts {
            return Ok(());
        }
        let mut slot = self.ready.lock().await;
        let is_winchs = |current: &mut Arc<Ready>| {
            current.by == CompiledBy::Winch && current.stamp == self.stamp
        };
        if let Some(winchs) = slot.take_if(is_winchs) {
            winchs.code.spend();
        }
        Ok(())
    }

    async fn is_there(&self) -> Result<bool, SandboxError> {
        let (inner, lasting) = (Arc::clone(&self.inner), self.lasting.clone());
        blocking(move || inner.store.find(&lasting).is_some()).await
    }

    /// The engine's program, if it is the one that this began with.
    fn same_engine(&self) -> Option<PathBuf> {
        let (program, stamp) = self.inner.engine.found().ok()?;
        (stamp == self.stamp).then_some(program)
    }

    /// Read when it is needed: many may wait. `None` where another file is there now.
    async fn same_wasm(&self) -> Result<Option<Vec<u8>>, SandboxError> {
        let wasm = read(&self.artifact).await?;
        Ok((digest(&wasm) == self.digest).then_some(wasm))
    }
}

/// What the engine says of a start that came to nothing. That a right is missing is its to say: it reads the
/// imports. It cannot say that something was decided.
fn believed(said: Failure) -> Failure {
    use ErrorCode as C;
    let said = Failure { hint: said.hint.map(engines), ..said };
    match said.code {
        C::Denied
        | C::ManifestInvalid
        | C::NotFound
        | C::LimitExceeded
        | C::Deadline
        | C::Crashed
        | C::Unavailable => said,
        _ => Failure { code: C::PluginError, ..said },
    }
}

impl Prepared for Walled {
    fn launch(
        &self,
        spec: LaunchSpec,
        host: Arc<dyn HostCalls>,
    ) -> BoxFuture<'_, Result<Arc<dyn Instance>, SandboxError>> {
        Box::pin(self.launch(spec, host))
    }
}

async fn put(inner: &Arc<Inner>, name: Name, code: Vec<u8>) -> Result<Arc<Kept>, SandboxError> {
    let inner = Arc::clone(inner);
    let put = blocking(move || inner.store.put(&name, &code)).await?;
    put.map_err(|e| SandboxError::step("keeping the compiled code", e))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SandboxError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| SandboxError::Helper(format!("gave up a file: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_hint_of_a_start_is_shown_as_its_own() {
        for code in [ErrorCode::Denied, ErrorCode::Internal] {
            let said = believed(Failure::new(code, "no").hint("--grant 'storage.kv:a'"));
            assert_eq!(said.hint.unwrap(), "the engine says: --grant 'storage.kv:a'");
        }
        let said = believed(Failure::new(ErrorCode::Denied, "no").hint("the plugin says: hello"));
        assert_eq!(said.hint.unwrap(), "the plugin says: hello");
        assert_eq!(believed(Failure::new(ErrorCode::Denied, "no")).hint, None);
    }
}
