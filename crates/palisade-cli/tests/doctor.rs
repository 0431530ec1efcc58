//! `palisade doctor`, end to end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use support::{Launcher, Place, launchers};

#[test]
fn it_says_what_holds_here() {
    for launcher in launchers() {
        let place = Place::new(launcher);
        let (status, out, err) = place.run(&["doctor"]);
        assert_eq!((status, err.as_str()), (0, ""), "{launcher:?}");
        for expected in ["launcher", "namespaces", "fs-isolated", "demanded", "process: yes"] {
            assert!(out.contains(expected), "{launcher:?}: no {expected:?} in\n{out}");
        }
        let (status, out, _) = place.run(&["doctor", "--json"]);
        let document: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(status, 0);
        let process = &document["backends"][0];
        assert_eq!(
            (&process["name"], &process["covers_default_floor"]),
            (&"process".into(), &true.into())
        );
        assert_eq!(process["facts"]["guarantees"]["net-isolated"], "kernel");
    }
}

#[test]
fn it_shows_a_system_call_profile() {
    let place = Place::new(Launcher::Me);
    let (status, out, _) = place.run(&["doctor", "--seccomp", "python"]);
    assert_eq!(status, 0);
    assert!(out.contains("refused (EPERM)") && out.contains(" ptrace,"), "{out}");
    // What comes to floor and profile, with when it does.
    for addition in [
        "init-guard/1, in every launch",
        "policed-memory/2, where",
        "policed-cpu/1, where",
        "no-jit/1, where",
    ] {
        assert!(out.contains(addition), "no {addition:?} in\n{out}");
    }
    let (_, out, _) = place.run(&["doctor", "--seccomp", "native", "--json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert!(document["calls"].as_array().unwrap().len() > 300);
    let additions = document["additions"].as_array().unwrap();
    let names: Vec<_> = additions.iter().map(|a| a["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["init-guard/1", "policed-memory/2", "policed-cpu/1", "no-jit/1"]);
    let calls = |n: usize| additions[n]["calls"].as_array().unwrap().len();
    assert_eq!([calls(0), calls(1), calls(2), calls(3)], [5, 8, 1, 3]);
    assert!(additions.iter().all(|a| !a["when"].as_str().unwrap().is_empty()));
    // Who compiles as it runs is not started where written memory may not become code.
    let (_, out, _) = place.run(&["doctor", "--seccomp", "node"]);
    assert!(out.contains("policed-memory/2") && !out.contains("no-jit/1"), "{out}");
    assert_eq!(place.run(&["doctor", "--seccomp", "ruby"]).0, 2);
}

#[test]
fn it_extracts_the_helper() {
    let place = Place::new(Launcher::Me);
    let output = place
        .palisade(&["doctor", "--extract-helper"])
        .env("TMPDIR", place.dir.path())
        .output()
        .unwrap();
    let path = String::from_utf8(output.stdout).unwrap();
    let meta = std::fs::metadata(path.trim()).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o755);
    assert!(meta.len() > 1000);
}
