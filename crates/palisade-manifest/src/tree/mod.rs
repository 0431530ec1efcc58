//! One tree for three syntaxes.
//!
//! YAML, TOML and JSON are read into the same [`Node`]s, each with its line and column, so that there
//! is one validator and not three. What the three do not have in common (anchors, tags, dates) is
//! refused here, and so is everything that is too deep or too much.

mod json;
#[cfg(test)]
mod tests;
mod toml;
mod yaml;

use serde::Serialize;

use crate::error::{Diagnostic, Rule};

/// Deepest nesting of lists and maps; the document itself is level 1.
pub const MAX_DEPTH: usize = 32;
/// Most values in one document, keys not counted.
pub const MAX_NODES: usize = 10_000;

/// A notation for manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Syntax {
    /// YAML 1.2, core schema, without anchors, aliases, tags and merge keys.
    Yaml,
    /// TOML 1.1, without dates.
    Toml,
    /// JSON (RFC 8259).
    Json,
}

/// Where something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
}

impl Span {
    /// The beginning of the document.
    pub const START: Self = Self { line: 1, column: 1 };

    fn new(line: usize, column: usize) -> Self {
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { line: small(line), column: small(column) }
    }
}

/// A key and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The key.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it stands.
    pub span: Span,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number, `i64::MIN..=u64::MAX`.
    Int(i128),
    /// Any other finite number.
    Float(f64),
    /// Text.
    Str(String),
    /// A list.
    List(Vec<Node>),
    /// A map; no key stands twice.
    Map(Vec<(Key, Node)>),
}

impl Value {
    /// What it is, in words.
    #[must_use]
    pub const fn in_words(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a decimal number",
            Self::Str(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl Node {
    /// The value of `key`, where this is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k.text == key).map(|(_, n)| n),
            _ => None,
        }
    }

    /// The same data as JSON, without the places.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(n) => match (u64::try_from(*n), i64::try_from(*n)) {
                (Ok(n), _) => Json::from(n),
                (_, Ok(n)) => Json::from(n),
                // Cannot be reached: readers let through i64::MIN..=u64::MAX only.
                _ => Json::Null,
            },
            Value::Float(x) => Json::from(*x),
            Value::Str(s) => Json::from(s.as_str()),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => {
                entries.iter().map(|(k, n)| (k.text.clone(), n.to_json())).collect()
            }
        }
    }
}

/// Reads `text` as one document.
///
/// # Errors
/// The first place where the text is not of the syntax, uses a refused part of it, has a key twice, or
/// goes past [`MAX_DEPTH`] or [`MAX_NODES`].
pub fn parse(text: &str, syntax: Syntax) -> Result<Node, Diagnostic> {
    match syntax {
        Syntax::Yaml => yaml::read(text),
        Syntax::Toml => toml::read(text),
        Syntax::Json => json::read(text),
    }
}

/// Counts values and levels while a document is read.
#[derive(Default)]
struct Bounds {
    nodes: usize,
}

impl Bounds {
    fn add(&mut self, depth: usize, span: Span) -> Result<(), Diagnostic> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Diagnostic::new(
                Rule::Bounds,
                span,
                format!("the document has more than {MAX_NODES} values"),
            ));
        }
        if depth > MAX_DEPTH {
            return Err(Diagnostic::new(
                Rule::Bounds,
                span,
                format!("lists and maps are nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        Ok(())
    }
}

fn whole(number: i128, span: Span) -> Result<Value, Diagnostic> {
    if (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&number) {
        Ok(Value::Int(number))
    } else {
        Err(too_large(span))
    }
}

fn too_large(span: Span) -> Diagnostic {
    Diagnostic::new(Rule::Syntax, span, "this number is too large")
}

fn twice(key: &str, span: Span) -> Diagnostic {
    Diagnostic::new(
        Rule::Duplicate,
        span,
        format!("the key {} stands twice in the same map", crate::error::quoted(key)),
    )
}
