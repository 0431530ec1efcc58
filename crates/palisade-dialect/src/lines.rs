//! From bytes to lines. No I/O.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::{DialectError, LINE_BYTES};

/// Cuts a byte stream into lines without their `\n` and a `\r` before it. Empty lines are lines.
///
/// ```
/// let mut lines = palisade_dialect::Lines::default();
/// lines.feed(b"hello\r\nwor");
/// assert_eq!(lines.next_line().unwrap().unwrap(), &b"hello"[..]);
/// assert_eq!(lines.next_line(), Ok(None));
/// assert_eq!(lines.rest(), &b"wor"[..]);
/// ```
#[derive(Debug, Default)]
pub struct Lines {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line break.
    searched: usize,
}

impl Lines {
    /// Takes a copy of `bytes`. Call [`Lines::next_line`] until it has no more before feeding again.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`DialectError::TooLong`] for a line beyond [`LINE_BYTES`]; the stream is lost then.
    pub fn next_line(&mut self) -> Result<Option<Bytes>, DialectError> {
        let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(found) = memchr::memchr(b'\n', unsearched) else {
            self.searched = self.buffer.len();
            // One byte more than the bound may be the `\r` of a line that is just allowed.
            let length = self.buffer.len() - usize::from(self.buffer.ends_with(b"\r"));
            return if length > LINE_BYTES { Err(DialectError::TooLong) } else { Ok(None) };
        };
        let end = self.searched + found;
        let line = self.buffer.get(..end).unwrap_or_default();
        let length = line.strip_suffix(b"\r").unwrap_or(line).len();
        if length > LINE_BYTES {
            return Err(DialectError::TooLong);
        }
        self.searched = 0;
        let line = self.buffer.split_to(length).freeze();
        self.buffer.advance(end + 1 - length);
        Ok(Some(line))
    }

    /// What came after the last line break: the last line of a stream that ends without one.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.buffer
    }
}
