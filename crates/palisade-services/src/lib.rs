//! What the host does for a plugin: the built-in services, one module a family.
//!
//! Each is registered with the broker in the same way as an application's own service, and reached
//! through the same gate. `host.call`, the way to the application's services, is routed by the broker
//! itself.
//!
//! ```
//! use std::sync::Arc;
//! use palisade_audit::{MemoryRecorder, SystemClock};
//! use palisade_broker::{Gate, LocalBus, ServiceRegistry};
//! use palisade_egress::{AddressPolicy, Guard, http::Tls};
//! use palisade_services::{Builtin, desktop::Data, http::Fetcher, log::Tail, storage::Storage};
//! # struct NoSecrets;
//! # impl palisade_services::secret::Secrets for NoSecrets {
//! #     fn read<'a>(&'a self, _: &'a str) -> palisade_audit::BoxFuture<'a,
//! #         Result<Option<palisade_services::secret::SecretValue>, palisade_model::Failure>> {
//! #         Box::pin(async { Ok(None) })
//! #     }
//! # }
//! # struct NoPlugins;
//! # impl palisade_services::plugins::Plugins for NoPlugins {
//! #     fn call(&self, _: palisade_broker::Context, _: palisade_services::plugins::CallParams)
//! #         -> palisade_audit::BoxFuture<'static, Result<palisade_model::Payload, palisade_model::Failure>> {
//! #         Box::pin(async { Ok(palisade_model::Payload::null()) })
//! #     }
//! # }
//! # let folder = tempfile::tempdir()?;
//!
//! let gate = Gate::new(Arc::new(MemoryRecorder::new(1000)));
//! let builtin = Builtin {
//!     sink: Arc::new(Tail::new(1000, 1 << 20)),
//!     bus: LocalBus::new(),
//!     storage: Storage::open(folder.path().join("storage"), Arc::new(SystemClock))?,
//!     http: Fetcher::new(gate, Guard::new(AddressPolicy::new()), Tls::new()?),
//!     data: Arc::new(Data::new()),
//!     secrets: Arc::new(NoSecrets),
//!     plugins: Arc::new(NoPlugins),
//! };
//! let services = ServiceRegistry::new();
//! builtin.register(&services)?;
//! assert!(services.list().iter().any(|service| service.name == "storage.get"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod bare;
pub mod desktop;
pub mod egress;
pub mod events;
pub mod http;
pub mod log;
pub mod plugins;
pub mod reference;
pub mod secret;
pub mod storage;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use palisade_broker::{BrokerError, EventBus, ServiceRegistry};

pub use log::{LogLevel, LogLine, LogSink, LogStream};
pub use reference::reference_markdown;

/// What the built-in services work with.
pub struct Builtin {
    /// Where lines of `log` go.
    pub sink: Arc<dyn LogSink>,
    /// What carries events.
    pub bus: Arc<dyn EventBus>,
    /// What plugins keep.
    pub storage: storage::Storage,
    /// What makes requests.
    pub http: http::Fetcher,
    /// What the application gives to plugins by name.
    pub data: Arc<desktop::Data>,
    /// Where secrets are kept.
    pub secrets: Arc<dyn secret::Secrets>,
    /// Who knows the other plugins.
    pub plugins: Arc<dyn plugins::Plugins>,
}

impl Builtin {
    /// Registers every built-in service.
    ///
    /// # Errors
    /// [`BrokerError::DuplicateService`] where one of the names is taken.
    pub fn register(self, services: &ServiceRegistry) -> Result<(), BrokerError> {
        services.register(log::service(self.sink))?;
        services.register(events::publish(Arc::clone(&self.bus)))?;
        storage::register(services, &self.storage)?;
        services.register(http::service(self.http))?;
        services.register(secret::get(self.secrets))?;
        services.register(plugins::call(self.plugins))?;
        desktop::register(services, self.data, self.bus, &self.storage)
    }
}
