//! The reference page against the code: every field of the schema, every rule, and the examples.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;

use palisade_manifest::{Syntax, parse, schema};
use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/reference/manifest.md");

/// The dotted names of all properties below `schema`.
fn fields(root: &Value, schema: &Value, at: &str, out: &mut BTreeSet<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        fields(root, root.pointer(&target[1..]).unwrap(), at, out);
    }
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        fields(root, below, &path, out);
        out.insert(path);
    }
    if schema["items"].is_object() {
        fields(root, &schema["items"], &format!("{at}[]"), out);
    }
    for keyword in ["anyOf", "oneOf", "allOf"] {
        for below in schema[keyword].as_array().into_iter().flatten() {
            fields(root, below, at, out);
        }
    }
    if schema["then"].is_object() {
        fields(root, &schema["then"], at, out);
    }
}

#[test]
fn every_field_of_the_schema_stands_on_the_page() {
    let schema = schema();
    let mut all = BTreeSet::new();
    fields(&schema, &schema, "", &mut all);
    assert!(all.len() > 80, "the schema was walked: {all:?}");
    for field in [
        "entry.file",
        "resources.timeouts.start",
        "contributes.tools[].input",
        "guarantees.own-uid",
    ] {
        assert!(all.contains(field), "{field} was not found in the schema");
    }
    let missing: Vec<&String> =
        all.iter().filter(|field| !PAGE.contains(&format!("`{field}`"))).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
}

#[test]
fn every_field_on_the_page_is_one_of_the_schema() {
    let schema = schema();
    let mut all = BTreeSet::new();
    fields(&schema, &schema, "", &mut all);
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    // The table of entry kinds begins with words, not with fields.
    let kinds = [
        "entry.kind",
        "python",
        "node",
        "exec",
        "mcp",
        "jsonl",
        "wasm",
        "extism",
        "image",
        "library",
    ];
    let unknown: Vec<&str> = rows
        .map(|(field, _)| field)
        .filter(|field| !all.contains(*field) && !kinds.contains(field))
        .collect();
    assert!(unknown.is_empty(), "not in the schema: {unknown:?}");
}

#[test]
fn every_rule_stands_on_the_page() {
    use palisade_manifest::Rule as R;
    for rule in [
        R::Syntax,
        R::Bounds,
        R::Api,
        R::UnknownKey,
        R::Missing,
        R::Type,
        R::Text,
        R::Id,
        R::Version,
        R::Requires,
        R::Path,
        R::Choice,
        R::Conflict,
        R::Range,
        R::Quantity,
        R::Capability,
        R::Reason,
        R::Environment,
        R::Duplicate,
        R::TooMany,
        R::Guarantee,
        R::Schema,
        R::Defaults,
    ] {
        assert!(PAGE.contains(&format!("`{}`", rule.as_str())), "{}", rule.as_str());
        assert_eq!(serde_json::to_value(rule).unwrap(), rule.as_str());
    }
}

#[test]
fn the_examples_are_valid_and_say_the_same() {
    let example = |language: &str| {
        let (_, rest) = PAGE.split_once(&format!("```{language}\n")).expect(language);
        rest.split_once("```").unwrap().0
    };
    let yaml = parse(example("yaml"), Syntax::Yaml).unwrap_or_else(|e| panic!("{e}"));
    let toml = parse(example("toml"), Syntax::Toml).unwrap_or_else(|e| panic!("{e}"));
    assert!(yaml.says_the_same_as(&toml));
}

#[test]
fn the_defaults_on_the_page_are_those_of_the_model() {
    let l = palisade_model::Limits::default();
    for (field, default) in [
        ("resources.cpu", l.cpu.to_string()),
        ("resources.memory", format!("{} MiB", l.memory >> 20)),
        ("resources.pids", l.pids.to_string()),
        ("resources.files", l.files.to_string()),
        ("resources.disk", format!("{} MiB", l.disk >> 20)),
        ("resources.log", format!("{} MiB", l.log_bytes_per_second >> 20)),
        ("resources.timeouts.start", format!("{} s", l.start_timeout.as_secs())),
        ("resources.timeouts.call", format!("{} s", l.call_timeout.as_secs())),
        ("resources.timeouts.stop", format!("{} s", l.stop_timeout.as_secs())),
        ("resources.rates.requests", format!("{}/s", l.rates.requests_per_second)),
        ("resources.rates.events", format!("{}/s", l.rates.events_per_second)),
        ("resources.rates.calls", format!("{}/s", l.rates.calls_per_second)),
    ] {
        let row =
            PAGE.lines().find(|line| line.starts_with(&format!("| `{field}` |"))).expect(field);
        assert_eq!(row.split('|').nth(3).map(str::trim), Some(default.as_str()), "{field}");
    }
}
