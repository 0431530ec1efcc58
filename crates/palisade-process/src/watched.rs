//! Handles that tokio watches.
#![allow(unsafe_code)]

use std::{io, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

/// Watches a handle that we own. Needs a tokio runtime with I/O enabled.
pub(crate) fn watched(handle: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, answers always with the same number, and closes only when dropped;
    // the `AsyncFd` owns it.
    unsafe { AsyncFd::register(handle) }.map_err(io::Error::from)
}
