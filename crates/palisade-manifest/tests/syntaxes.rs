//! One document in three syntaxes says the same, and what was read can be written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{full, good, least};
use palisade_manifest::{Manifest, Syntax, parse};
use proptest::prelude::*;
use serde_json::{Value, json};

/// `value` as YAML in block style, with plain scalars where they mean the same.
fn yaml(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                out.push_str(&format!("\n{pad}{}:", yaml_text(key)));
                yaml(value, indent + 2, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                out.push_str(&format!("\n{pad}-"));
                yaml(item, indent + 2, out);
            }
        }
        Value::String(text) => out.push_str(&format!(" {}", yaml_text(text))),
        other => out.push_str(&format!(" {other}")),
    }
}

fn yaml_text(text: &str) -> String {
    let word = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphabetic() || c == '.');
    let taken = ["null", "true", "false"].contains(&text.to_ascii_lowercase().as_str());
    if word && !taken && !text.starts_with('.') { text.to_owned() } else { json!(text).to_string() }
}

fn in_yaml(value: &Value) -> String {
    let mut out = String::new();
    yaml(value, 0, &mut out);
    out
}

/// `None` where TOML has no such value: null, and numbers over 2^63.
fn in_toml(value: &Value) -> Option<String> {
    toml::to_string(value).ok()
}

fn read(text: &str, syntax: Syntax) -> Manifest {
    parse(text, syntax).unwrap_or_else(|error| panic!("{error}\n\n{text}"))
}

fn check(document: &Value) {
    let json = read(&document.to_string(), Syntax::Json);
    let pretty = read(&serde_json::to_string_pretty(document).unwrap(), Syntax::Json);
    let yaml = read(&in_yaml(document), Syntax::Yaml);
    assert!(json.says_the_same_as(&pretty));
    assert!(json.says_the_same_as(&yaml), "{json:#?}\n{yaml:#?}");
    if let Some(text) = in_toml(document) {
        let toml = read(&text, Syntax::Toml);
        assert!(json.says_the_same_as(&toml), "{json:#?}\n{toml:#?}");
        assert_ne!(json.digest(), toml.digest(), "the digest is of the bytes");
    }
    // JSON is YAML too, so both readers must agree on it.
    assert!(json.says_the_same_as(&read(&document.to_string(), Syntax::Yaml)));

    let written = json.to_json();
    let again = read(&written.to_string(), Syntax::Json);
    assert!(json.says_the_same_as(&again), "{json:#?}\n{again:#?}");
    assert_eq!(again.to_json(), written, "writing twice changes nothing");
    assert_eq!(serde_json::to_value(&json).unwrap(), written);
}

#[test]
fn every_kind_of_document_says_the_same_in_three_syntaxes() {
    let mut in_all_three = 0;
    for document in good() {
        in_all_three += usize::from(in_toml(&document).is_some());
        check(&document);
    }
    assert!(in_all_three > 15, "nearly all can be written in TOML: {in_all_three}");
}

fn line() -> impl Strategy<Value = String> {
    "[^\\x00-\\x1f\\x7f-\\u{9f}]{0,20}[a-z]".prop_map(|text| text)
}

fn document() -> impl Strategy<Value = Value> {
    let all = good();
    let section = move |key: &'static str| {
        let values: Vec<Option<Value>> = all.iter().map(|d| d.get(key).cloned()).collect();
        prop::sample::select(values).prop_map(move |value| (key, value))
    };
    let sections = (
        section("entry"),
        section("capabilities"),
        section("contributes"),
        section("resources"),
        section("guarantees"),
        section("config"),
        section("state"),
        section("requires"),
    );
    let numbers = (1..=4_194_304_u32, 0.01..1024.0_f64, 1..=86_400_000_u64, 4_194_304..1_u64 << 44);
    (sections, line(), line(), "[a-z0-9]{1,20}", numbers, any::<bool>()).prop_map(
        |((a, b, c, d, e, f, g, h), name, reason, id, (pids, cpu, ms, memory), tune)| {
            let mut out = least();
            for (key, value) in [a, b, c, d, e, f, g, h] {
                if let Some(value) = value {
                    out[key] = value;
                }
            }
            out["id"] = json!(id);
            out["name"] = json!(name);
            if tune {
                out["capabilities"] = json!({ "optional": [{ "capability": "host.call:x", "reason": reason }] });
                out["resources"] = json!({
                    "pids": pids, "cpu": cpu, "memory": memory, "timeouts": { "call": format!("{ms}ms") }
                });
            }
            out
        },
    )
}

proptest! {
    #[test]
    fn documents_put_together_at_random_say_the_same_in_three_syntaxes(document in document()) {
        check(&document);
    }

    #[test]
    fn arbitrary_bytes_are_judged_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for syntax in [Syntax::Yaml, Syntax::Toml, Syntax::Json] {
            if let Err(error) = palisade_manifest::parse_named(&bytes, syntax, "plugin") {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }

    /// A valid document with a few characters changed reaches deeper than noise does.
    #[test]
    fn damaged_documents_are_judged_and_never_panic(
        which in 0..3usize,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<char>(), 0..3usize), 1..6),
    ) {
        let mut document = full();
        document.as_object_mut().unwrap().remove("x-editor");
        let (text, syntax) = match which {
            0 => (document.to_string(), Syntax::Json),
            1 => (in_yaml(&document), Syntax::Yaml),
            _ => (in_toml(&document).unwrap(), Syntax::Toml),
        };
        let mut chars: Vec<char> = text.chars().collect();
        for (at, c, what) in cuts {
            let at = at.index(chars.len());
            match what {
                0 => chars[at] = c,
                1 => chars.insert(at, c),
                _ => { chars.remove(at); }
            }
        }
        let text: String = chars.into_iter().collect();
        if let Err(error) = parse(&text, syntax) {
            let lines = error.to_string();
            prop_assert!(lines.lines().all(|line| !line.chars().any(palisade_model::text::is_deceptive)), "{:?}", lines);
        }
    }
}
