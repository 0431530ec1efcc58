//! Run other people's plugins without trusting them.
//!
//! A plugin is a folder with a manifest. An application loads it, grants it what it asks for (or less),
//! starts it behind the strongest wall at hand and calls its tools:
//!
//! ```no_run
//! use palisade::prelude::*;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::builder().backends(palisade::backends()).build().await?;
//! let plugin = host.load("plugins/word-counter").await?;
//! plugin.grant("fs.read:/srv/texts/**".parse()?).await?;
//! plugin.start().await?;
//! let answer = plugin.call("count", &serde_json::json!({ "path": "/srv/texts/a.txt" })).await?;
//! println!("{}", answer.parse::<serde_json::Value>()?);
//! host.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! What is not granted is denied, and the error says what would allow it. Where no wall on this machine
//! covers what is demanded, nothing starts.
//!
//! # A service of one's own
//!
//! Plugins reach the application's services by name, with the right `host.call:NAME`. Parameters and
//! result are plain types; their JSON Schemas come with them.
//!
//! ```
//! use palisade::prelude::*;
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct UserQuery { id: u64 }
//! #[derive(serde::Serialize, schemars::JsonSchema)]
//! struct UserProfile { name: String }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! let profiles = Service::new("get_user_profile", |_cx, query: UserQuery| async move {
//!     match query.id {
//!         7 => Ok(UserProfile { name: "Ada".into() }),
//!         id => Err(Failure::new(ErrorCode::NotFound, format!("there is no user {id}"))),
//!     }
//! });
//! let host = Host::builder().state_dir(folder.path()).service(profiles).build().await?;
//! assert!(host.services().list().iter().any(|service| service.name == "get_user_profile"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Events
//!
//! `host.emit("mail.new", &data)` reaches every running plugin with a right like
//! `event.subscribe:mail.>`, and plugins with `event.publish` rights reach each other:
//!
//! ```
//! # use palisade::prelude::*;
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let host = Host::builder().state_dir(folder.path()).build().await?;
//! let published = host.emit("mail.new", &serde_json::json!({ "from": "ada@example.org" })).await?;
//! assert_eq!(published.queued, 0, "nobody is there yet");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Hooks
//!
//! A hook is a place in the application's work where plugins are asked, one after the other, and may
//! change what it works on or refuse it:
//!
//! ```
//! # use palisade::prelude::*;
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let host = Host::builder().state_dir(folder.path()).build().await?;
//! let text = serde_json::json!({ "text": "hello" });
//! let options = HookOptions::new().on_failure(FailurePolicy::Veto);
//! let outcome = host.hook_with("message.received", &text, options).await?;
//! let text: serde_json::Value = outcome.parse()?; // an error that says who refused and why
//! assert_eq!(text["text"], "hello", "nobody is there yet");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! `process` (default): Linux walls made of namespaces, seccomp, Landlock and cgroups. On other systems
//! everything builds, and without `wasm` [`backends`] gives one that says why nothing starts there.
//!
//! `wasm` (default): WebAssembly components, on every system that wasmtime runs on.
#![forbid(unsafe_code)]

mod nowhere;

use std::sync::Arc;

pub use palisade_host::{
    CallOptions, CommandOutput, Consent, ConsentRecord, Contribution, Control, Conversation,
    ConverseOptions, Counts, Effect, FailurePolicy, GrantOptions, Granted, HookAnswer, HookOptions,
    HookOutcome, HookStep, Host, HostBuilder, HostError, LaunchPlan, LoadOptions, PlannedRight,
    PlannedWall, Plugin, RightState, State, Status, StoreError, Veto, default_state_dir,
};
pub use palisade_model::{
    Access, Capability, CapabilitySet, ErrorCode, Failure, Guarantee, GuaranteeSet, InstanceId,
    Kind, Level, Limits, NodeId, Origin, Payload, PluginId, PluginRef, Principal, Risk,
};

/// Who asks, services and events.
pub mod broker {
    pub use palisade_broker::{
        BrokerError, Caller, Context, Delivery, Event, EventBus, LocalBus, Need, Overflow,
        Published, Redelivery, Service, ServiceInfo, ServiceRegistry, SubscribeOptions,
        Subscription,
    };
    pub use palisade_model::capability::SubjectPattern;
}

/// The record of everything that was asked.
pub mod audit {
    pub use palisade_audit::{
        Chain, Clock, Decision, Head, JsonLinesRecorder, MemoryRecorder, Options, Record,
        RecordError, RecordKind, Recorder, SystemClock, Verified, VerifyError, verify,
    };
}

/// Where plugins' log lines go.
pub mod log {
    pub use palisade_services::log::{
        Fanout, LogLevel, LogLine, LogSink, LogStream, Tail, TailLine, TracingSink,
    };
}

/// The operator's secrets: set with [`Control`], got by plugins with `secret.get` or as variables
/// ([`LoadOptions::secret_env`]).
pub mod secret {
    pub use palisade_host::{MAX_SECRETS, SecretInfo};
    pub use palisade_services::secret::{MAX_SECRET, SecretValue, check_name};
}

/// What a plugin says about itself.
pub mod manifest {
    pub use palisade_host::content::{Survey, survey};
    pub use palisade_manifest::{
        Diagnostic, Digest, Manifest, ManifestError, Syntax, open, parse, schema, shown,
        with_content,
    };
}

/// The operator's rules.
pub mod policy {
    pub use palisade_policy::{OperatorPolicy, PolicyError, grant_option, parse};
}

/// Walls: what a backend is, what it found on this machine and how instances end.
pub mod sandbox {
    #[cfg(unix)]
    pub use palisade_sandbox::stream::{ByteEnds, End};
    pub use palisade_sandbox::{
        Assessment, Backend, Candidate, Exit, ExitCause, Facts, Finding, KillReason, NoBackend,
        Unavailable, Usage,
    };

    /// Being told about the system calls of a plugin ([`crate::Plugin::observe`]): for reports, never for
    /// decisions.
    pub mod observe {
        pub use palisade_sandbox::observe::{
            Found, Observation, Observer, Outcome, PathAccess, Subject,
        };
    }
}

/// The one way out to the network.
pub mod egress {
    pub use palisade_egress::{AddressPolicy, BoxFuture, Guard, Network, Resolve};
}

/// What most applications need.
pub mod prelude {
    pub use crate::{
        CallOptions, Capability, ErrorCode, Failure, FailurePolicy, GrantOptions, HookOptions,
        HookOutcome, Host, HostError, LoadOptions, Payload, Plugin, State,
        broker::{Context, Service},
        policy::OperatorPolicy,
    };
}

/// Backend `process` and what an operator may choose for it.
///
/// Where every call is a launch, or plugins come and go, walls can stand ready: built, never used, used once,
/// gone with the host. Plugins with `mode: per-call` have one ready from their second call on; others where it
/// is asked for:
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use palisade::process::{Options, backends_with};
/// let backends = backends_with(Options { spares: 2, ..Options::default() });
/// let host = palisade::Host::builder().backends(backends);
/// # let _ = host;
/// # }
/// ```
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    feature = "process"
))]
pub mod process {
    pub use palisade_process::{Options, ProcessBackend, backends_with};
}

/// Backend `wasm+process`: the WebAssembly engine behind the walls of `process`, for plugins that are not
/// trusted with the engine. It takes a program that is run as the engine: the application itself, which calls
/// [`enter`](engine::enter) first thing in `main`, or `palisade-engine` of the same version.
///
/// ```no_run
/// use palisade::engine::{self, EngineProgram};
///
/// fn main() -> std::process::ExitCode {
///     if let Some(status) = engine::enter() {
///         return status;
///     }
///     let host = palisade::Host::builder().backends(engine::backends(EngineProgram::this()));
///     # let _ = host;
///     std::process::ExitCode::SUCCESS
/// }
/// ```
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    feature = "process",
    feature = "wasm"
))]
pub mod engine {
    use std::sync::Arc;

    pub use palisade_wasm::{
        engine_process::enter,
        walled::{EngineProgram, WalledBackend},
    };

    use crate::sandbox::Backend;

    /// [`backends`](crate::backends), and behind them the engine `program` in the walls of `process`.
    #[must_use]
    pub fn backends(program: EngineProgram) -> Vec<Arc<dyn Backend>> {
        let mut found = crate::backends();
        let walled = palisade_wasm::walled::behind(&found, program);
        found.extend(walled);
        found
    }
}

/// The WebAssembly engine's backend with other options than [`backends`] gives it: without the fast compiler for first
/// starts ([`Options::winch_from`](field@wasm::Options::winch_from)), for instance.
#[cfg(feature = "wasm")]
pub mod wasm {
    pub use palisade_wasm::{Options, WasmBackend};
}

/// The backends of this platform, cheapest first, for [`HostBuilder::backends`]. Never empty: where
/// there is none, the one that is given explains so when it is asked.
#[must_use]
pub fn backends() -> Vec<Arc<dyn sandbox::Backend>> {
    let mut found: Vec<Arc<dyn sandbox::Backend>> = Vec::new();
    #[cfg(all(target_os = "linux", feature = "process"))]
    found.extend(palisade_process::backends());
    #[cfg(feature = "wasm")]
    found.extend(palisade_wasm::backends());
    if found.is_empty() { vec![nowhere::backend()] } else { found }
}

// The example of the README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

// So are those of the page on hooks.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/how-to/use-hooks.md")]
struct UseHooks;
