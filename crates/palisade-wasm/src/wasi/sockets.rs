//! TCP connections of `wasi:sockets`, each one made by the host's guard.
//!
//! Nothing here opens a socket of the machine, and nothing looks a name up. A name is answered with an address
//! that stands for it ([`Names`]); a connection to that address is asked for by the name
//! ([`HostCalls::tunnel`]), and decided, looked up, checked and recorded then. An address that a guest writes
//! itself is asked for as that address. There is no UDP, nobody is listened to, and a socket is bound to no
//! address of the machine.

mod carry;
#[cfg(any(test, fuzzing))]
#[allow(clippy::expect_used, clippy::panic, reason = "a finding is a panic")]
pub(crate) mod fuzz;
mod options;
mod p2;
mod p3;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use palisade_egress::{Authority, Host, Names};
use palisade_model::{ErrorCode, Failure};
use palisade_sandbox::HostCalls;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};
use wasmtime::component::{HasData, ResourceTable};

use carry::{Receiving, Sending, carry};
use options::Options;
pub(super) use p2::link as link_p2;
pub(super) use p3::link as link_p3;

/// Connections that one instance has at once, those that are being made among them. What it has closed and the
/// other side has not may last a while longer; the guard has its bound for all of them together.
pub(crate) const AT_ONCE: u32 = 32;
/// What the guard takes at most until there is a connection: a lookup and four addresses.
const CONNECT: Duration = Duration::from_secs(20);
/// Longest name that is looked at, in bytes (RFC 1035).
const MAX_NAME: usize = 253;

/// The connections of one store.
pub(super) struct Net {
    host: Arc<dyn HostCalls>,
    names: Arc<Names>,
    places: Arc<Semaphore>,
}

impl Net {
    pub(super) fn new(host: Arc<dyn HostCalls>) -> Self {
        let places = Arc::new(Semaphore::new(AT_ONCE as usize));
        Self { host, names: Names::new(), places }
    }

    /// The address that a name has here. An address is its own.
    ///
    /// # Errors
    /// [`Trouble::InvalidArgument`] where it is neither.
    fn address_of(&self, name: &str) -> Result<IpAddr, Trouble> {
        if name.len() > MAX_NAME {
            return Err(Trouble::InvalidArgument);
        }
        // An address of version 6 comes without brackets here.
        if let Ok(address) = name.parse::<Ipv6Addr>() {
            return Ok(IpAddr::V6(address).to_canonical());
        }
        let host = Host::parse(name).map_err(|_| Trouble::InvalidArgument)?;
        Ok(host.address().unwrap_or_else(|| self.names.address_of(&host).into()))
    }

    /// Whom an address means.
    fn meant_by(&self, address: SocketAddr) -> Result<Authority, Trouble> {
        let host = match self.names.name_of(address.ip()) {
            Some(name) => name,
            // It stood for a name once, or never did.
            None if Names::covers(address.ip()) => return Err(Trouble::RemoteUnreachable),
            None => Host::from(address.ip()),
        };
        Authority::new(host, address.port()).map_err(|_| Trouble::InvalidArgument)
    }

    /// Asks for a connection.
    fn connect(&self, address: SocketAddr) -> Result<Connecting, Trouble> {
        let authority = self.meant_by(address)?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Trouble::TooMany)?;
        let (told, made) = oneshot::channel();
        let host = Arc::clone(&self.host);
        // It ends soon after the guest, or its store, has let go of it.
        tokio::spawn(connection(host, authority.to_string(), place, told));
        Ok(Connecting(made))
    }
}

/// Makes one connection and carries what goes through it, to its end.
async fn connection(
    host: Arc<dyn HostCalls>,
    authority: String,
    place: OwnedSemaphorePermit,
    mut told: oneshot::Sender<Result<(Receiving, Sending), Trouble>>,
) {
    let made = tokio::select! {
        biased;
        () = told.closed() => return,
        made = timeout(CONNECT, host.tunnel(&authority)) => made,
    };
    let stream = match made {
        Ok(Ok(stream)) => stream,
        Ok(Err(failure)) => return drop(told.send(Err(Trouble::of(&failure)))),
        Err(_) => return drop(told.send(Err(Trouble::Timeout))),
    };
    let (guest, ends) = carry::channels(place);
    if told.send(Ok(guest)).is_ok() {
        carry(stream, ends).await;
    }
}

/// A connection that is being made.
struct Connecting(oneshot::Receiver<Result<(Receiving, Sending), Trouble>>);

/// The family of a socket's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn has(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self == Self::V4,
            // Addresses of version 4 in this form are another way around the family.
            IpAddr::V6(v6) => self == Self::V6 && v6.to_ipv4_mapped().is_none(),
        }
    }

    /// The address that a socket of ours is bound to, as far as a guest is told.
    fn unspecified(self) -> SocketAddr {
        let address = match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(address, 0)
    }
}

/// A guest's socket.
#[expect(unreachable_pub, reason = "what wasmtime generates names it as public")]
pub struct Socket {
    family: Family,
    options: Options,
    state: State,
}

enum State {
    Unconnected { is_bound: bool },
    Connecting { to: SocketAddr, connecting: Connecting },
    // Each of the streams is given away once.
    Connected { to: SocketAddr, receiving: Option<Receiving>, sending: Option<Sending> },
    Failed(Trouble),
}

impl Socket {
    fn new(family: Family) -> Self {
        Self { family, options: Options::default(), state: State::Unconnected { is_bound: false } }
    }

    /// Binds it to no address of the machine: the one that says "any" is all there is.
    fn bind(&mut self, to: SocketAddr) -> Result<(), Trouble> {
        if !self.family.has(to.ip()) {
            return Err(Trouble::InvalidArgument);
        }
        match &mut self.state {
            State::Unconnected { is_bound } if !*is_bound => {
                if to != self.family.unspecified() {
                    return Err(Trouble::AccessDenied);
                }
                *is_bound = true;
                Ok(())
            }
            _ => Err(Trouble::InvalidState),
        }
    }

    fn start_connect(&mut self, net: &Net, to: SocketAddr) -> Result<(), Trouble> {
        if !matches!(self.state, State::Unconnected { .. }) {
            return Err(Trouble::InvalidState);
        }
        let unspecified = to.ip().to_canonical().is_unspecified();
        if !self.family.has(to.ip()) || unspecified || to.port() == 0 {
            return Err(Trouble::InvalidArgument);
        }
        self.state = State::Connecting { to, connecting: net.connect(to)? };
        Ok(())
    }

    /// Whether it is connected, when that is known. A socket that failed stays so.
    fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        let State::Connecting { to, connecting } = &mut self.state else {
            return Poll::Ready(match &self.state {
                State::Connected { .. } => Ok(()),
                State::Failed(trouble) => Err(*trouble),
                _ => Err(Trouble::InvalidState),
            });
        };
        // Nobody tells where the task that makes it was ended.
        let made = ready!(Pin::new(&mut connecting.0).poll(cx)).unwrap_or(Err(Trouble::Reset));
        let to = *to;
        let (state, result) = match made {
            Ok((receiving, sending)) => {
                let (receiving, sending) = (Some(receiving), Some(sending));
                (State::Connected { to, receiving, sending }, Ok(()))
            }
            Err(trouble) => (State::Failed(trouble), Err(trouble)),
        };
        self.state = state;
        Poll::Ready(result)
    }

    fn take_receiving(&mut self) -> Result<Receiving, Trouble> {
        match &mut self.state {
            State::Connected { receiving, .. } => receiving.take().ok_or(Trouble::InvalidState),
            State::Failed(trouble) => Err(*trouble),
            _ => Err(Trouble::InvalidState),
        }
    }

    fn take_sending(&mut self) -> Result<Sending, Trouble> {
        match &mut self.state {
            State::Connected { sending, .. } => sending.take().ok_or(Trouble::InvalidState),
            State::Failed(trouble) => Err(*trouble),
            _ => Err(Trouble::InvalidState),
        }
    }

    fn local_address(&self) -> Result<SocketAddr, Trouble> {
        match &self.state {
            State::Unconnected { is_bound: true } | State::Connected { .. } => {
                Ok(self.family.unspecified())
            }
            State::Failed(trouble) => Err(*trouble),
            _ => Err(Trouble::InvalidState),
        }
    }

    fn remote_address(&self) -> Result<SocketAddr, Trouble> {
        match &self.state {
            State::Connected { to, .. } => Ok(*to),
            State::Failed(trouble) => Err(*trouble),
            _ => Err(Trouble::InvalidState),
        }
    }
}

/// What can go wrong, in both versions. Who was refused and why stands in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    AccessDenied,
    InvalidArgument,
    InvalidState,
    Refused,
    RemoteUnreachable,
    Reset,
    Timeout,
    TooMany,
}

impl Trouble {
    fn of(failure: &Failure) -> Self {
        match failure.code {
            ErrorCode::Denied => Self::AccessDenied,
            ErrorCode::NotFound => Self::RemoteUnreachable,
            ErrorCode::Deadline => Self::Timeout,
            ErrorCode::InvalidParams => Self::InvalidArgument,
            ErrorCode::RateLimited | ErrorCode::LimitExceeded => Self::TooMany,
            _ => Self::Refused,
        }
    }
}

/// What the functions of both versions work on.
pub(super) struct View<'a> {
    net: &'a mut Net,
    table: &'a mut ResourceTable,
}

impl<'a> View<'a> {
    pub(super) fn new(net: &'a mut Net, table: &'a mut ResourceTable) -> Self {
        Self { net, table }
    }
}

/// Names [`View`] to the linker.
pub(super) struct HasNet;

impl HasData for HasNet {
    type Data<'a> = View<'a>;
}
