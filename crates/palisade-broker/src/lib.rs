//! The gate: everything that a plugin asks and everything that is asked of it passes here.
//!
//! A [`Caller`] is who asks, with rules and rates. The [`Gate`] decides, rates, records the intent, lets
//! the effect happen and records what came of it, in both directions and for control operations too.
//! [`Service`]s are what a plugin may ask for; the [`Broker`] routes requests to them through the gate.
//! The [`EventBus`] carries events; [`LocalBus`] does so within one process.
//!
//! This crate knows neither walls nor wires: the host connects it to them.
//!
//! An application's own service, called by a plugin as `host.call`:
//!
//! ```
//! use std::sync::Arc;
//! use palisade_audit::{MemoryRecorder, SystemClock};
//! use palisade_broker::{Broker, Caller, Gate, Service, ServiceRegistry};
//! use palisade_model::{ErrorCode, Failure, Limits, Payload};
//! use palisade_policy::Rules;
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct UserQuery { id: u64 }
//! #[derive(serde::Serialize, schemars::JsonSchema)]
//! struct UserProfile { name: String }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let services = Arc::new(ServiceRegistry::new());
//! services.register(
//!     Service::new("get_user_profile", |_cx, query: UserQuery| async move {
//!         Ok(UserProfile { name: format!("user {}", query.id) })
//!     })
//!     .describe("Looks up a user's profile."),
//! )?;
//! let broker = Broker::new(Gate::new(Arc::new(MemoryRecorder::new(100))), services);
//!
//! # use palisade_model::*;
//! # let plugin = Arc::new(PluginRef {
//! #     id: PluginId::parse("greeter")?,
//! #     origin: Origin::Folder { path: "/srv/greeter".into(), owner: 1000 },
//! # });
//! # let instance = InstanceId { node: NodeId::local(), plugin, generation: Generation(1), serial: 1 };
//! let granted = ["host.call:get_user_profile".parse()?].into_iter().collect();
//! let rules = Arc::new(Rules::new(granted, []));
//! let caller = Caller::plugin(instance, rules, &Limits::default(), Arc::new(SystemClock));
//!
//! let params = Payload::from_json_text(r#"{"method":"get_user_profile","params":{"id":7}}"#);
//! let answer = broker.request(&caller, "host.call", &params, None).await?;
//! assert_eq!(&answer.bytes()[..], br#"{"name":"user 7"}"#);
//!
//! let params = Payload::from_json_text(r#"{"method":"delete_user","params":{"id":7}}"#);
//! let refused: Failure = broker.request(&caller, "host.call", &params, None).await.unwrap_err();
//! assert_eq!(refused.code, ErrorCode::Denied);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod broker;
pub mod bus;
pub mod caller;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod error;
pub mod gate;
pub mod local_bus;
pub mod rates;
pub mod registry;
pub mod routine;
pub mod service;

pub use broker::Broker;
pub use bus::{
    Counters, Delivery, DeliveryId, Event, EventBus, Overflow, Published, Redelivery, Settlement,
    SubscribeOptions, Subscription,
};
pub use caller::{Caller, HopGuard};
pub use error::BrokerError;
pub use gate::{Action, Gate, Open, Pass};
pub use local_bus::LocalBus;
pub use palisade_audit::BoxFuture;
pub use rates::{Bucket, RateGate};
pub use registry::ServiceRegistry;
pub use routine::Routine;
pub use service::{Context, Need, Reach, Service, ServiceInfo};
