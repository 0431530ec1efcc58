//! Bytes from one end to the other, with a bound, and an eye on both directions.
//!
//! Between two TCP sockets on Linux the bytes stay in the kernel (`splice(2)` through a pipe), once
//! enough of them have passed for the pipe to pay; elsewhere they are copied.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use palisade_model::{Access, Kind};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    Limits,
    stream::{Client, ReadSide, WriteSide},
};
use crate::{Authority, Decide, EgressError};

/// Bytes of the buffer that heads and small bodies go through.
const SMALL: usize = 16 * 1024;
/// Bytes after which a large buffer or a pipe is worth its price.
const MANY: u64 = 64 * 1024;
/// Bytes of the large buffer.
const LARGE: usize = 64 * 1024;
/// How often an open connection is looked at.
const TICK: Duration = Duration::from_secs(1);

/// One end of a connection.
pub(super) struct Side {
    pub(super) read: BufReader<ReadSide>,
    pub(super) write: WriteSide,
}

impl From<Client> for Side {
    fn from(client: Client) -> Self {
        let (read, write) = client.split();
        Self { read: BufReader::with_capacity(SMALL, read), write }
    }
}

/// How many bytes went which way.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// From the plugin to the server.
    pub(super) sent: AtomicU64,
    /// From the server to the plugin.
    pub(super) received: AtomicU64,
}

impl Traffic {
    fn sum(&self) -> u64 {
        self.sent.load(Relaxed).wrapping_add(self.received.load(Relaxed))
    }
}

/// Moves bytes until `from` ends or `most` have passed; gives how many.
pub(super) async fn pump(
    from: &mut BufReader<ReadSide>,
    to: &mut WriteSide,
    most: u64,
    passed: &AtomicU64,
) -> io::Result<u64> {
    let mut total = 0;
    while total < most.min(MANY) {
        let bytes = from.fill_buf().await?;
        let n = usize::try_from(most - total).unwrap_or(usize::MAX).min(bytes.len());
        let Some(bytes) = bytes.get(..n).filter(|b| !b.is_empty()) else { return Ok(total) };
        to.write_all(bytes).await?;
        from.consume(n);
        total += n as u64;
        passed.fetch_add(n as u64, Relaxed);
    }
    // What is left in the buffer is less than the buffer.
    while total < most && !from.buffer().is_empty() {
        let n = usize::try_from(most - total).unwrap_or(usize::MAX).min(from.buffer().len());
        to.write_all(from.buffer().get(..n).unwrap_or_default()).await?;
        from.consume(n);
        total += n as u64;
        passed.fetch_add(n as u64, Relaxed);
    }
    if total == most {
        return Ok(total);
    }
    #[cfg(target_os = "linux")]
    if let (Some(from), Some(to)) = (from.get_ref().tcp(), to.tcp())
        // Where there are no handles left for a pipe, bytes are copied.
        && let Ok(pipe) = splice::pipe()
    {
        return Ok(total + splice::all(from, to, &pipe, most - total, passed).await?);
    }
    let mut buffer = vec![0; LARGE];
    while total < most {
        let n = usize::try_from(most - total).unwrap_or(usize::MAX).min(LARGE);
        let n = from.get_mut().read(buffer.get_mut(..n).unwrap_or_default()).await?;
        if n == 0 {
            break;
        }
        to.write_all(buffer.get(..n).unwrap_or_default()).await?;
        total += n as u64;
        passed.fetch_add(n as u64, Relaxed);
    }
    Ok(total)
}

#[cfg(target_os = "linux")]
mod splice {
    use std::{
        io,
        os::fd::OwnedFd,
        sync::atomic::{AtomicU64, Ordering::Relaxed},
    };

    use rustix::{
        net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size},
        pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
    };
    use tokio::{io::Interest, net::TcpStream};

    /// Bytes that the pipe should hold. A user may have 64 MiB in pipes before the kernel makes them
    /// small (`pipe(7)`, pipe-user-pages-soft).
    const PIPE: usize = 256 * 1024;
    /// Buffer of a socket whose other end is on this machine, in bytes (the kernel doubles it). What is
    /// on the way then stays in the processor's cache; with the megabytes that the kernel would give,
    /// the same transfer takes up to twice as long. To other machines the kernel's choice stands, since
    /// there it decides how much can be on the way.
    const LOCAL_BUFFER: usize = 256 * 1024;

    fn is_local(socket: &TcpStream) -> bool {
        socket.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
    }

    /// A pipe's end to read from and its end to write to.
    pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Only slower where the kernel refuses it.
        let _ = fcntl_setpipe_size(&into, PIPE);
        Ok((out, into))
    }

    pub(super) async fn all(
        from: &TcpStream,
        to: &TcpStream,
        (out, into): &(OwnedFd, OwnedFd),
        most: u64,
        passed: &AtomicU64,
    ) -> io::Result<u64> {
        // Each of these is only slower where the kernel refuses it.
        if is_local(from) {
            let _ = set_socket_recv_buffer_size(from, LOCAL_BUFFER);
        }
        if is_local(to) {
            let _ = set_socket_send_buffer_size(to, LOCAL_BUFFER);
        }
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let mut total = 0;
        while total < most {
            let n = usize::try_from(most - total).unwrap_or(usize::MAX).min(PIPE);
            // The pipe is empty here, so "would block" can only mean the socket.
            let n = from
                .async_io(Interest::READABLE, || Ok(splice(from, None, into, None, n, flags)?))
                .await?;
            if n == 0 {
                break;
            }
            let mut inside = n;
            while inside > 0 {
                let n = to
                    .async_io(Interest::WRITABLE, || {
                        Ok(splice(out, None, to, None, inside, flags)?)
                    })
                    .await?;
                if n == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                inside = inside.saturating_sub(n);
                passed.fetch_add(n as u64, Relaxed);
            }
            total += n as u64;
        }
        Ok(total)
    }
}

/// One direction of a tunnel, to its end, which is passed on.
async fn direction(
    from: &mut BufReader<ReadSide>,
    to: &mut WriteSide,
    most: u64,
    passed: &AtomicU64,
    what: &'static str,
) -> Result<(), EgressError> {
    // What passed before the tunnel began, a hello, counts.
    let left = most.saturating_sub(passed.load(Relaxed));
    let moved = pump(from, to, left, passed).await?;
    if moved == left && !from.fill_buf().await?.is_empty() {
        return Err(EgressError::TooLarge { what, limit: most, unit: "bytes" });
    }
    // The other end may be gone already.
    let _ = to.shutdown().await;
    Ok(())
}

/// Both directions until both have ended. Each may end before the other.
pub(super) async fn tunnel(
    client: &mut Side,
    server: &mut Side,
    limits: &Limits,
    traffic: &Traffic,
) -> Result<(), EgressError> {
    let up = direction(
        &mut client.read,
        &mut server.write,
        limits.sent_bytes,
        &traffic.sent,
        "what is sent over the connection",
    );
    let down = direction(
        &mut server.read,
        &mut client.write,
        limits.received_bytes,
        &traffic.received,
        "what is received over the connection",
    );
    tokio::try_join!(up, down).map(|_| ())
}

/// What holds while bytes pass: how long it may take, how long nothing may happen, and that the right is
/// still there. Looked at every second.
pub(super) async fn watched(
    work: impl Future<Output = Result<(), EgressError>>,
    limits: &Limits,
    traffic: &Traffic,
    decide: &dyn Decide,
    kind: Kind,
    authority: &Authority,
) -> Result<(), EgressError> {
    let guard = async {
        let target = authority.to_string();
        let begin = Instant::now();
        let (mut seen, mut last) = (traffic.sum(), begin);
        let mut ticks = interval(TICK.min(limits.idle));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            let sum = traffic.sum();
            if sum != seen {
                (seen, last) = (sum, now);
            }
            if now.duration_since(begin) >= limits.total {
                return EgressError::Deadline { what: "the connection", limit: limits.total };
            }
            if now.duration_since(last) >= limits.idle {
                return EgressError::Deadline { what: "a pause", limit: limits.idle };
            }
            if decide.decide(&Access::new(kind, &target)).is_err() {
                return EgressError::Withdrawn(format!("{kind}:{target}"));
            }
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        error = guard => Err(error),
    }
}
