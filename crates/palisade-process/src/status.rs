//! The socket between the host and one pid 1: its reports, and our commands.

use std::{io, os::fd::OwnedFd};

use palisade_sandbox::SandboxError;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags,
    SocketType, recvmsg, send, socketpair,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    plan::format::{Body, report},
    watched::watched,
};

/// What pid 1 reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// The walls stand.
    WallsUp,
    /// The program runs.
    Running,
    /// A step failed, with errno and place.
    Failed { errno: i32, place: u64 },
    /// The program ended, with its wait status and CPU microseconds.
    Ended { wait_status: i32, cpu_micros: u64 },
    /// Memory is over its policed limit; bytes seen.
    MemoryExceeded { bytes: u64 },
    /// What is used now.
    Usage { pids: u32, memory: u64 },
    /// Microseconds that processes have run in all, where they are sampled.
    Ran { micros: u64 },
    /// A socket of the way out, and what it is for.
    Egress { socket: OwnedFd, purpose: u32 },
    /// The listener of an observed launch's filter.
    Listener(OwnedFd),
    /// A process made a call that is answered with death, and is being killed.
    Violation {
        nr: u32,
        /// `AUDIT_ARCH` value of the interface that it came through.
        interface: u32,
        /// It is the program itself.
        program: bool,
    },
    /// The kernel itself kills for such calls, and does not tell.
    Unwatched,
    /// How long a step took; see [`crate::steps::Steps::reported`].
    Lap { kind: i32, nanos: u64 },
    /// The socket is closed: pid 1 has ended.
    Gone,
}

/// Our end.
pub(crate) struct Status {
    socket: AsyncFd<OwnedFd>,
}

impl Status {
    /// A pair: our end, and the end for pid 1.
    pub(crate) fn pair() -> Result<(Self, OwnedFd), SandboxError> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(|e| SandboxError::step("making a status socket", e))?;
        rustix::io::ioctl_fionbio(&theirs, false)
            .map_err(|e| SandboxError::step("preparing a status socket", e))?;
        let socket =
            watched(ours).map_err(|e| SandboxError::step("watching a status socket", e))?;
        Ok((Self { socket }, theirs))
    }

    /// The next report. Cancel-safe.
    pub(crate) async fn next(&self) -> io::Result<Report> {
        let mut bytes = [0u8; 16];
        let (n, given) = self
            .socket
            .async_io(Interest::READABLE, |socket| {
                let mut space =
                    [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let mut slices = [io::IoSliceMut::new(&mut bytes)];
                match recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
                    Ok(message) => {
                        let given = control.drain().find_map(|part| match part {
                            RecvAncillaryMessage::ScmRights(mut handles) => handles.next(),
                            _ => None,
                        });
                        Ok((message.bytes, given))
                    }
                    Err(rustix::io::Errno::CONNRESET) => Ok((0, None)),
                    Err(e) => Err(e.into()),
                }
            })
            .await?;
        if n == 0 {
            return Ok(Report::Gone);
        }
        let mut body = Body(bytes.get(..n).unwrap_or_default());
        let (Some(kind), Some(a), Some(b)) = (body.u32(), body.u32(), body.u64()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        };
        Ok(match kind {
            report::WALLS_UP => Report::WallsUp,
            report::RUNNING => Report::Running,
            report::FAILED => Report::Failed { errno: a.cast_signed(), place: b },
            report::ENDED => Report::Ended { wait_status: a.cast_signed(), cpu_micros: b },
            report::EXCEEDED => Report::MemoryExceeded { bytes: b },
            report::USAGE => Report::Usage { pids: a, memory: b },
            report::RAN => Report::Ran { micros: b },
            report::EGRESS => {
                Report::Egress { socket: given.ok_or(io::ErrorKind::InvalidData)?, purpose: a }
            }
            report::VIOLATION => Report::Violation {
                nr: a,
                interface: (b & 0xffff_ffff) as u32,
                program: b & report::PROGRAM != 0,
            },
            report::UNWATCHED => Report::Unwatched,
            report::LAP => Report::Lap { kind: a.cast_signed(), nanos: b },
            report::LISTENER => Report::Listener(given.ok_or(io::ErrorKind::InvalidData)?),
            _ => return Err(io::Error::from(io::ErrorKind::InvalidData)),
        })
    }

    /// Sends a command. A pid 1 that has ended is no error: its end is reported elsewhere.
    pub(crate) fn send(&self, command: u32, argument: u32) -> io::Result<()> {
        let mut bytes = [0u8; 8];
        for (slot, byte) in
            bytes.iter_mut().zip(command.to_le_bytes().into_iter().chain(argument.to_le_bytes()))
        {
            *slot = byte;
        }
        // Commands are rare and tiny; a full buffer means that pid 1 is stopped or dead.
        match send(self.socket.get_ref(), &bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}
