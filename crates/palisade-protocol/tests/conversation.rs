//! Two well-behaved ends: cancellation, deadlines, many requests at once, orderly and hasty ends.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Echo, Line, host, null, peer, read_line, request, within};
use palisade_model::{ErrorCode, Payload};
use palisade_protocol::{CloseReason, Deadline, Peer, PeerConfig, Side};

/// Two ends with `requests` allowed in flight each way.
fn both_ends(requests: usize) -> [(Peer, Arc<Echo>); 2] {
    let (ours, theirs) = UnixStream::pair().unwrap();
    [(ours, Side::Host), (theirs, Side::Plugin)].map(|(end, side)| {
        let handler = Echo::new();
        let config = PeerConfig {
            side,
            outgoing_requests: requests,
            incoming_requests: requests,
            ..PeerConfig::default()
        };
        (peer(end, Arc::clone(&handler), config), handler)
    })
}

/// Sends `count` requests at once, all different, and checks every answer.
async fn all_at_once(peer: Peer, count: u32) {
    let pending: Vec<_> = (0..count)
        .map(|n| {
            // Some are longer than a read, some than a socket buffer.
            let length = if n % 50 == 0 { 200_000 } else { n as usize };
            let params = Payload::from_json_text(format!("[{n},\"{}\"]", "x".repeat(length)));
            (peer.request("echo", &params, Some(Deadline::after(Duration::from_secs(20)))), params)
        })
        .collect();
    for (request, params) in pending {
        assert_eq!(within(request).await.unwrap(), params);
    }
}

async fn a_thousand_both_ways() {
    let [(a, a_handler), (b, b_handler)] = both_ends(1000);
    let (one, two) =
        (tokio::spawn(all_at_once(a.clone(), 1000)), tokio::spawn(all_at_once(b.clone(), 1000)));
    one.await.unwrap();
    two.await.unwrap();
    assert_eq!((a_handler.requests(), b_handler.requests()), (1000, 1000));
    for end in [&a, &b] {
        assert_eq!((end.stats(), end.close_reason()), (Default::default(), None));
    }
}

#[tokio::test]
async fn a_thousand_requests_both_ways_on_one_thread() {
    a_thousand_both_ways().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_both_ways_on_two_threads() {
    a_thousand_both_ways().await;
}

#[tokio::test]
async fn own_requests_beyond_the_bound_fail_at_once() {
    let [(a, _), (_b, b_handler)] = both_ends(3);
    let pending: Vec<_> = (0..3).map(|_| request(&a, "never")).collect();
    let failure = within(request(&a, "echo")).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::LimitExceeded);
    drop(pending);
    within(b_handler.dropped(3)).await;
    within(request(&a, "echo")).await.unwrap();
    assert_eq!(a.stats().late_answers, 3, "a cancelled request is answered, and that is dropped");
}

#[tokio::test]
async fn dropping_the_future_cancels_the_other_sides_work() {
    let [(a, a_handler), (b, b_handler)] = both_ends(256);
    for (from, to) in [(&a, &b_handler), (&b, &a_handler)] {
        let pending = request(from, "never");
        while to.requests() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(pending);
        within(to.dropped(1)).await;
        // The connection goes on.
        assert_eq!(within(request(from, "echo")).await.unwrap(), null());
    }
}

#[tokio::test]
async fn a_plugin_that_cancels_is_told_so_once() {
    let (peer, handler, mut plugin) = host();
    use std::io::Write;
    plugin
        .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"never\"}\n{\"jsonrpc\":\"2.0\",\"method\":\"$/cancel\",\"params\":{\"id\":\"a\"}}\n")
        .unwrap();
    let line = within(Line::of(&mut plugin)).await;
    assert!(line.0.contains("\"id\":\"a\"") && line.0.contains("PAL-CANCELLED"), "{}", line.0);
    within(handler.dropped(1)).await;
    // Cancelling what is over, or never was, is nothing; the id may be used again.
    for _ in 0..100 {
        plugin
            .write_all(b"{\"jsonrpc\":\"2.0\",\"method\":\"$/cancel\",\"params\":{\"id\":\"a\"}}\n")
            .unwrap();
    }
    plugin.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"echo\"}\n").unwrap();
    within(Line::of(&mut plugin)).await.expect(r#"{"jsonrpc":"2.0","id":"a","result":null}"#);
    assert_eq!(peer.stats().strikes, 0);
}

#[tokio::test]
async fn deadlines_are_kept_in_any_order() {
    let (peer, _, mut plugin) = host();
    let start = Instant::now();
    let after = |ms| peer.request("x", &null(), Some(Deadline::after(Duration::from_millis(ms))));
    let (late, soon, middle) = (after(300), after(50), after(150));
    for (timed, ms) in [(soon, 50), (middle, 150), (late, 300)] {
        assert_eq!(within(timed).await.unwrap_err().code, ErrorCode::Deadline);
        let elapsed = start.elapsed();
        assert!(elapsed >= Duration::from_millis(ms), "{ms} ms: {elapsed:?}");
        assert!(elapsed < Duration::from_millis(ms + 1000), "{ms} ms: {elapsed:?}");
    }
    for _ in 0..3 {
        read_line(&mut plugin);
    }
    for id in [2, 3, 1] {
        within(Line::of(&mut plugin))
            .await
            .expect(&format!(r#"{{"jsonrpc":"2.0","method":"$/cancel","params":{{"id":{id}}}}}"#));
    }
}

#[tokio::test]
async fn the_last_handle_closes_and_everybody_learns_it() {
    let [(a, a_handler), (b, b_handler)] = both_ends(256);
    let pending = request(&b, "never");
    let (one, two) = (
        tokio::spawn({
            let b = b.clone();
            async move { b.closed().await }
        }),
        b.closed(),
    );
    let clone = a.clone();
    drop(a);
    assert_eq!(
        within(clone.request("echo", &null(), None)).await.unwrap(),
        null(),
        "a clone holds it"
    );
    drop(clone);
    assert_eq!(within(two).await, CloseReason::Closed { mid_frame: false });
    assert_eq!(within(one).await.unwrap(), CloseReason::Closed { mid_frame: false });
    assert_eq!(within(pending).await.unwrap_err().code, ErrorCode::Crashed);
    within(a_handler.dropped(1)).await;
    assert_eq!(a_handler.closes(), [CloseReason::Local]);
    assert_eq!(b_handler.closes(), [CloseReason::Closed { mid_frame: false }]);
}

#[tokio::test]
async fn a_dropped_driver_closes() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let (peer, driver) = Peer::start(ours, Echo::new(), PeerConfig::default()).unwrap();
    let pending = request(&peer, "echo");
    drop(driver);
    assert_eq!(within(pending).await.unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(peer.close_reason(), Some(CloseReason::Local));
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    assert!(Peer::start(ours, Echo::new(), PeerConfig::default()).is_err());
}

#[test]
fn a_runtime_that_ends_under_load_ends_cleanly() {
    for _ in 0..20 {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let ends = runtime.block_on(async {
            let [a, b] = both_ends(256);
            for _ in 0..5 {
                tokio::spawn(all_at_once(a.0.clone(), 20));
                tokio::spawn(all_at_once(b.0.clone(), 20));
            }
            [a, b]
        });
        runtime.shutdown_timeout(Duration::from_secs(10));
        for (end, handler) in ends {
            assert!(end.close_reason().is_some());
            assert_eq!(handler.closes().len(), 1);
        }
    }
}
