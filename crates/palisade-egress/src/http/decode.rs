//! Unpacking an answer's body, bounded while it grows: a few bytes can stand for gigabytes.

use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use bytes::Bytes;
use flate2::write::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};

use super::Caps;
use crate::EgressError;

/// What is asked for, and can be unpacked.
pub(super) const ACCEPTED: &str = "gzip, br";
/// Up to here the ratio does not count: small repetitive texts are packed far better than large ones.
const RATIO_FROM: u64 = 1 << 20;
const BROTLI_BUFFER: usize = 16 * 1024;

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    /// `deflate`, which is zlib (RFC 9110, 8.4.1.2).
    Zlib,
    Brotli,
}

impl Coding {
    /// How the body that belongs to `headers` is packed; `None` where it is not.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, EgressError> {
        let unknown =
            || EgressError::BadResponse("its Content-Encoding is not gzip, deflate or br".into());
        let mut all = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(first) = all.next() else { return Ok(None) };
        // Packed twice is the mark of a bomb.
        if all.next().is_some() {
            return Err(unknown());
        }
        let first = first.as_bytes().trim_ascii().to_ascii_lowercase();
        match first.as_slice() {
            b"gzip" | b"x-gzip" => Ok(Some(Self::Gzip)),
            b"deflate" => Ok(Some(Self::Zlib)),
            b"br" => Ok(Some(Self::Brotli)),
            b"identity" => Ok(None),
            _ => Err(unknown()),
        }
    }
}

/// Where the unpacked bytes go, and how many there may be.
struct Sink {
    out: Vec<u8>,
    /// Packed bytes so far.
    packed: u64,
    caps: (u64, u64),
    refused: Option<EgressError>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = (self.out.len() + bytes.len()) as u64;
        let (most, ratio) = self.caps;
        let refused = if size > most {
            EgressError::TooLarge { what: "the unpacked body", limit: most, unit: "bytes" }
        } else if size > RATIO_FROM && size > self.packed.saturating_mul(ratio) {
            let what = "the unpacked body";
            EgressError::TooLarge { what, limit: ratio, unit: "times its packed size" }
        } else {
            self.out.extend_from_slice(bytes);
            return Ok(bytes.len());
        };
        self.refused = Some(refused);
        Err(io::Error::other("too large"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Decoder {
    Gzip(Box<MultiGzDecoder<Sink>>),
    Zlib(Box<ZlibDecoder<Sink>>),
    Brotli(Box<DecompressorWriter<Sink>>),
}

/// Unpacks a body piece by piece.
pub(super) struct Unpacker(Decoder);

impl Unpacker {
    pub(super) fn new(coding: Coding, caps: &Caps) -> Self {
        let sink = Sink {
            out: Vec::new(),
            packed: 0,
            caps: (caps.decompressed_bytes, caps.decompression_ratio),
            refused: None,
        };
        Self(match coding {
            Coding::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(sink))),
            Coding::Zlib => Decoder::Zlib(Box::new(ZlibDecoder::new(sink))),
            Coding::Brotli => {
                Decoder::Brotli(Box::new(DecompressorWriter::new(sink, BROTLI_BUFFER)))
            }
        })
    }

    fn sink(&mut self) -> &mut Sink {
        match &mut self.0 {
            Decoder::Gzip(d) => d.get_mut(),
            Decoder::Zlib(d) => d.get_mut(),
            Decoder::Brotli(d) => d.get_mut(),
        }
    }

    fn error(&mut self, cause: &io::Error) -> EgressError {
        let broken = || EgressError::BadResponse(format!("its body cannot be unpacked: {cause}"));
        self.sink().refused.take().unwrap_or_else(broken)
    }

    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), EgressError> {
        self.sink().packed += piece.len() as u64;
        let written = match &mut self.0 {
            Decoder::Gzip(d) => d.write_all(piece),
            Decoder::Zlib(d) => d.write_all(piece),
            Decoder::Brotli(d) => d.write_all(piece),
        };
        written.map_err(|cause| self.error(&cause))
    }

    /// The whole body. One that stops in the middle is an error.
    pub(super) fn finish(mut self) -> Result<Bytes, EgressError> {
        let ended = match &mut self.0 {
            Decoder::Gzip(d) => d.try_finish(),
            Decoder::Zlib(d) => d.try_finish(),
            Decoder::Brotli(d) => d.close(),
        };
        ended.map_err(|cause| self.error(&cause))?;
        Ok(std::mem::take(&mut self.sink().out).into())
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(
        coding: Coding,
        packed: &[u8],
        piece: usize,
        caps: &Caps,
    ) -> Result<Bytes, EgressError> {
        let mut unpacker = Unpacker::new(coding, caps);
        for piece in packed.chunks(piece) {
            unpacker.push(piece)?;
        }
        unpacker.finish()
    }

    #[test]
    fn what_was_packed_is_unpacked_in_pieces_of_any_size() {
        let text = b"palisade ".repeat(5000);
        for piece in [1, 7, 1000, 1 << 20] {
            assert_eq!(unpack(Coding::Gzip, &gzip(&text), piece, &Caps::default()).unwrap(), text);
        }
        // "hello" by `brotli`, and by `zlib`.
        let brotli = [0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];
        assert_eq!(unpack(Coding::Brotli, &brotli, 2, &Caps::default()).unwrap(), "hello");
        let zlib = [0x78, 0x9c, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x06, 0x2c, 0x02, 0x15];
        assert_eq!(unpack(Coding::Zlib, &zlib, 3, &Caps::default()).unwrap(), "hello");
    }

    #[test]
    fn a_bomb_is_stopped_by_size_and_by_ratio() {
        let bomb = gzip(&vec![0; 40 << 20]);
        let size = Caps { decompressed_bytes: 1000, ..Caps::default() };
        let ratio = Caps { decompression_ratio: 50, ..Caps::default() };
        for (caps, unit) in [(size, "bytes"), (ratio, "times its packed size")] {
            let stopped = unpack(Coding::Gzip, &bomb, 4096, &caps).unwrap_err();
            assert!(
                matches!(stopped, EgressError::TooLarge { unit: u, .. } if u == unit),
                "{stopped}"
            );
        }
        let wide = Caps { decompression_ratio: 2000, ..Caps::default() };
        assert_eq!(unpack(Coding::Gzip, &bomb, 4096, &wide).unwrap().len(), 40 << 20);
    }

    #[test]
    fn a_body_that_is_cut_or_broken_is_an_error() {
        let packed = gzip(&b"palisade ".repeat(500));
        let cut = &packed[..packed.len() / 2];
        assert!(unpack(Coding::Gzip, cut, 100, &Caps::default()).is_err());
        assert!(unpack(Coding::Gzip, b"not gzip at all", 100, &Caps::default()).is_err());
        assert!(unpack(Coding::Zlib, b"not zlib at all", 100, &Caps::default()).is_err());
        assert!(unpack(Coding::Brotli, &[0xff; 40], 100, &Caps::default()).is_err());
        assert!(unpack(Coding::Brotli, &[0x0b, 0x02, 0x80], 100, &Caps::default()).is_err());
    }
}
