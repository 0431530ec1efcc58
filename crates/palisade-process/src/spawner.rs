//! The host's end of the spawner: starting it, and asking it for launches.
//!
//! The helper is run from a sealed memfd, so that nobody can change it between the seal and the exec; or,
//! where an AppArmor profile or `vm.memfd_noexec` wants a file, from a path that only root can write. Its
//! only handle of ours is one end of a socket pair; the other end never leaves this process.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use palisade_sandbox::SandboxError;
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};
use tokio::{io::unix::AsyncFd, sync::Mutex};

use crate::{
    plan::{Plan, format},
    watched::watched,
};

pub(crate) static HELPER: &[u8] = include_bytes!(env!("PALISADE_HELPER_PATH"));
/// The one that can leave out layers, which nobody releases.
#[cfg(feature = "ablation")]
pub(crate) static ABLATION_HELPER: &[u8] = include_bytes!(env!("PALISADE_ABLATION_HELPER_PATH"));
const ABI: &str = env!("PALISADE_HELPER_ABI");

/// Where a packaged helper lives, for systems that confine programs by path (AppArmor).
pub(crate) const INSTALLED: &str = "/usr/libexec/palisade/palisade-helper";

/// How long the helper may take for its hello and for each answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// The spawner process. Dropping it ends the process and every plugin that it started.
pub(crate) struct Spawner {
    socket: AsyncFd<OwnedFd>,
    /// One exchange at a time, and the id of the last.
    turn: Mutex<u64>,
    child: Child,
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // It also ends by itself when the socket closes; this makes it prompt and leaves no zombie.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn helper_error(what: impl Into<String>) -> SandboxError {
    SandboxError::Helper(what.into())
}

/// The helper as something that can be executed: a path, and the handle that must stay open for it.
fn executable(helper: &[u8]) -> Result<(PathBuf, Option<OwnedFd>), SandboxError> {
    if helper == HELPER && is_root_owned(Path::new(INSTALLED)) {
        return Ok((PathBuf::from(INSTALLED), None));
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC is unknown before Linux 6.3, where every memfd is executable.
    let fd = match memfd_create("palisade-helper", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create("palisade-helper", flags),
        other => other,
    }
    .map_err(|e| SandboxError::step("creating the helper's memfd", e))?;
    let mut rest = helper;
    while !rest.is_empty() {
        let n = rustix::io::write(&fd, rest)
            .map_err(|e| SandboxError::step("writing the helper", e))?;
        rest = rest.get(n..).unwrap_or_default();
    }
    fcntl_add_seals(&fd, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)
        .map_err(|e| SandboxError::step("sealing the helper", e))?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())), Some(fd)))
}

/// Whether `path` and every folder above it belong to root and can be written by nobody else.
fn is_root_owned(path: &Path) -> bool {
    path.ancestors().all(|p| {
        std::fs::symlink_metadata(p)
            .is_ok_and(|m| m.uid() == 0 && m.mode() & 0o022 == 0 && !m.file_type().is_symlink())
    })
}

impl Spawner {
    /// Starts the helper and checks that it is of this very build.
    pub(crate) async fn start(helper: &[u8]) -> Result<Self, SandboxError> {
        let (path, keep) = executable(helper)?;
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(|e| SandboxError::step("making the helper's socket", e))?;
        // The helper reads blocking. The flag belongs to the open file, and each end is its own.
        rustix::io::ioctl_fionbio(&theirs, false)
            .map_err(|e| SandboxError::step("preparing the helper's socket", e))?;
        // No pre_exec and nothing that needs one: the standard library then uses posix_spawn (vfork),
        // which does not copy the host's memory map. Standard input is the one handle that is given.
        let child = Command::new(&path)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| SandboxError::step("starting the helper", e))?;
        drop(keep);
        let socket =
            watched(ours).map_err(|e| SandboxError::step("watching the helper's socket", e))?;
        let spawner = Self { socket, turn: Mutex::new(0), child };
        let mut hello = [0u8; 96];
        let (n, _) = spawner.receive(&mut hello).await?;
        let expected = [&format::MAGIC.to_le_bytes()[..], ABI.as_bytes()].concat();
        if hello.get(..n) != Some(&expected[..]) {
            return Err(helper_error(format!(
                "is of another build; reinstall {INSTALLED}, or remove it to use the embedded one"
            )));
        }
        Ok(spawner)
    }

    async fn receive(&self, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>), SandboxError> {
        let read = async {
            self.socket
                .async_io(tokio::io::Interest::READABLE, |socket| {
                    let mut space =
                        [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
                    let mut control = RecvAncillaryBuffer::new(&mut space);
                    let mut slices = [io::IoSliceMut::new(&mut *buffer)];
                    let message =
                        recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
                    let mut handle = None;
                    for part in control.drain() {
                        if let RecvAncillaryMessage::ScmRights(fds) = part {
                            handle = fds.last();
                        }
                    }
                    Ok((message.bytes, handle))
                })
                .await
        };
        let (n, handle) = tokio::time::timeout(DEADLINE, read)
            .await
            .map_err(|_| helper_error(format!("did not answer within {DEADLINE:?}")))?
            .map_err(|e| helper_error(format!("cannot be heard: {e}")))?;
        if n == 0 {
            return Err(helper_error("has ended"));
        }
        Ok((n, handle))
    }

    /// Asks for one launch: pid 1 exists when this returns with its pidfd, and reports further on its
    /// status socket. Held, it waits for [`format::command::START`] before it starts the program.
    pub(crate) async fn launch(
        &self,
        plan: &Plan,
        is_held: bool,
        handles: &[BorrowedFd<'_>],
    ) -> Result<OwnedFd, SandboxError> {
        let mut turn = self.turn.lock().await;
        *turn += 1;
        let id = *turn;
        let kind = if is_held { format::request::HELD } else { format::request::LAUNCH };
        let mut header = [0u8; 16];
        let parts = [&format::MAGIC.to_le_bytes()[..], &kind.to_le_bytes(), &id.to_le_bytes()];
        for (slot, byte) in header.iter_mut().zip(parts.iter().flat_map(|p| p.iter())) {
            *slot = *byte;
        }
        self.socket
            .async_io(tokio::io::Interest::WRITABLE, |socket| {
                let mut space = [std::mem::MaybeUninit::uninit();
                    rustix::cmsg_space!(ScmRights(format::handle::MOST))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !control.push(SendAncillaryMessage::ScmRights(handles)) {
                    return Err(io::Error::from(io::ErrorKind::InvalidInput));
                }
                let slices = [io::IoSlice::new(&header), io::IoSlice::new(&plan.bytes)];
                Ok(sendmsg(socket, &slices, &mut control, SendFlags::NOSIGNAL)?)
            })
            .await
            .map_err(|e| helper_error(format!("cannot be reached: {e}")))?;
        let mut answer = [0u8; 64];
        loop {
            let (n, handle) = self.receive(&mut answer).await?;
            let mut body = format::Body(answer.get(..n).unwrap_or_default());
            let (magic, errno, answered, value) = (body.u32(), body.u32(), body.u64(), body.u64());
            let (Some(format::MAGIC), Some(errno), Some(answered), Some(value)) =
                (magic, errno, answered, value)
            else {
                return Err(helper_error("sent an answer that is none"));
            };
            if answered != id {
                // The answer to a request whose caller gave up. Its pidfd closes here, and its pid 1 ends
                // because its status socket is closed.
                continue;
            }
            if errno != 0 {
                return Err(plan.failure(value, i32::try_from(errno).unwrap_or(0)));
            }
            return handle.ok_or_else(|| helper_error("sent no pidfd"));
        }
    }
}

/// Sends a signal through a pidfd; an ended process is no error.
pub(crate) fn signal(pidfd: impl AsFd, signal: rustix::process::Signal) -> io::Result<()> {
    match rustix::process::pidfd_send_signal(pidfd, signal) {
        Err(Errno::SRCH) => Ok(()),
        other => other.map_err(io::Error::from),
    }
}
