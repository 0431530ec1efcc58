//! When the data folder is measured: often where much could have been written, seldom where nothing could.
//!
//! Whoever writes uses processor time, and that is cheap to read and cannot be hidden. So every few
//! milliseconds it is looked how much a plugin has used since its folder was measured, and the folder is
//! measured once what could have been written in that time may be too much. A plugin that does not run is
//! not measured at all. Pure state; who looks and measures is `lookout.rs`.

use std::time::{Duration, Instant};

/// Time between two looks at a plugin that runs and is far from its limit.
const LOOK: Duration = Duration::from_millis(25);
/// The same for one that does not run. Many plugins mostly wait, and each look costs some microseconds.
pub(crate) const IDLE: Duration = Duration::from_millis(50);
/// The same for one that is near it; also the shortest time between two measurements.
pub(crate) const NEAR: Duration = Duration::from_millis(5);
/// Longest time until one that has run is measured.
pub(crate) const LONGEST: Duration = Duration::from_millis(250);
/// The same where measuring takes long: this many times as long as it takes, and at most [`SLOWEST`].
const REST: u32 = 3;
/// See [`REST`].
const SLOWEST: Duration = Duration::from_secs(5);
/// Bytes that can be written in a second of processor time, into the page cache: twice what was seen on the
/// machines that this was measured on. (Blocks without data, `fallocate`, would be quicker: the filter
/// refuses them.)
const SPEED: u64 = 4 << 30;
/// Of the time, measuring takes at most one part in this many, unless [`LONGEST`] is reached.
const SHARE: u32 = 10;

/// What is known since the last measurement.
#[derive(Debug)]
pub(crate) struct Looks {
    measured: Instant,
    /// Processor time that the plugin had used then.
    used: Option<Duration>,
    /// Bytes that could still be written.
    left: u64,
    /// How long the measurement took.
    took: Duration,
    /// Something was there that has to be looked at once more, whether the plugin runs or not.
    again: bool,
    /// Processor time that it had used at the last look.
    looked: Option<Duration>,
}

impl Looks {
    pub(crate) fn new(now: Instant) -> Self {
        // What lies in the folder from before is not known.
        Self { measured: now, used: None, left: 0, took: Duration::ZERO, again: true, looked: None }
    }

    /// Takes note of a measurement that began at `begun`, when the plugin had used `used`.
    pub(crate) fn measured(
        &mut self,
        begun: Instant,
        now: Instant,
        used: Option<Duration>,
        left: u64,
        again: bool,
    ) {
        let took = now.saturating_duration_since(begun);
        *self = Self { measured: now, used, left, took, again, looked: self.looked };
    }

    /// From now on the processor time is counted by somebody else, from another beginning.
    pub(crate) fn rebase(&mut self) {
        (self.used, self.looked) = (None, None);
    }

    /// Bytes that could have been written since; `None` where nothing tells the processor time.
    fn could(&self, used: Option<Duration>) -> Option<u64> {
        let ran = used?.saturating_sub(self.used.unwrap_or_default());
        Some((ran.as_secs_f64() * SPEED as f64) as u64)
    }

    /// Whether to measure now, the plugin having used `used` processor time.
    pub(crate) fn is_due(&self, now: Instant, used: Option<Duration>) -> bool {
        let since = now.saturating_duration_since(self.measured);
        if since >= LONGEST.max(self.took.saturating_mul(REST)).min(SLOWEST) {
            return self.again || self.could(used) != Some(0);
        }
        let rest = (self.took * SHARE).clamp(NEAR, LONGEST);
        since >= rest && self.could(used).is_some_and(|could| could > 0 && could >= self.left)
    }

    /// How long to sleep until the next look.
    pub(crate) fn sleep(&mut self, used: Option<Duration>) -> Duration {
        let runs = std::mem::replace(&mut self.looked, used) != used;
        match self.could(used).filter(|_| runs) {
            Some(could) => {
                // Half, because more than one processor may be at work.
                let left = self.left.saturating_sub(could) as f64 / SPEED as f64 / 2.0;
                Duration::from_secs_f64(left.min(1.0)).clamp(NEAR, LOOK)
            }
            None => IDLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Measured just now, `left` bytes below the limit, when it had used a second.
    fn just(left: u64) -> (Looks, Instant) {
        let now = Instant::now();
        let mut looks = Looks::new(now);
        looks.measured(now, now, Some(ms(1000)), left, false);
        (looks, now)
    }

    #[test]
    fn who_does_not_run_is_not_measured() {
        let (mut looks, now) = just(MIB);
        for after in [25, 250, 60_000] {
            assert!(!looks.is_due(now + ms(after), Some(ms(1000))), "after {after} ms");
        }
        assert_eq!(looks.sleep(Some(ms(1000))), NEAR, "it was running when it was measured");
        assert_eq!(looks.sleep(Some(ms(1000))), IDLE);
    }

    #[test]
    fn who_could_have_filled_what_is_left_is_measured_soon() {
        let (mut looks, now) = just(64 * MIB);
        // 10 ms are worth 40 MiB, 20 ms are worth 80.
        assert!(!looks.is_due(now + ms(25), Some(ms(1010))));
        assert!(looks.sleep(Some(ms(1010))) < LOOK / 4);
        assert!(looks.is_due(now + ms(25), Some(ms(1020))));
        // One that is nearly full is measured every few milliseconds that it runs.
        let (looks, now) = just(0);
        assert!(!looks.is_due(now + ms(4), Some(ms(1004))), "not without a pause");
        assert!(looks.is_due(now + ms(5), Some(ms(1001))));
    }

    #[test]
    fn who_has_run_is_measured_within_a_quarter_of_a_second() {
        let (looks, now) = just(u64::MAX);
        assert!(!looks.is_due(now + ms(249), Some(ms(1200))));
        assert!(looks.is_due(now + LONGEST, Some(ms(1001))));
        // So is one whose processor time nobody tells, and what was not quite seen.
        assert!(looks.is_due(now + LONGEST, None));
        let mut again = looks;
        again.measured(now, now, Some(ms(1000)), MIB, true);
        assert!(again.is_due(now + LONGEST, Some(ms(1000))));
    }

    #[test]
    fn a_slow_measurement_is_not_repeated_all_the_time() {
        let (mut looks, now) = just(0);
        looks.measured(now, now + ms(20), Some(ms(1000)), 0, false);
        let now = now + ms(20);
        assert!(!looks.is_due(now + ms(199), Some(ms(1199))));
        assert!(looks.is_due(now + ms(200), Some(ms(1200))));
        looks.measured(now, now + ms(5000), Some(ms(1000)), 0, false);
        assert!(looks.is_due(now + ms(5000) + LONGEST, Some(ms(1001))), "but it is repeated");
        // Far from the limit it takes a quarter of the time.
        looks.measured(now, now + ms(1000), Some(ms(1000)), u64::MAX, false);
        let now = now + ms(1000);
        assert!(
            !looks.is_due(now + ms(2999), Some(ms(1999))) && !looks.is_due(now + LONGEST, None)
        );
        assert!(looks.is_due(now + ms(3000), Some(ms(1999))));
        looks.measured(now, now + ms(60_000), Some(ms(1000)), u64::MAX, false);
        let now = now + ms(60_000);
        assert!(!looks.is_due(now + ms(4999), None));
        assert!(looks.is_due(now + SLOWEST, None), "and never later");
    }
}
