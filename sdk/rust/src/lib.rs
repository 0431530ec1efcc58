//! Write plugins for Palisade in Rust.
//!
//! A plugin adds its tools, events, hooks and commands to a [`Plugin`] and [runs](Plugin::run) it. Handlers
//! are plain functions that may block: each call has a thread. What they ask of the host they ask through
//! their [`Call`].
//!
//! ```no_run
//! use palisade_plugin::Plugin;
//!
//! #[derive(serde::Deserialize)]
//! struct Greet {
//!     name: String,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     let mut plugin = Plugin::new();
//!     plugin.tool("greet", |args: Greet, _call| Ok(format!("Hello, {}!", args.name)));
//!     plugin.event("chat.>", |event, call| {
//!         call.log().field("subject", &event.subject).info("somebody talks");
//!         Ok(())
//!     });
//!     plugin.run()
//! }
//! ```
//!
//! The wire is described in `docs/reference/protocol.md`. Dependencies are serde and serde_json; the feature
//! `schemars` adds [`Tool::params`](https://docs.rs/schemars), which makes a tool's JSON Schema.

mod args;
mod call;
mod descriptor;
mod error;
mod handle;
mod handlers;
mod http;
mod parts;
mod plugin;
mod pool;
mod session;
mod storage;
mod wire;

pub use call::Call;
pub use error::{BoxError, PalisadeError, Result, Veto};
pub use handle::{Handle, Host, Log, Published};
pub use http::{Http, Request, Response};
pub use parts::{Command, CommandResult, Event, Hook, Tool};
pub use plugin::{Plugin, State};
pub use storage::{Compared, Entry, List, Listing, Operation, Storage, Transaction};
