//! What a hostile or broken plugin does to the wire: a typed end of its own connection, in time and in
//! bounded memory, and nothing else.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

use common::{Echo, Line, host, host_with, null, read_line, request, within};
use palisade_model::{ErrorCode, Failure, Payload};
use palisade_protocol::{CloseReason, Deadline, FrameError, PeerConfig, bounds, methods};

/// Sends `bytes` as the plugin while a request of the host is pending; returns how both ended.
async fn after(bytes: &[u8]) -> (CloseReason, Failure) {
    let (peer, handler, mut plugin) = host();
    let pending = request(&peer, "call");
    plugin.write_all(bytes).unwrap();
    let reason = within(peer.closed()).await;
    let failure = within(pending).await.unwrap_err();
    assert_eq!(handler.closes(), std::slice::from_ref(&reason), "the handler is told once");
    assert_eq!(within(request(&peer, "call")).await.unwrap_err().code, failure.code);
    // The plugin sees the end: what was sent to it, then nothing.
    plugin.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut rest = Vec::new();
    match plugin.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset),
    }
    (reason, failure)
}

#[tokio::test]
async fn every_malformed_frame_ends_the_connection_with_a_typed_breach() {
    let deep = format!("{{\"a\":{}{}}}\n", "[".repeat(100_000), "]".repeat(100_000));
    let empty = "\n".repeat(bounds::EMPTY_LINES + 1);
    let cases: &[(&[u8], &str)] = &[
        (b"hello from a print\n", "syntax"),
        (b"\x00\x01\x02\n", "syntax"),
        (b"{\"a\":\"\xff\"}\n", "not-utf8"),
        (b"{\"jsonrpc\":\"2.0\",\"method\":\"log\",\"params\":\"\\ud800\"}\n", "lone-surrogate"),
        (b"{\"jsonrpc\":\"2.0\",\"method\":\"log\",\"params\":\"\x07\"}\n", "control-character"),
        (b"[{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":1}]\n", "batch"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"x\"}\n", "id"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":1,\"result\":2}\n", "envelope"),
        (b"{\"jsonrpc\":\"2.0\",\"method\":\"log\"} {}\n", "trailing"),
        (deep.as_bytes(), "too-deep"),
        (empty.as_bytes(), "empty-lines"),
    ];
    for (bytes, name) in cases {
        let (reason, failure) = after(bytes).await;
        let CloseReason::Breach(breach) = reason else { panic!("{name}: {reason:?}") };
        assert_eq!(breach.name(), *name);
        assert_eq!(failure.code, ErrorCode::ProtocolBreach, "{name}");
        assert_eq!(failure.rule, Some(format!("protocol:{name}")));
    }
}

#[tokio::test]
async fn ends_of_the_stream_are_told_apart() {
    for (bytes, mid_frame) in [(&b""[..], false), (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"resu", true)] {
        let (peer, _, mut plugin) = host();
        let pending = request(&peer, "call");
        read_line(&mut plugin);
        plugin.write_all(bytes).unwrap();
        drop(plugin);
        assert_eq!(within(peer.closed()).await, CloseReason::Closed { mid_frame });
        let failure = within(pending).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::Crashed);
        assert_eq!(failure.message.contains("middle of a message"), mid_frame, "{failure}");
    }
    // Closing only its sending side ends the connection too.
    let (peer, _, plugin) = host();
    plugin.shutdown(Shutdown::Write).unwrap();
    assert_eq!(within(peer.closed()).await, CloseReason::Closed { mid_frame: false });
}

#[tokio::test]
async fn what_came_before_the_end_is_still_delivered() {
    let (peer, handler, mut plugin) = host();
    let pending = request(&peer, "call");
    // The request is never read: the kernel reports a reset instead of an orderly end.
    plugin
        .write_all(b"{\"jsonrpc\":\"2.0\",\"method\":\"log\"}\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":5}\n")
        .unwrap();
    drop(plugin);
    assert_eq!(within(pending).await.unwrap().bytes(), "5");
    assert_eq!(within(peer.closed()).await, CloseReason::Closed { mid_frame: false });
    assert_eq!(handler.notifications(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_of_a_gigabyte_is_refused_after_four_megabytes() {
    let (peer, _, mut plugin) = host();
    let writer = std::thread::spawn(move || {
        let chunk = vec![b'x'; 64 << 10];
        let mut written = 0usize;
        while written < 1 << 30 && plugin.write_all(&chunk).is_ok() {
            written += chunk.len();
        }
        written
    });
    assert_eq!(within(peer.closed()).await, CloseReason::Breach(FrameError::TooLong));
    let written = writer.join().unwrap();
    assert!((4 << 20..6 << 20).contains(&written), "{written} bytes were taken");
}

#[tokio::test]
async fn an_id_in_flight_cannot_be_used_again_but_one_answered_can() {
    let (peer, _, mut plugin) = host();
    for _ in 0..3 {
        plugin
            .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"echo\",\"params\":1}\n")
            .unwrap();
        within(Line::of(&mut plugin)).await.expect(r#"{"jsonrpc":"2.0","id":"a","result":1}"#);
    }
    for id in ["\"a\"", "7"] {
        let (peer, handler, mut plugin) = host();
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"never\"}}\n");
        plugin.write_all(line.repeat(2).as_bytes()).unwrap();
        let reason = within(peer.closed()).await;
        assert_eq!(reason, CloseReason::Breach(FrameError::DuplicateId { id: id.into() }));
        within(handler.dropped(1)).await;
    }
    assert_eq!(peer.close_reason(), None, "another plugin's connection is undisturbed");
}

#[tokio::test]
async fn large_numbers_pass_both_ways_digit_by_digit() {
    let (peer, _, mut plugin) = host();
    plugin
        .write_all(
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":[9007199254740993]}\n",
        )
        .unwrap();
    within(Line::of(&mut plugin))
        .await
        .expect(r#"{"jsonrpc":"2.0","id":1,"result":[9007199254740993]}"#);
    let pending = peer.request("call", &Payload::from_json_text("18446744073709551617"), None);
    within(Line::of(&mut plugin))
        .await
        .expect(r#"{"jsonrpc":"2.0","id":1,"method":"call","params":18446744073709551617}"#);
    plugin.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":18446744073709551617}\n").unwrap();
    assert_eq!(within(pending).await.unwrap().bytes(), "18446744073709551617");
}

#[tokio::test]
async fn late_answers_are_dropped_and_never_reach_another_request() {
    let (peer, _, mut plugin) = host();
    for n in 1..=80u64 {
        let timed = peer.request("call", &null(), Some(Deadline::after(Duration::from_millis(20))));
        read_line(&mut plugin);
        assert_eq!(within(timed).await.unwrap_err().code, ErrorCode::Deadline);
        within(Line::of(&mut plugin))
            .await
            .expect(&format!(r#"{{"jsonrpc":"2.0","method":"$/cancel","params":{{"id":{n}}}}}"#));
    }
    let pending = request(&peer, "call");
    read_line(&mut plugin);
    for n in 1..=80 {
        writeln!(plugin, r#"{{"jsonrpc":"2.0","id":{n},"result":"late"}}"#).unwrap();
    }
    plugin.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":81,\"result\":\"mine\"}\n").unwrap();
    assert_eq!(within(pending).await.unwrap().bytes(), "\"mine\"");
    let stats = peer.stats();
    assert_eq!((stats.late_answers, stats.strikes), (80, 0));
}

#[tokio::test]
async fn of_two_answers_the_first_counts_and_too_many_stray_ones_are_a_breach() {
    let (peer, _, mut plugin) = host();
    let pending = request(&peer, "call");
    plugin
        .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":1}\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":2}\n")
        .unwrap();
    assert_eq!(within(pending).await.unwrap().bytes(), "1");
    for id in ["0", "99999", "\"1\""] {
        writeln!(plugin, r#"{{"jsonrpc":"2.0","id":{id},"result":0}}"#).unwrap();
    }
    plugin.write_all(b"{\"jsonrpc\":\"2.0\",\"method\":\"$/cancel\",\"params\":7}\n").unwrap();
    plugin.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"echo\"}\n").unwrap();
    read_line(&mut plugin);
    within(Line::of(&mut plugin)).await.expect(r#"{"jsonrpc":"2.0","id":5,"result":null}"#);
    assert_eq!(peer.stats().strikes, 5, "a double answer, three unknown ids, a bad cancellation");
    for _ in 5..=bounds::STRIKES {
        plugin.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":0}\n").unwrap();
    }
    assert_eq!(within(peer.closed()).await, CloseReason::Breach(FrameError::Strikes));
}

fn open_handles() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn handles_nobody_asked_for_end_the_connection_and_are_closed() {
    for count in [1, 16, 253] {
        let (peer, _, plugin) = host();
        // Give the driver its registration before counting.
        tokio::task::yield_now().await;
        let null = std::fs::File::open("/dev/null").unwrap();
        let before = open_handles();
        common::send_handles(&plugin, &vec![null.as_fd(); count]);
        match within(peer.closed()).await {
            CloseReason::Breach(FrameError::UnaskedHandles { count: taken, truncated }) => {
                // The padding of the control message leaves room for one or two more.
                assert!((count.min(16)..=18).contains(&taken), "{taken} of {count} were taken");
                assert_eq!(truncated, count > 18);
            }
            other => panic!("{count} handles: {other:?}"),
        }
        // The connection's own descriptor goes as well.
        for _ in 0..100 {
            if open_handles() < before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(open_handles() < before, "{count} handles: some were kept");
    }
}

#[tokio::test]
async fn a_plugin_that_never_reads_costs_bounded_memory_and_time() {
    let config = PeerConfig { write_timeout: Duration::from_millis(300), ..PeerConfig::default() };
    let (peer, _, plugin) = host_with(config);
    let big = Payload::from_json_text(format!("\"{}\"", "x".repeat(1 << 20)));
    let start = Instant::now();
    // 8 MiB fit the queue and some the kernel; the others wait, and their waiting ends.
    let pending: Vec<_> = (0..30).map(|_| peer.request("call", &big, None)).collect();
    let mut failed = 0;
    let mut alive = Vec::new();
    for mut request in pending {
        // The first that waits in vain takes the time; for the others it has passed by then.
        let patience = Duration::from_millis(if failed == 0 { 100 } else { 20 });
        match tokio::time::timeout(patience, &mut request).await {
            Ok(outcome) => {
                assert_eq!(outcome.unwrap_err().code, ErrorCode::Deadline);
                assert!(start.elapsed() >= Duration::from_millis(300));
                failed += 1;
            }
            Err(_) => alive.push(request),
        }
    }
    assert!((20..=23).contains(&failed), "{failed} of 30 MiB were refused");
    // A short deadline counts in the queue as well, and a request with one is not late.
    let soon = peer.request("call", &big, Some(Deadline::after(Duration::from_millis(50))));
    let start = Instant::now();
    assert_eq!(within(soon).await.unwrap_err().code, ErrorCode::Deadline);
    assert!(start.elapsed() < Duration::from_millis(250));
    assert_eq!(within(peer.notify("x", &big)).await.unwrap_err().code, ErrorCode::Deadline);
    assert_eq!(peer.close_reason(), None, "not reading is no breach by itself");
    drop(plugin);
    for request in alive {
        assert_eq!(within(request).await.unwrap_err().code, ErrorCode::Crashed);
    }
}

#[tokio::test]
async fn a_queue_that_is_read_again_lets_everybody_on() {
    let config = PeerConfig { queue_bytes: 1 << 20, ..PeerConfig::default() };
    let (peer, _, mut plugin) = host_with(config);
    let big = Payload::from_json_text(format!("\"{}\"", "x".repeat(300 << 10)));
    let pending: Vec<_> = (0..20).map(|_| peer.request("echo", &big, None)).collect();
    let answers = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        for _ in 0..20 {
            let line = read_line(&mut plugin);
            let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(value["params"].as_str().unwrap().len(), 300 << 10);
            writeln!(plugin, r#"{{"jsonrpc":"2.0","id":{},"result":true}}"#, value["id"]).unwrap();
        }
        plugin
    });
    for request in pending.into_iter().map(|r| tokio::spawn(r)) {
        assert_eq!(within(request).await.unwrap().unwrap().bytes(), "true");
    }
    answers.join().unwrap();
}

#[tokio::test]
async fn an_answer_that_is_not_read_ends_the_connection() {
    let config = PeerConfig {
        write_timeout: Duration::from_millis(200),
        queue_bytes: 1 << 20,
        ..PeerConfig::default()
    };
    let (peer, _, mut plugin) = host_with(config);
    for n in 0..10 {
        writeln!(plugin, r#"{{"jsonrpc":"2.0","id":{n},"method":"megabyte"}}"#).unwrap();
    }
    let reason = within(peer.closed()).await;
    assert_eq!(
        reason,
        CloseReason::Breach(FrameError::Stalled { after: Duration::from_millis(200) })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_hold_bounded_memory() {
    let config = PeerConfig { incoming_bytes: 2 << 20, ..PeerConfig::default() };
    let (peer, handler, mut plugin) = host_with(config);
    let text = "x".repeat(900 << 10);
    for n in 0..4 {
        writeln!(plugin, r#"{{"jsonrpc":"2.0","id":{n},"method":"never","params":"{text}"}}"#)
            .unwrap();
    }
    for _ in 2..4 {
        let line = within(Line::of(&mut plugin)).await;
        assert!(line.0.contains("PAL-LIMIT"), "{}", line.0);
    }
    assert_eq!(handler.requests(), 2);
    // What is over is held no longer.
    for n in 0..2 {
        writeln!(plugin, r#"{{"jsonrpc":"2.0","method":"$/cancel","params":{{"id":{n}}}}}"#)
            .unwrap();
        assert!(within(Line::of(&mut plugin)).await.0.contains("PAL-CANCELLED"));
    }
    within(handler.dropped(2)).await;
    writeln!(plugin, r#"{{"jsonrpc":"2.0","id":9,"method":"echo","params":"{text}{text}{text}"}}"#)
        .unwrap();
    assert!(within(Line::of(&mut plugin)).await.0.contains(&text), "a single one always passes");
    assert_eq!(peer.stats().refused_requests, 2);
}

#[tokio::test]
async fn answers_that_wait_to_be_read_hold_bounded_memory() {
    let config =
        PeerConfig { incoming_bytes: 3 << 20, queue_bytes: 2 << 20, ..PeerConfig::default() };
    let (_peer, handler, mut plugin) = host_with(config);
    for n in 0..20 {
        writeln!(plugin, r#"{{"jsonrpc":"2.0","id":{n},"method":"megabyte"}}"#).unwrap();
    }
    while handler.requests() < 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut whole = 0;
    for _ in 0..20 {
        let line = within(Line::of(&mut plugin)).await;
        if line.0.len() > 1 << 20 {
            whole += 1;
        } else {
            assert!(line.0.contains("PAL-LIMIT"), "{}", line.0);
        }
    }
    assert!((3..=6).contains(&whole), "{whole} of 20 MiB were kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_the_bound_are_refused_and_not_queued() {
    let config = PeerConfig { incoming_requests: 4, ..PeerConfig::default() };
    let (peer, handler, mut plugin) = host_with(config);
    for n in 0..10 {
        writeln!(plugin, r#"{{"jsonrpc":"2.0","id":{n},"method":"never"}}"#).unwrap();
    }
    for n in 4..10 {
        let line = within(Line::of(&mut plugin)).await;
        let value: serde_json::Value = serde_json::from_str(&line.0).unwrap();
        assert_eq!(
            (value["id"].as_u64(), value["error"]["code"].as_i64()),
            (Some(n), Some(-32006))
        );
        assert_eq!(value["error"]["data"]["code"], "PAL-LIMIT");
    }
    assert_eq!((handler.requests(), peer.stats().refused_requests), (4, 6));
    // Refusals that are never read end the connection instead of piling up.
    let flood = std::thread::spawn(move || {
        let mut n = 100;
        while writeln!(plugin, r#"{{"jsonrpc":"2.0","id":{n},"method":"never"}}"#).is_ok() {
            n += 1;
        }
    });
    assert_eq!(within(peer.closed()).await, CloseReason::Breach(FrameError::Flooded));
    flood.join().unwrap();
    within(handler.dropped(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_notifications_does_not_keep_others_from_their_answers() {
    let (peer, handler, mut plugin) = host();
    let mut answers = plugin.try_clone().unwrap();
    let flood = std::thread::spawn(move || {
        let lines = b"{\"jsonrpc\":\"2.0\",\"method\":\"log\",\"params\":{}}\n".repeat(1000);
        while plugin.write_all(&lines).is_ok() {}
    });
    let other = host();
    let answering = std::thread::spawn(move || {
        let mut plugin = other.2;
        for _ in 0..20 {
            let line: serde_json::Value = serde_json::from_slice(&read_line(&mut plugin)).unwrap();
            writeln!(plugin, r#"{{"jsonrpc":"2.0","id":{},"result":1}}"#, line["id"]).unwrap();
        }
        // Nobody reads the flooded connection's requests, so its own calls meet their deadline.
        read_line(&mut answers);
    });
    for _ in 0..20 {
        within(request(&other.0, "call")).await.unwrap();
    }
    let timed = peer.request("call", &null(), Some(Deadline::after(Duration::from_millis(100))));
    let start = Instant::now();
    assert_eq!(within(timed).await.unwrap_err().code, ErrorCode::Deadline);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(handler.notifications() > 1000);
    peer.close();
    flood.join().unwrap();
    answering.join().unwrap();
}

#[tokio::test]
async fn a_handler_that_panics_is_answered_for() {
    let (peer, _, mut plugin) = host();
    plugin.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"panic\"}\n").unwrap();
    let line = within(Line::of(&mut plugin)).await;
    assert!(line.0.contains("PAL-INTERNAL"), "{}", line.0);
    assert_eq!(peer.close_reason(), None);
}

#[tokio::test]
async fn reserved_names_are_refused() {
    let (peer, handler, mut plugin) = host();
    for (method, text) in [("$/stream.open", "reserved"), ("$/x", "no such method")] {
        writeln!(plugin, r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#).unwrap();
        let line = within(Line::of(&mut plugin)).await;
        assert!(line.0.contains("-32601") && line.0.contains(text), "{}", line.0);
    }
    for method in ["$/stream.chunk", "$/unknown", methods::PROGRESS] {
        writeln!(plugin, r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"id":1,"done":1}}}}"#)
            .unwrap();
    }
    plugin.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"echo\"}\n").unwrap();
    within(Line::of(&mut plugin)).await;
    assert_eq!((handler.requests(), handler.notifications()), (1, 1), "progress is handed over");
    assert_eq!(peer.stats().ignored_notifications, 2);
}

#[tokio::test]
async fn nothing_unsendable_is_sent() {
    let (peer, _, mut plugin) = host();
    let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
    let long = format!("\"{}\"", "x".repeat(bounds::FRAME_BYTES - 20));
    let cases = [
        (Payload::from_json_text("1}\n{"), ErrorCode::InvalidParams),
        (Payload::from_json_text("\"\\ud800\""), ErrorCode::InvalidParams),
        (Payload::from_json_text(deep), ErrorCode::InvalidParams),
        (Payload::octets("1"), ErrorCode::InvalidParams),
        (Payload::from_json_text(long), ErrorCode::LimitExceeded),
    ];
    for (payload, code) in cases {
        assert_eq!(within(peer.request("call", &payload, None)).await.unwrap_err().code, code);
        assert_eq!(within(peer.notify("x", &payload)).await.unwrap_err().code, code);
    }
    let passed = peer.request("call", &null(), Some(Deadline::after(Duration::ZERO)));
    assert_eq!(within(passed).await.unwrap_err().code, ErrorCode::Deadline);
    assert!(peer.request("a\"b", &null(), None).await.is_err());
    let kept = request(&peer, "call");
    let line = String::from_utf8(read_line(&mut plugin)).unwrap();
    assert!(line.contains("\"method\":\"call\""), "nothing came before: {line}");
    // An answer that is too long, or no JSON, is an error answer; the connection stands.
    for (n, method) in ["five_megabytes", "no_json"].iter().enumerate() {
        writeln!(plugin, r#"{{"jsonrpc":"2.0","id":{n},"method":"{method}"}}"#).unwrap();
        let line = within(Line::of(&mut plugin)).await;
        assert!(line.0.contains("\"error\"") && line.0.len() < 500, "{}", line.0);
    }
    assert_eq!(peer.close_reason(), None);
    drop(kept);
}

#[tokio::test]
async fn the_plugin_side_of_the_same_type_works() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (host, plugin) = (common::peer(ours, Echo::new(), PeerConfig::default()), {
        let side = palisade_protocol::Side::Plugin;
        common::peer(theirs, Echo::new(), PeerConfig { side, ..PeerConfig::default() })
    });
    let failure = within(request(&plugin, "denied")).await.unwrap_err();
    assert_eq!((failure.code, failure.rule.as_deref()), (ErrorCode::Denied, Some("grant")));
    let failure = within(request(&host, "denied")).await.unwrap_err();
    assert_eq!(
        (failure.code, failure.rule),
        (ErrorCode::PluginError, None),
        "not the plugin's to say"
    );
}
