//! What the host does for a plugin: the built-in services, one module a family.
//!
//! Each is registered with the broker in the same way as an application's own service, and reached
//! through the same gate. `host.call`, the way to the application's services, is routed by the broker
//! itself.
//!
//! ```
//! use std::sync::Arc;
//! use palisade_broker::{LocalBus, ServiceRegistry};
//! use palisade_services::{log::Tail, register_builtin};
//!
//! let services = ServiceRegistry::new();
//! let tail = Arc::new(Tail::new(1000, 1 << 20));
//! register_builtin(&services, tail, LocalBus::new())?;
//! let names: Vec<String> = services.list().into_iter().map(|s| s.name).collect();
//! assert_eq!(names, ["event.publish", "log"]);
//! # Ok::<(), palisade_broker::BrokerError>(())
//! ```
#![forbid(unsafe_code)]

pub mod events;
pub mod log;
pub mod reference;

use std::sync::Arc;

use palisade_broker::{BrokerError, EventBus, ServiceRegistry};

pub use log::{LogLevel, LogLine, LogSink, LogStream};
pub use reference::reference_markdown;

/// Registers every built-in service.
///
/// # Errors
/// [`BrokerError::DuplicateService`] where one of the names is taken.
pub fn register_builtin(
    services: &ServiceRegistry,
    sink: Arc<dyn LogSink>,
    bus: Arc<dyn EventBus>,
) -> Result<(), BrokerError> {
    services.register(log::service(sink))?;
    services.register(events::publish(bus))
}
