//! The guard: one place for everything that leaves.
//!
//! A plugin has no network. What it may reach is decided here, once for every connection: the name is
//! read by one parser ([`Authority`]), the caller's rights are asked ([`Decide`]), the name is resolved
//! here ([`Resolve`]), every address found is checked ([`AddressPolicy`]), and the connection goes to a
//! checked address and to no other ([`Guard::connect`]). Two things stand on it: [`http::Client`] for
//! requests that the host makes for a plugin, and [`proxy::Proxy`] for programs that make their own.
//!
//! The guard knows neither grants nor records; who implements [`Decide`] does. Variables such as
//! `HTTP_PROXY` are never read: where the host itself goes through a proxy, a plugin's traffic does not.
//!
//! What it does not do: it does not look inside TLS. A server that answers for several names on one
//! address can be asked for another of them inside the encrypted stream, by the `Host` header; only the
//! name in the handshake (SNI) is compared with what was granted.
//!
//! ```
//! use palisade_egress::{Authority, Host};
//! let shop = Authority::parse("Shop.Example.ORG.:443").unwrap();
//! assert_eq!(shop.to_string(), "shop.example.org:443");
//! assert!(Authority::parse("user@example.org:443").is_err());
//! assert!(Host::parse("0x7f.1").is_err());
//! ```
#![forbid(unsafe_code)]

pub mod address;
pub mod decide;
pub mod error;
pub mod guard;
pub mod host;
pub mod http;
pub mod message;
pub mod names;
pub mod proxy;
pub mod resolve;
pub mod target;

use std::{future::Future, pin::Pin};

pub use address::{AddressClass, AddressPolicy, Network};
pub use decide::{Decide, Entry, Standing, Verdict};
pub use error::EgressError;
pub use guard::{Connection, Guard};
pub use host::{Authority, Host};
pub use names::Names;
pub use resolve::{Resolve, SystemResolver};
pub use target::{Scheme, Target};

/// A boxed future, for traits that are used as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
