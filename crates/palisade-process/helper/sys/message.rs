// Messages with handles, on a socket (sendmsg(2), recvmsg(2), unix(7)).

use super::{E2BIG, EINTR, Fd, nr, sys};

#[repr(C)]
pub struct IoVec {
    pub base: *mut u8,
    pub len: usize,
}

/// `struct msghdr` of 64-bit Linux.
#[repr(C)]
pub struct MsgHdr {
    pub name: *mut u8,
    pub namelen: u32,
    pub pad1: u32,
    pub iov: *mut IoVec,
    pub iovlen: usize,
    pub control: *mut u8,
    pub controllen: usize,
    pub flags: i32,
    pub pad2: u32,
}

/// Most handles in one message.
pub const MAX_HANDLES: usize = crate::plan::handle::MOST;

/// A control buffer for [`MAX_HANDLES`] handles: `struct cmsghdr` (16 bytes) and the handles.
#[repr(C, align(8))]
pub struct Control {
    pub len: usize,
    pub level: i32,
    pub kind: i32,
    pub fds: [Fd; MAX_HANDLES],
}

/// Receives one message and its handles, all close-on-exec. The length, and how many handles.
pub fn recv(fd: Fd, buffer: &mut [u8], fds: &mut [Fd; MAX_HANDLES]) -> (isize, usize) {
    const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
    const TRUNCATED: i32 = 0x20 | 0x8;
    let mut iov = IoVec { base: buffer.as_mut_ptr(), len: buffer.len() };
    let mut control = Control { len: 0, level: 0, kind: 0, fds: [-1; MAX_HANDLES] };
    let mut message = MsgHdr {
        name: core::ptr::null_mut(),
        namelen: 0,
        pad1: 0,
        iov: &mut iov,
        iovlen: 1,
        control: (&raw mut control).cast(),
        controllen: core::mem::size_of::<Control>(),
        flags: 0,
        pad2: 0,
    };
    let n = loop {
        let n = sys!(nr::RECVMSG, fd, &raw mut message, MSG_CMSG_CLOEXEC);
        if n != EINTR {
            break n;
        }
    };
    let mut count = 0;
    if n >= 0 && message.controllen >= 16 && control.level == 1 && control.kind == 1 {
        count = (control.len.saturating_sub(16) / 4).min(MAX_HANDLES);
        *fds = control.fds;
    }
    if n >= 0 && message.flags & TRUNCATED != 0 {
        return (E2BIG, count);
    }
    (n, count)
}

/// Sends `bytes`, with one handle if `handle` is not negative.
pub fn send(fd: Fd, bytes: &[u8], handle: Fd) -> isize {
    send_with(fd, bytes, handle, 0)
}

/// Sends `bytes` if there is room for them.
pub fn send_if_room(fd: Fd, bytes: &[u8]) -> isize {
    const MSG_DONTWAIT: usize = 0x40;
    send_with(fd, bytes, -1, MSG_DONTWAIT)
}

fn send_with(fd: Fd, bytes: &[u8], handle: Fd, flags: usize) -> isize {
    const MSG_NOSIGNAL: usize = 0x4000;
    let mut iov = IoVec { base: bytes.as_ptr().cast_mut(), len: bytes.len() };
    let mut control = Control { len: 20, level: 1, kind: 1, fds: [-1; MAX_HANDLES] };
    control.fds[0] = handle;
    let with = handle >= 0;
    let message = MsgHdr {
        name: core::ptr::null_mut(),
        namelen: 0,
        pad1: 0,
        iov: &mut iov,
        iovlen: 1,
        control: if with { (&raw mut control).cast() } else { core::ptr::null_mut() },
        controllen: if with { 24 } else { 0 },
        flags: 0,
        pad2: 0,
    };
    loop {
        let n = sys!(nr::SENDMSG, fd, &raw const message, MSG_NOSIGNAL | flags);
        if n != EINTR {
            return n;
        }
    }
}
