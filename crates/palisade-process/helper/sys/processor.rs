// The processors, and this process's turns on them.

use super::{nr, sys};
use crate::plan::TURN_NS;

/// How many processors this process may run on.
pub fn processors() -> u64 {
    let mut mask = [0u64; 128];
    sys!(nr::SCHED_GETAFFINITY, 0, core::mem::size_of_val(&mask), mask.as_mut_ptr());
    let count: u32 = mask.iter().map(|word| word.count_ones()).sum();
    u64::from(count.max(1))
}

/// Asks for short turns of the processor for this process and all that it starts (`sched_runtime` of an
/// ordinary process, a hint since Linux 6.12; sched(7), sched_setattr(2)): who runs need not finish a long
/// one before somebody else who wakes up gets the processor. What each gets in all stays the same.
pub fn short_turns() {
    // struct sched_attr, version 0: size, policy; flags; nice, priority; runtime, deadline, period.
    const SIZE: usize = 48;
    let mut attributes = [0u64; SIZE / 8];
    if sys!(nr::SCHED_GETATTR, 0, attributes.as_mut_ptr(), SIZE, 0) < 0 || attributes[0] >> 32 != 0 {
        // No ordinary process (SCHED_OTHER): somebody has chosen otherwise.
        return;
    }
    attributes[3] = TURN_NS;
    sys!(nr::SCHED_SETATTR, 0, attributes.as_ptr(), 0);
}
