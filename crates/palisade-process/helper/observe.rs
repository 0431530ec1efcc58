// Loading a filter with a listener (seccomp_unotify(2)). Of an observed launch the listener goes to the
// host; of every other one to pid 1, which is asked about deaths only (`violation.rs`).
//
// From the load on, watched and refused calls of this process wait for the host's answer. The only calls
// between the load and the exec are those here: sending a message and closing two handles, which are
// never asked about. The exec itself is, and the host has the listener by then; if the host is gone the
// listener is closed, the exec fails with ENOSYS, and nothing of the program has run.

use crate::init;
use crate::plan::{report, step, switch, word};
use crate::spawner::{Failure, Launch, failed};
use crate::sys::{self, Fd, nr, sys};

/// Where the socket to whoever gets the listener waits, behind the ruleset. Close-on-exec: the program never
/// has it.
pub const STATUS: Fd = 5;

pub fn is_wanted(launch: &Launch<'_>) -> bool {
    launch.config[word::SWITCHES] & switch::OBSERVE != 0
}

/// `fprog` is the address of a `struct sock_fprog`.
pub fn load(fprog: usize) -> Result<(), Failure> {
    const SET_MODE_FILTER: usize = 1;
    const NEW_LISTENER: usize = 8;
    // Linux 5.19: once the host has taken a question up, only a deadly signal interrupts the call, so that
    // runtimes that signal their threads all the time (Go) make progress.
    const WAIT_KILLABLE_RECV: usize = 32;
    let mut listener = sys!(nr::SECCOMP, SET_MODE_FILTER, NEW_LISTENER | WAIT_KILLABLE_RECV, fprog);
    if listener == sys::EINVAL {
        listener = sys!(nr::SECCOMP, SET_MODE_FILTER, NEW_LISTENER, fprog);
    }
    if listener < 0 {
        return Err(failed(step::SECCOMP, 1, listener));
    }
    let sent = init::send_handle(STATUS, report::LISTENER, 0, listener as Fd);
    // A copy in here would keep the questions open, and the process waiting, after the host has closed it.
    sys::close(listener as Fd);
    sys::close(STATUS);
    if sent < 0 { Err(failed(step::SECCOMP, 2, sent)) } else { Ok(()) }
}
