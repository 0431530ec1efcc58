//! Deciding, looking up, checking and connecting, in this order and in one place.
//!
//! The address that was checked is the one that is connected to: there is no second lookup that could
//! answer differently (DNS rebinding). A name with one refused address is refused as a whole, since an
//! honest name does not lead both to the internet and into the private network.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use palisade_model::{Access, Failure, Kind};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

mod pace;

use pace::Pace;

use crate::{
    AddressClass, AddressPolicy, Authority, Decide, EgressError, Entry, Host, Resolve, Standing,
    SystemResolver, Verdict,
};

/// Most lookups of one plugin at one time; each may hold a thread until the system's resolver gives up.
const MAX_LOOKUPS: usize = 8;
/// Most addresses of one name that are looked at; more are refused.
const MAX_ADDRESSES: usize = 64;
/// Most addresses of one name that are tried.
const MAX_TRIED: usize = 4;
const LOOKUP_TIME: Duration = Duration::from_secs(10);
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// A connection that was decided, checked and recorded.
#[derive(Debug)]
pub struct Connection {
    /// The stream, with Nagle's algorithm off.
    pub stream: TcpStream,
    /// The checked address that it leads to.
    pub address: SocketAddr,
}

/// Handles of one connection through the proxy: two sockets, and a pipe for each direction.
const HANDLES_EACH: usize = 6;
/// Fewest connections for all plugins together, however few handles there are.
const LEAST_CONNECTIONS: usize = 16;

/// How many connections all plugins together may have: what half of this process' handles suffice for.
/// The others are the host's own.
fn most_connections() -> usize {
    #[cfg(target_os = "linux")]
    let handles = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    // What most systems allow where nobody has changed it.
    #[cfg(not(target_os = "linux"))]
    let handles = Some(256);
    let handles = handles.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    (handles / 2 / HANDLES_EACH).clamp(LEAST_CONNECTIONS, 1 << 16)
}

/// The one way out. Cloning shares it, with its queue for lookups.
#[derive(Clone)]
pub struct Guard {
    resolver: Arc<dyn Resolve>,
    policy: Arc<AddressPolicy>,
    lookups: Arc<Semaphore>,
    pace: Arc<Pace>,
    /// For all plugins together.
    connections: Arc<Semaphore>,
    most_connections: usize,
}

impl Guard {
    /// A guard that uses the system's resolver.
    #[must_use]
    pub fn new(policy: AddressPolicy) -> Self {
        Self::with_resolver(policy, Arc::new(SystemResolver))
    }

    /// A guard that uses `resolver`.
    #[must_use]
    pub fn with_resolver(policy: AddressPolicy, resolver: Arc<dyn Resolve>) -> Self {
        let most_connections = most_connections();
        Self {
            resolver,
            policy: Arc::new(policy),
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            pace: Arc::default(),
            connections: Arc::new(Semaphore::new(most_connections)),
            most_connections,
        }
    }

    /// The same guard with a queue for lookups and a pace of its own, so that names which a plugin makes
    /// slow to look up, or asks for without end, delay nobody else.
    #[must_use]
    pub fn for_plugin(&self) -> Self {
        let lookups = Arc::new(Semaphore::new(MAX_LOOKUPS));
        Self { lookups, pace: Arc::default(), ..self.clone() }
    }

    /// How many connections through proxies there may be at one time, those of all plugins together.
    #[must_use]
    pub fn most_connections(&self) -> usize {
        self.most_connections
    }

    /// A place among them; waits for one.
    pub(crate) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        Arc::clone(&self.connections).acquire_owned().await.ok()
    }

    /// Decides, looks up and checks, and records the outcome: the addresses that may be connected to,
    /// best first, at least one. Who asks for ever new destinations waits for his turn.
    ///
    /// # Errors
    /// [`EgressError::Denied`], [`EgressError::AddressRefused`], and those of the lookup.
    pub async fn check(
        &self,
        decide: &dyn Decide,
        kind: Kind,
        authority: &Authority,
    ) -> Result<Vec<SocketAddr>, EgressError> {
        self.pace.turn(authority).await;
        let checked = self.checked(decide, kind, authority).await;
        match checked.as_deref() {
            Ok([address, ..]) => {
                let verdict = Verdict::Allowed { address: *address };
                decide.record(&Entry { kind, authority, verdict });
                checked
            }
            Ok([]) => Err(EgressError::NoAddress(authority.host().to_string())),
            Err(_) => checked.map_err(|error| refused(decide, kind, authority, error)),
        }
    }

    async fn checked(
        &self,
        decide: &dyn Decide,
        kind: Kind,
        authority: &Authority,
    ) -> Result<Vec<SocketAddr>, EgressError> {
        let target = authority.to_string();
        let access = Access::new(kind, &target);
        decide.decide(&access).map_err(|failure| EgressError::Denied(Box::new(failure)))?;
        let host = authority.host();
        let mut addresses = self.look_up(host).await?;
        addresses.dedup();
        if addresses.is_empty() {
            return Err(EgressError::NoAddress(host.to_string()));
        }
        if addresses.len() > MAX_ADDRESSES {
            return Err(EgressError::TooLarge {
                what: "the number of addresses of the name",
                limit: MAX_ADDRESSES as u64,
                unit: "addresses",
            });
        }
        // `localhost` always means the loopback, so that naming the one is naming the other.
        let localhost = host.is_localhost() && decide.standing(&access) == Standing::Named;
        for address in &addresses {
            self.check_address(decide, kind, *address, authority.port(), localhost).map_err(
                |class| EgressError::AddressRefused {
                    host: host.to_string(),
                    address: *address,
                    class,
                },
            )?;
        }
        Ok(addresses
            .into_iter()
            .map(|address| SocketAddr::new(address, authority.port()))
            .collect())
    }

    async fn look_up(&self, host: &Host) -> Result<Vec<IpAddr>, EgressError> {
        if let Some(address) = host.address() {
            return Ok(vec![address]);
        }
        if host.is_localhost() {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let Some(name) = host.name() else { return Ok(Vec::new()) };
        let late = || EgressError::Deadline { what: "the lookup", limit: LOOKUP_TIME };
        let failed = |cause| EgressError::Lookup { host: name.to_owned(), cause };
        let lookup = async {
            let turn = Arc::clone(&self.lookups).acquire_owned().await;
            let (resolver, name) = (Arc::clone(&self.resolver), name.to_owned());
            // A task of its own: a lookup that is no longer awaited keeps its place until its thread is
            // free again.
            tokio::spawn(async move {
                let _turn = turn;
                resolver.resolve(&name).await
            })
            .await
        };
        let found = timeout(LOOKUP_TIME, lookup).await.map_err(|_| late())?;
        let found = found.map_err(|gone| failed(io::Error::other(gone)))?.map_err(failed)?;
        Ok(found.into_iter().map(|address| address.to_canonical()).collect())
    }

    fn check_address(
        &self,
        decide: &dyn Decide,
        kind: Kind,
        address: IpAddr,
        port: u16,
        localhost: bool,
    ) -> Result<(), AddressClass> {
        let very = Authority::new(Host::from(address), port)
            .map_err(|_| AddressClass::Unspecified)?
            .to_string();
        match decide.standing(&Access::new(kind, &very)) {
            Standing::Forbidden => Err(AddressClass::Forbidden),
            Standing::Named => Ok(()),
            Standing::Silent if localhost && address.is_loopback() => Ok(()),
            Standing::Silent => self.policy.check(address),
        }
    }

    /// [`Guard::check`], and then a connection to the first checked address that answers.
    ///
    /// # Errors
    /// As [`Guard::check`], and [`EgressError::Connect`] where none answers within 10 s.
    pub async fn connect(
        &self,
        decide: &dyn Decide,
        kind: Kind,
        authority: &Authority,
    ) -> Result<Connection, EgressError> {
        let addresses = self.check(decide, kind, authority).await?;
        let tried = addresses.len().min(MAX_TRIED);
        let each = CONNECT_TIME / u32::try_from(tried).unwrap_or(1).max(1);
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for address in addresses.into_iter().take(tried) {
            match timeout(each, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Two ephemeral ports of one machine can meet themselves (RFC 9293, 3.5).
                    if stream.local_addr()? == address {
                        last = io::ErrorKind::ConnectionRefused.into();
                        continue;
                    }
                    stream.set_nodelay(true)?;
                    return Ok(Connection { stream, address });
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(EgressError::Connect { host: authority.host().to_string(), cause: last })
    }
}

/// Records that `error` stood against it.
pub(crate) fn refused(
    decide: &dyn Decide,
    kind: Kind,
    authority: &Authority,
    error: EgressError,
) -> EgressError {
    let failure = failure_of(&error);
    decide.record(&Entry { kind, authority, verdict: Verdict::Refused { failure: &failure } });
    error
}

/// The failure that an error becomes, without giving the error away.
pub(crate) fn failure_of(error: &EgressError) -> Failure {
    match error {
        EgressError::Denied(failure) => (**failure).clone(),
        other => Failure::new(other.code(), other.to_string()),
    }
}
