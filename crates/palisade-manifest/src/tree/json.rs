//! JSON as RFC 8259 has it, with places.
//!
//! A reader of our own: serde_json gives no places for values and takes the last of two equal keys, and
//! a YAML reader lets through what JSON does not have. A property test holds it against serde_json.

use std::{collections::HashSet, iter::Peekable, str::Chars};

use super::{Bounds, Key, Node, Span, Value, too_large, twice, whole};
use crate::error::{Diagnostic, Rule, quoted};

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
    column: usize,
    after_cr: bool,
    bounds: Bounds,
}

pub(super) fn read(text: &str) -> Result<Node, Diagnostic> {
    let mut reader = Reader {
        chars: text.chars().peekable(),
        line: 1,
        column: 1,
        after_cr: false,
        bounds: Bounds::default(),
    };
    reader.space();
    let node = reader.value(1)?;
    reader.space();
    match reader.peek() {
        None => Ok(node),
        Some(c) => Err(reader.unexpected(Some(c), "the end of the document")),
    }
}

impl Reader<'_> {
    fn here(&self) -> Span {
        Span::new(self.line, self.column)
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        match c {
            '\n' if self.after_cr => {}
            '\n' | '\r' => {
                self.line += 1;
                self.column = 1;
            }
            _ => self.column += 1,
        }
        self.after_cr = c == '\r';
        Some(c)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.next();
        }
    }

    fn unexpected(&self, found: Option<char>, wanted: &str) -> Diagnostic {
        self.unexpected_at(self.here(), found, wanted)
    }

    fn unexpected_at(&self, span: Span, found: Option<char>, wanted: &str) -> Diagnostic {
        let message = match found {
            Some(c) => format!("expected {wanted}, found {}", quoted(&c.to_string())),
            None => format!("expected {wanted}, found the end of the document"),
        };
        Diagnostic::new(Rule::Syntax, span, message)
    }

    fn value(&mut self, depth: usize) -> Result<Node, Diagnostic> {
        let span = self.here();
        let value = match self.peek() {
            Some('{') => self.map(depth)?,
            Some('[') => self.list(depth)?,
            Some('"') => {
                self.bounds.add(0, span)?;
                Value::Str(self.string()?)
            }
            Some('-' | '0'..='9') => {
                self.bounds.add(0, span)?;
                self.number()?
            }
            Some(c) if c.is_ascii_alphabetic() => {
                self.bounds.add(0, span)?;
                self.word()?
            }
            other => return Err(self.unexpected(other, "a value")),
        };
        Ok(Node { value, span })
    }

    fn word(&mut self) -> Result<Value, Diagnostic> {
        let span = self.here();
        let mut word = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() && word.len() < 32) {
            word.push(c);
            self.next();
        }
        match word.as_str() {
            "null" => Ok(Value::Null),
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            word => Err(Diagnostic::new(
                Rule::Syntax,
                span,
                format!("{} is not a JSON value", quoted(word)),
            )
            .hint("text stands between quotation marks")),
        }
    }

    fn digits(&mut self, into: &mut String) -> Result<(), Diagnostic> {
        let start = into.len();
        while let Some(c) = self.peek().filter(char::is_ascii_digit) {
            into.push(c);
            self.next();
        }
        if into.len() == start {
            let found = self.peek();
            return Err(self.unexpected(found, "a digit"));
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Value, Diagnostic> {
        let span = self.here();
        let mut text = String::new();
        let mut float = false;
        if self.peek() == Some('-') {
            text.push('-');
            self.next();
        }
        if self.peek() == Some('0') {
            text.push('0');
            self.next();
            if self.peek().is_some_and(|c| c.is_ascii_digit()) {
                return Err(Diagnostic::new(
                    Rule::Syntax,
                    span,
                    "a number does not begin with 0 unless it is 0",
                ));
            }
        } else {
            self.digits(&mut text)?;
        }
        if self.peek() == Some('.') {
            float = true;
            text.push('.');
            self.next();
            self.digits(&mut text)?;
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            float = true;
            text.push('e');
            self.next();
            if let Some(sign @ ('+' | '-')) = self.peek() {
                text.push(sign);
                self.next();
            }
            self.digits(&mut text)?;
        }
        if float {
            match text.parse::<f64>() {
                Ok(x) if x.is_finite() => Ok(Value::Float(x)),
                _ => Err(too_large(span)),
            }
        } else {
            // Too many digits for i128 fail to parse, which is too large as well.
            whole(text.parse::<i128>().map_err(|_| too_large(span))?, span)
        }
    }

    fn string(&mut self) -> Result<String, Diagnostic> {
        let start = self.here();
        self.next();
        let mut out = String::new();
        loop {
            let span = self.here();
            match self.next() {
                None => {
                    return Err(Diagnostic::new(Rule::Syntax, start, "this text is not closed"));
                }
                Some('"') => return Ok(out),
                Some('\\') => out.push(self.escape(span)?),
                Some(c) if u32::from(c) < 0x20 => {
                    return Err(Diagnostic::new(
                        Rule::Syntax,
                        span,
                        "a control character in a text must be written as an escape, such as \\n",
                    ));
                }
                Some(c) => out.push(c),
            }
        }
    }

    fn escape(&mut self, span: Span) -> Result<char, Diagnostic> {
        Ok(match self.next() {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let first = self.hex4(span)?;
                let code = match first {
                    // A pair of surrogates (RFC 8259, section 7). One alone is no character.
                    0xD800..=0xDBFF => {
                        let second = match (self.next(), self.next()) {
                            (Some('\\'), Some('u')) => self.hex4(span)?,
                            _ => return Err(lone_surrogate(span)),
                        };
                        if !(0xDC00..=0xDFFF).contains(&second) {
                            return Err(lone_surrogate(span));
                        }
                        0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)
                    }
                    code => code,
                };
                char::from_u32(code).ok_or_else(|| lone_surrogate(span))?
            }
            found => {
                return Err(self.unexpected_at(span, found, "one of \" \\ / b f n r t u after \\"));
            }
        })
    }

    fn hex4(&mut self, span: Span) -> Result<u32, Diagnostic> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.next().and_then(|c| c.to_digit(16)).ok_or_else(|| {
                Diagnostic::new(Rule::Syntax, span, "\\u is followed by four hexadecimal digits")
            })?;
            code = code * 16 + digit;
        }
        Ok(code)
    }

    fn list(&mut self, depth: usize) -> Result<Value, Diagnostic> {
        self.bounds.add(depth, self.here())?;
        self.next();
        self.space();
        let mut items = Vec::new();
        if self.peek() == Some(']') {
            self.next();
            return Ok(Value::List(items));
        }
        loop {
            self.space();
            items.push(self.value(depth + 1)?);
            self.space();
            match self.peek() {
                Some(',') => {
                    self.next();
                }
                Some(']') => {
                    self.next();
                    return Ok(Value::List(items));
                }
                found => return Err(self.unexpected(found, "\",\" or \"]\"")),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Diagnostic> {
        self.bounds.add(depth, self.here())?;
        self.next();
        self.space();
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        if self.peek() == Some('}') {
            self.next();
            return Ok(Value::Map(entries));
        }
        loop {
            self.space();
            let span = self.here();
            let text = match self.peek() {
                Some('"') => self.string()?,
                found => return Err(self.unexpected(found, "a key between quotation marks")),
            };
            if !seen.insert(text.clone()) {
                return Err(twice(&text, span));
            }
            self.space();
            match self.peek() {
                Some(':') => self.next(),
                found => return Err(self.unexpected(found, "\":\"")),
            };
            self.space();
            let value = self.value(depth + 1)?;
            entries.push((Key { text, span }, value));
            self.space();
            match self.peek() {
                Some(',') => {
                    self.next();
                }
                Some('}') => {
                    self.next();
                    return Ok(Value::Map(entries));
                }
                found => return Err(self.unexpected(found, "\",\" or \"}\"")),
            }
        }
    }
}

fn lone_surrogate(span: Span) -> Diagnostic {
    Diagnostic::new(Rule::Syntax, span, "half of a surrogate pair is not a character")
}
