//! What can go wrong on the way out.

use std::{io, net::IpAddr, time::Duration};

use palisade_model::{ErrorCode, Failure};
use tokio_rustls::rustls;

use crate::AddressClass;

/// An error of the guard, of a request, or of the proxy. Text of a plugin or a server that stands in
/// one is escaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EgressError {
    /// Not a host, or not `host:port`.
    #[error(
        "\"{0}\" is not a host: an ASCII DNS name, an IPv4 address or an IPv6 address in brackets, with a port from 1 to 65535 where one stands"
    )]
    BadHost(String),
    /// Not a URL that can be requested.
    #[error("the URL cannot be requested: {0}")]
    BadUrl(&'static str),
    /// A request that does not follow the protocol, or uses what is not offered.
    #[error("the request is not valid: {0}")]
    BadRequest(&'static str),
    /// A server's answer that does not follow the protocol.
    #[error("the server's answer is not valid: {0}")]
    BadResponse(String),
    /// The caller's rights do not cover it.
    #[error("{0}")]
    Denied(Box<Failure>),
    /// The name leads to an address that the policy refuses.
    #[error("{host} leads to {address}, which is {class}")]
    AddressRefused {
        /// The host that was asked for.
        host: String,
        /// The address.
        address: IpAddr,
        /// What kind of address it is.
        class: AddressClass,
    },
    /// The TLS handshake does not name the granted host.
    #[error("the TLS handshake was refused: {0}")]
    Handshake(&'static str),
    /// The name has no address.
    #[error("{0} has no address")]
    NoAddress(String),
    /// The name could not be looked up.
    #[error("{host} could not be looked up: {cause}")]
    Lookup {
        /// The name.
        host: String,
        /// What the resolver said.
        cause: io::Error,
    },
    /// No checked address could be connected to.
    #[error("{host} could not be connected to: {cause}")]
    Connect {
        /// The host.
        host: String,
        /// The last address's error.
        cause: io::Error,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// TLS with the server failed.
    #[error("TLS with {host} failed: {cause}")]
    Tls {
        /// The host.
        host: String,
        /// What the handshake said.
        cause: io::Error,
    },
    /// A redirect that is not followed.
    #[error("the redirect is not followed: {0}")]
    Redirect(String),
    /// A bound was exceeded.
    #[error("{what} exceeds {limit} {unit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The bound.
        limit: u64,
        /// What the bound counts.
        unit: &'static str,
    },
    /// The deadline passed.
    #[error("{what} took longer than {limit:?}")]
    Deadline {
        /// What took too long.
        what: &'static str,
        /// The bound.
        limit: Duration,
    },
    /// A right was taken back while the connection was open.
    #[error("the right to {0} was taken back")]
    Withdrawn(String),
}

impl EgressError {
    /// Whether a server's certificate was not believed: of an authority that is not trusted, for another
    /// name, or out of its time.
    #[must_use]
    pub fn is_of_certificate(&self) -> bool {
        let Self::Tls { cause, .. } = self else { return false };
        let said = cause.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        matches!(said, Some(rustls::Error::InvalidCertificate(_)))
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::BadHost(_) | Self::BadUrl(_) | Self::BadRequest(_) => ErrorCode::InvalidParams,
            Self::Denied(failure) => failure.code,
            Self::AddressRefused { .. }
            | Self::Handshake(_)
            | Self::Redirect(_)
            | Self::Withdrawn(_) => ErrorCode::Denied,
            Self::NoAddress(_) => ErrorCode::NotFound,
            Self::Lookup { .. }
            | Self::Connect { .. }
            | Self::Io(_)
            | Self::Tls { .. }
            | Self::BadResponse(_) => ErrorCode::Unavailable,
            Self::TooLarge { .. } => ErrorCode::LimitExceeded,
            Self::Deadline { .. } => ErrorCode::Deadline,
        }
    }
}

impl From<EgressError> for Failure {
    fn from(error: EgressError) -> Failure {
        let code = error.code();
        let hint = match &error {
            EgressError::Denied(failure) => return (**failure).clone(),
            EgressError::AddressRefused { address, .. } => Some(match address {
                IpAddr::V4(a) => format!(
                    "grant that very address ({a}:PORT), or let the operator allow its network"
                ),
                IpAddr::V6(a) => format!(
                    "grant that very address ([{a}]:PORT), or let the operator allow its network"
                ),
            }),
            EgressError::BadHost(_) => {
                Some("write an international name in its xn-- form, and no user or path".into())
            }
            EgressError::Handshake(_) => Some(
                "the name in the handshake (SNI) must be the host that was asked for, in the clear"
                    .into(),
            ),
            _ => None,
        };
        let failure = Failure::new(code, error.to_string());
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
