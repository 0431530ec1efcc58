use std::time::Instant;

use serde_json::json;

use super::*;
use crate::tree::{Syntax, parse};

fn build(schema: &Json) -> Result<JsonSchema, String> {
    let node = parse(&schema.to_string(), Syntax::Json).map_err(|d| d.message)?;
    compile(&node, &mut Budget::default()).map_err(|d| d.message)
}

#[test]
fn nothing_outside_the_document_is_referred_to() {
    for target in [
        "http://127.0.0.1:1/x.json",
        "https://json-schema.org/draft/2020-12/schema",
        "file:///etc/passwd",
        "other.json",
        "other.json#/a",
        "/etc/passwd",
        "//host/x",
        "#name",
        "",
        "#/$defs/%61",
        "urn:uuid:deadbeef",
    ] {
        let schema = json!({ "properties": { "x": { "$ref": target } }, "$defs": { "a": {} } });
        let error = build(&schema).expect_err(target);
        assert!(error.contains("$ref"), "{target}: {error}");
    }
    for key in ["$id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$vocabulary"] {
        let error = build(&json!({ "properties": { "x": { key: "http://x/" } } })).expect_err(key);
        assert!(error.contains(key), "{error}");
    }
    assert!(build(&json!({ "$schema": "http://attacker/schema" })).is_err());
    assert!(
        build(&json!({ "properties": { "$ref": { "type": "string" } } })).is_ok(),
        "a property may be named $ref"
    );
    assert!(build(&json!({ "const": { "$ref": "http://x/" } })).is_ok(), "data is no schema");
}

#[test]
fn references_inside_the_document_work_in_each_draft() {
    for (draft, place) in [
        ("https://json-schema.org/draft/2020-12/schema", "$defs"),
        ("https://json-schema.org/draft/2019-09/schema", "$defs"),
        ("http://json-schema.org/draft-07/schema#", "definitions"),
    ] {
        let schema = build(&json!({
            "$schema": draft,
            place: { "a/b~c": { "type": "integer" } },
            "properties": { "n": { "$ref": format!("#/{place}/a~1b~0c") } }
        }))
        .unwrap();
        assert!(schema.validate(&json!({ "n": 1 })).is_ok());
        let errors = schema.validate(&json!({ "n": "secret" })).unwrap_err();
        assert_eq!((errors[0].path.as_str(), errors[0].keyword.as_str()), ("/n", "type"));
        assert!(!errors[0].message.contains("secret"), "{}", errors[0].message);
    }
}

#[test]
fn a_schema_without_end_is_refused() {
    for schema in [
        json!({ "$ref": "#" }),
        json!({ "allOf": [{ "$ref": "#" }] }),
        json!({ "properties": { "next": { "$ref": "#" } } }),
        json!({ "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } }, "$ref": "#/$defs/a" }),
    ] {
        let error = build(&schema).expect_err("circle");
        assert!(error.contains("refers to itself"), "{error}");
    }
}

/// Each definition refers to the next twice: 2^40 subschemas from forty lines.
#[test]
fn a_schema_that_unfolds_without_measure_is_refused_at_once() {
    for keyword in ["allOf", "anyOf", "oneOf"] {
        let mut defs = serde_json::Map::new();
        for i in 0..40 {
            let next = json!({ "$ref": format!("#/$defs/d{}", i + 1) });
            defs.insert(format!("d{i}"), json!({ keyword: [next, next] }));
        }
        defs.insert("d40".into(), json!({ "type": "string" }));
        let start = Instant::now();
        let error = build(&json!({ "$defs": defs, "$ref": "#/$defs/d0" })).expect_err("bomb");
        assert!(error.contains("unfold") || error.contains("deeper"), "{error}");
        assert!(start.elapsed().as_secs() < 2);
    }
    // A chain that is only deep.
    let chain: serde_json::Map<String, Json> = (0..2000)
        .map(|i| (format!("d{i}"), json!({ "$ref": format!("#/$defs/d{}", i + 1) })))
        .chain([("d2000".to_owned(), json!(true))])
        .collect();
    let error = build(&json!({ "$ref": "#/$defs/d0", "$defs": chain })).expect_err("deep");
    assert!(error.contains("deeper"), "{error}");
}

/// The dearest schemas that are let through still compile and answer soon.
#[test]
fn the_bound_on_what_a_schema_unfolds_to_bounds_the_time() {
    let slow = |depth: usize, keyword: &str| {
        let mut schema = json!({ "type": "object", "properties": { "a": { "type": "integer" } } });
        for _ in 0..depth {
            schema = match keyword {
                "unevaluatedProperties" => {
                    json!({ "allOf": [schema], "unevaluatedProperties": false })
                }
                "if" => json!({ "if": schema, "then": schema }),
                _ => json!({ keyword: [schema, schema] }),
            };
        }
        schema
    };
    for keyword in ["unevaluatedProperties", "if", "anyOf", "oneOf", "allOf"] {
        let deepest =
            (1..12).rev().find_map(|depth| build(&slow(depth, keyword)).ok()).expect(keyword);
        let start = Instant::now();
        for instance in [json!({ "a": 1 }), json!({ "a": "x", "b": 1 }), json!([])] {
            let _ = deepest.validate(&instance);
        }
        assert!(start.elapsed().as_secs() < 5, "{keyword} took {:?}", start.elapsed());
    }
}

/// Number 73 of the list of attacks: patterns that make a backtracking engine run for years.
#[test]
fn catastrophic_patterns_answer_at_once() {
    let hostile = format!("{}!", "a".repeat(50_000));
    for pattern in [
        "^(a+)+$",
        "^(a|a)*$",
        "^(a|aa)+$",
        "^([a-zA-Z]+)*$",
        "(.*a){12}$",
        "^(([a-z])+.)+[A-Z]([a-z])+$",
        r"^(\w+\s?)*$",
        "a*a*a*a*a*a*a*a*a*b$",
    ] {
        let schema = build(&json!({ "pattern": pattern })).expect(pattern);
        let start = Instant::now();
        let refused = schema.validate(&json!(hostile)).is_err();
        let took = start.elapsed();
        assert!(took.as_secs() < 3, "{pattern} took {took:?}");
        assert!(refused, "{pattern}");
    }
    let schema =
        build(&json!({ "patternProperties": { "^(a+)+$": { "type": "integer" } } })).unwrap();
    let start = Instant::now();
    let _ = schema.validate(&json!({ hostile: 1 }));
    assert!(start.elapsed().as_secs() < 3);
}

#[test]
fn patterns_that_are_not_regular_or_too_large_are_refused_with_words() {
    for (pattern, word) in [
        ("(?=a)b", "look-around"),
        ("(?!a)b", "look-around"),
        ("(?<=a)b", "look-around"),
        ("(?<!a)b", "look-around"),
        (r"(a)\1", "back reference"),
        (r"(?<n>a)\k<n>", "back reference"),
        ("(", "regular expression"),
        ("((a{1,1000}){1,1000}){1,1000}", "regular expression"),
        (&"a".repeat(MAX_PATTERN_BYTES + 1), "bytes"),
    ] {
        for schema in [
            json!({ "pattern": pattern }),
            json!({ "patternProperties": { pattern: {} } }),
            json!({ "properties": { "x": { "not": { "pattern": pattern } } } }),
        ] {
            let start = Instant::now();
            let error = build(&schema).expect_err(pattern);
            assert!(error.contains(word), "{pattern:.40}: {error}");
            assert!(start.elapsed().as_secs() < 3, "{pattern:.40}");
        }
    }
    // These only look like it.
    for pattern in
        [r"\(?=a", "[(?=]", r"\\1", "(?:a)", "(?<name>a)", r"^[\w.-]{1,64}$", r"^\p{L}+$"]
    {
        assert!(
            build(&json!({ "pattern": pattern })).is_ok(),
            "{pattern}: {:?}",
            build(&json!({ "pattern": pattern }))
        );
    }
    let many: Vec<Json> =
        (0..=MAX_PATTERNS).map(|i| json!({ "pattern": format!("a{i}") })).collect();
    assert!(build(&json!({ "anyOf": many })).unwrap_err().contains("regular expressions"));
}

#[test]
fn what_the_metaschema_refuses_is_shown_where_it_stands() {
    let node =
        parse("{\n \"properties\": {\n  \"a\": {\"type\": \"strin\"}}}", Syntax::Json).unwrap();
    let error = compile(&node, &mut Budget::default()).unwrap_err();
    assert_eq!((error.line, error.rule), (3, Rule::Schema), "{error}");
    for schema in [
        json!({ "type": 7 }),
        json!({ "properties": [] }),
        json!({ "required": "a" }),
        json!({ "minLength": -1 }),
        json!({ "items": 5 }),
        json!({ "$ref": 5 }),
        json!({ "$ref": "#/$defs/none" }),
        json!({ "$ref": "#/allOf/00", "allOf": [true] }),
        json!([]),
        json!(true),
    ] {
        assert!(build(&schema).is_err(), "{schema}");
    }
}
