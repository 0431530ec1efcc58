//! Servers of the Model Context Protocol behind real walls, started by an interpreter's plain name.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{Runtime, SandboxError, Wire};
use serde_json::{Value, json};
use support::{Bench, bench, call};

const PYTHON: &str = r#"
import json, os, sys
print("a banner")
def say(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
for line in sys.stdin:
    m = json.loads(line)
    if m["method"] == "initialize":
        say(method="notifications/message", params={"level": "info", "data": "hello log"})
        say(id=m["id"], result={"protocolVersion": "2024-11-05", "capabilities": {"tools": {}},
            "serverInfo": {"name": "py", "version": "1"}})
    elif m["method"] == "tools/list":
        say(id=m["id"], result={"tools": [{"name": "look", "inputSchema": {"type": "object"}}]})
    elif m["method"] == "tools/call":
        found = {p: os.path.exists(p) for p in m["params"]["arguments"]["paths"]}
        say(id=m["id"], result={"content": [], "structuredContent": {"found": found, "runs": sys.executable}})
"#;

const NODE: &str = r#"
const say = (m) => process.stdout.write(JSON.stringify({ jsonrpc: '2.0', ...m }) + '\n');
require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const m = JSON.parse(line);
  const result = {
    initialize: { protocolVersion: '2025-06-18', capabilities: { tools: {} }, serverInfo: { name: 'js', version: '1' } },
    'tools/list': { tools: [{ name: 'look', inputSchema: { type: 'object' } }] },
    'tools/call': { content: [], structuredContent: { node: process.version } },
  }[m.method];
  if (m.id !== undefined) say({ id: m.id, result });
});
"#;

fn server(interpreter: &str, file: &str, content: &str) -> Bench {
    let mut bench = bench(Runtime::Native, file, content.as_bytes());
    bench.artifact.program.file = interpreter.to_owned();
    bench.artifact.program.args = vec![file.to_owned()];
    bench.spec.wire = Wire::Mcp(palisade_dialect::mcp::Mcp::default());
    bench
}

fn process() -> ProcessBackend {
    ProcessBackend::new(Options::default())
}

#[tokio::test]
async fn a_python_server_runs_behind_walls_and_ends_when_its_input_is_closed() {
    let bench = server("python3", "server.py", PYTHON);
    let instance = bench.launch(&process()).await.unwrap();
    let hello: Value = call(&instance, "initialize", "{}").await.unwrap().parse().unwrap();
    assert_eq!(hello["tools"], json!([{"name": "look"}]));
    let host = bench.dir.path().join("data").display().to_string();
    let params =
        json!({"tool": "look", "args": {"paths": ["/plugin/server.py", "/etc/shadow", host]}});
    let result: Value =
        call(&instance, "call", &params.to_string()).await.unwrap().parse().unwrap();
    let found = &result["structuredContent"]["found"];
    assert_eq!(
        *found,
        json!({"/plugin/server.py": true, "/etc/shadow": false, host: false}),
        "{result}"
    );
    assert_eq!(*bench.host.lines.lock().unwrap(), ["info: hello log"]);
    let begun = std::time::Instant::now();
    let exit = instance.stop(Duration::from_secs(20)).await;
    assert!(exit.is_clean(), "{exit}");
    // By itself: SIGTERM comes after half of the time.
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_node_server_runs_by_its_plain_name() {
    let mut bench = server("node", "server.js", NODE);
    bench.spec.limits.memory = 512 << 20;
    let instance = bench.launch(&process()).await.unwrap();
    call(&instance, "initialize", "{}").await.unwrap();
    let result: Value =
        call(&instance, "call", r#"{"tool":"look"}"#).await.unwrap().parse().unwrap();
    assert!(result["structuredContent"]["node"].as_str().unwrap().starts_with('v'), "{result}");
    assert!(instance.stop(Duration::from_secs(5)).await.is_clean());
}

#[tokio::test]
async fn an_interpreter_that_is_named_by_its_path_is_read_and_not_run() {
    let place = tempfile::tempdir().unwrap();
    let (marker, evil) = (place.path().join("was-run"), place.path().join("python3"));
    fs::write(&evil, format!("#!/bin/sh\ntouch {}\n", marker.display())).unwrap();
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
    let by_path = server(&evil.display().to_string(), "server.py", PYTHON);
    // A file of the plugin by that name is the plugin's own, and runs inside or not at all.
    let own = server("python3", "server.py", PYTHON);
    fs::copy(&evil, own.artifact.content.root.join("python3")).unwrap();
    for bench in [by_path, own] {
        match bench.launch(&process()).await {
            Ok(instance) => assert!(call(&instance, "initialize", "{}").await.is_err()),
            Err(error) => assert!(matches!(error, SandboxError::Artifact { .. }), "{error}"),
        }
        assert!(!marker.exists(), "it was run outside");
    }
}

#[tokio::test]
async fn an_interpreter_of_this_machine_by_its_path_brings_its_library() {
    let asked = std::process::Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .unwrap();
    let path = String::from_utf8(asked.stdout).unwrap().trim().to_owned();
    let bench = server(&path, "server.py", PYTHON);
    let instance = bench.launch(&process()).await.unwrap();
    let params = r#"{"tool":"look","args":{"paths":[]}}"#;
    call(&instance, "initialize", "{}").await.unwrap();
    let result: Value = call(&instance, "call", params).await.unwrap().parse().unwrap();
    assert_eq!(result["structuredContent"]["runs"], json!(path), "{result}");
}

#[tokio::test]
async fn a_server_runs_in_a_virtual_environment_of_the_plugin() {
    let bench = server("./.venv/bin/python", "server.py", PYTHON);
    let made = std::process::Command::new("python3")
        .args(["-m", "venv", "--without-pip"])
        .arg(bench.artifact.content.root.join(".venv"))
        .status()
        .unwrap();
    assert!(made.success());
    let instance = bench.launch(&process()).await.unwrap();
    call(&instance, "initialize", "{}").await.unwrap();
    let params = r#"{"tool":"look","args":{"paths":[]}}"#;
    let result: Value = call(&instance, "call", params).await.unwrap().parse().unwrap();
    let runs = result["structuredContent"]["runs"].as_str().unwrap();
    assert!(runs.starts_with("/plugin/.venv/bin/python"), "{result}");
}
