//! Everything that one instance's way out is made of, served together.

use std::{io, net, sync::Arc};

use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};

use super::{Limits, Proxy};
use crate::{Decide, Guard, Names};

/// Sockets in an instance's own network. Not blocking.
#[derive(Debug)]
pub struct Sockets {
    /// For clients that say whom they want.
    pub proxy: net::TcpListener,
    /// The name server for clients that do not.
    pub names: Option<net::UdpSocket>,
    /// Where connections to the addresses arrive that it gives.
    pub direct: Vec<net::TcpListener>,
}

/// A listener of an instance's own network, ready to be waited for.
fn watched(listener: net::TcpListener) -> io::Result<TcpListener> {
    // The machine's choice of congestion control may be one that measures and paces (BBR). That costs a
    // timer for every few packets, and between two sockets of one machine there is nothing to measure.
    // Every kernel has this one, and everybody may choose it (`tcp(7)`); connections inherit it. Where it
    // is refused, they are only slower.
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_congestion(&listener, "reno");
    TcpListener::from_std(listener)
}

/// Serves one instance's way out until its sockets fail. Dropping the future ends every connection. A
/// socket that cannot be watched is closed, and what it was for is not to be had.
pub async fn serve_way_out(
    guard: Guard,
    limits: Limits,
    sockets: Sockets,
    decide: Arc<dyn Decide>,
) {
    let names = Names::new();
    let proxy = Proxy::new(guard, limits).names(Arc::clone(&names));
    let failed =
        |error: io::Error| tracing::warn!(%error, "a part of the way out cannot be served");
    let mut serving = JoinSet::new();
    match watched(sockets.proxy) {
        Ok(listener) => {
            let (proxy, decide) = (proxy.clone(), Arc::clone(&decide));
            serving.spawn(async move { proxy.serve(listener, decide).await });
        }
        Err(error) => failed(error),
    }
    for listener in sockets.direct {
        match watched(listener) {
            Ok(listener) => {
                let (proxy, decide) = (proxy.clone(), Arc::clone(&decide));
                serving.spawn(async move { proxy.serve_direct(listener, decide).await });
            }
            Err(error) => failed(error),
        }
    }
    match sockets.names.map(UdpSocket::from_std) {
        Some(Ok(socket)) => {
            serving.spawn(async move { names.serve(socket).await });
        }
        Some(Err(error)) => failed(error),
        None => {}
    }
    while serving.join_next().await.is_some() {}
}
