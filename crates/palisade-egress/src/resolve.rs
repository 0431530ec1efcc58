//! From names to addresses. This is the only place where a name is looked up.
//!
//! The system's own resolver (`getaddrinfo(3)`) is used and no DNS client of ours: it gives the answers
//! that the rest of the machine gets (hosts file, split DNS, local caches, the operator's order of
//! sources), and it is no further code to trust. Nothing here is cached, since the guard looks up once
//! for each connection and connects to what it has checked.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use crate::BoxFuture;

/// Looks names up.
pub trait Resolve: Send + Sync {
    /// The addresses of `name` (canonical, see [`crate::Host`]), best first. The guard bounds the time
    /// and the number of lookups, and checks each address.
    ///
    /// # Errors
    /// What the source of names says.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// `getaddrinfo(3)` on tokio's blocking threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address: SocketAddr| address.ip()).collect())
        })
    }
}
