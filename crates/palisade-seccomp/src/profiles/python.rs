//! CPython 3.8 and later, its native extensions and what it starts as subprocesses.

use super::groups::{AIO, MEMORY_POLICY, MQUEUE, PROCESS, RARE_MEMORY, SOCKETS, SYSV_IPC};
use super::native::common;
use crate::action::Action;
use crate::error::Error;
use crate::policy::Policy;

/// System V IPC stays for extensions that share arrays; message queues and kernel AIO go, nothing
/// in the standard library or the usual numerical packages calls them.
pub(super) fn python() -> Result<Policy, Error> {
    common("python", 1)
        .on(Action::Allow, PROCESS)
        .on(Action::Allow, SOCKETS)
        .on(Action::Allow, MEMORY_POLICY)
        .on(Action::Allow, SYSV_IPC)
        .on(Action::ENOSYS, MQUEUE)
        .on(Action::ENOSYS, AIO)
        .on(Action::ENOSYS, RARE_MEMORY)
        .build()
}
