//! The handles of a plugin: one end of each for us, one for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use palisade_sandbox::{SandboxError, Wire};
use rustix::{
    fs::{Mode, OFlags, open},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    pipe::{PipeFlags, pipe_with},
};

use crate::{output, status::Status};

/// A handle for what there is nothing to read from.
pub(crate) fn dev_null() -> Result<OwnedFd, SandboxError> {
    open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| SandboxError::step("opening /dev/null", e))
}

/// The plugin's side of the handles, and ours.
pub(crate) struct Ends {
    pub(crate) status: Status,
    pub(crate) stdout: Option<tokio::net::unix::pipe::Receiver>,
    pub(crate) stderr: tokio::net::unix::pipe::Receiver,
    /// The conversation's handles: a socket, or stdin and stdout.
    pub(crate) ours: (OwnedFd, Option<OwnedFd>),
    pub(crate) theirs: Vec<OwnedFd>,
}

impl Ends {
    pub(crate) fn open(wire: &Wire) -> Result<Self, SandboxError> {
        let (status, their_status) = Status::pair()?;
        let (stderr, their_stderr) = output::pipe()?;
        let step = |e| SandboxError::step("making the plugin's handles", e);
        match wire {
            Wire::Native => {
                let (stdout, their_stdout) = output::pipe()?;
                let (ours, lane) =
                    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                        .map_err(step)?;
                let theirs = vec![their_status, dev_null()?, their_stdout, their_stderr, lane];
                Ok(Self { status, stdout: Some(stdout), stderr, ours: (ours, None), theirs })
            }
            Wire::Jsonl(_) | Wire::Mcp(_) | Wire::Bytes(_) => {
                let (stdin, to_plugin) = pipe_with(PipeFlags::CLOEXEC).map_err(step)?;
                let (from_plugin, their_stdout) = pipe_with(PipeFlags::CLOEXEC).map_err(step)?;
                let theirs = vec![their_status, stdin, their_stdout, their_stderr];
                Ok(Self {
                    status,
                    stdout: None,
                    stderr,
                    ours: (to_plugin, Some(from_plugin)),
                    theirs,
                })
            }
            _ => Err(SandboxError::Artifact {
                what: "this backend does not speak the plugin's wire".into(),
                hint: "use another backend".into(),
            }),
        }
    }

    /// In the order that the helper expects. Without a lane of its own, stdin's number stands in for it.
    pub(crate) fn borrowed(&self) -> Vec<BorrowedFd<'_>> {
        let mut all: Vec<BorrowedFd<'_>> = self.theirs.iter().map(AsFd::as_fd).collect();
        if all.len() == 4
            && let Some(stdin) = self.theirs.get(1)
        {
            all.push(stdin.as_fd());
        }
        all
    }
}
