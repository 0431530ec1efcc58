//! `--backend wasm+process`: the command is its own engine program. End to end, as root and as a user.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use serde_json::Value;
use support::{Launcher, Place, launchers};

/// Adds, divides (by nothing: a trap), and loops.
const CALC: &str = r#"(component
    (core module $m
        (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
        (func (export "div") (param i32 i32) (result i32) (i32.div_u (local.get 0) (local.get 1)))
        (func (export "loop") (param i32 i32) (result i32) (loop $again (br $again)) unreachable))
    (core instance $i (instantiate $m))
    (func $add (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
    (func $div (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "div")))
    (func $loop (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "loop")))
    (instance $calc (export "add" (func $add)) (export "div" (func $div)) (export "loop" (func $loop)))
    (export "docs:calculator/calc@0.1.0" (instance $calc))
)"#;

const FLOOR: &str = r#"
fs-isolated = "kernel"
net-isolated = "kernel"
peers-isolated = "kernel"
syscalls-filtered = "kernel"
engine-walled = "kernel"
"#;

fn calculator(place: &Place) {
    let manifest = "api: palisade/1\nid: calc\nversion: 1.0.0\nentry: { kind: wasm, file: it.wasm }\n\
        resources: { timeouts: { call: 500ms } }\n\
        contributes: { tools: [{ name: calc.add, description: Adds. }, { name: calc.div, description: Divides. },\n\
        { name: calc.loop, description: Loops. }] }\n";
    place.plugin("calc", manifest, "");
    for name in ["plugins/calc/it.wasm", "calc.wasm"] {
        std::fs::write(place.path(name), wat::parse_str(CALC).unwrap()).unwrap();
    }
    std::fs::write(place.path("walled.toml"), format!("[floor]{FLOOR}")).unwrap();
    let none = format!("backends = [\"wasm\", \"process\"]\n[floor]{FLOOR}");
    std::fs::write(place.path("none.toml"), none).unwrap();
}

#[test]
fn a_component_is_called_behind_walls_where_that_is_asked_for_or_demanded() {
    for launcher in launchers() {
        let place = Place::new(launcher);
        calculator(&place);
        let backend = &["--backend", "wasm+process"][..];
        let policy = &["--policy", "walled.toml"][..];
        for (target, how) in
            [("plugins/calc", backend), ("calc.wasm", backend), ("plugins/calc", policy)]
        {
            let call =
                |tool: &str, args: &str| place.run(&[&["call", target, tool, args], how].concat());
            let (status, out, err) = call("calc.add", r#"{"a": 40, "b": 2}"#);
            assert_eq!((status, out.trim()), (0, "42"), "{launcher:?} {target} {how:?}: {err}");
            let (status, _, err) = call("calc.add", r#"{"a": -1, "b": 2}"#);
            assert_eq!(status, 1, "{err}");
            assert!(err.contains("must be from 0 to 4294967295"), "{err}");
        }
        let call = |tool| {
            place.run(&[
                "call",
                "plugins/calc",
                tool,
                r#"{"a": 1, "b": 0}"#,
                "--backend",
                "wasm+process",
            ])
        };
        let (status, _, err) = call("calc.div");
        assert_eq!(status, 6, "{launcher:?}: {err}");
        assert!(err.contains("divide by zero"), "{err}");
        let (status, _, err) = call("calc.loop");
        assert_eq!(status, 5, "{launcher:?}: {err}");
    }
}

#[test]
fn a_demand_for_a_walled_engine_is_met_or_nothing_starts() {
    for launcher in launchers() {
        let place = Place::new(launcher);
        calculator(&place);
        let check = |policy: &str| {
            let (status, out, _) =
                place.run(&["check", "plugins/calc", "--policy", policy, "--json"]);
            (status, serde_json::from_str::<Value>(&out).unwrap())
        };
        let (status, plan) = check("walled.toml");
        assert_eq!(status, 0, "{plan}");
        assert!(plan.to_string().contains(r#""backend":"wasm+process""#), "{plan}");
        let (status, plan) = check("none.toml");
        assert_eq!(status, 4, "{plan}");
        let args = ["call", "plugins/calc", "calc.add", r#"{"a": 1, "b": 2}"#];
        let (status, _, err) = place.run(&[&args[..], &["--policy", "none.toml"]].concat());
        assert_eq!(status, 4, "{err}");
        assert!(err.contains("engine-walled"), "{err}");
        // It runs nothing else.
        let (status, _, err) =
            place.run(&["check", "plugins/checksum", "--backend", "wasm+process"]);
        assert_eq!(status, 4, "{err}");
    }
}

#[test]
fn doctor_says_what_the_second_wall_holds() {
    for launcher in launchers() {
        let place = Place::new(launcher);
        let (status, out, _) = place.run(&["doctor", "--json"]);
        assert_eq!(status, 0);
        let document: Value = serde_json::from_str(&out).unwrap();
        let find = |name: &str| {
            let backends = document["backends"].as_array().unwrap();
            backends.iter().find(|backend| backend["name"] == name).unwrap().clone()
        };
        let (process, walled) = (find("process"), find("wasm+process"));
        assert_eq!(walled["covers_default_floor"], true);
        let (theirs, ours) = (&process["facts"]["guarantees"], &walled["facts"]["guarantees"]);
        assert_eq!(ours["engine-walled"], "kernel");
        assert_eq!(ours["disk-capped"], "kernel");
        assert!(ours.get("no-jit").is_none());
        for name in ["fs-isolated", "net-isolated", "own-uid", "memory-capped", "cpu-capped"] {
            assert_eq!(ours.get(name), theirs.get(name), "{name}");
        }
        let (_, out, _) = place.run(&["doctor"]);
        assert!(out.contains("wasm+process: yes"), "{out}");
    }
}

#[test]
fn the_engine_is_no_command_of_its_own() {
    let place = Place::new(Launcher::Me);
    let (status, out, err) = place.run(&["--palisade-engine"]);
    assert_eq!((status, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("no socket on handle 3"), "{err}");
    assert_eq!(place.run(&["--palisade-engine", "anything"]).0, 2);
}
