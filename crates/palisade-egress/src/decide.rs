//! The seam to whoever holds the rights and keeps the record.
//!
//! The guard asks before it looks a name up, and again for each address that the name has. It reports
//! every decision, allowed or refused, and never acts on one that was not reported first.

use std::net::SocketAddr;

use palisade_model::{
    Access, Capability, Failure, Kind,
    capability::{HostPattern, PortPattern, Scope},
};

use crate::{Authority, Host};

/// Whose rights count, and where decisions are recorded.
pub trait Decide: Send + Sync {
    /// Whether `access` is allowed by the caller's rights now. Its target is `host:port` in canonical
    /// form. Records nothing.
    ///
    /// # Errors
    /// The refusal, as the caller may see it.
    fn decide(&self, access: &Access<'_>) -> Result<(), Failure>;

    /// What the rights say about this very address: a right with a wildcard does not name it.
    /// [`names`] answers for one right.
    fn standing(&self, access: &Access<'_>) -> Standing;

    /// Records one decision, or the end of a connection. Does not block.
    fn record(&self, entry: &Entry<'_>);
}

/// What the rights say about one address or about `localhost`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A right names it, and nothing forbids it.
    Named,
    /// No right names it, and nothing forbids it.
    Silent,
    /// A rule forbids it.
    Forbidden,
}

/// One thing for the record.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The kind of right that was asked about.
    pub kind: Kind,
    /// The destination.
    pub authority: &'a Authority,
    /// What was decided, or what became of it.
    pub verdict: Verdict<'a>,
}

/// What is recorded about a destination.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Verdict<'a> {
    /// Allowed; the connection will go to this address or to one that was checked with it.
    Allowed {
        /// The first of the checked addresses.
        address: SocketAddr,
    },
    /// Refused, with the reason.
    Refused {
        /// The reason.
        failure: &'a Failure,
    },
    /// A connection through the proxy has ended.
    Closed {
        /// Bytes from the plugin to the server.
        sent: u64,
        /// Bytes from the server to the plugin.
        received: u64,
        /// Why it was ended, where neither side ended it.
        failure: Option<&'a Failure>,
    },
}

/// Whether `right` names exactly the host and port of `authority`, or that host at every port. Rights
/// to `*` and `*.example.org` name no host.
///
/// ```
/// use palisade_egress::{Authority, decide::names};
/// use palisade_model::Kind;
/// let printer = Authority::parse("10.0.0.9:631").unwrap();
/// assert!(names(&"net.tcp:10.0.0.9:631".parse().unwrap(), Kind::NetTcp, &printer));
/// assert!(!names(&"net.tcp:*:*".parse().unwrap(), Kind::NetTcp, &printer));
/// ```
#[must_use]
pub fn names(right: &Capability, kind: Kind, authority: &Authority) -> bool {
    let Scope::Authority(scope) = right.scope() else { return false };
    let HostPattern::Exact(host) = scope.host() else { return false };
    right.kind() == kind
        && Host::parse(host).is_ok_and(|host| host == *authority.host())
        && match scope.port() {
            PortPattern::Any => true,
            PortPattern::Exact(port) => port == authority.port(),
        }
}
