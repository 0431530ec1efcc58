//! Walls that stand ready and have never been used: a launch of the same shape starts its program in them.
//!
//! The shape is the launch plan, byte for byte, with the limits and the wire. The plan is made anew for every
//! launch and names every path that is shown with its device and inode, so walls that were built for other
//! rights, other paths or another program do not fit, and are thrown away. Each is used once. While they
//! wait, only pid 1 runs inside, with nothing to do; it ends with the host, as every pid 1 does.

use std::{
    mem::{Discriminant, discriminant},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use palisade_model::Limits;
use palisade_sandbox::{LaunchSpec, Wire};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Signal,
};

use crate::{launch::Walls, plan::Plan, spawner};

/// How long they may wait. What the plan does not name by its inode (the runtime's own files) may have been
/// replaced since, and what is mounted in them cannot be unmounted on the host for good.
pub(crate) const MOST_AGE: Duration = Duration::from_secs(60);

struct Spare {
    walls: Walls,
    limits: Limits,
    wire: Discriminant<Wire>,
    since: Instant,
}

impl Spare {
    fn fits(&self, spec: &LaunchSpec, plan: &Plan) -> bool {
        self.since.elapsed() < MOST_AGE
            && self.walls.plan.bytes == plan.bytes
            && self.limits == spec.limits
            && self.wire == discriminant(&spec.wire)
            && is_alive(&self.walls)
    }
}

/// Those of one prepared program.
#[derive(Default)]
pub(crate) struct Spares(Mutex<Vec<Spare>>);

impl Drop for Spares {
    fn drop(&mut self) {
        self.standing().drain(..).for_each(|spare| throw_away(spare.walls));
    }
}

impl Spares {
    fn standing(&self) -> MutexGuard<'_, Vec<Spare>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Walls for this launch, if some fit. What does not fit is thrown away.
    pub(crate) fn take(&self, spec: &LaunchSpec, plan: &Plan) -> Option<Walls> {
        let mut standing = self.standing();
        let (mut fitting, others): (Vec<_>, Vec<_>) =
            standing.drain(..).partition(|spare| spare.fits(spec, plan));
        let taken = fitting.pop();
        *standing = fitting;
        drop(standing);
        others.into_iter().for_each(|spare| throw_away(spare.walls));
        taken.map(|spare| spare.walls)
    }

    /// How many stand ready.
    pub(crate) fn count(&self) -> usize {
        self.standing().len()
    }

    pub(crate) fn put(&self, walls: Walls, spec: &LaunchSpec) {
        self.standing().push(Spare {
            walls,
            limits: spec.limits.clone(),
            wire: discriminant(&spec.wire),
            since: Instant::now(),
        });
    }

    /// Throws away those that have waited too long.
    pub(crate) fn expire(&self) {
        let old: Vec<_> =
            self.standing().extract_if(.., |spare| spare.since.elapsed() >= MOST_AGE).collect();
        old.into_iter().for_each(|spare| throw_away(spare.walls));
    }
}

/// Whether pid 1 is there: a pidfd is readable once its process has ended (pidfd_open(2)).
fn is_alive(walls: &Walls) -> bool {
    let mut fds = [PollFd::new(walls.pidfd.get_ref(), PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

/// Ends pid 1, and with it all that was made for it. The groups can be removed once it is gone.
pub(crate) fn throw_away(walls: Walls) {
    let _ = spawner::signal(walls.pidfd.get_ref(), Signal::KILL);
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move {
            let _ = walls.pidfd.readable().await.map(|_| ());
            drop(walls);
        });
    }
}
