//! Compiling behind the walls: a run of the engine that sees nothing but the WebAssembly, on its standard
//! input, and gives machine code on its standard output.
//!
//! It has no rights, no folder and no lane. What comes out is bytes for a file, or a failure in words, which
//! are shown as what they are: somebody else's.
//!
//! There is one run at a time. One that nobody waits for ([`compile_later`]) is ended by one that somebody waits for,
//! and begins again after it.

use std::{
    collections::VecDeque,
    io::ErrorKind,
    path::Path,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use palisade_model::{
    CapabilitySet, ErrorCode, Failure, GuaranteeSet, InstanceId, Limits, Origin, Payload,
    PluginRef, text::escape,
};
use palisade_sandbox::{
    Artifact, Backend, BoxFuture, Content, Deadline, Exit, ExitCause, HostCalls, HostRequest,
    Instance, KillReason, LaunchSpec, OutputStream, Program, Runtime, SandboxError, Wire, slots,
    stream::{ByteEnds, ByteWire},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Semaphore, SemaphorePermit, watch},
    time::timeout,
};

use super::{
    code::{MAX_CODE, Name, Store},
    digest, engines,
};
use crate::{
    CompiledBy,
    engine_process::{
        ARGUMENT, COMPILE, COMPILED, COMPILED_BY_WINCH, LATER, NOT_COMPILED, QUICKLY, here,
    },
};

/// Longest run.
const TIME: Duration = Duration::from_secs(300);
/// How long its end is waited for once it has said all.
const END: Duration = Duration::from_secs(5);
/// Memory of a run, in bytes, and how often the WebAssembly is counted besides.
const MEMORY: u64 = 1 << 30;
const MODULE_TIMES: u64 = 16;
/// The same at the most.
const MOST_MEMORY: u64 = 4 << 30;
/// Most machine code that is taken for a module, in bytes, and bytes of it for each byte of the module.
const CODE: u64 = 16 << 20;
const CODE_TIMES: u64 = 64;
/// Runs of this process at a time, over all plugins: each may take much of the machine.
static TURNS: Semaphore = Semaphore::const_new(1);
/// How long what could not be compiled is not tried again, and of how many that is remembered.
const REFUSED: Duration = Duration::from_secs(60);
const MOST_REFUSED: usize = 64;
/// Most characters of its last words.
const WORDS: usize = 400;

/// How many runs are there or wanted that somebody waits for.
static WAITED_FOR: LazyLock<watch::Sender<usize>> = LazyLock::new(watch::Sender::default);

/// Somebody waits.
struct Waits;

impl Waits {
    fn new() -> Self {
        WAITED_FOR.send_modify(|count| *count += 1);
        Self
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        WAITED_FOR.send_modify(|count| *count -= 1);
    }
}

/// What runs, and where.
#[derive(Clone, Copy)]
pub(super) struct Compiling<'a> {
    pub(super) wall: &'a dyn Backend,
    pub(super) store: &'a Store,
    pub(super) engine: &'a Path,
    pub(super) is_extism: bool,
}

/// Compiles `wasm`: with Winch where it is `asked` and takes it. Gives which compiler the engine says it was.
pub(super) async fn compile(
    compiling: Compiling<'_>,
    wasm: &[u8],
    asked: CompiledBy,
) -> Result<(CompiledBy, Vec<u8>), SandboxError> {
    let _waits = Waits::new();
    let _turn = TURNS.acquire().await.map_err(|_| SandboxError::Ended)?;
    let how = (asked == CompiledBy::Winch).then_some(QUICKLY);
    let made = compiling.run(wasm, how, std::future::pending()).await?;
    // It never gives way.
    made.ok_or(SandboxError::Ended)
}

/// The right to compile while nobody waits for another run.
pub(super) struct IdleTurn {
    waited_for: watch::Receiver<usize>,
    _turn: SemaphorePermit<'static>,
}

impl IdleTurn {
    /// Waits until there is no other run, and nobody who wants one.
    pub(super) async fn new() -> Result<Self, SandboxError> {
        let mut waited_for = WAITED_FOR.subscribe();
        loop {
            let _ = waited_for.wait_for(|count| *count == 0).await.is_ok();
            let turn = TURNS.acquire().await.map_err(|_| SandboxError::Ended)?;
            // Who came while this stood in line is behind it there, and must not wait for a launch and its end.
            if *waited_for.borrow() == 0 {
                return Ok(Self { waited_for, _turn: turn });
            }
        }
    }
}

/// Compiles `wasm` with Cranelift. `None` where it gave way to a run that somebody waits for.
pub(super) async fn compile_later(
    compiling: Compiling<'_>,
    wasm: &[u8],
    mut turn: IdleTurn,
) -> Result<Option<Vec<u8>>, SandboxError> {
    let give_way = async {
        let _ = turn.waited_for.wait_for(|count| *count > 0).await.is_ok();
    };
    let made = compiling.run(wasm, Some(LATER), give_way).await?;
    Ok(made.map(|(_, code)| code))
}

impl Compiling<'_> {
    /// One run. `None` where it gave way.
    async fn run(
        self,
        wasm: &[u8],
        how: Option<&str>,
        give_way: impl Future<Output = ()>,
    ) -> Result<Option<(CompiledBy, Vec<u8>)>, SandboxError> {
        let step = |e| SandboxError::step("compiling behind the walls", e);
        // Something has to be shown as the content, and it is nothing.
        let nothing = self.store.nothing().map_err(step)?;
        let [component, module] = COMPILE;
        let what = if self.is_extism { module } else { component };
        let args = [Some(ARGUMENT), Some(what), how];
        let program = Program {
            runtime: Runtime::Engine,
            file: self.engine.to_str().unwrap_or_default().to_owned(),
            args: args.into_iter().flatten().map(str::to_owned).collect(),
        };
        let content = Content { root: nothing.path.clone(), digest: [0; 32] };
        let artifact = Artifact { content, program, code: Vec::new() };
        let (wire, arriving) = ByteWire::new();
        let module = wasm.len() as u64;
        let spec = spec(&nothing.path, Wire::Bytes(wire), instance(wasm)?, module);
        let words = Arc::new(Words::default());
        let host: Arc<dyn HostCalls> = Arc::clone(&words) as _;
        let instance = self.wall.prepare(&artifact).await?.launch(spec, host).await?;
        let ends = arriving.await.map_err(|_| SandboxError::Ended)?;
        let answer = tokio::select! {
            answer = timeout(TIME, converse(ends, wasm)) => answer,
            () = give_way => {
                // The next one begins when nothing is left of it.
                instance.kill(KillReason::Asked).await;
                return Ok(None);
            }
        };
        let exit = match &answer {
            Ok(Ok(_)) => ended(&instance).await,
            Ok(Err(_)) => instance.kill(KillReason::Asked).await,
            Err(_) => instance.kill(KillReason::Deadline(Deadline::Start)).await,
        };
        let answer =
            answer.map_err(|_| exit.clone()).and_then(|answer| answer.map_err(|_| exit.clone()));
        let answer = answer.ok().flatten().filter(|_| exit.cause == ExitCause::Exited(0));
        let is_quick = how == Some(QUICKLY);
        read(answer, is_quick, &exit, &words).map(Some)
    }
}

/// Most bytes that are taken for a module of so many.
fn most(module: u64) -> u64 {
    MAX_CODE.min(module.saturating_mul(CODE_TIMES).saturating_add(CODE))
}

/// Says the WebAssembly and takes what comes back: what it is, and the rest. `None` where that is nothing.
async fn converse(ends: ByteEnds, wasm: &[u8]) -> std::io::Result<Option<(u8, Vec<u8>)>> {
    let most = most(wasm.len() as u64);
    let ByteEnds { mut to, mut from, finished } = ends;
    let saying = async move {
        // One that does not read to the end has its reasons, which it says.
        let _ = to.write_all(wasm).await;
    };
    let hearing = async {
        let mut heard = Vec::new();
        let what = match from.read_u8().await {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            what => what?,
        };
        from.take(most + 1).read_to_end(&mut heard).await?;
        if heard.len() as u64 > most {
            return Err(std::io::Error::other("more than can be kept"));
        }
        Ok(Some((what, heard)))
    };
    let ((), heard) = tokio::join!(saying, hearing);
    drop(finished);
    heard
}

/// What it answered.
fn read(
    answer: Option<(u8, Vec<u8>)>,
    is_quick: bool,
    exit: &Exit,
    words: &Words,
) -> Result<(CompiledBy, Vec<u8>), SandboxError> {
    let wrong = || SandboxError::Artifact {
        what: match words.last() {
            last if last.is_empty() => format!("compiling it came to nothing: {exit}"),
            last => format!("compiling it came to nothing: {exit}; it said: {last}"),
        },
        hint: "`palisade check FILE.wasm` says what it is".into(),
    };
    match answer {
        Some((COMPILED, code)) => Ok((CompiledBy::Cranelift, code)),
        Some((COMPILED_BY_WINCH, code)) if is_quick => Ok((CompiledBy::Winch, code)),
        Some((NOT_COMPILED, rest)) => {
            let failure: Failure = serde_json::from_slice(&rest).map_err(|_| wrong())?;
            let (what, hint) = (escape(&failure.message, 2 * WORDS), failure.hint);
            let hint = hint.filter(|hint| !hint.is_empty());
            let hint = hint.map(|hint| engines(escape(&hint, WORDS))).unwrap_or_default();
            Err(SandboxError::Artifact { what, hint })
        }
        _ => Err(wrong()),
    }
}

async fn ended(instance: &Arc<dyn Instance>) -> Exit {
    match timeout(END, instance.wait()).await {
        Ok(exit) => exit,
        Err(_) => instance.kill(KillReason::Deadline(Deadline::Stop)).await,
    }
}

/// The module is the plugin of its run: who takes much of the processors there has that counted against itself in its
/// next run, and against no other's.
fn instance(wasm: &[u8]) -> Result<InstanceId, SandboxError> {
    let here = here().map_err(SandboxError::Helper)?;
    let origin = Origin::Folder { path: digest(wasm), owner: 0 };
    let plugin = Arc::new(PluginRef { id: here.plugin.id.clone(), origin });
    Ok(InstanceId { plugin, ..here })
}

fn spec(folder: &Path, wire: Wire, instance: InstanceId, module: u64) -> LaunchSpec {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = u32::try_from(cores).unwrap_or(1).min(64);
    // The other half stays for what runs.
    let cores = (cores / 2).max(1);
    let limits = Limits {
        cpu: cores.into(),
        memory: MEMORY.saturating_add(module.saturating_mul(MODULE_TIMES)).min(MOST_MEMORY),
        pids: 32 + 2 * cores,
        files: 64,
        start_timeout: Duration::from_secs(30),
        ..Limits::default()
    };
    LaunchSpec {
        instance,
        rights: Arc::new(CapabilitySet::new()),
        limits,
        // The same walls as the launch that this is for, which is held to what is demanded.
        demand: GuaranteeSet::new(),
        wire,
        data: folder.to_owned(),
        slot: slots::COMPILING,
        env: Default::default(),
        workdir: None,
        observe: None,
    }
}

/// What could not be compiled a moment ago, and why.
#[derive(Default)]
pub(crate) struct Refused(Mutex<VecDeque<(Instant, Name, String, String)>>);

impl Refused {
    /// The error that there was, if it is not long ago.
    pub(super) fn find(&self, name: &Name) -> Result<(), SandboxError> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |(when, of, ..): &&(Instant, Name, String, String)| {
            of == name && when.elapsed() < REFUSED
        };
        match known.iter().rev().find(at) {
            Some((_, _, what, hint)) => {
                Err(SandboxError::Artifact { what: what.clone(), hint: hint.clone() })
            }
            None => Ok(()),
        }
    }

    /// Remembers it where the module is at fault, and not the machine.
    pub(super) fn put(&self, name: &Name, error: &SandboxError) {
        let SandboxError::Artifact { what, hint } = error else { return };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_REFUSED {
            known.pop_front();
        }
        known.push_back((Instant::now(), name.clone(), what.clone(), hint.clone()));
    }
}

/// The host of a compiling run: it gives nothing, and remembers the last words.
#[derive(Default)]
struct Words(Mutex<String>);

impl Words {
    fn last(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl HostCalls for Words {
    fn request(&self, _request: HostRequest) -> BoxFuture<'static, Result<Payload, Failure>> {
        let failure = Failure::new(ErrorCode::Unavailable, "nothing can be asked for here");
        Box::pin(std::future::ready(Err(failure)))
    }

    fn output(&self, _stream: OutputStream, line: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = escape(line, WORDS);
    }

    fn output_dropped(&self, _bytes: u64) {}
}

#[cfg(test)]
mod tests;
