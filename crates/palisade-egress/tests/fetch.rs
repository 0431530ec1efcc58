//! Requests that the host makes: redirects, TLS, bounds, and what a server may not do with them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    io::Write as _,
    pin::Pin,
    sync::{Arc, atomic::Ordering::SeqCst},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use common::*;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, Method, header};
use http_body_util::{BodyExt as _, Full};
use palisade_egress::{
    AddressPolicy, EgressError, Guard, Target,
    http::{Caps, Client, Request, Tls, USER_AGENT},
};
use palisade_model::{ErrorCode, Failure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};
use tokio_rustls::rustls;

const NAMES: &[&str] = &["a.example", "b.example"];

fn client() -> Client {
    Client::new(guard_for(NAMES), Tls::new().unwrap())
}

fn target(url: &str) -> Target {
    Target::parse(url).unwrap()
}

async fn get(rights: &Rights, url: &str) -> Result<palisade_egress::http::Response, EgressError> {
    client().fetch(rights, Request::get(target(url)), &Caps::default()).await
}

fn to(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

fn path(head: &str) -> String {
    head.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_granted_request_is_answered_and_recorded() {
    let (port, heads) = web_server(|_| ok("hello")).await;
    let right = rights(&[&format!("net.http:a.example:{port}")]);
    let answer = get(&right, &format!("http://a.example:{port}/x?y")).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"hello"[..]));
    let head = heads.lock().unwrap()[0].clone();
    assert!(head.starts_with("GET /x?y HTTP/1.1\r\n"), "{head}");
    for field in [
        &format!("host: a.example:{port}\r\n"),
        "accept-encoding: gzip, br\r\n",
        &format!("user-agent: {USER_AGENT}\r\n"),
    ] {
        assert!(head.contains(field), "{field} in {head}");
    }
    assert_eq!(right.recorded(&format!("allow net.http:a.example:{port} at 127.0.0.1:{port}")), 1);
    let refused = get(&right, &format!("http://b.example:{port}/")).await.unwrap_err();
    assert_eq!(Failure::from(refused).code, ErrorCode::Denied);
    let raw = rights(&[&format!("net.tcp:a.example:{port}")]);
    assert!(
        get(&raw, &format!("http://a.example:{port}/")).await.is_err(),
        "net.tcp is not net.http"
    );
    assert_eq!(heads.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_hosts_own_proxy_is_not_used() {
    // A proxy that nobody may come to. The variables are set for a process of their own.
    if std::env::var_os("PALISADE_TEST_PROXIED").is_none() {
        let (port, count) = echo_server().await;
        let url = format!("http://127.0.0.1:{port}");
        let run = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_hosts_own_proxy_is_not_used"])
            .env("PALISADE_TEST_PROXIED", "1")
            .envs(["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"].map(|name| (name, &url)))
            .env_remove("NO_PROXY")
            .output()
            .await
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
        assert_eq!(settled(&count).await, 0);
        return;
    }
    let (port, _) = web_server(|_| ok("direct")).await;
    let right = rights(&["net.http:a.example:*"]);
    let answer = get(&right, &format!("http://a.example:{port}/")).await.unwrap();
    assert_eq!(&answer.body[..], b"direct");
}

// ---- redirects -----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_redirect_is_decided_like_a_request() {
    let (port, heads) = web_server(move |head| match path(head).as_str() {
        "/same" => to("/end"),
        "/relative" => to("end?x"),
        "/other" => to(&format!(
            "http://b.example:{}/end",
            head.rsplit_once("X-Port: ").map_or("1", |(_, p)| p.trim())
        )),
        "/metadata" => to("http://169.254.169.254/latest/meta-data"),
        "/file" => to("file:///etc/passwd"),
        "/user" => to("//user@a.example/"),
        "/loop" => to("/loop"),
        "/two" => {
            b"HTTP/1.1 302 x\r\nLocation: /end\r\nLocation: /same\r\nContent-Length: 0\r\n\r\n"
                .to_vec()
        }
        _ => ok("end"),
    })
    .await;
    let a = format!("http://a.example:{port}");
    let right = rights(&["net.http:a.example:*", "net.http:*:80"]);
    let same = get(&right, &format!("{a}/same")).await.unwrap();
    assert_eq!(
        (&same.body[..], same.redirects, same.target.to_string()),
        (&b"end"[..], 1, format!("{a}/end"))
    );
    assert_eq!(get(&right, &format!("{a}/relative")).await.unwrap().target.path(), "/end?x");
    assert_eq!(right.recorded("allow net.http:a.example"), 4, "each hop is recorded");
    for (from, code) in [
        ("/metadata", ErrorCode::Denied),
        ("/file", ErrorCode::Denied),
        ("/user", ErrorCode::Denied),
        ("/loop", ErrorCode::Denied),
        ("/two", ErrorCode::Denied),
    ] {
        let refused = get(&right, &format!("{a}{from}")).await.unwrap_err();
        assert_eq!(refused.code(), code, "{from}: {refused}");
    }
    assert_eq!(right.recorded("deny net.http:169.254.169.254:80"), 1);
    // To a host without a right.
    let mut request = Request::get(target(&format!("{a}/other")));
    request.headers.insert("x-port", HeaderValue::from_str(&port.to_string()).unwrap());
    let before = heads.lock().unwrap().len();
    let refused = client().fetch(&*right, request, &Caps::default()).await.unwrap_err();
    assert!(matches!(refused, EgressError::Denied(_)), "{refused}");
    assert_eq!(heads.lock().unwrap().len(), before + 1);
    // None at all where none may be followed.
    let none = Caps { redirects: 0, ..Caps::default() };
    let refused = client().fetch(&*right, Request::get(target(&format!("{a}/same"))), &none).await;
    assert!(matches!(refused, Err(EgressError::Redirect(_))));
}

#[tokio::test]
async fn a_name_that_turns_between_redirects_is_refused() {
    let (port, heads) = web_server(|_| to("/again")).await;
    let names = Names::default().with("a.example", &[&["127.0.0.1"], &["10.0.0.1"]]);
    let policy = AddressPolicy::new().allow("127.0.0.1/32".parse().unwrap());
    let client = Client::new(Guard::with_resolver(policy, Arc::new(names)), Tls::new().unwrap());
    let right = rights(&["net.http:a.example:*"]);
    let request = Request::get(target(&format!("http://a.example:{port}/")));
    let refused = client.fetch(&*right, request, &Caps::default()).await.unwrap_err();
    assert!(matches!(refused, EgressError::AddressRefused { .. }), "{refused}");
    assert_eq!(heads.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn credentials_stay_with_their_origin() {
    let (other, at_other) = web_server(|_| ok("end")).await;
    let (port, at_first) = web_server(move |head| match path(head).as_str() {
        "/other" => to(&format!("http://a.example:{other}/")),
        "/same" => to("/end"),
        _ => ok("end"),
    })
    .await;
    let right = rights(&["net.http:a.example:*"]);
    for from in ["/same", "/other"] {
        let mut request = Request::get(target(&format!("http://a.example:{port}{from}")));
        request.headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        request.headers.insert(header::COOKIE, HeaderValue::from_static("session=secret"));
        request.headers.insert("x-kept", HeaderValue::from_static("kept"));
        client().fetch(&*right, request, &Caps::default()).await.unwrap();
    }
    let first = at_first.lock().unwrap();
    assert_eq!(first.iter().filter(|h| h.matches("secret").count() == 2).count(), 3, "{first:?}");
    let other = at_other.lock().unwrap()[0].clone();
    assert!(!other.contains("secret") && other.contains("x-kept: kept"), "{other}");
}

#[tokio::test]
async fn the_method_changes_as_the_rfc_says_and_a_body_is_not_sent_twice_then() {
    let (port, heads) = web_server(|head| {
        let status = path(head).trim_start_matches('/').to_owned();
        match status.parse::<u16>() {
            Ok(status) => {
                format!("HTTP/1.1 {status} x\r\nLocation: /end\r\nContent-Length: 0\r\n\r\n")
                    .into_bytes()
            }
            Err(_) => ok("end"),
        }
    })
    .await;
    let right = rights(&["net.http:a.example:*"]);
    for (status, method, becomes) in [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "PUT", "GET"),
        (307, "POST", "POST"),
        (308, "PUT", "PUT"),
        (302, "PUT", "PUT"),
        (303, "HEAD", "HEAD"),
    ] {
        heads.lock().unwrap().clear();
        let mut request = Request::get(target(&format!("http://a.example:{port}/{status}")));
        request.method = Method::from_bytes(method.as_bytes()).unwrap();
        request.body = if method == "HEAD" { Bytes::new() } else { Bytes::from_static(b"body") };
        request.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        client().fetch(&*right, request, &Caps::default()).await.unwrap();
        let head = heads.lock().unwrap()[1].clone();
        assert!(head.starts_with(&format!("{becomes} /end ")), "{status} {method}: {head}");
        assert_eq!(head.contains("content-type"), becomes != "GET", "{status} {method}: {head}");
        assert_eq!(
            head.contains("content-length: 4"),
            becomes != "GET" && becomes != "HEAD",
            "{status} {method}: {head}"
        );
    }
}

// ---- headers -------------------------------------------------------------------------------------------

#[tokio::test]
async fn headers_that_bound_or_address_the_message_cannot_be_set() {
    let (port, heads) = web_server(|_| ok("x")).await;
    let right = rights(&["net.http:a.example:*"]);
    for name in [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
    ] {
        let mut request = Request::get(target(&format!("http://a.example:{port}/")));
        request.headers.insert(name, HeaderValue::from_static("1"));
        let refused = client().fetch(&*right, request, &Caps::default()).await.unwrap_err();
        assert!(matches!(refused, EgressError::BadRequest(_)), "{name}: {refused}");
    }
    for method in [Method::CONNECT, Method::TRACE] {
        let request =
            Request { method, ..Request::get(target(&format!("http://a.example:{port}/"))) };
        assert!(client().fetch(&*right, request, &Caps::default()).await.is_err());
    }
    assert_eq!(heads.lock().unwrap().len(), 0);
    let mut request = Request::get(target(&format!("http://a.example:{port}/")));
    request.headers.insert(header::USER_AGENT, HeaderValue::from_static("Mozilla/5.0"));
    client().fetch(&*right, request, &Caps::default()).await.unwrap();
    assert!(!heads.lock().unwrap()[0].contains("Mozilla"));
}

// ---- bounds --------------------------------------------------------------------------------------------

async fn stops(answer: Vec<u8>, caps: Caps) -> EgressError {
    let (port, _) = web_server(move |_| answer.clone()).await;
    let right = rights(&["net.http:a.example:*"]);
    let request = Request::get(target(&format!("http://a.example:{port}/")));
    client().fetch(&*right, request, &caps).await.unwrap_err()
}

#[tokio::test]
async fn what_is_too_large_is_stopped() {
    let caps = Caps { response_bytes: 1000, ..Caps::default() };
    let declared = format!("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n{}", "x".repeat(1001));
    let open = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1001));
    let chunks = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        "3\r\nabc\r\n".repeat(400)
    );
    for answer in [declared, open, chunks] {
        let stopped = stops(answer.into_bytes(), caps.clone()).await;
        assert!(matches!(stopped, EgressError::TooLarge { limit: 1000, .. }), "{stopped}");
    }
    let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(101));
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(70_000));
    for answer in [fields, long] {
        let stopped = stops(answer.into_bytes(), Caps::default()).await;
        assert!(
            matches!(stopped, EgressError::BadResponse(_) | EgressError::TooLarge { .. }),
            "{stopped}"
        );
    }
    // And what is just within is not.
    let (port, _) = web_server(|_| ok(&"x".repeat(1000))).await;
    let right = rights(&["net.http:a.example:*"]);
    let request = Request::get(target(&format!("http://a.example:{port}/")));
    assert_eq!(client().fetch(&*right, request, &caps).await.unwrap().body.len(), 1000);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_not_sent() {
    let (port, heads) = web_server(|_| ok("x")).await;
    let right = rights(&["net.http:a.example:*"]);
    let caps = Caps { request_bytes: 10, headers: 3, ..Caps::default() };
    let url = format!("http://a.example:{port}/");
    let mut request = Request { method: Method::POST, ..Request::get(target(&url)) };
    request.body = Bytes::from_static(b"12345678901");
    let refused = client().fetch(&*right, request.clone(), &caps).await.unwrap_err();
    assert!(matches!(refused, EgressError::TooLarge { limit: 10, .. }), "{refused}");
    request.body = Bytes::from_static(b"1234567890");
    client().fetch(&*right, request.clone(), &caps).await.unwrap();
    for n in 0..3 {
        let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
        request.headers.insert(name, HeaderValue::from_static("1"));
    }
    assert!(client().fetch(&*right, request, &caps).await.is_err());
    assert_eq!(heads.lock().unwrap().len(), 1);
    // A body whose length is not known beforehand is stopped on its way.
    let request = http::Request::post("/").body(Pieces(8)).unwrap();
    let caps = Caps { request_bytes: 20, ..Caps::default() };
    let stopped = client().send(&*right, &target(&url), request, &caps).await.err().unwrap();
    assert!(matches!(stopped, EgressError::TooLarge { limit: 20, .. }), "{stopped}");
}

/// A body of so many pieces of five bytes.
struct Pieces(u8);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.0 -= 1;
        let piece = http_body::Frame::data(Bytes::from_static(b"12345"));
        Poll::Ready((self.0 > 0).then_some(Ok(piece)))
    }
}

#[tokio::test]
async fn a_bomb_is_stopped_and_an_ordinary_packed_body_unpacked() {
    let gzip = |data: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        let body = encoder.finish().unwrap();
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        answer.extend(body);
        answer
    };
    let stopped = stops(gzip(&vec![0; 30 << 20]), Caps::default()).await;
    assert!(
        matches!(stopped, EgressError::TooLarge { what: "the unpacked body", .. }),
        "{stopped}"
    );
    let twice =
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: 1\r\n\r\nx".to_vec();
    assert!(matches!(stops(twice, Caps::default()).await, EgressError::BadResponse(_)));
    let text = "palisade ".repeat(10_000);
    let answer = gzip(text.as_bytes());
    let (port, _) = web_server(move |_| answer.clone()).await;
    let right = rights(&["net.http:a.example:*"]);
    let url = format!("http://a.example:{port}/");
    let got = get(&right, &url).await.unwrap();
    assert!(got.body == text && !got.headers.contains_key(header::CONTENT_ENCODING));
    // Who asks for an encoding gets it as it is.
    let mut request = Request::get(target(&url));
    request.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    let raw = client().fetch(&*right, request, &Caps::default()).await.unwrap();
    assert!(
        raw.body.starts_with(&[0x1f, 0x8b]) && raw.headers.contains_key(header::CONTENT_ENCODING)
    );
}

#[tokio::test]
async fn a_server_that_is_slow_or_silent_or_trickles_is_left() {
    for say in
        [&b""[..], b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"]
    {
        let (port, _) = server(move |mut stream| async move {
            let _ = stream.write_all(say).await;
            while !say.is_empty() && stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tokio::time::sleep(Duration::from_secs(20)).await;
        })
        .await;
        let right = rights(&["net.http:a.example:*"]);
        let caps = Caps { total: Duration::from_millis(400), ..Caps::default() };
        let request = Request::get(target(&format!("http://a.example:{port}/")));
        let begin = Instant::now();
        let late = client().fetch(&*right, request, &caps).await.unwrap_err();
        assert!(matches!(late, EgressError::Deadline { .. }), "{late}");
        assert!(begin.elapsed() < Duration::from_secs(3));
    }
}

// ---- one request, streamed -------------------------------------------------------------------------------

#[tokio::test]
async fn a_single_request_follows_nothing_and_unpacks_nothing() {
    let (port, heads) = web_server(|_| to("/next")).await;
    let right = rights(&["net.http:a.example:*"]);
    let target = target(&format!("http://a.example:{port}/x"));
    // Whom the URI names makes no difference.
    let request =
        http::Request::get("http://b.example/other").body(Full::new(Bytes::new())).unwrap();
    let answer = client().send(&*right, &target, request, &Caps::default()).await.unwrap();
    assert_eq!(answer.status(), 302);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 0);
    let heads = heads.lock().unwrap();
    assert!(heads.len() == 1 && heads[0].starts_with("GET /x HTTP/1.1\r\n"), "{heads:?}");
    assert!(!heads[0].contains("accept-encoding"));
}

#[tokio::test]
async fn dropping_the_body_closes_the_connection() {
    let (gone, closed) = tokio::sync::oneshot::channel();
    let gone = std::sync::Mutex::new(Some(gone));
    let (port, _) = server(move |mut stream| {
        let gone = gone.lock().unwrap().take().unwrap();
        async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbegin").await.unwrap();
            while !matches!(stream.read(&mut [0; 16]).await, Ok(0) | Err(_)) {}
            gone.send(()).unwrap();
        }
    })
    .await;
    let right = rights(&["net.http:a.example:*"]);
    let target = target(&format!("http://a.example:{port}/"));
    let request = http::Request::get("/").body(Full::new(Bytes::new())).unwrap();
    let mut answer = client().send(&*right, &target, request, &Caps::default()).await.unwrap();
    let first = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(&first[..], b"begin");
    drop(answer);
    tokio::time::timeout(Duration::from_secs(3), closed).await.expect("it is closed").unwrap();
}

// ---- TLS -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn https_is_spoken_with_whom_the_roots_vouch_for_and_nobody_else() {
    let (port, pem, heads) = tls_server("a.example", |head| match path(head).as_str() {
        "/down" => to("http://a.example/clear"),
        "/up" => to("/end"),
        _ => ok("sealed"),
    })
    .await;
    let right = rights(&["net.http:*:*"]);
    let trusting = Client::new(guard_for(NAMES), Tls::with_roots(&pem).unwrap());
    let fetch = |client: Client, url: String| {
        let right = right.clone();
        async move { client.fetch(&*right, Request::get(target(&url)), &Caps::default()).await }
    };
    let good = fetch(trusting.clone(), format!("https://a.example:{port}/up")).await.unwrap();
    assert_eq!((&good.body[..], good.redirects), (&b"sealed"[..], 1));
    for (why, client, url) in [
        ("a root that is not trusted", client(), format!("https://a.example:{port}/")),
        ("a certificate for another name", trusting.clone(), format!("https://b.example:{port}/")),
    ] {
        let refused = fetch(client, url).await.unwrap_err();
        assert!(matches!(refused, EgressError::Tls { .. }), "{why}: {refused}");
        assert!(refused.is_of_certificate(), "{why}: {refused}");
    }
    assert_eq!(heads.lock().unwrap().len(), 2, "nothing was asked of whom nobody vouches for");
    let speaks_first = |mut stream: tokio::net::TcpStream| async move {
        let _ = stream.write_all(&ok("not TLS")).await;
    };
    let (clear, _) = server(speaks_first).await;
    let refused = fetch(trusting.clone(), format!("https://a.example:{clear}/")).await.unwrap_err();
    assert!(matches!(refused, EgressError::Tls { .. }), "{refused}");
    assert!(!refused.is_of_certificate(), "{refused}");
    let down = fetch(trusting, format!("https://a.example:{port}/down")).await.unwrap_err();
    assert!(matches!(down, EgressError::Redirect(_)), "{down}");
    assert!(Tls::with_roots("not PEM").is_err());
}

#[tokio::test]
async fn https_passes_the_proxy_end_to_end() {
    let (port, pem, _) = tls_server("a.example", |_| ok("sealed")).await;
    let right = rights(&["net.http:a.example:*"]);
    let at = proxy(guard_for(NAMES), right.clone(), Default::default()).await;
    let tunnel = connect(at, &format!("a.example:{port}")).await.unwrap();
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject as _;
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("a.example").unwrap();
    let mut sealed =
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tunnel).await.unwrap();
    sealed.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let _ = sealed.read_to_string(&mut answer).await;
    assert!(answer.ends_with("sealed"), "{answer}");
}

#[tokio::test]
async fn nobody_is_connected_to_for_a_name_that_is_not_there() {
    let (_, count) = echo_server().await;
    let right = rights(&["net.http:*:*"]);
    let missing = get(&right, "http://missing.example/").await.unwrap_err();
    assert!(matches!(missing, EgressError::Lookup { .. }), "{missing}");
    assert_eq!(right.recorded("deny net.http:missing.example:80"), 1);
    assert_eq!(count.load(SeqCst), 0);
}
