//! Reads JSON into an author's types, and says in JSON's words where it does not fit:
//! `args.size.width: expected integer, got string`.
//!
//! Not serde_json's own errors: they name Rust's types and a column of a text that the caller never saw.
//! Values are read from their text, so integers up to 128 bits and `RawValue`s keep what was written.

mod inside;
mod node;

use std::fmt;

use serde::de::{self, DeserializeOwned};

use crate::error::PalisadeError;
use node::Node;

/// Reads a value; `root` is what the path of an error begins with.
pub(crate) fn read<T: DeserializeOwned>(text: &str, root: &str) -> Result<T, PalisadeError> {
    T::deserialize(Node { text: text.trim(), path: &Path::Root(root) })
        .map_err(|e| PalisadeError::params(e.message(root)))
}

enum Path<'p> {
    Root(&'p str),
    Field(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(name) => f.write_str(name),
            Self::Field(above, name) => write!(f, "{above}.{}", short(name)),
            Self::Index(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}

fn short(name: &str) -> &str {
    name.char_indices().nth(80).and_then(|(end, _)| name.get(..end)).unwrap_or(name)
}

/// What does not fit, and where once that is known.
#[derive(Debug)]
struct Mismatch {
    path: Option<String>,
    text: String,
}

impl Mismatch {
    fn at(mut self, path: &Path<'_>) -> Self {
        self.path.get_or_insert_with(|| path.to_string());
        self
    }

    fn message(self, root: &str) -> String {
        format!("{}: {}", self.path.as_deref().unwrap_or(root), self.text)
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self { path: None, text: text.to_string() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::{Value, json, value::RawValue};

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        A,
        B(i32),
        C { x: bool },
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct All {
        n: i64,
        #[serde(default)]
        kind: Option<Kind>,
        #[serde(default)]
        tags: Vec<String>,
        #[serde(default)]
        map: BTreeMap<String, u8>,
        #[serde(default)]
        any: Value,
        #[serde(default)]
        pair: Option<(f64, char)>,
    }

    fn all(value: &Value) -> Result<All, String> {
        read(&value.to_string(), "args").map_err(|e| e.message)
    }

    #[test]
    fn what_fits_is_read() {
        let read = all(&json!({
            "n": -3, "kind": {"b": 4}, "tags": ["x", "\n\"é"], "map": {"k\n": 255},
            "any": [{"a": 1.5}], "pair": [2, "é"],
        }));
        assert_eq!(
            read.unwrap(),
            All {
                n: -3,
                kind: Some(Kind::B(4)),
                tags: vec!["x".into(), "\n\"é".into()],
                map: [("k\n".to_owned(), 255)].into(),
                any: json!([{"a": 1.5}]),
                pair: Some((2.0, 'é')),
            }
        );
        assert_eq!(all(&json!({"n": 0, "kind": "a"})).unwrap().kind, Some(Kind::A));
        let c = all(&json!({"n": 0, "kind": {"c": {"x": true}}}));
        assert_eq!(c.unwrap().kind, Some(Kind::C { x: true }));
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_path() {
        for (value, message) in [
            (json!([1]), "args: expected object, got array"),
            (json!({}), "args: missing field `n`"),
            (json!({"n": "1"}), "args.n: expected integer, got string"),
            (json!({"n": 1.5}), "args.n: expected integer, got number"),
            (json!({"n": true}), "args.n: expected integer, got boolean"),
            (json!({"n": null}), "args.n: expected integer, got null"),
            (json!({"n": 0, "kind": "d"}), r#"args.kind: expected one of "a", "b", "c""#),
            (json!({"n": 0, "kind": {"b": "x"}}), "args.kind: expected integer, got string"),
            (
                json!({"n": 0, "kind": {"c": {"x": 0}}}),
                "args.kind.x: expected boolean, got integer",
            ),
            (json!({"n": 0, "kind": 3}), "args.kind: expected string, got integer"),
            (json!({"n": 0, "tags": ["x", 1]}), "args.tags[1]: expected string, got integer"),
            (json!({"n": 0, "tags": {}}), "args.tags: expected array, got object"),
            (json!({"n": 0, "map": {"k": 256}}), "args.map.k: expected an integer from 0 to 255"),
            (
                json!({"n": 0, "pair": [1]}),
                "args.pair: invalid length 1, expected a tuple of size 2",
            ),
        ] {
            assert_eq!(all(&value).unwrap_err(), message);
        }
        let unknown = all(&json!({"n": 0, "m": 1})).unwrap_err();
        assert!(unknown.starts_with("args: unknown field `m`"), "{unknown}");
    }

    #[test]
    fn numbers_keep_their_value() {
        let number = |text: &str| read::<i128>(text, "args").map_err(|e| e.message);
        assert_eq!(
            number("123456789012345678901234567890"),
            Ok(123_456_789_012_345_678_901_234_567_890)
        );
        assert_eq!(number("2.0"), Ok(2));
        assert_eq!(number("-1e3"), Ok(-1000));
        let long = "7".repeat(1000);
        assert!(number(&long).unwrap_err().starts_with("args: expected an integer from -170"));
        assert!(number("1e999").unwrap_err().contains("expected integer, got number"));
        assert!(read::<f64>("1e999", "args").unwrap_err().message.contains("out of range"));
        assert_eq!(read::<Box<RawValue>>(&long, "args").unwrap().get(), long);
        #[derive(Deserialize)]
        struct Inner {
            raw: Option<Box<RawValue>>,
        }
        let inner: Inner = read(r#"{"raw": 1.00}"#, "args").unwrap();
        assert_eq!(inner.raw.unwrap().get(), "1.00");
    }

    #[test]
    fn nothing_is_an_object_without_fields() {
        let nothing = |text: &str| read::<()>(text, "args").map_err(|e| e.message);
        assert_eq!(nothing("{}"), Ok(()));
        assert_eq!(nothing("null"), Ok(()));
        assert_eq!(nothing(r#"{"a":1}"#), Err("args: there is no \"a\"".to_owned()));
        assert_eq!(nothing("[]"), Err("args: expected null, got array".to_owned()));
    }
}
