//! How long each step of a launch takes, told as events at level trace with the target [`TARGET`]: fields
//! `step` (its name) and `nanos`. Without a subscriber for it nothing is measured, here or in the helper.

use rustix::time::{ClockId, clock_gettime};

use crate::plan::format::lap;

/// Target of the events.
const TARGET: &str = "palisade_process::steps";

/// In the order of [`lap`].
const NAMES: [&str; lap::COUNT] = [
    "spawner: bind sources, id maps",
    "spawner: clone3 until pid 1 runs",
    "pid 1: namespaces, network begun",
    "pid 1: waits for its id maps",
    "pid 1: enters its cgroups",
    "pid 1: ids, session",
    "pid 1: mounts private",
    "pid 1: new root",
    "pid 1: folders, links, files",
    "pid 1: tmpfs inside",
    "pid 1: binds attached",
    "pid 1: host name, sysctls",
    "pid 1: /proc",
    "pid 1: pivot_root",
    "pid 1: waits for its network",
    "pid 1: way out, keyring",
    "pid 1: Landlock ruleset",
    "program: vfork",
    "program: handles, rlimits",
    "program: capabilities",
    "program: Landlock applied",
    "program: filter loaded",
    "program: exec",
];

/// The steps of one launch.
pub(crate) struct Steps {
    on: bool,
    last: u64,
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

impl Steps {
    /// A launch begins.
    pub(crate) fn begin() -> Self {
        let on = tracing::enabled!(target: TARGET, tracing::Level::TRACE);
        Self { on, last: if on { now() } else { 0 } }
    }

    /// Nobody is told: the walls are built for later.
    pub(crate) fn silent() -> Self {
        Self { on: false, last: 0 }
    }

    /// Whether somebody listens.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    fn tell(step: &'static str, nanos: u64) {
        tracing::trace!(target: TARGET, step, nanos);
    }

    /// What was done since the last step has this name.
    pub(crate) fn done(&mut self, step: &'static str) {
        if self.on {
            let now = now();
            Self::tell(step, now.saturating_sub(self.last));
            self.last = now;
        }
    }

    /// A lap that the helper reports; `kind` -1 is the moment at which the spawner took up the request.
    pub(crate) fn reported(&mut self, kind: i32, nanos: u64) {
        let Ok(kind) = usize::try_from(kind) else {
            Self::tell("host: request until the spawner runs", nanos.saturating_sub(self.last));
            self.last = nanos;
            return;
        };
        if let Some(name) = NAMES.get(kind) {
            Self::tell(name, nanos);
            self.last = self.last.saturating_add(nanos);
        }
    }
}
