//! Attempts 63 and 74: a name or a reason that shows the reader something else than what is granted,
//! and a manifest that changes after it was agreed to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{least, with};
use palisade_manifest::{Manifest, ManifestError, Syntax, parse, shown};
use palisade_model::{Failure, text::is_deceptive};
use proptest::prelude::*;
use serde_json::{Value, json};

fn read(document: &Value) -> Result<Manifest, ManifestError> {
    parse(&document.to_string(), Syntax::Json)
}

/// Whether a terminal shows `text` as it stands: nothing moves the cursor, colours, hides or reorders.
fn is_plain(text: &str) -> bool {
    !text.chars().any(is_deceptive)
}

const STEERING: [&str; 10] = [
    "\u{1b}[2K\u{1b}[1Aharmless",
    "\u{1b}]0;title\u{7}",
    "a\rharmless",
    "a\nGranted: nothing",
    "a\u{8}\u{8}\u{8}b",
    "a\u{9b}31mb",
    "a\u{0}b",
    "a\u{85}b",
    "a\tb",
    "a\u{7f}b",
];

const INVISIBLE: [&str; 7] = [
    "a\u{202e}gnp.exe",
    "a\u{2066}b\u{2069}",
    "a\u{200b}b",
    "a\u{2028}b",
    "\u{feff}a",
    "a\u{e0041}b",
    "a\u{fe0f}b",
];

#[test]
fn a_hostile_name_or_reason_cannot_move_the_cursor() {
    for text in STEERING {
        for document in [
            with(json!({ "name": text })),
            with(json!({ "license": text })),
            with(json!({ "authors": [text] })),
            with(
                json!({ "capabilities": { "required": [{ "capability": "fs.read:/a", "reason": text }] } }),
            ),
            with(json!({ "contributes": { "hooks": [{ "event": "a", "reason": text }] } })),
        ] {
            let error = read(&document).expect_err(text);
            assert!(error.to_string().lines().all(is_plain), "{error:?}");
            assert!(is_plain(&Failure::from(error.clone()).to_string()), "{error:?}");
        }
        assert!(is_plain(&shown(text, 80)), "{text:?}");
    }
}

#[test]
fn invisible_and_reordering_characters_are_kept_and_marked() {
    for text in INVISIBLE {
        let manifest = read(&with(json!({
            "name": text,
            "capabilities": { "required": [{ "capability": "fs.read:/a", "reason": text }] }
        })))
        .unwrap();
        assert_eq!(manifest.name.as_deref(), Some(text), "kept as it is");
        let name = manifest.display_name();
        assert!(is_plain(&name) && name.ends_with("[hidden characters]"), "{name:?}");
        let requested = manifest.requested();
        let reason = shown(requested.reasons.values().next().unwrap(), 200);
        assert!(is_plain(&reason) && reason.ends_with("[hidden characters]"), "{reason:?}");
    }
}

#[test]
fn letters_that_look_alike_are_marked_and_never_in_an_id() {
    let manifest = read(&with(json!({ "name": "p\u{430}ypal" }))).unwrap();
    assert_eq!(manifest.display_name(), "p\u{430}ypal [mixed alphabets]");
    let both = read(&with(json!({ "name": "p\u{430}y\u{200d}pal" }))).unwrap();
    assert_eq!(both.display_name(), "p\u{430}y\\u{200d}pal [hidden characters] [mixed alphabets]");
    let plain = read(&with(json!({ "name": "Привет 漢字" }))).unwrap();
    assert_eq!(plain.display_name(), "Привет 漢字");
    assert_eq!(read(&least()).unwrap().display_name(), "a", "the id where there is no name");
    for id in ["p\u{430}ypal", "Paypal", "pay pal", "pay\u{200b}pal", "ｐaypal"] {
        assert!(read(&with(json!({ "id": id }))).is_err(), "{id}");
    }
    for tool in ["c\u{43e}unt", "count\u{200b}", "count "] {
        let document =
            with(json!({ "contributes": { "tools": [{ "name": tool, "description": "x" }] } }));
        assert!(read(&document).is_err(), "{tool:?}");
    }
}

#[test]
fn a_changed_manifest_is_another_manifest() {
    let text = "api: palisade/1\nid: a\nversion: 1.0.0\nentry: { kind: python, file: main.py }\n";
    let digest = |text: &str| parse(text, Syntax::Yaml).unwrap().digest();
    let agreed = digest(text);
    assert_eq!(agreed, digest(text));
    for changed in [
        format!("{text}# a comment\n"),
        text.replace("main.py", "evil.py"),
        text.replace(": a", ":  a"),
    ] {
        assert_ne!(agreed, digest(&changed), "{changed}");
    }
    // FIPS 180-4 test vector, so that it is SHA-256 and not something alike.
    let abc = palisade_manifest::Digest::of(b"abc").to_string();
    assert_eq!(abc, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(palisade_manifest::Digest::parse(&agreed.to_string()), Some(agreed));
    for bad in [
        "",
        "sha256:",
        "ba7816bf",
        &abc.to_uppercase(),
        &abc.replace("ba", "+a"),
        &format!("{abc}00"),
    ] {
        assert_eq!(palisade_manifest::Digest::parse(bad), None, "{bad}");
    }
}

/// Every text field of a manifest, holding `text`.
fn everywhere(text: &str) -> Vec<Value> {
    let mut out = vec![json!({ text: 1 }), json!({ "api": text })];
    for key in [
        "id",
        "name",
        "version",
        "description",
        "homepage",
        "license",
        "requires",
        "entry",
        "guarantees",
        text,
    ] {
        out.push(with(json!({ key: text })));
    }
    for document in [
        json!({ "requires": { "palisade": text } }),
        json!({ "authors": [text] }),
        json!({ "entry": { "kind": text } }),
        json!({ "entry": { "kind": "python", "file": text, "interpreter": text, "version": text, "args": [text, 1] } }),
        json!({ "entry": { "kind": "jsonl", "command": text, "mode": text, "init": text, "timeout": text, text: 1 } }),
        json!({ "capabilities": { "required": [text, { "capability": text, "reason": text, text: 1 }] } }),
        json!({ "capabilities": { "required": [format!("fs.read:/{text}"), format!("env:{text}")] } }),
        json!({ "contributes": { "tools": [{ "name": text, "description": 1, "input": { "pattern": text, "$ref": text } }] } }),
        json!({ "contributes": { "tools": [{ "name": "a", "description": text, "input": { "type": text } }] } }),
        json!({ "contributes": { text: text } }),
        json!({ "resources": { "memory": text, "cpu": text, "timeouts": { "call": text }, "rates": { "calls": text } } }),
        json!({ "guarantees": { text: true, "own-uid": text } }),
        json!({ "guarantees": [text] }),
        json!({ "config": { "schema": { "properties": { text: { "type": "integer" } } }, "defaults": { text: text } } }),
        json!({ "config": { "schema": { "$ref": format!("#/{text}") } } }),
        json!({ "config": { "schema": { "enum": [1] }, "defaults": { text: text } } }),
    ] {
        out.push(with(document));
    }
    out
}

proptest! {
    // One case is some thousand manifests.
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// Whatever an author writes, an error text and the JSON form of it steer no terminal.
    #[test]
    fn no_error_text_holds_what_steers_a_terminal(noise in any::<String>()) {
        for hostile in STEERING.iter().chain(&INVISIBLE) {
            for document in everywhere(&format!("{noise}{hostile}")) {
                for (text, syntax) in [
                    (document.to_string(), Syntax::Json),
                    (toml::to_string(&document).unwrap_or_default(), Syntax::Toml),
                ] {
                    let Err(error) = parse(&text, syntax) else { continue };
                    for line in error.to_string().lines() {
                        prop_assert!(is_plain(line), "{:?}", line);
                    }
                    let json = serde_json::to_value(&error).unwrap();
                    for finding in json["diagnostics"].as_array().unwrap() {
                        for key in ["message", "field", "hint"] {
                            prop_assert!(is_plain(finding[key].as_str().unwrap_or_default()), "{}", finding);
                        }
                        prop_assert!(is_plain(finding["excerpt"]["text"].as_str().unwrap_or_default()), "{}", finding);
                    }
                    prop_assert!(is_plain(&Failure::from(error).to_string()));
                }
            }
        }
    }
}
