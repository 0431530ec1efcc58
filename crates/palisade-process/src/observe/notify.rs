//! The listener of a filter: taking up questions and answering them (seccomp_unotify(2)).

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

/// `struct seccomp_data`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Data {
    nr: i32,
    arch: u32,
    instruction_pointer: u64,
    args: [u64; 6],
}

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    data: Data,
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Response {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

/// A call that waits for an answer. All of it is the kernel's copy; only what its pointers lead to can
/// change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    id: u64,
    /// The thread that calls, by its number out here. It stays that thread's for as long as the question
    /// is open ([`Listener::is_open`]).
    pub(super) thread: u32,
    pub(super) call: palisade_seccomp::SeccompData,
}

/// What the program is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The kernel does what was asked.
    Continue,
    /// The call fails with this errno.
    Errno(u16),
}

/// The handle, and the three requests that are made of it.
pub(super) struct Listener(pub(super) OwnedFd);

// `SECCOMP_IOCTL_NOTIF_*` of linux/seccomp.h: direction, size, type '!' and number.
const fn request(direction: u32, number: u32, size: usize) -> libc::Ioctl {
    ((direction << 30) | ((size as u32) << 16) | (0x21 << 8) | number) as libc::Ioctl
}
const READ_WRITE: u32 = 3;
const WRITE: u32 = 1;
const RECV: libc::Ioctl = request(READ_WRITE, 0, size_of::<Notification>());
const SEND: libc::Ioctl = request(READ_WRITE, 1, size_of::<Response>());
const ID_VALID: libc::Ioctl = request(WRITE, 2, size_of::<u64>());

const FLAG_CONTINUE: u32 = 1;

impl Listener {
    fn control<T>(&self, request: libc::Ioctl, value: &mut T) -> io::Result<()> {
        // SAFETY: the requests above take a pointer to a value of exactly the type that each is called
        // with below, and the size of that type is part of the request.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, std::ptr::from_mut(value)) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits until there is a question. `false`: nobody is left who could ask.
    pub(super) fn wait(&self) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        loop {
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    let found = fds.first().map_or(PollFlags::empty(), PollFd::revents);
                    return Ok(found.contains(PollFlags::IN));
                }
            }
        }
    }

    /// Takes up a question; `None` where whoever asked is gone already.
    pub(super) fn take(&self) -> io::Result<Option<Question>> {
        // The kernel wants it zeroed.
        let mut asked = Notification::default();
        match self.control(RECV, &mut asked) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOENT | libc::EINTR | libc::EAGAIN)
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let Data { nr, arch, instruction_pointer, args } = asked.data;
        let call = palisade_seccomp::SeccompData {
            nr: nr.cast_unsigned(),
            arch,
            instruction_pointer,
            args,
        };
        Ok(Some(Question { id: asked.id, thread: asked.pid, call }))
    }

    /// Whether the question is still open: what was read of the thread meanwhile was this thread's.
    pub(super) fn is_open(&self, question: &Question) -> bool {
        let mut id = question.id;
        self.control(ID_VALID, &mut id).is_ok()
    }

    /// Answers. That whoever asked is gone by now is no error.
    pub(super) fn answer(&self, question: &Question, answer: Answer) -> io::Result<()> {
        let mut response = Response { id: question.id, ..Response::default() };
        match answer {
            Answer::Continue => response.flags = FLAG_CONTINUE,
            Answer::Errno(errno) => response.error = -i32::from(errno),
        }
        match self.control(SEND, &mut response) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_the_kernel_header() {
        assert_eq!(
            (RECV as u32, SEND as u32, ID_VALID as u32),
            (0xc050_2100, 0xc018_2101, 0x4008_2102)
        );
        assert_eq!((size_of::<Notification>(), size_of::<Response>()), (80, 24));
    }
}
