//! YAML 1.2 with the core schema (section 10.3), from the parser's events.
//!
//! Refused: anchors and aliases (a few lines of them can stand for gigabytes), tags, merge keys, keys
//! that are not text, keys that stand twice, and more than one document.

use std::collections::HashSet;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::{Bounds, Key, Node, Span, Value, too_large, twice, whole};
use crate::error::{Diagnostic, Rule};

enum Frame {
    List(Vec<Node>, Span),
    Map { entries: Vec<(Key, Node)>, key: Option<Key>, seen: HashSet<String>, span: Span },
}

pub(super) fn read(text: &str) -> Result<Node, Diagnostic> {
    let mut parser = Parser::new_from_str(text);
    let mut stack: Vec<Frame> = Vec::new();
    let mut root = None;
    let mut bounds = Bounds::default();
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, place) = event.map_err(|e| {
            let span = Span::new(e.marker().line().max(1), e.marker().col() + 1);
            let why = palisade_model::text::escape(e.info(), 160);
            Diagnostic::new(Rule::Syntax, span, format!("this is not YAML: {why}"))
        })?;
        let span = Span::new(place.start.line().max(1), place.start.col() + 1);
        let done = match event {
            Event::StreamStart | Event::Nothing | Event::DocumentEnd => continue,
            Event::StreamEnd => break,
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(refused(span, "a second document", "a manifest is one document"));
                }
                continue;
            }
            Event::Alias(_) => {
                return Err(refused(span, "an alias (*name)", "write the value out"));
            }
            Event::Scalar(text, style, anchor, tag) => {
                check(span, anchor, tag.as_deref())?;
                if let Some(Frame::Map { key: key @ None, seen, .. }) = stack.last_mut() {
                    *key = Some(as_key(&text, style, span, seen)?);
                    continue;
                }
                bounds.add(0, span)?;
                Node { value: scalar(&text, style, span)?, span }
            }
            Event::SequenceStart(anchor, tag) => {
                check(span, anchor, tag.as_deref())?;
                no_collection_key(&stack, span)?;
                bounds.add(stack.len() + 1, span)?;
                stack.push(Frame::List(Vec::new(), span));
                continue;
            }
            Event::MappingStart(anchor, tag) => {
                check(span, anchor, tag.as_deref())?;
                no_collection_key(&stack, span)?;
                bounds.add(stack.len() + 1, span)?;
                stack.push(Frame::Map {
                    entries: Vec::new(),
                    key: None,
                    seen: HashSet::new(),
                    span,
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match stack.pop() {
                Some(Frame::List(items, span)) => Node { value: Value::List(items), span },
                Some(Frame::Map { entries, span, .. }) => Node { value: Value::Map(entries), span },
                // Cannot be reached: the parser's ends match its starts.
                None => return Err(refused(span, "an end without a beginning", "")),
            },
        };
        match stack.last_mut() {
            None => root = Some(done),
            Some(Frame::List(items, _)) => items.push(done),
            Some(Frame::Map { entries, key, .. }) => match key.take() {
                Some(key) => entries.push((key, done)),
                // Cannot be reached: a collection as a key was refused at its start.
                None => return Err(collection_key(span)),
            },
        }
    }
    Ok(root.unwrap_or(Node { value: Value::Null, span: Span::START }))
}

fn refused(span: Span, what: &str, instead: &str) -> Diagnostic {
    Diagnostic::new(Rule::Syntax, span, format!("{what} is not allowed in a manifest"))
        .hint(instead)
}

fn check(span: Span, anchor: usize, tag: Option<&Tag>) -> Result<(), Diagnostic> {
    if anchor != 0 {
        return Err(refused(span, "an anchor (&name)", "write the value out where it is needed"));
    }
    if tag.is_some() {
        return Err(refused(span, "a tag (!name)", "take it out; quote what shall be text"));
    }
    Ok(())
}

fn no_collection_key(stack: &[Frame], span: Span) -> Result<(), Diagnostic> {
    match stack.last() {
        Some(Frame::Map { key: None, .. }) => Err(collection_key(span)),
        _ => Ok(()),
    }
}

fn collection_key(span: Span) -> Diagnostic {
    Diagnostic::new(Rule::Syntax, span, "a key must be text, not a list or a map")
}

fn as_key(
    text: &str,
    style: ScalarStyle,
    span: Span,
    seen: &mut HashSet<String>,
) -> Result<Key, Diagnostic> {
    if style == ScalarStyle::Plain {
        if text == "<<" {
            return Err(refused(span, "a merge key (<<)", "write the keys out"));
        }
        let value = scalar(text, style, span)?;
        if !matches!(value, Value::Str(_)) {
            let found = value.in_words();
            return Err(Diagnostic::new(
                Rule::Syntax,
                span,
                format!("a key must be text, this is {found}"),
            )
            .hint("put it between quotation marks"));
        }
    }
    if !seen.insert(text.to_owned()) {
        return Err(twice(text, span));
    }
    Ok(Key { text: text.to_owned(), span })
}

/// Tag resolution of the core schema (YAML 1.2.2, section 10.3.2).
fn scalar(text: &str, style: ScalarStyle, span: Span) -> Result<Value, Diagnostic> {
    if style != ScalarStyle::Plain {
        return Ok(Value::Str(text.to_owned()));
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    let radix = |digits: &str, radix: u32| {
        let fits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        fits.then(|| i128::from_str_radix(digits, radix).map_err(|_| too_large(span)))
    };
    if let Some(number) = text.strip_prefix("0o").and_then(|digits| radix(digits, 8)) {
        return whole(number?, span);
    }
    if let Some(number) = text.strip_prefix("0x").and_then(|digits| radix(digits, 16)) {
        return whole(number?, span);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return whole(text.parse().map_err(|_| too_large(span))?, span);
    }
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(Diagnostic::new(
            Rule::Syntax,
            span,
            "infinity and not-a-number are not allowed",
        ));
    }
    if is_float(unsigned) {
        return match text.parse::<f64>() {
            Ok(x) if x.is_finite() => Ok(Value::Float(x)),
            _ => Err(too_large(span)),
        };
    }
    Ok(Value::Str(text.to_owned()))
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_fits = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    digits(before) && digits(after) && !(before.is_empty() && after.is_empty()) && exponent_fits
}
