//! What a guest writes to its standard streams: cut into lines, held to the log rate, handed to the host.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use palisade_sandbox::{HostCalls, OutputStream};

/// Longest line; longer ones are cut into several.
const MAX_LINE: usize = 8 << 10;

/// See the module.
pub(crate) struct Output {
    host: Arc<dyn HostCalls>,
    rate: AtomicU64,
    /// Whether anything was written since the last [`Output::flush`].
    touched: AtomicBool,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Begun lines of stdout and stderr.
    begun: [Vec<u8>; 2],
    /// Bytes that may still be written.
    credit: f64,
    at: Instant,
    dropped: u64,
}

impl Output {
    pub(crate) fn new(host: Arc<dyn HostCalls>, rate: u64) -> Self {
        let inner = Inner {
            begun: Default::default(),
            credit: rate as f64,
            at: Instant::now(),
            dropped: 0,
        };
        Self {
            host,
            rate: AtomicU64::new(rate),
            touched: AtomicBool::new(false),
            inner: Mutex::new(inner),
        }
    }

    pub(crate) fn set_rate(&self, bytes_per_second: u64) {
        self.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Takes what was written. Never waits; what is over the rate is dropped and counted.
    pub(crate) fn write(&self, stream: OutputStream, bytes: &[u8]) {
        let mut lines = Vec::new();
        self.touched.store(true, Ordering::Relaxed);
        let dropped = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = inner.admit(bytes.len(), self.rate.load(Ordering::Relaxed), Instant::now());
            let (kept, over) = bytes.split_at(kept);
            inner.dropped += over.len() as u64;
            let begun = match stream {
                OutputStream::Stdout => &mut inner.begun[0],
                OutputStream::Stderr => &mut inner.begun[1],
            };
            cut(begun, kept, &mut lines);
            if over.is_empty() { std::mem::take(&mut inner.dropped) } else { 0 }
        };
        for line in lines {
            self.host.output(stream, &line);
        }
        if dropped > 0 {
            self.host.output_dropped(dropped);
        }
    }

    /// Hands over what has no end of line yet, and says what was dropped: the call is over.
    pub(crate) fn flush(&self) {
        if !self.touched.load(Ordering::Relaxed) {
            return;
        }
        self.touched.store(false, Ordering::Relaxed);
        let (rest, dropped) = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            (std::mem::take(&mut inner.begun), std::mem::take(&mut inner.dropped))
        };
        for (stream, line) in [OutputStream::Stdout, OutputStream::Stderr].into_iter().zip(rest) {
            if !line.is_empty() {
                self.host.output(stream, &String::from_utf8_lossy(&line));
            }
        }
        if dropped > 0 {
            self.host.output_dropped(dropped);
        }
    }
}

impl Inner {
    /// How many of `bytes` may be written now.
    fn admit(&mut self, bytes: usize, rate: u64, now: Instant) -> usize {
        let rate = rate as f64;
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * rate;
        self.at = self.at.max(now);
        self.credit = (self.credit + earned).min(rate);
        let kept = bytes.min(self.credit as usize);
        self.credit -= kept as f64;
        kept
    }
}

/// Moves whole lines of `begun` and `bytes` to `lines`.
fn cut(begun: &mut Vec<u8>, bytes: &[u8], lines: &mut Vec<String>) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let room = MAX_LINE - begun.len();
        let end = rest.iter().take(room).position(|b| *b == b'\n');
        let (part, after) = match end {
            Some(end) => rest.split_at(end),
            None => rest.split_at(rest.len().min(room)),
        };
        begun.extend_from_slice(part);
        rest = if end.is_some() {
            after.split_first().map_or(after, |(_, after)| after)
        } else {
            after
        };
        if end.is_some() || begun.len() >= MAX_LINE {
            lines.push(String::from_utf8_lossy(begun).trim_end_matches('\r').to_owned());
            begun.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_lines_of_bounded_length() {
        let (mut begun, mut lines) = (Vec::new(), Vec::new());
        cut(&mut begun, b"one\r\ntw", &mut lines);
        cut(&mut begun, b"o\n\nthree", &mut lines);
        assert_eq!(lines, ["one", "two", ""]);
        assert_eq!(begun, b"three");
        lines.clear();
        cut(&mut begun, &vec![b'x'; 3 * MAX_LINE], &mut lines);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE; 3]);
        assert_eq!(begun.len(), 5);
    }

    #[test]
    fn what_is_over_the_rate_is_not_admitted() {
        let at = Instant::now();
        let mut inner = Inner { begun: Default::default(), credit: 1000.0, at, dropped: 0 };
        assert_eq!(inner.admit(700, 1000, at), 700);
        assert_eq!(inner.admit(700, 1000, at), 300);
        assert_eq!(inner.admit(700, 1000, at + std::time::Duration::from_millis(500)), 500);
    }
}
