//! The attempts of people who got out of other sandboxes by the network, each with what is allowed
//! beside what is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    net::Ipv4Addr,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use common::*;
use palisade_egress::{AddressPolicy, Authority, EgressError, Guard, proxy::Limits};
use palisade_model::Kind;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

fn strict() -> Guard {
    Guard::new(AddressPolicy::new())
}

async fn guard_says(guard: &Guard, rights: &Rights, to: &str) -> Result<(), EgressError> {
    let authority = Authority::parse(to).unwrap();
    guard.connect(rights, Kind::NetTcp, &authority).await.map(|_| ())
}

// ---- the machine, its network, its cloud -------------------------------------------------------------

#[tokio::test]
async fn the_machine_and_its_networks_are_out_of_reach_of_a_right_to_everything() {
    let (port, count) = echo_server().await;
    let all = rights(&["net.tcp:*:*"]);
    for host in [
        "127.0.0.1",
        "127.1.2.3",
        "localhost",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[::127.0.0.1]",
        "169.254.169.254",
        "[::ffff:a9fe:a9fe]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "10.0.0.1",
        "192.168.0.1",
        "172.16.0.1",
        "100.64.0.1",
        "[fd00::1]",
        "[2002:7f00:1::]",
        "224.0.0.1",
        "255.255.255.255",
    ] {
        let refused = guard_says(&strict(), &all, &format!("{host}:{port}")).await;
        assert!(matches!(refused, Err(EgressError::AddressRefused { .. })), "{host}: {refused:?}");
    }
    assert_eq!(settled(&count).await, 0, "somebody connected");
    assert_eq!(all.recorded("deny net.tcp:"), 21);
}

#[tokio::test]
async fn an_address_that_a_right_names_is_reached_and_only_that_one() {
    let (port, count) = echo_server().await;
    let (other, others) = echo_server().await;
    for right in [
        format!("net.tcp:127.0.0.1:{port}"),
        "net.tcp:127.0.0.1:*".into(),
        format!("net.tcp:[::ffff:7f00:1]:{port}"),
    ] {
        let named = rights(&[&right]);
        guard_says(&strict(), &named, &format!("127.0.0.1:{port}")).await.expect(&right);
        assert!(
            named.recorded(&format!("allow net.tcp:127.0.0.1:{port} at 127.0.0.1:{port}")) == 1
        );
    }
    assert_eq!(settled(&count).await, 3);
    let named = rights(&[&format!("net.tcp:127.0.0.1:{port}"), "net.tcp:*:*"]);
    assert!(guard_says(&strict(), &named, &format!("127.0.0.1:{other}")).await.is_err());
    assert!(guard_says(&strict(), &named, &format!("127.0.0.2:{port}")).await.is_err());
    assert_eq!(settled(&others).await, 0);
    // `localhost` named is the loopback named, and is not looked up.
    let named = rights(&[&format!("net.tcp:localhost:{port}")]);
    let names = Arc::new(Names::default().with("localhost", &[&["10.0.0.1"]]));
    let guard = Guard::with_resolver(AddressPolicy::new(), names.clone());
    guard_says(&guard, &named, &format!("LocalHost.:{port}")).await.unwrap();
    assert_eq!(names.lookups.load(SeqCst), 0);
    // The operator's word reaches every plugin with a right.
    let allowed = Guard::new(AddressPolicy::new().allow("127.0.0.0/8".parse().unwrap()));
    guard_says(&allowed, &rights(&["net.tcp:*:*"]), &format!("127.0.0.1:{other}")).await.unwrap();
    assert!(guard_says(&allowed, &rights(&[]), &format!("127.0.0.1:{other}")).await.is_err());
    // What a rule forbids stays forbidden, also where a name leads there.
    let forbidden = rights_without(&["net.tcp:*:*"], &[&format!("net.tcp:127.0.0.1:{other}")]);
    let names = Names::default().with("a.example", &[&["127.0.0.1"]]);
    let guard = Guard::with_resolver(
        AddressPolicy::new().allow("127.0.0.0/8".parse().unwrap()),
        Arc::new(names),
    );
    assert!(guard_says(&guard, &forbidden, &format!("a.example:{other}")).await.is_err());
    guard_says(&guard, &forbidden, &format!("a.example:{port}")).await.unwrap();
}

#[tokio::test]
async fn an_empty_list_of_rights_allows_nothing() {
    let (port, count) = echo_server().await;
    let none = rights(&[]);
    let proxy = proxy(guard_for(&["a.example"]), none.clone(), Limits::default()).await;
    let to = format!("a.example:{port}");
    assert!(connect(proxy, &to).await.unwrap_err().starts_with("HTTP/1.1 403 "));
    assert_eq!(socks(proxy, b"a.example", port).await.unwrap_err(), 2);
    let answer =
        talk(proxy, format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 403 ") && answer.contains("X-Palisade-Error: PAL-DENIED"),
        "{answer}"
    );
    assert_eq!(settled(&count).await, 0);
    assert_eq!(none.recorded("deny net.http:"), 3);
}

// ---- names ------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_name_that_turns_to_a_private_address_is_refused_then() {
    let (port, count) = echo_server().await;
    let right = rights(&["net.tcp:a.example:*"]);
    let names = Arc::new(
        Names::default()
            .with("a.example", &[&["127.0.0.1"], &["10.0.0.1"], &["127.0.0.1", "10.0.0.1"]]),
    );
    let policy = AddressPolicy::new().allow("127.0.0.1/32".parse().unwrap());
    let guard = Guard::with_resolver(policy, names.clone());
    let to = format!("a.example:{port}");
    guard_says(&guard, &right, &to).await.unwrap();
    assert_eq!(names.lookups.load(SeqCst), 1, "one lookup a connection, so that none can differ");
    for why in ["it turned to a private address", "one of two addresses is private"] {
        let refused = guard_says(&guard, &right, &to).await;
        assert!(matches!(refused, Err(EgressError::AddressRefused { .. })), "{why}: {refused:?}");
    }
    assert_eq!(settled(&count).await, 1);
}

#[tokio::test]
async fn a_name_without_a_right_is_not_even_looked_up() {
    let names = Arc::new(Names::default().with("a.example", &[&["127.0.0.1"]]));
    let guard = Guard::with_resolver(AddressPolicy::new(), names.clone());
    let right = rights(&["net.tcp:a.example:*", "net.http:*.a.example:443"]);
    let proxy = proxy(guard, right, Limits::default()).await;
    for name in [
        "secret-bytes.evil.example",
        "x.a.example.evil.example",
        "a.example.evil.example",
        "xa.example",
    ] {
        assert!(connect(proxy, &format!("{name}:443")).await.is_err(), "{name}");
        assert_eq!(socks(proxy, name.as_bytes(), 443).await.unwrap_err(), 2, "{name}");
    }
    assert_eq!(names.lookups.load(SeqCst), 0, "a name left the machine");
    // The positive control is looked up, and refused for where it leads.
    assert!(connect(proxy, "a.example:443").await.is_err());
    assert_eq!(names.lookups.load(SeqCst), 1);
}

/// Answers for everything but `slow.`, which it leaves without an answer.
struct Slow;

impl palisade_egress::Resolve for Slow {
    fn resolve<'a>(
        &'a self,
        name: &'a str,
    ) -> palisade_egress::BoxFuture<'a, std::io::Result<Vec<std::net::IpAddr>>> {
        Box::pin(async move {
            if name.starts_with("slow.") {
                std::future::pending::<()>().await;
            }
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        })
    }
}

#[tokio::test]
async fn a_plugin_with_slow_names_delays_itself_and_nobody_else() {
    let (port, _) = echo_server().await;
    let policy = AddressPolicy::new().allow("127.0.0.1/32".parse().unwrap());
    let guard = Guard::with_resolver(policy, Arc::new(Slow));
    let right = rights(&["net.tcp:*:*"]);
    for _ in 0..8 {
        let (guard, right) = (guard.clone(), right.clone());
        tokio::spawn(async move { guard_says(&guard, &right, "slow.example:1").await });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let quick = format!("quick.example:{port}");
    let soon = |guard: Guard| {
        let (right, quick) = (right.clone(), quick.clone());
        async move {
            tokio::time::timeout(Duration::from_millis(500), guard_says(&guard, &right, &quick))
                .await
        }
    };
    assert!(soon(guard.clone()).await.is_err(), "more lookups at one time than there may be");
    soon(guard.for_plugin()).await.expect("a queue of its own").unwrap();
}

// ---- the proxy's parsers -----------------------------------------------------------------------------

#[tokio::test]
async fn hosts_that_could_be_read_in_two_ways_are_refused() {
    let (port, count) = echo_server().await;
    let right = rights(&["net.tcp:*.a.example:*", "net.tcp:a.example:*"]);
    let proxy = proxy(guard_for(&["a.example", "b.a.example"]), right, Limits::default()).await;
    for good in ["a.example", "A.EXAMPLE", "a.example.", "b.a.example"] {
        let mut tunnel = socks(proxy, good.as_bytes(), port).await.expect(good);
        assert!(echoes(&mut tunnel).await, "{good}");
        let mut tunnel = connect(proxy, &format!("{good}:{port}")).await.expect(good);
        assert!(echoes(&mut tunnel).await, "{good}");
    }
    let reached = settled(&count).await;
    for bad in [
        "127.0.0.1\0.a.example",
        "evil.example\0.a.example",
        "a.example\0",
        "x\r\n.a.example",
        "user@a.example",
        "a.example@evil.example",
        "a.example..",
        "bücher.a.example",
        "a%2eexample",
        "evil.example#.a.example",
        "evil.example/.a.example",
        "evil.example?.a.example",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "",
        ".a.example",
        "*.a.example",
    ] {
        assert!(socks(proxy, bad.as_bytes(), port).await.is_err(), "SOCKS took {bad:?}");
        if !bad.contains(['\r', '\0']) {
            assert!(
                connect(proxy, &format!("{bad}:{port}")).await.is_err(),
                "CONNECT took {bad:?}"
            );
        }
        let plain = format!("GET http://{bad}:{port}/ HTTP/1.1\r\nHost: a.example:{port}\r\n\r\n");
        let answer = talk(proxy, plain.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "plain took {bad:?}: {answer}");
    }
    assert_eq!(settled(&count).await, reached, "somebody connected");
}

#[tokio::test]
async fn a_request_with_two_meanings_reaches_nobody() {
    let (port, heads) = web_server(|_| ok("hello")).await;
    let right = rights(&["net.http:a.example:*", "net.http:b.example:*"]);
    let proxy = proxy(guard_for(&["a.example", "b.example"]), right, Limits::default()).await;
    let a = format!("a.example:{port}");
    let good = format!(
        "POST http://{a}/x HTTP/1.1\r\nHost: {a}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    );
    assert!(talk(proxy, good.as_bytes()).await.ends_with("hello"));
    assert_eq!(heads.lock().unwrap().len(), 1);
    for (why, request) in [
        (
            "two hosts",
            format!("GET http://{a}/ HTTP/1.1\r\nHost: {a}\r\nHost: b.example:{port}\r\n\r\n"),
        ),
        ("another host", format!("GET http://{a}/ HTTP/1.1\r\nHost: b.example:{port}\r\n\r\n")),
        ("another port", format!("GET http://{a}/ HTTP/1.1\r\nHost: a.example\r\n\r\n")),
        ("no host", format!("GET http://{a}/ HTTP/1.1\r\n\r\n")),
        ("a path", format!("GET / HTTP/1.1\r\nHost: {a}\r\n\r\n")),
        ("https in the clear", format!("GET https://{a}/ HTTP/1.1\r\nHost: {a}\r\n\r\n")),
        ("a user", format!("GET http://x@{a}/ HTTP/1.1\r\nHost: {a}\r\n\r\n")),
        (
            "two lengths",
            format!(
                "POST http://{a}/ HTTP/1.1\r\nHost: {a}\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi"
            ),
        ),
        (
            "length and chunks",
            format!(
                "POST http://{a}/ HTTP/1.1\r\nHost: {a}\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "a strange coding",
            format!(
                "POST http://{a}/ HTTP/1.1\r\nHost: {a}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        ("a folded line", format!("GET http://{a}/ HTTP/1.1\r\nHost: {a}\r\nX: a\r\n b\r\n\r\n")),
        ("a bare LF", format!("GET http://{a}/ HTTP/1.1\nHost: {a}\n\n")),
        ("a bare CR", format!("GET http://{a}/ HTTP/1.1\r\nHost: {a}\rX: b\r\n\r\n")),
        ("a space before the colon", format!("GET http://{a}/ HTTP/1.1\r\nHost : {a}\r\n\r\n")),
        ("a NUL", format!("GET http://{a}/ HTTP/1.1\r\nHost: {a}\r\nX: \0\r\n\r\n")),
        ("TRACE", format!("TRACE http://{a}/ HTTP/1.1\r\nHost: {a}\r\n\r\n")),
        (
            "CONNECT with a body",
            format!("CONNECT {a} HTTP/1.1\r\nHost: {a}\r\nContent-Length: 3\r\n\r\nabc"),
        ),
        (
            "CONNECT with another host",
            format!("CONNECT {a} HTTP/1.1\r\nHost: b.example:{port}\r\n\r\n"),
        ),
        ("CONNECT to a URL", format!("CONNECT http://{a}/ HTTP/1.1\r\nHost: {a}\r\n\r\n")),
        ("CONNECT without a port", "CONNECT a.example HTTP/1.1\r\nHost: a.example\r\n\r\n".into()),
    ] {
        let answer = talk(proxy, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{why}: {answer}");
    }
    assert_eq!(heads.lock().unwrap().len(), 1, "a server was reached");
}

#[tokio::test]
async fn a_request_smuggled_in_a_body_stays_a_body() {
    let (port, heads) = web_server(|_| ok("hello")).await;
    let right = rights(&["net.http:a.example:*"]);
    let proxy =
        proxy(guard_for(&["a.example", "b.example"]), right.clone(), Limits::default()).await;
    let a = format!("a.example:{port}");
    let hidden = format!("GET http://b.example:{port}/ HTTP/1.1\r\nHost: b.example:{port}\r\n\r\n");
    let request = format!(
        "POST http://{a}/ HTTP/1.1\r\nHost: {a}\r\nConnection: close, Content-Length, Host\r\nContent-Length: {}\r\n\r\n{hidden}",
        hidden.len()
    );
    assert!(talk(proxy, request.as_bytes()).await.ends_with("hello"));
    let heads = heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 1);
    // The fields that bound and address the message are ours, whatever `Connection` names.
    assert!(heads[0].contains(&format!("Content-Length: {}\r\n", hidden.len())), "{}", heads[0]);
    assert!(heads[0].contains(&format!("Host: {a}\r\n")), "{}", heads[0]);
    // As the second request of one connection it is decided like any other.
    let request = format!("GET http://{a}/ HTTP/1.1\r\nHost: {a}\r\n\r\n{hidden}");
    let answer = talk(proxy, request.as_bytes()).await;
    assert!(answer.contains("hello") && answer.contains("HTTP/1.1 403 "), "{answer}");
    assert_eq!(right.recorded(&format!("deny net.http:b.example:{port}")), 1);
}

// ---- fronting ----------------------------------------------------------------------------------------

/// A `ClientHello` of a real TLS library.
fn client_hello(name: &str) -> Vec<u8> {
    use tokio_rustls::rustls;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

/// Whether what is sent first into a tunnel comes back from the server.
async fn passes(mut tunnel: TcpStream, first: &[u8], piece: usize) -> bool {
    for part in first.chunks(piece) {
        if tunnel.write_all(part).await.is_err() {
            return false;
        }
    }
    let mut back = vec![0; first.len()];
    tunnel.read_exact(&mut back).await.is_ok() && back == first
}

#[tokio::test]
async fn the_name_in_the_handshake_must_be_the_one_that_was_asked_for() {
    let (port, _) = echo_server().await;
    let right = rights(&[
        "net.http:a.example:*",
        "net.http:b.example:*",
        &format!("net.http:127.0.0.1:{port}"),
    ]);
    let proxy =
        proxy(guard_for(&["a.example", "b.example"]), right.clone(), Limits::default()).await;
    let to = format!("a.example:{port}");
    let tunnel = || async { connect(proxy, &to).await.unwrap() };
    // What a real library says passes whole and byte by byte, and by SOCKS.
    assert!(passes(tunnel().await, &client_hello("a.example"), 4096).await);
    assert!(passes(tunnel().await, &client_hello("a.example"), 1).await);
    let by_socks = socks(proxy, b"a.example", port).await.unwrap();
    assert!(passes(by_socks, &client_hello("a.example"), 100).await);
    for (why, hello) in [
        ("another name, granted too", client_hello("b.example")),
        ("another name", client_hello("evil.example")),
        ("no name", client_hello("127.0.0.1")),
        ("no TLS and no HTTP", b"\x16SSH-2.0-x\r\n".to_vec()),
    ] {
        let mut tunnel = tunnel().await;
        tunnel.write_all(&hello).await.unwrap();
        let mut back = Vec::new();
        let _ = tunnel.read_to_end(&mut back).await;
        assert_eq!(back, palisade_egress::proxy::hello::UNRECOGNIZED_NAME, "{why}");
    }
    assert_eq!(right.recorded(&format!("deny net.http:{to}")), 4);
    // By address there is no name to compare; one that stands there must be granted.
    let address = || async { connect(proxy, &format!("127.0.0.1:{port}")).await.unwrap() };
    assert!(passes(address().await, &client_hello("127.0.0.1"), 4096).await);
    assert!(passes(address().await, &client_hello("a.example"), 4096).await);
    assert!(!passes(address().await, &client_hello("evil.example"), 4096).await);
}

#[tokio::test]
async fn in_a_tunnel_for_http_only_requests_for_its_host_pass() {
    let (port, heads) = web_server(|_| ok("hello")).await;
    let right = rights(&["net.http:a.example:*", "net.http:b.example:*"]);
    let proxy = proxy(guard_for(&["a.example", "b.example"]), right, Limits::default()).await;
    let (a, b) = (format!("a.example:{port}"), format!("b.example:{port}"));
    let through = |request: String| {
        let a = a.clone();
        async move {
            let mut tunnel = connect(proxy, &a).await.unwrap();
            tunnel.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _ = tunnel.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        }
    };
    let good = format!("GET /x HTTP/1.1\r\nHost: {a}\r\nConnection: close\r\n\r\n");
    assert!(through(good).await.ends_with("hello"));
    assert!(heads.lock().unwrap()[0].starts_with("GET /x HTTP/1.1\r\n"));
    for request in [
        format!("GET /x HTTP/1.1\r\nHost: {b}\r\n\r\n"),
        format!("GET http://{b}/x HTTP/1.1\r\nHost: {b}\r\n\r\n"),
        format!("CONNECT {b} HTTP/1.1\r\nHost: {b}\r\n\r\n"),
        "SSH-2.0-x\r\n\r\n".into(),
    ] {
        let answer = through(request.clone()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request}: {answer}");
    }
    // The tunnels were made, and nothing was said in them.
    let said = heads.lock().unwrap().iter().filter(|head| !head.is_empty()).count();
    assert_eq!(said, 1);
}

#[tokio::test]
async fn a_right_that_names_the_address_counts_beside_one_that_does_not() {
    let (port, _) = web_server(|_| ok("hello")).await;
    let (other, others) = web_server(|_| ok("hello")).await;
    let right = rights(&["net.tcp:*:*", &format!("net.http:127.0.0.1:{port}")]);
    let proxy = proxy(Guard::new(AddressPolicy::new()), right, Limits::default()).await;
    let to = format!("127.0.0.1:{port}");
    let mut tunnel = connect(proxy, &to).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    tunnel.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tunnel.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    // It is a right to HTTP, not to any bytes.
    let tunnel = connect(proxy, &to).await.unwrap();
    assert!(!passes(tunnel, b"SSH-2.0-x\r\n\r\n", 100).await);
    assert!(
        connect(proxy, &format!("127.0.0.1:{other}"))
            .await
            .unwrap_err()
            .starts_with("HTTP/1.1 403 ")
    );
    assert_eq!(others.lock().unwrap().len(), 0);
}

/// Port 443 cannot be had by every user, so that only what is refused before any server is shown here,
/// and what passes where it can.
#[tokio::test]
async fn to_port_443_nothing_passes_in_the_clear() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::new(127, 0, 0, 43), 443)).await;
    let Ok(listener) = listener else {
        assert_ne!(rustix_uid(), 0, "root can have port 443");
        return;
    };
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let names = Names::default().with("a.example", &[&["127.0.0.43"]]);
    let policy = AddressPolicy::new().allow("127.0.0.43/32".parse().unwrap());
    let guard = Guard::with_resolver(policy, Arc::new(names));
    for right in ["net.http:a.example:443", "net.tcp:a.example:443"] {
        let proxy = proxy(guard.clone(), rights(&[right]), Limits::default()).await;
        let tunnel = || async { connect(proxy, "a.example:443").await.unwrap() };
        assert!(passes(tunnel().await, &client_hello("a.example"), 4096).await, "{right}");
        assert!(!passes(tunnel().await, &client_hello("b.example"), 4096).await, "{right}");
        let clear = b"GET / HTTP/1.1\r\nHost: a.example:443\r\n\r\n";
        assert!(!passes(tunnel().await, clear, 4096).await, "{right}");
        let socks = socks(proxy, b"a.example", 443).await.unwrap();
        assert!(!passes(socks, clear, 4096).await, "{right}");
    }
}

fn rustix_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

// ---- the way round, and the neighbour's way ------------------------------------------------------------

/// The rights belong to the listener. That nothing else can be reached from inside is shown where the
/// walls are (`tests/escape`); here: what speaks plain SOCKS without any variable gets no more.
#[tokio::test]
async fn a_raw_client_gets_what_the_listener_has_and_no_more() {
    let (port, _) = echo_server().await;
    let right = rights(&[&format!("net.tcp:a.example:{port}")]);
    let proxy = proxy(guard_for(&["a.example", "b.example"]), right, Limits::default()).await;
    let mut tunnel = socks(proxy, b"a.example", port).await.unwrap();
    assert!(echoes(&mut tunnel).await);
    assert_eq!(socks(proxy, b"b.example", port).await.unwrap_err(), 2);
    let v4 = [1, 127, 0, 0, 1];
    assert_eq!(socks_raw(proxy, 1, &v4, port).await.unwrap_err(), 2);
    let mut mapped = vec![4];
    mapped.extend(Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets());
    assert_eq!(socks_raw(proxy, 1, &mapped, port).await.unwrap_err(), 2);
    for command in [2, 3, 0, 9] {
        assert_eq!(socks_raw(proxy, command, &v4, port).await.unwrap_err(), 7);
    }
    assert_eq!(talk(proxy, &[4, 1, 0, 80, 127, 0, 0, 1, 0]).await, "", "SOCKS 4");
    assert_eq!(talk(proxy, &[5, 1, 2]).await, "\u{5}\u{fffd}", "SOCKS with a password");
}

#[tokio::test]
async fn each_listener_has_the_rights_of_its_plugin() {
    let (port, _) = echo_server().await;
    let guard = guard_for(&["a.example", "b.example"]);
    let a = proxy(guard.clone(), rights(&["net.tcp:a.example:*"]), Limits::default()).await;
    let b = proxy(guard, rights(&["net.tcp:b.example:*"]), Limits::default()).await;
    for (at, own, others) in [(a, b"a.example", b"b.example"), (b, b"b.example", b"a.example")] {
        assert!(echoes(&mut socks(at, own, port).await.unwrap()).await);
        assert_eq!(socks(at, others, port).await.unwrap_err(), 2);
    }
}
