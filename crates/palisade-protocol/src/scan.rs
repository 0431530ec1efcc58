//! One linear scan over JSON text: grammar, depth, control characters, surrogates.
//!
//! It validates and finds where values begin and end; it builds nothing, recurses nowhere and keeps
//! numbers as the text they are. What it accepts is RFC 8259 minus lone surrogates.

use crate::{FrameError, bounds};

/// Checks that `text` is exactly one JSON value of at most `levels` nested arrays and objects.
///
/// # Errors
/// [`FrameError::NotUtf8`], [`FrameError::Syntax`], [`FrameError::Control`],
/// [`FrameError::LoneSurrogate`], [`FrameError::TooDeep`] or [`FrameError::Trailing`].
pub fn validate(text: &[u8], levels: u32) -> Result<(), FrameError> {
    validate_text(utf8(text)?, levels)
}

/// [`validate`] of what is known to be UTF-8.
///
/// # Errors
/// As [`validate`], but for the encoding.
pub fn validate_text(text: &str, levels: u32) -> Result<(), FrameError> {
    let mut scanner = Scanner::new(text.as_bytes());
    scanner.value(levels)?;
    scanner.end()
}

/// Checks the encoding.
///
/// # Errors
/// [`FrameError::NotUtf8`].
pub fn utf8(text: &[u8]) -> Result<&str, FrameError> {
    simdutf8::basic::from_utf8(text).map_err(|_| {
        // Only the slower one says where.
        let at = std::str::from_utf8(text).map_or_else(|e| e.valid_up_to(), str::len);
        FrameError::NotUtf8 { at }
    })
}

/// How many bytes are looked at together.
const BLOCK: usize = 32;

/// Whether a string goes on behind `byte` without further looks.
const fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

/// How many of the first bytes are plain. Whole blocks are looked at without a branch for each byte, which
/// compilers turn into vector instructions.
fn plain(bytes: &[u8]) -> usize {
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    let whole = blocks
        .iter()
        .take_while(|block| block.iter().fold(true, |all, byte| all & is_plain(*byte)))
        .count();
    let at = whole * BLOCK;
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| !is_plain(*byte)).unwrap_or(rest.len())
}

/// A string's text between its quotes, and whether it holds escapes.
#[derive(Clone, Copy)]
pub(crate) struct RawString<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) escaped: bool,
}

/// A position in JSON text.
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn syntax(&self) -> FrameError {
        FrameError::Syntax { at: self.at }
    }

    pub(crate) fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    /// Takes `byte` if it is next.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(crate) fn expect(&mut self, byte: u8) -> Result<(), FrameError> {
        if self.take(byte) { Ok(()) } else { Err(self.syntax()) }
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Result<(), FrameError> {
        self.space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(FrameError::Trailing { at: self.at }) }
    }

    /// A string, its opening quote included.
    pub(crate) fn string(&mut self) -> Result<RawString<'a>, FrameError> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain(self.bytes.get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    let text = self.bytes.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(RawString { text, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(FrameError::Control { at: self.at }),
                None => return Err(self.syntax()),
            }
        }
    }

    fn escape(&mut self) -> Result<(), FrameError> {
        let start = self.at;
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let lone = FrameError::LoneSurrogate { at: start };
                match self.hex4()? {
                    0xD800..=0xDBFF => {
                        if !(self.take(b'\\') && self.peek() == Some(b'u')) {
                            return Err(lone);
                        }
                        if !matches!(self.hex4()?, 0xDC00..=0xDFFF) {
                            return Err(lone);
                        }
                    }
                    0xDC00..=0xDFFF => return Err(lone),
                    _ => {}
                }
            }
            _ => return Err(self.syntax()),
        }
        Ok(())
    }

    /// `u` and four hexadecimal digits.
    fn hex4(&mut self) -> Result<u32, FrameError> {
        self.expect(b'u')?;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16));
            unit = unit * 16 + digit.ok_or_else(|| self.syntax())?;
            self.at += 1;
        }
        Ok(unit)
    }

    fn digits(&mut self) -> Result<(), FrameError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.syntax()) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), FrameError> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<(), FrameError> {
        if self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.syntax())
        }
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<(), FrameError> {
        self.space();
        self.string()?;
        self.space();
        self.expect(b':')
    }

    /// One value of at most `levels` (0..=64) nested arrays and objects; returns its text.
    pub(crate) fn value(&mut self, levels: u32) -> Result<&'a [u8], FrameError> {
        // One bit a level says whether it is an object; this is why there are at most 64.
        let levels = levels.min(bounds::DEPTH_LEVELS);
        let (mut objects, mut depth) = (0u64, 0u32);
        self.space();
        let start = self.at;
        'value: loop {
            self.space();
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    if depth >= levels {
                        return Err(FrameError::TooDeep);
                    }
                    self.at += 1;
                    self.space();
                    let object = open == b'{';
                    if !self.take(if object { b'}' } else { b']' }) {
                        depth += 1;
                        objects = objects << 1 | u64::from(object);
                        if object {
                            self.key()?;
                        }
                        continue 'value;
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                _ => return Err(self.syntax()),
            }
            // A value ended here; close what it closes.
            while depth > 0 {
                let object = objects & 1 == 1;
                self.space();
                if self.take(b',') {
                    if object {
                        self.key()?;
                    }
                    continue 'value;
                }
                self.expect(if object { b'}' } else { b']' })?;
                objects >>= 1;
                depth -= 1;
            }
            return Ok(self.bytes.get(start..self.at).unwrap_or_default());
        }
    }
}
