//! TOML 1.1 through the `toml` crate's spanned values. Dates are refused, since the other two
//! syntaxes have none; the crate itself refuses keys that stand twice.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Bounds, Key, Node, Span, Value, too_large, whole};
use crate::error::{Diagnostic, Rule};

/// How deep brackets and dotted keys may nest together before the parser sees the text. Each key of
/// `a.b.c` makes a table, and inline tables multiply them: 80 levels of 80 keys, which the parser would
/// take, need more stack to drop than a thread may have.
const MAX_LEVELS: usize = 64;

pub(super) fn read(text: &str) -> Result<Node, Diagnostic> {
    let places = Places::of(text);
    check_nesting(text, &places)?;
    let document = DeTable::parse(text).map_err(|e| {
        let span = e.span().map_or(Span::START, |range| places.at(range.start));
        let why = palisade_model::text::escape(e.message().trim(), 160);
        let rule = if why.contains("duplicate key") { Rule::Duplicate } else { Rule::Syntax };
        Diagnostic::new(rule, span, format!("this is not TOML: {why}"))
    })?;
    let mut bounds = Bounds::default();
    bounds.add(1, Span::START)?;
    let value = table(document.get_ref(), 1, &places, &mut bounds)?;
    Ok(Node { value, span: Span::START })
}

/// Line and column of every byte: one pass over the text instead of one for each value.
struct Places(Vec<Span>);

impl Places {
    fn of(text: &str) -> Self {
        let (mut line, mut column) = (1, 1);
        let mut spans = Vec::with_capacity(text.len() + 1);
        for c in text.chars() {
            spans.extend(std::iter::repeat_n(Span { line, column }, c.len_utf8()));
            if c == '\n' {
                line += 1;
                column = 1;
            } else {
                column += 1;
            }
        }
        spans.push(Span { line, column });
        Self(spans)
    }

    fn at(&self, byte: usize) -> Span {
        self.0.get(byte).or(self.0.last()).copied().unwrap_or(Span::START)
    }
}

/// Bounds brackets and dots outside of texts and comments.
fn check_nesting(text: &str, places: &Places) -> Result<(), Diagnostic> {
    let bytes = text.as_bytes();
    let (mut i, mut levels, mut dots) = (0, 0usize, 0usize);
    // For each open bracket, how many dots the key before it has.
    let mut open: Vec<usize> = Vec::new();
    while let Some(b) = bytes.get(i).copied() {
        match b {
            b'#' => {
                while bytes.get(i).is_some_and(|b| *b != b'\n') {
                    i += 1;
                }
                continue;
            }
            b'"' | b'\'' => {
                i = after_text(bytes, i);
                continue;
            }
            b'[' | b'{' => {
                open.push(dots);
                levels += dots + 1;
                dots = 0;
            }
            b']' | b'}' => {
                levels -= open.pop().map_or(0, |dots| dots + 1);
                dots = 0;
            }
            b'.' => dots += 1,
            b'\n' | b',' => dots = 0,
            _ => {}
        }
        if levels + dots > MAX_LEVELS {
            return Err(Diagnostic::new(
                Rule::Bounds,
                places.at(i),
                format!("lists and maps are nested deeper than {} levels", super::MAX_DEPTH),
            ));
        }
        i += 1;
    }
    Ok(())
}

/// The index after the text that begins with the quotation mark at `start`.
fn after_text(bytes: &[u8], start: usize) -> usize {
    let at = |i: usize| bytes.get(i).copied();
    let mark = at(start);
    let long = at(start + 1) == mark && at(start + 2) == mark;
    let mut i = start + if long { 3 } else { 1 };
    while let Some(b) = at(i) {
        if b == b'\\' && mark == Some(b'"') {
            i += 2;
        } else if Some(b) == mark {
            if !long {
                return i + 1;
            }
            if at(i + 1) == mark && at(i + 2) == mark {
                // Up to two more marks belong to the text.
                let more = (3..5).take_while(|n| at(i + n) == mark).count();
                return i + 3 + more;
            }
            i += 1;
        } else if b == b'\n' && !long {
            return i;
        } else {
            i += 1;
        }
    }
    i
}

fn table(
    table: &DeTable<'_>,
    depth: usize,
    places: &Places,
    bounds: &mut Bounds,
) -> Result<Value, Diagnostic> {
    let mut entries = Vec::with_capacity(table.len());
    for (key, value) in table {
        let key_span = places.at(key.span().start);
        let value = node(value, key.span(), depth + 1, places, bounds)?;
        entries.push((Key { text: key.get_ref().to_string(), span: key_span }, value));
    }
    // The crate keeps tables in the order of their keys; errors come in the order of the text.
    entries.sort_by_key(|(key, _)| (key.span.line, key.span.column));
    Ok(Value::Map(entries))
}

fn node(
    value: &Spanned<DeValue<'_>>,
    key: Range<usize>,
    depth: usize,
    places: &Places,
    bounds: &mut Bounds,
) -> Result<Node, Diagnostic> {
    // A table that only exists because of its header or of dotted keys has no text of its own.
    let own = value.span();
    let is_table = matches!(value.get_ref(), DeValue::Table(_));
    let range = if is_table || own.is_empty() { key } else { own };
    let span = places.at(range.start);
    let level =
        if matches!(value.get_ref(), DeValue::Array(_) | DeValue::Table(_)) { depth } else { 0 };
    bounds.add(level, span)?;
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Str(text.to_string()),
        DeValue::Integer(number) => {
            let number = i128::from_str_radix(number.as_str(), number.radix());
            whole(number.map_err(|_| too_large(span))?, span)?
        }
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(x) if x.is_finite() => Value::Float(x),
            Ok(_) if number.as_str().ends_with(['n', 'f']) => {
                return Err(Diagnostic::new(
                    Rule::Syntax,
                    span,
                    "infinity and not-a-number are not allowed",
                ));
            }
            _ => return Err(too_large(span)),
        },
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Datetime(_) => {
            return Err(Diagnostic::new(Rule::Syntax, span, "a date is not allowed in a manifest")
                .hint("put it between quotation marks to make it text"));
        }
        DeValue::Array(items) => {
            let mut list = Vec::with_capacity(items.len());
            for item in items.iter() {
                list.push(node(item, range.clone(), depth + 1, places, bounds)?);
            }
            Value::List(list)
        }
        DeValue::Table(inner) => table(inner, depth, places, bounds)?,
    };
    Ok(Node { value, span })
}
