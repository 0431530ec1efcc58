//! A component behind the wire: what `palisade-engine` does.
//!
//! To whoever started it, the program is a plugin that speaks the protocol; inside, the engine runs a
//! component, and what that asks of its host goes out as requests. So the engine itself can stand behind
//! the walls around processes, and the suite of cases for plugins drives components too. Rights are decided
//! where the requests arrive; those that are told here only say what is linked.

use std::{
    io::Write as _,
    path::PathBuf,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use palisade_model::{ErrorCode, Failure, Payload, text::escape};
use palisade_protocol::{
    CloseReason, Handler, Peer, PeerConfig, Request, Side, VersionRange,
    methods::{self, InitializeParams, ShutdownParams},
};
use palisade_sandbox::{
    Artifact, Backend, BoxFuture, HostCalls, HostRequest, Instance, Invocation, LaunchSpec,
    OutputStream, Runtime, SandboxError, Stream, Trace,
};
use tokio::{net::TcpStream, sync::watch};

use crate::{CompiledBy, WasmBackend, walled, wasi::Trust};

mod enter;
mod start;
mod way_out;

pub(crate) use enter::{
    ARGUMENT, COMPILE, COMPILED, COMPILED_BY_WINCH, LATER, NOT_COMPILED, QUICKLY,
};
pub use enter::{enter, lane};
pub use start::here;
pub(crate) use start::{Bounds, LIMITS, Output, SAID, START, Start, decoded};

/// Of the grace of `shutdown`, the share that running calls have, in tenths.
const GRACE_TENTHS: u32 = 8;
/// How long the host may take to close after `shutdown` was answered.
const LAST_WAIT: Duration = Duration::from_secs(1);
/// Longest call, where the host says when one is over: it takes the call back then.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What is run.
#[derive(Debug)]
pub struct Job {
    /// The file and how its instances are used.
    pub artifact: Artifact,
    /// Rights, limits, environment.
    pub spec: LaunchSpec,
    /// Where compiled code is kept; none: it is compiled at each start.
    pub cache: Option<PathBuf>,
    /// Code that was compiled already. Only for [`serve_when_told`]; elsewhere none.
    pub(crate) code: Option<Given>,
    /// Whom requests over TLS trust. As the code: Mozilla's roots alone where nobody was told another thing.
    pub(crate) trust: Trust,
}

/// Code that was compiled already.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) path: PathBuf,
    /// Of what it was compiled from: SHA-256, hexadecimal.
    pub(crate) digest: String,
    pub(crate) by: CompiledBy,
}

impl Job {
    /// A job that compiles for itself.
    #[must_use]
    pub fn new(artifact: Artifact, spec: LaunchSpec, cache: Option<PathBuf>) -> Self {
        Self { artifact, spec, cache, code: None, trust: Trust::default() }
    }
}

/// Runs a component for the host at the other end of `transport`, until either ends.
///
/// # Errors
/// Where the component cannot be launched, and where the host broke the protocol.
pub async fn serve(job: Job, transport: impl Into<std::os::fd::OwnedFd>) -> Result<(), Failure> {
    let backend = Arc::new(backend(&job));
    serve_with(backend, job, transport).await
}

/// The same with another backend than the engine of this process: a component behind its walls, as a program.
///
/// # Errors
/// As [`serve`].
pub async fn serve_with(
    backend: Arc<dyn Backend>,
    job: Job,
    transport: impl Into<std::os::fd::OwnedFd>,
) -> Result<(), Failure> {
    run(Some((backend, job)), transport).await
}

/// The same where the host says what is run, before anything else: how an engine behind walls begins
/// ([`walled`]). What it says of errors keeps its code.
///
/// # Errors
/// As [`serve`].
pub async fn serve_when_told(transport: impl Into<std::os::fd::OwnedFd>) -> Result<(), Failure> {
    run(None, transport).await
}

async fn run(
    job: Option<(Arc<dyn Backend>, Job)>,
    transport: impl Into<std::os::fd::OwnedFd>,
) -> Result<(), Failure> {
    let host = Arc::new(Host::default());
    let shared = Arc::new(Shared {
        instance: watch::Sender::new(None),
        call_timeout: job.as_ref().map_or(LONGEST, |(_, job)| job.spec.limits.call_timeout),
        to_be_told: job.is_none().then(|| Arc::downgrade(&host)),
        is_started: AtomicBool::new(job.is_some()),
        is_initialized: AtomicBool::new(false),
        running: watch::Sender::new(0),
        stop: watch::Sender::new(Stop::default()),
    });
    let config = PeerConfig { side: Side::Plugin, ..PeerConfig::default() };
    let io = |error: std::io::Error| {
        Failure::new(ErrorCode::Internal, format!("the socket cannot be used: {error}"))
    };
    let peer = Peer::spawn(transport, Arc::new(Plugin(Arc::clone(&shared))), config).map_err(io)?;
    let _ = host.peer.set(peer.clone());
    let failed = match job {
        Some((backend, job)) => shared.launch(&*backend, job, Arc::clone(&host)).await.err(),
        None => None,
    };

    let reason = tokio::select! {
        reason = peer.closed() => reason,
        () = shared.stopped(|stop| stop.is_answered) => {
            // The host closes now. Should it not, this side does.
            let _ = tokio::time::timeout(LAST_WAIT, peer.closed()).await;
            peer.close();
            peer.closed().await
        }
    };
    shared.instance.send_replace(None);
    match (failed, reason) {
        (Some(failure), _) => Err(failure),
        (None, reason @ (CloseReason::Breach(_) | CloseReason::Io(_))) => Err(reason.failure()),
        (None, _) => Ok(()),
    }
}

/// Compiles a component into the cache, so that its first start is as fast as the others.
///
/// # Errors
/// Where it cannot be compiled.
pub async fn prepare(job: &Job) -> Result<(), Failure> {
    // This process ends when it is done: nothing is left for later.
    let backend = backend_with(job, crate::Options::default().winch_from(u64::MAX));
    backend.prepare(&job.artifact).await.map(drop).map_err(Failure::from)
}

fn backend(job: &Job) -> WasmBackend {
    backend_with(job, crate::Options::default())
}

fn backend_with(job: &Job, options: crate::Options) -> WasmBackend {
    if let Some(Given { path, by, .. }) = &job.code {
        let most = match job.artifact.program.runtime {
            Runtime::Wasm { calls } | Runtime::Extism { calls, .. } => calls.instances(),
            _ => 1,
        };
        // One more, for the moment in which a broken one is replaced.
        let options = options.instances(most.saturating_add(1));
        return WasmBackend::with_code(options, (path.clone(), *by), job.trust.clone());
    }
    let backend = WasmBackend::new(options.instances(1024));
    if let Some(folder) = &job.cache {
        backend.keep_in(folder);
    }
    backend
}

async fn launch(
    backend: &dyn Backend,
    job: Job,
    host: Arc<Host>,
) -> Result<Arc<dyn Instance>, SandboxError> {
    if let Some(Given { digest, .. }) = &job.code
        && walled::digest(&crate::backend::read(&job.artifact).await?) != *digest
    {
        return Err(SandboxError::Artifact {
            what: "the file is not the one any more that was compiled".into(),
            hint: "start the plugin again".into(),
        });
    }
    let prepared = backend.prepare(&job.artifact).await?;
    prepared.launch(job.spec, host).await
}

/// What the component asks, for the host at the other end.
#[derive(Default)]
struct Host {
    peer: OnceLock<Peer>,
}

impl HostCalls for Host {
    fn request(&self, request: HostRequest) -> BoxFuture<'static, Result<Payload, Failure>> {
        let Some(peer) = self.peer.get().cloned() else {
            let failure = Failure::new(ErrorCode::Unavailable, "there is no host yet");
            return Box::pin(std::future::ready(Err(failure)));
        };
        if request.method == methods::LOG {
            return Box::pin(async move {
                peer.notify(methods::LOG, &request.payload).await?;
                Ok(Payload::null())
            });
        }
        // The deadline is the caller's, who drops this when it is over.
        Box::pin(peer.request(&request.method, &request.payload, None))
    }

    fn output(&self, stream: OutputStream, line: &str) {
        // Whoever does not read it does not want it.
        let _ = match stream {
            OutputStream::Stdout => writeln!(std::io::stdout(), "{line}"),
            OutputStream::Stderr => writeln!(std::io::stderr(), "{line}"),
        };
    }

    fn output_dropped(&self, bytes: u64) {
        let line = format!("palisade-engine: {bytes} bytes of output were dropped");
        self.output(OutputStream::Stderr, &line);
    }

    fn connect(&self, authority: &str) -> BoxFuture<'static, Result<TcpStream, Failure>> {
        Box::pin(way_out::connect(authority.to_owned()))
    }

    // The proxy that the walls have looks at what passes.
    fn tunnel(&self, authority: &str) -> BoxFuture<'static, Result<Box<dyn Stream>, Failure>> {
        let connection = way_out::tunnel(authority.to_owned());
        Box::pin(async move { Ok(Box::new(connection.await?) as Box<dyn Stream>) })
    }
}

/// How far the end is.
#[derive(Clone, Copy, Debug, Default)]
struct Stop {
    /// `shutdown` came.
    is_asked: bool,
    /// Calls that still run are ended.
    is_forced: bool,
    /// `shutdown` was answered.
    is_answered: bool,
}

type Launched = Option<Result<Arc<dyn Instance>, Failure>>;

struct Shared {
    instance: watch::Sender<Launched>,
    call_timeout: Duration,
    /// The host says what is run.
    to_be_told: Option<Weak<Host>>,
    is_started: AtomicBool,
    is_initialized: AtomicBool,
    /// How many calls are under way.
    running: watch::Sender<usize>,
    stop: watch::Sender<Stop>,
}

/// Counts a call while it lives.
struct Running(Arc<Shared>);

impl Running {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.running.send_modify(|count| *count += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|count| *count = count.saturating_sub(1));
    }
}

struct Plugin(Arc<Shared>);

impl Handler for Plugin {
    fn request(&self, request: Request) -> BoxFuture<'static, Result<Payload, Failure>> {
        let shared = Arc::clone(&self.0);
        // What decides on the order of requests happens here, while they come one after the other.
        let admitted = shared.admit(&request.method);
        let is_call = !matches!(admitted, Err(_) | Ok(methods::PING | methods::SHUTDOWN));
        let running = is_call.then(|| Running::new(&shared));
        Box::pin(async move {
            let _running = running;
            let answer = match admitted {
                Ok(method) => shared.answer(method, request.params).await,
                Err(failure) => Err(failure),
            };
            match &shared.to_be_told {
                Some(_) => answer.map_err(start::coded),
                None => answer.map_err(own_words),
            }
        })
    }

    fn notification(&self, _method: &str, _params: &[u8]) {}

    fn closed(&self, _reason: &CloseReason) {
        self.0.stop.send_modify(|stop| stop.is_forced = true);
    }
}

fn empty() -> Payload {
    Payload::from_json_text("{}")
}

fn gone() -> Failure {
    Failure::new(ErrorCode::Unavailable, "the plugin has ended")
}

fn invalid(what: String) -> Failure {
    Failure::new(ErrorCode::InvalidParams, what)
}

fn unreadable(error: serde_json::Error) -> Failure {
    invalid(escape(&error.to_string(), 200))
}

/// The parameters of `initialize` with the version that was agreed on.
fn agreed(params: &Payload) -> Result<Payload, Failure> {
    let mut params: InitializeParams = params.parse().map_err(unreadable)?;
    let (ours, offered) = (VersionRange::SUPPORTED, params.protocol);
    let Some(chosen) = ours.choose(offered) else {
        return Err(invalid(format!(
            "this engine speaks the protocol {} to {}; the host offers {} to {}",
            ours.min, ours.max, offered.min, offered.max
        )));
    };
    params.protocol = VersionRange { min: chosen, max: chosen };
    Payload::json(&params).map_err(unreadable)
}

/// An error as the component gave it: the host at the other end says itself whose words these are.
fn own_words(mut failure: Failure) -> Failure {
    if let Some(hint) = failure.hint.as_mut().and_then(|hint| hint.strip_prefix(SAID)) {
        failure.hint = Some(hint.to_owned());
    }
    failure
}

impl Shared {
    /// Launches what is asked for, and tells those who wait for it.
    async fn launch(
        &self,
        backend: &dyn Backend,
        job: Job,
        host: Arc<Host>,
    ) -> Result<(), Failure> {
        let launched = launch(backend, job, host).await.map_err(Failure::from);
        let failed = launched.as_ref().err().cloned();
        self.instance.send_replace(Some(launched));
        failed.map_or(Ok(()), Err)
    }

    async fn answer(&self, method: &'static str, params: Payload) -> Result<Payload, Failure> {
        match method {
            methods::PING => Ok(empty()),
            methods::SHUTDOWN => self.shut_down(params).await,
            methods::INITIALIZE => self.call(methods::INITIALIZE, agreed(&params)?).await,
            START => {
                let job = params.parse::<Start>().map_err(unreadable)?.job()?;
                let host = self.to_be_told.as_ref().and_then(Weak::upgrade).ok_or_else(gone)?;
                self.launch(&backend(&job), job, host).await.map(|()| empty())
            }
            LIMITS => {
                let bounds: Bounds = params.parse().map_err(unreadable)?;
                self.instance().await?.set_limits(&bounds.limits()).await?;
                Ok(empty())
            }
            method => self.call(method, params).await,
        }
    }

    /// The method's name, where it may be called now.
    fn admit(&self, method: &str) -> Result<&'static str, Failure> {
        let refuse = |code, message: String| Err(Failure::new(code, message));
        if self.to_be_told.is_some() && method == START {
            if self.is_started.swap(true, Ordering::AcqRel) {
                return refuse(ErrorCode::Conflict, format!("{START} came twice"));
            }
            return Ok(START);
        }
        if !self.is_started.load(Ordering::Acquire) {
            return refuse(ErrorCode::Conflict, format!("{method} came before {START}"));
        }
        if self.to_be_told.is_some() && method == LIMITS {
            return Ok(LIMITS);
        }
        let known = [
            methods::PING,
            methods::INITIALIZE,
            methods::CALL,
            methods::HANDLE_EVENT,
            methods::HOOK,
            methods::RUN_COMMAND,
            methods::CONFIGURE,
            methods::SAVE_STATE,
            methods::RESTORE_STATE,
            methods::SHUTDOWN,
        ];
        let found = known.into_iter().find(|known| *known == method);
        if found == Some(methods::PING) {
            return Ok(methods::PING);
        }
        if method == methods::INITIALIZE {
            if self.is_initialized.swap(true, Ordering::AcqRel) {
                return refuse(ErrorCode::Conflict, "initialize came twice".into());
            }
        } else if !self.is_initialized.load(Ordering::Acquire) {
            return refuse(ErrorCode::Conflict, format!("{method} came before initialize"));
        } else if self.stop.borrow().is_asked {
            return refuse(ErrorCode::Unavailable, "the plugin is shutting down".into());
        }
        let Some(method) = found else {
            return refuse(ErrorCode::NotFound, format!("there is no method {method:?}"));
        };
        if method == methods::SHUTDOWN {
            self.stop.send_modify(|stop| stop.is_asked = true);
        }
        Ok(method)
    }

    /// Waits until the end is so far. What guards the value is given back at once: others change it.
    async fn stopped(&self, is_so_far: fn(&Stop) -> bool) {
        let _ = self.stop.subscribe().wait_for(is_so_far).await.is_ok();
    }

    /// The instance, once it is launched.
    async fn instance(&self) -> Result<Arc<dyn Instance>, Failure> {
        let mut instance = self.instance.subscribe();
        let launched = instance.wait_for(Option::is_some).await.map_err(|_| gone())?;
        launched.clone().unwrap_or_else(|| Err(gone()))
    }

    async fn call(&self, method: &'static str, payload: Payload) -> Result<Payload, Failure> {
        let work = async {
            let lane = self.instance().await?.lane();
            let told = self.invocation(method, payload, self.call_timeout);
            lane.call(told).await
        };
        tokio::select! {
            answer = work => answer,
            // What is dropped in the middle ends its instance.
            () = self.stopped(|stop| stop.is_forced) => {
                Err(Failure::new(ErrorCode::Cancelled, "cancelled"))
            }
        }
    }

    fn invocation(&self, method: &'static str, payload: Payload, time: Duration) -> Invocation {
        let deadline = Instant::now() + time;
        Invocation { method, payload, tool: None, deadline, trace: Trace::default() }
    }

    /// Waits for the calls under way, ends those that take too long, and tells the component.
    async fn shut_down(&self, payload: Payload) -> Result<Payload, Failure> {
        let grace = payload.parse::<ShutdownParams>().map_or(1000, |params| params.grace_ms);
        let grace = Duration::from_millis(grace);
        let mut running = self.running.subscribe();
        let others = running.wait_for(|count| *count == 0);
        let at_most = (grace / 10).saturating_mul(GRACE_TENTHS);
        if tokio::time::timeout(at_most, others).await.is_err() {
            self.stop.send_modify(|stop| stop.is_forced = true);
        }
        // Their answers go out first.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let last = grace.saturating_sub(at_most).min(Duration::from_secs(10));
        let answer = match self.instance().await {
            Ok(instance) => {
                let told = self.invocation(methods::SHUTDOWN, payload, last);
                instance.lane().call(told).await
            }
            Err(failure) => Err(failure),
        };
        self.stop.send_modify(|stop| stop.is_answered = true);
        // What does not want to know of its end has ended all the same.
        match answer {
            Err(failure) if failure.code != ErrorCode::NotFound => Err(failure),
            _ => Ok(empty()),
        }
    }
}
