//! The host: everything that plugins share, and the list of those it has loaded.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use palisade_audit::{Clock, Recorder};
use palisade_broker::{Broker, Caller, EventBus, Gate, Published, ServiceRegistry};
use palisade_egress::Guard;
use palisade_model::{CapabilitySet, ErrorCode, Failure, NodeId, PluginId};
use palisade_policy::OperatorPolicy;
use palisade_sandbox::Backend;
use palisade_services::log::LogSink;
use serde::Serialize;

use crate::{
    HookOptions, HookOutcome, HostBuilder, HostError, LoadOptions, Plugin,
    cell::PluginCell,
    control::Control,
    loaded::Loaded,
    rights::Held,
    secrets::SecretStore,
    store::{Store, StoredGrant},
};

/// What every plugin of one host shares.
pub(crate) struct HostInner {
    pub(crate) node: NodeId,
    pub(crate) policy: Arc<OperatorPolicy>,
    pub(crate) backends: Vec<Arc<dyn Backend>>,
    pub(crate) broker: Broker,
    pub(crate) bus: Arc<dyn EventBus>,
    pub(crate) sink: Arc<dyn LogSink>,
    /// The one way out to the network.
    pub(crate) guard: Guard,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) state_dir: PathBuf,
    pub(crate) store: Store,
    pub(crate) secrets: SecretStore,
    pub(crate) application: Arc<Caller>,
    pub(crate) plugins: RwLock<BTreeMap<PluginId, Arc<PluginCell>>>,
    /// Loading and forgetting, one at a time.
    pub(crate) loading: tokio::sync::Mutex<()>,
    pub(crate) closed: AtomicBool,
}

impl HostInner {
    pub(crate) fn gate(&self) -> &Gate {
        self.broker.gate()
    }

    /// Now, in seconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now().unix_ns / 1_000_000_000
    }

    /// Refuses work once the last [`Host`] is gone.
    pub(crate) fn check_open(&self) -> Result<(), Failure> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Failure::new(ErrorCode::Unavailable, "the host was dropped")
                .hint("keep a Host for as long as plugins are to run"));
        }
        Ok(())
    }

    pub(crate) fn cells(&self) -> Vec<Arc<PluginCell>> {
        let plugins = self.plugins.read().unwrap_or_else(PoisonError::into_inner);
        plugins.values().map(Arc::clone).collect()
    }

    /// Which rights hold now. Looks at paths on a thread that may block.
    pub(crate) async fn held(
        &self,
        loaded: Arc<Loaded>,
        grants: Vec<StoredGrant>,
    ) -> Result<Held, Failure> {
        let (policy, now) = (Arc::clone(&self.policy), self.now());
        let has_paths = |set: &CapabilitySet| set.iter().any(|c| c.path().is_some());
        if !has_paths(&loaded.requested.required) && !has_paths(&loaded.requested.optional) {
            return Ok(Held::now(&loaded, &grants, &policy, now));
        }
        blocking(move || Held::now(&loaded, &grants, &policy, now)).await
    }
}

/// Runs something that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Failure::new(ErrorCode::Unavailable, "the host is stopping"))
}

/// Ends everything when the last [`Host`] is dropped.
struct Alive(Arc<HostInner>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        for cell in self.0.cells() {
            cell.abandon();
        }
    }
}

/// Loads plugins, starts them behind walls and connects them to the application.
///
/// Cloning is cheap and shares the host. Plugins run for as long as one clone is kept; when the last is
/// dropped they are killed. [`Host::shutdown`] ends them in order first.
#[derive(Clone)]
pub struct Host {
    control: Control,
    _alive: Arc<Alive>,
}

impl Host {
    /// Begins to build a host.
    pub fn builder() -> HostBuilder {
        HostBuilder::default()
    }

    pub(crate) fn new(inner: HostInner) -> Self {
        let caller = Arc::clone(&inner.application);
        let inner = Arc::new(inner);
        let control = Control::new(Arc::clone(&inner), caller);
        Self { control, _alive: Arc::new(Alive(inner)) }
    }

    pub(crate) fn weak(&self) -> std::sync::Weak<HostInner> {
        Arc::downgrade(self.control.host())
    }

    fn inner(&self) -> &HostInner {
        self.control.host()
    }

    /// Control over this host on behalf of `caller`: what a transport (a command, a socket, a server)
    /// uses, once it knows who is at the other end. Use [`Caller::operator`] for a person who controls
    /// this host and [`Caller::limited`] for anybody else.
    #[must_use]
    pub fn control(&self, caller: Arc<Caller>) -> Control {
        Control::new(Arc::clone(self.control.host()), caller)
    }

    /// Loads the plugin in the folder `dir`. See [`Control::load`].
    ///
    /// # Errors
    /// As [`Control::load`].
    pub async fn load(&self, dir: impl AsRef<Path>) -> Result<Plugin, HostError> {
        self.control.load(dir, LoadOptions::new()).await
    }

    /// Loads the plugin in the folder `dir` with a configuration or a backend of one's choice.
    ///
    /// # Errors
    /// As [`Control::load`].
    pub async fn load_with(
        &self,
        dir: impl AsRef<Path>,
        options: LoadOptions,
    ) -> Result<Plugin, HostError> {
        self.control.load(dir, options).await
    }

    /// Publishes an event to every plugin that may receive its subject.
    ///
    /// # Errors
    /// As [`Control::emit`].
    pub async fn emit<T: Serialize + ?Sized>(
        &self,
        subject: &str,
        data: &T,
    ) -> Result<Published, Failure> {
        self.control.emit(subject, data).await
    }

    /// Runs a hook. See [`Control::hook`].
    ///
    /// # Errors
    /// As [`Control::hook`].
    pub async fn hook<T: Serialize + ?Sized>(
        &self,
        hook: &str,
        data: &T,
    ) -> Result<HookOutcome, Failure> {
        self.control.hook(hook, data).await
    }

    /// Runs a hook with a failure policy, deadlines, or plugins that must take part. See
    /// [`Control::hook_with`].
    ///
    /// # Errors
    /// As [`Control::hook`].
    pub async fn hook_with<T: Serialize + ?Sized>(
        &self,
        hook: &str,
        data: &T,
        options: HookOptions,
    ) -> Result<HookOutcome, Failure> {
        self.control.hook_with(hook, data, options).await
    }

    /// The loaded plugin with this id.
    #[must_use]
    pub fn plugin(&self, id: &PluginId) -> Option<Plugin> {
        self.control.plugin(id).ok()
    }

    /// Stops every plugin in order, then waits until the record is written. The host can be used
    /// again afterwards.
    ///
    /// # Errors
    /// The first failure to stop a plugin or to write the record; the others are stopped all the same.
    pub async fn shutdown(&self) -> Result<(), Failure> {
        let mut stopping = tokio::task::JoinSet::new();
        for cell in self.inner().cells() {
            let plugin = Plugin::new(self.control.clone(), cell);
            if !plugin.status().state.is_resting() {
                stopping.spawn(async move { plugin.stop().await });
            }
        }
        let mut result = Ok(());
        while let Some(stopped) = stopping.join_next().await {
            if let Ok(Err(failure)) = stopped {
                result = result.and(Err(failure));
            }
        }
        result.and(self.recorder().flush().await.map_err(Failure::from))
    }

    /// The services that plugins can reach. More may be registered at any time.
    #[must_use]
    pub fn services(&self) -> &Arc<ServiceRegistry> {
        self.inner().broker.services()
    }

    /// The event bus.
    #[must_use]
    pub fn event_bus(&self) -> &Arc<dyn EventBus> {
        &self.inner().bus
    }

    /// The record.
    #[must_use]
    pub fn recorder(&self) -> &Arc<dyn Recorder> {
        self.inner().gate().recorder()
    }

    /// The operator's policy.
    #[must_use]
    pub fn policy(&self) -> &OperatorPolicy {
        &self.inner().policy
    }

    /// The backends, cheapest first.
    #[must_use]
    pub fn backends(&self) -> &[Arc<dyn Backend>] {
        &self.inner().backends
    }

    /// The host's own folder.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.inner().state_dir
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let backends: Vec<&str> = self.backends().iter().map(|b| b.name()).collect();
        f.debug_struct("Host")
            .field("state_dir", &self.state_dir())
            .field("backends", &backends)
            .finish_non_exhaustive()
    }
}
