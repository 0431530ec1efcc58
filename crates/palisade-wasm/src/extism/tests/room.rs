//! What a plugin runs in for these tests: the real gate, services and way out, and an instance as a lane
//! would hold it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use palisade_audit::{MemoryRecorder, SystemClock};
use palisade_broker::{Broker, Caller, Context, Gate, Service, ServiceRegistry};
use palisade_egress::{AddressPolicy, Guard, http::Tls};
use palisade_model::{
    Capability, CapabilitySet, Failure, Generation, GuaranteeSet, InstanceId, Limits, NodeId,
    Origin, Payload, PluginId, PluginRef,
};
use palisade_policy::Rules;
use palisade_protocol::{
    VersionRange,
    methods::{CALL, INITIALIZE, InitializeParams, Party, PluginName, call_params},
};
use palisade_sandbox::{
    BoxFuture, ExtismOutput, HostCalls, HostRequest, Invocation, LaunchSpec, OutputStream,
    ToolCall, Trace, Wire,
};
use palisade_services::{
    http::{self, Fetcher},
    log::{self, LogSink, Tail},
};
use serde_json::Value;

use super::super::{ExtismCode, link};
use crate::{
    engine::Engines,
    guest::{Code as _, Guest, Trouble},
    state::{Shared, arm, store},
    wasi::Trust,
};

/// The host's side of one instance: the broker, and what was written to the standard streams.
struct Calls {
    broker: Broker,
    caller: Arc<Caller>,
    output: Arc<Mutex<Vec<String>>>,
}

impl HostCalls for Calls {
    fn request(&self, request: HostRequest) -> BoxFuture<'static, Result<Payload, Failure>> {
        self.broker.request(&self.caller, &request.method, &request.payload, request.trace.0)
    }

    fn output(&self, stream: OutputStream, line: &str) {
        self.output.lock().expect("no panic").push(format!("{stream:?} {line}"));
    }

    fn output_dropped(&self, _: u64) {}
}

/// How a plugin is run.
#[derive(Default)]
pub(super) struct Setup {
    pub(super) rights: Vec<String>,
    pub(super) config: Option<Value>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) memory: Option<u64>,
}

/// A running plugin.
pub(super) struct Room {
    guest: Box<dyn Guest>,
    tail: Arc<Tail>,
    output: Arc<Mutex<Vec<String>>>,
    shared: Arc<Shared>,
    _engines: Engines,
    _folder: tempfile::TempDir,
}

fn services(tail: &Arc<Tail>, gate: &Gate) -> Broker {
    let services = Arc::new(ServiceRegistry::new());
    let sink: Arc<dyn LogSink> = Arc::clone(tail) as Arc<dyn LogSink>;
    let fetcher =
        Fetcher::new(gate.clone(), Guard::new(AddressPolicy::new()), Tls::new().expect("TLS"));
    services.register(log::service(sink)).expect("a name of its own");
    services.register(http::service(fetcher)).expect("a name of its own");
    for name in ["lookup", "combine", "hello_world"] {
        let service = Service::new(name, |_: Context, params: Value| async move {
            Ok::<Value, Failure>(match params {
                Value::Object(mut params) if params.contains_key("args") => {
                    Value::String(format!("found {}", params.remove("args").unwrap_or_default()))
                }
                other => other,
            })
        });
        services.register(service).expect("a name of its own");
    }
    Broker::new(gate.clone(), services)
}

impl Room {
    /// Links, compiles, makes an instance and initialises it.
    pub(super) async fn new(module: &[u8], setup: Setup) -> Result<Self, Failure> {
        let engines = Engines::new(4).expect("an engine");
        let linked = link(module)?;
        let compiled = wasmtime::Module::new(engines.plain(), linked).expect("compiled");
        let code = ExtismCode::new(&compiled, ExtismOutput::Auto)?;

        let rights: CapabilitySet = setup
            .rights
            .iter()
            .map(|right| right.parse::<Capability>().expect("a right"))
            .collect();
        code.check(&rights)?;
        let folder = tempfile::tempdir().expect("a folder");
        let tail = Arc::new(Tail::new(100, 1 << 16));
        let gate = Gate::new(Arc::new(MemoryRecorder::new(100)));
        let broker = services(&tail, &gate);
        let origin = Origin::Folder { path: "/srv/p".into(), owner: 0 };
        let plugin = Arc::new(PluginRef { id: PluginId::parse("p").expect("an id"), origin });
        let instance =
            InstanceId { node: NodeId::local(), plugin, generation: Generation(1), serial: 1 };
        let limits = Limits { memory: setup.memory.unwrap_or(64 << 20), ..Limits::default() };
        let rules = Arc::new(Rules::new(rights.clone(), []));
        let caller = Caller::plugin(instance.clone(), rules, &limits, Arc::new(SystemClock));
        let output: Arc<Mutex<Vec<String>>> = Arc::default();
        let host = Arc::new(Calls { broker, caller, output: Arc::clone(&output) });
        let spec = LaunchSpec {
            instance,
            rights: Arc::new(rights),
            limits,
            demand: GuaranteeSet::default(),
            wire: Wire::Native,
            data: folder.path().to_owned(),
            slot: 1,
            env: setup.env,
            workdir: None,
            observe: None,
        };
        let shared = Shared::new(spec, host, Arc::clone(&engines.clock), Trust::default());
        let deadline = Instant::now() + Duration::from_secs(30);
        let guest = code.instantiate(store(code.engine(), &shared, deadline)).await?;
        let mut room = Self { guest, tail, output, shared, _engines: engines, _folder: folder };
        let config = setup.config.unwrap_or(Value::Null);
        let params = InitializeParams {
            protocol: VersionRange::SUPPORTED,
            features: Vec::new(),
            host: Party { name: "test".into(), version: "1.0.0".into() },
            plugin: PluginName { id: "p".into() },
            config: serde_json::value::to_raw_value(&config).expect("JSON"),
            rights: setup.rights,
        };
        let payload = Payload::json(&params).expect("JSON");
        room.invoke(INITIALIZE, payload, None, Duration::from_secs(10))
            .await
            .map_err(Trouble::into_failure)?;
        Ok(room)
    }

    pub(super) async fn invoke(
        &mut self,
        method: &'static str,
        payload: Payload,
        tool: Option<ToolCall>,
        limit: Duration,
    ) -> Result<Payload, Trouble> {
        let deadline = Instant::now() + limit;
        let invocation = Invocation { method, payload, tool, deadline, trace: Trace(None) };
        arm(self.guest.store(), deadline, Trace(None));
        self.guest.call(&invocation).await
    }

    pub(super) async fn within(
        &mut self,
        limit: Duration,
        tool: &str,
        args: &str,
    ) -> Result<Value, Trouble> {
        let payload = call_params(tool, &Payload::from_json_text(args.to_owned()));
        let args = Bytes::copy_from_slice(args.as_bytes());
        let tool = Some(ToolCall { name: tool.into(), args });
        let answer = self.invoke(CALL, payload, tool, limit).await?;
        self.shared.output.flush();
        Ok(answer.parse().expect("a result is well-formed JSON"))
    }

    pub(super) async fn call(&mut self, tool: &str, args: &str) -> Result<Value, Trouble> {
        self.within(Duration::from_secs(20), tool, args).await
    }

    /// Calls with one text.
    pub(super) async fn text(&mut self, tool: &str, input: &str) -> Result<Value, Trouble> {
        self.call(tool, &serde_json::json!({ "input": input }).to_string()).await
    }

    /// Lines of the log: level and text.
    pub(super) fn log(&self) -> Vec<String> {
        self.tail.lines().iter().map(|l| format!("{} {}", l.level.as_str(), l.message)).collect()
    }

    /// Lines of the standard streams.
    pub(super) fn output(&self) -> Vec<String> {
        self.output.lock().expect("no panic").clone()
    }

    /// Bytes of all memories.
    pub(super) fn memory(&self) -> u64 {
        self.shared.memory().0
    }
}
