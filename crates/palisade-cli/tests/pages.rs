//! `palisade schema`, `completions` and `man`, end to end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use serde_json::Value;
use support::{Launcher, Place};

#[test]
fn the_schema_is_the_manifests() {
    let place = Place::new(Launcher::Me);
    let (status, out, err) = place.run(&["schema"]);
    assert_eq!((status, err.as_str()), (0, ""));
    let schema: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(schema, palisade_manifest::schema());
}

#[test]
fn every_shell_gets_a_script() {
    let place = Place::new(Launcher::Me);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (status, out, _) = place.run(&["completions", shell]);
        assert_eq!(status, 0, "{shell}");
        assert!(out.contains("palisade") && out.contains("doctor"), "{shell}");
        assert!(shell == "elvish" || !out.contains("\nman"), "{shell}");
    }
    assert_eq!(place.run(&["completions", "tcsh"]).0, 2);
}

#[test]
fn manual_pages_are_written() {
    let place = Place::new(Launcher::Me);
    let (status, _, err) = place.run(&["man", "pages"]);
    assert_eq!((status, err.as_str()), (0, ""));
    for page in ["palisade.1", "palisade-demo.1", "palisade-call.1"] {
        assert!(
            std::fs::read_to_string(place.path("pages").join(page)).unwrap().contains(".TH"),
            "{page}"
        );
    }
}
