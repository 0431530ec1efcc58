//! One attempt behind the walls: launch, ask, observe the answer or the end.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use palisade_model::{
    CapabilitySet, ErrorCode, Failure, Generation, GuaranteeSet, InstanceId, Limits, NodeId,
    Origin, Payload, PluginId, PluginRef,
};
use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{
    Artifact, Backend, BoxFuture, Content, Exit, ExitCause, HostCalls, HostRequest, Instance,
    Invocation, KillReason, LaunchSpec, Observation, Observer, OutputStream, Prepared, Program,
    Runtime, Trace, WayOut,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    scene::{Ground, Stage},
    trouble::{Result, Trouble},
    way_out::{Network, Way},
};

/// What the suite's host does for an attacker: nothing but count.
#[derive(Default)]
pub struct Host {
    /// Requests that came.
    pub requests: AtomicU64,
    /// Bytes of log lines handed on.
    pub logged: AtomicU64,
    /// Bytes of log dropped, as reported.
    pub dropped: AtomicU64,
    /// Longest line, in bytes.
    pub longest: AtomicU64,
    /// How many processes were ended for a forbidden call, as reported.
    violations: tokio::sync::watch::Sender<u64>,
    /// The last lines, for messages about trouble.
    lines: Mutex<Vec<String>>,
    way: Option<Way>,
}

impl Host {
    /// Whether pid 1 reports, or has reported, that it ended a process for a call.
    async fn was_violated(&self) -> bool {
        let mut violations = self.violations.subscribe();
        let told = violations.wait_for(|n| *n > 0);
        tokio::time::timeout(Duration::from_millis(200), told).await.is_ok()
    }

    /// The way out, where the attacker has one.
    #[must_use]
    pub fn way(&self) -> Option<&Way> {
        self.way.as_ref()
    }
}

impl HostCalls for Host {
    fn request(&self, request: HostRequest) -> BoxFuture<'static, Served> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            Err(Failure::new(ErrorCode::NotFound, format!("no method {}", request.method)))
        })
    }

    fn output(&self, _stream: OutputStream, line: &str) {
        self.logged.fetch_add(line.len() as u64 + 1, Ordering::Relaxed);
        self.longest.fetch_max(line.len() as u64, Ordering::Relaxed);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < 20 {
            lines.push(line.to_owned());
        }
    }

    fn output_dropped(&self, bytes: u64) {
        self.dropped.fetch_add(bytes, Ordering::Relaxed);
    }

    fn violation(&self, _syscall: &str, _program: bool) {
        self.violations.send_modify(|n| *n += 1);
    }

    fn egress(&self, sockets: WayOut) -> BoxFuture<'static, ()> {
        match &self.way {
            Some(way) => way.serve(sockets),
            None => Box::pin(std::future::ready(())),
        }
    }
}

type Served = std::result::Result<Payload, Failure>;

/// What the attacker answered.
#[derive(Clone, Debug, Deserialize)]
pub struct Answer {
    /// `blocked`, `succeeded` or `impossible`.
    pub outcome: String,
    /// Name of the errno of the decisive call.
    pub errno: Option<String>,
    /// Name of the signal that ended the child which made the attempt; `policy` where the host was told that
    /// it was ended for a call.
    #[serde(default)]
    pub killed: Option<String>,
    /// What somebody who was asked answered, in a word.
    #[serde(default)]
    pub said: Option<String>,
    /// In words.
    pub detail: String,
}

/// Looks at what it is told, and keeps nothing.
#[derive(Debug)]
struct Looker;

impl Observer for Looker {
    fn saw(&self, observation: Observation) {
        std::hint::black_box(&observation);
    }
}

/// How a launch is made.
#[derive(Clone)]
pub struct Terms {
    /// Limits of the instance.
    pub limits: Limits,
    /// Capabilities beside the ground's own, as text.
    pub grants: Vec<String>,
    /// Grant the ground's folders.
    pub folders: bool,
    /// What the operator says about the network, where some of it is granted.
    pub network: Option<Network>,
    /// Somebody observes the attacker's system calls.
    pub observed: bool,
    /// How long the attacker may take for its answer. One that goes through a tree of 500 levels, beside others,
    /// on one processor that is emulated, takes 20 seconds.
    pub deadline: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            limits: Limits {
                cpu: 2.0,
                memory: 64 << 20,
                pids: 32,
                disk: 16 << 20,
                start_timeout: Duration::from_secs(20),
                ..Limits::default()
            },
            grants: Vec::new(),
            folders: true,
            network: None,
            observed: false,
            deadline: Duration::from_secs(90),
        }
    }
}

/// What was seen of one attempt.
#[derive(Debug)]
pub struct Seen {
    /// The attacker's answer, if it came to give one.
    pub answer: std::result::Result<Answer, Failure>,
    /// How the instance ended, where it did so by itself.
    pub exit: Option<Exit>,
}

/// A backend with the attacker prepared.
pub struct Walls {
    /// Options that it was made with.
    pub options: Options,
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// What every launch demands: the default floor, unless the backend is a weaker one.
    pub demand: GuaranteeSet,
    /// They give a plugin a user of its own and show it the host's folders as they are, so that a folder
    /// granted for writing has to be open to that user.
    pub folders_as_they_are: bool,
    prepared: Arc<dyn Prepared>,
    serial: AtomicU64,
}

/// An attacker behind walls.
pub struct Boxed {
    /// The handle.
    pub instance: Arc<dyn Instance>,
    /// What it wrote.
    pub host: Arc<Host>,
}

impl Walls {
    /// Prepares the stage's attacker behind a backend with these options.
    ///
    /// # Errors
    /// When the backend cannot.
    pub async fn new(options: Options, stage: &Stage) -> Result<Self> {
        let backend = Arc::new(ProcessBackend::new(options.clone()));
        Self::behind(backend, options, stage).await
    }

    /// Prepares the stage's attacker behind `backend`, which was made with `options`.
    ///
    /// # Errors
    /// When the backend cannot.
    pub async fn behind(
        backend: Arc<dyn Backend>,
        options: Options,
        stage: &Stage,
    ) -> Result<Self> {
        let facts = backend.probe().await;
        if let Some(why) = &facts.unavailable {
            return Err(Trouble(format!("no walls here: {} ({})", why.reason, why.remedy)));
        }
        let artifact = Artifact {
            content: Content { root: stage.plugin.clone(), digest: [0; 32] },
            program: Program {
                runtime: Runtime::Native,
                file: "attacker".into(),
                args: vec!["plugin".into()],
            },
            code: Vec::new(),
        };
        let prepared = backend.prepare(&artifact).await?;
        let floor = GuaranteeSet::default_floor();
        let demand = if facts.guarantees.covers(&floor) { floor } else { GuaranteeSet::new() };
        let folders_as_they_are = backend.name() == "landlock";
        let serial = AtomicU64::new(1);
        Ok(Self { options, backend, demand, folders_as_they_are, prepared, serial })
    }

    /// The same walls for something else that was prepared behind their backend.
    #[must_use]
    pub fn with(&self, prepared: Arc<dyn Prepared>) -> Self {
        Self {
            options: self.options.clone(),
            backend: Arc::clone(&self.backend),
            demand: self.demand.clone(),
            folders_as_they_are: self.folders_as_they_are,
            prepared,
            serial: AtomicU64::new(1),
        }
    }

    /// Launches the attacker on `ground`.
    ///
    /// # Errors
    /// Those of the launch: some attempts are made by the grants themselves.
    pub async fn launch(
        &self,
        ground: &Ground,
        terms: &Terms,
    ) -> std::result::Result<Boxed, palisade_sandbox::SandboxError> {
        let mut rights = CapabilitySet::new();
        let mut grants = terms.grants.clone();
        if terms.folders && self.folders_as_they_are {
            open_to_everybody(&ground.granted)?;
        }
        if terms.folders {
            grants.push(format!("fs.write:{}/**", ground.granted.display()));
            grants.push(format!("fs.read:{}/**", ground.readonly.display()));
        }
        for grant in &grants {
            let capability =
                grant.parse().map_err(|e| palisade_sandbox::SandboxError::Artifact {
                    what: format!("{grant}: {e}"),
                    hint: String::new(),
                })?;
            rights.insert(capability);
        }
        let id = PluginId::parse("attacker").map_err(|e| {
            palisade_sandbox::SandboxError::Artifact { what: e.to_string(), hint: String::new() }
        })?;
        let origin = Origin::Folder { path: ground.root.display().to_string(), owner: 0 };
        let instance = InstanceId {
            node: NodeId::local(),
            plugin: Arc::new(PluginRef { id, origin }),
            generation: Generation(1),
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
        };
        let spec = LaunchSpec {
            rights: Arc::new(rights),
            limits: terms.limits.clone(),
            demand: self.demand.clone(),
            observe: terms.observed.then(|| Arc::new(Looker) as Arc<dyn Observer>),
            ..LaunchSpec::new(instance, &ground.data, ground.slot)
        };
        let way = match &terms.network {
            None => None,
            Some(network) => Some(
                Way::new(spec.instance.clone(), (*spec.rights).clone(), &spec.limits, network)
                    .map_err(|what| palisade_sandbox::SandboxError::Artifact {
                        what,
                        hint: String::new(),
                    })?,
            ),
        };
        let host = Arc::new(Host { way, ..Host::default() });
        let calls: Arc<dyn HostCalls> = Arc::clone(&host) as _;
        let instance = self.prepared.launch(spec, calls).await?;
        Ok(Boxed { instance, host })
    }
}

fn open_to_everybody(folder: &Path) -> std::result::Result<(), palisade_sandbox::SandboxError> {
    fs::set_permissions(folder, Permissions::from_mode(0o777))
        .map_err(|e| palisade_sandbox::SandboxError::step("opening a granted folder", e))
}

/// One call on the instance's lane.
///
/// # Errors
/// The lane's failure.
pub async fn call(
    instance: &Arc<dyn Instance>,
    method: &'static str,
    params: &Value,
    deadline: Duration,
) -> std::result::Result<Payload, Failure> {
    let payload = Payload::json(params)
        .map_err(|e| Failure::new(ErrorCode::Internal, format!("parameters: {e}")))?;
    let deadline = Instant::now() + deadline;
    let trace = Trace::default();
    instance.lane().call(Invocation { method, payload, tool: None, deadline, trace }).await
}

impl Boxed {
    /// Asks for one attempt, and waits for the answer or the end. The instance may still run.
    pub async fn attempt(
        &self,
        number: u16,
        variant: &str,
        params: &Map<String, Value>,
        deadline: Duration,
    ) -> Seen {
        let args = json!({"tool": "attempt", "args": {
            "number": number, "variant": variant, "params": params}});
        let mut answer = match call(&self.instance, "call", &args, deadline).await {
            Ok(payload) => payload.parse::<Answer>().map_err(|e| {
                Failure::new(ErrorCode::ProtocolBreach, format!("not an answer: {e}"))
            }),
            Err(failure) => Err(failure),
        };
        // A child that pid 1 ended for a call dies of the same signal as any other.
        if let Ok(answer) = &mut answer
            && answer.killed.as_deref() == Some("SIGKILL")
            && self.host.was_violated().await
        {
            answer.killed = Some("policy".into());
        }
        // A lane that broke has an end; a deadline may have none, and an answer need not.
        let patience = match &answer {
            Ok(_) => Duration::ZERO,
            Err(f) if f.code == ErrorCode::Deadline => Duration::from_millis(50),
            Err(_) => Duration::from_secs(5),
        };
        let exit = tokio::time::timeout(patience, self.instance.wait()).await.ok();
        Seen { answer, exit }
    }

    /// Ends it, however it behaves; how long that took and how it had ended.
    pub async fn end(&self) -> (Duration, Exit) {
        let begun = Instant::now();
        let exit = self.instance.kill(KillReason::Asked).await;
        (begun.elapsed(), exit)
    }
}

impl Seen {
    /// The outcome in the suite's vocabulary, before the host has judged.
    #[must_use]
    pub fn outcome(&self) -> String {
        match (&self.answer, &self.exit) {
            (Ok(answer), _) => answer.word(),
            (Err(_), Some(exit)) => ending(&exit.cause),
            (Err(failure), None) => format!("unanswered:{}", failure.code),
        }
    }

    /// In words.
    #[must_use]
    pub fn detail(&self) -> String {
        match (&self.answer, &self.exit) {
            (Ok(answer), _) => answer.detail.clone(),
            (Err(_), Some(exit)) => exit.to_string(),
            (Err(failure), None) => failure.to_string(),
        }
    }
}

impl Answer {
    /// The answer as an outcome.
    #[must_use]
    pub fn word(&self) -> String {
        match (self.outcome.as_str(), &self.errno, self.killed.as_deref()) {
            ("succeeded", ..) => "SUCCEEDED".into(),
            ("impossible", ..) => format!("impossible:{}", self.detail),
            _ if self.said.is_some() => {
                format!("blocked:{}", self.said.as_deref().unwrap_or_default())
            }
            (_, _, Some(signal)) => format!("killed:{signal}"),
            (_, Some(errno), _) => format!("blocked:{errno}"),
            _ if self.detail.starts_with("no ") => "absent".into(),
            _ => "blocked".into(),
        }
    }
}

/// How an instance ended, as an outcome.
#[must_use]
pub fn ending(cause: &ExitCause) -> String {
    match cause {
        ExitCause::PolicyKill { .. } => "killed:policy".into(),
        ExitCause::OutOfMemory => "killed:memory".into(),
        ExitCause::Killed(KillReason::Limit(what)) => {
            format!("killed:{}", what.split(':').next().unwrap_or("limit"))
        }
        ExitCause::Killed(KillReason::Breach(_)) => "killed:breach".into(),
        ExitCause::Killed(why) => format!("killed:{why}"),
        ExitCause::Exited(status) => format!("ended:status {status}"),
        ExitCause::Signalled(signal) => format!("ended:signal {signal}"),
        other => format!("ended:{other:?}"),
    }
}
