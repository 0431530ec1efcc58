//! How long a turn of the processor the threads of a plugin ask for (`sched_runtime` of an ordinary process, a
//! hint since Linux 6.12; sched(7), sched_setattr(2)).
//!
//! Who wakes up and asks for a shorter turn than the one who runs gets the processor at once, if it has had no more
//! than its share; what each gets in all stays the same. Plugins begin with short turns. Earlier kernels
//! take no hint.
#![allow(unsafe_code)]

use crate::plan::format::TURN_NS;

/// Longer than anybody's who has not asked (2.8 milliseconds at the most), and so short that whoever has had more
/// than its share waits no longer than a few ticks. The kernel takes 0.1 to 100 milliseconds.
const LONG_NS: u64 = 10_000_000;
/// Bytes of version 0 of `struct sched_attr`: size, policy; flags; nice, priority; runtime, deadline, period.
const SIZE: u32 = 48;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slice {
    /// As a plugin begins.
    Short,
    Long,
}

impl Slice {
    /// Has these threads run in such turns. Those that have ended, and those of another scheduling class, are
    /// passed over.
    pub(crate) fn give(self, threads: &[i32]) {
        let wanted = match self {
            Self::Short => TURN_NS,
            Self::Long => LONG_NS,
        };
        for &thread in threads {
            let mut attributes = [0u64; SIZE as usize / 8];
            let at = attributes.as_mut_ptr();
            // SAFETY: the kernel writes at most `SIZE` bytes, which is the array's size.
            let got = unsafe { libc::syscall(libc::SYS_sched_getattr, thread, at, SIZE, 0) };
            let [head, _, _, slice, ..] = &mut attributes;
            // The upper half of the first word is the class, 0 for SCHED_OTHER.
            if got == 0 && *head >> 32 == 0 && *slice != wanted {
                *slice = wanted;
                // SAFETY: the kernel reads `SIZE` bytes; the first word has the size that it wrote.
                let _ = unsafe { libc::syscall(libc::SYS_sched_setattr, thread, at, 0) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_slice() -> u64 {
        let mut attributes = [0u64; SIZE as usize / 8];
        // SAFETY: as above; 0 is the calling thread.
        let got =
            unsafe { libc::syscall(libc::SYS_sched_getattr, 0, attributes.as_mut_ptr(), SIZE, 0) };
        assert_eq!(got, 0);
        attributes[3]
    }

    #[test]
    fn turns_are_given_and_taken_back_and_nothing_else_changes() {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let nice = rustix::process::nice(3).unwrap();
        let before = own_slice();
        Slice::Long.give(&[thread, i32::MAX]);
        let long = own_slice();
        Slice::Short.give(&[thread]);
        // A kernel that takes no hint tells none.
        let takes_hints = before != 0;
        assert_eq!(long, if takes_hints { LONG_NS } else { 0 });
        assert_eq!(own_slice(), if takes_hints { TURN_NS } else { 0 });
        assert_eq!(rustix::process::nice(0).unwrap(), nice);
    }
}
