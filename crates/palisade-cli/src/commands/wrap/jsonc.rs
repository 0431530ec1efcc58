//! JSON as people keep it in configuration files: with comments and trailing commas, read into a tree
//! that knows where each value stands, so that a change touches nothing else of the text.
//!
//! It reads RFC 8259 and, besides, what editors allow: `//` and `/* */` comments, a comma after the last
//! element, a byte order mark. Uses nothing but the standard library; a fuzz target includes this file.

use std::ops::Range;

/// Largest file, in bytes.
pub(crate) const MAX_LEN: usize = 4 << 20;
/// Deepest nesting of arrays and objects.
pub(crate) const MAX_DEPTH: usize = 128;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// In bytes of the text.
    pub(crate) span: Range<usize>,
    pub(crate) value: Value,
}

/// What stands there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// Its text is its value: nothing is lost to a conversion.
    Number,
    /// `None`: an escape in it stands for no character (half of a surrogate pair).
    Text(Option<String>),
    Array(Vec<Item>),
    Object(Vec<Member>),
}

/// An element of an array.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) node: Node,
    /// Where the comma after it stands.
    pub(crate) comma: Option<usize>,
}

/// A member of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    /// As [`Value::Text`].
    pub(crate) key: Option<String>,
    pub(crate) key_span: Range<usize>,
    pub(crate) node: Node,
    /// Where the comma after it stands.
    pub(crate) comma: Option<usize>,
}

/// Why a text is no JSON, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// From 1.
    pub(crate) line: usize,
    /// In characters, from 1.
    pub(crate) column: usize,
    pub(crate) what: &'static str,
}

impl Node {
    /// The text, if it is one that can be written.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => text.as_deref(),
            _ => None,
        }
    }

    /// The members, if it is an object.
    pub(crate) fn members(&self) -> Option<&[Member]> {
        match &self.value {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The elements, if it is an array.
    pub(crate) fn items(&self) -> Option<&[Item]> {
        match &self.value {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// Calls `visit` for this value and all below it, with the key of those that have one.
    pub(crate) fn each<'a>(&'a self, visit: &mut dyn FnMut(Option<&'a str>, &'a Node)) {
        visit(None, self);
        self.below(visit);
    }

    fn below<'a>(&'a self, visit: &mut dyn FnMut(Option<&'a str>, &'a Node)) {
        match &self.value {
            Value::Array(items) => items.iter().for_each(|item| item.node.each(visit)),
            Value::Object(members) => {
                for member in members {
                    visit(member.key.as_deref(), &member.node);
                    member.node.below(visit);
                }
            }
            _ => {}
        }
    }
}

/// Line and column of a byte, both from 1; the column counts characters.
pub(crate) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// Reads a text.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut reader = Reader { text, at: 0 };
    let read = |reader: &mut Reader<'_>| {
        if text.len() > MAX_LEN {
            return Err("the file has more than 4 MiB");
        }
        reader.eat("\u{feff}");
        reader.skip()?;
        let root = reader.value(0)?;
        reader.skip()?;
        match reader.peek() {
            None => Ok(root),
            Some(_) => Err("there is something after the end of the value"),
        }
    };
    read(&mut reader).map_err(|what| {
        let (line, column) = position(text, reader.at);
        SyntaxError { line, column, what }
    })
}

struct Reader<'t> {
    text: &'t str,
    /// Always on the border of a character.
    at: usize,
}

type Read<T> = Result<T, &'static str>;

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Goes over white space and comments.
    fn skip(&mut self) -> Read<()> {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
            self.at += blank;
            if self.rest().starts_with("//") {
                self.at += self.rest().find('\n').unwrap_or(self.rest().len());
            } else if self.rest().starts_with("/*") {
                let end = self.rest().get(2..).and_then(|inside| inside.find("*/"));
                self.at += end.ok_or("a comment has no end")? + 4;
            } else {
                return Ok(());
            }
        }
    }

    fn value(&mut self, depth: usize) -> Read<Node> {
        let start = self.at;
        let value = match self.peek() {
            Some(b'{' | b'[') if depth == MAX_DEPTH => return Err("it is nested too deeply"),
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Value::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ if self.eat("true") => Value::Bool(true),
            _ if self.eat("false") => Value::Bool(false),
            _ if self.eat("null") => Value::Null,
            None => return Err("the file ends where a value should stand"),
            _ => return Err("expected a value"),
        };
        Ok(Node { span: start..self.at, value })
    }

    fn comma(&mut self) -> Read<Option<usize>> {
        self.skip()?;
        let at = self.at;
        let comma = self.eat(",").then_some(at);
        self.skip()?;
        Ok(comma)
    }

    fn array(&mut self, depth: usize) -> Read<Value> {
        self.at += 1;
        self.skip()?;
        let mut items: Vec<Item> = Vec::new();
        while !self.eat("]") {
            if items.last().is_some_and(|last| last.comma.is_none()) {
                return Err("expected , or ]");
            }
            let node = self.value(depth + 1)?;
            let comma = self.comma()?;
            items.push(Item { node, comma });
        }
        Ok(Value::Array(items))
    }

    fn object(&mut self, depth: usize) -> Read<Value> {
        self.at += 1;
        self.skip()?;
        let mut members: Vec<Member> = Vec::new();
        while !self.eat("}") {
            if members.last().is_some_and(|last| last.comma.is_none()) {
                return Err("expected , or }");
            }
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err("expected a name in double quotes");
            }
            let key = self.string()?;
            let key_span = start..self.at;
            self.skip()?;
            if !self.eat(":") {
                return Err("expected :");
            }
            self.skip()?;
            let node = self.value(depth + 1)?;
            let comma = self.comma()?;
            members.push(Member { key, key_span, node, comma });
        }
        Ok(Value::Object(members))
    }

    fn digits(&mut self) -> bool {
        let rest = self.rest();
        let count = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        self.at += count;
        count > 0
    }

    fn number(&mut self) -> Read<Value> {
        self.eat("-");
        if !self.eat("0") && !self.digits() {
            return Err("expected a digit");
        }
        if self.eat(".") && !self.digits() {
            return Err("expected a digit");
        }
        if self.eat("e") || self.eat("E") {
            let _ = self.eat("+") || self.eat("-");
            if !self.digits() {
                return Err("expected a digit");
            }
        }
        Ok(Value::Number)
    }

    fn string(&mut self) -> Read<Option<String>> {
        self.at += 1;
        let mut out = Some(String::new());
        loop {
            let plain = self.rest().find(|c: char| c == '"' || c == '\\' || c < ' ');
            let end = self.at + plain.unwrap_or(self.rest().len());
            if let Some(out) = &mut out {
                out.push_str(self.text.get(self.at..end).unwrap_or_default());
            }
            self.at = end;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    let c = self.escape()?;
                    match (&mut out, c) {
                        (Some(out), Some(c)) => out.push(c),
                        _ => out = None,
                    }
                }
                None => return Err("a text has no end"),
                Some(_) => return Err("a text has a line break or control character in it"),
            }
        }
    }

    /// One escape, two for a surrogate pair. `None` for half a pair.
    fn escape(&mut self) -> Read<Option<char>> {
        const SIMPLE: [(&str, char); 8] = [
            ("\\\"", '"'),
            ("\\\\", '\\'),
            ("\\/", '/'),
            ("\\b", '\u{8}'),
            ("\\f", '\u{c}'),
            ("\\n", '\n'),
            ("\\r", '\r'),
            ("\\t", '\t'),
        ];
        for (token, c) in SIMPLE {
            if self.eat(token) {
                return Ok(Some(c));
            }
        }
        let first = self.unit()?;
        if !(0xD800..0xDC00).contains(&first) || !self.rest().starts_with("\\u") {
            return Ok(char::from_u32(first));
        }
        let after_first = self.at;
        let second = self.unit()?;
        if !(0xDC00..0xE000).contains(&second) {
            // No pair; what follows is an escape of its own.
            self.at = after_first;
            return Ok(None);
        }
        Ok(char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)))
    }

    fn unit(&mut self) -> Read<u32> {
        let unknown = "there is no such escape";
        let hex = self.rest().strip_prefix("\\u").and_then(|rest| rest.get(..4)).ok_or(unknown)?;
        if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(unknown);
        }
        let unit = u32::from_str_radix(hex, 16).map_err(|_| unknown)?;
        self.at += 6;
        Ok(unit)
    }
}

/// A change of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    /// What goes.
    pub(crate) span: Range<usize>,
    /// What comes.
    pub(crate) text: String,
}

impl Edit {
    pub(crate) fn replace(node: &Node, text: impl Into<String>) -> Self {
        Self { span: node.span.clone(), text: text.into() }
    }
}

/// The text after the changes, which must not overlap. Of two at the same place the first comes first.
pub(crate) fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for edit in edits {
        out.push_str(text.get(at..edit.span.start).unwrap_or_default());
        out.push_str(&edit.text);
        at = edit.span.end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

/// What stands before a value on its line and above, if that is white space alone; else the line break
/// and indentation at its end, or one space.
fn separator(text: &str, from: usize, to: usize) -> &str {
    let between = text.get(from..to).unwrap_or_default();
    if between.trim_matches([' ', '\t', '\n', '\r']).is_empty() {
        return between;
    }
    let blank = between.trim_end_matches([' ', '\t', '\n', '\r']).len();
    match between.get(blank..).unwrap_or_default() {
        "" => " ",
        blank => blank,
    }
}

/// Puts elements, given as JSON, before those of an array, laid out like its first.
/// [`remove_front`] takes them away again without a trace.
pub(crate) fn prepend(text: &str, array: &Node, elements: &[String]) -> Vec<Edit> {
    let start = array.span.start + 1;
    let mut inserted = String::new();
    match array.items().and_then(<[Item]>::first) {
        Some(first) => {
            let blank = separator(text, start, first.node.span.start);
            for element in elements {
                inserted.push_str(blank);
                inserted.push_str(element);
                inserted.push(',');
            }
            // Elements on one line have their space after the comma.
            if blank.is_empty() {
                inserted = elements.iter().map(|e| format!("{e}, ")).collect();
            }
        }
        None => inserted.push_str(&elements.join(", ")),
    }
    vec![Edit { span: start..start, text: inserted }]
}

/// Takes the first `count` elements of an array away.
pub(crate) fn remove_front(text: &str, array: &Node, count: usize) -> Vec<Edit> {
    let items = array.items().unwrap_or_default();
    let start = array.span.start + 1;
    let Some(last) = count.checked_sub(1).and_then(|i| items.get(i)) else { return Vec::new() };
    let mut end = last.comma.map_or(last.node.span.end, |comma| comma + 1);
    let on_one_line = items.first().is_some_and(|first| first.node.span.start == start);
    if on_one_line
        && last.comma.is_some()
        && text.get(end..).is_some_and(|rest| rest.starts_with(' '))
    {
        end += 1;
    }
    vec![Edit { span: start..end, text: String::new() }]
}

/// Takes the members away for which `goes` is true. Comments stay, and there is a comma after the last
/// that stays if and only if there was one after the last before.
pub(crate) fn remove_members(
    text: &str,
    object: &Node,
    goes: impl Fn(&Member) -> bool,
) -> Vec<Edit> {
    let members = object.members().unwrap_or_default();
    let blank_from = |at: usize| {
        let rest = text.get(at..).unwrap_or_default();
        at + rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len()
    };
    let mut edits = Vec::new();
    let mut start_at = None;
    let last_kept = members.iter().rposition(|m| !goes(m));
    if let Some(kept) = last_kept.and_then(|i| members.get(i))
        && let Some(comma) = kept.comma
        && let Some(next) = last_kept.and_then(|i| members.get(i + 1))
    {
        if members.last().is_some_and(|last| last.comma.is_none()) {
            edits.push(Edit { span: comma..comma + 1, text: String::new() });
        }
        // No empty line is left behind.
        if blank_from(comma + 1) == next.key_span.start {
            start_at = Some((next.key_span.start, comma + 1));
        }
    }
    for (index, member) in members.iter().enumerate().filter(|(_, m)| goes(m)) {
        let start = match start_at {
            Some((key, earlier)) if key == member.key_span.start => earlier,
            _ => member.key_span.start,
        };
        let end = match member.comma {
            Some(comma) if index + 1 < members.len() => blank_from(comma + 1),
            Some(comma) => comma + 1,
            None => member.node.span.end,
        };
        edits.push(Edit { span: start..end, text: String::new() });
    }
    // Nothing but white space is left: that goes too.
    let inside = object.span.start + 1..object.span.end - 1;
    let left = edits.iter().try_fold(inside.start, |at, edit| {
        text.get(at..edit.span.start)?.trim().is_empty().then_some(edit.span.end)
    });
    match left.and_then(|at| text.get(at..inside.end)) {
        Some(rest) if last_kept.is_none() && !edits.is_empty() && rest.trim().is_empty() => {
            vec![Edit { span: inside, text: String::new() }]
        }
        _ => edits,
    }
}

/// Adds members, given as JSON (`"name": value`), after those of an object.
pub(crate) fn append_members(text: &str, object: &Node, members: &[String]) -> Vec<Edit> {
    if members.is_empty() {
        return Vec::new();
    }
    let existing = object.members().unwrap_or_default();
    let Some(last) = existing.last() else {
        let start = object.span.start + 1;
        return vec![Edit { span: start..start, text: members.join(", ") }];
    };
    let before = match existing.len().checked_sub(2).and_then(|i| existing.get(i)) {
        Some(previous) => previous.comma.map_or(previous.node.span.end, |comma| comma + 1),
        None => object.span.start + 1,
    };
    let blank = match separator(text, before, last.key_span.start) {
        "" => " ",
        blank => blank,
    };
    let added: String = members.iter().map(|member| format!(",{blank}{member}")).collect();
    let at = last.node.span.end;
    vec![Edit { span: at..at, text: added }]
}

#[cfg(test)]
mod tests;
