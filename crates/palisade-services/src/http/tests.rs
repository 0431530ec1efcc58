use std::{io::Write as _, net::Ipv4Addr};

use flate2::{Compression, write::GzEncoder};
use palisade_audit::{MemoryRecorder, RecordKind};
use palisade_broker::Broker;
use palisade_egress::AddressPolicy;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::testing::{ask, broker, plugin, plugin_forbidden};

/// A web server that answers each connection's one request with what `answer` makes of it, and keeps
/// the requests.
async fn server(
    answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (kept, answer) = (Arc::clone(&requests), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
            tokio::spawn(async move {
                let (mut request, mut piece) = (Vec::new(), [0; 4096]);
                loop {
                    let n = stream.read(&mut piece).await.unwrap_or(0);
                    request.extend_from_slice(&piece[..n]);
                    let text = String::from_utf8_lossy(&request);
                    let Some(end) = text.find("\r\n\r\n") else {
                        if n == 0 { return } else { continue }
                    };
                    let length = text
                        .lines()
                        .find_map(|l| l.strip_prefix("content-length: "))
                        .map_or(0, |l| l.parse::<usize>().unwrap());
                    if n == 0 || request.len() >= end + 4 + length {
                        break;
                    }
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let reply = answer(&request);
                kept.lock().unwrap().push(request);
                let _ = stream.write_all(&reply).await;
                let _ = stream.shutdown().await;
                let _ = stream.read(&mut piece).await;
            });
        }
    });
    (port, requests)
}

fn ok(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn room() -> (Broker, Arc<MemoryRecorder>) {
    broker(|services, gate| {
        let guard = Guard::new(AddressPolicy::new());
        let fetcher = Fetcher::new(gate.clone(), guard, Tls::new().unwrap());
        services.register(service(fetcher)).unwrap();
    })
}

async fn fetch(broker: &Broker, caller: &Arc<Caller>, params: Value) -> Result<Value, Failure> {
    ask(broker, caller, "http.fetch", params).await
}

fn granted(ports: &[u16]) -> Arc<Caller> {
    let rights: Vec<String> = ports.iter().map(|p| format!("net.http:127.0.0.1:{p}")).collect();
    plugin("p", &rights.iter().map(String::as_str).collect::<Vec<_>>())
}

#[tokio::test]
async fn a_granted_address_answers_and_everything_is_recorded() {
    let (port, requests) =
        server(|_| ok("X-One: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n", b"hello")).await;
    let (broker, recorder) = room();
    let p = granted(&[port]);
    let url = format!("http://127.0.0.1:{port}/a?b=c");
    let answer = fetch(&broker, &p, json!({"url": url, "headers": {"X-Two": "2"}})).await.unwrap();
    assert_eq!((&answer["status"], &answer["body"]), (&json!(200), &json!("hello")));
    assert_eq!((&answer["url"], &answer["redirects"]), (&json!(url), &json!(0)));
    assert!(answer.get("body_base64").is_none());
    let headers = answer["headers"].as_array().unwrap();
    for field in [json!(["x-one", "1"]), json!(["set-cookie", "a"]), json!(["set-cookie", "b"])] {
        assert!(headers.contains(&field), "{headers:?}");
    }
    let request = requests.lock().unwrap()[0].clone();
    assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\n") && request.contains("x-two: 2\r\n"));

    let records = recorder.records();
    let of = |kind| records.iter().find(|r| r.kind == kind).unwrap();
    let target = format!("127.0.0.1:{port}");
    assert_eq!(of(RecordKind::Request).target.as_deref(), Some(target.as_str()));
    assert_eq!(of(RecordKind::Request).capability.as_deref(), Some("net.http"));
    assert_eq!(of(RecordKind::Egress).detail, Some(format!("at 127.0.0.1:{port}")));
}

#[tokio::test]
async fn without_the_right_nothing_leaves() {
    let (port, requests) = server(|_| ok("", b"secret")).await;
    let (broker, _) = room();
    let url = format!("http://127.0.0.1:{port}/");
    let tcp = format!("net.tcp:127.0.0.1:{port}");
    let named = format!("net.http:127.0.0.1:{port}");
    for caller in [
        plugin("p", &[]),
        plugin("p", &["net.http:example.org"]),
        plugin("p", &[&tcp]),
        granted(&[port.wrapping_add(1)]),
        plugin_forbidden("p", &[&named], &["net.http:127.0.0.1:*"]),
        // A right to everything names no private address.
        plugin("p", &["net.http:*:*"]),
    ] {
        let failure = fetch(&broker, &caller, json!({"url": url})).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::Denied, "{failure}");
    }
    let metadata = plugin("p", &["net.http:*:*"]);
    for host in ["169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "localhost"] {
        let url = format!("http://{host}:{port}/");
        let failure = fetch(&broker, &metadata, json!({"url": url})).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::Denied, "{host}: {failure}");
    }
    assert!(requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn bodies_go_both_ways_as_text_and_as_bytes() {
    let (port, requests) = server(|request| match request.split(' ').nth(1).unwrap() {
        "/bytes" => ok("", &[0, 159, 146, 150]),
        "/controls" => ok("", &[1; 6000]),
        _ => ok("", "héllo".as_bytes()),
    })
    .await;
    let (broker, _) = room();
    let p = granted(&[port]);
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let params = json!({"url": url("/"), "method": "PUT", "body": "wörld",
        "headers": [["Content-Type", "text/plain"], ["X-A", "1"], ["X-A", "2"]]});
    assert_eq!(fetch(&broker, &p, params).await.unwrap()["body"], json!("héllo"));
    let params = json!({"url": url("/"), "body_base64": BASE64.encode(b"raw")});
    fetch(&broker, &p, params).await.unwrap();
    let seen = requests.lock().unwrap().clone();
    assert!(seen[0].starts_with("PUT ") && seen[0].ends_with("\r\n\r\nwörld"), "{}", seen[0]);
    assert!(seen[0].contains("x-a: 1\r\nx-a: 2\r\n"), "{}", seen[0]);
    assert!(seen[1].starts_with("POST ") && seen[1].ends_with("\r\n\r\nraw"));
    let answer = fetch(&broker, &p, json!({"url": url("/bytes")})).await.unwrap();
    let bytes = BASE64.decode(answer["body_base64"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!((bytes, answer.get("body")), (vec![0, 159, 146, 150], None));
    let answer = fetch(&broker, &p, json!({"url": url("/controls")})).await.unwrap();
    assert!(answer.get("body").is_none(), "text that JSON makes longer than base64");
}

#[tokio::test]
async fn a_redirect_takes_a_right_of_its_own() {
    let (other, visits) = server(|_| ok("", b"there")).await;
    let (port, _) = server(move |_| {
        format!("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{other}/x\r\nContent-Length: 0\r\n\r\n")
            .into_bytes()
    })
    .await;
    let (broker, recorder) = room();
    let url = json!(format!("http://127.0.0.1:{port}/"));
    let failure = fetch(&broker, &granted(&[port]), json!({"url": url})).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Denied);
    assert!(failure.message.contains(&other.to_string()), "{failure}");
    assert!(visits.lock().unwrap().is_empty());
    let refused = recorder.records().into_iter().rfind(|r| r.kind == RecordKind::Egress).unwrap();
    assert_eq!(refused.code, Some(ErrorCode::Denied));
    assert_eq!(refused.target, Some(format!("127.0.0.1:{other}")));

    let both = granted(&[port, other]);
    let answer = fetch(&broker, &both, json!({"url": url})).await.unwrap();
    assert_eq!((&answer["body"], &answer["redirects"]), (&json!("there"), &json!(1)));
    assert_eq!(answer["url"], json!(format!("http://127.0.0.1:{other}/x")));
    let params = json!({"url": url, "redirect": false});
    let answer = fetch(&broker, &granted(&[port]), params).await.unwrap();
    assert_eq!((&answer["status"], &answer["redirects"]), (&json!(302), &json!(0)));
}

#[tokio::test]
async fn a_bomb_is_refused_and_what_is_packed_honestly_is_unpacked() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let (bomb, small) = (gzip(&vec![0; 64 << 20]), gzip(b"packed"));
    let (port, _) = server(move |request| match request.starts_with("GET /bomb") {
        true => ok("Content-Encoding: gzip\r\n", &bomb),
        false => ok("Content-Encoding: gzip\r\n", &small),
    })
    .await;
    let (broker, _) = room();
    let p = granted(&[port]);
    let url = |path: &str| json!({"url": format!("http://127.0.0.1:{port}/{path}")});
    let failure = fetch(&broker, &p, url("bomb")).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::LimitExceeded, "{failure}");
    assert_eq!(fetch(&broker, &p, url("")).await.unwrap()["body"], json!("packed"));
}

#[tokio::test]
async fn the_largest_answers_fit_and_larger_ones_are_refused() {
    for body in
        [vec![b'a'; MAX_BODY], vec![0xff; MAX_BODY], vec![b'"'; MAX_BODY], vec![1; MAX_BODY]]
    {
        let first = body.first().copied();
        let (port, _) = server(move |_| ok("", &body)).await;
        let (broker, _) = room();
        let params = json!({"url": format!("http://127.0.0.1:{port}/")});
        let answer = fetch(&broker, &granted(&[port]), params).await;
        assert!(answer.is_ok(), "{first:?}: {:?}", answer.err());
    }
    let (port, _) = server(|_| ok("", &vec![b'a'; MAX_BODY + 1])).await;
    let (broker, _) = room();
    let params = json!({"url": format!("http://127.0.0.1:{port}/")});
    let failure = fetch(&broker, &granted(&[port]), params).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::LimitExceeded);
}

#[tokio::test]
async fn a_server_that_never_answers_costs_the_timeout_and_no_more() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (broker, _) = room();
    let params = json!({"url": format!("http://127.0.0.1:{port}/"), "timeout_ms": 50});
    let failure = fetch(&broker, &granted(&[port]), params).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Deadline);
}

#[tokio::test]
async fn parameters_that_do_not_fit_are_refused_before_anything_leaves() {
    let (port, requests) = server(|_| ok("", b"")).await;
    let (broker, _) = room();
    let p = granted(&[port]);
    let url = format!("http://127.0.0.1:{port}/");
    for bad in [
        json!({}),
        json!({"url": 7}),
        json!({"url": "ftp://127.0.0.1/"}),
        json!({"url": format!("http://u:p@127.0.0.1:{port}/")}),
        json!({"url": format!("http://127.0.0.1:{port}/a b")}),
        json!({"url": format!("http://127.0.0.1:{port}/\r\nX: y")}),
        json!({"url": format!("http://0x7f.1:{port}/")}),
        json!({"url": format!("http://127.1:{port}/")}),
        json!({"url": url, "method": "GET /x"}),
        json!({"url": url, "method": "CONNECT"}),
        json!({"url": url, "method": ""}),
        json!({"url": url, "headers": {"Host": "example.org"}}),
        json!({"url": url, "headers": {"Content-Length": "5"}}),
        json!({"url": url, "headers": {"A b": "1"}}),
        json!({"url": url, "headers": {"A": "1\r\nB: 2"}}),
        json!({"url": url, "headers": [["A"]]}),
        json!({"url": url, "body": "a", "body_base64": "YQ=="}),
        json!({"url": url, "body_base64": "%%%"}),
        json!({"url": url, "timeout_ms": 0}),
        json!({"url": url, "timeout_ms": MAX_TIMEOUT_MS + 1}),
        json!({"url": url, "proxy": "http://127.0.0.1:1"}),
    ] {
        let failure = fetch(&broker, &p, bad.clone()).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::InvalidParams, "{bad}: {failure}");
    }
    let many: Vec<_> = (0..200).map(|n| json!([format!("x-{n}"), "1"])).collect();
    let failure = fetch(&broker, &p, json!({"url": url, "headers": many})).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::LimitExceeded);
    assert!(requests.lock().unwrap().is_empty());
}
