//! The published schema against the validator: the schema is never stricter, and laxer only for rules
//! that a schema cannot say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{full, good, least, with};
use palisade_manifest::{ManifestError, Rule, Syntax, parse, schema};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What JSON Schema cannot say, or not without becoming unreadable.
const BEYOND_A_SCHEMA: [Rule; 13] = [
    Rule::Bounds,      // bytes where a schema counts characters; depth
    Rule::Version,     // the inside of pre-release labels and requirements
    Rule::Requires,    // held against this version
    Rule::Path,        // bytes; a path that names nothing
    Rule::Conflict,    // runtime with command
    Rule::Quantity,    // ranges of quantities with units
    Rule::Capability,  // scopes by kind
    Rule::Reason,      // reasons by risk
    Rule::Environment, // names that run foreign code
    Rule::Duplicate,   // equal names
    Rule::Schema,      // schemas inside
    Rule::Defaults,    // values against them
    Rule::Text,        // addresses
];

struct Both {
    schema: jsonschema::Validator,
}

impl Both {
    fn new() -> Self {
        Self {
            schema: jsonschema::draft202012::new(&schema()).expect("the published schema is valid"),
        }
    }

    fn check(&self, document: &Value) -> Result<(), String> {
        let ours = parse(&document.to_string(), Syntax::Json);
        let theirs = self.schema.is_valid(document);
        match (ours, theirs) {
            (Ok(_), false) => {
                let errors: Vec<String> = self
                    .schema
                    .iter_errors(document)
                    .map(|e| format!("{}: {e}", e.instance_path()))
                    .collect();
                Err(format!(
                    "the schema refuses what the validator takes: {errors:?}\n{document:#}"
                ))
            }
            (Err(error), true) => {
                let strict: Vec<_> = error
                    .diagnostics()
                    .iter()
                    .filter(|d| !BEYOND_A_SCHEMA.contains(&d.rule))
                    .collect();
                if strict.is_empty() && !error.diagnostics().is_empty() {
                    Ok(())
                } else {
                    Err(format!(
                        "the schema takes what the validator refuses: {error}\n{document:#}"
                    ))
                }
            }
            _ => Ok(()),
        }
    }
}

#[test]
fn good_documents_pass_both() {
    let both = Both::new();
    for document in good() {
        if let Err(error) = parse(&document.to_string(), Syntax::Json) {
            panic!("{document:#}\n{error}");
        }
        both.check(&document).unwrap();
    }
}

#[test]
fn bad_documents_fail_both() {
    let both = Both::new();
    let entry = |entry: Value| with(json!({ "entry": entry }));
    let resources = |resources: Value| with(json!({ "resources": resources }));
    let tool = |tool: Value| with(json!({ "contributes": { "tools": [tool] } }));
    for document in [
        json!({}),
        json!([]),
        json!(null),
        with(json!({ "api": "palisade/2" })),
        with(json!({ "api": 1 })),
        with(json!({ "id": "A" })),
        with(json!({ "id": "a..b" })),
        with(json!({ "id": "-a" })),
        with(json!({ "id": "" })),
        with(json!({ "id": "x".repeat(65) })),
        with(json!({ "name": "" })),
        with(json!({ "name": " " })),
        with(json!({ "name": "x".repeat(81) })),
        with(json!({ "name": "a\u{1b}[2Jb" })),
        with(json!({ "name": "a\nb" })),
        with(json!({ "name": 7 })),
        with(json!({ "version": "1.0" })),
        with(json!({ "version": 1.0 })),
        with(json!({ "description": "a\u{0}b" })),
        with(json!({ "authors": "me" })),
        with(json!({ "homepage": "javascript:alert(1)" })),
        with(json!({ "homepage": "https://x y" })),
        with(json!({ "requires": "nothing" })),
        with(json!({ "requires": {} })),
        with(json!({ "requires": { "python": ">=3" } })),
        with(json!({ "entyr": {} })),
        with(json!({ "x-": 1 })),
        with(json!({ "events": { "subscribe": ["a"] } })),
        entry(json!({})),
        entry(json!("main.py")),
        entry(json!({ "kind": "perl", "file": "a" })),
        entry(json!({ "kind": "python" })),
        entry(json!({ "kind": "python", "file": "/etc/passwd" })),
        entry(json!({ "kind": "python", "file": "../a.py" })),
        entry(json!({ "kind": "python", "file": "a/../../b" })),
        entry(json!({ "kind": "python", "file": "a\\b" })),
        entry(json!({ "kind": "python", "file": "a\u{0}b" })),
        entry(json!({ "kind": "python", "file": "x".repeat(1025) })),
        entry(json!({ "kind": "python", "file": "a.py", "command": "b" })),
        entry(json!({ "kind": "python", "file": "a.py", "args": "x" })),
        entry(json!({ "kind": "python", "file": "a.py", "args": [1] })),
        entry(json!({ "kind": "python", "file": "a.py", "args": ["\u{0}"] })),
        entry(json!({ "kind": "python", "file": "a.py", "args": vec!["x"; 257] })),
        entry(json!({ "kind": "exec" })),
        entry(json!({ "kind": "exec", "file": "a", "command": "b" })),
        entry(json!({ "kind": "exec", "command": "/a/../b" })),
        entry(json!({ "kind": "jsonl", "file": "a", "mode": "sometimes" })),
        entry(json!({ "kind": "jsonl", "file": "a", "timeout": 0 })),
        entry(json!({ "kind": "jsonl", "file": "a", "timeout": "soon" })),
        entry(json!({ "kind": "mcp", "file": "a" })),
        entry(json!({ "kind": "wasm", "file": "a", "args": [] })),
        entry(json!({ "kind": "wasm", "file": "a", "calls": "both" })),
        entry(json!({ "kind": "wasm", "file": "a", "calls": "stateless", "instances": 0 })),
        entry(json!({ "kind": "wasm", "file": "a", "calls": "stateless", "instances": 1025 })),
        entry(json!({ "kind": "wasm", "file": "a", "calls": "per-call", "instances": 0 })),
        resources(json!({ "cpu": 0 })),
        resources(json!({ "cpu": "half" })),
        resources(json!({ "cpu": 1025 })),
        resources(json!({ "memory": 1 })),
        resources(json!({ "memory": "lots" })),
        resources(json!({ "memory": "1.5GiB" })),
        resources(json!({ "memory": -1 })),
        resources(json!({ "memory": true })),
        resources(json!({ "memroy": "1GiB" })),
        resources(json!({ "pids": 0 })),
        resources(json!({ "pids": 1.5 })),
        resources(json!({ "files": 15 })),
        resources(json!({ "log": 0 })),
        resources(json!({ "timeouts": { "start": 0 } })),
        resources(json!({ "timeouts": { "call": 86401 } })),
        resources(json!({ "timeouts": { "begin": 1 } })),
        resources(json!({ "timeouts": { "lifetime": 0.5 } })),
        resources(json!({ "rates": { "requests": 0 } })),
        resources(json!({ "rates": { "requests": "100/m" } })),
        with(json!({ "capabilities": ["fs.read:/a"] })),
        with(json!({ "capabilities": { "required": ["nothing:x"] } })),
        with(json!({ "capabilities": { "required": [{ "reason": "x" }] } })),
        with(json!({ "capabilities": { "required": [{ "capability": "tool:x", "why": "x" }] } })),
        with(
            json!({ "capabilities": { "required": [{ "capability": "tool:x", "reason": "x".repeat(201) }] } }),
        ),
        with(
            json!({ "capabilities": { "required": [{ "capability": "tool:x", "reason": "a\nb" }] } }),
        ),
        with(json!({ "capabilities": { "needed": [] } })),
        tool(json!({ "name": "a" })),
        tool(json!({ "description": "a" })),
        tool(json!({ "name": "a*", "description": "a" })),
        tool(json!({ "name": "a b", "description": "a" })),
        tool(json!({ "name": "", "description": "a" })),
        tool(json!({ "name": "a", "description": "a", "input": [] })),
        tool(json!({ "name": "a", "description": "a", "input": true })),
        with(json!({ "contributes": { "hooks": [{ "event": "a", "priority": 1001 }] } })),
        with(json!({ "contributes": { "hooks": ["a"] } })),
        with(json!({ "contributes": { "widgets": [] } })),
        with(
            json!({ "contributes": { "hooks": (0..257).map(|i| json!({ "event": format!("e{i}") })).collect::<Vec<_>>() } }),
        ),
        with(json!({ "guarantees": ["magic"] })),
        with(json!({ "guarantees": { "own-uid": false } })),
        with(json!({ "guarantees": { "own-uid": "policed" } })),
        with(json!({ "guarantees": { "own-uid": "none" } })),
        with(json!({ "guarantees": { "magic": true } })),
        with(json!({ "config": {} })),
        with(json!({ "config": { "schema": "x" } })),
        with(json!({ "config": { "schema": {}, "defaults": [] } })),
        with(json!({ "state": { "schema": -1 } })),
        with(json!({ "state": { "schema": 4_294_967_296_u64 } })),
        with(json!({ "state": { "accepts": [] } })),
    ] {
        assert!(!both.schema.is_valid(&document), "the schema takes {document:#}");
        let error = parse(&document.to_string(), Syntax::Json).expect_err(&document.to_string());
        assert!(matches!(error, ManifestError::Invalid(_)), "{error:?}");
    }
}

/// What only the validator can know.
#[test]
fn what_a_schema_cannot_say_is_said_by_the_validator() {
    let both = Both::new();
    let caps = |list: Value| with(json!({ "capabilities": { "required": list } }));
    for (document, rule) in [
        (with(json!({ "version": "1.0.0-01" })), Rule::Version),
        (with(json!({ "requires": "palisade >= 99" })), Rule::Requires),
        (with(json!({ "entry": { "kind": "python", "file": "." } })), Rule::Path),
        (with(json!({ "entry": { "kind": "exec", "command": "rm -rf" } })), Rule::Path),
        (with(json!({ "entry": { "kind": "python", "file": "é".repeat(600) } })), Rule::Path),
        (
            with(json!({ "entry": { "kind": "jsonl", "command": "x", "runtime": "python" } })),
            Rule::Conflict,
        ),
        (
            with(json!({ "entry": { "kind": "node", "file": "x", "args": ["é".repeat(3000)] } })),
            Rule::Bounds,
        ),
        (with(json!({ "resources": { "memory": "1MiB" } })), Rule::Quantity),
        (with(json!({ "resources": { "timeouts": { "call": "25h" } } })), Rule::Quantity),
        (with(json!({ "resources": { "rates": { "calls": "0/s" } } })), Rule::Quantity),
        (caps(json!(["tool:a b"])), Rule::Capability),
        (caps(json!(["fs.read:relative"])), Rule::Capability),
        (caps(json!(["fs.read:/a"])), Rule::Reason),
        (caps(json!(["host.call:*"])), Rule::Reason),
        (caps(json!([{ "capability": "env:LD_PRELOAD", "reason": "x" }])), Rule::Environment),
        (caps(json!([{ "capability": "env:*", "reason": "x" }])), Rule::Environment),
        (caps(json!(["tool:a", "tool:a"])), Rule::Duplicate),
        (
            with(json!({ "capabilities": { "required": ["tool:a"], "optional": ["tool:a"] } })),
            Rule::Duplicate,
        ),
        (with(json!({ "guarantees": ["own-uid", "own-uid"] })), Rule::Duplicate),
        (
            with(json!({ "contributes": { "hooks": [{ "event": "a" }, { "event": "a" }] } })),
            Rule::Duplicate,
        ),
        (with(json!({ "config": { "schema": { "$ref": "http://x/" } } })), Rule::Schema),
        (with(json!({ "config": { "schema": { "type": "nothing" } } })), Rule::Schema),
        (
            with(
                json!({ "config": { "schema": { "properties": { "a": { "type": "string" } } }, "defaults": { "a": 1 } } }),
            ),
            Rule::Defaults,
        ),
    ] {
        assert!(BEYOND_A_SCHEMA.contains(&rule));
        assert!(both.schema.is_valid(&document), "not beyond the schema: {document:#}");
        let error = parse(&document.to_string(), Syntax::Json).expect_err(&document.to_string());
        let rules: Vec<Rule> = error.diagnostics().iter().map(|d| d.rule).collect();
        assert_eq!(rules, [rule], "{error}");
    }
}

/// Every place in a document, as JSON Pointers.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                places(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), out);
            }
        }
        Value::Array(items) => {
            for (i, value) in items.iter().enumerate() {
                places(value, &format!("{at}/{i}"), out);
            }
        }
        _ => {}
    }
}

/// Things to put where something else stood.
fn odd_values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(-1),
        json!(1.5),
        json!(64.0),
        json!(1e300),
        json!(u64::MAX),
        json!(4_194_305),
        json!(""),
        json!(" "),
        json!("a"),
        json!("a\nb"),
        json!("a\n"),
        json!("\n"),
        json!("\u{feff}"),
        json!("\u{85}"),
        json!("\u{202e}"),
        json!("\u{1b}"),
        json!("python"),
        json!("exec"),
        json!("mcp"),
        json!("palisade/1"),
        json!("kernel"),
        json!("policed"),
        json!("1s"),
        json!("128MiB"),
        json!("9999999999999GiB"),
        json!("5/s"),
        json!("tool:x"),
        json!("https://x\n"),
        json!("venv:.."),
        json!(".."),
        json!("a/"),
        json!("x".repeat(90)),
        json!("x".repeat(3000)),
        json!([]),
        json!([1]),
        json!(["a"]),
        json!({}),
        json!({ "a": 1 }),
        json!({ "kind": "exec" }),
    ]
}

fn mutate(document: &mut Value, place: usize, what: usize, odd: usize) {
    let mut all = Vec::new();
    places(document, "", &mut all);
    let place = &all[place % all.len()];
    let odd_values = odd_values();
    let odd = odd_values[odd % odd_values.len()].clone();
    let (parent, key) = place.rsplit_once('/').unwrap_or(("", ""));
    match (what, document.pointer_mut(if what == 0 { place } else { parent })) {
        (0, Some(value)) => *value = odd,
        (1, Some(Value::Object(map))) => {
            map.remove(&key.replace("~1", "/").replace("~0", "~"));
        }
        (2, Some(Value::Object(map))) => {
            map.insert("x-own".into(), odd);
        }
        (3, Some(Value::Object(map))) => {
            map.insert("zzz".into(), odd);
        }
        (4, Some(Value::Array(items))) => items.push(odd),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn changed_documents_are_judged_alike(
        document in prop::sample::select(good()),
        changes in prop::collection::vec((any::<usize>(), 0..5usize, any::<usize>()), 1..4),
    ) {
        thread_local! { static BOTH: Both = Both::new(); }
        let mut document = document;
        for (place, what, odd) in changes {
            mutate(&mut document, place, what, odd);
        }
        if let Err(why) = BOTH.with(|both| both.check(&document)) {
            prop_assert!(false, "{}", why);
        }
    }
}

/// One change at a time at every place: what the random test may not meet.
#[test]
fn each_single_change_of_the_full_document_is_judged_alike() {
    let both = Both::new();
    for start in [full(), least()] {
        let mut all = Vec::new();
        places(&start, "", &mut all);
        for (place, name) in all.iter().enumerate() {
            for what in 0..5 {
                // Which value it is matters only where it replaces one or joins a list. A third of
                // them at each place, another third at the next, keeps this to seconds.
                let odd = if matches!(what, 0 | 4) { odd_values().len() } else { 1 };
                for odd in (0..odd).filter(|odd| what > 0 && what < 4 || odd % 3 == place % 3) {
                    let mut document = start.clone();
                    mutate(&mut document, place, what, odd);
                    both.check(&document)
                        .unwrap_or_else(|why| panic!("{name} / {what} / {odd}: {why}"));
                }
            }
        }
    }
}
