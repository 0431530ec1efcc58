//! CPU time of a launch, by samples: whoever is found running when the clock ticks has used a tick.
//!
//! Over many calls the sum is right whatever their length; one call is known within a tick. Who has used
//! more than the share allows is made to wait at the tick that shows it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How far ahead of its share a plugin may run, so that short work is done at once.
const BURST: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct Meter {
    used: AtomicU64,
    share: AtomicU64,
    credit: Mutex<Credit>,
}

/// What a plugin may still use.
struct Credit {
    seconds: f64,
    at: Instant,
}

impl Meter {
    pub(crate) fn new(share: f64) -> Self {
        Self {
            used: AtomicU64::new(0),
            share: AtomicU64::new(share.to_bits()),
            credit: Mutex::new(Credit { seconds: BURST.as_secs_f64(), at: Instant::now() }),
        }
    }

    pub(crate) fn set_share(&self, share: f64) {
        self.share.store(share.to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed))
    }

    /// Counts `spent`. Gives how long whoever spent it has to wait; `None`: not at all.
    pub(crate) fn charge(&self, spent: Duration, now: Instant) -> Option<Duration> {
        self.used.fetch_add(u64::try_from(spent.as_nanos()).unwrap_or(0), Ordering::Relaxed);
        let share = f64::from_bits(self.share.load(Ordering::Relaxed)).max(0.01);
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        let earned = now.saturating_duration_since(credit.at).as_secs_f64() * share;
        credit.at = credit.at.max(now);
        credit.seconds = (credit.seconds + earned).min(BURST.as_secs_f64()) - spent.as_secs_f64();
        if credit.seconds >= 0.0 {
            return None;
        }
        Some(Duration::from_secs_f64((-credit.seconds / share).min(60.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_held_over_time() {
        let tick = Duration::from_millis(5);
        for share in [0.1, 0.5, 0.9] {
            let meter = Meter::new(share);
            let start = Instant::now();
            let (mut now, mut ran) = (start, Duration::ZERO);
            while now < start + Duration::from_secs(20) {
                now += tick;
                ran += tick;
                now += meter.charge(tick, now).unwrap_or_default();
            }
            let found = ran.as_secs_f64() / (now - start).as_secs_f64();
            assert!((found - share).abs() < 0.02, "{share}: {found}");
            assert_eq!(meter.used(), ran);
        }
    }

    #[test]
    fn one_thread_with_a_whole_core_never_waits() {
        let meter = Meter::new(1.0);
        let mut now = Instant::now();
        for _ in 0..1000 {
            now += Duration::from_millis(5);
            assert_eq!(meter.charge(Duration::from_millis(5), now), None);
        }
    }
}
