//! Who is meant: a host and a port, in one spelling.
//!
//! Everything that names a destination (a URL, `CONNECT`, a `Host` header, SOCKS, SNI) is read by
//! [`Host::parse`] and kept as a [`Host`]; text is not compared or resolved anywhere else. The grammar is
//! that of scopes (`palisade_model::capability::parse_host`), so that what is granted is what is
//! resolved: ASCII only, no user, no percent-encoding, no zone, addresses in their usual spelling only.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use palisade_model::{capability::parse_host, text::escape};

use crate::EgressError;

/// Most characters of a refused text that are shown.
const SHOWN_CHARS: usize = 80;

/// A DNS name or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Repr);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    /// In lower case, without trailing dot, at most 253 bytes.
    Name(Box<str>),
    Address(IpAddr),
}

impl Host {
    /// Reads a host: a DNS name (an international one in its `xn--` form), an IPv4 address in four
    /// decimal parts, or an IPv6 address in brackets. An IPv4 address that is mapped into IPv6
    /// (`[::ffff:a.b.c.d]`) is that IPv4 address.
    ///
    /// # Errors
    /// [`EgressError::BadHost`].
    pub fn parse(text: &str) -> Result<Self, EgressError> {
        let bad = || EgressError::BadHost(escape(text, SHOWN_CHARS));
        let canonical = parse_host(text).ok_or_else(bad)?;
        if let Some(inner) = canonical.strip_prefix('[').and_then(|c| c.strip_suffix(']')) {
            return inner.parse::<Ipv6Addr>().map(|a| Self::from(IpAddr::V6(a))).map_err(|_| bad());
        }
        Ok(match canonical.parse::<Ipv4Addr>() {
            Ok(address) => Self(Repr::Address(address.into())),
            Err(_) => Self(Repr::Name(canonical.into())),
        })
    }

    /// Reads a host from bytes of a protocol that promises text (SOCKS, SNI).
    ///
    /// # Errors
    /// [`EgressError::BadHost`], also where the bytes are not UTF-8.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, EgressError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text),
            Err(_) => {
                Err(EgressError::BadHost(escape(&String::from_utf8_lossy(bytes), SHOWN_CHARS)))
            }
        }
    }

    /// The DNS name, where it is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Repr::Name(name) => Some(name),
            Repr::Address(_) => None,
        }
    }

    /// The address, where it is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self.0 {
            Repr::Name(_) => None,
            Repr::Address(address) => Some(address),
        }
    }

    /// Whether it is the name `localhost`, which means the loopback addresses and is never looked up
    /// (RFC 6761, section 6.3).
    #[must_use]
    pub fn is_localhost(&self) -> bool {
        self.name() == Some("localhost")
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        Self(Repr::Address(address.to_canonical()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Name(name) => f.write_str(name),
            Repr::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Repr::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// A host and a port. Its text, `host:port`, is what the rights are asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Authority {
    host: Host,
    port: u16,
}

impl Authority {
    /// A host and a port.
    ///
    /// # Errors
    /// [`EgressError::BadHost`] for port 0, which is none.
    pub fn new(host: Host, port: u16) -> Result<Self, EgressError> {
        if port == 0 {
            return Err(EgressError::BadHost(format!("{host}:0")));
        }
        Ok(Self { host, port })
    }

    /// Reads `host:port`; the port must stand there.
    ///
    /// # Errors
    /// [`EgressError::BadHost`].
    pub fn parse(text: &str) -> Result<Self, EgressError> {
        Self::read(text, None)
    }

    /// Reads `host` or `host:port`.
    ///
    /// # Errors
    /// [`EgressError::BadHost`].
    pub fn parse_or(text: &str, default_port: u16) -> Result<Self, EgressError> {
        Self::read(text, Some(default_port))
    }

    fn read(text: &str, default_port: Option<u16>) -> Result<Self, EgressError> {
        let bad = || EgressError::BadHost(escape(text, SHOWN_CHARS));
        // The brackets of an IPv6 address end before the port begins.
        let end = text.rfind(']').map_or(0, |bracket| bracket + 1);
        let colon = text.get(end..).and_then(|tail| tail.find(':')).map(|at| end + at);
        let (host, port) = match colon.and_then(|at| text.split_at_checked(at)) {
            Some((host, port)) => (host, port.strip_prefix(':').and_then(parse_port)),
            None => (text, default_port),
        };
        Self::new(Host::parse(host).map_err(|_| bad())?, port.ok_or_else(bad)?)
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, 1..=65535.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As a `Host` header has it: without the port where it is `default_port`.
    #[must_use]
    pub fn host_header(&self, default_port: u16) -> String {
        if self.port == default_port { self.host.to_string() } else { self.to_string() }
    }
}

/// 1 to 5 digits without a leading zero.
fn parse_port(text: &str) -> Option<u16> {
    let plain =
        !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests;
