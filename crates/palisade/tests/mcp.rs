//! A server of the Model Context Protocol as a plugin like any other, behind real walls.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use palisade::{
    audit::{MemoryRecorder, RecordKind},
    prelude::*,
};
use serde_json::{Value, json};

/// Written against the Python standard library alone; it asks for the client's model on the way.
const SERVER: &str = r#"
import json, sys
def say(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
def tool(name):
    return {"name": name, "description": "does it", "inputSchema": {"type": "object"}}
print("MCP server on stdio")
for line in sys.stdin:
    m = json.loads(line)
    method, params = m.get("method"), m.get("params", {})
    if method == "initialize":
        say(id=m["id"], result={"protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}}, "serverInfo": {"name": "adder", "version": "1"}})
    elif method == "tools/list":
        if "cursor" not in params:
            say(id=m["id"], result={"tools": [tool("add"), tool("shell")], "nextCursor": "2"})
        else:
            say(id=m["id"], result={"tools": [tool("fail"), tool("ask")]})
    elif method == "tools/call":
        args = params["arguments"]
        if params["name"] == "add":
            text = str(args["a"] + args["b"])
            say(id=m["id"], result={"content": [{"type": "text", "text": text}]})
        elif params["name"] == "ask":
            say(id="s-1", method="sampling/createMessage", params={"messages": [], "maxTokens": 1})
            answer = json.loads(sys.stdin.readline())
            say(id=m["id"], result={"content": [], "structuredContent": answer["error"]})
        else:
            content = [{"type": "text", "text": "no such number"}]
            say(id=m["id"], result={"content": content, "isError": True})
"#;

const MANIFEST: &str = "
api: palisade/1
id: adder
version: 1.0.0
entry: { kind: mcp, command: python3, args: [server.py] }
contributes:
  tools:
    - name: add
      description: Adds two numbers.
      input:
        type: object
        properties: { a: { type: number }, b: { type: number } }
        required: [a, b]
    - { name: fail, description: Fails. }
    - { name: ask, description: Asks for a model. }
    - { name: gone, description: Is declared and not announced. }
";

#[tokio::test]
async fn the_tools_of_an_mcp_server_are_called_like_any_others() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("server.py"), SERVER).unwrap();
    std::fs::write(dir.path().join("plugin.yaml"), MANIFEST).unwrap();
    let recorder = Arc::new(MemoryRecorder::new(1000));
    let state = tempfile::tempdir().unwrap();
    let builder = Host::builder().state_dir(state.path()).backends(palisade::backends());
    let host = builder.recorder(recorder.clone()).build().await.unwrap();
    let plugin = host.load(dir.path()).await.unwrap();
    plugin.start().await.unwrap();

    let sum: Value = plugin.call("add", &json!({"a": 2, "b": 3})).await.unwrap().parse().unwrap();
    assert_eq!(sum, json!({"content": [{"type": "text", "text": "5"}]}));
    let unfit = plugin.call("add", &json!({"a": 2})).await.unwrap_err();
    assert_eq!(unfit.code, ErrorCode::InvalidParams);
    let failed = plugin.call("fail", &()).await.unwrap_err();
    assert_eq!((failed.code, &*failed.message), (ErrorCode::PluginError, "no such number"));
    // Announced but not declared, and the other way round.
    for tool in ["shell", "gone"] {
        let refused = plugin.call(tool, &()).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::NotFound, "{tool}: {refused}");
    }
    let asked: Value = plugin.call("ask", &()).await.unwrap().parse().unwrap();
    let error = &asked["structuredContent"];
    assert_eq!(error["code"], -32601);
    assert!(error["message"].as_str().unwrap().contains("mcp.sampling"), "{error}");

    // What was refused stands in the record.
    for (kind, target) in
        [(RecordKind::Registration, "shell"), (RecordKind::Request, "sampling/createMessage")]
    {
        let records = recorder.records();
        let refused = records.iter().find(|r| r.kind == kind).unwrap();
        assert_eq!(refused.target.as_deref(), Some(target));
    }
    host.shutdown().await.unwrap();
}
