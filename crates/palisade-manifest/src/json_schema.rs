//! JSON Schemas that a plugin brings: for its configuration, and for the input and output of its tools.
//!
//! A schema is a program that somebody else wrote and that runs inside the host. So it is checked before
//! it is compiled: nothing is fetched, references stay inside the document and form no circle, patterns
//! run on an engine whose time grows with the text and not with the pattern's cleverness, and what the
//! schema unfolds to is bounded.

use std::{collections::HashMap, sync::Arc};

use jsonschema::{Draft, PatternOptions, Validator, error::ValidationErrorKind};
use palisade_model::text::escape;
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use crate::{
    error::{Diagnostic, Rule, quoted},
    tree::{Key, Node, Span, Value},
};

/// How much all schemas of one manifest may unfold to, in subschemas. One that is referred to counts at
/// each reference; `anyOf`, `oneOf` and `if` count twice, `unevaluated…` three times, since a validator
/// may visit what is below them again.
pub const MAX_SCHEMA_COST: u64 = 50_000;
/// Deepest nesting of subschemas, references followed.
pub const MAX_SCHEMA_DEPTH: usize = 64;
/// Longest regular expression, in bytes.
pub const MAX_PATTERN_BYTES: usize = 1024;
/// Most regular expressions in one manifest.
pub const MAX_PATTERNS: usize = 100;
/// Memory that one compiled regular expression may take, in bytes.
const COMPILED_PATTERN_BYTES: usize = 1 << 20;
/// The most errors that one validation reports.
const MAX_ERRORS: usize = 64;

/// A schema that was checked and compiled. Cloning shares it.
#[derive(Clone)]
pub struct JsonSchema {
    document: Arc<Json>,
    validator: Arc<Validator>,
}

/// Where a JSON value does not fit a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}: {message}", if path.is_empty() { "/" } else { path.as_str() })]
pub struct SchemaError {
    /// Where in the value: a JSON Pointer (RFC 6901), escaped; empty for the whole value.
    pub path: String,
    /// What does not fit, escaped. Never shows the value itself, which may be a secret.
    pub message: String,
    /// The schema's keyword that refuses it, such as `type` or `pattern`.
    pub keyword: String,
}

impl JsonSchema {
    /// The schema as the manifest has it.
    #[must_use]
    pub fn document(&self) -> &Json {
        &self.document
    }

    /// Whether `value` fits.
    ///
    /// # Errors
    /// The first 64 places where it does not.
    pub fn validate(&self, value: &Json) -> Result<(), Vec<SchemaError>> {
        if self.validator.is_valid(value) {
            return Ok(());
        }
        Err(self
            .validator
            .iter_errors(value)
            .take(MAX_ERRORS)
            .map(|error| SchemaError {
                path: escape(error.instance_path().as_str(), 200),
                message: escape(&error.masked().to_string(), 300),
                keyword: escape(error.kind().keyword(), 60),
            })
            .collect())
    }

    /// Like [`JsonSchema::validate`], but a value that is merely incomplete passes: what is there fits.
    pub(crate) fn validate_part(&self, value: &Json) -> Result<(), Vec<SchemaError>> {
        use ValidationErrorKind as K;
        let errors: Vec<SchemaError> = self
            .validator
            .iter_errors(value)
            .filter(|error| {
                matches!(
                    error.kind(),
                    K::Type { .. }
                        | K::Enum { .. }
                        | K::Constant { .. }
                        | K::Pattern { .. }
                        | K::AdditionalProperties { .. }
                        | K::PropertyNames { .. }
                        | K::FalseSchema
                        | K::Minimum { .. }
                        | K::Maximum { .. }
                        | K::ExclusiveMinimum { .. }
                        | K::ExclusiveMaximum { .. }
                        | K::MultipleOf { .. }
                        | K::MinLength { .. }
                        | K::MaxLength { .. }
                        | K::MinItems { .. }
                        | K::MaxItems { .. }
                        | K::MaxProperties { .. }
                        | K::UniqueItems
                )
            })
            .take(1)
            .map(|error| SchemaError {
                path: escape(error.instance_path().as_str(), 200),
                message: escape(&error.to_string(), 300),
                keyword: escape(error.kind().keyword(), 60),
            })
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

impl std::fmt::Debug for JsonSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("JsonSchema").field(&self.document).finish()
    }
}

impl PartialEq for JsonSchema {
    fn eq(&self, other: &Self) -> bool {
        self.document == other.document
    }
}

impl Serialize for JsonSchema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.document.serialize(serializer)
    }
}

/// What the schemas of one manifest have used up so far.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    cost: u64,
    patterns: usize,
}

/// Checks and compiles the schema at `node`.
pub(crate) fn compile(node: &Node, budget: &mut Budget) -> Result<JsonSchema, Diagnostic> {
    let Value::Map(entries) = &node.value else {
        let message = format!("a JSON Schema is a map, this is {}", node.value.in_words());
        return Err(Diagnostic::new(Rule::Type, node.span, message));
    };
    let draft = draft(entries)?;
    let mut walk = Walk { root: node, budget, targets: HashMap::new() };
    let size = walk.schema(node, 1)?;
    walk.budget.cost = walk.budget.cost.saturating_add(size.cost);
    if walk.budget.cost > MAX_SCHEMA_COST {
        return Err(too_costly(node.span));
    }
    let document = node.to_json();
    let validator = jsonschema::options()
        .offline()
        .with_draft(draft)
        .should_validate_formats(false)
        .with_pattern_options(
            PatternOptions::regex()
                .size_limit(COMPILED_PATTERN_BYTES)
                .dfa_size_limit(COMPILED_PATTERN_BYTES),
        )
        .build(&document)
        .map_err(|error| {
            let span = place(node, error.instance_path().as_str());
            let message = match error.kind() {
                ValidationErrorKind::Format { format } if format == "regex" => {
                    "this regular expression is not valid, or too large to be compiled".to_owned()
                }
                _ => {
                    let why = escape(&error.to_string(), 200);
                    format!("this is not a valid JSON Schema: {why}")
                }
            };
            Diagnostic::new(Rule::Schema, span, message)
        })?;
    Ok(JsonSchema { document: Arc::new(document), validator: Arc::new(validator) })
}

/// The draft that `$schema` names. Others would have to be fetched.
fn draft(entries: &[(Key, Node)]) -> Result<Draft, Diagnostic> {
    let Some((_, node)) = entries.iter().find(|(key, _)| key.text == "$schema") else {
        return Ok(Draft::Draft202012);
    };
    let name = match &node.value {
        Value::Str(text) => text.trim_end_matches('#'),
        _ => "",
    };
    match name {
        "https://json-schema.org/draft/2020-12/schema" => Ok(Draft::Draft202012),
        "https://json-schema.org/draft/2019-09/schema" => Ok(Draft::Draft201909),
        "http://json-schema.org/draft-07/schema" | "https://json-schema.org/draft-07/schema" => {
            Ok(Draft::Draft7)
        }
        _ => Err(Diagnostic::new(Rule::Schema, node.span, "this $schema is not known").hint(
            "use https://json-schema.org/draft/2020-12/schema, the same with 2019-09, or http://json-schema.org/draft-07/schema#",
        )),
    }
}

fn too_costly(span: Span) -> Diagnostic {
    Diagnostic::new(
        Rule::Schema,
        span,
        format!("the manifest's schemas unfold to more than {MAX_SCHEMA_COST} subschemas"),
    )
    .hint("what $ref points to counts at each reference, and anyOf, oneOf, if and unevaluated… multiply")
}

/// What a subschema unfolds to.
#[derive(Clone, Copy, Default)]
struct Size {
    cost: u64,
    height: usize,
}

struct Walk<'n, 'b> {
    root: &'n Node,
    budget: &'b mut Budget,
    /// What `$ref`s point to: their size, or `None` while they are being walked.
    targets: HashMap<String, Option<Size>>,
}

impl<'n> Walk<'n, '_> {
    fn schema(&mut self, node: &'n Node, depth: usize) -> Result<Size, Diagnostic> {
        if depth > MAX_SCHEMA_DEPTH {
            return Err(Diagnostic::new(
                Rule::Schema,
                node.span,
                format!(
                    "subschemas are nested deeper than {MAX_SCHEMA_DEPTH} levels, references followed"
                ),
            ));
        }
        let mut size = Size { cost: 1, height: 1 };
        // A subschema may also be `true` or `false`. Anything else is refused by the metaschema later.
        let Value::Map(entries) = &node.value else { return Ok(size) };
        let mut factor = 1u64;
        for (key, value) in entries {
            let mut below = Size::default();
            match key.text.as_str() {
                "$ref" => below = self.reference(value, depth)?,
                "$id" | "$anchor" | "$dynamicAnchor" | "$recursiveAnchor" | "$dynamicRef"
                | "$recursiveRef" | "$vocabulary" => {
                    return Err(Diagnostic::new(
                        Rule::Schema,
                        key.span,
                        format!("{} is not allowed in a manifest's schema", key.text),
                    )
                    .hint("refer to parts of the schema with $ref: \"#/$defs/NAME\""));
                }
                "$schema" if depth > 1 => {
                    return Err(Diagnostic::new(
                        Rule::Schema,
                        key.span,
                        "$schema stands at the top of a schema only",
                    ));
                }
                "pattern" => {
                    if let Value::Str(pattern) = &value.value {
                        self.pattern(pattern, value.span)?;
                    }
                }
                "patternProperties" => {
                    if let Value::Map(patterns) = &value.value {
                        for (pattern, _) in patterns {
                            self.pattern(&pattern.text, pattern.span)?;
                        }
                    }
                    below = self.values(value, depth)?;
                }
                "properties" | "dependentSchemas" | "dependencies" | "$defs" | "definitions" => {
                    below = self.values(value, depth)?;
                }
                "allOf" | "prefixItems" => below = self.values(value, depth)?,
                "anyOf" | "oneOf" => {
                    factor = factor.saturating_mul(2);
                    below = self.values(value, depth)?;
                }
                "if" => {
                    factor = factor.saturating_mul(2);
                    below = self.schema(value, depth + 1)?;
                }
                "unevaluatedProperties" | "unevaluatedItems" => {
                    factor = factor.saturating_mul(3);
                    below = self.schema(value, depth + 1)?;
                }
                // A list of schemas before draft 2020-12, one schema since.
                "items" if matches!(value.value, Value::List(_)) => {
                    below = self.values(value, depth)?;
                }
                "items"
                | "additionalItems"
                | "additionalProperties"
                | "contains"
                | "propertyNames"
                | "not"
                | "then"
                | "else"
                | "contentSchema" => {
                    below = self.schema(value, depth + 1)?;
                }
                _ => {}
            }
            size.cost = size.cost.saturating_add(below.cost);
            size.height = size.height.max(below.height + 1);
        }
        size.cost = size.cost.saturating_mul(factor);
        if size.cost > MAX_SCHEMA_COST {
            return Err(too_costly(node.span));
        }
        Ok(size)
    }

    /// The schemas in a list, or under the keys of a map.
    fn values(&mut self, node: &'n Node, depth: usize) -> Result<Size, Diagnostic> {
        let mut size = Size::default();
        let mut add = |below: Size| {
            size.cost = size.cost.saturating_add(below.cost);
            size.height = size.height.max(below.height);
        };
        match &node.value {
            Value::List(items) => {
                for item in items {
                    add(self.schema(item, depth + 1)?);
                }
            }
            Value::Map(entries) => {
                for (_, item) in entries {
                    add(self.schema(item, depth + 1)?);
                }
            }
            _ => {}
        }
        Ok(size)
    }

    fn reference(&mut self, node: &'n Node, depth: usize) -> Result<Size, Diagnostic> {
        let wrong = |message: String| Err(Diagnostic::new(Rule::Schema, node.span, message));
        let Value::Str(target) = &node.value else {
            return wrong(format!("$ref is text, this is {}", node.value.in_words()));
        };
        let Some(pointer) = target.strip_prefix('#').filter(|p| p.is_empty() || p.starts_with('/'))
        else {
            return wrong(format!(
                "$ref may only point into this schema, as in \"#/$defs/NAME\": {} is not fetched",
                quoted(target)
            ));
        };
        // A percent escape would give one place two names.
        if pointer.contains('%') {
            return wrong("$ref may not hold percent escapes".into());
        }
        match self.targets.get(pointer) {
            Some(Some(size)) if depth + size.height <= MAX_SCHEMA_DEPTH => return Ok(*size),
            Some(None) => {
                return wrong(format!("{} refers to itself, which has no end", quoted(target)));
            }
            _ => {}
        }
        let Some(found) = resolve(self.root, pointer) else {
            return wrong(format!("{} is not in this schema", quoted(target)));
        };
        self.targets.insert(pointer.to_owned(), None);
        let size = self.schema(found, depth + 1)?;
        self.targets.insert(pointer.to_owned(), Some(size));
        Ok(size)
    }

    fn pattern(&mut self, pattern: &str, span: Span) -> Result<(), Diagnostic> {
        self.budget.patterns += 1;
        if self.budget.patterns > MAX_PATTERNS {
            return Err(Diagnostic::new(
                Rule::Schema,
                span,
                format!("the manifest's schemas have more than {MAX_PATTERNS} regular expressions"),
            ));
        }
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(Diagnostic::new(
                Rule::Schema,
                span,
                format!("a regular expression has at most {MAX_PATTERN_BYTES} bytes"),
            ));
        }
        match not_regular(pattern) {
            Some(what) => Err(Diagnostic::new(
                Rule::Schema,
                span,
                format!(
                    "this regular expression uses {what}, which cannot be matched in linear time"
                ),
            )
            .hint("write it without, or split it into several patterns under allOf and not")),
            None => Ok(()),
        }
    }
}

/// What makes `pattern` more than a regular language: look-around or a back reference. The engine refuses
/// both; this says which in words.
fn not_regular(pattern: &str) -> Option<&'static str> {
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('1'..='9' | 'k') if !in_class => return Some("a back reference"),
                _ => {}
            },
            '[' => in_class = true,
            ']' => in_class = false,
            '(' if !in_class => {
                let ahead: String = chars.clone().take(3).collect();
                if ["?=", "?!", "?<=", "?<!"].iter().any(|mark| ahead.starts_with(mark)) {
                    return Some("look-around");
                }
            }
            _ => {}
        }
    }
    None
}

/// The node that a JSON Pointer (RFC 6901) leads to.
fn resolve<'n>(root: &'n Node, pointer: &str) -> Option<&'n Node> {
    pointer.split('/').skip(1).try_fold(root, |node, part| match &node.value {
        Value::Map(_) => node.get(&part.replace("~1", "/").replace("~0", "~")),
        Value::List(items) => {
            let plain = part == "0"
                || (!part.starts_with('0')
                    && !part.is_empty()
                    && part.bytes().all(|b| b.is_ascii_digit()));
            if plain { items.get(part.parse::<usize>().ok()?) } else { None }
        }
        _ => None,
    })
}

/// Where the pointer leads, or as far as it can be followed.
fn place(root: &Node, pointer: &str) -> Span {
    let mut parts: Vec<&str> = pointer.split('/').collect();
    while parts.len() > 1 {
        if let Some(node) = resolve(root, &parts.join("/")) {
            return node.span;
        }
        parts.pop();
    }
    root.span
}

#[cfg(test)]
mod tests;
