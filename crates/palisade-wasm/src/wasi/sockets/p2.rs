//! The connections as WASI 0.2 has them: nothing waits but `poll`.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, InputStream, OutputStream, Pollable, StreamError,
    StreamResult, bindings as wasi, subscribe,
};

use super::{
    Family, HasNet, Socket, State as SocketState, Trouble, View,
    carry::{CHUNK, Receiving, Sending},
    options,
};
use crate::state::State;

/// What wasmtime makes of the WIT files.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, clippy::expect_used)]
#[allow(clippy::indexing_slicing, clippy::panic, unsafe_code)]
mod bindings {
    wasmtime::component::bindgen!({
        path: "wit-wasi/sockets-0.2",
        world: "connections",
        imports: { default: trappable },
        require_store_data_send: true,
        with: {
            "wasi:io": wasmtime_wasi::p2::bindings::io,
            "wasi:clocks": wasmtime_wasi::p2::bindings::clocks,
            "wasi:sockets/network": wasmtime_wasi::p2::bindings::sockets::network,
            "wasi:sockets/tcp.tcp-socket": super::TcpSocket,
            "wasi:sockets/ip-name-lookup.resolve-address-stream": super::Addresses,
        },
    });
}

use bindings::wasi::sockets::{
    ip_name_lookup::{self, HostResolveAddressStream},
    tcp::{self, HostTcpSocket, ShutdownType},
    tcp_create_socket,
};
use wasi::sockets::network::{ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Network};

/// Links one interface of ours.
pub(in crate::wasi) fn link(linker: &mut Linker<State>, interface: &str) -> wasmtime::Result<()> {
    match interface {
        "tcp" => tcp::add_to_linker::<_, HasNet>(linker, State::net),
        "tcp-create-socket" => tcp_create_socket::add_to_linker::<_, HasNet>(linker, State::net),
        "ip-name-lookup" => ip_name_lookup::add_to_linker::<_, HasNet>(linker, State::net),
        _ => Ok(()),
    }
}

/// What a function of the interface gives.
type Answer<T> = wasmtime::Result<Result<T, ErrorCode>>;

impl From<Trouble> for ErrorCode {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::AccessDenied => Self::AccessDenied,
            Trouble::InvalidArgument => Self::InvalidArgument,
            Trouble::InvalidState => Self::InvalidState,
            Trouble::Refused => Self::ConnectionRefused,
            Trouble::RemoteUnreachable => Self::RemoteUnreachable,
            Trouble::Reset => Self::ConnectionReset,
            Trouble::Timeout => Self::Timeout,
            Trouble::TooMany => Self::NewSocketLimit,
        }
    }
}

impl From<IpAddressFamily> for Family {
    fn from(family: IpAddressFamily) -> Self {
        match family {
            IpAddressFamily::Ipv4 => Self::V4,
            IpAddressFamily::Ipv6 => Self::V6,
        }
    }
}

/// A socket, and which of the two-step operations is under way.
#[expect(unreachable_pub, reason = "what wasmtime generates names it as public")]
pub struct TcpSocket {
    socket: Socket,
    step: Option<Step>,
    receiving: Option<Shared<Receiving>>,
    sending: Option<Shared<Sending>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Bind,
    Connect,
}

/// A direction, which its stream and the socket can both close.
struct Shared<T>(Arc<Mutex<T>>);

impl<T> Shared<T> {
    fn new(direction: T) -> (Self, Self) {
        let shared = Arc::new(Mutex::new(direction));
        (Self(Arc::clone(&shared)), Self(shared))
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The addresses of a name that are not yet told.
#[expect(unreachable_pub, reason = "what wasmtime generates names it as public")]
pub struct Addresses(std::option::IntoIter<IpAddress>);

/// For a look at what is ready. Who waits asks with a waker of its own.
fn at_once() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl ip_name_lookup::Host for View<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> Answer<Resource<Addresses>> {
        self.table.get(&network)?;
        let address = match self.net.address_of(&name) {
            Ok(address) => address,
            Err(trouble) => return Ok(Err(trouble.into())),
        };
        Ok(Ok(self.table.push(Addresses(Some(address.into()).into_iter()))?))
    }
}

impl HostResolveAddressStream for View<'_> {
    fn resolve_next_address(&mut self, this: Resource<Addresses>) -> Answer<Option<IpAddress>> {
        Ok(Ok(self.table.get_mut(&this)?.0.next()))
    }

    fn subscribe(&mut self, this: Resource<Addresses>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, this)
    }

    fn drop(&mut self, this: Resource<Addresses>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Addresses {
    async fn ready(&mut self) {}
}

impl tcp_create_socket::Host for View<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> Answer<Resource<TcpSocket>> {
        let socket = Socket::new(family.into());
        let socket = TcpSocket { socket, step: None, receiving: None, sending: None };
        Ok(Ok(self.table.push(socket)?))
    }
}

impl tcp::Host for View<'_> {}

/// A pair of functions for each option: one tells it and one sets it.
macro_rules! options {
    ($($get:ident $set:ident $field:ident: $type:ty;)*) => { $(
        fn $get(&mut self, this: Resource<TcpSocket>) -> Answer<$type> {
            Ok(Ok(self.table.get(&this)?.socket.options.$field))
        }

        fn $set(&mut self, this: Resource<TcpSocket>, value: $type) -> Answer<()> {
            let options = &mut self.table.get_mut(&this)?.socket.options;
            Ok(options::set(&mut options.$field, value).map_err(Into::into))
        }
    )* };
}

impl HostTcpSocket for View<'_> {
    fn start_bind(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> Answer<()> {
        self.table.get(&network)?;
        let socket = self.table.get_mut(&this)?;
        if socket.step.is_some() {
            return Ok(Err(ErrorCode::ConcurrencyConflict));
        }
        let bound = socket.socket.bind(local.into());
        socket.step = bound.is_ok().then_some(Step::Bind);
        Ok(bound.map_err(Into::into))
    }

    fn finish_bind(&mut self, this: Resource<TcpSocket>) -> Answer<()> {
        let socket = self.table.get_mut(&this)?;
        if socket.step != Some(Step::Bind) {
            return Ok(Err(ErrorCode::NotInProgress));
        }
        socket.step = None;
        Ok(Ok(()))
    }

    fn start_connect(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        remote: IpSocketAddress,
    ) -> Answer<()> {
        self.table.get(&network)?;
        let socket = self.table.get_mut(&this)?;
        if socket.step.is_some() {
            return Ok(Err(ErrorCode::ConcurrencyConflict));
        }
        let started = socket.socket.start_connect(self.net, remote.into());
        socket.step = started.is_ok().then_some(Step::Connect);
        Ok(started.map_err(Into::into))
    }

    fn finish_connect(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> Answer<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let socket = self.table.get_mut(&this)?;
        if socket.step != Some(Step::Connect) {
            return Ok(Err(ErrorCode::NotInProgress));
        }
        let Poll::Ready(connected) = socket.socket.poll_connected(&mut at_once()) else {
            return Ok(Err(ErrorCode::WouldBlock));
        };
        socket.step = None;
        let both = connected
            .and_then(|()| Ok((socket.socket.take_receiving()?, socket.socket.take_sending()?)));
        let (receiving, sending) = match both {
            Ok(both) => both,
            Err(trouble) => return Ok(Err(trouble.into())),
        };
        let (input, receiving) = Shared::new(receiving);
        let (output, sending) = Shared::new(sending);
        (socket.receiving, socket.sending) = (Some(receiving), Some(sending));
        let input: DynInputStream = Box::new(Input(input));
        let output: DynOutputStream = Box::new(Output(output));
        Ok(Ok((self.table.push_child(input, &this)?, self.table.push_child(output, &this)?)))
    }

    // Nobody is listened to.

    fn start_listen(&mut self, this: Resource<TcpSocket>) -> Answer<()> {
        self.table.get(&this)?;
        Ok(Err(ErrorCode::AccessDenied))
    }

    fn finish_listen(&mut self, this: Resource<TcpSocket>) -> Answer<()> {
        self.table.get(&this)?;
        Ok(Err(ErrorCode::NotInProgress))
    }

    fn accept(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> Answer<(Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        self.table.get(&this)?;
        Ok(Err(ErrorCode::InvalidState))
    }

    fn is_listening(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        self.table.get(&this)?;
        Ok(false)
    }

    fn set_listen_backlog_size(&mut self, this: Resource<TcpSocket>, value: u64) -> Answer<()> {
        self.table.get(&this)?;
        Ok(if value == 0 { Err(ErrorCode::InvalidArgument) } else { Ok(()) })
    }

    fn local_address(&mut self, this: Resource<TcpSocket>) -> Answer<IpSocketAddress> {
        let address = self.table.get(&this)?.socket.local_address();
        Ok(address.map(Into::into).map_err(Into::into))
    }

    fn remote_address(&mut self, this: Resource<TcpSocket>) -> Answer<IpSocketAddress> {
        let address = self.table.get(&this)?.socket.remote_address();
        Ok(address.map(Into::into).map_err(Into::into))
    }

    fn address_family(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(match self.table.get(&this)?.socket.family {
            Family::V4 => IpAddressFamily::Ipv4,
            Family::V6 => IpAddressFamily::Ipv6,
        })
    }

    fn keep_alive_enabled(&mut self, this: Resource<TcpSocket>) -> Answer<bool> {
        Ok(Ok(self.table.get(&this)?.socket.options.keep_alive))
    }

    fn set_keep_alive_enabled(&mut self, this: Resource<TcpSocket>, value: bool) -> Answer<()> {
        self.table.get_mut(&this)?.socket.options.keep_alive = value;
        Ok(Ok(()))
    }

    options! {
        keep_alive_idle_time set_keep_alive_idle_time keep_alive_idle: u64;
        keep_alive_interval set_keep_alive_interval keep_alive_interval: u64;
        keep_alive_count set_keep_alive_count keep_alive_count: u32;
        hop_limit set_hop_limit hop_limit: u8;
        receive_buffer_size set_receive_buffer_size receive_buffer: u64;
        send_buffer_size set_send_buffer_size send_buffer: u64;
    }

    fn subscribe(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, this)
    }

    fn shutdown(&mut self, this: Resource<TcpSocket>, which: ShutdownType) -> Answer<()> {
        let socket = self.table.get(&this)?;
        let (Some(receiving), Some(sending)) = (&socket.receiving, &socket.sending) else {
            return Ok(Err(ErrorCode::InvalidState));
        };
        if matches!(which, ShutdownType::Receive | ShutdownType::Both) {
            receiving.lock().shut();
        }
        if matches!(which, ShutdownType::Send | ShutdownType::Both) {
            sending.lock().shut();
        }
        Ok(Ok(()))
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for TcpSocket {
    async fn ready(&mut self) {
        if matches!(self.socket.state, SocketState::Connecting { .. }) {
            // How it went is told by `finish-connect`.
            let _ = poll_fn(|cx| self.socket.poll_connected(cx)).await;
        }
    }
}

struct Input(Shared<Receiving>);

#[wasmtime_wasi::async_trait]
impl InputStream for Input {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let mut receiving = self.0.lock();
        // Nothing there is nothing read.
        let _ = receiving.poll_ready(&mut at_once());
        receiving.take(size).map_err(|end| match end {
            Ok(()) => StreamError::Closed,
            Err(trouble) => StreamError::LastOperationFailed(ErrorCode::from(trouble).into()),
        })
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {
        poll_fn(|cx| self.0.lock().poll_ready(cx)).await;
    }
}

struct Output(Shared<Sending>);

#[wasmtime_wasi::async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > self.check_write()? {
            return Err(StreamError::trap("more was written than `check-write` allowed"));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.0.lock().send(bytes).map_err(|_| StreamError::Closed)
    }

    // What was written goes out without being asked for, and nothing can be written until it has.
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match self.0.lock().poll_ready(&mut at_once()) {
            Poll::Ready(Ok(())) => Ok(CHUNK),
            Poll::Ready(Err(_)) => Err(StreamError::Closed),
            Poll::Pending => Ok(0),
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        // A closed direction is told by the next write.
        let _ = poll_fn(|cx| self.0.lock().poll_ready(cx)).await;
    }
}
