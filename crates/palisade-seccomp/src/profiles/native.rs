//! Compiled programs of any language.

use super::groups::*;
use crate::action::Action;
use crate::error::Error;
use crate::policy::{Policy, PolicyBuilder};

/// What every profile agrees on: refused calls with the floor's errno, relics absent, ordinary
/// work on memory, files and events allowed. Anything else is the profile's choice.
pub(super) fn common(name: &str, version: u32) -> PolicyBuilder {
    refusals(name, version)
        .on(Action::Allow, MEMORY)
        .on(Action::Allow, FILES)
        .on(Action::Allow, EVENTS)
}

/// The refusals that no profile goes without.
pub(super) fn refusals(name: &str, version: u32) -> PolicyBuilder {
    Policy::builder(name, version, Action::ENOSYS)
        .on(Action::KillProcess, NO_HONEST_CALLER)
        .on(Action::EPERM, MOUNT)
        .on(Action::EPERM, OTHER_PROCESSES)
        .on(Action::EPERM, MACHINE)
        .on(Action::EPERM, REFUSED)
        .on(Action::EPERM, OWN_LABEL)
        .on(Action::ENOSYS, ABSENT)
        .on(Action::ENOSYS, RELICS)
}

/// The widest profile: kernel AIO, System V IPC and message queues included; the IPC namespace
/// keeps those private.
pub(super) fn native() -> Result<Policy, Error> {
    common("native", 1)
        .on(Action::Allow, PROCESS)
        .on(Action::Allow, SOCKETS)
        .on(Action::Allow, MEMORY_POLICY)
        .on(Action::Allow, SYSV_IPC)
        .on(Action::Allow, MQUEUE)
        .on(Action::Allow, AIO)
        .on(Action::Allow, RARE_MEMORY)
        .build()
}
