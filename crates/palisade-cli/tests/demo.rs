//! `palisade demo`, end to end, as root and as a user.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use serde_json::Value;
use support::{Launcher, Place, launchers};

#[test]
fn the_good_ones_work_and_the_hostile_one_achieves_nothing() {
    for launcher in launchers() {
        let place = Place::new(launcher);
        let (status, out, err) = place.run(&["demo", "--json"]);
        let report: Value =
            serde_json::from_str(&out).unwrap_or_else(|e| panic!("{launcher:?}: {e}: {out}{err}"));
        assert_eq!((status, &report["ok"]), (0, &true.into()), "{launcher:?}: {out}");
        assert!(report["work"].as_array().unwrap().len() >= 9);
        let attempts = report["attempts"].as_array().unwrap();
        assert!(attempts.len() >= 16);
        for attempt in attempts {
            assert_eq!(attempt["achieved"], Value::Array(vec![]), "{launcher:?}");
            assert!(attempt["neighbour_micros"].is_u64(), "{launcher:?}");
        }
    }
}

#[test]
fn nothing_is_left_behind() {
    let place = Place::new(Launcher::Me);
    let folder = place.path("tmp");
    std::fs::create_dir(&folder).unwrap();
    let output = place.palisade(&["demo"]).env("TMPDIR", &folder).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{out}");
    assert!(out.contains("achieved nothing") && !out.contains('\x1b'), "{out}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn where_the_walls_are_missing_it_says_so() {
    let place = Place::new(Launcher::Me);
    let (status, out, err) = place.run(&["demo", "--backend", "landlock"]);
    assert_eq!((status, out.as_str()), (4, ""));
    assert!(err.contains("fs-isolated is demanded") && err.contains("palisade doctor"), "{err}");
}
