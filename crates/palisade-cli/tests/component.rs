//! `palisade check FILE.wasm`, and components as plugins, end to end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use serde_json::{Value, json};
use support::{Launcher, Place};

/// Adds numbers, in an interface of its own.
const CALC: &str = r#"(component
    (core module $m
        (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))
    (core instance $i (instantiate $m))
    (func $add (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
    (instance $calc (export "add" (func $add)))
    (export "docs:calculator/calc@0.1.0" (instance $calc))
)"#;

/// Imports one interface and exports a function.
fn importing(import: &str) -> String {
    CALC.replacen("(component", &format!("(component (import \"{import}\" (instance))"), 1)
}

fn write(place: &Place, name: &str, text: &str) {
    std::fs::write(place.path(name), wat::parse_str(text).unwrap()).unwrap();
}

fn plugin(place: &Place, id: &str, text: &str, rest: &str) {
    let manifest = format!(
        "api: palisade/1\nid: {id}\nversion: 1.0.0\nentry: {{ kind: wasm, file: it.wasm }}\n\
         contributes: {{ tools: [{{ name: calc.add, description: Adds. }}] }}\n{rest}"
    );
    place.plugin(id, &manifest, "");
    write(place, &format!("plugins/{id}/it.wasm"), text);
}

#[test]
fn a_file_is_shown_with_its_imports_and_what_each_takes() {
    let place = Place::new(Launcher::Me);
    write(&place, "notes.wasm", &importing("palisade:plugin/storage@0.1.0"));
    let (status, out, err) = place.run(&["check", "notes.wasm"]);
    assert_eq!(status, 0, "{out}{err}");
    for expected in [
        "palisade:plugin/storage@0.1.0",
        "takes storage.kv",
        "calc.add",
        "add: func(a: u32, b: u32) -> u32",
        "once a right of each of these kinds is granted: storage.kv",
    ] {
        assert!(out.contains(expected), "no {expected:?} in\n{out}");
    }
    let (status, out, _) = place.run(&["check", "notes.wasm", "--json"]);
    let seen: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status, 0);
    assert_eq!(seen["component"]["form"], "component");
    assert_eq!(
        seen["component"]["imports"][0],
        json!({
            "name": "palisade:plugin/storage@0.1.0", "sort": "interface", "need": "right",
            "kinds": ["storage.kv"], "why": "the plugin's own storage",
        })
    );
    assert_eq!(seen["component"]["tools"][0]["input"]["required"], json!(["a", "b"]));
}

#[test]
fn what_is_not_provided_is_status_2() {
    let place = Place::new(Launcher::Me);
    for (import, says) in [
        ("wasi:keyvalue/store@0.2.0", "no such interface is known here"),
        ("evil:host/exec@1.0.0", "no such interface is known here"),
    ] {
        write(&place, "it.wasm", &importing(import));
        let (status, out, err) = place.run(&["check", "it.wasm"]);
        assert_eq!(status, 2, "{out}{err}");
        assert!(out.contains(import) && out.contains(says), "{out}");
        let (status, _, err) = place.run(&["call", "it.wasm", "calc.add", r#"{"a": 1, "b": 2}"#]);
        assert!(status == 2 && err.contains(import), "{err}");
    }
    std::fs::write(place.path("it.wasm"), "no such thing").unwrap();
    let (status, _, err) = place.run(&["check", "it.wasm"]);
    assert!(status == 2 && err.contains("not WebAssembly"), "{err}");
}

#[test]
fn a_manifest_has_to_ask_for_what_its_component_imports() {
    let place = Place::new(Launcher::Me);
    plugin(&place, "lacking", &importing("palisade:plugin/storage@0.1.0"), "");
    let (status, out, err) = place.run(&["check", "plugins/lacking"]);
    assert_eq!(status, 2, "{out}{err}");
    assert!(out.contains("the manifest asks for no storage.kv"), "{out}");

    // One of two kinds is enough.
    let dials = importing("wasi:sockets/tcp@0.2.0");
    plugin(&place, "dials", &dials, "");
    let (status, out, err) = place.run(&["check", "plugins/dials"]);
    assert_eq!(status, 2, "{out}{err}");
    assert!(out.contains("takes net.tcp or net.http"), "{out}");
    assert!(out.contains("the manifest asks for no net.tcp or net.http"), "{out}");
    for right in ["net.tcp:db.example:5432", "net.http:example.org:443"] {
        let right =
            format!("capabilities: {{ required: [{{ capability: '{right}', reason: Dials. }}] }}");
        plugin(&place, "dialling", &dials, &right);
        let (status, out, err) = place.run(&["check", "plugins/dialling"]);
        assert_eq!(status, 0, "{out}{err}");
    }

    let asks = "capabilities: { required: [{ capability: 'storage.kv:*' }, \
                { capability: 'net.http:example.org:443', reason: Looks. }] }";
    plugin(&place, "more", &importing("palisade:plugin/storage@0.1.0"), asks);
    let (status, out, err) = place.run(&["check", "plugins/more"]);
    assert_eq!(status, 0, "{out}{err}");
    assert!(out.contains("net.http:example.org:443, and no import can use it"), "{out}");
    let (_, out, _) = place.run(&["check", "plugins/more", "--json"]);
    let seen: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(seen["component"]["findings"][0]["severity"], "warning");
}

#[test]
fn a_components_functions_are_called_as_tools_of_a_folder_and_of_a_file() {
    let place = Place::new(Launcher::Me);
    plugin(&place, "calc", CALC, "");
    write(&place, "calc.wasm", CALC);
    for target in ["plugins/calc", "calc.wasm"] {
        let (status, out, err) = place.run(&["call", target, "calc.add", r#"{"a": 40, "b": 2}"#]);
        assert_eq!((status, out.trim()), (0, "42"), "{target}: {err}");
        let (status, _, err) = place.run(&["call", target, "calc.add", r#"{"a": -1, "b": 2}"#]);
        assert_eq!(status, 1, "{target}: {err}");
        assert!(err.contains("a: must be from 0 to 4294967295, and is -1"), "{target}: {err}");
        let (status, _, err) = place.run(&["call", target, "calc.sub", "{}"]);
        assert_ne!(status, 0, "{target}: {err}");
    }
}

#[test]
fn a_file_has_the_rights_of_the_command_line_and_no_others() {
    let place = Place::new(Launcher::Me);
    write(&place, "it.wasm", &importing("palisade:plugin/storage@0.1.0"));
    let (status, _, err) = place.run(&["call", "it.wasm", "calc.add", r#"{"a": 1, "b": 2}"#]);
    assert_eq!(status, 3, "{err}");
    assert!(err.contains("storage.kv"), "{err}");
    let (status, out, err) = place.run(&[
        "call",
        "it.wasm",
        "calc.add",
        r#"{"a": 1, "b": 2}"#,
        "--grant",
        "storage.kv:*",
    ]);
    assert_eq!((status, out.trim()), (0, "3"), "{err}");
}
