//! Palisade's own protocol: a [`Peer`] as a lane.

use std::{
    io,
    os::fd::OwnedFd,
    sync::Arc,
    task::{Context, Waker},
};

use palisade_model::{Failure, Payload};
use palisade_protocol::{
    BoxFuture as PeerFuture, CloseReason, Deadline, Handler, Peer, PeerConfig, Request, methods,
};
use tokio::sync::Semaphore;

use super::{End, StreamLane};
use crate::{BoxFuture, HostCalls, HostRequest, Invocation, Lane, Trace};

/// Notifications of the plugin that are served at the same time; more are dropped.
const NOTIFICATIONS: usize = 64;

struct NativeLane(Peer);

impl Lane for NativeLane {
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Payload, Failure>> {
        let deadline = Some(Deadline::from(invocation.deadline));
        let answer = self.0.request(invocation.method, &invocation.payload, deadline);
        if invocation.method != methods::SHUTDOWN {
            return Box::pin(answer);
        }
        Box::pin(async {
            let answer = answer.await;
            if answer.is_ok() {
                // Nothing more will be said: a plugin that reads until the end of its lane ends now.
                self.0.close();
            }
            answer
        })
    }
}

struct FromPlugin {
    host: Arc<dyn HostCalls>,
    notifications: Arc<Semaphore>,
}

impl Handler for FromPlugin {
    fn request(&self, request: Request) -> PeerFuture<'static, Result<Payload, Failure>> {
        self.host.request(HostRequest {
            method: request.method,
            payload: request.params,
            trace: Trace::default(),
        })
    }

    fn notification(&self, method: &str, params: &[u8]) {
        // Only the log may be written without waiting for an answer; everything else needs one.
        if method != methods::LOG {
            return;
        }
        let Ok(permit) = Arc::clone(&self.notifications).try_acquire_owned() else { return };
        let mut served = self.host.request(HostRequest {
            method: method.to_owned(),
            payload: Payload::from_json_text(params.to_vec()),
            trace: Trace::default(),
        });
        // Most lines are taken at once, and then stay before the answer that follows them.
        if served.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        tokio::spawn(async move {
            let _permit = permit;
            // A refused log line has nobody to be told.
            let _ = served.await;
        });
    }

    fn closed(&self, _reason: &CloseReason) {}
}

/// Speaks the native protocol over `socket`.
///
/// # Errors
/// When the socket cannot be watched; needs a tokio runtime with I/O enabled.
pub fn native(socket: OwnedFd, host: Arc<dyn HostCalls>) -> io::Result<StreamLane> {
    let handler =
        Arc::new(FromPlugin { host, notifications: Arc::new(Semaphore::new(NOTIFICATIONS)) });
    let (peer, driver) = Peer::start(socket, handler, PeerConfig::default())?;
    let end = async move {
        match driver.await {
            CloseReason::Breach(error) => End::Breach(error.to_string()),
            CloseReason::Local => End::Local,
            _ => End::Closed,
        }
    };
    Ok(StreamLane { lane: Arc::new(NativeLane(peer)), end: Box::pin(end) })
}
