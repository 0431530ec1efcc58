//! Reading from the socket in a way that notices passed file handles.

use std::{io::IoSliceMut, mem::MaybeUninit, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg},
};

use crate::bounds;

/// What one read brought.
pub(super) struct Received {
    /// Bytes read; 0 at the end of the stream.
    pub(super) count: usize,
    /// Handles that came along. They are closed already.
    pub(super) handles: usize,
    /// Whether the kernel dropped further handles (`MSG_CTRUNC`, recvmsg(2)).
    pub(super) truncated: bool,
}

/// Reads what is there into `buffer`; `None` when nothing is.
///
/// Handles are received close-on-exec, so that none of them leaks into a process that is started at
/// the same moment, and are closed when the ancillary buffer is dropped.
pub(super) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<Option<Received>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(bounds::HANDLES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Ok(message) => break message,
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    };
    let mut handles = 0;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            // Each is an OwnedFd: counting drops, and so closes, it.
            handles += received.count();
        }
    }
    let truncated = message.flags.contains(ReturnFlags::CTRUNC);
    Ok(Some(Received { count: message.bytes, handles, truncated }))
}
