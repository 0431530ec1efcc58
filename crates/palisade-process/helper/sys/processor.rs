// The processors, and this process's turns on them.

use super::{nr, sys};
use crate::plan::TURN_NS;

/// How many processors this process may run on.
pub fn processors() -> u64 {
    let (mask, _) = own_mask();
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

/// Where this process runs at the moment.
pub fn current_processor() -> u32 {
    let mut number = 0u32;
    sys!(nr::GETCPU, &raw mut number, 0, 0);
    number
}

/// Room for the processors of the largest machines.
type Mask = [u64; 128];

/// This process's own, and the number of bytes that the kernel uses of it.
fn own_mask() -> (Mask, isize) {
    let mut mask: Mask = [0; 128];
    let size = sys!(nr::SCHED_GETAFFINITY, 0, core::mem::size_of_val(&mask), mask.as_mut_ptr());
    (mask, size)
}

/// Keeps this process off a processor, if there is another one for it.
pub fn leave_processor(number: u32) {
    let (mut mask, size) = own_mask();
    if let (1.., Some(word)) = (size, mask.get_mut(number as usize / 64)) {
        *word &= !(1 << (number % 64));
        // Refused where nothing is left.
        sys!(nr::SCHED_SETAFFINITY, 0, size, mask.as_ptr());
    }
}

/// Lets a process run wherever this one may.
pub fn share_processors(pid: isize) {
    let (mask, size) = own_mask();
    if size > 0 {
        sys!(nr::SCHED_SETAFFINITY, pid, size, mask.as_ptr());
    }
}
