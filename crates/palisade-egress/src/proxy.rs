//! A way out for programs that make their own connections: an HTTP proxy (`CONNECT` and plain) and a
//! SOCKS 5 proxy on one listener.
//!
//! The listener is the only thing that a plugin's empty network can reach, and it belongs to one plugin:
//! what comes through it has that plugin's rights, whatever it says about itself. Variables that point
//! programs to it are a convenience; unsetting them leads nowhere.
//!
//! What may pass:
//! - a plain HTTP request, with a right `net.http`; each one is decided, looked up and checked anew;
//! - a tunnel with a right `net.tcp`: any bytes;
//! - a tunnel with a right `net.http`: TLS whose handshake names the host that was asked for, or HTTP
//!   requests for it and for nobody else;
//! - a tunnel to port 443: only TLS whose handshake names the host, whatever the right.
//!
//! Server names hidden from view (encrypted client hello) are refused, since they could be any.

mod forward;
pub mod hello;
mod pump;
mod session;
mod socks;
mod stream;
mod tunnel;
mod way_out;

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

pub use stream::{Client, Duplex};
pub use tunnel::{Tunnel, Tunnels};
pub use way_out::{Sockets, serve_way_out};

use crate::{Authority, Decide, Guard, Names};

/// The port on which nothing but TLS passes.
pub const TLS_PORT: u16 = 443;
/// How long the listener rests when it could not accept: out of handles, most often.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Bounds for the connections of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most connections at one time, at least 1, and at most half of what the host's handles allow for
    /// all plugins; more wait in the listener's queue.
    pub connections: usize,
    /// How long a client may take to say what it wants: a head, a SOCKS request, a TLS hello.
    pub request: Duration,
    /// How long no byte may pass on an open connection.
    pub idle: Duration,
    /// How long one connection may be open.
    pub total: Duration,
    /// Most bytes from the plugin to the server, a connection or plain request.
    pub sent_bytes: u64,
    /// Most bytes from the server to the plugin, a connection or plain request.
    pub received_bytes: u64,
}

impl Default for Limits {
    /// 128 connections; 30 s to ask, 5 minutes idle, 12 hours in all; 16 GiB each way.
    fn default() -> Self {
        Self {
            connections: 128,
            request: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            total: Duration::from_secs(12 * 3600),
            sent_bytes: 16 << 30,
            received_bytes: 16 << 30,
        }
    }
}

/// The proxy. Cloning shares the guard.
#[derive(Clone)]
pub struct Proxy {
    guard: Guard,
    limits: Arc<Limits>,
    names: Option<Arc<Names>>,
    /// Shared by every listener of the plugin.
    places: Arc<Semaphore>,
}

impl Proxy {
    /// A proxy that goes out through `guard`.
    #[must_use]
    pub fn new(guard: Guard, limits: Limits) -> Self {
        // Half of what all plugins have together, so that none can take everything.
        let most = limits.connections.min(guard.most_connections() / 2).max(1);
        let places = Arc::new(Semaphore::new(most));
        Self { guard, limits: Arc::new(limits), names: None, places }
    }

    /// With the name server that the plugin asks: an address that it gave stands for its name.
    #[must_use]
    pub fn names(mut self, names: Arc<Names>) -> Self {
        self.names = Some(names);
        self
    }

    /// Serves one plugin's listener, and never ends by itself. Dropping the future ends every connection
    /// that came through it.
    pub async fn serve(&self, listener: TcpListener, decide: Arc<dyn Decide>) {
        self.serve_as(listener, decide, false).await;
    }

    /// As [`Proxy::serve`] for a listener whose clients do not ask: they connect to an address of
    /// [`Names`], and are taken to the name that it stands for, at the port that they connected to.
    /// Connections to other addresses are closed.
    pub async fn serve_direct(&self, listener: TcpListener, decide: Arc<dyn Decide>) {
        self.serve_as(listener, decide, true).await;
    }

    async fn serve_as(&self, listener: TcpListener, decide: Arc<dyn Decide>, direct: bool) {
        let mut open = JoinSet::new();
        loop {
            while open.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) => {
                    // After accepting: a listener at which nobody knocks keeps no place from the others.
                    // The semaphores are never closed.
                    let place = Arc::clone(&self.places).acquire_owned().await;
                    let shared = self.guard.place().await;
                    let (proxy, decide) = (self.clone(), Arc::clone(&decide));
                    open.spawn(async move {
                        match direct {
                            true => proxy.handle_direct(Client::Tcp(stream), &*decide).await,
                            false => proxy.handle(stream, &*decide).await,
                        }
                        drop((place, shared));
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "the egress listener could not accept");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    /// Serves one connection of a plugin, to its end.
    pub async fn handle(&self, client: impl Into<Client>, decide: &dyn Decide) {
        if let Err(error) = self.session(client.into(), decide).run().await {
            tracing::debug!(%error, "a connection through the egress proxy ended");
        }
    }

    /// Serves one connection to an address that stands for a name.
    async fn handle_direct(&self, client: Client, decide: &dyn Decide) {
        let Some(asked) = self.meant_by(&client) else {
            tracing::debug!("a connection to an address that stands for no name was closed");
            return;
        };
        if let Err(error) = self.session(client, decide).run_direct(&asked).await {
            tracing::debug!(%error, "a direct connection ended");
        }
    }

    fn session<'a>(&'a self, client: Client, decide: &'a dyn Decide) -> session::Session<'a> {
        session::Session {
            guard: &self.guard,
            limits: &self.limits,
            names: self.names.as_deref(),
            decide,
            client: client.into(),
        }
    }

    /// The name and port that a client connected to.
    fn meant_by(&self, client: &Client) -> Option<Authority> {
        let Client::Tcp(stream) = client else { return None };
        let local = stream.local_addr().ok()?;
        let host = self.names.as_ref()?.name_of(local.ip())?;
        Authority::new(host, local.port()).ok()
    }
}
