//! The way out to the network, as seen from inside: a few ports on the loopback interface of an otherwise
//! empty network namespace. What may pass is decided by the host, which serves the listener.
//!
//! Programs that know of proxies are pointed to one by variables. Those that do not ask the name server
//! inside, connect to the address that it makes up for the name, and arrive at the same guard. Both are a
//! convenience: whoever uses neither reaches nothing, since there is no route and no other address.

use std::{collections::BTreeSet, io, os::fd::OwnedFd, path::Path};

use palisade_model::capability::{PortPattern, Scope};
use palisade_sandbox::{LaunchSpec, WayOut};

use crate::plan::{PlanBuilder, format::egress};

/// The port, the usual one of HTTP proxies. SOCKS 5 is spoken on it too.
pub(crate) const PORT: u16 = 3128;
const NAMES_PORT: u16 = 53;
/// Ports at which a program may connect without asking the proxy, whatever its rights say.
const USUAL_PORTS: [u16; 2] = [80, 443];
/// Most of them, with those that rights name. Others can be reached through the proxy.
const MAX_DIRECT: usize = 16;

/// The ports at which connections to names are taken.
fn direct_ports(spec: &LaunchSpec) -> BTreeSet<u16> {
    let named = spec.rights.iter().filter_map(|right| match right.scope() {
        Scope::Authority(authority) => match authority.port() {
            PortPattern::Exact(port) if port != PORT => Some(port),
            _ => None,
        },
        _ => None,
    });
    let mut ports = BTreeSet::from(USUAL_PORTS);
    for port in named {
        if ports.len() < MAX_DIRECT {
            ports.insert(port);
        }
    }
    ports
}

/// Everything of the way out that the helper makes.
pub(crate) fn plan(plan: &mut PlanBuilder, spec: &LaunchSpec) {
    if !spec.has_way_out() {
        return;
    }
    sysctls().for_each(|(file, value)| plan.sysctl(file, value));
    plan.egress(egress::PROXY, PORT);
    plan.egress(egress::NAMES, NAMES_PORT);
    direct_ports(spec).into_iter().for_each(|port| plan.egress(egress::DIRECT, port));
}

/// What Landlock lets the program connect to.
pub(crate) fn landlock(plan: &mut PlanBuilder, spec: &LaunchSpec) {
    if spec.has_way_out() {
        plan.landlock_port(PORT);
        direct_ports(spec).into_iter().for_each(|port| plan.landlock_port(port));
    }
}

/// The sockets as they come from the helper.
#[derive(Default)]
pub(crate) struct Arriving(Vec<(u32, OwnedFd)>);

impl Arriving {
    pub(crate) fn take(&mut self, purpose: u32, socket: OwnedFd) {
        self.0.push((purpose, socket));
    }

    /// All of them, if there are any.
    pub(crate) fn complete(self) -> io::Result<Option<WayOut>> {
        let (mut proxy, mut names, mut direct) = (None, None, Vec::new());
        for (purpose, socket) in self.0 {
            rustix::io::ioctl_fionbio(&socket, true)?;
            match purpose {
                egress::PROXY => proxy = Some(socket.into()),
                egress::NAMES => names = Some(socket.into()),
                _ => direct.push(socket.into()),
            }
        }
        Ok(proxy.map(|proxy| WayOut { proxy, names, direct }))
    }
}

/// Files of the new root that make programs ask the name server.
pub(crate) const RESOLVER: &str = "nameserver 127.0.0.1\noptions attempts:1 timeout:2\n";

/// Most bytes that the kernel keeps for one connection in each direction. The default, which grows to
/// several MiB, would be memory of the plugin's choice that is in nobody's count where memory is only
/// sampled. Loopback has round trips of microseconds and loses nothing by it.
const BUFFERS: &str = "4096 131072 262144";

/// Settings of the plugin's own network namespace.
fn sysctls() -> impl Iterator<Item = (&'static str, &'static str)> {
    [
        ("/proc/sys/net/ipv4/tcp_rmem", BUFFERS),
        ("/proc/sys/net/ipv4/tcp_wmem", BUFFERS),
        // Whatever the machine's default is: pacing (BBR) only costs time on a loopback interface.
        ("/proc/sys/net/ipv4/tcp_congestion_control", "reno"),
    ]
    .into_iter()
    .filter(|(file, _)| Path::new(file).exists())
}

/// Variables that programs look for. `ALL_PROXY` names the HTTP proxy: HTTP clients read it too, and
/// some fail where it names a SOCKS proxy that they have no library for.
pub(crate) fn environment() -> Vec<(&'static str, String)> {
    let names =
        ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let mut all: Vec<_> =
        names.into_iter().map(|name| (name, format!("http://127.0.0.1:{PORT}"))).collect();
    // `fetch` of Node.js looks at the others only where this one says so.
    all.push(("NODE_USE_ENV_PROXY", "1".to_owned()));
    all
}

/// The certificates that this machine trusts, by which programs check whom they speak with: folders and
/// files, never those with private keys.
const CERTIFICATES: [&str; 8] = [
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/ca-certificates/extracted",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];

/// What of [`CERTIFICATES`] there is here, and whether it is a folder.
pub(crate) fn certificates(spec: &LaunchSpec) -> Vec<(&'static str, bool)> {
    if !spec.has_way_out() {
        return Vec::new();
    }
    let there = |path: &&str| {
        let real = Path::new(path).canonicalize();
        real.is_ok_and(|real| real == Path::new(path))
    };
    CERTIFICATES.into_iter().filter(there).map(|path| (path, Path::new(path).is_dir())).collect()
}
