//! Descriptor 3, which Palisade opened for the plugin. The only `unsafe` of this crate.

#[cfg(unix)]
pub(crate) use std::os::unix::net::UnixStream as Socket;

/// What a plugin talks over. Palisade starts programs as plugins on Linux; elsewhere a plugin is built so that it
/// can be checked and tested ([`Plugin::serve`](crate::Plugin::serve)).
#[cfg(not(unix))]
pub(crate) use std::net::TcpStream as Socket;

#[cfg(unix)]
pub(crate) use inherited::take;

/// No socket is handed down here.
#[cfg(not(unix))]
pub(crate) fn take() -> Option<Socket> {
    None
}

#[cfg(unix)]
mod inherited {
    use std::{
        os::fd::{FromRawFd, IntoRawFd},
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::Socket;

    /// The descriptor on which a plugin finds its host (docs/reference/protocol.md, Transport).
    const DESCRIPTOR: i32 = 3;

    static IS_TAKEN: AtomicBool = AtomicBool::new(false);

    /// The socket, if there is one and nobody has it yet.
    pub(crate) fn take() -> Option<Socket> {
        if IS_TAKEN.swap(true, Ordering::AcqRel) {
            return None;
        }
        // SAFETY: whoever starts a plugin gives it this descriptor to own, and nothing else in this crate makes
        // a value of its number; the flag above lets this happen once in a process. Where it is something else,
        // or not open, it is only asked what it is, and then left as it was.
        #[allow(unsafe_code)]
        let socket = unsafe { Socket::from_raw_fd(DESCRIPTOR) };
        if socket.peer_addr().is_ok() {
            Some(socket)
        } else {
            let _ = socket.into_raw_fd();
            IS_TAKEN.store(false, Ordering::Release);
            None
        }
    }
}
