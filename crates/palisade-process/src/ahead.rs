//! Groups made ahead: one that nobody was ever in, with the limits of the last launch, so that the next need
//! not wait for the files of three hierarchies.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};

use palisade_model::Limits;
use palisade_sandbox::SandboxError;

use crate::cgroup::{Cgroups, Group};

/// A group, and what lets pid 1 into it.
type Ready = (Option<Group>, Vec<OwnedFd>);

#[derive(Default)]
pub(crate) struct Ahead {
    ready: Mutex<Option<Ready>>,
    /// Those of the last launch.
    limits: Mutex<Option<Limits>>,
}

impl Ahead {
    /// The one that is ready if it has these limits or takes them, or a new one.
    pub(crate) fn take_or_make(
        &self,
        cgroups: &Arc<Cgroups>,
        limits: &Limits,
    ) -> Result<Ready, SandboxError> {
        let step = |e| SandboxError::step("making the plugin's cgroup", e);
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner).take();
        let known =
            self.limits.lock().unwrap_or_else(PoisonError::into_inner).replace(limits.clone());
        let Some((Some(group), entries)) = ready else {
            return make(cgroups, limits).map_err(step);
        };
        if known.as_ref() != Some(limits) {
            group.set_limits(limits).map_err(step)?;
        }
        Ok((Some(group), entries))
    }

    /// Makes one ready, if none is. Blocks for some tens of microseconds.
    pub(crate) fn refill(&self, cgroups: &Arc<Cgroups>) {
        // Held all the time: the group must have the limits that are remembered.
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(limits), None) = (&*limits, &*ready) {
            *ready = make(cgroups, limits).ok();
        }
    }
}

fn make(cgroups: &Arc<Cgroups>, limits: &Limits) -> io::Result<Ready> {
    let Some(group) = cgroups.create(limits)? else { return Ok((None, Vec::new())) };
    let entries = group.entries()?;
    Ok((Some(group), entries))
}
