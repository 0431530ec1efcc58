//! Node.js 20 and later: V8's just-in-time compiler, libuv's event loop and thread pool.

use super::groups::{AIO, MEMORY_POLICY, MQUEUE, PROCESS, RARE_MEMORY, SOCKETS, SYSV_IPC};
use super::native::common;
use crate::action::Action;
use crate::error::Error;
use crate::policy::Policy;

/// Neither V8 nor libuv uses System V IPC, message queues or kernel AIO; libuv tries `io_uring`
/// and falls back to `epoll` and its thread pool on `ENOSYS`.
pub(super) fn node() -> Result<Policy, Error> {
    common("node", 1)
        .on(Action::Allow, PROCESS)
        .on(Action::Allow, SOCKETS)
        .on(Action::Allow, MEMORY_POLICY)
        .on(Action::ENOSYS, SYSV_IPC)
        .on(Action::ENOSYS, MQUEUE)
        .on(Action::ENOSYS, AIO)
        .on(Action::ENOSYS, RARE_MEMORY)
        .build()
}
