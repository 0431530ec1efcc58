//! What the host does for one instance: the other direction of its lane.
//!
//! One value stands for one instance and holds that instance's caller, so whoever asks is known from
//! the lane that the request came on; nothing in a message can claim to be somebody else.

use std::sync::{Arc, OnceLock, atomic::Ordering};

use palisade_audit::{Act, RecordKind};
use palisade_broker::{Broker, Caller};
use palisade_egress::{
    Authority, Guard,
    proxy::{Limits, Sockets, Tunnels, serve_way_out},
};
use palisade_model::{ErrorCode, Failure, Kind, Payload};
use palisade_sandbox::{BoxFuture, HostCalls, HostRequest, OutputStream, Stream, WayOut};
use palisade_services::{
    egress::Rights,
    log::{LogSink, LogStream, output_line},
};
use tokio::net::TcpStream;

use crate::{
    hops,
    status::{Counters, count},
};

/// See the module.
pub(crate) struct InstanceCalls {
    pub(crate) caller: Arc<Caller>,
    pub(crate) broker: Broker,
    pub(crate) guard: Guard,
    /// Made with the first connection of a guest.
    pub(crate) tunnels: OnceLock<Tunnels>,
    pub(crate) sink: Arc<dyn LogSink>,
    pub(crate) counters: Arc<Counters>,
}

impl HostCalls for InstanceCalls {
    fn request(&self, request: HostRequest) -> BoxFuture<'static, Result<Payload, Failure>> {
        count(&self.counters.requests);
        let HostRequest { method, payload, trace } = request;
        let answer = self.broker.request(&self.caller, &method, &payload, trace.0);
        let answer = hops::following(&self.caller, answer);
        let counters = Arc::clone(&self.counters);
        Box::pin(async move {
            let result = answer.await;
            if result.is_err() {
                count(&counters.requests_failed);
            }
            result
        })
    }

    fn output(&self, stream: OutputStream, line: &str) {
        count(&self.counters.output_lines);
        let stream = match stream {
            OutputStream::Stdout => LogStream::Stdout,
            OutputStream::Stderr => LogStream::Stderr,
        };
        let _ = output_line(&self.caller, &*self.sink, stream, line);
    }

    fn output_dropped(&self, bytes: u64) {
        self.counters.output_dropped.fetch_add(bytes, Ordering::Relaxed);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.sink.dropped(self.caller.principal(), bytes);
    }

    fn violation(&self, syscall: &str, program: bool) {
        let whose = if program { "" } else { " in a process that it started" };
        let act = Act::new(RecordKind::Breach, Arc::clone(self.caller.principal()));
        let act = act.detail(&format!("forbidden system call {syscall}{whose}"));
        self.broker.gate().note(act, Some(ErrorCode::PolicyKill));
    }

    fn connect(&self, authority: &str) -> BoxFuture<'static, Result<TcpStream, Failure>> {
        let rights = Rights::new(self.broker.gate().clone(), Arc::clone(&self.caller));
        let (guard, authority) = (self.guard.clone(), Authority::parse(authority));
        Box::pin(async move {
            let authority = authority.map_err(Failure::from)?;
            let connection = guard.connect(&rights, Kind::NetHttp, &authority).await?;
            Ok(connection.stream)
        })
    }

    fn tunnel(&self, authority: &str) -> BoxFuture<'static, Result<Box<dyn Stream>, Failure>> {
        let authority = match Authority::parse(authority) {
            Ok(authority) => authority,
            Err(error) => return Box::pin(std::future::ready(Err(error.into()))),
        };
        let tunnels = self.tunnels.get_or_init(|| {
            let rights = Rights::new(self.broker.gate().clone(), Arc::clone(&self.caller));
            Tunnels::new(self.guard.clone(), Limits::default(), Arc::new(rights))
        });
        let tunnel = tunnels.open(authority);
        Box::pin(async move { Ok(Box::new(tunnel.await?) as Box<dyn Stream>) })
    }

    fn egress(&self, way: WayOut) -> BoxFuture<'static, ()> {
        let rights = Rights::new(self.broker.gate().clone(), Arc::clone(&self.caller));
        let WayOut { proxy, names, direct } = way;
        let sockets = Sockets { proxy, names, direct };
        let guard = self.guard.clone();
        Box::pin(serve_way_out(guard, Limits::default(), sockets, Arc::new(rights)))
    }
}
