//! The proxy as programs use it: whole transfers, both ways, and its bounds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use common::*;
use palisade_egress::{
    Authority,
    proxy::{Client, Limits, Proxy, Tunnels},
};
use palisade_model::ErrorCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

const BIG: usize = 5_000_000;

/// Bytes that no shift of themselves equals.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i * 7919 % 251).unwrap()).collect()
}

async fn tcp_proxy(limits: Limits) -> (std::net::SocketAddr, std::sync::Arc<Rights>) {
    let right = rights(&["net.tcp:a.example:*", "net.http:a.example:*"]);
    (proxy(guard_for(&["a.example"]), right.clone(), limits).await, right)
}

#[tokio::test]
async fn megabytes_pass_both_ways_at_once_and_unchanged() {
    let (port, _) = echo_server().await;
    let (proxy, right) = tcp_proxy(Limits::default()).await;
    let tunnel = connect(proxy, &format!("a.example:{port}")).await.unwrap();
    let (mut read, mut write) = tunnel.into_split();
    let sent = pattern(BIG);
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&copy).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    read.read_to_end(&mut back).await.unwrap();
    writer.await.unwrap();
    assert!(back == sent, "{} of {BIG} bytes came back", back.len());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(right.recorded(&format!("closed net.tcp:a.example:{port} {BIG} {BIG} ")), 1);
}

#[tokio::test]
async fn what_is_no_socket_is_served_as_well() {
    let (port, _) = echo_server().await;
    let (mut here, there) = tokio::io::duplex(1000);
    let right = rights(&["net.tcp:a.example:*"]);
    let served = tokio::spawn(async move {
        Proxy::new(guard_for(&["a.example"]), Limits::default())
            .handle(Client::Other(Box::new(there)), &*right)
            .await;
    });
    here.write_all(format!("CONNECT a.example:{port} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    assert!(head(&mut here).await.starts_with("HTTP/1.1 200 "));
    let sent = pattern(300_000);
    let (mut read, mut write) = tokio::io::split(here);
    let copy = sent.clone();
    tokio::spawn(async move {
        write.write_all(&copy).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    read.read_to_end(&mut back).await.unwrap();
    assert!(back == sent);
    drop(read);
    served.await.unwrap();
}

#[tokio::test]
async fn one_direction_may_end_before_the_other() {
    // Answers only when the request has ended.
    let (port, _) = server(|mut stream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(format!("got {}", all.len()).as_bytes()).await.unwrap();
    })
    .await;
    let (proxy, _) = tcp_proxy(Limits::default()).await;
    let mut tunnel = connect(proxy, &format!("a.example:{port}")).await.unwrap();
    tunnel.write_all(&pattern(200_000)).await.unwrap();
    tunnel.shutdown().await.unwrap();
    let mut answer = String::new();
    tunnel.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "got 200000");
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let (port, _) = server(|mut stream| async move {
        stream.write_all(b"220 ready\r\n").await.unwrap();
    })
    .await;
    let (proxy, _) = tcp_proxy(Limits::default()).await;
    let mut tunnel = socks(proxy, b"a.example", port).await.unwrap();
    let mut greeting = String::new();
    tunnel.read_to_string(&mut greeting).await.unwrap();
    assert_eq!(greeting, "220 ready\r\n");
}

// ---- plain requests ------------------------------------------------------------------------------------

fn chunked(body: &str) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Up: 1\r\n\r\n".to_vec();
    for part in body.as_bytes().chunks(3) {
        answer.extend(format!("{:x};ext=1\r\n", part.len()).bytes());
        answer.extend(part);
        answer.extend(b"\r\n");
    }
    answer.extend(b"0\r\nTrailer: x\r\n\r\n");
    answer
}

#[tokio::test]
async fn requests_follow_each_other_on_one_connection() {
    let (port, heads) = web_server(|head| match head.split(' ').nth(1) {
        Some("/chunked") => chunked("in pieces"),
        Some("/none") => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        Some("/early") => b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate".to_vec(),
        Some("/head") => b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\n\r\nto the end".to_vec(),
    })
    .await;
    let (proxy, right) = tcp_proxy(Limits::default()).await;
    let a = format!("a.example:{port}");
    let mut requests = String::new();
    for (method, path) in [
        ("GET", "/chunked"),
        ("GET", "/none"),
        ("GET", "/early"),
        ("HEAD", "/head"),
        ("GET", "/end"),
    ] {
        requests.push_str(&format!("{method} http://{a}{path} HTTP/1.1\r\nHost: {a}\r\nProxy-Authorization: Basic x\r\n\r\n"));
    }
    let answers = talk(proxy, requests.as_bytes()).await;
    let parts: Vec<&str> = answers.split("HTTP/1.1 ").collect();
    assert_eq!(parts.len(), 6, "{answers}");
    let chunks = parts[1].split_once("\r\n\r\n").unwrap().1;
    assert!(
        chunks.ends_with("0\r\n\r\n") && !chunks.contains("ext") && !chunks.contains("Trailer"),
        "{chunks}"
    );
    assert!(parts[2].starts_with("204 "));
    assert!(parts[3].ends_with("late") && !parts[3].contains("Link"));
    assert!(parts[4].ends_with("Content-Length: 1000\r\n\r\n"), "{}", parts[4]);
    assert!(parts[5].contains("Connection: close\r\n") && parts[5].ends_with("to the end"));
    assert_eq!(right.recorded(&format!("allow net.http:{a}")), 5, "each request is decided");
    for head in heads.lock().unwrap().iter() {
        assert!(!head.contains("Proxy-"), "{head}");
        assert!(head.contains("Connection: close\r\n"), "{head}");
    }
}

#[tokio::test]
async fn bodies_are_sent_on_with_their_length_or_in_chunks() {
    let (port, _) = server(|mut stream| async move {
        let head = head(&mut stream).await;
        let mut body = Vec::new();
        while !body.ends_with(b"0\r\n\r\n") && !body.ends_with(b"!") {
            body.push(stream.read_u8().await.unwrap());
        }
        let kind = if head.contains("chunked") { "chunked" } else { "length" };
        let body = String::from_utf8(body).unwrap();
        stream.write_all(&ok(&format!("{kind} {body:?}"))).await.unwrap();
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let (proxy, _) = tcp_proxy(Limits::default()).await;
    let a = format!("a.example:{port}");
    let length = format!(
        "PUT http://{a}/ HTTP/1.1\r\nHost: {a}\r\nConnection: close\r\nContent-Length: 6\r\n\r\nhello!"
    );
    assert!(talk(proxy, length.as_bytes()).await.ends_with(r#"length "hello!""#));
    let chunks = format!(
        "PUT http://{a}/ HTTP/1.1\r\nHost: {a}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n6;x\r\nhello!\r\n0\r\n\r\n"
    );
    let answer = talk(proxy, chunks.as_bytes()).await;
    assert!(answer.contains(r#"chunked "6\r\nhello!"#), "{answer}");
    // A client that waits to be told to go on is told.
    let mut waiting = TcpStream::connect(proxy).await.unwrap();
    let expects = format!(
        "PUT http://{a}/ HTTP/1.1\r\nHost: {a}\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 6\r\n\r\n"
    );
    waiting.write_all(expects.as_bytes()).await.unwrap();
    assert_eq!(head(&mut waiting).await, "HTTP/1.1 100 Continue\r\n\r\n");
    waiting.write_all(b"hello!").await.unwrap();
    assert!(head(&mut waiting).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_large_answer_passes_whole() {
    let body = pattern(BIG);
    let copy = body.clone();
    let (port, _) = web_server(move |_| {
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n").into_bytes();
        answer.extend(&copy);
        answer
    })
    .await;
    let (proxy, _) = tcp_proxy(Limits::default()).await;
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let request = format!("GET http://a.example:{port}/ HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.contains(&format!("Content-Length: {BIG}\r\n")));
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    assert!(got == body, "{} of {BIG} bytes", got.len());
}

#[tokio::test]
async fn an_early_refusal_of_an_upload_is_heard() {
    let (port, _) =
        web_server(|_| b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno".to_vec()).await;
    let (proxy, _) = tcp_proxy(Limits::default()).await;
    let a = format!("a.example:{port}");
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let head_ = format!("PUT http://{a}/ HTTP/1.1\r\nHost: {a}\r\nContent-Length: 100000\r\n\r\n");
    stream.write_all(head_.as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.contains("Connection: close"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_servers_answer_with_two_meanings_is_not_passed_on() {
    for bad in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\nX: y\n\n",
        "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        "hello",
        "",
    ] {
        let (port, _) = web_server(|_| bad.as_bytes().to_vec()).await;
        let (proxy, _) = tcp_proxy(Limits::default()).await;
        let a = format!("a.example:{port}");
        let request = format!("GET http://{a}/ HTTP/1.1\r\nHost: {a}\r\n\r\n");
        let answer = talk(proxy, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{bad:?}: {answer}");
    }
}

// ---- bounds --------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_tunnel_ends_at_its_bytes_at_its_pause_and_at_its_time() {
    let (port, _) = echo_server().await;
    let to = format!("a.example:{port}");
    let (proxy, right) = tcp_proxy(Limits { sent_bytes: 100_000, ..Limits::default() }).await;
    let mut tunnel = connect(proxy, &to).await.unwrap();
    let (mut read, mut write) = tunnel.split();
    let bytes = pattern(1_000_000);
    let mut back = Vec::new();
    let _ = tokio::join!(write.write_all(&bytes), read.read_to_end(&mut back));
    assert!(back.len() <= 100_000, "{} bytes passed", back.len());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(right.recorded("PAL-LIMIT"), 1);

    let idle = Limits { idle: Duration::from_millis(300), ..Limits::default() };
    let total = Limits {
        total: Duration::from_millis(900),
        idle: Duration::from_millis(500),
        ..Limits::default()
    };
    for (limits, active) in [(idle, false), (total, true)] {
        let (proxy, right) = tcp_proxy(limits).await;
        let mut tunnel = connect(proxy, &to).await.unwrap();
        assert!(echoes(&mut tunnel).await);
        let begin = Instant::now();
        while active && begin.elapsed() < Duration::from_secs(5) && echoes(&mut tunnel).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let end =
            timeout(Duration::from_secs(5), tunnel.read(&mut [0; 10])).await.expect("it is ended");
        assert!(matches!(end, Ok(0) | Err(_)));
        assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(right.recorded("PAL-DEADLINE"), 1);
    }
}

#[tokio::test]
async fn a_right_taken_back_ends_the_open_tunnel() {
    let (port, _) = echo_server().await;
    let (proxy, right) = tcp_proxy(Limits::default()).await;
    let mut tunnel = connect(proxy, &format!("a.example:{port}")).await.unwrap();
    assert!(echoes(&mut tunnel).await);
    right.withdraw();
    let end =
        timeout(Duration::from_secs(3), tunnel.read(&mut [0; 10])).await.expect("it is ended");
    assert!(matches!(end, Ok(0) | Err(_)));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(right.recorded("was taken back"), 1);
}

#[tokio::test]
async fn who_does_not_ask_in_time_or_asks_too_much_is_sent_away() {
    let (proxy, _) =
        tcp_proxy(Limits { request: Duration::from_millis(200), ..Limits::default() }).await;
    for slow in [&b""[..], b"GET http://a.example/ HT", &[5], &[5, 1, 0], &[5, 1, 0, 5, 1, 0, 3, 9]]
    {
        let begin = Instant::now();
        let _ = talk(proxy, slow).await;
        assert!(begin.elapsed() < Duration::from_secs(3), "{slow:?}");
    }
    let endless = format!("GET http://a.example/ HTTP/1.1\r\nX: {}", "x".repeat(100_000));
    let answer = talk(proxy, endless.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn more_connections_than_there_may_be_wait_their_turn() {
    let (port, count) = echo_server().await;
    let (proxy, _) = tcp_proxy(Limits { connections: 2, ..Limits::default() }).await;
    let to = format!("a.example:{port}");
    let first = connect(proxy, &to).await.unwrap();
    let _second = connect(proxy, &to).await.unwrap();
    let third = tokio::spawn(async move { connect(proxy, &to).await.is_ok() });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(count.load(SeqCst), 2, "a third got through");
    drop(first);
    assert!(timeout(Duration::from_secs(5), third).await.expect("its turn comes").unwrap());
}

#[tokio::test]
async fn a_listener_at_which_nobody_knocks_keeps_no_place() {
    let (port, _) = echo_server().await;
    let right = rights(&["net.tcp:a.example:*"]);
    let proxy =
        Proxy::new(guard_for(&["a.example"]), Limits { connections: 1, ..Limits::default() });
    let mut addresses = Vec::new();
    for _ in 0..3 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        let (proxy, right) = (proxy.clone(), right.clone());
        tokio::spawn(async move { proxy.serve(listener, right).await });
    }
    for address in addresses {
        let to = format!("a.example:{port}");
        let tunnel =
            timeout(Duration::from_secs(5), connect(address, &to)).await.expect("there is a place");
        assert!(echoes(&mut tunnel.unwrap()).await);
    }
}

#[tokio::test]
async fn a_refusal_says_the_rule_and_what_to_do_and_nothing_of_it_is_markup_or_escape() {
    let right = rights(&[]);
    let proxy = proxy(guard_for(&["a.example"]), right, Limits::default()).await;
    let answer = talk(proxy, b"CONNECT b.example:443 HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain"), "{answer}");
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(
        body,
        "Palisade: net.http:b.example:443 is not granted\nno right covers it\ngrant it\n"
    );
    let answer = talk(proxy, b"CONNECT \x1b]0;x\x07<b>:443 HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(!answer.contains('\u{1b}') && !answer.contains('\u{7}'), "{answer:?}");
}

#[tokio::test]
async fn a_connection_that_is_asked_for_in_a_call_is_decided_looked_at_and_bounded() {
    let (port, count) = echo_server().await;
    let right = rights(&["net.tcp:a.example:*", "net.http:b.example:*"]);
    let limits = Limits { connections: 2, ..Limits::default() };
    let guard = guard_for(&["a.example", "b.example", "c.example"]);
    let tunnels = Tunnels::new(guard, limits, right.clone());
    let asks = |to: &str| tunnels.open(Authority::parse(&format!("{to}:{port}")).unwrap());
    let mut first = asks("a.example").await.unwrap();
    assert!(echoes(&mut first).await);
    let refused = asks("c.example").await.unwrap_err();
    assert_eq!(
        (refused.code, refused.rule.as_deref()),
        (ErrorCode::Denied, Some("no right covers it"))
    );
    assert_eq!(right.recorded(&format!("deny net.http:c.example:{port}")), 1);
    // Where only HTTP is granted, nothing else passes.
    let mut second = asks("b.example").await.unwrap();
    second.write_all(b"EHLO here\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    second.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(settled(&count).await, 2);
    drop(second);
    // Both ends of one direction after the other.
    first.shutdown().await.unwrap();
    assert_eq!(first.read(&mut [0; 10]).await.unwrap(), 0);
    drop(first);

    // More wait, and dropping one makes room and ends it at its server.
    let (one, two) = (asks("a.example").await.unwrap(), asks("a.example").await.unwrap());
    let mut third = tokio::spawn(asks("a.example"));
    assert!(timeout(Duration::from_millis(200), &mut third).await.is_err(), "there is no place");
    drop(one);
    let third = timeout(Duration::from_secs(5), third).await.expect("its turn comes");
    let mut third = third.unwrap().unwrap();
    assert!(echoes(&mut third).await);
    // Whoever stops waiting keeps no place.
    drop(timeout(Duration::from_millis(50), asks("a.example")).await);
    drop(two);
    let mut fourth = timeout(Duration::from_secs(5), asks("a.example")).await.unwrap().unwrap();
    assert!(echoes(&mut fourth).await);
    // The right is taken back: that is no end in peace.
    right.withdraw();
    let end = timeout(Duration::from_secs(5), fourth.read(&mut [0; 10])).await;
    let error = end.expect("it is ended").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_was_sent_over_a_connection_arrives_and_is_recorded_whoever_ends_it() {
    let heard = std::sync::Arc::new(std::sync::Mutex::new(0));
    let hears = std::sync::Arc::clone(&heard);
    // It says its last word first, and then reads slowly.
    let (port, _) = server(move |mut stream| {
        let hears = std::sync::Arc::clone(&hears);
        async move {
            let _ = stream.write_all(b"220 hello\r\n").await;
            let _ = stream.shutdown().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            *hears.lock().unwrap() += all.len();
        }
    })
    .await;
    let right = rights(&["net.tcp:a.example:*"]);
    let tunnels = Tunnels::new(guard_for(&["a.example"]), Limits::default(), right.clone());
    let open = || tunnels.open(Authority::parse(&format!("a.example:{port}")).unwrap());
    let mut tunnel = open().await.unwrap();
    let mut word = String::new();
    tunnel.read_to_string(&mut word).await.unwrap();
    assert_eq!(word, "220 hello\r\n");
    tunnel.write_all(&pattern(60_000)).await.unwrap();
    tunnel.shutdown().await.unwrap();
    drop(tunnel);
    for _ in 0..100 {
        if right.recorded("closed") > 0 && *heard.lock().unwrap() > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(*heard.lock().unwrap(), 60_000);
    assert_eq!(right.recorded(&format!("closed net.tcp:a.example:{port} 60000 11 ")), 1);
    // One that is cut off with its instance is in the record too.
    let mut tunnel = open().await.unwrap();
    tunnel.read_exact(&mut [0; 11]).await.unwrap();
    tunnel.write_all(b"1234").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(tunnels);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(right.recorded(&format!("closed net.tcp:a.example:{port} 4 11 PAL-UNAVAILABLE")), 1);
    assert!(
        tunnel.read(&mut [0; 1]).await.is_ok_and(|n| n == 0),
        "the server had ended its direction"
    );
}

#[tokio::test]
async fn dropping_the_server_ends_its_connections() {
    let (port, _) = echo_server().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let right = rights(&["net.tcp:a.example:*"]);
    let served = tokio::spawn(async move {
        Proxy::new(guard_for(&["a.example"]), Limits::default()).serve(listener, right).await;
    });
    let mut tunnel = connect(address, &format!("a.example:{port}")).await.unwrap();
    assert!(echoes(&mut tunnel).await);
    served.abort();
    let end =
        timeout(Duration::from_secs(3), tunnel.read(&mut [0; 10])).await.expect("it is ended");
    assert!(matches!(end, Ok(0) | Err(_)));
}
