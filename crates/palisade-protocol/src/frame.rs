//! From bytes to lines: the incremental decoder. No I/O and no JSON here.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::{FrameError, bounds};

/// Free space kept for one read, in bytes.
const READ_BYTES: usize = 64 << 10;
/// A buffer that grew beyond this for a large frame is given back once it is empty, in bytes.
const KEEP_BYTES: usize = 1 << 20;

/// Cuts a byte stream into frames.
///
/// A frame is a line without its `\n` (and without a `\r` before that). Empty lines are skipped. How
/// the stream is split into pieces makes no difference to what comes out.
///
/// ```
/// let mut decoder = palisade_protocol::frame::Decoder::new();
/// decoder.feed(b"{\"a\":1}\r\n\n{\"b\"");
/// assert_eq!(decoder.next_frame().unwrap().unwrap(), &b"{\"a\":1}"[..]);
/// assert_eq!(decoder.next_frame(), Ok(None));
/// assert!(decoder.is_mid_frame());
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    /// Initialised bytes; the first `filled` came from the stream, the rest is space for the next read.
    buffer: BytesMut,
    filled: usize,
    /// How much of `filled` is known to hold no line break.
    searched: usize,
    empty_lines: usize,
}

impl Decoder {
    /// A decoder at the beginning of a stream. It allocates with the first bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a copy of `bytes`. Call [`Decoder::next_frame`] until it has no more before feeding again:
    /// the bound on memory is the frame bound plus what one call feeds.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.truncate(self.filled);
        self.buffer.extend_from_slice(bytes);
        self.filled = self.buffer.len();
    }

    /// Space to read into, at least 16 KiB. Say with [`Decoder::advance`] how much of it was filled.
    pub fn space(&mut self) -> &mut [u8] {
        if self.buffer.len() - self.filled < READ_BYTES / 4 {
            // Cut first, so that a move to a new buffer copies only what came from the stream. A long
            // frame doubles the buffer up to the bound, so that it is not moved for every read.
            self.buffer.truncate(self.filled);
            if self.filled == 0 && self.buffer.capacity() > KEEP_BYTES {
                self.buffer = BytesMut::new();
            }
            let more = READ_BYTES.max(self.filled.min(bounds::FRAME_BYTES / 2));
            self.buffer.reserve(more);
            self.buffer.resize(self.filled + more, 0);
        }
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    /// Says that `count` bytes of the space were filled.
    pub fn advance(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.buffer.len());
    }

    /// The next whole frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] and [`FrameError::EmptyLines`]. After an error the stream has no meaning
    /// any more; the decoder keeps answering with it.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            let unsearched = self.buffer.get(self.searched..self.filled).unwrap_or_default();
            let Some(found) = memchr::memchr(b'\n', unsearched) else {
                self.searched = self.filled;
                // One byte more than the bound may be the `\r` of a frame that is just allowed.
                let ends_in_cr = self.buffer.get(..self.filled).is_some_and(|b| b.ends_with(b"\r"));
                if self.filled - usize::from(ends_in_cr) > bounds::FRAME_BYTES {
                    return Err(FrameError::TooLong);
                }
                return Ok(None);
            };
            let end = self.searched + found;
            let line = self.buffer.get(..end).unwrap_or_default();
            let length = line.strip_suffix(b"\r").unwrap_or(line).len();
            if length > bounds::FRAME_BYTES {
                return Err(FrameError::TooLong);
            }
            if length == 0 {
                self.empty_lines += 1;
                if self.empty_lines > bounds::EMPTY_LINES {
                    return Err(FrameError::EmptyLines);
                }
                self.buffer.advance(end + 1);
                self.filled -= end + 1;
                self.searched = 0;
                continue;
            }
            self.empty_lines = 0;
            let mut frame = self.buffer.split_to(end + 1);
            self.filled -= end + 1;
            self.searched = 0;
            frame.truncate(length);
            return Ok(Some(frame.freeze()));
        }
    }

    /// Whether bytes of an unfinished line are held.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.filled > 0
    }
}

#[cfg(test)]
mod tests;
