// How long each step of a launch takes, for whoever measures: only where the plan asks for it. Otherwise a
// lap costs one comparison.
//
// The laps lie in static memory: pid 1 begins with a copy of the spawner's, and the process that becomes the
// program shares pid 1's until its exec.

use crate::init;
use crate::plan::{lap, report, switch, word};
use crate::sys::{self, Fd};

struct Laps {
    on: bool,
    started: u64,
    last: u64,
    spent: [u64; lap::COUNT],
}

static mut LAPS: Laps = Laps { on: false, started: 0, last: 0, spent: [0; lap::COUNT] };

fn laps() -> &'static mut Laps {
    // SAFETY: no process here has a second thread; of two that share this memory, one sleeps until the other
    // has begun its program; and no reference outlives the function that took it.
    unsafe { &mut *(&raw mut LAPS) }
}

/// A launch begins.
pub fn begin(config: &[u64; word::COUNT], now: u64) {
    *laps() = Laps {
        on: config[word::SWITCHES] & switch::TIMED != 0,
        started: now,
        last: now,
        spent: [0; lap::COUNT],
    };
}

/// What was done since the last lap belongs to `kind`.
pub fn lap(kind: usize) {
    let laps = laps();
    if laps.on {
        let now = sys::now_ns();
        if let Some(spent) = laps.spent.get_mut(kind) {
            *spent += now - laps.last;
        }
        laps.last = now;
    }
}

/// Reports all laps, and first when the launch began (CLOCK_MONOTONIC).
pub fn tell(status: Fd) {
    let laps = laps();
    if laps.on {
        init::send_report(status, report::LAP, -1, laps.started);
        for (kind, spent) in laps.spent.iter().enumerate() {
            init::send_report(status, report::LAP, kind as i32, *spent);
        }
    }
}
