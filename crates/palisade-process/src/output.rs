//! Reading a plugin's standard output and error: lines for the log, bounded in length and rate.

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_sandbox::{HostCalls, OutputStream, SandboxError};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{io::AsyncReadExt, net::unix::pipe};

/// Longest line that is handed on whole; longer ones are cut into pieces of this length.
const LINE: usize = 8 * 1024;

/// How long a count of dropped bytes is kept back while the flood goes on.
const TELL: Duration = Duration::from_millis(250);

/// A flood is read at this many times the rate of what is handed on, and no faster: reading costs the host
/// and its other plugins processor time. Beyond it the pipe is full, and the plugin waits.
const READ: u64 = 16;
const READ_PAUSE: Duration = Duration::from_millis(5);

/// A pipe: the end that we read, and the end for the plugin.
pub(crate) fn pipe() -> Result<(pipe::Receiver, OwnedFd), SandboxError> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(|e| SandboxError::step("making an output pipe", e))?;
    rustix::io::ioctl_fionbio(&read, true)
        .map_err(|e| SandboxError::step("preparing an output pipe", e))?;
    let read = pipe::Receiver::from_owned_fd_unchecked(read)
        .map_err(|e| SandboxError::step("watching an output pipe", e))?;
    Ok((read, write))
}

/// Bytes that may still be handed on: fills at the rate, holds one second's worth.
struct Budget {
    rate: f64,
    tokens: f64,
    last: Instant,
}

impl Budget {
    fn new(bytes_per_second: u64) -> Self {
        let rate = bytes_per_second as f64;
        Self { rate, tokens: rate, last: Instant::now() }
    }

    fn take(&mut self, bytes: usize) -> bool {
        let now = Instant::now();
        self.tokens =
            (self.tokens + self.rate * now.duration_since(self.last).as_secs_f64()).min(self.rate);
        self.last = now;
        let fits = self.tokens >= bytes as f64;
        if fits {
            self.tokens -= bytes as f64;
        }
        fits
    }
}

/// Hands the lines of one stream on until it ends. What exceeds the rate is read and dropped, up to a rate
/// of its own, so that a plugin that floods its log slows nobody down but itself; the count is reported.
pub(crate) async fn forward(
    mut stream: pipe::Receiver,
    kind: OutputStream,
    bytes_per_second: u64,
    host: Arc<dyn HostCalls>,
) {
    let mut budget = Budget::new(bytes_per_second);
    let reading = bytes_per_second.saturating_mul(READ).max(READ << 20);
    let mut reading = Budget::new(reading);
    let mut line: Vec<u8> = Vec::new();
    let mut chunk = vec![0u8; 4096];
    let mut dropped = 0u64;
    let mut told = Instant::now();
    loop {
        let n = match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        // A flood is read in larger pieces.
        if n == chunk.len() && chunk.len() < 64 * 1024 {
            chunk.resize(64 * 1024, 0);
        }
        for piece in chunk.get(..n).unwrap_or_default().split_inclusive(|b| *b == b'\n') {
            let ends = piece.ends_with(b"\n");
            let mut rest = piece.strip_suffix(b"\n").unwrap_or(piece);
            loop {
                let (fits, more) = rest.split_at(rest.len().min(LINE - line.len().min(LINE)));
                line.extend_from_slice(fits);
                rest = more;
                if (ends && rest.is_empty()) || line.len() >= LINE {
                    emit(&line, kind, &mut budget, &mut dropped, &*host);
                    line.clear();
                }
                if rest.is_empty() {
                    break;
                }
            }
        }
        if dropped > 0 && told.elapsed() >= TELL {
            host.output_dropped(std::mem::take(&mut dropped));
            told = Instant::now();
        }
        while !reading.take(n) {
            tokio::time::sleep(READ_PAUSE).await;
        }
        // One busy plugin must not keep the task's thread to itself.
        tokio::task::yield_now().await;
    }
    if !line.is_empty() {
        emit(&line, kind, &mut budget, &mut dropped, &*host);
    }
    if dropped > 0 {
        host.output_dropped(dropped);
    }
}

fn emit(
    line: &[u8],
    kind: OutputStream,
    budget: &mut Budget,
    dropped: &mut u64,
    host: &dyn HostCalls,
) {
    if !budget.take(line.len() + 1) {
        *dropped += line.len() as u64 + 1;
        return;
    }
    if *dropped > 0 {
        host.output_dropped(std::mem::take(dropped));
    }
    let text = String::from_utf8_lossy(line);
    host.output(kind, text.trim_end_matches('\r'));
}
