//! Command lines as the clients of servers are configured with them: `node server.js`, `npx -y PKG`,
//! `uvx PKG`, `python -m MODULE`, the name of a program.
//!
//! [`analyse`] says what a command line starts and what of this machine must be visible for it. Where it
//! names a package that is to be fetched first, [`resolve()`] fetches it in walls of its own, which reach
//! the registry that the package client is configured with and nothing else, and keeps the result in a
//! cache; the second start reads two files. What comes out of both is a [`Start`].
//!
//! Nothing here starts the server, and nothing of a package is ever run by this crate. It knows where the
//! software of a Linux machine lies; elsewhere it is empty.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

mod analyse;
mod companions;
mod context;
mod error;
mod node;
mod options;
mod packages;
mod python;
pub mod resolve;
mod script;
mod start;
mod tree;

pub use analyse::analyse;
pub use context::Context;
pub use error::CommandError;
pub use packages::{Package, Spec, Tool};
pub use resolve::resolve;
pub use start::{Command, PathArgument, Start};
