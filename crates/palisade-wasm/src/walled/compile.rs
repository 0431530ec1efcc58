//! Compiling behind the walls: a run of the engine that sees nothing but the WebAssembly, on its standard
//! input, and gives machine code on its standard output.
//!
//! It has no rights, no folder and no lane. What comes out is bytes for a file, or a failure in words, which
//! are shown as what they are: somebody else's.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use palisade_model::{
    CapabilitySet, ErrorCode, Failure, GuaranteeSet, Limits, Payload, text::escape,
};
use palisade_sandbox::{
    Artifact, Backend, BoxFuture, Content, Deadline, Exit, ExitCause, HostCalls, HostRequest,
    Instance, KillReason, LaunchSpec, OutputStream, Program, Runtime, SandboxError, Wire,
    stream::{ByteEnds, ByteWire},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::code::{MAX_CODE, Store};
use crate::engine_process::{ARGUMENT, COMPILE, COMPILED, NOT_COMPILED, here};

/// Longest run.
const TIME: Duration = Duration::from_secs(300);
/// How long its end is waited for once it has said all.
const END: Duration = Duration::from_secs(5);
/// Memory of a run, in bytes, and how often the WebAssembly is counted besides.
const MEMORY: u64 = 1 << 30;
const MODULE_TIMES: u64 = 64;
/// The user that compiling runs have where plugins have users of their own; a plugin's is its slot's, and
/// those are counted from 0.
const SLOT: u32 = 65_534;
/// Most characters of its last words.
const WORDS: usize = 400;

/// Compiles `wasm`.
pub(super) async fn compile(
    wall: &dyn Backend,
    store: &Store,
    engine: &Path,
    wasm: Vec<u8>,
    is_extism: bool,
) -> Result<Vec<u8>, SandboxError> {
    let step = |e| SandboxError::step("compiling behind the walls", e);
    // Something has to be shown as the content, and it is nothing.
    let nothing = store.nothing().map_err(step)?;
    let [component, module] = COMPILE;
    let what = if is_extism { module } else { component };
    let program = Program {
        runtime: Runtime::Engine,
        file: engine.to_str().unwrap_or_default().to_owned(),
        args: vec![ARGUMENT.to_owned(), what.to_owned()],
    };
    let content = Content { root: nothing.path.clone(), digest: [0; 32] };
    let artifact = Artifact { content, program, code: Vec::new() };
    let (wire, arriving) = ByteWire::new();
    let spec = spec(&nothing.path, Wire::Bytes(wire), wasm.len() as u64)?;
    let words = Arc::new(Words::default());
    let host: Arc<dyn HostCalls> = Arc::clone(&words) as _;
    let instance = wall.prepare(&artifact).await?.launch(spec, host).await?;
    let ends = arriving.await.map_err(|_| SandboxError::Ended)?;
    let answer = timeout(TIME, converse(ends, &wasm)).await;
    let exit = match &answer {
        Ok(Ok(_)) => ended(&instance).await,
        Ok(Err(_)) => instance.kill(KillReason::Asked).await,
        Err(_) => instance.kill(KillReason::Deadline(Deadline::Start)).await,
    };
    let answer =
        answer.map_err(|_| exit.clone()).and_then(|answer| answer.map_err(|_| exit.clone()));
    read(answer.ok().filter(|_| exit.cause == ExitCause::Exited(0)), &exit, &words)
}

/// Says the WebAssembly and takes what comes back.
async fn converse(ends: ByteEnds, wasm: &[u8]) -> std::io::Result<Vec<u8>> {
    let ByteEnds { mut to, from, finished } = ends;
    let saying = async move {
        // One that does not read to the end has its reasons, which it says.
        let _ = to.write_all(wasm).await;
    };
    let hearing = async {
        let mut heard = Vec::new();
        from.take(MAX_CODE + 1).read_to_end(&mut heard).await?;
        if heard.len() as u64 > MAX_CODE {
            return Err(std::io::Error::other("more than can be kept"));
        }
        Ok(heard)
    };
    let ((), heard) = tokio::join!(saying, hearing);
    drop(finished);
    heard
}

/// What it answered.
fn read(answer: Option<Vec<u8>>, exit: &Exit, words: &Words) -> Result<Vec<u8>, SandboxError> {
    let wrong = || SandboxError::Artifact {
        what: match words.last() {
            last if last.is_empty() => format!("compiling it came to nothing: {exit}"),
            last => format!("compiling it came to nothing: {exit}; it said: {last}"),
        },
        hint: "`palisade check FILE.wasm` says what it is".into(),
    };
    let Some(mut answer) = answer else { return Err(wrong()) };
    match answer.first() {
        Some(&COMPILED) => Ok(answer.split_off(1)),
        Some(&NOT_COMPILED) => {
            let rest = answer.get(1..).unwrap_or_default();
            let failure: Failure = serde_json::from_slice(rest).map_err(|_| wrong())?;
            let (what, hint) = (escape(&failure.message, 2 * WORDS), failure.hint);
            let hint = escape(&hint.unwrap_or_default(), WORDS);
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

fn spec(folder: &Path, wire: Wire, module: u64) -> Result<LaunchSpec, SandboxError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = u32::try_from(cores).unwrap_or(1).min(64);
    let limits = Limits {
        cpu: cores.into(),
        memory: MEMORY.saturating_add(module.saturating_mul(MODULE_TIMES)),
        pids: 32 + 2 * cores,
        files: 64,
        start_timeout: Duration::from_secs(30),
        ..Limits::default()
    };
    Ok(LaunchSpec {
        instance: here().map_err(SandboxError::Helper)?,
        rights: Arc::new(CapabilitySet::new()),
        limits,
        // The same walls as the launch that this is for, which is held to what is demanded.
        demand: GuaranteeSet::new(),
        wire,
        data: folder.to_owned(),
        slot: SLOT,
        env: Default::default(),
        workdir: None,
        observe: None,
    })
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
