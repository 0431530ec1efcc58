//! JSON values as YAML for people: block style, text always in double quotes, which YAML reads as JSON does.

use palisade_model::text::is_deceptive;
use serde_json::Value;

/// Writes `value` below `indent` spaces. The result begins on a line of its own and ends with a line break.
pub(crate) fn block(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => {
            // What a thing is stands before what it has.
            let first = |key: &str| !matches!(key, "kind" | "name" | "type");
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| first(key));
            for (key, value) in entries {
                entry(&format!("{pad}{}", word(key)), value, indent, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                if is_scalar(item) {
                    out.push_str(&format!("{pad}- {}\n", scalar(item)));
                } else {
                    let mut inner = String::new();
                    block(item, indent + 2, &mut inner);
                    // The first line of what follows stands behind the dash.
                    out.push_str(&format!(
                        "{pad}- {}",
                        inner.get(indent + 2..).unwrap_or_default()
                    ));
                }
            }
        }
        other => out.push_str(&format!("{pad}{}\n", scalar(other))),
    }
}

/// Writes `key: value`, where `key` is written already.
pub(crate) fn entry(key: &str, value: &Value, indent: usize, out: &mut String) {
    if is_scalar(value) {
        out.push_str(&format!("{key}: {}\n", scalar(value)));
    } else {
        out.push_str(&format!("{key}:\n"));
        block(value, indent + 2, out);
    }
}

fn is_scalar(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    }
}

/// One line. Text stands in double quotes, so that nothing in it means anything.
pub(crate) fn scalar(value: &Value) -> String {
    let text = value.to_string();
    if !text.chars().any(is_deceptive) {
        return text;
    }
    // Outside of texts JSON is ASCII, so what is found here stands between quotes.
    let spelled = |c: char| match u32::from(c) {
        _ if !is_deceptive(c) => c.to_string(),
        code if code <= 0xffff => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    };
    text.chars().map(spelled).collect()
}

/// A key without quotes where it needs none.
fn word(key: &str) -> String {
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        && !matches!(key, "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n");
    if plain { key.to_owned() } else { Value::from(key).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn characters_that_deceive_are_spelled_out() {
        assert_eq!(scalar(&json!("a\u{202e}b\u{e0041}")), "\"a\\u202eb\\U000e0041\"");
    }

    #[test]
    fn nested_lists_and_maps_are_written_in_blocks() {
        let value = json!({
            "a": [1, {"b": "x: #y", "c": []}, [true, null]],
            "d e": {"f": {}},
        });
        let mut out = String::new();
        block(&value, 0, &mut out);
        assert_eq!(
            out,
            "a:\n  - 1\n  - b: \"x: #y\"\n    c: []\n  - - true\n    - null\n\"d e\":\n  f: {}\n"
        );
    }
}
