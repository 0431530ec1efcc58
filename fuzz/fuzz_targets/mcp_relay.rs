//! The relay between a client and a server of MCP, both made of the input: nothing panics, a tool without
//! a right is neither shown nor called, and what is not granted is never asked of the client.
//!
//! Each line of the input is one of a stream: `C` from the client, `S` from the server. `$OWN` in a line of
//! the server is the id of the relay's own last question.
#![no_main]

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use libfuzzer_sys::fuzz_target;
use palisade_audit::{MemoryRecorder, SystemClock};
use palisade_broker::{Caller, Gate};
use palisade_mcp::{MemoryPins, Options, Relay, Silent};
use palisade_model::{
    ErrorCode, Failure, Generation, InstanceId, Limits, NodeId, Origin, PluginId, PluginRef,
};
use palisade_policy::Rules;
use serde_json::Value;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// What the relay writes.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl AsyncWrite for Written {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Written {
    /// As readers cut it that take a carriage return for the end of a line too.
    fn messages(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap();
        let lines = bytes.split(|b| matches!(b, b'\n' | b'\r'));
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

/// A value's member, as a parser finds it that does not mind case.
fn member<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    let object = value.as_object()?;
    object.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v)
}

fn server() -> Arc<Caller> {
    let plugin = PluginRef {
        id: PluginId::parse("fuzz").unwrap(),
        origin: Origin::Command { path: "/fuzz".into() },
    };
    let instance = InstanceId {
        node: NodeId::local(),
        plugin: Arc::new(plugin),
        generation: Generation(1),
        serial: 1,
    };
    let rights = ["tool:ok*", "mcp.roots:*"].iter().map(|r| r.parse().unwrap()).collect();
    let rules = Arc::new(Rules::new(rights, []));
    Caller::plugin(instance, rules, &Limits::default(), Arc::new(SystemClock))
}

async fn converse(input: &[u8]) -> (Written, Written) {
    let options = Options { noise_lines: 50, noise_bytes: 10_000, ..Options::default() };
    let relay = Relay::new(
        Gate::new(Arc::new(MemoryRecorder::new(100))),
        Caller::application(),
        server(),
        Arc::new(MemoryPins::default()),
        Arc::new(Silent),
        options,
    );
    let (to_client, to_server) = (Written::default(), Written::default());
    let (mut client, from_client) = tokio::io::duplex(1 << 20);
    let (mut server, from_server) = tokio::io::duplex(1 << 20);
    let seen_by_server = to_server.clone();
    let driver = async move {
        for line in input.split_inclusive(|b| *b == b'\n') {
            let Some((side, line)) = line.split_first() else { continue };
            if *side == b'S' {
                let own = seen_by_server.messages().into_iter().rev().find_map(|message| {
                    let id = message.get("id")?.as_str()?;
                    id.starts_with("palisade:").then(|| id.to_owned())
                });
                let text = String::from_utf8_lossy(line);
                let bytes = match own {
                    Some(own) if text.contains("$OWN") => text.replace("$OWN", &own).into_bytes(),
                    _ => line.to_vec(),
                };
                let _ = server.write_all(&bytes).await;
            } else {
                let _ = client.write_all(line).await;
            }
            for _ in 0..16 {
                tokio::task::yield_now().await;
            }
        }
        drop(client);
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
        drop(server);
    };
    let ends = ((from_client, to_client.clone()), (from_server, to_server.clone()));
    let died = async { Failure::new(ErrorCode::Crashed, "over") };
    let _ = tokio::join!(relay.run(ends.0, ends.1, std::future::pending(), died), driver);
    (to_client, to_server)
}

fuzz_target!(|input: &[u8]| {
    if input.len() > 1 << 16 {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let (to_client, to_server) = runtime.block_on(converse(input));
    let is_hidden = |tool: &Value| {
        member(tool, "name").and_then(Value::as_str).is_none_or(|n| !n.starts_with("ok"))
    };
    // Ids that stand for lists of tools and nothing else, as far as the server could see.
    let asked = to_server.messages();
    let method = |m: &Value| member(m, "method").and_then(Value::as_str).map(str::to_owned);
    for message in &asked {
        if method(message).as_deref() == Some("tools/call") {
            let params = member(message, "params").expect("a call has parameters");
            assert!(!is_hidden(params), "called: {message}");
        }
    }
    for message in to_client.messages() {
        if let Some(method) = method(&message) {
            let forbidden = ["sampling/createMessage", "elicitation/create"];
            assert!(!forbidden.contains(&method.as_str()), "asked: {message}");
        }
        let Some(result) = member(&message, "result") else { continue };
        for carrier in [Some(result), member(result, "task")].into_iter().flatten() {
            let requests = member(carrier, "inputRequests").and_then(Value::as_object);
            for request in requests.into_iter().flat_map(|r| r.values()) {
                assert_eq!(method(request).as_deref(), Some("roots/list"), "asked: {message}");
            }
        }
        let id = member(&message, "id");
        let same: Vec<_> = asked.iter().filter(|m| member(m, "id") == id).collect();
        if !same.is_empty() && same.iter().all(|m| method(m).as_deref() == Some("tools/list")) {
            let tools = member(result, "tools").and_then(Value::as_array);
            assert!(!tools.into_iter().flatten().any(is_hidden), "shown: {message}");
        }
    }
});
