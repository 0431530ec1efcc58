//! What connections of `wasi:sockets` reach: `std::net` of a real program, and WASI 0.3.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use palisade_egress::{AddressPolicy, Decide, Guard};
use palisade_model::ErrorCode;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    net::{self, Names, echo_server, guard_for, ok, rights, settled, web_server},
    third, with,
};
use crate::{
    guest::Trouble,
    testing::{Launch, wasi_guest},
    wasi::sockets::AT_ONCE,
};

/// Runs a task behind a guard; what it wrote, and what was recorded.
async fn connects(
    task: &str,
    what: &str,
    granted: &[&str],
    guard: Guard,
) -> (String, Arc<net::Rights>) {
    let decide = rights(granted);
    let way_out = Some((guard, Arc::clone(&decide) as Arc<dyn Decide>));
    let lines = with(task, what, Launch { rights: granted, way_out, ..Launch::default() }).await;
    (lines.join("\n"), decide)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_goes_through_the_guard_and_is_recorded() {
    let (port, count) = echo_server().await;
    let granted = format!("net.tcp:db.example:{port}");
    let guard = guard_for(&["db.example", "other.example"]);
    let to = format!("db.example:{port}");
    let said = format!("{to}\nhello");
    let (line, decide) = connects("tcp", &said, &[&granted], guard.clone()).await;
    assert_eq!(line, "reached hello");
    assert_eq!(decide.recorded(&format!("allow net.tcp:{to} at 127.0.0.1:{port}")), 1);
    for _ in 0..50 {
        if decide.recorded("closed") > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(decide.recorded(&format!("closed net.tcp:{to} 5 5")), 1, "{:?}", decide.record);

    // WASI 0.3, the same.
    let (lines, denied) = third("tcp", &said, &[&granted], guard.clone()).await;
    assert_eq!(
        (lines[0].as_str(), denied),
        ("reached 5 bytes the same left 0 sent Ok(()) received Ok(())", 0)
    );

    // Another name, another port, and the address itself are not granted.
    let before = settled(&count).await;
    for other in [
        format!("other.example:{port}"),
        "db.example:1".to_owned(),
        format!("127.0.0.1:{port}"),
        format!("[::1]:{port}"),
    ] {
        let said = format!("{other}\nhello");
        let (line, decide) = connects("tcp", &said, &[&granted], guard.clone()).await;
        assert_eq!(line, "blocked PermissionDenied", "{other}");
        assert_eq!(decide.recorded(&format!("deny net.http:{other}")), 1, "{other}");
        if !other.starts_with('[') {
            let (lines, denied) = third("tcp", &said, &[&granted], guard.clone()).await;
            assert_eq!(lines, ["blocked AccessDenied"], "{other}");
            assert_eq!(denied, 1, "{other}");
        }
    }
    // Addresses that stand for no name lead nowhere, and nobody is asked about them.
    for stray in ["198.18.0.1", "198.19.255.254"] {
        let said = format!("{stray}:{port}\nhello");
        let (line, decide) = connects("tcp", &said, &[&granted], guard.clone()).await;
        assert!(line.starts_with("blocked "), "{line}");
        assert!(decide.record.lock().unwrap().is_empty(), "{stray}");
    }
    assert_eq!(settled(&count).await, before, "nothing else was connected to");

    // An address that is granted by itself.
    let very = format!("net.tcp:127.0.0.1:{port}");
    let said = format!("127.0.0.1:{port}\nhello");
    let (line, _) = connects("tcp", &said, &[&very], Guard::new(AddressPolicy::new())).await;
    assert_eq!(line, "reached hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_and_names_that_change_are_not_connected_to() {
    let (port, count) = echo_server().await;
    let names = Names::default()
        .with("inner.example", &[&["127.0.0.1"]])
        .with("mixed.example", &[&["93.184.215.14", "127.0.0.1"]])
        .with("meta.example", &[&["169.254.169.254"]]);
    let guard = Guard::with_resolver(AddressPolicy::new(), Arc::new(names));
    for name in ["inner.example", "mixed.example", "meta.example", "localhost"] {
        let said = format!("{name}:{port}\nhello");
        let (line, decide) = connects("tcp", &said, &["net.tcp:*:*"], guard.clone()).await;
        assert_eq!(line, "blocked PermissionDenied", "{name}");
        assert_eq!(decide.recorded("deny"), 1, "{name}");
    }
    assert_eq!(settled(&count).await, 0);
    // Rebinding: a name was answered once, and is looked up and checked with each connection.
    let names = Names::default().with("turn.example", &[&["127.0.0.1"], &["10.0.0.1"]]);
    let policy = AddressPolicy::new().allow("127.0.0.1/32".parse().unwrap());
    let guard = Guard::with_resolver(policy, Arc::new(names));
    let granted = format!("net.tcp:turn.example:{port}");
    let said = format!("turn.example:{port}");
    let (line, decide) = connects("tcp-again", &said, &[&granted], guard).await;
    assert_eq!(line, "1 of 100");
    assert_eq!((decide.recorded("allow"), decide.recorded("deny")), (1, 99));
    assert_eq!(settled(&count).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_right_for_http_alone_only_http_passes() {
    let (port, heads) = web_server(|_| ok("hello")).await;
    let granted = format!("net.http:shop.example:{port}");
    let guard = guard_for(&["shop.example"]);
    let to = format!("shop.example:{port}");
    let request = format!("{to}\nGET / HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    let (line, _) = connects("tcp", &request, &[&granted], guard.clone()).await;
    assert!(line.starts_with("reached HTTP/1.1 200 OK") && line.ends_with("hello"), "{line}");
    assert_eq!(heads.lock().unwrap().len(), 1);
    for other in [
        "EHLO here\r\n".to_owned(),
        "\u{16}\u{3}\u{1}".to_owned(),
        "GET / HTTP/1.1\r\nHost: other.example\r\n\r\n".to_owned(),
        "GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n".to_owned(),
    ] {
        let said = format!("{to}\n{other}");
        let (line, _) = connects("tcp", &said, &[&granted], guard.clone()).await;
        assert!(!line.contains("200 OK"), "{other:?}: {line}");
    }
    // A connection that was closed before anything was said on it is a head without a byte.
    let arrived = heads.lock().unwrap().iter().filter(|head| !head.is_empty()).count();
    assert_eq!(arrived, 1, "nothing else arrived");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_listened_to_and_no_datagram_leaves() {
    let all = ["net.tcp:*:*", "net.http:*:*"];
    let guard = Guard::new(AddressPolicy::new().allow("127.0.0.1/32".parse().unwrap()));
    for (task, what, expected) in [
        ("udp", "", "blocked PermissionDenied"),
        ("listen", "0.0.0.0:0", "blocked PermissionDenied"),
        ("listen", "127.0.0.1:0", "blocked PermissionDenied"),
        ("bind", "127.0.0.1:0", "blocked access-denied"),
        ("bind", "0.0.0.0:80", "blocked access-denied"),
        // It says nothing, and is what libraries do before they connect.
        ("bind", "0.0.0.0:0", "reached Ok(())"),
    ] {
        let (line, _) = connects(task, what, &all, guard.clone()).await;
        assert_eq!(line, expected, "{task} {what}");
    }
    for (task, expected) in [
        ("udp", "blocked ErrorCode::NotSupported"),
        ("listen", "Ok(()) blocked ErrorCode::AccessDenied"),
        ("bind", "Err(ErrorCode::AccessDenied)"),
    ] {
        let (lines, _) = third(task, "", &all, guard.clone()).await;
        assert_eq!(lines, [expected], "{task}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_right_for_the_network_nothing_of_it_is_linked() {
    for granted in [&[][..], &["storage.kv:*"], &["fs.read:/srv/**"]] {
        let launch = Launch { rights: granted, ..Launch::default() };
        let Err(failure) = launch.of(wasi_guest()).await else { panic!("it was started") };
        assert_eq!(failure.code, ErrorCode::Denied);
        let told = "wasi:sockets/tcp@0.2.12, for which it takes the right net.tcp or net.http";
        assert!(failure.message.contains(told), "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_names_and_what_waits_are_bounded() {
    let (port, count) = echo_server().await;
    let granted = format!("net.tcp:db.example:{port}");
    let guard = guard_for(&["db.example", "n0.example"]);
    let to = format!("db.example:{port}");
    let said = format!("{to}\n{}", AT_ONCE + 8);
    let (line, _) = connects("tcp-many", &said, &[&granted], guard.clone()).await;
    assert!(line.starts_with(&format!("{AT_ONCE} then ")), "{line}");
    assert!(line.ends_with("and without them reached again"), "{line}");
    assert_eq!(settled(&count).await, AT_ONCE as usize + 1);
    let (lines, _) = third("tcp-many", &said, &[&granted], guard.clone()).await;
    assert!(lines[0].starts_with(&format!("{AT_ONCE} then ")), "{lines:?}");
    // Those that are over make room.
    let (line, _) = connects("tcp-again", &to, &[&granted], guard.clone()).await;
    assert_eq!(line, "100 of 100");

    // The oldest of more names than there is room for means nothing any more.
    let (line, decide) = connects("names", "5000", &["net.tcp:*:*"], guard.clone()).await;
    assert!(line.contains("strange refused true then Err("), "{line}");
    assert_eq!(decide.recorded(""), 0);
    let (line, decide) = connects("names", "4000", &["net.tcp:*:*"], guard).await;
    assert!(line.contains("strange refused true"), "{line}");
    assert_eq!(decide.recorded("net.tcp:n0.example:80"), 1);

    // Whoever sends to somebody who does not read waits, for as long as its call may take.
    let (port, _) = net::server(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let granted = format!("net.tcp:slow.example:{port}");
    let to = format!("slow.example:{port}");
    for task in ["flood", "tcp-hold"] {
        let decide = rights(&[&granted]);
        let way_out = Some((guard_for(&["slow.example"]), Arc::clone(&decide) as Arc<dyn Decide>));
        let granted = ["net.http:nowhere.example:80", granted.as_str()];
        let env = [("TASK", task), ("WHAT", to.as_str())];
        let launch = Launch { rights: &granted, env: &env, way_out, ..Launch::default() };
        let mut launched = launch.of(wasi_guest()).await.unwrap();
        let answer = launched.call_within("run", json!({}), Duration::from_millis(1500)).await;
        let Err(Trouble::Trapped(failure)) = answer else { panic!("{task}: {answer:?}") };
        assert_eq!(failure.code, ErrorCode::Deadline, "{task}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_arrives_whole_in_both_directions() {
    let (port, _) = echo_server().await;
    let granted = format!("net.tcp:db.example:{port}");
    let guard = guard_for(&["db.example"]);
    let said = format!("db.example:{port}\n3000000");
    let (line, _) = connects("tcp-large", &said, &[&granted], guard.clone()).await;
    assert_eq!(line, "reached 3000000 equal true");
    let (lines, _) = third("tcp-large", &said, &[&granted], guard.clone()).await;
    assert_eq!(lines, ["reached 3000000 bytes the same left 0 sent Ok(()) received Ok(())"]);
    let to = format!("db.example:{port}");
    let (line, _) = connects("tcp-addresses", &to, &[&granted], guard.clone()).await;
    assert_eq!(line, format!("reached from 0.0.0.0:0 to 198.18.0.1:{port} ttl 7"));
    let (lines, _) = third("tcp-twice", &to, &[&granted], guard).await;
    let again = "Err(ErrorCode::InvalidState)";
    assert_eq!(lines, [format!("{again} {again} {again}")]);

    // A program that closes its connection at once: what it sent arrives, though the answer is lost.
    let heard = Arc::new(Mutex::new(String::new()));
    let keep = Arc::clone(&heard);
    let (port, _) = net::server(move |mut stream| {
        let keep = Arc::clone(&keep);
        async move {
            let mut all = String::new();
            let _ = stream.read_to_string(&mut all).await;
            let _ = stream.write_all(&[1; 1 << 20]).await;
            keep.lock().unwrap().push_str(&all);
        }
    })
    .await;
    let granted = format!("net.tcp:db.example:{port}");
    let decide = rights(&[&granted]);
    let way_out = Some((guard_for(&["db.example"]), Arc::clone(&decide) as Arc<dyn Decide>));
    let granted = ["net.http:nowhere.example:80", granted.as_str()];
    let to = format!("db.example:{port}");
    let env = [("TASK", "tcp-leave"), ("WHAT", to.as_str())];
    let launch = Launch { rights: &granted, env: &env, way_out, ..Launch::default() };
    let mut launched = launch.of(wasi_guest()).await.unwrap();
    launched.call("run", json!({})).await.unwrap();
    assert_eq!(launched.lines(), ["reached gone"]);
    // Its instance is gone as well, as with `calls: per-call`; the launch is not.
    let host = Arc::clone(&launched.host);
    drop(launched);
    for _ in 0..100 {
        if !heard.lock().unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(*heard.lock().unwrap(), "the last word");
    drop(host);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_first_is_heard_and_a_reset_is_no_end() {
    let (port, _) = net::server(|mut stream| async move {
        let _ = stream.write_all(b"220 hello").await;
        let _ = stream.read(&mut [0; 16]).await;
        // With bytes that were not read, closing is a reset.
        let _ = stream.set_zero_linger();
    })
    .await;
    let granted = format!("net.tcp:mail.example:{port}");
    let guard = guard_for(&["mail.example"]);
    let to = format!("mail.example:{port}");
    let (line, _) = connects("tcp-hold", &to, &[&granted], guard.clone()).await;
    assert_eq!(line, "reached 9");
    let said = format!("{to}\nQUIT");
    let (line, decide) = connects("tcp", &said, &[&granted], guard.clone()).await;
    // What its library makes of a stream that failed.
    assert_eq!(line, "blocked Uncategorized", "{:?}", decide.record);
    let (lines, _) = third("tcp", &said, &[&granted], guard).await;
    assert!(lines[0].ends_with("received Err(ErrorCode::ConnectionReset)"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_end_with_the_right_and_with_their_instance() {
    let ended = Arc::new(AtomicUsize::new(0));
    let ends = Arc::clone(&ended);
    let (port, begun) = net::server(move |mut stream| {
        let ends = Arc::clone(&ends);
        async move {
            let _ = stream.read(&mut [0; 16]).await;
            ends.fetch_add(1, SeqCst);
        }
    })
    .await;
    let granted = format!("net.tcp:db.example:{port}");
    let granted = ["net.http:nowhere.example:80", granted.as_str()];
    let to = format!("db.example:{port}");
    let env = [("TASK", "tcp-hold"), ("WHAT", to.as_str())];
    let until = async |counter: &AtomicUsize, count: usize| {
        for _ in 0..300 {
            if counter.load(SeqCst) >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} of {count}", counter.load(SeqCst));
    };
    for (is_withdrawn, count) in [(true, 1), (false, 2)] {
        let decide = rights(&granted);
        let way_out = Some((guard_for(&["db.example"]), Arc::clone(&decide) as Arc<dyn Decide>));
        let launch = Launch { rights: &granted, env: &env, way_out, ..Launch::default() };
        let mut launched = launch.of(wasi_guest()).await.unwrap();
        let running = tokio::spawn(async move {
            launched.call("run", json!({})).await.unwrap();
            launched.lines()
        });
        until(&begun, count).await;
        assert_eq!(ended.load(SeqCst), count - 1, "it is open");
        if is_withdrawn {
            decide.withdraw();
            // What its library makes of a stream that failed.
            assert_eq!(running.await.unwrap(), ["blocked Uncategorized"]);
            assert_eq!(decide.recorded("closed"), 1, "{:?}", decide.record);
        } else {
            running.abort();
        }
        until(&ended, count).await;
    }
}
