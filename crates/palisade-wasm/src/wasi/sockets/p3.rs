//! The connections as WASI 0.3 has them: with streams and futures of the component model.

use std::{
    future::poll_fn,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::sync::oneshot;
use wasmtime::{
    AsContextMut as _, StoreContextMut,
    component::{
        Access, Accessor, Destination, FutureReader, Linker, Resource, Source, StreamConsumer,
        StreamProducer, StreamReader, StreamResult,
    },
};

use super::{
    Family, HasNet, Socket, Trouble, View,
    carry::{CHUNK, Receiving, Sending},
    options,
};
use crate::state::State;

/// What wasmtime makes of the WIT files.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, clippy::expect_used)]
#[allow(clippy::indexing_slicing, clippy::panic, unsafe_code)]
mod bindings {
    wasmtime::component::bindgen!({
        path: "wit-wasi/sockets-0.3",
        world: "connections",
        imports: {
            "wasi:sockets/types.[method]tcp-socket.listen": store | trappable,
            "wasi:sockets/types.[method]tcp-socket.send": store | trappable,
            "wasi:sockets/types.[method]tcp-socket.receive": store | trappable,
            default: trappable,
        },
        require_store_data_send: true,
        with: {
            "wasi:sockets/types.tcp-socket": super::super::Socket,
            "wasi:sockets/types.udp-socket": super::NoUdp,
        },
    });
}

use bindings::wasi::sockets::{
    ip_name_lookup::{self, ErrorCode as LookupError},
    types::{
        self, ErrorCode, HostTcpSocket, HostTcpSocketWithStore, HostUdpSocket,
        HostUdpSocketWithStore, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress,
        Ipv6SocketAddress,
    },
};

/// Links one interface of ours.
pub(in crate::wasi) fn link(linker: &mut Linker<State>, interface: &str) -> wasmtime::Result<()> {
    match interface {
        "types" => types::add_to_linker::<_, HasNet>(linker, State::net),
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
            Trouble::TooMany => Self::Other(Some("too many connections at once".to_owned())),
        }
    }
}

impl From<IpSocketAddress> for SocketAddr {
    fn from(address: IpSocketAddress) -> Self {
        match address {
            IpSocketAddress::Ipv4(v4) => {
                let (a, b, c, d) = v4.address;
                Self::new(Ipv4Addr::new(a, b, c, d).into(), v4.port)
            }
            IpSocketAddress::Ipv6(v6) => {
                let (a, b, c, d, e, f, g, h) = v6.address;
                let address = Ipv6Addr::new(a, b, c, d, e, f, g, h);
                SocketAddrV6::new(address, v6.port, v6.flow_info, v6.scope_id).into()
            }
        }
    }
}

impl From<IpAddr> for IpAddress {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                Self::Ipv4((a, b, c, d))
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h] = v6.segments();
                Self::Ipv6((a, b, c, d, e, f, g, h))
            }
        }
    }
}

impl From<SocketAddr> for IpSocketAddress {
    fn from(address: SocketAddr) -> Self {
        let port = address.port();
        match (address, IpAddress::from(address.ip())) {
            (SocketAddr::V6(v6), IpAddress::Ipv6(address)) => Self::Ipv6(Ipv6SocketAddress {
                port,
                flow_info: v6.flowinfo(),
                address,
                scope_id: v6.scope_id(),
            }),
            (_, IpAddress::Ipv4(address)) => Self::Ipv4(Ipv4SocketAddress { port, address }),
            (_, IpAddress::Ipv6(address)) => {
                Self::Ipv6(Ipv6SocketAddress { port, flow_info: 0, address, scope_id: 0 })
            }
        }
    }
}

impl ip_name_lookup::Host for View<'_> {}

impl<T: Send> ip_name_lookup::HostWithStore<T> for HasNet {
    async fn resolve_addresses(
        store: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<IpAddress>, LookupError>> {
        let address = store.with(|mut store| store.get().net.address_of(&name));
        Ok(match address {
            Ok(address) => Ok(vec![address.into()]),
            Err(_) => Err(LookupError::InvalidArgument),
        })
    }
}

impl types::Host for View<'_> {}

/// Tells once how a direction ended.
struct Told(Option<oneshot::Sender<Result<(), ErrorCode>>>);

impl Told {
    fn tell(&mut self, how: Result<(), ErrorCode>) {
        if let Some(told) = self.0.take() {
            // A guest that has dropped the future does not want it.
            let _ = told.send(how);
        }
    }
}

/// What comes in, for a guest's stream.
struct Incoming {
    receiving: Receiving,
    told: Told,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.told.tell(Ok(()));
    }
}

impl<D> StreamProducer<D> for Incoming {
    type Item = u8;
    type Buffer = bytes::BytesMut;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        dst: Destination<'a, u8, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        if self.receiving.poll_ready(cx).is_pending() {
            return match finish {
                true => Poll::Ready(Ok(StreamResult::Cancelled)),
                false => Poll::Pending,
            };
        }
        // Who reads no bytes asks whether there are any.
        if dst.remaining(store.as_context_mut()) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let mut dst = dst.as_direct(store, CHUNK);
        let room = dst.remaining();
        match self.receiving.take(room.len()) {
            Ok(bytes) => {
                if let Some(room) = room.get_mut(..bytes.len()) {
                    room.copy_from_slice(&bytes);
                }
                dst.mark_written(bytes.len());
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Err(end) => {
                self.told.tell(end.map_err(Into::into));
                Poll::Ready(Ok(StreamResult::Dropped))
            }
        }
    }
}

/// What goes out, from a guest's stream.
struct Outgoing(Sending);

impl<D> StreamConsumer<D> for Outgoing {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        src: Source<'_, u8>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let is_ready = match self.0.poll_ready(cx) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(is_ready) => is_ready,
        };
        let mut src = src.as_direct(store);
        // Who writes no bytes asks whether some would be taken.
        if is_ready.is_ok() && src.remaining().is_empty() {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let bytes = src.remaining();
        let piece = bytes.get(..bytes.len().min(CHUNK)).unwrap_or_default();
        let length = piece.len();
        let sent = is_ready.and_then(|()| self.0.send(Bytes::copy_from_slice(piece)));
        if sent.is_err() {
            return Poll::Ready(Ok(StreamResult::Dropped));
        }
        src.mark_read(length);
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

impl<T: Send + 'static> HostTcpSocketWithStore<T> for HasNet {
    async fn connect(
        store: &Accessor<T, Self>,
        this: Resource<Socket>,
        remote: IpSocketAddress,
    ) -> Answer<()> {
        let started = store.with(|mut store| {
            let View { net, table } = store.get();
            Ok::<_, wasmtime::Error>(table.get_mut(&this)?.start_connect(net, remote.into()))
        })?;
        if let Err(trouble) = started {
            return Ok(Err(trouble.into()));
        }
        poll_fn(|cx| {
            store.with(|mut store| {
                let socket = store.get().table.get_mut(&this)?;
                socket.poll_connected(cx).map(|how| Ok(how.map_err(Into::into)))
            })
        })
        .await
    }

    // Nobody is listened to.
    fn listen(
        mut store: Access<'_, T, Self>,
        this: Resource<Socket>,
    ) -> Answer<StreamReader<Resource<Socket>>> {
        store.get().table.get(&this)?;
        Ok(Err(ErrorCode::AccessDenied))
    }

    fn send(
        mut store: Access<'_, T, Self>,
        this: Resource<Socket>,
        mut data: StreamReader<u8>,
    ) -> wasmtime::Result<FutureReader<Result<(), ErrorCode>>> {
        let finished = match store.get().table.get_mut(&this)?.take_sending() {
            Ok(mut sending) => {
                let finished = sending.finished();
                data.pipe(&mut store, Outgoing(sending))?;
                Ok(finished)
            }
            Err(trouble) => {
                data.close(&mut store)?;
                Err(trouble)
            }
        };
        // Told when everything was handed to the connection, and not when the guest's stream ends.
        FutureReader::new(&mut store, async move {
            let how = match finished {
                Ok(Some(finished)) => finished.await.unwrap_or(Err(Trouble::Reset)),
                Ok(None) => Ok(()),
                Err(trouble) => Err(trouble),
            };
            wasmtime::error::Ok(how.map_err(ErrorCode::from))
        })
    }

    fn receive(
        mut store: Access<'_, T, Self>,
        this: Resource<Socket>,
    ) -> wasmtime::Result<(StreamReader<u8>, FutureReader<Result<(), ErrorCode>>)> {
        let (told, how) = oneshot::channel();
        let mut told = Told(Some(told));
        let stream = match store.get().table.get_mut(&this)?.take_receiving() {
            Ok(receiving) => StreamReader::new(&mut store, Incoming { receiving, told })?,
            Err(trouble) => {
                told.tell(Err(trouble.into()));
                StreamReader::new(&mut store, std::iter::empty())?
            }
        };
        Ok((stream, FutureReader::new(&mut store, how)?))
    }
}

/// A pair of functions for each option: one tells it and one sets it.
macro_rules! options {
    ($($get:ident $set:ident $field:ident: $type:ty;)*) => { $(
        fn $get(&mut self, this: Resource<Socket>) -> Answer<$type> {
            Ok(Ok(self.table.get(&this)?.options.$field))
        }

        fn $set(&mut self, this: Resource<Socket>, value: $type) -> Answer<()> {
            let options = &mut self.table.get_mut(&this)?.options;
            Ok(options::set(&mut options.$field, value).map_err(Into::into))
        }
    )* };
}

impl HostTcpSocket for View<'_> {
    fn create(&mut self, family: IpAddressFamily) -> Answer<Resource<Socket>> {
        let family = match family {
            IpAddressFamily::Ipv4 => Family::V4,
            IpAddressFamily::Ipv6 => Family::V6,
        };
        Ok(Ok(self.table.push(Socket::new(family))?))
    }

    fn bind(&mut self, this: Resource<Socket>, local: IpSocketAddress) -> Answer<()> {
        Ok(self.table.get_mut(&this)?.bind(local.into()).map_err(Into::into))
    }

    fn get_local_address(&mut self, this: Resource<Socket>) -> Answer<IpSocketAddress> {
        Ok(self.table.get(&this)?.local_address().map(Into::into).map_err(Into::into))
    }

    fn get_remote_address(&mut self, this: Resource<Socket>) -> Answer<IpSocketAddress> {
        Ok(self.table.get(&this)?.remote_address().map(Into::into).map_err(Into::into))
    }

    fn get_is_listening(&mut self, this: Resource<Socket>) -> wasmtime::Result<bool> {
        self.table.get(&this)?;
        Ok(false)
    }

    fn get_address_family(&mut self, this: Resource<Socket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(match self.table.get(&this)?.family {
            Family::V4 => IpAddressFamily::Ipv4,
            Family::V6 => IpAddressFamily::Ipv6,
        })
    }

    fn set_listen_backlog_size(&mut self, this: Resource<Socket>, value: u64) -> Answer<()> {
        self.table.get(&this)?;
        Ok(if value == 0 { Err(ErrorCode::InvalidArgument) } else { Ok(()) })
    }

    fn get_keep_alive_enabled(&mut self, this: Resource<Socket>) -> Answer<bool> {
        Ok(Ok(self.table.get(&this)?.options.keep_alive))
    }

    fn set_keep_alive_enabled(&mut self, this: Resource<Socket>, value: bool) -> Answer<()> {
        self.table.get_mut(&this)?.options.keep_alive = value;
        Ok(Ok(()))
    }

    options! {
        get_keep_alive_idle_time set_keep_alive_idle_time keep_alive_idle: u64;
        get_keep_alive_interval set_keep_alive_interval keep_alive_interval: u64;
        get_keep_alive_count set_keep_alive_count keep_alive_count: u32;
        get_hop_limit set_hop_limit hop_limit: u8;
        get_receive_buffer_size set_receive_buffer_size receive_buffer: u64;
        get_send_buffer_size set_send_buffer_size send_buffer: u64;
    }

    fn drop(&mut self, this: Resource<Socket>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

/// There are no sockets for datagrams: `create` gives none.
#[expect(unreachable_pub, reason = "what wasmtime generates names it as public")]
pub enum NoUdp {}

/// Functions of a socket that cannot be: whoever names one has made it up.
macro_rules! of_none {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => { $(
        fn $name(&mut self, this: Resource<NoUdp>, $($argument: $type),*) -> $result {
            let _ = ($($argument,)*);
            match *self.table.get(&this)? {}
        }
    )* };
}

impl HostUdpSocket for View<'_> {
    fn create(&mut self, _family: IpAddressFamily) -> Answer<Resource<NoUdp>> {
        Ok(Err(ErrorCode::NotSupported))
    }

    of_none! {
        bind(local: IpSocketAddress) -> Answer<()>;
        connect(remote: IpSocketAddress) -> Answer<()>;
        disconnect() -> Answer<()>;
        get_local_address() -> Answer<IpSocketAddress>;
        get_remote_address() -> Answer<IpSocketAddress>;
        get_address_family() -> wasmtime::Result<IpAddressFamily>;
        get_unicast_hop_limit() -> Answer<u8>;
        set_unicast_hop_limit(value: u8) -> Answer<()>;
        get_receive_buffer_size() -> Answer<u64>;
        set_receive_buffer_size(value: u64) -> Answer<()>;
        get_send_buffer_size() -> Answer<u64>;
        set_send_buffer_size(value: u64) -> Answer<()>;
    }

    fn drop(&mut self, this: Resource<NoUdp>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl<T: Send> HostUdpSocketWithStore<T> for HasNet {
    async fn send(
        store: &Accessor<T, Self>,
        this: Resource<NoUdp>,
        _data: Vec<u8>,
        _remote: Option<IpSocketAddress>,
    ) -> Answer<()> {
        store.with(|mut store| match *store.get().table.get(&this)? {})
    }

    async fn receive(
        store: &Accessor<T, Self>,
        this: Resource<NoUdp>,
    ) -> Answer<(Vec<u8>, IpSocketAddress)> {
        store.with(|mut store| match *store.get().table.get(&this)? {})
    }
}
