//! What requests may do.

use std::sync::{Arc, Mutex};

use palisade_egress::{AddressPolicy, Decide, Guard};

use serde_json::json;

use super::{
    net::{self, Names, guard_for, ok, rights, tls_server, web_server},
    third, with,
};
use crate::{
    Options, WasmBackend, WasmError,
    testing::{Launch, wasi3_guest},
    wasi::Trust,
};

/// A web server that answers when it has the whole body, and keeps what it was sent.
async fn body_server() -> (u16, Arc<Mutex<Vec<String>>>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    let (port, _) = net::server(move |mut stream| {
        let keep = Arc::clone(&keep);
        async move {
            let head = net::head(&mut stream).await.to_lowercase();
            if !head.ends_with("\r\n\r\n") {
                // Closed before there was a request.
                return;
            }
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            if stream.read_exact(&mut body).await.is_ok() {
                keep.lock().unwrap().push(head + &String::from_utf8_lossy(&body));
                let _ = stream.write_all(&ok("got it")).await;
                let _ = stream.read(&mut [0; 16]).await;
            }
        }
    })
    .await;
    (port, kept)
}

/// Runs a request behind a guard.
async fn requests(
    task: &str,
    url: &str,
    granted: &[&str],
    guard: Guard,
) -> (Vec<String>, Arc<net::Rights>) {
    let decide = rights(granted);
    let way_out = Some((guard, Arc::clone(&decide) as Arc<dyn Decide>));
    let lines = with(task, url, Launch { rights: granted, way_out, ..Launch::default() }).await;
    (lines, decide)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_through_the_guard_and_is_recorded() {
    let (port, heads) = web_server(|_| ok("hello")).await;
    let granted = format!("net.http:shop.example:{port}");
    let url = format!("http://shop.example:{port}/a?b=c");
    let guard = guard_for(&["shop.example"]);
    let (lines, decide) = requests("get", &url, &[&granted], guard.clone()).await;
    assert_eq!(lines, ["status 200 body 5 \"hello\" whole true"]);
    assert_eq!(decide.recorded("allow net.http:shop.example"), 1);
    let head = heads.lock().unwrap().pop().unwrap().to_lowercase();
    assert!(head.starts_with("get /a?b=c http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: shop.example:{port}\r\n")), "{head}");

    // Another name is not granted, whatever else is.
    let guard = guard_for(&["shop.example", "other.example"]);
    let other = format!("http://other.example:{port}/");
    let (lines, decide) = requests("get", &other, &[&granted], guard).await;
    assert!(lines[0].contains("HttpRequestDenied"), "{lines:?}");
    assert_eq!(decide.recorded("deny net.http:other.example"), 1);
    assert!(heads.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_decided_anew() {
    let (secret, secrets) = web_server(|_| ok("secret")).await;
    let (port, heads) = web_server(move |_| {
        format!("HTTP/1.1 302 Found\r\nLocation: http://inner.example:{secret}/\r\nContent-Length: 0\r\n\r\n")
            .into_bytes()
    })
    .await;
    let url = format!("http://shop.example:{port}/");
    let shop = format!("net.http:shop.example:{port}");
    let inner = format!("net.http:inner.example:{secret}");
    let guard = guard_for(&["shop.example", "inner.example"]);
    let (lines, _) = requests("follow", &url, &[&shop], guard.clone()).await;
    assert!(
        lines[0].starts_with("status 302") && lines[1].contains("HttpRequestDenied"),
        "{lines:?}"
    );
    assert!(secrets.lock().unwrap().is_empty());
    assert_eq!(heads.lock().unwrap().len(), 1);
    // The positive control.
    let (lines, _) = requests("follow", &url, &[&shop, &inner], guard).await;
    assert!(lines[1].contains("\"secret\""), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_and_names_that_change_reach_nothing() {
    let (port, heads) = web_server(|_| ok("inner")).await;
    // A name that leads to loopback, where the operator has not allowed it; and one that did not when it
    // was looked up before.
    let names = Names::default()
        .with("inner.example", &[&["127.0.0.1"]])
        .with("mixed.example", &[&["93.184.215.14", "127.0.0.1"]])
        .with("meta.example", &[&["169.254.169.254"]]);
    let guard = Guard::with_resolver(AddressPolicy::new(), Arc::new(names));
    for name in ["inner.example", "mixed.example", "meta.example"] {
        let url = format!("http://{name}:{port}/");
        let granted = format!("net.http:{name}:{port}");
        let (lines, decide) = requests("get", &url, &[&granted], guard.clone()).await;
        assert!(lines[0].starts_with("error "), "{name}: {lines:?}");
        assert_eq!(decide.recorded("deny"), 1, "{name}");
    }
    for url in [
        "http://127.0.0.1",
        "http://[::1]",
        "http://2130706433",
        "http://0x7f.1",
        "http://localhost",
    ] {
        let (lines, _) = requests(
            "get",
            &format!("{url}:{port}/"),
            &["net.http:*.example.org:*"],
            guard.clone(),
        )
        .await;
        assert!(!lines[0].starts_with("status"), "{url}: {lines:?}");
    }
    assert!(heads.lock().unwrap().is_empty());

    // Rebinding: the first answer is checked, and the connection goes there; the second is checked anew.
    let names = Names::default().with("turn.example", &[&["127.0.0.1"], &["10.0.0.1"]]);
    let policy = AddressPolicy::new().allow("127.0.0.1/32".parse().unwrap());
    let guard = Guard::with_resolver(policy, Arc::new(names));
    let url = format!("http://turn.example:{port}/");
    let granted = format!("net.http:turn.example:{port}");
    let (lines, _) = requests("get", &url, &[&granted], guard.clone()).await;
    assert!(lines[0].contains("\"inner\""), "{lines:?}");
    let (lines, _) = requests("get", &url, &[&granted], guard).await;
    assert!(lines[0].starts_with("error "), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_field_says_whom_a_request_is_for_or_where_it_ends() {
    let (port, heads) = web_server(|_| ok("")).await;
    let granted = format!("net.http:shop.example:{port}");
    let url = format!("http://shop.example:{port}/");
    let (lines, _) = requests("smuggle", &url, &[&granted], guard_for(&["shop.example"])).await;
    let (fields, [answer]) = lines.split_at(lines.len() - 1) else { panic!("{lines:?}") };
    for line in fields {
        let fine = line.starts_with("\"x-fine\"");
        assert_eq!(line.ends_with("Ok(())"), fine, "{line}");
    }
    // The positive control: a field of the guest's own arrives.
    assert!(answer.starts_with("status 200"), "{answer}");
    let heads = std::mem::take(&mut *heads.lock().unwrap());
    assert!(heads.len() == 1 && heads[0].to_lowercase().contains("x-fine: 1\r\n"), "{heads:?}");

    let (lines, _) = requests("connect", &url, &[&granted], guard_for(&["shop.example"])).await;
    assert!(!lines[0].starts_with("status"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_as_long_as_was_said() {
    let (port, kept) = body_server().await;
    let granted = format!("net.http:shop.example:{port}");
    let url = format!("http://shop.example:{port}/");
    let (lines, _) = requests("post", &url, &[&granted], guard_for(&["shop.example"])).await;
    assert_eq!(lines, ["status 200 body 6 \"got it\" whole true"]);
    let sent = kept.lock().unwrap().pop().unwrap();
    assert!(sent.contains("content-length: 5\r\n") && sent.ends_with("\r\n\r\n12345"), "{sent}");
    assert!(!sent.contains("chunked"), "{sent}");
    // What was announced has been sent: flushing and finishing it afterwards is no failure.
    let (lines, _) = requests("late", &url, &[&granted], guard_for(&["shop.example"])).await;
    assert_eq!(lines, ["status 200 body 6 \"got it\" whole true Ok(()) Ok(()) Ok(())"]);
    assert!(kept.lock().unwrap().pop().unwrap().ends_with("\r\n\r\n12345"));
    // Five bytes where nine were announced.
    let (lines, _) = requests("short", &url, &[&granted], guard_for(&["shop.example"])).await;
    assert!(!lines[0].starts_with("status"), "{lines:?}");
    assert!(kept.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_wasi_0_3_goes_through_the_guard() {
    let (secret, secrets) = web_server(|_| ok("secret")).await;
    let (port, heads) = web_server(move |head| {
        if !head.starts_with("GET /leads ") {
            return ok("hello");
        }
        format!("HTTP/1.1 302 Found\r\nLocation: http://inner.example:{secret}/\r\nContent-Length: 0\r\n\r\n")
            .into_bytes()
    })
    .await;
    let shop = format!("net.http:shop.example:{port}");
    let url = |path: &str| format!("http://shop.example:{port}{path}");
    let guard = guard_for(&["shop.example", "inner.example", "other.example"]);

    let (lines, denied) = third("get", &url("/a?b=c"), &[&shop], guard.clone()).await;
    assert_eq!((lines, denied), (vec!["status 200 \"hello\"".to_owned()], 0));
    let head = heads.lock().unwrap().pop().unwrap().to_lowercase();
    assert!(head.starts_with("get /a?b=c http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: shop.example:{port}\r\n")), "{head}");

    // Another name, and one that a redirect leads to.
    let other = format!("http://other.example:{port}/");
    let (lines, denied) = third("get", &other, &[&shop], guard.clone()).await;
    assert!(lines[0].contains("HttpRequestDenied") && denied == 1, "{lines:?} {denied}");
    let (lines, denied) = third("follow", &url("/leads"), &[&shop], guard.clone()).await;
    assert!(
        lines[0].starts_with("status 302") && lines[1].contains("HttpRequestDenied"),
        "{lines:?}"
    );
    assert_eq!((denied, secrets.lock().unwrap().len()), (1, 0));
    let inner = format!("net.http:inner.example:{secret}");
    let (lines, _) = third("follow", &url("/leads"), &[&shop, &inner], guard).await;
    assert!(lines[1].contains("secret"), "{lines:?}");

    // An address that the operator has not allowed.
    let names = Names::default().with("shop.example", &[&["127.0.0.1"]]);
    let closed = Guard::with_resolver(AddressPolicy::new(), Arc::new(names));
    let (lines, denied) = third("get", &url("/"), &[&shop], closed).await;
    assert!(lines[0].starts_with("error ") && denied == 1, "{lines:?} {denied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_wasi_0_3_is_as_long_as_was_said() {
    let (port, kept) = body_server().await;
    let granted = format!("net.http:shop.example:{port}");
    let url = format!("http://shop.example:{port}/");
    let guard = guard_for(&["shop.example"]);
    let (lines, _) = third("post", &url, &[&granted], guard.clone()).await;
    assert_eq!(lines, ["status 200 \"got it\""]);
    let sent = kept.lock().unwrap().pop().unwrap();
    assert!(sent.starts_with("post / ") && sent.ends_with("\r\n\r\n12345"), "{sent}");
    assert!(sent.contains("content-length: 5\r\n") && !sent.contains("chunked"), "{sent}");
    // Five bytes where nine or three were announced.
    for task in ["short", "long"] {
        let (lines, _) = third(task, &url, &[&granted], guard.clone()).await;
        assert!(lines[0].starts_with("error "), "{task}: {lines:?}");
        let whole = kept.lock().unwrap().pop();
        assert_eq!(whole, None, "{task}");
    }
}

/// What the guest of this WASI writes of a request, where names lead to this machine.
async fn gets(third: bool, url: &str, granted: &[&str], trust: Trust) -> String {
    let way_out =
        Some((guard_for(&["shop.example", "other.example"]), rights(granted) as Arc<dyn Decide>));
    let launch = Launch { rights: granted, way_out, trust, ..Launch::default() };
    let mut lines = if third {
        let env = [("TASK", "get"), ("WHAT", url)];
        let mut launched = Launch { env: &env, ..launch }.of(wasi3_guest()).await.unwrap();
        launched.call("run", json!({})).await.unwrap();
        launched.lines()
    } else {
        with("get", url, launch).await
    };
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_spoken_with_whom_the_roots_vouch_for_and_nobody_else() {
    let (port, pem, heads) = tls_server("shop.example", |_| ok("sealed")).await;
    let shop = format!("net.http:shop.example:{port}");
    let other = format!("net.http:other.example:{port}");
    let granted = [shop.as_str(), other.as_str()];
    let trust = Trust::with_roots(&pem).unwrap();
    for third in [false, true] {
        let url = format!("https://shop.example:{port}/a?b=c");
        let good = gets(third, &url, &granted, trust.clone()).await;
        assert!(good.starts_with("status 200") && good.contains("\"sealed\""), "{good}");
        let head = heads.lock().unwrap().pop().unwrap().to_lowercase();
        assert!(head.starts_with("get /a?b=c http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: shop.example:{port}\r\n")), "{head}");

        let refused = "error ErrorCode::TlsCertificateError";
        let unknown = gets(third, &url, &granted, Trust::default()).await;
        assert_eq!(unknown, refused, "an authority that nobody trusts");
        let url = format!("https://other.example:{port}/");
        let misnamed = gets(third, &url, &granted, trust.clone()).await;
        assert_eq!(misnamed, refused, "a certificate for another name");
        assert!(heads.lock().unwrap().is_empty(), "nothing is asked of such a server");
    }
}

#[test]
fn only_certificates_are_added_to_whom_requests_trust() {
    let with = |pem: &str| WasmBackend::with_roots(Options::default(), pem).map(drop);
    assert!(with("").is_ok());
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for pem in ["not PEM", broken] {
        let refused = with(pem).unwrap_err();
        assert!(matches!(refused, WasmError::Roots(_)), "{pem}: {refused}");
        assert!(refused.hint().is_some());
    }
    let long = with(&" ".repeat((1 << 20) + 1)).unwrap_err();
    assert!(matches!(long, WasmError::TooMany { .. }), "{long}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_field_of_wasi_0_3_says_whom_a_request_is_for_or_where_it_ends() {
    let (port, heads) = web_server(|_| ok("here")).await;
    let granted = format!("net.http:shop.example:{port}");
    let url = format!("http://shop.example:{port}/");
    let guard = guard_for(&["shop.example"]);
    let does = async |task: &str, what: &str| {
        let what = format!("{url}\n{what}");
        let (mut lines, _) = third(task, &what, &[&granted], guard.clone()).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    };
    // The positive controls: a field, a method and a path of the guest's own arrive.
    for (task, what, arrives) in [
        ("field", "x-fine|1", "x-fine: 1\r\n"),
        ("split", "method\nPURGE", "purge / http/1.1\r\n"),
        ("split", "path\n/fine?x", "get /fine?x http/1.1\r\n"),
    ] {
        let seen = does(task, what).await;
        assert!(seen.starts_with("reached "), "{what}: {seen}");
        let head = heads.lock().unwrap().pop().unwrap().to_lowercase();
        assert!(head.contains(arrives), "{what}: {head}");
    }
    for field in ["host|other.example", "transfer-encoding|chunked", "connection|keep-alive"]
        .into_iter()
        .chain(["te|trailers", "trailer|x-a", "expect|100-continue", "proxy-connection|close"])
    {
        assert_eq!(does("field", field).await, "blocked HeaderError::Forbidden", "{field}");
    }
    for field in [r"x-a|1\r\nHost: other.example", r"x-a\r\nHost|other.example", "x a|1"] {
        assert_eq!(does("field", field).await, "blocked HeaderError::InvalidSyntax", "{field}");
    }
    for part in [r"method\nGET / HTTP/1.1\r\nx-a:", r"path\n/ HTTP/1.1\r\nx-a: 1"] {
        let part = part.replacen(r"\n", "\n", 1);
        assert_eq!(does("split", &part).await, "blocked not-a-request", "{part}");
    }
    let seen = does("split", "authority\nother.example:80").await;
    assert!(seen.starts_with("blocked HttpRequestDenied"), "{seen}");
    assert!(heads.lock().unwrap().is_empty());
}
