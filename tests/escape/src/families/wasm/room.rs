//! What a guest runs in here: the real backend, the real gate with its services, and the real guard; only
//! names and servers are the suite's own.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use palisade_audit::{MemoryRecorder, SystemClock};
use palisade_broker::{Broker, Caller, Context, Gate, LocalBus, Service, ServiceRegistry};
use palisade_egress::{
    AddressPolicy, Authority, Guard,
    http::Tls,
    proxy::{Limits as ProxyLimits, Sockets, Tunnels, serve_way_out},
};
use palisade_model::{
    Capability, CapabilitySet, ErrorCode, Failure, Generation, Guarantee, InstanceId, Kind, Level,
    Limits, NodeId, Origin, Payload, PluginId, PluginRef, Rates,
};
use palisade_policy::Rules;
use palisade_sandbox::{
    Artifact, Backend, BoxFuture, Calls, Content, ExtismOutput, HostCalls, HostRequest, Instance,
    Invocation, LaunchSpec, OutputStream, Program, Runtime, SandboxError, Stream, ToolCall, Trace,
    WayOut,
};
use palisade_services::{
    egress::Rights,
    events,
    http::{self, Fetcher},
    log::{self, LogSink, Tail},
    plugins::{self, Plugins},
    secret::{self, SecretValue, Secrets},
    storage::{self, Storage},
};
use serde_json::{Value, json};

use super::{Verdict, guests::Guests, net::Names, succeeded, wall::Wall};
use crate::{
    record::Launcher,
    scene::Stage,
    trouble::{Result, Trouble, While},
};

/// Most instances of all plugins here.
pub(super) const INSTANCES: u32 = 64;
/// How late the lines may come that a program wrote before its answer, and how long none comes behind the last.
const LATE: Duration = Duration::from_secs(5);
const REST: Duration = Duration::from_millis(100);
/// Most records that are kept of one launch.
const RECORDS: usize = 1000;

/// What all attempts of a runner share: compiled code, and the folder below which each has its own.
pub(super) struct Scene {
    stage: Arc<Stage>,
    guests: Guests,
    /// One for all, as a host has it: how many instances there may be counts over all of them.
    backend: Arc<dyn Backend>,
    wall: Wall,
    launcher: Launcher,
    serial: AtomicU64,
}

impl Scene {
    pub(super) fn new(
        stage: &Arc<Stage>,
        guests: Guests,
        wall: Wall,
        launcher: Launcher,
    ) -> Result<Arc<Self>> {
        let folder = stage.base.path().join(wall.folder());
        std::fs::create_dir(&folder)?;
        let backend = wall.backend_in(&folder, launcher);
        let (stage, serial) = (Arc::clone(stage), AtomicU64::new(1));
        Ok(Arc::new(Self { stage, guests, backend, wall, launcher, serial }))
    }

    /// A room for one attempt.
    pub(super) fn room(self: &Arc<Self>, lifted: bool) -> Result<Room> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let folder = self.stage.base.path().join(self.wall.folder()).join(serial.to_string());
        std::fs::create_dir(&folder)?;
        Ok(Room { scene: Arc::clone(self), folder, lifted })
    }
}

/// Where one attempt is made.
#[derive(Clone)]
pub(super) struct Room {
    scene: Arc<Scene>,
    /// Its own folder.
    pub(super) folder: PathBuf,
    /// Whether the limit that the attempt is about is lifted, or its right granted.
    pub(super) lifted: bool,
}

/// How a guest is launched.
pub(super) struct Terms {
    pub(super) runtime: Runtime,
    pub(super) rights: Vec<String>,
    pub(super) limits: Limits,
    pub(super) env: Vec<(String, String)>,
    pub(super) config: Value,
    /// How long it may take to be initialised.
    pub(super) first: Duration,
    pub(super) names: Names,
    /// Where names may lead.
    pub(super) policy: AddressPolicy,
}

impl Terms {
    /// A component with these rights, 16 MiB of memory and one processor.
    pub(super) fn new(rights: &[&str]) -> Self {
        let rates = Rates { requests_per_second: 1_000_000, ..Rates::default() };
        Self {
            runtime: Runtime::Wasm { calls: Calls::Stateful },
            rights: rights.iter().map(|right| (*right).to_owned()).collect(),
            limits: Limits {
                memory: 16 << 20,
                start_timeout: Duration::from_secs(30),
                rates,
                ..Limits::default()
            },
            env: Vec::new(),
            config: json!({}),
            first: Duration::from_secs(10),
            names: Names::default(),
            policy: AddressPolicy::new(),
        }
    }

    /// The same for a module of Extism's.
    pub(super) fn extism(rights: &[&str]) -> Self {
        Self {
            runtime: Runtime::Extism { calls: Calls::Stateful, output: ExtismOutput::Auto },
            ..Self::new(rights)
        }
    }

    /// A WASI command that does one task.
    pub(super) fn task(task: &str, what: &str, rights: &[&str]) -> Self {
        let mut terms = Self::new(rights);
        // It imports wasi:http, which takes some right; this one leads nowhere.
        terms.rights.push("net.http:nowhere.example:80".into());
        terms.env = vec![("TASK".into(), task.into()), ("WHAT".into(), what.into())];
        terms
    }

    pub(super) fn memory(mut self, bytes: u64) -> Self {
        self.limits.memory = bytes;
        self
    }

    pub(super) fn pool(mut self, instances: u32) -> Self {
        self.runtime = Runtime::Wasm { calls: Calls::Stateless { instances } };
        self
    }

    pub(super) fn names(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    /// Names may lead to this network of the machine's own.
    pub(super) fn reachable(mut self, network: &str) -> Result<Self> {
        self.policy = self.policy.allow(network.parse().doing(network)?);
        Ok(self)
    }
}

/// What the host does for a guest: everything through the gate.
pub(super) struct Host {
    broker: Broker,
    caller: Arc<Caller>,
    records: Arc<MemoryRecorder>,
    guard: Guard,
    tunnels: OnceLock<Tunnels>,
    /// Lines of the standard streams.
    lines: Mutex<Vec<String>>,
    /// Lines of the log.
    pub(super) tail: Arc<Tail>,
    pub(super) dropped: AtomicU64,
}

impl HostCalls for Host {
    fn request(
        &self,
        request: HostRequest,
    ) -> BoxFuture<'static, std::result::Result<Payload, Failure>> {
        self.broker.request(&self.caller, &request.method, &request.payload, request.trace.0)
    }

    fn output(&self, _: OutputStream, line: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(line.to_owned());
    }

    fn output_dropped(&self, bytes: u64) {
        self.dropped.fetch_add(bytes, Ordering::Relaxed);
    }

    fn connect(
        &self,
        authority: &str,
    ) -> BoxFuture<'static, std::result::Result<tokio::net::TcpStream, Failure>> {
        let rights = Rights::new(self.broker.gate().clone(), Arc::clone(&self.caller));
        let (guard, authority) = (self.guard.clone(), Authority::parse(authority));
        Box::pin(async move {
            let authority = authority.map_err(Failure::from)?;
            Ok(guard.connect(&rights, Kind::NetHttp, &authority).await?.stream)
        })
    }

    fn tunnel(
        &self,
        authority: &str,
    ) -> BoxFuture<'static, std::result::Result<Box<dyn Stream>, Failure>> {
        let authority = match Authority::parse(authority) {
            Ok(authority) => authority,
            Err(error) => return Box::pin(std::future::ready(Err(error.into()))),
        };
        let tunnels = self.tunnels.get_or_init(|| {
            let rights = Rights::new(self.broker.gate().clone(), Arc::clone(&self.caller));
            Tunnels::new(self.guard.clone(), ProxyLimits::default(), Arc::new(rights))
        });
        let tunnel = tunnels.open(authority);
        Box::pin(async move { Ok(Box::new(tunnel.await?) as Box<dyn Stream>) })
    }

    fn egress(&self, way: WayOut) -> BoxFuture<'static, ()> {
        let sockets = Sockets { proxy: way.proxy, names: way.names, direct: way.direct };
        let rights = Arc::new(Rights::new(self.broker.gate().clone(), Arc::clone(&self.caller)));
        Box::pin(serve_way_out(self.guard.clone(), ProxyLimits::default(), sockets, rights))
    }
}

impl Host {
    fn take_lines(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many decisions of the gate with this code are in the record.
    pub(super) fn decided(&self, code: ErrorCode) -> usize {
        self.records.records().iter().filter(|record| record.code == Some(code)).count()
    }
}

/// A guest that was launched.
pub(super) struct Running {
    wall: Wall,
    pub(super) instance: Arc<dyn Instance>,
    pub(super) host: Arc<Host>,
}

impl Room {
    /// The limit, or the one that is as good as none.
    pub(super) fn limit<T>(&self, held: T, lifted: T) -> T {
        if self.lifted { lifted } else { held }
    }

    /// The right that the attempt lacks, where it is granted.
    pub(super) fn granted<'a>(&self, right: &'a str) -> Vec<&'a str> {
        if self.lifted { vec![right] } else { Vec::new() }
    }

    pub(super) fn guests(&self) -> &Guests {
        &self.scene.guests
    }

    /// Another host, which keeps compiled code in `folder`.
    pub(super) fn backend(&self, folder: &Path) -> Arc<dyn Backend> {
        self.scene.wall.backend_in(folder, self.scene.launcher)
    }

    /// What the engine itself takes of a plugin's memory, in bytes, where it is the plugin's own.
    pub(super) fn engine(&self) -> u64 {
        match self.scene.wall {
            Wall::Host => 0,
            Wall::Process => 64 << 20,
        }
    }

    /// Compiles `wasm`, where an attempt measures the time of a launch.
    pub(super) async fn compiled(&self, wasm: &[u8]) -> Result<()> {
        let root = self.folder.join("compiled");
        std::fs::create_dir(&root)?;
        std::fs::write(root.join("plugin.wasm"), wasm)?;
        let artifact = artifact(root, Runtime::Wasm { calls: Calls::Stateful });
        self.scene.backend.prepare(&artifact).await.doing("compiling")?;
        Ok(())
    }

    /// Launches `wasm` and initialises it. The refusal of a launch is an outcome; that of the scene is not.
    pub(super) async fn start(
        &self,
        wasm: &[u8],
        terms: Terms,
    ) -> Result<std::result::Result<Running, Failure>> {
        self.start_behind(&*self.scene.backend, wasm, terms).await
    }

    pub(super) async fn start_behind(
        &self,
        backend: &dyn Backend,
        wasm: &[u8],
        terms: Terms,
    ) -> Result<std::result::Result<Running, Failure>> {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let root = self.folder.join(format!("plugin-{serial}"));
        let data = self.folder.join(format!("data-{serial}"));
        std::fs::create_dir(&root)?;
        std::fs::create_dir(&data)?;
        std::fs::write(root.join("plugin.wasm"), wasm)?;
        let parse = |text: &String| text.parse::<Capability>().doing(text);
        let rights: CapabilitySet = terms.rights.iter().map(parse).collect::<Result<_>>()?;
        let origin = Origin::Folder { path: root.display().to_string(), owner: 0 };
        let plugin = PluginRef { id: PluginId::parse("guest").doing("an id")?, origin };
        let instance = InstanceId {
            node: NodeId::local(),
            plugin: Arc::new(plugin),
            generation: Generation(1),
            serial,
        };
        let host = Arc::new(host(&instance, &rights, &terms, &data)?);
        let mut spec = LaunchSpec {
            rights: Arc::new(rights),
            limits: terms.limits,
            env: terms.env.into_iter().collect(),
            ..LaunchSpec::new(instance, data, u32::try_from(serial).unwrap_or(0))
        };
        if self.scene.wall == Wall::Process {
            spec.demand = spec.demand.with(Guarantee::EngineWalled, Level::Kernel);
        }
        let artifact = artifact(root, terms.runtime);
        let calls: Arc<dyn HostCalls> = Arc::clone(&host) as _;
        let launched: std::result::Result<_, SandboxError> =
            async { backend.prepare(&artifact).await?.launch(spec, calls).await }.await;
        let running = match launched {
            Ok(instance) => Running { wall: self.scene.wall, instance, host },
            Err(refused) => return Ok(Err(Failure::from(refused))),
        };
        let rights: Vec<&String> = terms.rights.iter().collect();
        let params = json!({
            "protocol": {"min": 1, "max": 1}, "features": [], "rights": rights,
            "host": {"name": "palisade", "version": "0"}, "plugin": {"id": "guest"},
            "config": terms.config,
        });
        let asked = running.ask("initialize", &params, terms.first).await;
        Ok(asked.map(|_| running))
    }

    /// Launches, and gives what the one call came to.
    pub(super) async fn once(
        &self,
        wasm: &[u8],
        terms: Terms,
        tool: &str,
        args: Value,
        time: Duration,
    ) -> Result<std::result::Result<Value, Failure>> {
        Ok(match self.start(wasm, terms).await? {
            Ok(running) => running.call(tool, &args, time).await,
            Err(refused) => Err(refused),
        })
    }

    /// Runs the WASI command of `terms`; the last line that it wrote.
    pub(super) async fn command(&self, terms: Terms, time: Duration) -> Result<Verdict> {
        let wasm = self.guests().wasi.clone();
        let running = match self.start(&wasm, terms).await? {
            Ok(running) => running,
            Err(refused) => return Ok(outcome(&refused)),
        };
        Ok(running.task(time).await)
    }
}

fn artifact(root: PathBuf, runtime: Runtime) -> Artifact {
    Artifact {
        content: Content { root, digest: [0; 32] },
        program: Program { runtime, file: "plugin.wasm".into(), args: Vec::new() },
        code: Vec::new(),
    }
}

/// The one secret, and the one other plugin.
struct Known;

impl Secrets for Known {
    fn read<'a>(
        &'a self,
        _: &'a str,
    ) -> BoxFuture<'a, std::result::Result<Option<SecretValue>, Failure>> {
        Box::pin(std::future::ready(SecretValue::new("the secret").map(Some)))
    }
}

impl Plugins for Known {
    fn call(
        &self,
        _: Context,
        _: plugins::CallParams,
    ) -> BoxFuture<'static, std::result::Result<Payload, Failure>> {
        Box::pin(std::future::ready(Ok(Payload::from_json_text("\"told\""))))
    }
}

fn host(instance: &InstanceId, rights: &CapabilitySet, terms: &Terms, data: &Path) -> Result<Host> {
    let records = Arc::new(MemoryRecorder::new(RECORDS));
    let gate = Gate::new(Arc::clone(&records) as _);
    let guard = Guard::with_resolver(terms.policy.clone(), Arc::new(terms.names.clone()));
    let services = Arc::new(ServiceRegistry::new());
    let tail = Arc::new(Tail::new(100_000, 64 << 20));
    let sink: Arc<dyn LogSink> = Arc::clone(&tail) as Arc<dyn LogSink>;
    let tls = Tls::new().doing("TLS")?;
    let fetcher = Fetcher::new(gate.clone(), guard.clone(), tls);
    services.register(log::service(sink)).doing("log")?;
    services.register(http::service(fetcher)).doing("http")?;
    let kept = Storage::open(data.join("storage"), Arc::new(SystemClock)).doing("storage")?;
    storage::register(&services, &kept).doing("storage")?;
    for name in ["lookup", "other"] {
        let service = Service::new(name, |_: Context, params: Value| async move {
            Ok::<Value, Failure>(json!({ "asked": params }))
        });
        services.register(service).doing(name)?;
    }
    services.register(secret::get(Arc::new(Known))).doing("secrets")?;
    services.register(plugins::call(Arc::new(Known))).doing("plugins")?;
    services.register(events::publish(LocalBus::new())).doing("events")?;
    let rules = Arc::new(Rules::new(rights.clone(), []));
    let caller = Caller::plugin(instance.clone(), rules, &terms.limits, Arc::new(SystemClock));
    Ok(Host {
        broker: Broker::new(gate, services),
        caller,
        records,
        guard,
        tunnels: OnceLock::new(),
        lines: Mutex::default(),
        tail,
        dropped: AtomicU64::new(0),
    })
}

impl Running {
    async fn ask(
        &self,
        method: &'static str,
        params: &Value,
        time: Duration,
    ) -> std::result::Result<Payload, Failure> {
        let payload =
            Payload::json(params).map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))?;
        let (deadline, trace) = (Instant::now() + time, Trace::default());
        self.instance.lane().call(Invocation { method, payload, tool: None, deadline, trace }).await
    }

    pub(super) async fn call(
        &self,
        tool: &str,
        args: &Value,
        time: Duration,
    ) -> std::result::Result<Value, Failure> {
        let internal =
            |e: serde_json::Error| Failure::new(ErrorCode::Internal, format!("an answer: {e}"));
        let text = serde_json::to_vec(args).map_err(internal)?;
        let payload = Payload::json(&json!({"tool": tool, "args": args})).map_err(internal)?;
        let tool = Some(ToolCall { name: tool.into(), args: text.into() });
        let (deadline, trace) = (Instant::now() + time, Trace::default());
        let invocation = Invocation { method: "call", payload, tool, deadline, trace };
        self.instance.lane().call(invocation).await?.parse().map_err(internal)
    }

    /// Runs a WASI command, and gives the lines that it wrote meanwhile.
    pub(super) async fn run(
        &self,
        time: Duration,
    ) -> (std::result::Result<Value, Failure>, Vec<String>) {
        self.host.take_lines();
        let ended = self.call("run", &json!({}), time).await;
        let mut lines = self.host.take_lines();
        if self.wall == Wall::Process && ended.is_ok() {
            // They come by a pipe of their own, behind the answer or before it.
            let until = Instant::now() + LATE;
            loop {
                tokio::time::sleep(REST).await;
                let more = self.host.take_lines();
                if (more.is_empty() && !lines.is_empty()) || Instant::now() > until {
                    break;
                }
                lines.extend(more);
            }
        }
        (ended, lines)
    }

    /// Runs the command of WASI 0.3: its last line is what it got, or the error.
    pub(super) async fn task_of_wasi3(&self, time: Duration) -> Verdict {
        let (ended, mut lines) = self.run(time).await;
        let line = lines.pop().unwrap_or_default();
        match (line.strip_prefix("error ErrorCode::"), ended) {
            (_, Err(failure)) => outcome(&failure),
            (Some(error), Ok(_)) => blocked(error),
            (None, Ok(_)) => succeeded(line),
        }
    }

    /// Runs a WASI command; what its last line says.
    pub(super) async fn task(&self, time: Duration) -> Verdict {
        let (ended, mut lines) = self.run(time).await;
        let line = lines.pop().unwrap_or_default();
        match (line.split_once(' '), ended) {
            (Some(("reached", what)), Ok(_)) => succeeded(what),
            (Some(("blocked", why)), Ok(_)) => blocked(why),
            (_, Err(failure)) => outcome(&failure),
            (_, Ok(_)) => (format!("ended:{line}"), "it said nothing of what came of it".into()),
        }
    }
}

/// What a guest says stopped it: the first word is the outcome.
pub(super) fn blocked(why: &str) -> Verdict {
    let word = why.split([' ', '(', '{']).next().unwrap_or_default();
    if word == "absent" {
        return ("absent".into(), why.into());
    }
    (format!("blocked:{word}"), why.into())
}

/// A failure as an outcome: the limit that ended the guest, its own trap, or the code of a refusal.
pub(super) fn outcome(failure: &Failure) -> Verdict {
    let word = match (failure.code, failure.rule.as_deref()) {
        (ErrorCode::LimitExceeded, Some(rule)) => format!("killed:{rule}"),
        (ErrorCode::Deadline, _) => "killed:deadline".into(),
        (ErrorCode::Crashed, _) => "killed:trap".into(),
        (code, _) => format!("blocked:{}", code.as_str()),
    };
    (word, failure.to_string())
}

/// What a call came to: an answer is what the attacker wanted.
pub(super) fn of_call(answer: std::result::Result<Value, Failure>) -> Verdict {
    match answer {
        // What the host refused while the guest goes on.
        Ok(value) => {
            if let Some(code) = value.get("refused").and_then(Value::as_str) {
                let message = value.get("message").map(Value::to_string).unwrap_or_default();
                return (format!("blocked:{code}"), message);
            }
            succeeded(value.to_string().chars().take(200).collect::<String>())
        }
        Err(failure) => outcome(&failure),
    }
}

/// A named pipe (mkfifo(3)) that the host's user may open.
pub(super) fn named_pipe(path: &Path) -> Result<()> {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    Ok(rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)?)
}

/// What is not an outcome.
pub(super) fn odd<T>(what: impl Into<String>) -> Result<T> {
    Err(Trouble(what.into()))
}
