//! The plugin on docs/reference/protocol.md is run as it stands there, and the conversation shown there
//! is what really happens.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    io::Write,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{Echo, peer, read_line, within};
use palisade_model::{ErrorCode, Payload};
use palisade_protocol::{
    Deadline, Peer, PeerConfig, VersionRange,
    methods::{self, InitializeResult},
};

const PAGE: &str = include_str!("../../../docs/reference/protocol.md");

/// The fenced block after the marker `<!-- example: NAME -->`.
fn example(name: &str) -> String {
    let (_, after) =
        PAGE.split_once(&format!("<!-- example: {name} -->\n```")).expect("the marker");
    let (_, body) = after.split_once('\n').unwrap();
    body.split_once("\n```").unwrap().0.to_owned() + "\n"
}

/// Starts the page's plugin with the other end of `ours` as file descriptor 3.
fn start() -> (UnixStream, Child) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    // The shell moves the socket from stdin to 3: std can place a descriptor at 0, 1 or 2 only.
    let child = Command::new("sh")
        .args(["-c", "exec python3 -c \"$0\" 3<&0 0</dev/null"])
        .arg(example("plugin.py"))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    (ours, child)
}

#[tokio::test]
async fn the_plugin_on_the_page_talks_with_a_peer() {
    let (ours, mut child) = start();
    let handler = Echo::new();
    let host: Peer = peer(ours, handler.clone(), PeerConfig::default());
    let ask = |method: &str, params: serde_json::Value| {
        let deadline = Some(Deadline::after(Duration::from_secs(20)));
        host.request(method, &Payload::json(&params).unwrap(), deadline)
    };
    let params = serde_json::json!({
        "protocol": VersionRange::SUPPORTED, "features": [], "plugin": {"id": "greeter"},
        "host": {"name": "palisade", "version": "0.1.0"}, "config": {}, "rights": [],
    });
    let answer = within(ask(methods::INITIALIZE, params)).await.unwrap();
    let result = InitializeResult::read(&answer, VersionRange::SUPPORTED).unwrap();
    assert_eq!((result.protocol, result.plugin.unwrap().name.as_str()), (1, "greeter"));

    let args = Payload::from_json_text(r#"{"name":"Zoë \ud83d\ude00"}"#);
    let call = host.request(methods::CALL, &methods::call_params("greet", &args), None);
    let text: serde_json::Value = within(call).await.unwrap().parse().unwrap();
    assert_eq!(text["text"], "Hello, Zoë 😀!");
    assert_eq!(handler.notifications(), 1, "its log line");

    let failure = within(ask(methods::HOOK, serde_json::Value::Null)).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::NotFound);
    let failure = within(ask(methods::CALL, serde_json::json!({}))).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::PluginError, "a KeyError is the plugin's own error");
    within(ask(methods::SHUTDOWN, serde_json::json!({"reason": "test", "grace_ms": 1000})))
        .await
        .unwrap();
    host.close();
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_conversation_on_the_page_is_what_happens() {
    let (mut ours, mut child) = start();
    for line in example("transcript").lines() {
        match line.split_at(2) {
            ("> ", sent) => writeln!(ours, "{sent}").unwrap(),
            ("< ", expected) => {
                assert_eq!(String::from_utf8(read_line(&mut ours)).unwrap(), expected);
            }
            other => panic!("not a line of a conversation: {other:?}"),
        }
    }
    drop(ours);
    assert!(child.wait().unwrap().success());
}
