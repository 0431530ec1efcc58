//! The chunked transfer coding (RFC 9112, 7.1), read strictly and bounded.
//!
//! Extensions and trailers are read over and not passed on. The decoder takes bytes as they come and
//! says how many of them are data; it keeps no data itself.

use crate::EgressError;

/// Longest line with a chunk's size, in bytes.
const MAX_SIZE_LINE: usize = 256;
/// Most bytes of trailers.
const MAX_TRAILERS: usize = 8 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a line with a size; so many bytes of it were read, and whether a digit was, and whether the
    /// extension has begun.
    Size {
        size: u64,
        digits: u8,
        extension: bool,
        line: usize,
    },
    /// Behind the CR of a size line.
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// In the trailers: bytes so far, and bytes of this line.
    Trailer {
        all: usize,
        line: usize,
    },
    TrailerLf {
        all: usize,
        line: usize,
    },
    Done,
}

/// Reads one chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoder(State);

/// What stands at the beginning of the bytes given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of framing; read on behind them. 0 only where no bytes were given.
    Skip(usize),
    /// So many bytes of data, at least one.
    Data(usize),
    /// The body ended; nothing was taken.
    Done,
}

impl Default for Decoder {
    fn default() -> Self {
        Self(State::Size { size: 0, digits: 0, extension: false, line: 0 })
    }
}

impl Decoder {
    /// A decoder before the first chunk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at `bytes` and takes from their beginning what the step says.
    ///
    /// # Errors
    /// [`EgressError::BadRequest`] where the coding is broken, [`EgressError::TooLarge`].
    pub fn step(&mut self, bytes: &[u8]) -> Result<Step, EgressError> {
        match &mut self.0 {
            State::Done => return Ok(Step::Done),
            State::Data { left } => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                if n == 0 {
                    return Ok(Step::Skip(0));
                }
                *left -= n as u64;
                if *left == 0 {
                    self.0 = State::DataCr;
                }
                return Ok(Step::Data(n));
            }
            _ => {}
        }
        let mut taken = 0;
        for byte in bytes {
            if matches!(self.0, State::Data { .. } | State::Done) {
                break;
            }
            self.0 = next(self.0, *byte)?;
            taken += 1;
        }
        // A body that ended without further bytes is found out at the next call.
        if taken == 0 && self.0 == State::Done { Ok(Step::Done) } else { Ok(Step::Skip(taken)) }
    }

    /// Whether the last chunk and the trailers were read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0 == State::Done
    }
}

fn next(state: State, byte: u8) -> Result<State, EgressError> {
    const BROKEN: EgressError = EgressError::BadRequest("its chunked coding is broken");
    Ok(match (state, byte) {
        (State::Size { line, .. }, _) if line >= MAX_SIZE_LINE => {
            let limit = MAX_SIZE_LINE as u64;
            return Err(EgressError::TooLarge {
                what: "the line of a chunk",
                limit,
                unit: "bytes",
            });
        }
        (State::Size { size, digits: 1.., .. }, b'\r') => State::SizeLf { size },
        (State::Size { size, digits: digits @ 1.., extension: false, line }, b';') => {
            State::Size { size, digits, extension: true, line: line + 1 }
        }
        (State::Size { size, digits, extension: false, line }, digit) => {
            let value = char::from(digit).to_digit(16).ok_or(BROKEN)?;
            if digits == 16 {
                return Err(BROKEN);
            }
            let size = size << 4 | u64::from(value);
            State::Size { size, digits: digits + 1, extension: false, line: line + 1 }
        }
        (State::Size { size, digits, extension: true, line }, b'\t' | b' '..=b'~') => {
            State::Size { size, digits, extension: true, line: line + 1 }
        }
        (State::SizeLf { size: 0 }, b'\n') => State::Trailer { all: 0, line: 0 },
        (State::SizeLf { size }, b'\n') => State::Data { left: size },
        (State::DataCr, b'\r') => State::DataLf,
        (State::DataLf, b'\n') => State::Size { size: 0, digits: 0, extension: false, line: 0 },
        (State::Trailer { all, .. }, _) if all >= MAX_TRAILERS => {
            let limit = MAX_TRAILERS as u64;
            return Err(EgressError::TooLarge { what: "the trailers", limit, unit: "bytes" });
        }
        (State::Trailer { all, line }, b'\r') => State::TrailerLf { all: all + 1, line },
        (State::Trailer { all, line }, b'\t' | b' '..=b'~' | 0x80..) => {
            State::Trailer { all: all + 1, line: line + 1 }
        }
        (State::TrailerLf { line: 0, .. }, b'\n') => State::Done,
        (State::TrailerLf { all, .. }, b'\n') => State::Trailer { all: all + 1, line: 0 },
        _ => return Err(BROKEN),
    })
}
