//! From bytes to lines, within bounds. A line keeps its line break, so that it passes as it came.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest line that is relayed, in bytes, its line break included: 16 MiB. The Rust SDK of the protocol
/// drops longer ones too.
pub const LINE_BYTES: usize = 16 << 20;

/// What is read at a time, in bytes.
const CHUNK: usize = 16 * 1024;

/// What came next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A line with its line break; the last one of a stream may have none.
    Line(Bytes),
    /// A line that is longer than the bound; it was not kept.
    TooLong,
    /// The end of the stream.
    End,
}

/// Cuts a stream into lines.
pub(crate) struct LineReader<R> {
    stream: R,
    buffer: BytesMut,
    searched: usize,
    longest: usize,
    /// Within a line that was too long.
    skips: bool,
    is_over: bool,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(crate) fn new(stream: R, longest: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), searched: 0, longest, skips: false, is_over: false }
    }

    /// The next line. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Next {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(found) = memchr::memchr(b'\n', unsearched) {
                let line = self.buffer.split_to(self.searched + found + 1);
                self.searched = 0;
                let was_skipped = std::mem::take(&mut self.skips);
                if was_skipped {
                    continue;
                }
                if line.len() > self.longest {
                    return Next::TooLong;
                }
                return Next::Line(line.freeze());
            }
            self.searched = self.buffer.len();
            if self.skips || self.buffer.len() > self.longest {
                let tell = !self.skips;
                self.skips = true;
                self.buffer = BytesMut::new();
                self.searched = 0;
                if tell {
                    return Next::TooLong;
                }
            }
            if self.is_over {
                let rest = std::mem::take(&mut self.buffer);
                self.searched = 0;
                return if rest.is_empty() { Next::End } else { Next::Line(rest.freeze()) };
            }
            self.buffer.reserve(CHUNK);
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => self.is_over = true,
                Ok(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &[u8], longest: usize) -> Vec<Option<String>> {
        let mut lines = LineReader::new(text, longest);
        let mut all = Vec::new();
        loop {
            match lines.next().await {
                Next::Line(line) => all.push(Some(String::from_utf8(line.to_vec()).unwrap())),
                Next::TooLong => all.push(None),
                Next::End => return all,
            }
        }
    }

    #[tokio::test]
    async fn lines_keep_their_ends_and_long_ones_are_left_out() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read(b"a\r\n\nbc", 9).await, [some("a\r\n"), some("\n"), some("bc")]);
        assert_eq!(read(b"abc\nd\n", 3).await, [None, some("d\n")]);
        assert_eq!(read(b"abc\n", 4).await, [some("abc\n")]);
        let long = [vec![b'x'; 100_000], b"\ny\n".to_vec()].concat();
        assert_eq!(read(&long, 1000).await, [None, some("y\n")]);
        assert_eq!(read(&[b'x'; 50], 10).await, [None]);
    }
}
