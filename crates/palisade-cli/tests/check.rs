//! `palisade check`, end to end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use serde_json::Value;
use support::{Launcher, Place, launchers, manifest};

#[test]
fn a_good_plugin_is_shown_with_what_it_asks_and_what_holds() {
    for launcher in launchers() {
        let place = Place::new(launcher);
        let (status, out, err) = place.run(&["check", "plugins/word-counter"]);
        assert_eq!(status, 0, "{launcher:?}: {out}{err}");
        for expected in [
            "fs.read:/**",
            "risk high",
            "The folder of texts you choose.",
            "tool:count",
            "net-isolated",
            "It can be started here",
        ] {
            assert!(out.contains(expected), "{launcher:?}: no {expected:?} in\n{out}");
        }
        assert!(!out.contains('\x1b'), "no colours without a terminal");
        assert_eq!(place.run(&["check", "plugins/checksum"]).0, 0, "{launcher:?}");
    }
}

#[test]
fn mistakes_are_shown_as_a_compiler_would() {
    let place = Place::new(Launcher::Me);
    let wrong = "api: palisade/1\nid: Wrong\nversion: 1.0\nentry: { kind: python, file: ../main.py }\ncapabilties: {}\n";
    place.plugin("wrong", wrong, "");
    let (status, out, err) = place.run(&["check", "plugins/wrong"]);
    assert_eq!((status, out.as_str()), (2, ""));
    insta::assert_snapshot!("check-mistakes", err);
    let (status, out, _) = place.run(&["check", "plugins/wrong", "--json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &document["error"]["code"]), (2, &"PAL-MANIFEST".into()));
    assert!(document["error"]["diagnostics"].as_array().unwrap().len() >= 4);
}

#[test]
fn what_cannot_start_here_is_status_4_and_says_why() {
    let place = Place::new(Launcher::Me);
    place.plugin(
        "library",
        "api: palisade/1\nid: library\nversion: 1.0.0\nentry: { kind: library, file: a.so }\n",
        "",
    );
    place.plugin("kernel", &manifest("kernel", "guarantees: [own-kernel]"), "");
    let gpu = "capabilities: { required: [{ capability: 'gpu:0', reason: Draws. }] }";
    place.plugin("gpu", &manifest("gpu", gpu), "");
    for (plugin, says) in [
        ("library", "needs backend library"),
        ("kernel", "own-kernel is demanded"),
        ("gpu", "cannot enforce gpu"),
    ] {
        let (status, out, _) = place.run(&["check", &format!("plugins/{plugin}")]);
        assert_eq!(status, 4, "{plugin}: {out}");
        assert!(out.contains(says), "{plugin}: {out}");
    }
}

#[test]
fn what_the_policy_forbids_is_status_3() {
    let place = Place::new(Launcher::Me);
    std::fs::write(place.path("policy.toml"), "forbid = [\"fs.read:/**\"]\n").unwrap();
    let (status, out, _) = place.run(&["check", "plugins/word-counter", "--policy", "policy.toml"]);
    assert_eq!(status, 3, "{out}");
    assert!(out.contains("forbidden:"), "{out}");
}

#[test]
fn a_reason_cannot_steer_the_terminal_or_pose_as_something_else() {
    let place = Place::new(Launcher::Me);
    let reason = "capabilities: { optional: [{ capability: 'fs.read:/srv/**', reason: 'p\u{430}yp\u{430}l asks' }] }";
    place.plugin("poser", &manifest("poser", reason), "");
    let (_, out, err) = place.run(&["check", "plugins/poser"]);
    assert!(out.contains("[mixed alphabets]"), "{out}{err}");
}

#[test]
fn the_plan_is_json_for_programs() {
    let place = Place::new(Launcher::Me);
    let (status, out, _) =
        place.run(&["check", "plugins/word-counter", "--json", "--grant", "fs.read:texts/**"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status, 0);
    let right = &document["plan"]["requested"][0];
    assert_eq!((&right["state"], &right["risk"]), (&"granted".into(), &"high".into()));
    assert_eq!(document["plan"]["wall"]["backend"], "process");
    assert_eq!(document["problem"], Value::Null);
}
