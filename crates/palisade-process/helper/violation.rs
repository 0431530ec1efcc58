// Calls that are answered with death, told by name.
//
// The kernel does not say for which call it ended a process. So the filter does not end it: it asks pid 1
// (seccomp_unotify(2)), which tells the host the call's number and kills the process. Pid 1 never answers
// the question, least of all with "go on": while it is open the call waits, and where nobody is left who
// could be asked (pid 1 is dead) the call fails with ENOSYS. In no case is it made.
//
// What a program can gain against the kernel's own kill: a thread that is signalled in the microseconds
// before pid 1 takes its question up gets EINTR and lives on; and a filter of the program's own, stacked on
// this one, may refuse the call first. Both leave it alive without having made the call.

use crate::init;
use crate::observe;
use crate::plan::{handle, report, step};
use crate::police;
use crate::program;
use crate::spawner::{Failure, Launch, failed};
use crate::sys::{self, Fd, new, nr, sys};

/// How often processes other than the program are told about; they are killed all the same.
const MOST_TOLD: u32 = 64;

/// The socket on which the process that becomes the program gives pid 1 its listener.
pub struct Handover {
    ours: Fd,
    pub theirs: Fd,
}

impl Handover {
    /// Nothing is handed over: there is no filter, or the host has the listener.
    pub const NONE: Handover = Handover { ours: -1, theirs: -1 };

    pub fn new() -> Result<Self, Failure> {
        const AF_UNIX: usize = 1;
        const SOCK_SEQPACKET: usize = 5;
        let mut pair: [Fd; 2] = [-1; 2];
        let made = sys!(nr::SOCKETPAIR, AF_UNIX, SOCK_SEQPACKET | sys::O_CLOEXEC, 0, pair.as_mut_ptr());
        if made < 0 {
            return Err(failed(step::HANDLES, 20, made));
        }
        Ok(Handover { ours: pair[0], theirs: pair[1] })
    }

    /// The listener, once the program runs; -1 if there is none. The host is told where there should be.
    pub fn take(self, status: Fd) -> Fd {
        if self.ours < 0 {
            return -1;
        }
        // The program's own end closed when it began, so this never waits.
        sys::close(self.theirs);
        let mut bytes = [0u8; 16];
        let mut handles = [-1; sys::MAX_HANDLES];
        let (_, count) = sys::recv(self.ours, &mut bytes, &mut handles);
        sys::close(self.ours);
        if count == 0 {
            init::send_report(status, report::UNWATCHED, 0, 0);
            return -1;
        }
        handles[0]
    }
}

/// The same filter, its questions turned into deaths, for where it can have no listener: another one
/// watches this process already, as in some containers. Then the kernel itself kills.
#[inline(never)]
pub fn load_deadly(program: &[u8]) -> Result<(), Failure> {
    const RETURN: [u8; 4] = [0x06, 0, 0, 0];
    const ASK: [u8; 4] = 0x7fc0_0000_u32.to_ne_bytes();
    const KILL: [u8; 4] = 0x8000_0000_u32.to_ne_bytes();
    let mut deadly = [0u8; 4096 * 8];
    let Some(deadly) = deadly.get_mut(..program.len()) else {
        return Err(failed(step::SECCOMP, 3, sys::E2BIG));
    };
    deadly.copy_from_slice(program);
    for instruction in deadly.chunks_exact_mut(8) {
        if instruction[..4] == RETURN && instruction[4..] == ASK {
            instruction[4..].copy_from_slice(&KILL);
        }
    }
    sys::close(observe::STATUS);
    program::load_silent(deadly)
}

pub struct Watch {
    told: u32,
}

impl Watch {
    pub fn new() -> Self {
        Watch { told: 0 }
    }

    /// Takes up one question and ends the process that asks.
    pub fn answer(&mut self, launch: &Launch<'_>, listener: Fd, child: isize) {
        // SECCOMP_IOCTL_NOTIF_RECV and SECCOMP_IOCTL_NOTIF_ID_VALID of linux/seccomp.h.
        const RECV: usize = 0xc050_2100;
        const ID_VALID: usize = 0x4008_2102;
        // struct seccomp_notif: id u64; thread u32, flags u32; then struct seccomp_data: number i32,
        // interface u32, …. The kernel wants it zeroed.
        let mut asked = [0u64; 10];
        if sys!(nr::IOCTL, listener, RECV, asked.as_mut_ptr()) < 0 {
            return;
        }
        let [id, thread, call, ..] = asked;
        let Some(process) = police::process_of(thread & 0xffff_ffff) else { return };
        let handle = sys!(new::PIDFD_OPEN, process, 0);
        // While the question is open, its thread is there, and so the process is the one that was opened.
        if handle >= 0 && sys!(nr::IOCTL, listener, ID_VALID, &raw const id) < 0 {
            sys::close(handle as Fd);
            return;
        }
        let is_program = handle < 0 || process == child as u64;
        if is_program || self.told < MOST_TOLD {
            self.told += u32::from(!is_program);
            let interface = (call >> 32) | if is_program { report::PROGRAM } else { 0 };
            init::send_report(launch.handles[handle::STATUS], report::VIOLATION, call as i32, interface);
        }
        if handle >= 0 {
            sys!(new::PIDFD_SEND_SIGNAL, handle, sys::SIGKILL, 0, 0);
            sys::close(handle as Fd);
        } else {
            // It cannot be told apart from others for sure, so all of it ends.
            sys!(nr::KILL, child, sys::SIGKILL);
        }
    }
}
