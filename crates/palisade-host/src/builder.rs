//! Putting a host together.

use std::{path::PathBuf, sync::Arc};

use palisade_audit::{Clock, MemoryRecorder, Recorder, SystemClock};
use palisade_broker::{
    Broker, BrokerError, Caller, Context, EventBus, Gate, LocalBus, Service, ServiceRegistry,
};
use palisade_egress::{AddressPolicy, Guard, http::Tls};
use palisade_model::{ErrorCode, Failure, NodeId};
use palisade_policy::OperatorPolicy;
use palisade_sandbox::Backend;
use palisade_services::{
    Builtin,
    desktop::Data,
    http::Fetcher,
    log::{LogSink, TracingSink},
    storage::Storage,
};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    Host, HostError,
    host::{HostInner, blocking},
    others::Others,
    secrets::SecretStore,
    state_dir,
    store::Store,
};

/// Records that are kept in memory where no recorder is given.
const MEMORY_RECORDS: usize = 10_000;

/// Builds a [`Host`]. Everything has a default but the backends: without one, no plugin can start.
#[must_use]
#[derive(Default)]
pub struct HostBuilder {
    state_dir: Option<PathBuf>,
    policy: OperatorPolicy,
    backends: Vec<Arc<dyn Backend>>,
    recorder: Option<Arc<dyn Recorder>>,
    services: ServiceRegistry,
    service_error: Option<BrokerError>,
    data: Arc<Data>,
    sink: Option<Arc<dyn LogSink>>,
    bus: Option<Arc<dyn EventBus>>,
    guard: Option<Guard>,
    clock: Option<Arc<dyn Clock>>,
    node: Option<NodeId>,
}

impl HostBuilder {
    /// The host's own folder: grants, consents and what plugins keep. Created with mode 0700. Default:
    /// [`crate::default_state_dir`].
    pub fn state_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(path.into());
        self
    }

    /// The operator's policy. Default: [`OperatorPolicy::default`].
    pub fn policy(mut self, policy: OperatorPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Adds a backend; the cheapest first.
    pub fn backend(mut self, backend: Arc<dyn Backend>) -> Self {
        self.backends.push(backend);
        self
    }

    /// Adds backends; the cheapest first.
    pub fn backends(mut self, backends: impl IntoIterator<Item = Arc<dyn Backend>>) -> Self {
        self.backends.extend(backends);
        self
    }

    /// Where the record is kept. Default: the last 10 000 records in memory, which do not outlive the
    /// process.
    pub fn recorder(mut self, recorder: Arc<dyn Recorder>) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// Adds a service of the application, which plugins reach as `host.call` with its name and need
    /// the right `host.call:NAME` for. A name that is taken or is none fails [`HostBuilder::build`].
    pub fn service<P>(mut self, service: Service<P>) -> Self
    where
        P: DeserializeOwned + JsonSchema + Send + 'static,
    {
        if let Err(error) = self.services.register(service) {
            self.service_error.get_or_insert(error);
        }
        self
    }

    /// Adds a named piece of data, which plugins ask for by `data_request` and need the right
    /// `host.call:data.NAME` for: what `provider` makes of who asks and of the request's `params`. A
    /// name that is taken or is none fails [`HostBuilder::build`].
    pub fn data<R, F, Fut>(mut self, name: &str, provider: F) -> Self
    where
        R: Serialize,
        F: Fn(Context, Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Failure>> + Send + 'static,
    {
        if let Err(error) = self.data.provide(name, provider) {
            self.service_error.get_or_insert(error);
        }
        self
    }

    /// Where plugins' log lines go. Default: the `tracing` subscriber of the application.
    pub fn log_sink(mut self, sink: Arc<dyn LogSink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// What carries events. Default: a [`LocalBus`], within this process.
    pub fn event_bus(mut self, bus: Arc<dyn EventBus>) -> Self {
        self.bus = Some(bus);
        self
    }

    /// What leads to the network. Default: one that uses the system's resolver and lets nobody reach
    /// private, link-local or loopback addresses that no right names.
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guard = Some(guard);
        self
    }

    /// The clock for grants, rates and records in memory. Default: the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// The name of this machine in instance ids. Default: `local`.
    pub fn node(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }

    /// Opens the state folder and its database.
    ///
    /// # Errors
    /// [`HostError`], where the folder or the database cannot be used or a service could not be
    /// registered.
    pub async fn build(self) -> Result<Host, HostError> {
        if let Some(error) = self.service_error {
            return Err(error.into());
        }
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let bus = self.bus.unwrap_or_else(|| LocalBus::new());
        let sink = self.sink.unwrap_or_else(|| Arc::new(TracingSink));
        let guard = self.guard.unwrap_or_else(|| Guard::new(AddressPolicy::new()));
        let path = match self.state_dir {
            Some(path) => path,
            None => state_dir::default_state_dir()?,
        };
        let state_dir = blocking(move || state_dir::open(&path)).await??;
        for backend in &self.backends {
            backend.keep_in(&state_dir);
        }
        let secrets = SecretStore::new(&state_dir);
        let store = Store::open(&state_dir.join("host.db")).await?;
        let recorder = self.recorder.unwrap_or_else(|| {
            Arc::new(MemoryRecorder::with_clock(MEMORY_RECORDS, Arc::clone(&clock)))
        });
        let gate = Gate::new(recorder);
        let storage = Storage::open(state_dir.join("storage"), Arc::clone(&clock));
        let tls = Tls::new().map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))?;
        let others = Arc::new(Others::default());
        Builtin {
            sink: Arc::clone(&sink),
            bus: Arc::clone(&bus),
            storage: storage.map_err(Failure::from)?,
            http: Fetcher::new(gate.clone(), guard.clone(), tls),
            data: self.data,
            secrets: Arc::new(secrets.clone()),
            plugins: Arc::clone(&others) as Arc<dyn palisade_services::plugins::Plugins>,
        }
        .register(&self.services)?;
        let host = Host::new(HostInner {
            node: self.node.unwrap_or_else(NodeId::local),
            policy: Arc::new(self.policy),
            backends: self.backends,
            broker: Broker::new(gate, Arc::new(self.services)),
            bus,
            sink,
            guard,
            clock,
            state_dir,
            store,
            secrets,
            application: Caller::application(),
            plugins: Default::default(),
            loading: Default::default(),
            closed: Default::default(),
        });
        others.belong_to(host.weak());
        Ok(host)
    }
}
