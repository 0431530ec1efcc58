//! A component behind the wire: what `palisade-engine` does.
//!
//! To whoever started it, the program is a plugin that speaks the protocol; inside, the engine runs a
//! component, and what that asks of its host goes out as requests. So the engine itself can stand behind
//! the walls around processes, and the suite of cases for plugins drives components too. Rights are decided
//! where the requests arrive; those that are told here only say what is linked.

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
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
    OutputStream, SandboxError, Trace,
};
use tokio::sync::watch;

use crate::WasmBackend;

/// Of the grace of `shutdown`, the share that running calls have, in tenths.
const GRACE_TENTHS: u32 = 8;
/// What stands before a plugin's own hint where a host shows it (`palisade_protocol::WireError`).
const SAID: &str = "the plugin says: ";
/// How long the host may take to close after `shutdown` was answered.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// What is run.
#[derive(Debug)]
pub struct Job {
    /// The file and how its instances are used.
    pub artifact: Artifact,
    /// Rights, limits, environment.
    pub spec: LaunchSpec,
    /// Where compiled code is kept; none: it is compiled at each start.
    pub cache: Option<PathBuf>,
}

/// Runs a component for the host at the other end of `transport`, until either ends.
///
/// # Errors
/// Where the component cannot be launched, and where the host broke the protocol.
pub async fn serve(job: Job, transport: impl Into<std::os::fd::OwnedFd>) -> Result<(), Failure> {
    let host = Arc::new(Host::default());
    let starting = watch::Sender::new(None);
    let shared = Arc::new(Shared {
        instance: starting.subscribe(),
        call_timeout: job.spec.limits.call_timeout,
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
    let launched = launch(job, host).await.map_err(Failure::from);
    let failed = launched.as_ref().err().cloned();
    starting.send_replace(Some(launched));

    let reason = tokio::select! {
        reason = peer.closed() => reason,
        () = shared.stopped(|stop| stop.is_answered) => {
            // The host closes now. Should it not, this side does.
            let _ = tokio::time::timeout(LAST_WAIT, peer.closed()).await;
            peer.close();
            peer.closed().await
        }
    };
    starting.send_replace(None);
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
    backend(job).prepare(&job.artifact).await.map(drop).map_err(Failure::from)
}

fn backend(job: &Job) -> WasmBackend {
    let backend = WasmBackend::new(crate::Options::default().instances(1024));
    if let Some(folder) = &job.cache {
        backend.keep_in(folder);
    }
    backend
}

async fn launch(job: Job, host: Arc<Host>) -> Result<Arc<dyn Instance>, SandboxError> {
    let prepared = backend(&job).prepare(&job.artifact).await?;
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

    #[allow(clippy::print_stdout, clippy::print_stderr, reason = "these are its log streams")]
    fn output(&self, stream: OutputStream, line: &str) {
        match stream {
            OutputStream::Stdout => println!("{line}"),
            OutputStream::Stderr => eprintln!("{line}"),
        }
    }

    #[allow(clippy::print_stderr, reason = "this is its log stream")]
    fn output_dropped(&self, bytes: u64) {
        eprintln!("palisade-engine: {bytes} bytes of output were dropped");
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
    instance: watch::Receiver<Launched>,
    call_timeout: Duration,
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
            match admitted? {
                methods::PING => Ok(empty()),
                methods::SHUTDOWN => shared.shut_down(request.params).await,
                methods::INITIALIZE => {
                    shared.call(methods::INITIALIZE, agreed(&request.params)?).await
                }
                method => shared.call(method, request.params).await,
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

/// The parameters of `initialize` with the version that was agreed on.
fn agreed(params: &Payload) -> Result<Payload, Failure> {
    let invalid = |what: String| Failure::new(ErrorCode::InvalidParams, what);
    let unreadable = |e: serde_json::Error| invalid(escape(&e.to_string(), 200));
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
    /// The method's name, where it may be called now.
    fn admit(&self, method: &str) -> Result<&'static str, Failure> {
        let refuse = |code, message: String| Err(Failure::new(code, message));
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
        let mut instance = self.instance.clone();
        let gone = || Failure::new(ErrorCode::Unavailable, "the plugin has ended");
        let launched = instance.wait_for(Option::is_some).await.map_err(|_| gone())?;
        launched.clone().unwrap_or_else(|| Err(gone()))
    }

    async fn call(&self, method: &'static str, payload: Payload) -> Result<Payload, Failure> {
        let work = async {
            let lane = self.instance().await?.lane();
            let told = self.invocation(method, payload, self.call_timeout);
            lane.call(told).await.map_err(own_words)
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
