//! Java virtual machines, OpenJDK 11 and later: HotSpot's compilers and collectors.

use super::groups::{AIO, MEMORY_POLICY, MQUEUE, PROCESS, RARE_MEMORY, SOCKETS, SYSV_IPC};
use super::native::common;
use crate::action::Action;
use crate::error::Error;
use crate::policy::Policy;

/// HotSpot asks about memory nodes (`-XX:+UseNUMA`) and uses no System V IPC but for huge pages
/// (`-XX:+UseSHM`, off by default), no message queues and no kernel AIO. Its compiler turns written
/// pages into executable ones, so that `no-jit` can never hold here.
pub(super) fn jvm() -> Result<Policy, Error> {
    common("jvm", 1)
        .on(Action::Allow, PROCESS)
        .on(Action::Allow, SOCKETS)
        .on(Action::Allow, MEMORY_POLICY)
        .on(Action::ENOSYS, SYSV_IPC)
        .on(Action::ENOSYS, MQUEUE)
        .on(Action::ENOSYS, AIO)
        .on(Action::ENOSYS, RARE_MEMORY)
        .build()
}
