//! Scripts of POSIX shells and bash, and the small tools that they are made of.

use super::groups::{AIO, MEMORY_POLICY, MQUEUE, PROCESS, RARE_MEMORY, SOCKETS, SYSV_IPC};
use super::native::common;
use crate::action::Action;
use crate::error::Error;
use crate::policy::Policy;

/// No shell and none of the core utilities uses System V IPC, message queues, kernel AIO or
/// `remap_file_pages`. Scripts are often no more than the wrapper of another runtime, which then has
/// this filter too; so it holds what Python, Node.js and Java cannot do without.
pub(super) fn shell() -> Result<Policy, Error> {
    common("shell", 1)
        .on(Action::Allow, PROCESS)
        .on(Action::Allow, SOCKETS)
        .on(Action::Allow, MEMORY_POLICY)
        .on(Action::ENOSYS, SYSV_IPC)
        .on(Action::ENOSYS, MQUEUE)
        .on(Action::ENOSYS, AIO)
        .on(Action::ENOSYS, RARE_MEMORY)
        .build()
}
