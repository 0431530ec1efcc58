//! Attempts 36 and 40: reaching the network past the proxy.
//!
//! Packets leave only towards addresses that the harness names (loopback listeners of its own).
//! For every other address a UDP socket is connected, which looks the route up and sends nothing;
//! with `"connect": true` inside the walls a TCP connection is tried as well.

use crate::outcome::{At, Attempted, Errno, Sys, blocked, impossible, refused, succeeded};
use crate::sockets::echo;
use crate::sys::{self, close};
use crate::table::{Attempt, Control, Ctx, Tally, contains};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

const LOCAL4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOCAL6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const MPTCP: i32 = 262;

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(36, "tcp4", "TCP to 127.0.0.1", Control::Params, &["tcp_port!"], |x| tcp(x, LOCAL4, "tcp_port", 0)),
    Attempt::new(36, "tcp6", "TCP to ::1", Control::Params, &["tcp6_port!"], |x| tcp(x, LOCAL6, "tcp6_port", 0)),
    Attempt::new(36, "tcp-any", "TCP to 0.0.0.0, which is this host", Control::Params, &["tcp_port!"], |x| tcp(x, IpAddr::V4(Ipv4Addr::UNSPECIFIED), "tcp_port", 0)),
    Attempt::new(36, "tcp-mapped", "TCP to ::ffff:127.0.0.1", Control::Params, &["tcp_port!"], |x| tcp(x, IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()), "tcp_port", 0)),
    Attempt::new(36, "mptcp", "MPTCP to 127.0.0.1, which Landlock's TCP rights do not name", Control::Params, &["tcp_port!"], |x| tcp(x, LOCAL4, "tcp_port", MPTCP)),
    Attempt::new(36, "fastopen", "TCP to 127.0.0.1 by sendto(MSG_FASTOPEN), without connect", Control::Params, &["tcp_port!"], fastopen),
    Attempt::new(36, "udp4", "UDP to 127.0.0.1", Control::Params, &["udp_port!"], |x| udp(x, LOCAL4, "udp_port")),
    Attempt::new(36, "udp6", "UDP to ::1", Control::Params, &["udp6_port!"], |x| udp(x, LOCAL6, "udp6_port")),
    Attempt::new(36, "icmp", "an ICMP echo to 127.0.0.1, by a raw socket or a ping socket", Control::Root, &[], |_| icmp()),
    Attempt::new(36, "host-address", "TCP to an address of the host", Control::Params, &["host_address!", "tcp_port!"], host_address),
    Attempt::new(36, "metadata", "route to 169.254.169.254", Control::Route, &["connect"], |x| route(x, IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80)),
    Attempt::new(36, "internet", "route to the internet (192.0.2.1, TEST-NET-1)", Control::Route, &["connect"], |x| route(x, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 443)),
    Attempt::new(36, "internet6", "route to the IPv6 internet (2001:db8::1)", Control::Route, &["connect"], |x| route(x, IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 443)),
    Attempt::new(36, "lan", "route to a LAN address", Control::Route, &["lan_address", "connect"], lan),
    Attempt::new(36, "multicast", "route to multicast DNS", Control::Route, &[], |x| route(x, IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)), 5353)),
    Attempt::new(36, "link-local6", "any IPv6 link-local interface", Control::Run, &[], |_| link_local()),
    Attempt::new(36, "interfaces", "any interface beyond lo", Control::Run, &[], |_| interfaces()),
    Attempt::new(36, "listen", "listen where the host can connect", Control::Run, &["listen_port", "hold_ms"], listen).host_judges(),
    Attempt::new(36, "dns-env", "route to a name server of /etc/resolv.conf", Control::Route, &[], resolvers),
    Attempt::new(40, "unset-proxy", "a direct connection, whatever the environment says", Control::Params, &["tcp_port!"], |x| tcp(x, LOCAL4, "tcp_port", 0)),
    Attempt::new(40, "socks5", "raw SOCKS5 to 127.0.0.1:tcp_port through the proxy", Control::Params, &["proxy_port!", "tcp_port!"], |x| socks(x, false)),
    Attempt::new(40, "socks5-name", "raw SOCKS5 with a name that holds a NUL", Control::Params, &["proxy_port!", "tcp_port!"], |x| socks(x, true)),
    Attempt::new(40, "connect", "raw HTTP CONNECT to 127.0.0.1:tcp_port through the proxy", Control::Params, &["proxy_port!", "tcp_port!"], http_connect),
    Attempt::new(40, "proxy-unix", "raw HTTP CONNECT through the proxy's Unix socket", Control::Params, &["proxy_path!", "tcp_port!"], proxy_unix),
    Attempt::new(41, "relay", "TCP to the relay port of another plugin", Control::Params, &["relay_port!"], |x| tcp(x, LOCAL4, "relay_port", 0)),
];

/// A kernel socket address and its length.
fn raw_address(to: SocketAddr) -> ([u8; 28], usize) {
    let mut raw = [0u8; 28];
    raw[2..4].copy_from_slice(&to.port().to_be_bytes());
    match to {
        SocketAddr::V4(v4) => {
            raw[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            raw[4..8].copy_from_slice(&v4.ip().octets());
            (raw, 16)
        }
        SocketAddr::V6(v6) => {
            raw[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            raw[8..24].copy_from_slice(&v6.ip().octets());
            raw[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            (raw, 28)
        }
    }
}

fn socket(to: SocketAddr, kind: i32, protocol: i32) -> Sys<i32> {
    let domain = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    sys!(libc::SYS_socket, domain, kind, protocol).map(|fd| fd as i32)
}

/// A connection within 2 s.
pub fn connect(to: SocketAddr, protocol: i32) -> Sys<i32> {
    let fd = socket(to, libc::SOCK_STREAM, protocol)?;
    let (raw, len) = raw_address(to);
    let fail = |e: Errno| {
        close(fd);
        Err(e)
    };
    match sys!(libc::SYS_connect, fd, raw.as_ptr(), len) {
        Ok(_) => return Ok(fd),
        Err(Errno(libc::EINPROGRESS)) => {}
        Err(e) => return fail(e),
    }
    if !sys::poll(fd, libc::POLLOUT, Duration::from_secs(2)) {
        return fail(Errno(libc::ETIMEDOUT));
    }
    let (mut error, mut size) = (0i32, 4u32);
    let option = libc::SO_ERROR;
    sys!(libc::SYS_getsockopt, fd, libc::SOL_SOCKET, option, &raw mut error, &raw mut size)?;
    if error == 0 { Ok(fd) } else { fail(Errno(error)) }
}

pub fn port(ctx: &Ctx, name: &str) -> Result<u16, crate::outcome::Outcome> {
    u16::try_from(ctx.need_num(name)?).map_err(|_| impossible("not a port"))
}

fn tcp(ctx: &Ctx, host: IpAddr, port_name: &str, protocol: i32) -> Attempted {
    let to = SocketAddr::new(host, port(ctx, port_name)?);
    echo(connect(to, protocol).at("connect")?)
}

fn fastopen(ctx: &Ctx) -> Attempted {
    let to = SocketAddr::new(LOCAL4, port(ctx, "tcp_port")?);
    let fd = socket(to, libc::SOCK_STREAM, 0).at("socket")?;
    let (raw, len) = raw_address(to);
    let flags = libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL;
    let sent = sys!(libc::SYS_sendto, fd, c"\n".as_ptr(), 1, flags, raw.as_ptr(), len);
    if let Err(e) = sent
        && e.0 != libc::EINPROGRESS
    {
        close(fd);
        return Err(blocked(e.0, "sendto MSG_FASTOPEN"));
    }
    if !sys::poll(fd, libc::POLLOUT, Duration::from_secs(2)) {
        close(fd);
        return Err(blocked(libc::ETIMEDOUT, "the connection was not made"));
    }
    echo(fd)
}

fn udp(ctx: &Ctx, host: IpAddr, port_name: &str) -> Attempted {
    let to = SocketAddr::new(host, port(ctx, port_name)?);
    echo(datagrams(to)?)
}

/// A UDP socket that is connected to `to`.
pub fn datagrams(to: SocketAddr) -> Result<i32, crate::outcome::Outcome> {
    let fd = socket(to, libc::SOCK_DGRAM, 0).at("socket")?;
    let (raw, len) = raw_address(to);
    if let Err(e) = sys!(libc::SYS_connect, fd, raw.as_ptr(), len) {
        close(fd);
        return Err(blocked(e.0, "connect"));
    }
    Ok(fd)
}

fn icmp() -> Attempted {
    let to = SocketAddr::new(LOCAL4, 0);
    let fd = socket(to, libc::SOCK_RAW, libc::IPPROTO_ICMP)
        .or_else(|_| socket(to, libc::SOCK_DGRAM, libc::IPPROTO_ICMP))
        .at("socket")?;
    let (raw, len) = raw_address(to);
    // Type 8, and the sum of its only other words (RFC 792).
    let echo = [8u8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    let sent = sys!(libc::SYS_sendto, fd, echo.as_ptr(), echo.len(), 0, raw.as_ptr(), len);
    let answered = sent.is_ok() && sys::poll(fd, libc::POLLIN, Duration::from_secs(2));
    close(fd);
    sent.at("sendto")?;
    Ok(if answered { succeeded("an answer came") } else { blocked(None, "no answer came") })
}

fn host_address(ctx: &Ctx) -> Attempted {
    let host = ctx.need("host_address")?.parse().map_err(|_| impossible("not an address"))?;
    tcp(ctx, host, "tcp_port", 0)
}

/// Connects a UDP socket: the kernel looks the route up, and no packet leaves.
pub fn route(ctx: &Ctx, host: IpAddr, port: u16) -> Attempted {
    let to = SocketAddr::new(host, port);
    let fd = socket(to, libc::SOCK_DGRAM, 0).at("socket")?;
    let (raw, len) = raw_address(to);
    let found = sys!(libc::SYS_connect, fd, raw.as_ptr(), len);
    close(fd);
    found.at("no route: connect of a UDP socket")?;
    if ctx.outside() || !ctx.flag("connect") {
        return Ok(succeeded(format!("there is a route to {host} (nothing sent)")));
    }
    let fd = connect(to, 0).at("there is a route; TCP connect")?;
    close(fd);
    Ok(succeeded(format!("connected to {to}")))
}

fn lan(ctx: &Ctx) -> Attempted {
    let host = ctx.text("lan_address").unwrap_or("192.168.1.1");
    route(ctx, host.parse().map_err(|_| impossible("not an address"))?, 80)
}

fn resolvers(ctx: &Ctx) -> Attempted {
    let text = std::fs::read_to_string("/etc/resolv.conf").at("read /etc/resolv.conf")?;
    let mut tally = Tally::default();
    for line in text.lines().filter_map(|l| l.strip_prefix("nameserver")) {
        if let Ok(host) = line.trim().parse::<IpAddr>() {
            match route(ctx, host, 53) {
                Ok(_) => tally.win(line.trim()),
                Err(o) => tally.add::<()>(line.trim(), Err(Errno(o.errno.unwrap_or(0)))),
            }
        }
    }
    tally.end("no name server is named")
}

fn link_local() -> Attempted {
    let table = std::fs::read_to_string("/proc/net/if_inet6").at("open /proc/net/if_inet6")?;
    match table.lines().find(|l| l.starts_with("fe80")) {
        Some(line) => Ok(succeeded(line.to_owned())),
        None => Ok(blocked(None, "no link-local address")),
    }
}

/// Interface names by ioctl: needs neither /proc nor netlink.
fn interfaces() -> Attempted {
    let fd = sys!(libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)
        .at("socket")?;
    let mut names = Vec::new();
    for index in 1u32..256 {
        // struct ifreq: 16 bytes of name, then the index.
        let mut request = [0u8; 40];
        request[16..20].copy_from_slice(&index.to_ne_bytes());
        if sys!(libc::SYS_ioctl, fd, libc::SIOCGIFNAME, request.as_mut_ptr()).is_ok() {
            let end = request.iter().position(|b| *b == 0).unwrap_or(16).min(16);
            names.push(String::from_utf8_lossy(&request[..end]).into_owned());
        }
    }
    close(fd as i32);
    // These appear in every fresh network namespace, without a link to anywhere.
    const IDLE: [&str; 8] =
        ["lo", "sit0", "tunl0", "gre0", "gretap0", "erspan0", "ip6tnl0", "ip_vti0"];
    let more: Vec<&String> = names.iter().filter(|n| !IDLE.contains(&n.as_str())).collect();
    if more.is_empty() {
        return Ok(blocked(None, format!("interfaces: {names:?}")));
    }
    Ok(succeeded(format!("interfaces: {more:?}")))
}

fn listen(ctx: &Ctx) -> Attempted {
    let to = SocketAddr::new(LOCAL4, ctx.num("listen_port", 0) as u16);
    let fd = socket(to, libc::SOCK_STREAM, 0).at("socket")?;
    let (raw, len) = raw_address(to);
    let bound = sys!(libc::SYS_bind, fd, raw.as_ptr(), len);
    let listening = bound.and_then(|_| sys!(libc::SYS_listen, fd, 1));
    let reached = listening.is_ok()
        && sys::poll(fd, libc::POLLIN, Duration::from_millis(ctx.num("hold_ms", 0).min(10_000)));
    close(fd);
    listening.at("bind or listen")?;
    let seen = if reached { "a connection came" } else { "no connection came" };
    Ok(succeeded(format!("listening; {seen}; the harness judges")))
}

/// Reads until `enough` says so, the peer ends, or 2 s are over.
fn read_until(fd: i32, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let end = Instant::now() + Duration::from_secs(2);
    let mut got = Vec::new();
    while Instant::now() < end && !enough(&got) {
        if sys::poll(fd, libc::POLLIN, Duration::from_millis(100)) {
            match sys::read_fd(fd) {
                Ok(bytes) if !bytes.is_empty() => got.extend(bytes),
                _ => break,
            }
        }
    }
    got
}

fn proxy(ctx: &Ctx) -> Result<i32, crate::outcome::Outcome> {
    let host = ctx.text("proxy_host").unwrap_or("127.0.0.1");
    let host: IpAddr = host.parse().map_err(|_| impossible("not an address"))?;
    connect(SocketAddr::new(host, port(ctx, "proxy_port")?), 0).at("connect to the proxy")
}

fn say(fd: i32, bytes: &[u8]) -> Result<(), crate::outcome::Outcome> {
    let end = Instant::now() + Duration::from_secs(2);
    sys::write_all(fd, bytes, end).map_err(|e| e.0).at("write to the proxy")
}

fn socks(ctx: &Ctx, name: bool) -> Attempted {
    let target = port(ctx, "tcp_port")?.to_be_bytes();
    let fd = proxy(ctx)?;
    say(fd, &[5, 1, 0])?;
    let greeting = read_until(fd, |b| b.len() >= 2);
    if greeting.get(..2) != Some(&[5, 0]) {
        close(fd);
        return Ok(refused("socks-greeting", format!("the proxy greets with {greeting:?}")));
    }
    let mut request = vec![5, 1, 0];
    if name {
        // A suffix check sees an allowed name, a C resolver sees `127.0.0.1`.
        let host = format!("127.0.0.1\0.{}", ctx.text("allowed_host").unwrap_or("example.com"));
        request.extend([3, host.len() as u8]);
        request.extend(host.as_bytes());
    } else {
        request.extend([1, 127, 0, 0, 1]);
    }
    request.extend(target);
    say(fd, &request)?;
    let reply = read_until(fd, |b| b.len() >= 10);
    if reply.get(1) != Some(&0) {
        close(fd);
        let code = reply.get(1).map_or("closed".into(), |code| format!("socks-{code}"));
        return Ok(refused(code, format!("the proxy answers {:?}", reply.get(..2))));
    }
    echo(fd)
}

fn http_connect_over(ctx: &Ctx, fd: i32) -> Attempted {
    let port = port(ctx, "tcp_port")?;
    say(
        fd,
        format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n").as_bytes(),
    )?;
    let reply = read_until(fd, |b| contains(b, b"\r\n\r\n"));
    let status = String::from_utf8_lossy(&reply).lines().next().unwrap_or_default().to_owned();
    let code = status.split(' ').nth(1).unwrap_or("closed");
    if code != "200" {
        close(fd);
        return Ok(refused(code, format!("the proxy answers {status:?}")));
    }
    echo(fd)
}

fn http_connect(ctx: &Ctx) -> Attempted {
    let fd = proxy(ctx)?;
    http_connect_over(ctx, fd)
}

fn proxy_unix(ctx: &Ctx) -> Attempted {
    use std::os::fd::IntoRawFd;
    let stream = std::os::unix::net::UnixStream::connect(ctx.need("proxy_path")?).at("connect")?;
    http_connect_over(ctx, stream.into_raw_fd())
}
