//! Lifecycle and control: loads plugins, asks what they may, starts them behind walls, calls them.
//!
//! A [`Host`] is built once. [`Host::load`] reads a plugin's folder and gives a [`Plugin`]; rights are
//! granted to it, then it is started and called. What a plugin asks of the host goes through the broker
//! to the services, what is asked of the plugin goes through the same gate. [`Control`] is the same for
//! somebody else than the application.
//!
//! This crate knows no kind of wall, wire or capability by name: backends, dialects and services are
//! given to it.
#![forbid(unsafe_code)]

mod builder;
mod call;
mod cell;
mod command;
pub mod content;
mod control;
mod converse;
mod deliver;
mod error;
mod grants;
mod hook;
mod hops;
mod host;
mod host_calls;
mod launch;
mod loaded;
pub mod machine;
mod others;
mod plan;
mod plugin;
mod rights;
mod running;
mod secrets;
mod state_dir;
mod status;
mod store;
mod unsupported;
mod watch;

pub use builder::HostBuilder;
pub use call::CallOptions;
pub use command::{CommandOutput, MAX_COMMAND_ARGS, MAX_COMMAND_BYTES};
pub use control::Control;
pub use converse::{Conversation, ConverseOptions};
pub use error::{HostError, StoreError};
pub use grants::{Consent, ConsentRecord, Effect, GrantOptions, Granted};
pub use hook::{
    DEFAULT_HOOK_TIMEOUT, DEFAULT_HOOK_TOTAL, FailurePolicy, HookAnswer, HookOptions, HookOutcome,
    HookStep, MAX_HOOK_BYTES, MAX_HOOK_PLUGINS, MAX_VETO_CHARS, Veto,
};
pub use host::Host;
pub use loaded::LoadOptions;
pub use machine::State;
pub use plan::{Contribution, LaunchPlan, PlannedRight, PlannedWall, RightState};
pub use plugin::Plugin;
pub use rights::{PathProblem, Unusable};
pub use secrets::{MAX_SECRETS, SecretInfo};
pub use state_dir::default_state_dir;
pub use status::{Counts, Status};
