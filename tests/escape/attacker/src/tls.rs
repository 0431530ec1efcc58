//! Attempt 39: saying one name to the guard and another to the server.
//!
//! Behind `tls_port` stands a server of many names, as a content network has: it serves the forbidden
//! site to whoever names it anywhere in what is sent, hides the name, or names none at all. Only
//! `granted.example` was granted there.

use crate::egress::{converse, direct_at, filled, judged, proxy, raw, read_to, resolved};
use crate::outcome::{At, Attempted, Outcome, refused};
use crate::sys;
use crate::table::{Attempt, Control, Ctx, contains};
use std::time::{Duration, Instant};

const P: Control = Control::Params;
const TLS: &[&str] = &["proxy_port!", "tls_port!", "reached!"];
const DIRECT: &[&str] = &["names_port!", "tls_port!", "reached!"];
const CONNECT: &str = "CONNECT granted.example:{tls} HTTP/1.1\r\n\r\n";
const GRANTED: &str = "granted.example";
const FORBIDDEN: &str = "forbidden.example";
const OTHER_SITE: &[u8] = b"GET / HTTP/1.1\r\nHost: forbidden.example\r\n\r\n";
const ECH: u16 = 0xfe0d;

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(39, "sni-other", "CONNECT to a granted name, another in the handshake", P, TLS, |x| say(x, &record(&hello(&[sni(FORBIDDEN)])))),
    Attempt::new(39, "sni-other-socks", "the same by SOCKS", P, TLS, |x| say_by_socks(x, &record(&hello(&[sni(FORBIDDEN)])))),
    Attempt::new(39, "sni-missing", "no name in the handshake", P, TLS, |x| say(x, &record(&hello(&[])))),
    Attempt::new(39, "sni-no-extensions", "a handshake without extensions", P, TLS, |x| say(x, &record(&old_hello()))),
    Attempt::new(39, "sni-case", "another name in other cases", P, TLS, |x| say(x, &record(&hello(&[sni("FORBIDDEN.Example")])))),
    Attempt::new(39, "sni-dot", "another name with a dot at its end", P, TLS, |x| say(x, &record(&hello(&[sni("forbidden.example.")])))),
    Attempt::new(39, "sni-address", "an address as the name", P, TLS, |x| say(x, &record(&hello(&[sni("127.0.0.2")])))),
    Attempt::new(39, "sni-empty", "an empty name", P, TLS, |x| say(x, &record(&hello(&[sni("")])))),
    Attempt::new(39, "sni-nul", "a NUL between two names", P, TLS, |x| say(x, &record(&hello(&[sni("forbidden.example\0.granted.example")])))),
    Attempt::new(39, "sni-two-names", "two names in the list", P, TLS, |x| say(x, &record(&hello(&[sni_list(&[GRANTED, FORBIDDEN])])))),
    Attempt::new(39, "sni-twice", "the extension twice, the granted name first", P, TLS, |x| say(x, &record(&hello(&[sni(GRANTED), sni(FORBIDDEN)])))),
    Attempt::new(39, "sni-twice-last", "the extension twice, the granted name last", P, TLS, |x| say(x, &record(&hello(&[sni(FORBIDDEN), sni(GRANTED)])))),
    Attempt::new(39, "ech", "a granted outer name around an encrypted hello", P, TLS, |x| say(x, &record(&hello(&[sni(GRANTED), (ECH, vec![0; 64])])))),
    Attempt::new(39, "ech-inner", "an encrypted hello marked as inner", P, TLS, |x| say(x, &record(&hello(&[sni(GRANTED), (ECH, vec![1])])))),
    Attempt::new(39, "records", "another name over many records", P, TLS, |x| say(x, &records(&hello(&[sni(FORBIDDEN)]), 7))),
    Attempt::new(39, "records-of-one", "the same in records of one byte", P, TLS, |x| say(x, &records(&hello(&[sni(FORBIDDEN)]), 1))),
    Attempt::new(39, "bytes", "another name byte by byte", P, TLS, |x| drip(x, &record(&hello(&[sni(FORBIDDEN)])))),
    Attempt::new(39, "records-bytes", "many records byte by byte", P, TLS, |x| drip(x, &records(&hello(&[sni(FORBIDDEN)]), 9))),
    Attempt::new(39, "padded", "another name behind 12 KiB of padding", P, TLS, |x| say(x, &record(&hello(&[(21, vec![0; 12 << 10]), sni(FORBIDDEN)])))),
    Attempt::new(39, "padded-long", "another name behind 40 KiB of padding in records", P, TLS, |x| say(x, &records(&hello(&[(21, vec![0; 40 << 10]), sni(FORBIDDEN)]), 16 << 10))),
    Attempt::new(39, "early", "the handshake before the answer to CONNECT", P, TLS, |x| raw(x, [CONNECT.as_bytes(), &record(&hello(&[sni(FORBIDDEN)]))].concat())),
    Attempt::new(39, "half-granted", "the length ends within a longer name", P, TLS, |x| say(x, &record(&cut_name()))),
    Attempt::new(39, "same-record", "a second hello in the granted one's record", P, TLS, |x| say(x, &record(&[hello(&[sni(GRANTED)]), hello(&[sni(FORBIDDEN)])].concat()))),
    Attempt::new(39, "other-message", "another handshake message before the hello", P, TLS, |x| say(x, &record(&[vec![0, 0, 0, 0], hello(&[sni(FORBIDDEN)])].concat()))),
    Attempt::new(39, "empty-record", "an empty record before the hello", P, TLS, |x| say(x, &[vec![22, 3, 1, 0, 0], record(&hello(&[sni(FORBIDDEN)]))].concat())),
    Attempt::new(39, "sslv2", "a hello in the form of SSL 2", P, TLS, |x| say(x, &[&[0x80, 46, 1, 3, 1, 0, 3, 0, 0, 0, 32, 0, 0, 5][..], &[7; 40], OTHER_SITE].concat())),
    Attempt::new(39, "plain-host", "no TLS, another Host", P, TLS, |x| say(x, OTHER_SITE)),
    Attempt::new(39, "plain-absolute", "no TLS, another host in absolute form", P, TLS, |x| say(x, b"GET http://forbidden.example/ HTTP/1.1\r\nHost: forbidden.example\r\n\r\n")),
    Attempt::new(39, "plain-absolute-host", "no TLS, absolute form granted, Host not", P, TLS, |x| say(x, &filled(x, b"GET http://granted.example:{tls}/ HTTP/1.1\r\nHost: forbidden.example\r\n\r\n")?)),
    Attempt::new(39, "plain-second", "no TLS, the granted host first", P, TLS, |x| say(x, &[filled(x, b"GET / HTTP/1.1\r\nHost: granted.example:{tls}\r\n\r\n")?, OTHER_SITE.to_vec()].concat())),
    Attempt::new(39, "plain-other-protocol", "no TLS and no HTTP", P, TLS, |x| say(x, b"EHLO forbidden.example\r\nQUIT\r\n\r\n")),
    Attempt::new(39, "plain-http2", "HTTP/2 in the clear", P, TLS, |x| say(x, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0forbidden.example")),
    Attempt::new(39, "upgrade", "a granted request that upgrades, and the other host behind it", P, TLS, |x| say(x, &[filled(x, b"GET / HTTP/1.1\r\nHost: granted.example:{tls}\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")?, b"PRI * HTTP/2.0\r\n\r\nforbidden.example".to_vec()].concat())),
    Attempt::new(39, "after-alert", "a TLS alert, then plain text with another Host", P, TLS, |x| say(x, &[&[21, 3, 3, 0, 2, 1, 0][..], OTHER_SITE].concat())),
    Attempt::new(39, "front-plain", "without a tunnel: a granted URL, another Host", P, &["proxy_port!", "tls_port!", "reached!"], |x| raw(x, "GET http://granted.example:{tls}/ HTTP/1.1\r\nHost: forbidden.example\r\n\r\n")),
    Attempt::new(39, "direct-sni-other", "without a proxy: a granted name's address, another name in the handshake", P, DIRECT, |x| say_direct(x, &record(&hello(&[sni(FORBIDDEN)])))),
    Attempt::new(39, "direct-sni-missing", "the same without a name in the handshake", P, DIRECT, |x| say_direct(x, &record(&hello(&[])))),
    Attempt::new(39, "direct-plain-host", "the same without TLS, another Host", P, DIRECT, |x| say_direct(x, OTHER_SITE)),
    Attempt::new(39, "after-hello", "a granted handshake, then an alert and plain text with another Host", P, TLS, |x| say(x, &[&record(&hello(&[sni(GRANTED)]))[..], &[21, 3, 3, 0, 2, 1, 0], OTHER_SITE].concat())),
    Attempt::new(39, "hello-again", "a granted handshake, then a second hello with another name", P, TLS, |x| say(x, &[record(&hello(&[sni(GRANTED)])), record(&hello(&[sni(FORBIDDEN)]))].concat())),
    Attempt::new(39, "inside", "a granted handshake, and another Host within the encryption", P, TLS, |x| say(x, &[&record(&hello(&[sni(GRANTED)]))[..], &[23, 3, 3, 0, OTHER_SITE.len() as u8], OTHER_SITE].concat())),
];

/// One extension.
type Extension = (u16, Vec<u8>);

fn sized16(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// `server_name` (RFC 6066, 3) with these names.
fn sni_list(names: &[&str]) -> Extension {
    let list: Vec<u8> =
        names.iter().flat_map(|name| [vec![0], sized16(name.as_bytes())].concat()).collect();
    (0, sized16(&list))
}

fn sni(name: &str) -> Extension {
    sni_list(&[name])
}

/// A handshake message of that type.
fn message(body: &[u8]) -> Vec<u8> {
    [&[1][..], &(body.len() as u32).to_be_bytes()[1..], body].concat()
}

/// The part of a `ClientHello` before its extensions (RFC 8446, 4.1.2).
fn opening() -> Vec<u8> {
    [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 0x01], &[1, 0]].concat()
}

fn hello(extensions: &[Extension]) -> Vec<u8> {
    let all: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, body)| [kind.to_be_bytes().to_vec(), sized16(body)].concat())
        .collect();
    message(&[opening(), sized16(&all)].concat())
}

fn old_hello() -> Vec<u8> {
    message(&opening())
}

/// The name's own length says `granted.example`; more of it follows.
fn cut_name() -> Vec<u8> {
    let name = [&[0][..], &sized16(GRANTED.as_bytes()), b".forbidden.example"].concat();
    hello(&[(0, sized16(&name))])
}

fn records(message: &[u8], piece: usize) -> Vec<u8> {
    message.chunks(piece).flat_map(|part| [vec![22, 3, 1], sized16(part)].concat()).collect()
}

fn record(message: &[u8]) -> Vec<u8> {
    records(message, 16 << 10)
}

/// A tunnel to the granted name.
fn opened(ctx: &Ctx) -> Result<i32, Outcome> {
    let fd = proxy(ctx, "proxy_port")?;
    let end = Instant::now() + Duration::from_secs(5);
    let ask = filled(ctx, CONNECT.as_bytes())?;
    sys::write_all(fd, &ask, end).map_err(|e| e.0).at("ask the proxy")?;
    let reply = read_to(fd, |b| contains(b, b"\r\n\r\n"));
    if contains(&reply, b" 200 ") {
        return Ok(fd);
    }
    sys::close(fd);
    let shown = String::from_utf8_lossy(&reply).into_owned();
    Err(refused("no-tunnel", format!("the proxy opens no tunnel: {shown}")))
}

fn say(ctx: &Ctx, bytes: &[u8]) -> Attempted {
    judged(ctx, &converse(opened(ctx)?, bytes))
}

fn say_by_socks(ctx: &Ctx, bytes: &[u8]) -> Attempted {
    let fd = proxy(ctx, "proxy_port")?;
    let end = Instant::now() + Duration::from_secs(5);
    let port = crate::net::port(ctx, "tls_port")?.to_be_bytes();
    let name = [&[3, GRANTED.len() as u8], GRANTED.as_bytes()].concat();
    let ask = [&[5, 1, 0, 5, 1, 0][..], &name, &port].concat();
    sys::write_all(fd, &ask, end).map_err(|e| e.0).at("ask the proxy")?;
    let reply = read_to(fd, |b| b.len() >= 12);
    if reply.get(..4) != Some(&[5, 0, 5, 0]) {
        sys::close(fd);
        return Ok(refused("no-tunnel", format!("the proxy opens no tunnel: {reply:?}")));
    }
    judged(ctx, &converse(fd, bytes))
}

/// To the address that the name server gives for the granted name.
fn say_direct(ctx: &Ctx, bytes: &[u8]) -> Attempted {
    direct_at(ctx, resolved(ctx, GRANTED)?, "tls_port", bytes)
}

/// Each byte by itself.
fn drip(ctx: &Ctx, bytes: &[u8]) -> Attempted {
    let fd = opened(ctx)?;
    for byte in bytes {
        let _ = sys::write_all(fd, &[*byte], Instant::now() + Duration::from_secs(5));
        sys::sleep(Duration::from_millis(1));
    }
    judged(ctx, &converse(fd, b""))
}
