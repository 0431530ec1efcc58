//! Authority scopes: `host:port`, where the host may be `*.example.org` (any number of labels in front,
//! at least one), an IPv4 address in four decimal parts, an IPv6 address in brackets, or `*`; and the
//! port a number or `*`. Without a port, 443 is meant.
//!
//! Hosts are compared in lower case and without a trailing dot. Only ASCII: an international name is
//! written in its `xn--` form, so that what is granted is what is resolved (RFC 5890).

use std::{
    borrow::Cow,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

/// The port meant where none is written.
const DEFAULT_PORT: u16 = 443;

/// Which hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// This host, in lower case.
    Exact(String),
    /// Every host with at least one more label in front of this suffix (kept without the `*.`).
    Below(String),
}

/// Which ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortPattern {
    /// Every port.
    Any,
    /// This port, 1..=65535.
    Exact(u16),
}

/// A pattern over hosts and ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuthorityScope {
    host: HostPattern,
    port: PortPattern,
}

/// Reads a host as it may be resolved or connected to and gives its one canonical form: a DNS name in
/// lower case without trailing dot, an IPv4 address in dotted decimal, or an IPv6 address in brackets.
///
/// Refused: empty labels, labels over 63 or names over 253 bytes, characters outside `a-z 0-9 -`
/// (and `_`), labels that begin or end with `-`, and names whose last label is a number, since
/// resolvers read those as addresses in decimal, octal or hexadecimal (WHATWG URL, "ends in a number").
#[must_use]
pub fn parse_host(host: &str) -> Option<String> {
    canonical_host(host).map(Cow::into_owned)
}

/// [`parse_host`] that copies only upper case names and IPv6 addresses.
fn canonical_host(host: &str) -> Option<Cow<'_, str>> {
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().ok()?;
        return Some(Cow::Owned(match address.to_ipv4_mapped() {
            Some(v4) => v4.to_string(),
            None => format!("[{address}]"),
        }));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if ends_in_number(name) {
        // Only the canonical spelling of an IPv4 address parses: four decimal parts, no leading zero.
        return host.parse::<Ipv4Addr>().is_ok().then_some(Cow::Borrowed(host));
    }
    let name = if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    };
    is_dns_name(&name).then_some(name)
}

/// The canonical form of a target `host:port`, where it is one.
pub(super) fn canonical(target: &str) -> Option<Cow<'_, str>> {
    let (host, port) = split_port(target);
    let port = port.and_then(parse_port)?;
    let canonical = canonical_host(host)?;
    Some(if *canonical == *host {
        Cow::Borrowed(target)
    } else {
        Cow::Owned(format!("{canonical}:{port}"))
    })
}

fn is_dns_name(name: &str) -> bool {
    let mut label = 0;
    let mut previous = b'.';
    for b in name.bytes() {
        match b {
            b'.' if previous == b'.' || previous == b'-' => return false,
            b'.' => label = 0,
            b'-' if previous == b'.' => return false,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' if label < 63 => label += 1,
            _ => return false,
        }
        previous = b;
    }
    name.len() <= 253 && !matches!(previous, b'.' | b'-')
}

fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default().as_bytes();
    match last {
        [b'0', b'x' | b'X', rest @ ..] => rest.iter().all(u8::is_ascii_hexdigit),
        digits => digits.iter().all(u8::is_ascii_digit),
    }
}

/// Splits `host:port`, minding brackets.
fn split_port(text: &str) -> (&str, Option<&str>) {
    let after_bracket = text.rfind(']').map_or(0, |i| i + 1);
    match text.get(after_bracket..).and_then(|tail| tail.rfind(':')) {
        Some(i) => {
            let (host, port) = text.split_at(after_bracket + i);
            (host, port.strip_prefix(':'))
        }
        None => (text, None),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let plain =
        !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

impl AuthorityScope {
    pub(super) fn parse(scope: &str) -> Result<Self, String> {
        let (host, port) = split_port(scope);
        let port = match port {
            None => PortPattern::Exact(DEFAULT_PORT),
            Some("*") => PortPattern::Any,
            Some(p) => PortPattern::Exact(
                parse_port(p).ok_or("the port must be a number from 1 to 65535, or *")?,
            ),
        };
        let host = match host {
            "" => return Err("the host is empty".into()),
            "*" => HostPattern::Any,
            host => match host.strip_prefix("*.") {
                Some(suffix) => HostPattern::Below(
                    parse_host(suffix)
                        .filter(|s| s.contains('.') && !s.starts_with('[') && s.parse::<Ipv4Addr>().is_err())
                        .ok_or("after '*.' there must be a DNS name of at least two labels")?,
                ),
                None => HostPattern::Exact(parse_host(host).ok_or(
                    "the host must be an ASCII DNS name, an IPv4 address or an IPv6 address in brackets; no scheme, path or user",
                )?),
            },
        };
        Ok(Self { host, port })
    }

    /// Which hosts.
    #[must_use]
    pub fn host(&self) -> &HostPattern {
        &self.host
    }

    /// Which ports.
    #[must_use]
    pub fn port(&self) -> PortPattern {
        self.port
    }

    pub(super) fn is_any_host(&self) -> bool {
        self.host == HostPattern::Any
    }

    pub(super) fn matches(&self, target: &str) -> bool {
        let (host, port) = split_port(target);
        let (Some(host), Some(port)) = (canonical_host(host), port.and_then(parse_port)) else {
            return false;
        };
        let port_fits = match self.port {
            PortPattern::Any => true,
            PortPattern::Exact(p) => p == port,
        };
        port_fits
            && match &self.host {
                HostPattern::Any => true,
                HostPattern::Exact(h) => *h == *host,
                HostPattern::Below(suffix) => is_below(&host, suffix),
            }
    }

    pub(super) fn is_subset_of(&self, other: &Self) -> bool {
        let port = match (self.port, other.port) {
            (_, PortPattern::Any) => true,
            (PortPattern::Exact(a), PortPattern::Exact(b)) => a == b,
            (PortPattern::Any, PortPattern::Exact(_)) => false,
        };
        port && match (&self.host, &other.host) {
            (_, HostPattern::Any) => true,
            (HostPattern::Exact(a), HostPattern::Exact(b)) => a == b,
            (HostPattern::Exact(a), HostPattern::Below(suffix)) => is_below(a, suffix),
            (HostPattern::Below(a), HostPattern::Below(b)) => a == b || is_below(a, b),
            (HostPattern::Any | HostPattern::Below(_), _) => false,
        }
    }
}

/// Whether `host` has at least one label in front of `.suffix`. Addresses are below nothing.
fn is_below(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix)
        .and_then(|front| front.strip_suffix('.'))
        .is_some_and(|front| !front.is_empty())
}

impl fmt::Display for AuthorityScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostPattern::Any => f.write_str("*")?,
            HostPattern::Exact(h) => f.write_str(h)?,
            HostPattern::Below(h) => write!(f, "*.{h}")?,
        }
        match self.port {
            PortPattern::Any => f.write_str(":*"),
            PortPattern::Exact(p) => write!(f, ":{p}"),
        }
    }
}
