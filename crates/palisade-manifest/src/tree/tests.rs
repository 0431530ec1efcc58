use proptest::prelude::*;
use serde_json::json;

use super::*;

fn yaml(text: &str) -> Result<serde_json::Value, String> {
    parse(text, Syntax::Yaml).map(|n| n.to_json()).map_err(|d| d.message)
}

#[test]
fn yaml_scalars_follow_the_core_schema_of_1_2() {
    let read = yaml(
        "a: yes\nb: No\nc: on\nd: 0o17\ne: 0x1F\nf: 017\ng: 1e3\nh: .5\ni: 1_000\nj: 12:30\nk: ~\nl: +7\nm: 'true'\nn: 2026-01-01\no: -.5e-1\np: e5\nq: .\nr: 0o8",
    );
    let expected = json!({
        "a": "yes", "b": "No", "c": "on", "d": 15, "e": 31, "f": 17, "g": 1000.0, "h": 0.5, "i": "1_000",
        "j": "12:30", "k": null, "l": 7, "m": "true", "n": "2026-01-01", "o": -0.05, "p": "e5", "q": ".", "r": "0o8"
    });
    assert_eq!(read, Ok(expected));
}

#[test]
fn what_yaml_has_and_json_has_not_is_refused() {
    for (text, word) in [
        ("a: &x 1\nb: *x", "anchor"),
        ("a: *x", "YAML"),
        ("&x a: 1", "anchor"),
        ("a: !!str 1", "tag"),
        ("a: ! 1", "tag"),
        ("!x {a: 1}", "tag"),
        ("a: {<<: {b: 1}}", "merge key"),
        ("a: 1\n---\nb: 2", "second document"),
        ("1: a", "key must be text"),
        ("true: a", "key must be text"),
        ("? [a]\n: b", "key must be text"),
        ("{a: 1}: b", "key must be text"),
        ("a: 1\na: 2", "twice"),
        ("a: 1\n'a': 2", "twice"),
        ("a: {b: 1, b: 2}", "twice"),
        ("a: .inf", "infinity"),
        ("a: -.INF", "infinity"),
        ("a: .nan", "infinity"),
        ("a: 99999999999999999999", "too large"),
        ("a: 0xffffffffffffffffffffffffffffffffffff", "too large"),
        ("a: 1e999", "too large"),
        ("a: [1", "YAML"),
        ("a: \"\\ud800\"", "YAML"),
    ] {
        let error = yaml(text).expect_err(text);
        assert!(error.contains(word), "{text:?} gave {error:?}");
    }
}

/// Nine levels of nine aliases each would be 10^9 values (the "billion laughs").
#[test]
fn an_alias_bomb_ends_at_its_first_anchor() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..10 {
        let name = format!("*a{}", i - 1);
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![name; 9].join(",")));
    }
    assert_eq!(yaml(&bomb), Err("an anchor (&name) is not allowed in a manifest".into()));
}

#[test]
fn depth_and_number_of_values_are_bounded_in_every_syntax() {
    for levels in [MAX_DEPTH, MAX_DEPTH + 1, 5_000, 80_000] {
        // The map around it is the first level.
        let nested = "[".repeat(levels - 1) + &"]".repeat(levels - 1);
        for (text, syntax) in [
            (format!("{{\"a\": {nested}}}"), Syntax::Json),
            (format!("a: {nested}"), Syntax::Yaml),
            (format!("a = {nested}"), Syntax::Toml),
        ] {
            let read = parse(&text, syntax);
            if levels <= MAX_DEPTH {
                assert!(read.is_ok(), "{syntax:?} {levels}: {read:?}");
            } else {
                let error = read.expect_err("too deep").message;
                assert!(
                    error.contains("deep") || error.contains("recursion"),
                    "{syntax:?}: {error}"
                );
            }
        }
    }
    for items in [MAX_NODES - 2, MAX_NODES - 1] {
        let list = vec!["1"; items].join(",");
        for (text, syntax) in [
            (format!("{{\"a\": [{list}]}}"), Syntax::Json),
            (format!("a: [{list}]"), Syntax::Yaml),
            (format!("a = [{list}]"), Syntax::Toml),
        ] {
            assert_eq!(parse(&text, syntax).is_ok(), items == MAX_NODES - 2, "{syntax:?} {items}");
        }
    }
}

/// A thread of 256 KiB is enough for the worst that each syntax can ask for.
#[test]
fn hostile_nesting_does_not_eat_the_stack() {
    let dotted = |n: usize| vec!["a"; n].join(".");
    let texts = vec![
        (format!("{} = 1", dotted(100_000)), Syntax::Toml),
        (format!("[{}]\nx = 1", dotted(100_000)), Syntax::Toml),
        (format!("[[{}]]\nx = 1", dotted(79)), Syntax::Toml),
        (format!("{}1{}", format!("{} = {{", dotted(79)).repeat(79), "}".repeat(79)), Syntax::Toml),
        (
            format!("x = [{}1{}]", format!("{{{} = ", dotted(60)).repeat(60), "}".repeat(60)),
            Syntax::Toml,
        ),
        // What the check before the parser could take for text, and the parser not.
        (
            format!(
                "x = [\"\"\"a\"\"\"\"\", {}1{}]",
                format!("{{{} = ", dotted(79)).repeat(79),
                "}".repeat(79)
            ),
            Syntax::Toml,
        ),
        (
            format!(
                "x = ['''a'''''', {}1{}]",
                format!("{{{} = ", dotted(79)).repeat(79),
                "}".repeat(79)
            ),
            Syntax::Toml,
        ),
        ("{\"a\":".repeat(40_000), Syntax::Json),
        ("[".repeat(250_000), Syntax::Json),
        ("- ".repeat(120_000), Syntax::Yaml),
        ("? ".repeat(120_000), Syntax::Yaml),
        ("{a: ".repeat(60_000), Syntax::Yaml),
        ("[".repeat(250_000), Syntax::Yaml),
        ((0..600).map(|i| format!("{}a:\n", " ".repeat(i))).collect(), Syntax::Yaml),
    ];
    let thread = std::thread::Builder::new().stack_size(256 << 10);
    let done = thread.spawn(move || {
        for (text, syntax) in texts {
            let head: String = text.chars().take(40).collect();
            let error = parse(&text, syntax).expect_err(&head);
            assert!(error.message.len() < 400, "{}", error.message);
        }
    });
    done.unwrap().join().unwrap();
}

/// 256 KiB of the worst text takes a third of a second on a quiet machine without optimisation; what
/// grows with the square of the length would take minutes.
#[test]
fn hostile_text_is_refused_or_read_in_short_time() {
    let fill = |unit: &str| unit.repeat((256 << 10) / unit.len());
    for unit in [
        "a",
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        "- ",
        "? ",
        ": ",
        "a: ",
        "\n",
        " ",
        "\t",
        "#",
        "&a ",
        "*a ",
        "!a ",
        "| ",
        ">\n",
        "%",
        "---\n",
        "...\n",
        "\\",
        "\"\\u0041\" ",
        "[a,",
        "{a,",
        "[[a]]\n",
        "a.",
        "a=1\n",
        "a = {",
        "'''",
        "\"\"\"",
        "é",
        "é: ",
        "[é,",
        "{\"é\":[",
        "x: |\n",
        "- - a\n",
        "a:\n ",
        "<<: ",
        "1",
        "-",
        "1e",
        "0x",
        "\r",
        "\r\n",
        "\u{2028}",
    ] {
        for prefix in ["", "a: [", "{\"a\": [", "a: |\n  "] {
            let text = format!("{prefix}{}", fill(unit));
            for syntax in [Syntax::Yaml, Syntax::Toml, Syntax::Json] {
                let start = std::time::Instant::now();
                let _ = parse(&text, syntax);
                let took = start.elapsed();
                assert!(
                    took.as_secs() < 10,
                    "{syntax:?} took {took:?} for {prefix:?} and {unit:?}"
                );
            }
        }
    }
}

#[test]
fn toml_dates_and_infinities_are_refused_and_tables_in_any_form_are_maps() {
    for (text, word) in [
        ("a = 2026-01-01", "date"),
        ("a = 07:32:00", "date"),
        ("a = inf", "infinity"),
        ("a = -nan", "infinity"),
        ("a = 1\na = 2", "duplicate"),
        ("[a]\n[a]", "duplicate"),
        ("a = 99999999999999999999", "large"),
        ("a = ", "TOML"),
    ] {
        let error = parse(text, Syntax::Toml).expect_err(text).message;
        assert!(error.contains(word), "{text:?} gave {error:?}");
    }
    let read = parse("[a]\nb.c = 0x1F\n[[a.d]]\ne = 'f'\n", Syntax::Toml).unwrap();
    assert_eq!(read.to_json(), json!({ "a": { "b": { "c": 31 }, "d": [{ "e": "f" }] } }));
}

#[test]
fn places_count_characters_from_one_in_every_syntax() {
    let at =
        |text: &str, syntax| parse(text, syntax).unwrap().get("é").unwrap().get("b").unwrap().span;
    let yaml = at("# x\r\né: {ü: 1, b: 2}", Syntax::Yaml);
    assert_eq!((yaml.line, yaml.column), (2, 14));
    let toml = at("# x\r\n\"é\" = {\"ü\" = 1, b = 2}", Syntax::Toml);
    assert_eq!((toml.line, toml.column), (2, 21));
    let json = at("{\r\n\"é\": {\"ü\": 1, \"b\": 2}}", Syntax::Json);
    assert_eq!((json.line, json.column), (2, 20));
}

#[test]
fn json_is_strict() {
    for (text, word) in [
        ("", "found the end"),
        ("{\"a\": 1,}", "key"),
        ("[1,]", "value"),
        ("{'a': 1}", "key"),
        ("{a: 1}", "key"),
        ("// x\n{}", "value"),
        ("{} {}", "end of the document"),
        ("[01]", "begin with 0"),
        ("[+1]", "value"),
        ("[.5]", "value"),
        ("[1.]", "digit"),
        ("[1e]", "digit"),
        ("[NaN]", "not a JSON value"),
        ("[True]", "not a JSON value"),
        ("[\"a\nb\"]", "control character"),
        ("[\"\\x41\"]", "after"),
        ("[\"\\u12\"]", "hexadecimal"),
        ("[\"\\ud800\"]", "surrogate"),
        ("[\"\\ud800\\u0041\"]", "surrogate"),
        ("[\"\\udc00\"]", "surrogate"),
        ("[\"a", "not closed"),
        ("{\"a\": 1, \"a\": 2}", "twice"),
        ("{\"a\": 1, \"\\u0061\": 2}", "twice"),
        ("[1e999]", "too large"),
        ("[99999999999999999999]", "too large"),
    ] {
        let error = parse(text, Syntax::Json).expect_err(text).message;
        assert!(error.contains(word), "{text:?} gave {error:?}");
    }
    let pair = parse("[\"\\ud83d\\ude00\"]", Syntax::Json).unwrap();
    assert_eq!(pair.to_json(), json!(["😀"]));
}

/// JSON-like noise: valid pieces in any order, so that many of the texts are nearly or quite valid.
fn jsonish() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(":"),
        Just("\"a\""),
        Just("\"b\\n\""),
        Just("1"),
        Just("-0"),
        Just("1.5e3"),
        Just("0"),
        Just("true"),
        Just("null"),
        Just(" "),
        Just("\n"),
        Just("\""),
        Just("\\u00e9"),
        Just("\\ud800"),
        Just("é"),
        Just("1e"),
        Just("nul"),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::Array),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn json_is_what_serde_json_takes_for_json(text in jsonish()) {
        let ours = parse(&text, Syntax::Json);
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours.to_json().to_string().replace("-0.0", "0"), theirs.to_string().replace("-0.0", "0")),
            (Err(error), Ok(_)) => prop_assert_eq!(error.rule, Rule::Duplicate, "{}", text),
            (Ok(_), Err(error)) => prop_assert!(false, "{:?} was read, serde_json says {}", text, error),
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn json_that_was_written_is_read_back(value in json_value()) {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            prop_assert_eq!(&parse(&text, Syntax::Json).unwrap().to_json(), &value);
        }
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in any::<String>()) {
        for syntax in [Syntax::Yaml, Syntax::Toml, Syntax::Json] {
            if let Err(mut error) = parse(&text, syntax) {
                error.quote(&text);
                prop_assert!(error.line >= 1 && error.column >= 1);
            }
        }
    }
}
