use proptest::prelude::*;

use super::*;
use crate::commands::wrap::jsonc::parse;

fn kinds(text: &str) -> Vec<(String, String, &'static str)> {
    let root = parse(text).unwrap();
    let found = servers(&root).unwrap();
    let kind = |shape: &Shape<'_>| match shape {
        Shape::Stdio(_) => "stdio",
        Shape::Remote => "remote",
        Shape::Other(why) => why,
    };
    found.iter().map(|s| (s.place.clone(), s.name.to_owned(), kind(&s.shape))).collect()
}

#[test]
fn servers_are_found_where_each_client_keeps_them() {
    let text = r#"{
        "mcpServers": {"a": {"command": "x"}},
        "servers": {"b": {"type": "stdio", "command": "x", "args": []}},
        "mcp": {"servers": {"c": {"command": "x", "args": null, "env": null}}, "inputs": []},
        "context_servers": {"d": {"command": {"path": "x", "args": []}}, "e": {"source": "extension", "settings": {}}},
        "projects": {"/home/ada": {"mcpServers": {"f": {"command": "x"}}, "other": 1}, "/tmp": {}}
    }"#;
    let found = kinds(text);
    let found: Vec<(&str, &str, &str)> =
        found.iter().map(|(p, n, k)| (p.as_str(), n.as_str(), *k)).collect();
    assert_eq!(
        found,
        [
            ("mcpServers", "a", "stdio"),
            ("servers", "b", "stdio"),
            ("context_servers", "d", "stdio"),
            ("context_servers", "e", "it has no command"),
            ("mcp.servers", "c", "stdio"),
            ("projects./home/ada.mcpServers", "f", "stdio"),
        ]
    );
}

#[test]
fn what_is_not_started_here_or_cannot_be_read_is_told_apart() {
    for (entry, kind) in [
        (r#"{"url": "https://example.org/mcp"}"#, "remote"),
        (r#"{"serverUrl": "https://example.org/mcp"}"#, "remote"),
        (r#"{"type": "sse", "command": "x"}"#, "remote"),
        (r#"{"type": "http", "url": "u"}"#, "remote"),
        (r#"{"type": "pigeon", "command": "x"}"#, "its type is not known"),
        (r#"{"command": 1}"#, "its command is not a text"),
        (r#"{"command": ""}"#, "its command is not a text"),
        (r#"{"command": "\ud800"}"#, "its command is not a text"),
        (r#"{"command": {}}"#, "its command has no path"),
        (r#"{"command": "npx -y x"}"#, "its command is a whole line; write its arguments in args"),
        (r#"{"command": "/opt/my server"}"#, "stdio"),
        (r#"{"command": "x", "args": "y"}"#, "its args are not a list"),
        (r#"{"command": "x", "args": ["y", 1]}"#, "its args are not all text"),
        (r#"{"command": "x", "env": []}"#, "its env is not an object"),
        (r#"{"command": "x", "env": {"A": {}}}"#, "its env has a value that is no text"),
        (r#"{"command": "x", "env": {"A": 1, "B": null, "C": true}}"#, "stdio"),
        ("[]", "it is not an object"),
    ] {
        let text = format!("{{\"mcpServers\": {{\"s\": {entry}}}}}");
        assert_eq!(kinds(&text)[0].2, kind, "{entry}");
    }
}

#[test]
fn what_has_two_meanings_or_none_is_refused_where_it_stands() {
    for (text, at, what) in [
        ("[]", 0, "a client's configuration is an object"),
        ("{\"a\": 1}", 0, "there are no MCP servers in it"),
        ("{\"mcpServers\": []}", 15, "mcpServers is not an object"),
        ("{\"mcpServers\": {}, \"mcpServers\": {}}", 19, "mcpServers stands here twice"),
        ("{\"mcpServers\": {\"a\": {}, \"\\u0061\": {}}}", 25, "a name stands twice"),
        (
            "{\"servers\": {\"a\": {\"command\": \"x\", \"command\": \"y\"}}}",
            35,
            "a name stands twice",
        ),
        ("{\"servers\": {\"\\ud800\": {}}}", 13, "the name of a server is no text"),
    ] {
        let misfit = servers(&parse(text).unwrap()).unwrap_err();
        assert_eq!(misfit.offset, at, "{text}: {misfit:?}");
        assert!(misfit.what.starts_with(what), "{text}: {misfit:?}");
    }
}

const OPTIONS: [&str; 4] = ["mcp", "--secret", "KEY=s.KEY", "--"];

fn wrap_all(text: &str) -> String {
    let root = parse(text).unwrap();
    let found = servers(&root).unwrap();
    let edits = found.iter().flat_map(|server| match &server.shape {
        Shape::Stdio(l) if !l.is_palisade() => {
            l.wrap(text, "/bin/palisade", &OPTIONS, |n| n == "KEY")
        }
        _ => Vec::new(),
    });
    jsonc::apply(text, edits.collect())
}

/// As it was, and whether every entry's old text was found.
fn unwrap_all(text: &str, older: &str) -> (String, bool) {
    let (root, old_root) = (parse(text).unwrap(), parse(older).unwrap());
    let (found, old) = (servers(&root).unwrap(), servers(&old_root).unwrap());
    let (mut edits, mut exact) = (Vec::new(), true);
    for server in &found {
        let Shape::Stdio(launch) = &server.shape else { continue };
        let Some(wrapped) = launch.wrapped() else { continue };
        match original(text, server, older, &old) {
            Some((before, _)) => {
                edits.push(Edit::replace(server.node, &older[before.node.span.clone()]));
            }
            None => {
                exact = false;
                edits.extend(launch.unwrap(text, &wrapped, &[("KEY", "k\"1")]));
            }
        }
    }
    (jsonc::apply(text, edits), exact)
}

#[test]
fn an_entry_that_was_changed_since_is_unwrapped_by_its_structure() {
    let old = "{\"mcpServers\": {\n  \"s\": {\n    \"command\": \"n\\u0070x\",\n    \"args\": [\"-y\", \"a\"],\n    \"env\": {\"KEY\": \"k\\\"1\"}\n  }\n}}";
    let wrapped = wrap_all(old);
    // The user adds an argument, a key and a server.
    let edited = wrapped
        .replace("\"a\"]", "\"a\", \"b\"]")
        .replace("\"env\": {}", "\"env\": {},\n    \"disabled\": true")
        .replace("}\n}}", "},\n  \"t\": {\"url\": \"u\"}\n}}");
    let (text, exact) = unwrap_all(&edited, old);
    assert!(!exact);
    assert_eq!(
        text,
        "{\"mcpServers\": {\n  \"s\": {\n    \"command\": \"n\\u0070x\",\n    \"args\": [\"-y\", \"a\", \"b\"],\n    \"env\": {\"KEY\": \"k\\\"1\"},\n    \"disabled\": true\n  },\n  \"t\": {\"url\": \"u\"}\n}}"
    );
}

#[test]
fn another_server_of_the_same_name_is_not_taken_for_the_old_one() {
    let old = r#"{"mcpServers": {"s": {"command": "one"}}}"#;
    let wrapped = wrap_all(old).replace("\"one\"", "\"two\"");
    let (text, exact) = unwrap_all(&wrapped, old);
    assert!(!exact);
    assert!(text.contains("\"command\": \"two\""), "{text}");
}

/// White space, and now and then a comment.
fn blank() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(String::new()),
        2 => Just(" ".to_owned()),
        2 => "\n {0,6}",
        1 => Just("\r\n\t".to_owned()),
        1 => Just("/* c, [\"{ */".to_owned()),
        1 => Just(" // \"x\": {\n".to_owned()),
    ]
}

fn text_literal() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-zA-Z0-9/._-]{1,12}".prop_map(|s| format!("\"{s}\"")),
        1 => any::<String>().prop_map(|s| quoted(&s)),
        1 => Just("\"\\u0061\\ud83d\\ude00\\/\"".to_owned()),
    ]
}

fn separated(
    elements: Vec<(String, String, String)>,
    open: char,
    close: char,
    trailing: bool,
) -> String {
    let count = elements.len();
    let mut out = String::from(open);
    for (index, (before, element, after)) in elements.into_iter().enumerate() {
        out.push_str(&format!("{before}{element}{after}"));
        if index + 1 < count || trailing {
            out.push(',');
        }
    }
    out.push(close);
    out
}

fn list(
    element: impl Strategy<Value = String>,
    open: char,
    close: char,
) -> impl Strategy<Value = String> {
    (proptest::collection::vec((blank(), element, blank()), 0..4), any::<bool>())
        .prop_map(move |(elements, trailing)| separated(elements, open, close, trailing))
}

fn env() -> impl Strategy<Value = String> {
    let names = proptest::sample::subsequence(vec!["KEY", "A", "KEYS", "b"], 0..=4).prop_shuffle();
    (names, blank(), text_literal(), any::<bool>()).prop_map(|(names, blank, value, trailing)| {
        let members = names
            .into_iter()
            .map(|name| (blank.clone(), format!("\"{name}\":{blank}{value}"), blank.clone()));
        separated(members.collect(), '{', '}', trailing)
    })
}

fn entry() -> impl Strategy<Value = String> {
    let command = text_literal().prop_filter("a command", |c| {
        let parsed = parse(c).unwrap();
        let text = parsed.text().unwrap();
        !text.trim().is_empty()
            && !text.contains(char::is_whitespace)
            && !text.ends_with("palisade")
    });
    let args = prop_oneof![3 => list(text_literal(), '[', ']').prop_map(Some), 1 => Just(None), 1 => Just(Some("null".into()))];
    let env = proptest::option::of(env());
    let order = Just(vec![0, 1, 2, 3]).prop_shuffle();
    (command, args, env, blank(), blank(), order, any::<bool>()).prop_map(
        |(command, args, env, before, after, order, trailing)| {
            let members = [
                Some(format!("\"command\"{after}:{before}{command}")),
                args.map(|args| format!("\"args\":{before}{args}")),
                env.map(|env| format!("\"env\":{env}")),
                Some("\"disabled\": 1.50e+3".to_owned()),
            ];
            let members = order.into_iter().filter_map(|i| members[i].clone());
            let members = members.map(|m| (before.clone(), m, after.clone()));
            separated(members.collect(), '{', '}', trailing)
        },
    )
}

fn config() -> impl Strategy<Value = String> {
    let entries = proptest::collection::vec((blank(), entry(), blank()), 0..4);
    (entries, blank(), any::<bool>()).prop_map(|(entries, blank, trailing)| {
        let members = entries
            .into_iter()
            .enumerate()
            .map(|(i, (before, entry, after))| (before, format!("\"s{i}\": {entry}"), after));
        let map = separated(members.collect(), '{', '}', trailing);
        format!("{blank}{{\"x\": [1.0, 1],{blank}\"mcpServers\":{blank}{map}{blank}}}{blank}\n")
    })
}

proptest! {
    #[test]
    fn whatever_was_wrapped_comes_back_byte_for_byte(text in config()) {
        let wrapped = wrap_all(&text);
        let (root, old_root) = (parse(&wrapped).unwrap(), parse(&text).unwrap());
        let (now, old) = (servers(&root).unwrap(), servers(&old_root).unwrap());
        prop_assert_eq!(now.len(), old.len());
        for (now, old) in now.iter().zip(&old) {
            let (Shape::Stdio(now), Shape::Stdio(old)) = (&now.shape, &old.shape) else { panic!("{wrapped}") };
            prop_assert_eq!(now.command, "/bin/palisade");
            prop_assert_eq!(&now.arguments[..4], &OPTIONS[..]);
            prop_assert_eq!(now.arguments[4], old.command);
            prop_assert_eq!(&now.arguments[5..], &old.arguments[..]);
            let names = |env: Option<&Node>| -> Vec<String> {
                let members = env.and_then(Node::members).unwrap_or_default();
                members.iter().filter_map(|m| m.key.clone()).collect()
            };
            let kept: Vec<String> = names(old.env).into_iter().filter(|n| n != "KEY").collect();
            prop_assert_eq!(names(now.env), kept);
        }
        prop_assert_eq!(wrap_all(&wrapped), wrapped.clone());
        let (back, exact) = unwrap_all(&wrapped, &text);
        prop_assert!(exact);
        prop_assert_eq!(back, text);
    }

    #[test]
    fn without_the_old_text_the_meaning_comes_back(text in config()) {
        let wrapped = wrap_all(&text);
        let (back, _) = unwrap_all(&wrapped, "{\"mcpServers\": {}}");
        let (root, old_root) = (parse(&back).unwrap(), parse(&text).unwrap());
        for (now, old) in servers(&root).unwrap().iter().zip(&servers(&old_root).unwrap()) {
            let (Shape::Stdio(now), Shape::Stdio(old)) = (&now.shape, &old.shape) else { panic!("{back}") };
            prop_assert_eq!(now.command, old.command);
            prop_assert_eq!(&now.arguments, &old.arguments);
        }
    }

    #[test]
    fn no_text_makes_the_reader_fail_in_another_way_than_with_an_error(text in any::<String>()) {
        if let Ok(root) = parse(&text) {
            let _ = servers(&root);
        }
    }
}
