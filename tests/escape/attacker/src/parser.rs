//! Attempt 38: destinations and requests that two readers understand differently.
//!
//! 127.0.0.2 is not granted, `*.wild.example` is, and `forbidden.wild.example` (which leads to 127.0.0.2)
//! is forbidden by a rule. A lax reader takes each of these for the forbidden place. Where no reader at
//! all does, the control asks in the ordinary form, and the name of the attempt says so.

use crate::egress::{get, raw, raw_by, socks, socks_raw, tunnel};
use crate::outcome::Attempted;
use crate::table::{Attempt, Control, Ctx};

const P: Control = Control::Params;
const WEB: &[&str] = &["proxy_port!", "web_port!", "reached!"];
const WEB6: &[&str] = &["proxy_port!", "web6_port!", "reached!"];
const BY_HOST: &[&str] = &["proxy_by_host!", "web_port!", "reached!"];
const BY_LENGTH: &[&str] = &["proxy_by_length!", "web_port!", "reached!"];
/// The request that is to arrive at the other service.
const INNER: &str = "GET http://127.0.0.2:{web}/ HTTP/1.1\r\nHost: 127.0.0.2:{web}\r\n\r\n";
const OUTER: &str =
    "POST http://granted.example:{web}/ HTTP/1.1\r\nHost: granted.example:{web}\r\n";

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    // Names.
    Attempt::new(38, "connect-nul", "CONNECT, a NUL before a granted suffix", P, WEB, |x| tunnel(x, "127.0.0.2\0.wild.example:{web}")),
    Attempt::new(38, "get-nul", "GET, a NUL before a granted suffix", P, WEB, |x| get(x, "http://127.0.0.2\0.wild.example:{web}/")),
    Attempt::new(38, "socks-nul", "SOCKS, a NUL before a granted suffix", P, WEB, |x| socks(x, b"127.0.0.2\0.wild.example")),
    Attempt::new(38, "connect-cr", "CONNECT, a bare CR before a granted suffix", P, WEB, |x| tunnel(x, "127.0.0.2\r.wild.example:{web}")),
    Attempt::new(38, "connect-lf", "CONNECT, a bare LF in the target", P, WEB, |x| tunnel(x, "127.0.0.2:{web}\nx.wild.example:{web}")),
    Attempt::new(38, "socks-crlf", "SOCKS, CR and LF before a granted suffix", P, WEB, |x| socks(x, b"127.0.0.2\r\n.wild.example")),
    Attempt::new(38, "connect-tab", "CONNECT, a tab before a granted suffix", P, WEB, |x| tunnel(x, "127.0.0.2:{web}\t.wild.example:{web}")),
    Attempt::new(38, "connect-space", "CONNECT, a space before a granted name", P, WEB, |x| tunnel(x, "127.0.0.2:{web} x.wild.example:{web}")),
    Attempt::new(38, "connect-userinfo", "CONNECT with a granted name as user", P, WEB, |x| tunnel(x, "granted.example:{web}@127.0.0.2:{web}")),
    Attempt::new(38, "get-userinfo", "GET with a granted name as user", P, WEB, |x| get(x, "http://granted.example:{web}@127.0.0.2:{web}/")),
    Attempt::new(38, "get-userinfo-slash", "GET with a percent-encoded slash in the user", P, WEB, |x| get(x, "http://granted.example%2f@127.0.0.2:{web}/")),
    Attempt::new(38, "socks-userinfo", "SOCKS with a granted name as user", P, WEB, |x| socks(x, b"x.wild.example@127.0.0.2")),
    Attempt::new(38, "get-backslash", "GET, a backslash before a granted suffix", P, WEB, |x| get(x, "http://127.0.0.2:{web}\\.wild.example/")),
    Attempt::new(38, "get-fragment", "GET, a fragment that ends like a granted name", P, WEB, |x| get(x, "http://127.0.0.2:{web}#.wild.example:{web}/")),
    Attempt::new(38, "get-query", "GET, a query that ends like a granted name", P, WEB, |x| get(x, "http://127.0.0.2:{web}?.wild.example:{web}/")),
    Attempt::new(38, "connect-dot", "a forbidden name with a dot at its end", P, WEB, |x| tunnel(x, "forbidden.wild.example.:{web}")),
    Attempt::new(38, "connect-dots", "a forbidden name with two dots at its end", P, WEB, |x| tunnel(x, "forbidden.wild.example..:{web}")),
    Attempt::new(38, "address-dot", "an address with a dot at its end", P, WEB, |x| tunnel(x, "127.0.0.2.:{web}")),
    Attempt::new(38, "connect-case", "a forbidden name in other cases", P, WEB, |x| tunnel(x, "FORBIDDEN.wIlD.Example:{web}")),
    Attempt::new(38, "get-case", "GET of a forbidden name in other cases", P, WEB, |x| get(x, "HTTP://Forbidden.WILD.example:{web}/")),
    Attempt::new(38, "socks-case", "SOCKS with a forbidden name in other cases", P, WEB, |x| socks(x, b"ForBidden.wild.eXample.")),
    Attempt::new(38, "idn-fullwidth", "a forbidden name in full-width letters", P, WEB, |x| tunnel(x, "ｆｏｒｂｉｄｄｅｎ.wild.example:{web}")),
    Attempt::new(38, "idn-full-stop", "an address with ideographic full stops", P, WEB, |x| tunnel(x, "127\u{3002}0\u{3002}0\u{3002}2:{web}")),
    Attempt::new(38, "idn-digits", "SOCKS with an address in full-width digits", P, WEB, |x| socks(x, "１２７.0.0.２".as_bytes())),
    Attempt::new(38, "idn-look-alike", "a Cyrillic look-alike of a granted name", P, WEB, |x| tunnel(x, "gr\u{430}nted.example:{web}")),
    Attempt::new(38, "idn-punycode", "the same in its ASCII form", P, WEB, |x| tunnel(x, "xn--grnted-4nf.example:{web}")),
    Attempt::new(38, "idn-latin1", "SOCKS with bytes that are not UTF-8 before a granted suffix", P, WEB, |x| socks(x, b"127.0.0.2\0\xff.wild.example")),
    Attempt::new(38, "percent-dot", "percent-encoded dots", P, WEB, |x| tunnel(x, "127%2e0%2e0%2e2:{web}")),
    Attempt::new(38, "percent-name", "GET of a percent-encoded forbidden name", P, WEB, |x| get(x, "http://%66orbidden.wild.example:{web}/")),
    Attempt::new(38, "percent-nul", "a percent-encoded NUL before a granted suffix", P, WEB, |x| tunnel(x, "127.0.0.2%00.wild.example:{web}")),
    // Addresses.
    Attempt::new(38, "address-plain", "an address that is not granted", P, WEB, |x| tunnel(x, "127.0.0.2:{web}")),
    Attempt::new(38, "address-decimal", "an address as one number", P, WEB, |x| tunnel(x, "2130706434:{web}")),
    Attempt::new(38, "address-octal", "an octal address", P, WEB, |x| tunnel(x, "0177.0.0.2:{web}")),
    Attempt::new(38, "address-hex", "a hexadecimal address", P, WEB, |x| get(x, "http://0x7f000002:{web}/")),
    Attempt::new(38, "address-hex-parts", "a hexadecimal address in parts", P, WEB, |x| tunnel(x, "0x7F.0x0.0.0x2:{web}")),
    Attempt::new(38, "address-short", "a short address", P, WEB, |x| tunnel(x, "127.2:{web}")),
    Attempt::new(38, "address-zeros", "an address with leading zeros", P, WEB, |x| tunnel(x, "127.000.000.002:{web}")),
    Attempt::new(38, "socks-decimal", "SOCKS with an address as one number", P, WEB, |x| socks(x, b"2130706434")),
    Attempt::new(38, "socks-text", "SOCKS with an address as a name", P, WEB, |x| socks(x, b"127.0.0.2")),
    Attempt::new(38, "socks-brackets", "SOCKS with a bracketed address as a name", P, WEB, |x| socks(x, b"[::ffff:127.0.0.2]")),
    Attempt::new(38, "address-mapped", "an IPv4 address mapped into IPv6", P, WEB, |x| tunnel(x, "[::ffff:127.0.0.2]:{web}")),
    Attempt::new(38, "address-mapped-hex", "the same in hexadecimal and in full", P, WEB, |x| get(x, "http://[0:0:0:0:0:FFFF:7f00:0002]:{web}/")),
    Attempt::new(38, "address-compatible", "an IPv4-compatible address", P, WEB, |x| tunnel(x, "[::127.0.0.2]:{web}")),
    Attempt::new(38, "socks-mapped", "SOCKS with an IPv4-mapped address", P, WEB, |x| socks_raw(x, 1, &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 2])),
    Attempt::new(38, "socks-address", "SOCKS with an address", P, WEB, |x| socks_raw(x, 1, &[1, 127, 0, 0, 2])),
    Attempt::new(38, "address-6", "an IPv6 address that is not granted", P, WEB6, |x| tunnel(x, "[::1]:{web6}")),
    Attempt::new(38, "zone", "an IPv6 address with a zone", P, WEB6, |x| tunnel(x, "[::1%lo]:{web6}")),
    Attempt::new(38, "zone-percent", "a zone as URLs have it", P, WEB6, |x| get(x, "http://[::1%25lo]:{web6}/")),
    Attempt::new(38, "zone-suffix", "a zone that ends like a granted name", P, WEB6, |x| tunnel(x, "[::1%.wild.example]:{web6}")),
    Attempt::new(38, "no-brackets", "an IPv6 address without brackets", P, WEB6, |x| tunnel(x, "::1:{web6}")),
    // Ports.
    Attempt::new(38, "port-0", "port 0 (control: the port itself)", P, WEB, |x| tunnel(x, if x.outside() { "127.0.0.2:{web}" } else { "granted.example:0" })),
    Attempt::new(38, "port-wrapped", "a port 65536 too high", P, WEB, |x| tunnel(x, "127.0.0.2:{wrapped}")),
    Attempt::new(38, "port-wrapped-granted", "a port 65536 too high at a granted name (control: the address)", P, WEB, |x| tunnel(x, if x.outside() { "127.0.0.2:{wrapped}" } else { "x.wild.example:{wrapped}" })),
    Attempt::new(38, "port-plus", "a port with a sign", P, WEB, |x| tunnel(x, "127.0.0.2:+{web}")),
    Attempt::new(38, "port-space", "a port behind a space", P, WEB, |x| tunnel(x, "127.0.0.2: {web}")),
    Attempt::new(38, "port-zero", "a port with leading zeros", P, WEB, |x| tunnel(x, "127.0.0.2:00{web}")),
    Attempt::new(38, "port-twice", "two ports", P, WEB, |x| tunnel(x, "127.0.0.2:{web}:{web}")),
    // Requests.
    Attempt::new(38, "absolute-host", "absolute form granted, Host not", P, BY_HOST, |x| raw_by(x, "proxy_by_host", "GET http://granted.example:{web}/ HTTP/1.1\r\nHost: 127.0.0.2:{web}\r\n\r\n")),
    Attempt::new(38, "host-absolute", "Host granted, absolute form not", P, WEB, |x| raw(x, "GET http://127.0.0.2:{web}/ HTTP/1.1\r\nHost: granted.example:{web}\r\n\r\n")),
    Attempt::new(38, "host-twice", "Host twice", P, BY_HOST, |x| raw_by(x, "proxy_by_host", "GET http://granted.example:{web}/ HTTP/1.1\r\nHost: granted.example:{web}\r\nHost: 127.0.0.2:{web}\r\n\r\n")),
    Attempt::new(38, "host-folded", "Host in a folded line", P, BY_HOST, |x| raw_by(x, "proxy_by_host", "GET http://granted.example:{web}/ HTTP/1.1\r\nX: y\r\n Host: 127.0.0.2:{web}\r\n\r\n")),
    Attempt::new(38, "host-space", "space before the colon of Host", P, BY_HOST, |x| raw_by(x, "proxy_by_host", "GET http://granted.example:{web}/ HTTP/1.1\r\nHost: granted.example:{web}\r\nHost : 127.0.0.2:{web}\r\n\r\n")),
    Attempt::new(38, "host-cr", "Host behind a bare CR", P, BY_HOST, |x| raw_by(x, "proxy_by_host", "GET http://granted.example:{web}/ HTTP/1.1\r\nHost: granted.example:{web}\r\nX: y\rHost: 127.0.0.2:{web}\r\n\r\n")),
    Attempt::new(38, "host-userinfo", "Host with a granted name as user", P, BY_HOST, |x| raw_by(x, "proxy_by_host", "GET http://granted.example:{web}/ HTTP/1.1\r\nHost: granted.example:{web}@127.0.0.2:{web}\r\n\r\n")),
    Attempt::new(38, "connect-host", "CONNECT granted, Host not", P, BY_HOST, |x| raw_by(x, "proxy_by_host", "CONNECT granted.example:{web} HTTP/1.1\r\nHost: 127.0.0.2:{web}\r\n\r\nGET / HTTP/1.0\r\n\r\n")),
    Attempt::new(38, "origin-form", "origin form with Host only, as to a transparent proxy", P, WEB, |x| raw(x, "GET / HTTP/1.1\r\nHost: 127.0.0.2:{web}\r\n\r\n")),
    Attempt::new(38, "scheme-relative", "a target without a scheme", P, WEB, |x| raw(x, "GET //127.0.0.2:{web}/ HTTP/1.1\r\nHost: granted.example:{web}\r\n\r\n")),
    Attempt::new(38, "scheme-other", "a scheme that is not HTTP", P, WEB, |x| get(x, "gopher://127.0.0.2:{web}/_x")),
    Attempt::new(38, "connect-url", "CONNECT with a URL", P, WEB, |x| tunnel(x, "http://127.0.0.2:{web}")),
    Attempt::new(38, "connect-lower", "connect in lower case", P, WEB, |x| raw(x, "connect 127.0.0.2:{web} HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n")),
    Attempt::new(38, "http-0.9", "a request without version", P, WEB, |x| raw(x, "GET http://127.0.0.2:{web}/\r\n\r\n")),
    Attempt::new(38, "lf-only", "a request with LF line ends", P, WEB, |x| raw(x, "GET http://127.0.0.2:{web}/ HTTP/1.1\nHost: granted.example:{web}\n\n")),
    Attempt::new(38, "leading-line", "an empty line before the request", P, WEB, |x| raw(x, &["\r\n", INNER].concat())),
    // A second request that one reader sees and another does not.
    Attempt::new(38, "pipelined", "a second request to another place behind a granted one", P, WEB, |x| raw(x, &["GET http://granted.example:{web}/ HTTP/1.1\r\nHost: granted.example:{web}\r\n\r\n", INNER].concat())),
    Attempt::new(38, "pipelined-tunnel", "the same within a tunnel (control: the second request alone)", P, WEB, |x| raw(x, &[if x.outside() { "" } else { "CONNECT granted.example:{web} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: granted.example:{web}\r\n\r\n" }, INNER].concat())),
    Attempt::new(38, "cl-te", "Content-Length that covers the second request, chunked that does not", P, WEB, |x| smuggle(x, "proxy_port", "Content-Length: 400\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
    Attempt::new(38, "cl-te-get", "the same with GET", P, WEB, |x| raw(x, &["GET http://granted.example:{web}/ HTTP/1.1\r\nHost: granted.example:{web}\r\nContent-Length: 400\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", INNER].concat())),
    Attempt::new(38, "te-cl", "chunked that covers the second request, Content-Length that does not", P, BY_LENGTH, |x| smuggle(x, "proxy_by_length", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n80\r\n")),
    Attempt::new(38, "cl-cl", "two lengths", P, BY_LENGTH, |x| smuggle(x, "proxy_by_length", "Content-Length: 0\r\nContent-Length: 400\r\n\r\n")),
    Attempt::new(38, "cl-list", "two lengths in one field", P, BY_LENGTH, |x| smuggle(x, "proxy_by_length", "Content-Length: 0, 400\r\n\r\n")),
    Attempt::new(38, "cl-plus", "a length with a sign", P, BY_LENGTH, |x| smuggle(x, "proxy_by_length", "Content-Length: +0\r\n\r\n")),
    Attempt::new(38, "cl-overflow", "a length beyond 64 bits, which wraps to 0", P, BY_LENGTH, |x| smuggle(x, "proxy_by_length", "Content-Length: 18446744073709551616\r\n\r\n")),
    Attempt::new(38, "te-folded", "chunked in a folded line", P, WEB, |x| smuggle(x, "proxy_port", "Content-Length: 400\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n")),
    Attempt::new(38, "te-space", "space before the colon of Transfer-Encoding", P, WEB, |x| smuggle(x, "proxy_port", "Content-Length: 400\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n")),
    Attempt::new(38, "te-tab", "a control character before chunked", P, WEB, |x| smuggle(x, "proxy_port", "Content-Length: 400\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n")),
    Attempt::new(38, "te-other", "a coding that only looks like chunked", P, WEB, |x| smuggle(x, "proxy_port", "Content-Length: 400\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
    Attempt::new(38, "te-list", "chunked before another coding", P, WEB, |x| smuggle(x, "proxy_port", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n")),
    Attempt::new(38, "te-1.0", "chunked in HTTP/1.0", P, WEB, |x| raw(x, &["POST http://granted.example:{web}/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", INNER].concat())),
    Attempt::new(38, "chunk-extension", "a bare LF in a chunk's extension", P, WEB, |x| smuggle(x, "proxy_port", "Transfer-Encoding: chunked\r\n\r\n1;a\nX\r\n0\r\n\r\n")),
    Attempt::new(38, "chunk-size", "a chunk size beyond 64 bits, which wraps to 0", P, WEB, |x| smuggle(x, "proxy_port", "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n")),
    Attempt::new(38, "chunk-hex", "a chunk size with a prefix", P, WEB, |x| smuggle(x, "proxy_port", "Transfer-Encoding: chunked\r\n\r\n0x80\r\n\r\n")),
    Attempt::new(38, "chunk-negative", "a negative chunk size", P, WEB, |x| smuggle(x, "proxy_port", "Transfer-Encoding: chunked\r\n\r\n-80\r\n\r\n")),
    Attempt::new(38, "chunk-trailer", "the second request as trailers", P, WEB, |x| smuggle(x, "proxy_port", "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\n")),
];

/// A granted request with this framing, and behind it the one to the other place.
fn smuggle(ctx: &Ctx, proxy: &str, framing: &str) -> Attempted {
    raw_by(ctx, proxy, [OUTER, framing, INNER].concat())
}
