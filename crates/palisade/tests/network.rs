//! Unmodified programs and the network: through the guard or not at all, behind real walls.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use palisade::{
    ConverseOptions, Kind, Origin,
    audit::{Decision, MemoryRecorder, RecordKind},
    egress::{AddressPolicy, BoxFuture, Guard, Resolve},
    prelude::*,
};
use serde_json::{Value, json};

/// Fetches by the standard library, which reads the proxy variables; and by a bare socket, which does not.
const SERVER: &str = r#"
import json, os, socket, sys, urllib.request
def say(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
def fetch(args):
    try:
        with urllib.request.urlopen(args["url"], timeout=5) as answer:
            return answer.read().decode()
    except Exception as e:
        return f"{type(e).__name__}: {e}"
def bare(args):
    """By name, as a program that knows of no proxy does it."""
    try:
        with socket.create_connection((args["host"], args["port"]), timeout=5) as s:
            s.sendall(f"GET / HTTP/1.1\r\nHost: {args['say'] or args['host']}:{args['port']}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := s.recv(4096):
                answer += piece
            return answer.decode().splitlines()[0] if answer else "closed"
    except OSError as e:
        return f"{type(e).__name__}"
def look_up(args):
    try:
        return socket.getaddrinfo(args["name"], 80, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as e:
        return f"{type(e).__name__}"
for line in sys.stdin:
    m = json.loads(line)
    method, params = m.get("method"), m.get("params", {})
    if method == "initialize":
        say(id=m["id"], result={"protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}}, "serverInfo": {"name": "fetcher", "version": "1"}})
    elif method == "tools/list":
        say(id=m["id"], result={"tools": [{"name": n, "inputSchema": {"type": "object"}} for n in ("fetch", "bare", "look_up")]})
    elif method == "tools/call":
        text = globals()[params["name"]](params["arguments"])
        say(id=m["id"], result={"content": [{"type": "text", "text": text}]})
"#;

static LOOKED_UP: AtomicUsize = AtomicUsize::new(0);

/// Every name is this machine.
struct Loopback;

impl Resolve for Loopback {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, std::io::Result<Vec<IpAddr>>> {
        LOOKED_UP.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST.into()]) })
    }
}

/// A web server on loopback that answers every request with its own port.
fn web_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let n = stream.read(&mut head).unwrap_or(0);
            let path = String::from_utf8_lossy(&head[..n]);
            let path = path.split(' ').nth(1).unwrap_or_default().to_owned();
            let answer = match path.strip_prefix("/to/") {
                Some(to) => format!(
                    "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{to}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                ),
                None => {
                    let text = format!("hello from {port}");
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                        text.len()
                    )
                }
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

fn write_plugin(dir: &Path, granted: u16) {
    std::fs::write(dir.join("server.py"), SERVER).unwrap();
    let manifest = format!(
        "
api: palisade/1
id: fetcher
version: 1.0.0
entry: {{ kind: mcp, command: python3, args: [server.py] }}
capabilities:
  optional:
    - {{ capability: 'net.http:127.0.0.1:{granted}', reason: To read what the server says. }}
    - {{ capability: 'net.http:web.test:{granted}', reason: The same by its name. }}
contributes:
  tools:
    - {{ name: fetch, description: Fetches. }}
    - {{ name: bare, description: Connects. }}
    - {{ name: look_up, description: Looks a name up. }}
"
    );
    std::fs::write(dir.join("plugin.yaml"), manifest).unwrap();
}

async fn text(plugin: &Plugin, tool: &str, args: Value) -> String {
    let answer: Value = plugin.call(tool, &args).await.unwrap().parse().unwrap();
    answer["content"][0]["text"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_reaches_what_was_granted_through_the_guard_and_nothing_else() {
    let (granted, other) = (web_server(), web_server());
    let dir = tempfile::tempdir().unwrap();
    write_plugin(dir.path(), granted);
    let recorder = Arc::new(MemoryRecorder::new(1000));
    let state = tempfile::tempdir().unwrap();
    let builder = Host::builder().state_dir(state.path()).backends(palisade::backends());
    let policy = AddressPolicy::new().allow("127.0.0.1/32".parse().unwrap());
    let guard = Guard::with_resolver(policy, Arc::new(Loopback));
    let host = builder.recorder(recorder.clone()).guard(guard).build().await.unwrap();
    let plugin = host.load(dir.path()).await.unwrap();

    // Without the right there is no way out at all.
    plugin.start().await.unwrap();
    let url = |port: u16| json!({"url": format!("http://127.0.0.1:{port}/")});
    let got = text(&plugin, "fetch", url(granted)).await;
    assert!(got.starts_with("URLError"), "{got}");
    plugin.stop().await.unwrap();

    plugin.grant(format!("net.http:127.0.0.1:{granted}").parse().unwrap()).await.unwrap();
    plugin.start().await.unwrap();
    let got = text(&plugin, "fetch", url(granted)).await;
    assert_eq!(got, format!("hello from {granted}"));
    let got = text(&plugin, "fetch", url(other)).await;
    assert!(got.contains("403"), "{got}");
    // A redirect is a request of its own.
    let redirect = json!({"url": format!("http://127.0.0.1:{granted}/to/{other}")});
    let got = text(&plugin, "fetch", redirect).await;
    assert!(got.contains("403"), "{got}");
    // Who does not ask the guard reaches nobody, granted or not.
    for port in [granted, other] {
        let args = json!({"host": "127.0.0.1", "port": port, "say": null});
        let got = text(&plugin, "bare", args).await;
        assert!(got.ends_with("Error") || got == "closed", "{got}");
    }

    // Who knows of no proxy asks for the name, and arrives at the same guard.
    plugin.stop().await.unwrap();
    plugin.grant(format!("net.http:web.test:{granted}").parse().unwrap()).await.unwrap();
    plugin.start().await.unwrap();
    let by_name =
        |host: &str, say: Option<&str>| json!({"host": host, "port": granted, "say": say});
    let got = text(&plugin, "bare", by_name("web.test", None)).await;
    assert_eq!(got, "HTTP/1.1 200 OK");
    assert_eq!(LOOKED_UP.load(Ordering::SeqCst), 1);
    let got = text(&plugin, "bare", by_name("web.test", Some("other.test"))).await;
    assert!(got.contains("400"), "the request names another host: {got}");
    let got = text(&plugin, "bare", by_name("secrets-of-ada.other.test", None)).await;
    assert!(got.contains("403"), "{got}");
    let got = text(&plugin, "look_up", json!({"name": "secrets-of-ada.other.test"})).await;
    assert!(got.starts_with("198.1"), "{got}");
    assert_eq!(LOOKED_UP.load(Ordering::SeqCst), 2, "only what was granted was ever looked up");

    let records = recorder.records();
    let decided = |allowed: bool, port: u16| {
        records.iter().any(|r| {
            r.kind == RecordKind::Egress
                && r.target.as_deref().is_some_and(|t| t.ends_with(&format!(":{port}")))
                && (r.decision == Some(Decision::Allow)) == allowed
        })
    };
    assert!(decided(true, granted) && decided(false, other), "{records:#?}");
    host.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leads_the_conversation_himself_gets_the_bytes() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let manifest = palisade::manifest::parse(
        r#"{"api": "palisade/1", "id": "cat", "version": "1.0.0", "entry": {"kind": "mcp", "command": "/bin/cat"}}"#,
        palisade::manifest::Syntax::Json,
    )
    .unwrap();
    let state = tempfile::tempdir().unwrap();
    let builder = Host::builder().state_dir(state.path()).backends(palisade::backends());
    let host = builder.build().await.unwrap();
    let origin = Origin::Command { path: "/bin/cat".into() };
    let control = host.control(palisade::broker::Caller::application());
    let plugin =
        control.load_manifest(manifest, origin, dir.path(), LoadOptions::new()).await.unwrap();
    let tools = ["tool:*".parse().unwrap()].into_iter().collect();
    let mut conversation = plugin.converse(ConverseOptions::new().offered(tools)).await.unwrap();
    conversation.ends.to.write_all(b"{\"z\":1.0, \"a\" :2}\n").await.unwrap();
    let mut back = [0; 18];
    conversation.ends.from.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"{\"z\":1.0, \"a\" :2}\n");
    let access = palisade::Access::new(Kind::Tool, "anything");
    conversation.gate.decide(&conversation.server, &access).unwrap();
    let exit = conversation.exit();
    drop(conversation);
    let exit = tokio::time::timeout(Duration::from_secs(10), exit).await.unwrap();
    assert!(exit.is_clean(), "{exit}");
    host.shutdown().await.unwrap();
}
