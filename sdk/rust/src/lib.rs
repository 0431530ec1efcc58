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
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod component;
mod error;
mod handle;
mod handlers;
mod http;
mod json;
#[cfg(not(target_family = "wasm"))]
mod native;
mod parts;
mod plugin;
mod storage;

#[cfg(target_family = "wasm")]
use component as transport;
#[cfg(not(target_family = "wasm"))]
use native as transport;

#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub use component as __component;

/// Makes a WebAssembly component of the plugin that a function gives. Where no component is built, it makes
/// nothing, so that the same library serves a program too:
///
/// ```
/// // src/lib.rs
/// use palisade_plugin::Plugin;
///
/// pub fn plugin() -> Plugin {
///     let mut plugin = Plugin::new();
///     plugin.tool("hello", |(): (), _call| Ok("Hello!"));
///     plugin
/// }
///
/// palisade_plugin::component!(plugin);
///
/// // src/main.rs: fn main() -> std::process::ExitCode { greeter::plugin().run() }
/// # fn main() {}
/// ```
#[macro_export]
#[cfg(target_family = "wasm")]
macro_rules! component {
    ($plugin:path) => {
        const _: () = {
            struct Made;
            impl $crate::__component::Make for Made {
                fn plugin() -> $crate::Plugin {
                    $plugin()
                }
            }
            type Exported = $crate::__component::Component<Made>;
            $crate::__component::bindings::export_component!(Exported with_types_in $crate::__component::bindings);
        };
    };
}

/// Makes a WebAssembly component of the plugin that a function gives. Where no component is built, it makes
/// nothing, so that the same library serves a program too:
///
/// ```
/// // src/lib.rs
/// use palisade_plugin::Plugin;
///
/// pub fn plugin() -> Plugin {
///     let mut plugin = Plugin::new();
///     plugin.tool("hello", |(): (), _call| Ok("Hello!"));
///     plugin
/// }
///
/// palisade_plugin::component!(plugin);
///
/// // src/main.rs: fn main() -> std::process::ExitCode { greeter::plugin().run() }
/// # fn main() {}
/// ```
#[macro_export]
#[cfg(not(target_family = "wasm"))]
macro_rules! component {
    ($plugin:path) => {
        const _: fn() -> $crate::Plugin = $plugin;
    };
}

pub use call::Call;
pub use error::{BoxError, PalisadeError, Result, Veto};
pub use handle::{Handle, Host, Log, Published};
pub use http::{Http, Request, Response};
pub use parts::{Command, CommandResult, Event, Hook, Tool};
pub use plugin::{Plugin, State};
pub use storage::{Compared, Entry, List, Listing, Operation, Storage, Transaction};
