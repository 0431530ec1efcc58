use super::*;

fn object(text: &str) -> Node {
    parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"))
}

#[test]
fn what_editors_allow_is_read_and_spans_are_where_things_stand() {
    let text = "\u{feff}// head\n{ \"a\\u00e9\\ud83d\\ude00\": [1e400, -0.5, true,], /* c */ \"b\": {\"x\": null}, }\n";
    let root = object(text);
    let members = root.members().unwrap();
    assert_eq!(members[0].key.as_deref(), Some("aé😀"));
    let first = &members[0].node.items().unwrap()[0].node;
    assert_eq!((&first.value, &text[first.span.clone()]), (&Value::Number, "1e400"));
    assert_eq!(&text[members[1].key_span.clone()], "\"b\"");
    assert_eq!(&text[members[1].node.span.clone()], "{\"x\": null}");
    assert_eq!(&text[members[1].comma.unwrap()..][..1], ",");
}

#[test]
fn half_a_surrogate_pair_is_read_as_a_text_that_cannot_be_written() {
    for text in [r#""\ud800""#, r#""\ud800\n""#, r#""\udc00x""#, r#""\ud800\ud800""#] {
        assert_eq!(object(text).value, Value::Text(None), "{text}");
    }
}

#[test]
fn mistakes_are_found_with_line_and_column() {
    for (text, line, column, what) in [
        ("", 1, 1, "the file ends where a value should stand"),
        ("{\n  \"é\" 1}", 2, 7, "expected :"),
        ("{\"a\": 1 \"b\": 2}", 1, 9, "expected , or }"),
        ("[1 2]", 1, 4, "expected , or ]"),
        ("[,]", 1, 2, "expected a value"),
        ("{a: 1}", 1, 2, "expected a name in double quotes"),
        ("{} x", 1, 4, "there is something after the end of the value"),
        ("\"a\nb\"", 1, 3, "a text has a line break or control character in it"),
        ("\"a", 1, 3, "a text has no end"),
        ("\"\\x\"", 1, 2, "there is no such escape"),
        ("\"\\u12g4\"", 1, 2, "there is no such escape"),
        ("\"\\u+123\"", 1, 2, "there is no such escape"),
        ("/* x", 1, 1, "a comment has no end"),
        ("01", 1, 2, "there is something after the end of the value"),
        ("-", 1, 2, "expected a digit"),
        ("1.", 1, 3, "expected a digit"),
        ("nul", 1, 1, "expected a value"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error, SyntaxError { line, column, what }, "{text:?}");
    }
    let deep = "[".repeat(MAX_DEPTH + 1);
    assert_eq!(parse(&deep).unwrap_err().what, "it is nested too deeply");
    assert!(parse(&format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH))).is_ok());
    assert_eq!(parse(&" ".repeat(MAX_LEN + 1)).unwrap_err().what, "the file has more than 4 MiB");
}

#[test]
fn elements_put_in_front_look_like_the_others_and_go_without_a_trace() {
    let new = ["\"mcp\"".to_owned(), "\"--\"".to_owned()];
    for (text, after) in [
        ("[]", r#"["mcp", "--"]"#),
        ("[ ]", r#"["mcp", "--" ]"#),
        (r#"["-y"]"#, r#"["mcp", "--", "-y"]"#),
        (r#"["-y","a"]"#, r#"["mcp", "--", "-y","a"]"#),
        (r#"[ "-y" ]"#, r#"[ "mcp", "--", "-y" ]"#),
        ("[\n  \"-y\",\n]", "[\n  \"mcp\",\n  \"--\",\n  \"-y\",\n]"),
        ("[ // c\n  1]", "[\n  \"mcp\",\n  \"--\", // c\n  1]"),
        ("[/*c*/1]", "[ \"mcp\", \"--\",/*c*/1]"),
        ("[ // only a comment\n]", "[\"mcp\", \"--\" // only a comment\n]"),
    ] {
        let done = apply(text, prepend(text, &object(text), &new));
        assert_eq!(done, after);
        let root = object(&done);
        assert_eq!(root.items().unwrap()[1].node.text(), Some("--"));
        assert_eq!(apply(&done, remove_front(&done, &root, 2)), text);
    }
}

#[test]
fn members_go_and_what_is_left_is_as_valid_as_before() {
    for (text, after) in [
        (r#"{"x":1}"#, "{}"),
        (r#"{ "x": 1, }"#, "{}"),
        ("{ \"x\": 1, // c\n }", "{  // c\n }"),
        ("{ }", "{ }"),
        (r#"{"a":1, "x":2}"#, r#"{"a":1}"#),
        (r#"{"a":1, "x":2,}"#, r#"{"a":1,}"#),
        (r#"{"x":2, "a":1}"#, r#"{"a":1}"#),
        (r#"{"x":1, "a":2, "x2":3, "x3":4}"#, r#"{"a":2}"#),
        ("{\n  \"x\": 1,\n  \"a\": 2,\n  \"x2\": 3\n}", "{\n  \"a\": 2\n}"),
        ("{\n  \"a\": 1, // one\n  \"x\": 2\n}", "{\n  \"a\": 1 // one\n  \n}"),
        ("{\n  \"a\": 1, // one\n  \"x\": 2, // two\n}", "{\n  \"a\": 1, // one\n   // two\n}"),
        ("{\"a\":1,// c\n\"x\":2}", "{\"a\":1// c\n}"),
        ("{\n  \"x\": 1,\n  // of a\n  \"a\": 2\n}", "{\n  // of a\n  \"a\": 2\n}"),
    ] {
        let goes = |m: &Member| m.key.as_deref().is_some_and(|k| k.starts_with('x'));
        let done = apply(text, remove_members(text, &object(text), goes));
        assert_eq!(done, after);
        let left = object(&done);
        assert!(left.members().unwrap().iter().all(|m| m.key.as_deref() == Some("a")), "{done}");
    }
}

#[test]
fn members_are_added_after_the_last() {
    let new = ["\"n\": 1".to_owned(), "\"m\": 2".to_owned()];
    for (text, after) in [
        ("{}", r#"{"n": 1, "m": 2}"#),
        (r#"{"a":1}"#, r#"{"a":1, "n": 1, "m": 2}"#),
        ("{\n  \"a\": 1,\n}", "{\n  \"a\": 1,\n  \"n\": 1,\n  \"m\": 2,\n}"),
        ("{ \"a\": 1, \"b\": 2 }", "{ \"a\": 1, \"b\": 2, \"n\": 1, \"m\": 2 }"),
    ] {
        let done = apply(text, append_members(text, &object(text), &new));
        assert_eq!(done, after);
        object(&done);
    }
}
