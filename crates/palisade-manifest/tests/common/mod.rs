//! Documents that several tests use.
// Not every test uses every document.
#![allow(dead_code, clippy::panic)]

use serde_json::{Value, json};

/// The least that is valid.
pub(crate) fn least() -> Value {
    json!({
        "api": "palisade/1",
        "id": "a",
        "version": "1.0.0",
        "entry": { "kind": "python", "file": "main.py" }
    })
}

/// `least` with some keys put in.
pub(crate) fn with(more: Value) -> Value {
    let mut out = least();
    let (Value::Object(out_map), Value::Object(more)) = (&mut out, more) else {
        panic!("not objects")
    };
    out_map.extend(more);
    out
}

/// A valid document that uses every field.
pub(crate) fn full() -> Value {
    with(json!({
        "id": "org.example.word-counter",
        "name": "Word counter",
        "version": "1.2.3-beta.1+build.7",
        "description": "Counts words.\nIn every text of a folder.",
        "authors": ["Ada <ada@example.org>", "Grace"],
        "license": "MIT OR Apache-2.0",
        "homepage": "https://example.org/word-counter",
        "requires": { "palisade": ">=0.1" },
        "entry": {
            "kind": "python", "file": "src/main.py", "args": ["--fast", ""], "interpreter": "venv:.venv",
            "version": ">=3.10"
        },
        "capabilities": {
            "required": [
                { "capability": "fs.read:/srv/texts/**", "reason": "Reads the texts it counts." },
                "storage.kv:counts"
            ],
            "optional": [
                { "capability": "event.publish:words.counted", "reason": "Tells others about new counts." },
                { "capability": "env:COUNTER_MODE", "reason": "Chooses how to count." }
            ]
        },
        "contributes": {
            "tools": [
                {
                    "name": "count", "description": "Counts the words of a text.",
                    "input": {
                        "type": "object", "properties": { "path": { "type": "string" } }, "required": ["path"],
                        "additionalProperties": false
                    },
                    "output": { "type": "integer" }
                },
                { "name": "forget", "description": "Forgets all counts." }
            ],
            "commands": [{ "name": "words", "description": "Shows counts.", "usage": "words FILE" }],
            "hooks": [{ "event": "message.received", "priority": 10, "reason": "Counts messages." }, { "event": "tick" }],
            "channels": [{ "type": "irc", "name": "IRC", "description": "Chat." }],
            "services": [{ "name": "counter", "description": "Counts for other plugins." }]
        },
        "resources": {
            "cpu": 0.5, "memory": "128MiB", "pids": 8, "files": 64, "disk": "10MB", "log": 65536,
            "timeouts": { "start": "5s", "call": 2.5, "stop": "500ms", "lifetime": "1h" },
            "rates": { "requests": "100/s", "events": 10, "calls": "1000 /s" }
        },
        "guarantees": { "own-uid": true, "memory-capped": "kernel", "disk-capped": "policed" },
        "config": {
            "schema": {
                "type": "object",
                "properties": {
                    "mode": { "enum": ["words", "lines"] },
                    "limits": { "type": "object", "properties": { "max": { "type": "integer" } } },
                    "token": { "type": "string", "pattern": "^[a-z]+$" }
                },
                "required": ["token"]
            },
            "defaults": { "mode": "words", "limits": { "max": 10 } }
        },
        "state": { "schema": 2, "accepts": [1] },
        "x-editor": { "anything": [1, null, true] }
    }))
}

/// One valid document for each kind of entry and form of field.
pub(crate) fn good() -> Vec<Value> {
    let entry = |entry: Value| with(json!({ "entry": entry }));
    vec![
        least(),
        full(),
        entry(json!({ "kind": "python", "file": "./a.py", "interpreter": "/usr/bin/python3.12" })),
        entry(json!({ "kind": "node", "file": "main.js", "args": ["a"] })),
        entry(json!({ "kind": "exec", "file": "bin/tool" })),
        entry(json!({ "kind": "exec", "command": "/usr/bin/env", "args": ["x"] })),
        entry(json!({ "kind": "exec", "command": "./tool" })),
        entry(json!({ "kind": "mcp", "command": "npx", "args": ["-y", "server"] })),
        entry(
            json!({ "kind": "jsonl", "file": "main.py", "runtime": "python", "mode": "per-call", "init": "init", "timeout": "3s" }),
        ),
        entry(json!({ "kind": "jsonl", "command": "node" })),
        entry(json!({ "kind": "jsonl", "file": "main.js", "runtime": "node", "timeout": 0.5 })),
        entry(json!({ "kind": "wasm", "file": "plugin.wasm" })),
        entry(json!({ "kind": "wasm", "file": "p.wasm", "calls": "stateless", "instances": 1024 })),
        entry(json!({ "kind": "wasm", "file": "p.wasm", "calls": "per-call", "instances": 1 })),
        entry(json!({ "kind": "extism", "file": "p.wasm", "calls": "per-call" })),
        entry(json!({ "kind": "extism", "file": "p.wasm", "calls": "stateful" })),
        entry(json!({ "kind": "extism", "file": "p.wasm", "output": "json" })),
        entry(json!({ "kind": "image", "image": "ghcr.io/x/y:1" })),
        entry(json!({ "kind": "library", "file": "libplugin.so" })),
        with(json!({ "requires": "palisade >= 0.1" })),
        with(json!({ "guarantees": ["own-uid", "cpu-capped"] })),
        with(json!({ "guarantees": {} , "capabilities": {}, "contributes": {}, "resources": {} })),
        with(json!({ "config": { "schema": {} }, "state": { "schema": 0 } })),
        with(json!({ "config": { "schema": { "type": "object" }, "defaults": {} } })),
        with(
            json!({ "resources": { "cpu": 1024, "memory": 4194304, "pids": 1.0, "disk": 0, "log": "1KiB" } }),
        ),
        with(
            json!({ "contributes": { "tools": [{ "name": "a/b:c@d$e+f.g_h-i", "description": "x", "input": {}, "output": {} }] } }),
        ),
        with(
            json!({ "capabilities": { "required": ["tool:*", { "capability": "storage.kv:*" }] } }),
        ),
        with(json!({ "name": "p\u{430}ypal \u{202e}evil", "description": "a\tb\n" })),
    ]
}
