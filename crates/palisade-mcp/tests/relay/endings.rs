//! Floods, deaths, silence, and sides that do not read.

use palisade_mcp::Ended;
use palisade_model::ErrorCode;
use serde_json::json;
use tokio::time::{Duration, timeout};

use crate::support::{Setup, Stage, call, done, tool};

fn request(id: u64, method: &str) -> serde_json::Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {}})
}

#[tokio::test]
async fn a_server_that_floods_is_stopped_and_its_requests_are_answered() {
    for flood in
        ["not json at all\n".repeat(100), "\n".repeat(1600), format!("{}\n", "y".repeat(1500))]
    {
        let mut setup = Setup::default();
        setup.options.noise_lines = 20_000;
        setup.options.noise_bytes = 200_000;
        let mut stage = setup.start();
        stage.ask(request(1, "x")).await;
        let writing = async {
            loop {
                use tokio::io::AsyncWriteExt as _;
                if stage.server.to.as_mut().unwrap().write_all(flood.as_bytes()).await.is_err() {
                    break;
                }
            }
        };
        timeout(Duration::from_secs(5), writing).await.expect("it is stopped");
        let answer = stage.client.next().await;
        assert_eq!(
            (&answer["id"], &answer["error"]["data"]["code"]),
            (&json!(1), &json!("PAL-PROTOCOL"))
        );
        assert_eq!(stage.client.line().await, None);
        let Ended::Breach(failure) = stage.ended().await else { panic!("a breach") };
        assert_eq!(failure.code, ErrorCode::ProtocolBreach);
    }
}

#[tokio::test]
async fn a_giant_line_of_the_server_ends_it() {
    let mut setup = Setup::default();
    setup.options.line_bytes = 100_000;
    let mut stage = setup.start();
    stage.ask(request(1, "x")).await;
    use tokio::io::AsyncWriteExt as _;
    let _ = stage.server.to.as_mut().unwrap().write_all(&vec![b'x'; 300_000]).await;
    let answer = stage.client.next().await;
    assert!(
        answer["error"]["message"].as_str().unwrap().contains("longer than 100000 bytes"),
        "{answer}"
    );
    assert!(matches!(stage.ended().await, Ended::Breach(_)));
}

#[tokio::test]
async fn a_server_that_dies_answers_everything_that_is_open() {
    let mut stage = Stage::new();
    stage.list(json!([tool("a")])).await;
    stage.ask(call(json!(1), "a")).await;
    stage.ask(request(2, "resources/list")).await;
    stage.server.close().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = stage.client.next().await;
        assert_eq!(answer["error"]["data"]["code"], "PAL-CRASHED");
        assert!(
            answer["error"]["message"].as_str().unwrap().contains("exited with status 3"),
            "{answer}"
        );
        ids.push(answer["id"].as_u64().unwrap());
    }
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
    assert_eq!(stage.client.line().await, None);
    let records = stage.records();
    let record = records.iter().rfind(|r| r.target.as_deref() == Some("a")).unwrap();
    assert_eq!(record.code, Some(ErrorCode::Crashed));
    let Ended::ServerEnded(failure) = stage.ended().await else { panic!("the server ended") };
    assert_eq!(failure.code, ErrorCode::Crashed);
}

#[tokio::test]
async fn a_call_that_waits_for_the_list_is_answered_when_the_server_dies() {
    let mut stage = Stage::new();
    stage.ask(call(json!(1), "a")).await;
    stage.server.close().await;
    assert_eq!(stage.client.next().await["id"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_initialize_is_ended() {
    let mut stage = Stage::new();
    stage.ask(request(1, "initialize")).await;
    let waiting = async {
        // The test's own deadlines are on the same clock.
        let mut line = String::new();
        use tokio::io::AsyncBufReadExt as _;
        stage.client.from.read_line(&mut line).await.unwrap();
        line
    };
    let line = waiting.await;
    let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&answer["id"], &answer["error"]["data"]["code"]),
        (&json!(1), &json!("PAL-DEADLINE"))
    );
    let Ended::Breach(failure) = stage.relay.await.unwrap() else { panic!("it is to be killed") };
    assert_eq!(failure.code, ErrorCode::Deadline);
}

async fn next_line(stage: &mut Stage) -> serde_json::Value {
    use tokio::io::AsyncBufReadExt as _;
    let mut line = String::new();
    stage.client.from.read_line(&mut line).await.unwrap();
    serde_json::from_str(&line).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_old_server_that_leaves_discover_unanswered_can_still_be_initialized() {
    let mut stage = Stage::new();
    stage.ask(request(1, "server/discover")).await;
    let answer = next_line(&mut stage).await;
    assert_eq!(answer["error"]["data"]["code"], "PAL-DEADLINE");
    // The relay tells the server too, as a client would.
    assert_eq!(stage.server.next().await["method"], "notifications/cancelled");
    stage.ask(request(2, "initialize")).await;
    let answer =
        stage.answer(json!({"jsonrpc": "2.0", "id": 2, "result": {"capabilities": {}}})).await;
    assert_eq!(answer["id"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_answer_is_given_up_and_progress_gives_it_time() {
    let mut setup = Setup::default();
    setup.options.call_timeout = Duration::from_secs(100);
    setup.options.longest_call = Duration::from_secs(250);
    let mut stage = setup.start();
    stage.list(json!([tool("a")])).await;
    let mut slow = call(json!(1), "a");
    slow["params"]["_meta"] = json!({"progressToken": "t"});
    let begun = tokio::time::Instant::now();
    stage.ask(slow).await;
    stage.ask(call(json!(2), "a")).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "t", "progress": 1}});
    stage.answer(progress.clone()).await;
    let answer = next_line(&mut stage).await;
    assert_eq!((&answer["id"], begun.elapsed().as_secs()), (&json!(2), 100));
    assert_eq!(answer["error"]["data"]["code"], "PAL-DEADLINE");
    assert_eq!(stage.server.next().await["params"]["requestId"], 2);
    // An answer that comes too late is left out, and is no noise.
    stage.server.send(done(json!(2))).await;
    tokio::time::sleep(Duration::from_secs(80)).await;
    stage.answer(progress).await;
    let answer = next_line(&mut stage).await;
    assert_eq!((&answer["id"], begun.elapsed().as_secs()), (&json!(1), 250), "the longest");
    assert_eq!(stage.notices(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_subscription_has_no_deadline() {
    let mut stage = Stage::new();
    stage.ask(request(1, "subscriptions/listen")).await;
    tokio::time::sleep(Duration::from_secs(100_000)).await;
    let event = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "x"}});
    assert_eq!(stage.answer(event.clone()).await, event);
}

#[tokio::test]
async fn a_client_that_writes_everything_and_closes_gets_its_answers() {
    let mut stage = Stage::new();
    stage.client.send(request(1, "initialize")).await;
    stage.client.send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    stage.client.send(call(json!(2), "a")).await;
    stage.client.close().await;
    assert_eq!(stage.server.next().await["method"], "initialize");
    stage.answer(json!({"jsonrpc": "2.0", "id": 1, "result": {}})).await;
    assert_eq!(stage.server.next().await["method"], "notifications/initialized");
    let list = stage.server.next().await;
    stage
        .server
        .send(json!({"jsonrpc": "2.0", "id": list["id"], "result": {"tools": [tool("a")]}}))
        .await;
    assert_eq!(stage.server.next().await["method"], "tools/call");
    assert_eq!(stage.server.line().await, None, "then its input is closed");
    assert_eq!(stage.answer(done(json!(2))).await, done(json!(2)));
    stage.server.close().await;
    assert_eq!(stage.ended().await, Ended::ClientClosed);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_does_not_keep_a_relay_whose_client_has_closed() {
    let mut stage = Stage::new();
    stage.ask(request(1, "subscriptions/listen")).await;
    stage.client.close().await;
    let begun = tokio::time::Instant::now();
    assert_eq!(stage.relay.await.unwrap(), Ended::ClientClosed);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_relay() {
    let mut stage = Stage::new();
    stage.ask(request(1, "x")).await;
    let (client, server) = (stage.client, &mut stage.server);
    drop(client);
    server.send(done(json!(1))).await;
    let ended = timeout(Duration::from_secs(10), stage.relay).await.unwrap().unwrap();
    assert_eq!(ended, Ended::ClientClosed);
}

#[tokio::test]
async fn a_server_that_ignores_the_end_of_its_input_does_not_keep_the_relay() {
    let mut stage = Stage::new();
    stage.client.close().await;
    assert_eq!(stage.server.line().await, None);
    assert_eq!(stage.ended().await, Ended::ClientClosed);
}

#[tokio::test]
async fn it_stops_when_told() {
    let mut stage = Stage::new();
    stage.ask(request(1, "x")).await;
    stage.stop.take().unwrap().send(()).unwrap();
    assert_eq!(stage.server.line().await, None);
    let records = stage.recorder.clone();
    assert_eq!(stage.ended().await, Ended::Stopped);
    assert_eq!(records.records().last().unwrap().code, Some(ErrorCode::Cancelled));
}

#[tokio::test]
async fn a_side_that_does_not_read_slows_the_other_and_nothing_piles_up() {
    // The server writes to a client that does not read.
    let mut setup = Setup { pipe: 4096, ..Setup::default() };
    setup.limits.rates.events_per_second = 1_000_000;
    let mut stage = setup.start();
    let line = format!(
        "{}\n",
        json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x".repeat(900)}})
    );
    let mut written = 0;
    use tokio::io::AsyncWriteExt as _;
    while timeout(
        Duration::from_millis(200),
        stage.server.to.as_mut().unwrap().write_all(line.as_bytes()),
    )
    .await
    .is_ok()
    {
        written += line.len();
        assert!(written < 200_000, "it does not pile up");
    }
    // Meanwhile the client can be heard: its requests and the refusals of the server's go on.
    stage.client.send(request(1, "ping")).await;
    assert_eq!(stage.server.next().await["method"], "ping");

    // The client writes to a server that does not read.
    let mut stage = Setup { pipe: 4096, ..Setup::default() }.start();
    let line = format!(
        "{}\n",
        json!({"jsonrpc": "2.0", "method": "notifications/x", "params": {"data": "x".repeat(900)}})
    );
    let mut written = 0;
    while timeout(
        Duration::from_millis(200),
        stage.client.to.as_mut().unwrap().write_all(line.as_bytes()),
    )
    .await
    .is_ok()
    {
        written += line.len();
        assert!(written < 200_000, "it does not pile up");
    }
    let hello = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
    assert_eq!(stage.answer(hello.clone()).await, hello);
    // A server that asks without reading what it is told is one that floods.
    let ask = format!("{}\n", json!({"jsonrpc": "2.0", "id": 1, "method": "roots/list"}));
    let flood = async {
        while stage.server.to.as_mut().unwrap().write_all(ask.as_bytes()).await.is_ok() {}
    };
    timeout(Duration::from_secs(30), flood).await.expect("it is stopped");
    assert!(matches!(stage.ended().await, Ended::Breach(_)));
}

#[tokio::test]
async fn notifications_beyond_the_rate_are_slowed_and_not_lost() {
    let mut setup = Setup::default();
    setup.limits.rates.events_per_second = 50;
    let mut stage = setup.start();
    let begun = std::time::Instant::now();
    for n in 0..75 {
        stage.server.send(json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": n}})).await;
    }
    for n in 0..75 {
        assert_eq!(stage.client.next().await["params"]["progress"], n);
    }
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
}
