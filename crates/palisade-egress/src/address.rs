//! Which addresses may be connected to.
//!
//! A name that was granted says nothing about where it leads: whoever runs its DNS decides that, at
//! every lookup anew. So addresses that are not of the open internet (this machine, its networks,
//! the cloud's metadata) are refused, unless a right names that very address or the operator allows its
//! network. IPv4 addresses hidden in IPv6 are taken out and checked too.
//!
//! Sources: the IANA special-purpose registries for IPv4 and IPv6 (RFC 6890 and its updates).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    str::FromStr,
};

/// What kind of address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressClass {
    /// Of the open internet.
    Global,
    /// `0.0.0.0/8`, `::`: this host, or none.
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// Where clouds hand out the machine's credentials.
    Metadata,
    /// `10/8`, `172.16/12`, `192.168/16`, `fc00::/7`, `fec0::/10`.
    Private,
    /// `100.64.0.0/10` (RFC 6598).
    CarrierGradeNat,
    /// `224/4`, `ff00::/8`.
    Multicast,
    /// `240/4` and `255.255.255.255`.
    Reserved,
    /// `198.18/15`, `2001:2::/48` (RFC 2544, RFC 5180).
    Benchmarking,
    /// `192.0.2/24`, `198.51.100/24`, `203.0.113/24`, `2001:db8::/32`, `3fff::/20`.
    Documentation,
    /// Protocol assignments, relays and translations: not an end of a connection, or one that is
    /// decided elsewhere.
    Special,
    /// One of this machine's own addresses, whatever its range.
    OwnMachine,
    /// Forbidden by a rule of the operator.
    Forbidden,
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "a public address",
            Self::Unspecified => "the unspecified address",
            Self::Loopback => "this machine (loopback)",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud metadata address",
            Self::Private => "a private address",
            Self::CarrierGradeNat => "a carrier's shared address",
            Self::Multicast => "a multicast address",
            Self::Reserved => "a reserved address",
            Self::Benchmarking => "a benchmarking address",
            Self::Documentation => "a documentation address",
            Self::Special => "a special-purpose address",
            Self::OwnMachine => "an address of this machine",
            Self::Forbidden => "forbidden by a rule",
        })
    }
}

/// Metadata services outside of `169.254.0.0/16`, or worth their own word within it.
const METADATA_V4: &[Ipv4Addr] = &[
    Ipv4Addr::new(169, 254, 169, 254), // AWS, Azure, GCP, OpenStack and others
    Ipv4Addr::new(169, 254, 170, 2),   // AWS ECS task credentials
    Ipv4Addr::new(169, 254, 170, 23),  // AWS EKS pod identity
    Ipv4Addr::new(100, 100, 100, 200), // Alibaba
    Ipv4Addr::new(168, 63, 129, 16),   // Azure wire server
    Ipv4Addr::new(192, 0, 0, 192),     // Oracle, older
];
const METADATA_V6: &[Ipv6Addr] = &[
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), // AWS IMDS
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),  // AWS EKS pod identity
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),  // GCP
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0xa9fe, 0xa9fe, 0, 0), // some OpenStack networks
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe), // OpenStack
];

impl AddressClass {
    /// The class of `address`, and where an IPv4 address is hidden in it, the worse of both.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => Self::of_v6(v6),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        if METADATA_V4.contains(&address) {
            return Self::Metadata;
        }
        match address.octets() {
            [0, ..] => Self::Unspecified,
            [127, ..] => Self::Loopback,
            [169, 254, ..] => Self::LinkLocal,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Self::Private,
            [100, 64..=127, ..] => Self::CarrierGradeNat,
            [224..=239, ..] => Self::Multicast,
            [240..=255, ..] => Self::Reserved,
            [198, 18..=19, ..] => Self::Benchmarking,
            [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Self::Documentation,
            // 192.0.0/24 protocol assignments; 192.88.99/24 6to4 relays; AS112 and AMT.
            [192, 0, 0, _]
            | [192, 88, 99, _]
            | [192, 31, 196, _]
            | [192, 52, 193, _]
            | [192, 175, 48, _] => Self::Special,
            _ => Self::Global,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        if METADATA_V6.contains(&address) {
            return Self::Metadata;
        }
        let outer = match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Self::Unspecified,
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            // fec0::/10, site-local, is deprecated (RFC 3879) and may still be routed.
            [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Self::Private,
            [0xff00..=0xffff, ..] => Self::Multicast,
            [0x2001, 2, 0, ..] => Self::Benchmarking,
            [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Self::Documentation,
            // The well-known NAT64 prefix (RFC 6052): what is hidden decides.
            [0x64, 0xff9b, 0, 0, 0, 0, ..] => Self::Global,
            // 6to4 (RFC 3056): what is hidden decides.
            [0x2002, ..] => Self::Global,
            // Protocol assignments with Teredo (2001::/32) and ORCHID.
            [0x2001, 0..=0x01ff, ..] => Self::Special,
            // Global unicast is 2000::/3. Everything else is not assigned, or local translation
            // (64:ff9b:1::/48, RFC 8215), discard only (100::/64), SRv6 (5f00::/16), or an
            // IPv4-compatible address (::/96, deprecated by RFC 4291).
            [0x2000..=0x3fff, ..] => Self::Global,
            _ => Self::Special,
        };
        match (outer, hidden_v4(address)) {
            (Self::Global, Some(v4)) => Self::of_v4(v4),
            (outer, _) => outer,
        }
    }
}

/// The IPv4 address that packets to this IPv6 address end up at, or may: NAT64, 6to4, ISATAP (RFC 5214).
fn hidden_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(join(high, low)),
        [0x2002, high, low, ..] => Some(join(high, low)),
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => Some(join(high, low)),
        _ => None,
    }
}

/// A network, `address/prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a network is written address/prefix, as in 10.1.0.0/16 or fd00::/8, with no bits set beyond the prefix"
)]
pub struct NotANetwork;

impl Network {
    /// Whether `address` lies in it. An IPv4 address that is mapped into IPv6 is that IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(a)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                net.to_bits() == a.to_bits() & mask
            }
            (IpAddr::V6(net), IpAddr::V6(a)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                net.to_bits() == a.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let Some((address, prefix)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(Self::from).map_err(|_| NotANetwork);
        };
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let plain = prefix.bytes().all(|b| b.is_ascii_digit()) && !prefix.starts_with("00");
        let prefix: u8 = prefix.parse().map_err(|_| NotANetwork)?;
        let network = Self { address, prefix };
        let fits = prefix <= if address.is_ipv4() { 32 } else { 128 };
        if plain && fits && network.contains(address) { Ok(network) } else { Err(NotANetwork) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The operator's word on addresses. By default only the open internet may be connected to.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    allowed: Vec<Network>,
}

impl AddressPolicy {
    /// Only public addresses, and those that a right names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets every plugin that was granted a name in `network` connect there, as a company does for its
    /// own servers. Says nothing about who was granted what.
    #[must_use]
    pub fn allow(mut self, network: Network) -> Self {
        self.allowed.push(network);
        self
    }

    /// What stands against connecting to `address`, leaving the caller's rights aside.
    ///
    /// # Errors
    /// The class because of which it is refused.
    pub fn check(&self, address: IpAddr) -> Result<(), AddressClass> {
        if self.allowed.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        match AddressClass::of(address) {
            AddressClass::Global if is_own(address) => Err(AddressClass::OwnMachine),
            AddressClass::Global => Ok(()),
            class => Err(class),
        }
    }
}

/// Whether the machine itself answers at `address`: the kernel then sends from that very address. A UDP
/// socket asks it for the route and sends nothing (`connect(2)`).
fn is_own(address: IpAddr) -> bool {
    let any: SocketAddr = match address {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any)
        .and_then(|socket| {
            socket.connect((address, 9))?;
            socket.local_addr()
        })
        .is_ok_and(|local| local.ip() == address)
}

#[cfg(test)]
mod tests;
