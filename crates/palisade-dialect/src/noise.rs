//! How much of what a plugin writes may be no message at all.

use crate::DialectError;

/// Lines of noise between two answers, unless configured otherwise.
pub const NOISE_LINES: u32 = 10_000;
/// Bytes of noise between two answers, unless configured otherwise: 1 MiB.
pub const NOISE_BYTES: u64 = 1 << 20;

/// Counts what came since the last answer and was none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoiseBudget {
    limit: (u32, u64),
    used: (u32, u64),
}

impl NoiseBudget {
    /// A fresh count that allows so many lines and bytes.
    #[must_use]
    pub const fn new(lines: u32, bytes: u64) -> Self {
        Self { limit: (lines, bytes), used: (0, 0) }
    }

    /// Counts a line of `bytes` bytes: [`crate::Line::Noise`], or an answer to a request that is not pending.
    ///
    /// # Errors
    /// [`DialectError::NoiseLines`] and [`DialectError::NoiseBytes`] beyond the bounds.
    pub fn note(&mut self, bytes: usize) -> Result<(), DialectError> {
        self.used.0 = self.used.0.saturating_add(1);
        self.used.1 = self.used.1.saturating_add(bytes as u64);
        if self.used.0 > self.limit.0 {
            return Err(DialectError::NoiseLines { limit: self.limit.0 });
        }
        if self.used.1 > self.limit.1 {
            return Err(DialectError::NoiseBytes { limit: self.limit.1 });
        }
        Ok(())
    }

    /// An answer to a pending request came.
    pub fn reset(&mut self) {
        self.used = (0, 0);
    }
}
