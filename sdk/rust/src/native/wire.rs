//! The socket: lines in, lines out. This module knows frames, not what they mean.
//!
//! One thread reads, any thread sends. Reading never waits for writing for longer than [`SEND_TRY`], so
//! the plugin hears the host also while the host does not read: what the socket does not take then is
//! written by a thread of its own, which is started when that happens for the first time.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    mem,
    net::Shutdown,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::PalisadeError,
    json::{FRAME_BYTES, lock},
    native::{descriptor::Socket, errors::closed},
};

/// Bytes that may wait for the host to read.
const QUEUE_BYTES: usize = 8 << 20;
/// How long a thread waits for room there.
const SEND_WAIT: Duration = Duration::from_secs(30);
/// How long one write to the socket waits for room in it.
const SEND_TRY: Duration = Duration::from_millis(1);
const READ_BYTES: usize = 1 << 16;

/// Waits until `is_done`, at most so long; gives the lock back and whether it is.
pub(crate) fn wait_until<'a, T>(
    condition: &Condvar,
    mut guard: MutexGuard<'a, T>,
    at_most: Duration,
    mut is_done: impl FnMut(&mut T) -> bool,
) -> (MutexGuard<'a, T>, bool) {
    let deadline = Instant::now().checked_add(at_most);
    loop {
        if is_done(&mut guard) {
            return (guard, true);
        }
        guard = match deadline {
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return (guard, false);
                }
                condition.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
            }
            None => condition.wait(guard).unwrap_or_else(PoisonError::into_inner),
        };
    }
}

/// A message as it is sent, or `PAL-LIMIT`.
pub(crate) fn frame(mut text: String) -> Result<Vec<u8>, PalisadeError> {
    if text.len() > FRAME_BYTES {
        let message = format!("the message is longer than {FRAME_BYTES} bytes");
        return Err(PalisadeError::new("PAL-LIMIT", message));
    }
    text.push('\n');
    Ok(text.into_bytes())
}

/// What is to be done where the host does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Queue it all the same: an answer, whose number the host bounds.
    Queue,
    /// Fail with `PAL-LIMIT`.
    Fail,
    /// Wait for room, at most [`SEND_WAIT`].
    Wait,
}

#[derive(Debug, Default)]
struct Out {
    queue: VecDeque<Vec<u8>>,
    /// Bytes in the queue and in the writer's hand.
    queued: usize,
    /// Whether something is left to the writing thread; then nobody else writes.
    is_writing: bool,
    has_writer: bool,
    is_closed: bool,
}

impl Out {
    fn fits(&self, data: &[u8]) -> bool {
        // One frame of any length fits an empty queue.
        self.is_closed || self.queued == 0 || self.queued + data.len() <= QUEUE_BYTES
    }
}

/// Frames over a Unix stream socket.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: Socket,
    out: Mutex<Out>,
    /// The queue or `is_closed` changed.
    changed: Condvar,
}

impl Wire {
    pub(crate) fn new(socket: Socket) -> io::Result<Arc<Self>> {
        // The descriptor that Palisade opened may have been left non-blocking by whoever opened it.
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(SEND_TRY))?;
        Ok(Arc::new(Self { socket, out: Mutex::default(), changed: Condvar::new() }))
    }

    /// Sends a frame, or queues what the socket does not take. Fails with `PAL-UNAVAILABLE` once the
    /// connection is closed.
    pub(crate) fn send(self: &Arc<Self>, data: Vec<u8>, full: Full) -> Result<(), PalisadeError> {
        let mut out = lock(&self.out);
        if full != Full::Queue && !out.fits(&data) {
            let wait = if full == Full::Wait { SEND_WAIT } else { Duration::ZERO };
            let (guard, has_room) = wait_until(&self.changed, out, wait, |out| out.fits(&data));
            if !has_room {
                return Err(PalisadeError::new("PAL-LIMIT", "the host does not read"));
            }
            out = guard;
        }
        if out.is_closed {
            return Err(closed());
        }
        let mut rest = data;
        if !out.is_writing {
            match (&self.socket).write(&rest) {
                Ok(sent) if sent == rest.len() => return Ok(()),
                Ok(sent) => drop(rest.drain(..sent)),
                Err(e) if would_wait(&e) => {}
                // The thread that reads sees it too, and ends.
                Err(_) => return Err(closed()),
            }
        }
        out.queued += rest.len();
        out.queue.push_back(rest);
        out.is_writing = true;
        if out.has_writer {
            self.changed.notify_all();
            return Ok(());
        }
        let wire = Arc::clone(self);
        let writer = thread::Builder::new().name("palisade-writer".to_owned());
        if writer.spawn(move || wire.write_queued(true)).is_ok() {
            out.has_writer = true;
        } else {
            // No thread may be made: this one writes, though it takes its time.
            drop(out);
            self.write_queued(false);
        }
        Ok(())
    }

    /// Writes what is queued: until the connection closes, or until nothing is left.
    fn write_queued(&self, forever: bool) {
        let mut out = lock(&self.out);
        loop {
            if out.is_closed {
                return;
            }
            let Some(data) = out.queue.pop_front() else {
                out.is_writing = false;
                self.changed.notify_all();
                if !forever {
                    return;
                }
                out = self.changed.wait(out).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(out);
            let result = self.write_all(&data);
            out = lock(&self.out);
            out.queued -= data.len();
            self.changed.notify_all();
            if result.is_err() {
                out.is_closed = true;
            }
        }
    }

    fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            match (&self.socket).write(data) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => data = data.get(sent..).unwrap_or_default(),
                Err(e) if would_wait(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads until the end of the stream or `close`; fails with what breaks the protocol.
    pub(crate) fn read(
        &self,
        mut on_line: impl FnMut(&str) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut lines = Lines::default();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let length = match (&self.socket).read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(e) if would_wait(&e) => continue,
                Err(_) => return Ok(()),
            };
            lines.feed(buffer.get(..length).unwrap_or_default(), &mut on_line)?;
        }
    }

    /// Waits until all is sent, at most so long. Not for the thread that reads.
    pub(crate) fn drained(&self, at_most: Duration) {
        let out = lock(&self.out);
        drop(wait_until(&self.changed, out, at_most, |out| out.is_closed || out.queued == 0));
    }

    /// Ends the connection: senders fail, `read` returns. Any thread, any number of times.
    pub(crate) fn close(&self) {
        let mut out = lock(&self.out);
        out.is_closed = true;
        out.queue = VecDeque::new();
        self.changed.notify_all();
        // Already closed by the other side: nothing to do.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

fn would_wait(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// Cuts a stream into lines of at most [`FRAME_BYTES`].
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
}

impl Lines {
    /// Hands on the lines that end in `data`. Fails where one is too long or not UTF-8, and where
    /// `on_line` does.
    pub(crate) fn feed(
        &mut self,
        data: &[u8],
        on_line: &mut impl FnMut(&str) -> Result<(), String>,
    ) -> Result<(), String> {
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            let room = FRAME_BYTES + 2; // a `\r` and the line break
            if self.begun.len() + part.len() > room {
                return Err(format!("a message is longer than {FRAME_BYTES} bytes"));
            }
            if part.last() != Some(&b'\n') {
                self.begun.extend_from_slice(part);
            } else if self.begun.is_empty() {
                line(part, on_line)?;
            } else {
                self.begun.extend_from_slice(part);
                line(&mem::take(&mut self.begun), on_line)?;
            }
        }
        Ok(())
    }
}

fn line(bytes: &[u8], on_line: &mut impl FnMut(&str) -> Result<(), String>) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "a message is not UTF-8".to_owned())?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.len() > FRAME_BYTES {
        return Err(format!("a message is longer than {FRAME_BYTES} bytes"));
    }
    if text.is_empty() { Ok(()) } else { on_line(text) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn lines(parts: &[&[u8]]) -> Result<Vec<String>, String> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for part in parts {
            lines.feed(part, &mut |line| {
                found.push(line.to_owned());
                Ok(())
            })?;
        }
        Ok(found)
    }

    #[test]
    fn lines_are_cut_wherever_the_stream_is() {
        assert_eq!(lines(&[b"a\nb", b"", b"c\r\n\n\r\n", b"d\n", b"e"]).unwrap(), ["a", "bc", "d"]);
    }

    #[test]
    fn a_line_has_at_most_4_mib() {
        let longest = vec![b'x'; FRAME_BYTES];
        assert_eq!(lines(&[&longest, b"\r\n"]).unwrap().len(), 1);
        assert!(lines(&[&longest, b"x\n"]).unwrap_err().contains("longer"));
        assert!(lines(&[&longest, b"\r", b"xx"]).unwrap_err().contains("longer"));
        assert!(lines(&[b"\xff\n"]).unwrap_err().contains("UTF-8"));
    }

    #[cfg(unix)]
    #[test]
    fn a_host_that_does_not_read_stops_requests_but_not_answers() {
        let (ours, mut theirs) = Socket::pair().unwrap();
        let wire = Wire::new(ours).unwrap();
        let block = || vec![b'x'; 4 << 20];
        for _ in 0..4 {
            wire.send(block(), Full::Queue).unwrap();
        }
        let limit = wire.send(block(), Full::Fail).unwrap_err();
        assert_eq!(limit.code, "PAL-LIMIT");
        let reader = thread::spawn(move || {
            let mut all = vec![0; 5 * (4 << 20)];
            theirs.read_exact(&mut all).unwrap();
        });
        wire.send(block(), Full::Wait).unwrap();
        reader.join().unwrap();
        wire.drained(Duration::from_secs(10));
        wire.close();
        assert_eq!(wire.send(vec![b'\n'], Full::Queue).unwrap_err().code, "PAL-UNAVAILABLE");
    }
}
