//! A policy that demands `engine-walled` of single plugins, end to end, as root and as a user.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use serde_json::Value;
use support::{Place, launchers};

/// Adds.
const CALC: &str = r#"(component
    (core module $m
        (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))
    (core instance $i (instantiate $m))
    (func (export "add") (param "a" u32) (param "b" u32) (result u32)
        (canon lift (core func $i "add"))))"#;

const NAMED: &str = "org.example.calc";
const OTHER: &str = "com.example.calc";
const FLOOR: &str = "[plugins.\"org.example.*\".floor]\nengine-walled = \"kernel\"\n";

fn folder(place: &Place, id: &str) -> String {
    let manifest = format!(
        "api: palisade/1\nid: {id}\nversion: 1.0.0\nentry: {{ kind: wasm, file: it.wasm }}\n\
         contributes: {{ tools: [{{ name: add, description: Adds. }}] }}\n"
    );
    place.plugin(id, &manifest, "");
    std::fs::write(place.path(&format!("plugins/{id}/it.wasm")), wat::parse_str(CALC).unwrap())
        .unwrap();
    format!("plugins/{id}")
}

#[test]
fn a_plugin_that_the_policy_names_runs_behind_walls_and_in_no_plain_engine() {
    for launcher in launchers() {
        let place = Place::new(launcher);
        let (named, other) = (folder(&place, NAMED), folder(&place, OTHER));
        std::fs::write(place.path("floors.toml"), FLOOR).unwrap();
        let plain = format!("backends = [\"wasm\"]\n{FLOOR}");
        std::fs::write(place.path("plain.toml"), plain).unwrap();
        let backend = |target: &str| {
            let (status, out, err) =
                place.run(&["check", target, "--policy", "floors.toml", "--json"]);
            assert_eq!(status, 0, "{launcher:?} {target}: {out}{err}");
            let plan: Value = serde_json::from_str(&out).unwrap();
            plan["plan"]["wall"]["backend"].as_str().unwrap_or_else(|| panic!("{plan}")).to_owned()
        };
        assert_eq!((backend(&named), backend(&other)), ("wasm+process".into(), "wasm".into()));

        let call = |target: &str, more: &[&str]| {
            place.run(&[&["call", target, "add", r#"{"a": 40, "b": 2}"#], more].concat())
        };
        for (target, how) in [
            (&named, &["--policy", "floors.toml"][..]),
            (&other, &["--policy", "floors.toml"][..]),
            (&other, &["--policy", "floors.toml", "--backend", "wasm"][..]),
            (&other, &["--policy", "plain.toml"][..]),
            // The control: without the policy the plain engine would do.
            (&named, &["--backend", "wasm"][..]),
        ] {
            let (status, out, err) = call(target, how);
            assert_eq!((status, out.trim()), (0, "42"), "{launcher:?} {target} {how:?}: {err}");
        }
        for how in
            [&["--policy", "floors.toml", "--backend", "wasm"][..], &["--policy", "plain.toml"][..]]
        {
            let (status, out, err) = call(&named, how);
            assert_eq!((status, out.as_str()), (4, ""), "{launcher:?} {how:?}: {err}");
            assert!(err.contains("engine-walled is demanded (kernel)"), "{err}");
            assert!(err.contains("rule: plugins.\"org.example.*\".floor"), "{err}");
        }
    }
}

#[test]
fn a_policy_that_says_something_malformed_of_a_plugin_starts_nothing() {
    let place = Place::new(support::Launcher::Me);
    let other = folder(&place, OTHER);
    for text in [
        "[plugins.\"org.example.*\".floor]\nengine-waled = \"kernel\"",
        "[plugins.\"Org.Example.*\".floor]\nengine-walled = \"kernel\"",
        "[plugins.org.example.floor]\nengine-walled = \"kernel\"",
        "[plugins.\"org.example.*\"]",
    ] {
        std::fs::write(place.path("bad.toml"), text).unwrap();
        let (status, out, err) =
            place.run(&["call", &other, "add", r#"{"a": 1, "b": 2}"#, "--policy", "bad.toml"]);
        assert_eq!((status, out.as_str()), (2, ""), "{text}: {err}");
        assert!(err.contains("the policy bad.toml: policy, line"), "{text}: {err}");
    }
}
