//! Instances for the tests of this crate, without a host around them.
#![allow(dead_code, reason = "each test uses a part")]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, OnceLock},
    time::{Duration, Instant},
};

use palisade_egress::{
    Authority, Decide, Guard,
    proxy::{Limits as ProxyLimits, Tunnels},
};
use palisade_model::{
    CapabilitySet, ErrorCode, Failure, Generation, GuaranteeSet, InstanceId, Kind, Limits, NodeId,
    Origin, Payload, PluginId, PluginRef,
};
use palisade_sandbox::{
    BoxFuture, HostCalls, HostRequest, Invocation, LaunchSpec, OutputStream, Stream, ToolCall,
    Trace, Wire,
};
use serde_json::{Value, json};
use wasmtime::component::Component;

use crate::{
    engine::Engines,
    guest::{Code as _, Guest, Trouble},
    inspect::{inspect, needs_concurrency},
    reflect::Reflected,
    state::{self, Shared},
    wasi::Trust,
};

#[path = "../tests/support/built.rs"]
mod built;
use built::build;

const P2: &str = "wasm32-wasip2";

static ENGINES: LazyLock<Engines> = LazyLock::new(|| Engines::new(64).unwrap());

/// What the host was told and asked.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) lines: Mutex<Vec<String>>,
    pub(crate) dropped: Mutex<u64>,
    pub(crate) way_out: Option<(Guard, Arc<dyn Decide>)>,
    tunnels: OnceLock<Tunnels>,
}

impl HostCalls for Host {
    fn request(&self, request: HostRequest) -> BoxFuture<'static, Result<Payload, Failure>> {
        let failure = Failure::new(ErrorCode::NotFound, format!("no method {}", request.method));
        Box::pin(std::future::ready(Err(failure)))
    }

    fn output(&self, stream: OutputStream, line: &str) {
        let stream = if stream == OutputStream::Stderr { "stderr: " } else { "" };
        self.lines.lock().unwrap().push(format!("{stream}{line}"));
    }

    fn output_dropped(&self, bytes: u64) {
        *self.dropped.lock().unwrap() += bytes;
    }

    fn connect(
        &self,
        authority: &str,
    ) -> BoxFuture<'static, Result<tokio::net::TcpStream, Failure>> {
        let authority = Authority::parse(authority);
        let Some((guard, decide)) = self.way_out.clone() else {
            let failure = Failure::new(ErrorCode::Unavailable, "no way out");
            return Box::pin(std::future::ready(Err(failure)));
        };
        Box::pin(
            async move { Ok(guard.connect(&*decide, Kind::NetHttp, &authority?).await?.stream) },
        )
    }

    fn tunnel(&self, authority: &str) -> BoxFuture<'static, Result<Box<dyn Stream>, Failure>> {
        let Some((guard, decide)) = self.way_out.clone() else {
            let failure = Failure::new(ErrorCode::Unavailable, "no way out");
            return Box::pin(std::future::ready(Err(failure)));
        };
        let tunnels = || Tunnels::new(guard, ProxyLimits::default(), decide);
        let tunnel = self.tunnels.get_or_init(tunnels).open(Authority::parse(authority).unwrap());
        Box::pin(async move { Ok(Box::new(tunnel.await?) as Box<dyn Stream>) })
    }
}

/// What an instance is launched with.
#[derive(Default)]
pub(crate) struct Launch<'a> {
    pub(crate) rights: &'a [&'a str],
    pub(crate) env: &'a [(&'a str, &'a str)],
    pub(crate) way_out: Option<(Guard, Arc<dyn Decide>)>,
    pub(crate) limits: Option<Limits>,
    pub(crate) trust: Trust,
}

/// An instance with its host.
pub(crate) struct Launched {
    pub(crate) guest: Box<dyn Guest>,
    pub(crate) host: Arc<Host>,
    pub(crate) shared: Arc<Shared>,
}

/// Compiles a component for the engine that it needs, and links it.
pub(crate) fn reflect(bytes: &[u8]) -> Result<Reflected, crate::WasmError> {
    let inspection = inspect(bytes)?;
    inspection.check_known()?;
    let engine = if needs_concurrency(&inspection) {
        ENGINES.concurrent().unwrap()
    } else {
        ENGINES.plain()
    };
    Reflected::new(&Component::new(engine, bytes).unwrap(), Arc::new(inspection))
}

impl Launch<'_> {
    pub(crate) async fn of(self, code: &Reflected) -> Result<Launched, Failure> {
        let plugin = PluginRef {
            id: PluginId::parse("test").unwrap(),
            origin: Origin::Folder { path: "/nowhere".into(), owner: 0 },
        };
        let rights: CapabilitySet = self.rights.iter().map(|text| text.parse().unwrap()).collect();
        code.check(&rights).map_err(Failure::from)?;
        let spec = LaunchSpec {
            instance: InstanceId {
                node: NodeId::local(),
                plugin: Arc::new(plugin),
                generation: Generation(1),
                serial: 1,
            },
            rights: Arc::new(rights),
            limits: self.limits.unwrap_or_default(),
            demand: GuaranteeSet::default_floor(),
            wire: Wire::Native,
            data: PathBuf::from("/nowhere"),
            slot: 7,
            env: self
                .env
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect::<BTreeMap<_, _>>(),
            workdir: None,
            observe: None,
        };
        let host = Arc::new(Host { way_out: self.way_out, ..Host::default() });
        let calls: Arc<dyn HostCalls> = Arc::clone(&host) as _;
        let shared = Shared::new(spec, calls, Arc::clone(&ENGINES.clock), self.trust);
        let deadline = Instant::now() + Duration::from_secs(30);
        let store = state::store(code.engine(), &shared, deadline);
        let guest = code.instantiate(store).await?;
        Ok(Launched { guest, host, shared })
    }
}

impl Launched {
    /// Calls a tool; what it wrote is in the host's lines afterwards.
    pub(crate) async fn call(&mut self, tool: &str, arguments: Value) -> Result<Value, Trouble> {
        self.call_within(tool, arguments, Duration::from_secs(30)).await
    }

    pub(crate) async fn call_within(
        &mut self,
        tool: &str,
        arguments: Value,
        time: Duration,
    ) -> Result<Value, Trouble> {
        let deadline = Instant::now() + time;
        state::arm(self.guest.store(), deadline, Trace(None));
        let invocation = Invocation {
            method: "call",
            payload: Payload::json(&json!({"tool": tool, "args": arguments})).unwrap(),
            tool: Some(ToolCall {
                name: tool.into(),
                args: serde_json::to_vec(&arguments).unwrap().into(),
            }),
            deadline,
            trace: Trace(None),
        };
        let answer = self.guest.call(&invocation).await;
        self.shared.output.flush();
        answer.map(|payload| payload.parse().unwrap())
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        std::mem::take(&mut *self.host.lines.lock().unwrap())
    }
}

/// Builds a guest of `tests/guests` for `wasm32-wasip2`, once.
pub(crate) fn wasi_guest() -> &'static Reflected {
    static CODE: OnceLock<Reflected> = OnceLock::new();
    CODE.get_or_init(|| reflect(&build("wasi", P2, "wasi-guest.wasm").unwrap()).unwrap())
}

/// The same of one that uses WASI 0.3.
pub(crate) fn wasi3_guest() -> &'static Reflected {
    static CODE: OnceLock<Reflected> = OnceLock::new();
    CODE.get_or_init(|| reflect(&build("wasi3", P2, "wasi3_guest.wasm").unwrap()).unwrap())
}
