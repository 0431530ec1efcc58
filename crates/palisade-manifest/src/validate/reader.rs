//! Reading typed values out of the tree, and collecting what is wrong with them.
//!
//! A [`Fields`] remembers which keys it was asked for, so the list of known keys, the nearest-name hint
//! and the refusal of unknown keys come from the code that reads them and from no second list.

use std::time::Duration;

use palisade_model::text::{escape, nearest};

use crate::{
    error::{Diagnostic, Findings, MAX_DIAGNOSTICS, Rule, quoted},
    json_schema::Budget,
    quantity,
    tree::{Key, Node, Span, Value},
};

/// The findings of one manifest, and what its schemas have used up.
#[derive(Default)]
pub(crate) struct Reader {
    findings: Vec<Diagnostic>,
    omitted: usize,
    pub(crate) schemas: Budget,
}

/// One value with its place in the manifest.
#[derive(Clone)]
pub(crate) struct Field<'n> {
    pub(crate) node: &'n Node,
    pub(crate) path: String,
}

/// The keys of one map.
pub(crate) struct Fields<'n> {
    entries: &'n [(Key, Node)],
    pub(crate) path: String,
    pub(crate) span: Span,
    asked: Vec<&'static str>,
}

/// What a text may be.
#[derive(Clone, Copy)]
pub(crate) struct Text {
    /// Most characters. At least one is needed always.
    pub(crate) max: usize,
    /// Whether line breaks and tabs may stand in it.
    pub(crate) lines: bool,
}

impl Text {
    pub(crate) const fn line(max: usize) -> Self {
        Self { max, lines: false }
    }

    pub(crate) const fn lines(max: usize) -> Self {
        Self { max, lines: true }
    }
}

impl Reader {
    pub(crate) fn report(&mut self, diagnostic: Diagnostic) {
        if self.findings.len() < MAX_DIAGNOSTICS {
            self.findings.push(diagnostic);
        } else {
            self.omitted += 1;
        }
    }

    pub(crate) fn wrong(&mut self, rule: Rule, field: &Field<'_>, message: impl Into<String>) {
        self.report(Diagnostic::new(rule, field.node.span, message).at(field.path.clone()));
    }

    pub(crate) fn wrong_hint(
        &mut self,
        rule: Rule,
        field: &Field<'_>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let diagnostic = Diagnostic::new(rule, field.node.span, message);
        self.report(diagnostic.at(field.path.clone()).hint(hint));
    }

    /// Everything that was found, in the order of the text; `None` where there is nothing.
    pub(crate) fn findings(mut self) -> Option<Findings> {
        if self.findings.is_empty() {
            return None;
        }
        self.findings.sort_by_key(|d| (d.line, d.column));
        Some(Findings { file: String::new(), diagnostics: self.findings, omitted: self.omitted })
    }

    fn expected(&mut self, field: &Field<'_>, what: &str) {
        let found = field.node.value.in_words();
        let message = format!("expected {what}, found {found}");
        match (&field.node.value, what) {
            (Value::Int(_) | Value::Float(_) | Value::Bool(_), "text") => {
                self.wrong_hint(Rule::Type, field, message, "put it between quotation marks");
            }
            (Value::Str(word), "true or false")
                if ["yes", "on", "y", "no", "off", "n"]
                    .contains(&word.to_ascii_lowercase().as_str()) =>
            {
                self.wrong_hint(Rule::Type, field, message, "write true or false");
            }
            _ => self.wrong(Rule::Type, field, message),
        }
    }

    pub(crate) fn fields<'n>(&mut self, field: &Field<'n>) -> Option<Fields<'n>> {
        match &field.node.value {
            Value::Map(entries) => Some(Fields {
                entries,
                path: field.path.clone(),
                span: field.node.span,
                asked: Vec::new(),
            }),
            _ => {
                self.expected(field, "a map");
                None
            }
        }
    }

    /// The items of a list of at most `max`.
    pub(crate) fn list<'n>(&mut self, field: &Field<'n>, max: usize) -> Vec<Field<'n>> {
        let Value::List(items) = &field.node.value else {
            self.expected(field, "a list");
            return Vec::new();
        };
        if items.len() > max {
            let message =
                format!("at most {max} entries are allowed here, these are {}", items.len());
            self.wrong(Rule::TooMany, field, message);
            return Vec::new();
        }
        let item = |(i, node)| Field { node, path: format!("{}[{i}]", field.path) };
        items.iter().enumerate().map(item).collect()
    }

    pub(crate) fn str<'n>(&mut self, field: &Field<'n>) -> Option<&'n str> {
        match &field.node.value {
            Value::Str(text) => Some(text),
            _ => {
                self.expected(field, "text");
                None
            }
        }
    }

    pub(crate) fn text(&mut self, field: &Field<'_>, rule: Text) -> Option<String> {
        let text = self.str(field)?;
        // A YAML block ends with a line break that the author did not mean.
        let length = text.chars().count();
        let text = text.strip_suffix('\n').unwrap_or(text);
        if text.chars().all(|c| c.is_whitespace() || c == '\u{feff}') {
            self.wrong(Rule::Text, field, "is empty");
        } else if length > rule.max {
            let message = format!("has {length} characters, at most {} are allowed", rule.max);
            self.wrong(Rule::Text, field, message);
        } else if let Some(c) =
            text.chars().find(|c| c.is_control() && !(rule.lines && matches!(c, '\n' | '\t')))
        {
            let what =
                if matches!(c, '\n' | '\r') { "a line break" } else { "a control character" };
            let message = format!("may not hold {what} ({})", escape(&c.to_string(), 1));
            self.wrong(Rule::Text, field, message);
        } else {
            return Some(text.to_owned());
        }
        None
    }

    pub(crate) fn whole(&mut self, field: &Field<'_>, min: u64, max: u64) -> Option<u64> {
        let Some(number) = as_whole(&field.node.value) else {
            self.expected(field, "a whole number");
            return None;
        };
        match u64::try_from(number) {
            Ok(number) if (min..=max).contains(&number) => Some(number),
            _ => {
                self.wrong(
                    Rule::Range,
                    field,
                    format!("must be between {min} and {max}, not {number}"),
                );
                None
            }
        }
    }

    pub(crate) fn whole32(&mut self, field: &Field<'_>, min: u32, max: u32) -> Option<u32> {
        let number = self.whole(field, min.into(), max.into())?;
        u32::try_from(number).ok()
    }

    pub(crate) fn number(&mut self, field: &Field<'_>, min: f64, max: f64) -> Option<f64> {
        #[allow(clippy::cast_precision_loss)]
        let number = match field.node.value {
            Value::Int(n) => n as f64,
            Value::Float(x) => x,
            _ => {
                self.expected(field, "a number");
                return None;
            }
        };
        if (min..=max).contains(&number) {
            return Some(number);
        }
        self.wrong(Rule::Range, field, format!("must be between {min} and {max}, not {number}"));
        None
    }

    /// Bytes, as a whole number or a size with its unit.
    pub(crate) fn size(&mut self, field: &Field<'_>, min: u64, max: u64) -> Option<u64> {
        let range =
            || format!("between {} and {}", quantity::show_size(min), quantity::show_size(max));
        let (rule, size) = match &field.node.value {
            value if as_whole(value).is_some() => {
                (Rule::Range, as_whole(value).and_then(|n| u64::try_from(n).ok()))
            }
            Value::Str(text) => match quantity::size(text) {
                Some(size) => (Rule::Quantity, Some(size)),
                None => return self.no_quantity(field, text, quantity::SIZE_FORM),
            },
            _ => {
                self.expected(field, quantity::SIZE_FORM);
                return None;
            }
        };
        match size.filter(|size| (min..=max).contains(size)) {
            Some(size) => Some(size),
            None => {
                self.wrong(rule, field, format!("must be {}", range()));
                None
            }
        }
    }

    /// A duration, as seconds or with its unit.
    pub(crate) fn duration(
        &mut self,
        field: &Field<'_>,
        min: Duration,
        max: Duration,
    ) -> Option<Duration> {
        #[allow(clippy::cast_precision_loss)]
        let (rule, time) = match &field.node.value {
            Value::Int(n) => (Rule::Range, u64::try_from(*n).ok().map(Duration::from_secs)),
            Value::Float(x) => {
                // Rounded down to milliseconds, which is what the other form can say; judged before.
                let fits = (min.as_secs_f64()..=max.as_secs_f64()).contains(x);
                let time = Duration::try_from_secs_f64(*x).ok().filter(|_| fits);
                let ms = time.and_then(|t| u64::try_from(t.as_millis()).ok());
                (Rule::Range, ms.map(Duration::from_millis))
            }
            Value::Str(text) => match quantity::duration(text) {
                Some(time) => (Rule::Quantity, Some(time)),
                None => return self.no_quantity(field, text, quantity::TIME_FORM),
            },
            _ => {
                self.expected(field, quantity::TIME_FORM);
                return None;
            }
        };
        match time.filter(|time| (min..=max).contains(time)) {
            Some(time) => Some(time),
            None => {
                let (min, max) = (quantity::show_duration(min), quantity::show_duration(max));
                self.wrong(rule, field, format!("must be between {min} and {max}"));
                None
            }
        }
    }

    /// So many a second.
    pub(crate) fn rate(&mut self, field: &Field<'_>, min: u32, max: u32) -> Option<u32> {
        let (rule, rate) = match &field.node.value {
            value if as_whole(value).is_some() => {
                (Rule::Range, as_whole(value).and_then(|n| u64::try_from(n).ok()))
            }
            Value::Str(text) => match quantity::rate(text) {
                Some(rate) => (Rule::Quantity, Some(rate)),
                None => return self.no_quantity(field, text, quantity::RATE_FORM),
            },
            _ => {
                self.expected(field, quantity::RATE_FORM);
                return None;
            }
        };
        match rate
            .and_then(|rate| u32::try_from(rate).ok())
            .filter(|rate| (min..=max).contains(rate))
        {
            Some(rate) => Some(rate),
            None => {
                self.wrong(rule, field, format!("must be between {min}/s and {max}/s"));
                None
            }
        }
    }

    fn no_quantity<T>(&mut self, field: &Field<'_>, text: &str, form: &str) -> Option<T> {
        self.wrong(Rule::Quantity, field, format!("{} is not {form}", quoted(text)));
        None
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        field: &Field<'_>,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.str(field)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("{} is none of {}", quoted(text), names.join(", "));
        match nearest(text, names.iter().copied()) {
            Some(near) => {
                self.wrong_hint(Rule::Choice, field, message, format!("did you mean {near}?"))
            }
            None => self.wrong(Rule::Choice, field, message),
        }
        None
    }
}

impl<'n> Fields<'n> {
    /// The value of `key`, where the map has it.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Field<'n>> {
        self.asked.push(key);
        let (_, node) = self.entries.iter().find(|(k, _)| k.text == key)?;
        Some(Field { node, path: self.below(key) })
    }

    /// The value of `key`; its absence is a finding.
    pub(crate) fn need(&mut self, reader: &mut Reader, key: &'static str) -> Option<Field<'n>> {
        let found = self.take(key);
        if found.is_none() {
            let message = format!("{key} is missing");
            reader.report(Diagnostic::new(Rule::Missing, self.span, message).at(self.path.clone()));
        }
        found
    }

    pub(crate) fn text(
        &mut self,
        reader: &mut Reader,
        key: &'static str,
        rule: Text,
    ) -> Option<String> {
        reader.text(&self.take(key)?, rule)
    }

    pub(crate) fn need_text(
        &mut self,
        reader: &mut Reader,
        key: &'static str,
        rule: Text,
    ) -> Option<String> {
        let field = self.need(reader, key)?;
        reader.text(&field, rule)
    }

    /// A finding about the map as a whole.
    pub(crate) fn wrong(&self, reader: &mut Reader, rule: Rule, message: impl Into<String>) {
        reader.report(Diagnostic::new(rule, self.span, message).at(self.path.clone()));
    }

    fn below(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// All entries but those whose key begins with `x-`, for maps whose keys are data.
    pub(crate) fn all(self) -> impl Iterator<Item = (&'n Key, Field<'n>)> {
        let entries = self.entries;
        entries
            .iter()
            .filter(|(key, _)| !is_extension(&key.text))
            .map(move |(key, node)| (key, Field { node, path: self.below(&escape(&key.text, 40)) }))
    }

    /// Refuses the keys that nobody asked for.
    pub(crate) fn finish(self, reader: &mut Reader) {
        for (key, _) in self.entries {
            if self.asked.contains(&key.text.as_str()) || is_extension(&key.text) {
                continue;
            }
            let shown = escape(&key.text, 40);
            let diagnostic = Diagnostic::new(
                Rule::UnknownKey,
                key.span,
                format!("unknown key {}", quoted(&key.text)),
            )
            .at(self.below(&shown));
            let hint = match nearest(&key.text, self.asked.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => {
                    format!("known here: {}; keys of your own begin with x-", self.asked.join(", "))
                }
            };
            reader.report(diagnostic.hint(hint));
        }
    }
}

/// A whole number, also where it is written as `64.0`: JSON Schema takes both for integers.
fn as_whole(value: &Value) -> Option<i128> {
    match value {
        Value::Int(n) => Some(*n),
        // Up to 2^53 every whole number is exact.
        #[allow(clippy::cast_possible_truncation)]
        Value::Float(x) if x.fract() == 0.0 && x.abs() <= 9_007_199_254_740_992.0 => {
            Some(*x as i128)
        }
        _ => None,
    }
}

fn is_extension(key: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    key.strip_prefix("x-").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(plain))
}
