//! Rates: one token bucket for each thing that a plugin may do so many times a second.
//!
//! Each bucket holds one second's worth (the generic cell rate algorithm of the `governor` crate).
//! Buckets belong to one instance; nothing in a plugin can reset them.

use std::{
    cell::Cell,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter,
    clock::Clock as GovernorClock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use palisade_audit::Clock;
use palisade_model::{ErrorCode, Failure, Limits};

/// Which rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// Requests from the plugin to the host, all methods together.
    Requests,
    /// Events that the plugin publishes.
    Events,
    /// Calls from outside into the plugin.
    Calls,
}

impl Bucket {
    /// The name used in failures and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Events => "events",
            Self::Calls => "calls",
        }
    }
}

/// The injected clock in the form that `governor` takes.
#[derive(Clone)]
struct Ticks(Arc<dyn Clock>);

thread_local! {
    /// The moment that [`RateGate::take_at`] was given: `governor` asks its clock and is told no time.
    static GIVEN: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Tells the moment while it lives, also where it ends by a panic.
struct Given;

impl Given {
    fn new(monotonic_ns: u64) -> Self {
        GIVEN.set(Some(monotonic_ns));
        Self
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        GIVEN.set(None);
    }
}

impl GovernorClock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(GIVEN.get().unwrap_or_else(|| self.0.monotonic_ns()))
    }
}

/// One bucket with the count of what it refused.
struct Limiter {
    /// `None`: the rate is 0, nothing passes.
    cells: Option<RateLimiter<NotKeyed, InMemoryState, Ticks, NoOpMiddleware<Duration>>>,
    per_second: u32,
    refused: AtomicU64,
}

impl Limiter {
    fn new(per_second: u32, ticks: &Ticks) -> Self {
        // The algorithm counts in nanoseconds, so a billion a second is as fast as it can tell apart.
        let cells = NonZeroU32::new(per_second.min(1_000_000_000))
            .map(|n| RateLimiter::direct_with_clock(Quota::per_second(n), ticks.clone()));
        Self { cells, per_second, refused: AtomicU64::new(0) }
    }

    /// Takes `n` tokens, or says after how long they will be there, if ever.
    fn take(&self, n: NonZeroU32, ticks: &Ticks) -> Result<(), Option<Duration>> {
        let result = match &self.cells {
            None => Err(None),
            Some(cells) => match cells.check_n(n) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(not_until)) => Err(Some(not_until.wait_time_from(ticks.now()))),
                Err(_) => Err(None),
            },
        };
        if result.is_err() {
            self.refused.fetch_add(u64::from(n.get()), Ordering::Relaxed);
        }
        result
    }
}

/// The rates of one instance.
pub struct RateGate {
    ticks: Ticks,
    requests: Limiter,
    events: Limiter,
    calls: Limiter,
    log_bytes: Limiter,
}

impl RateGate {
    /// Full buckets for `limits.rates` and `limits.log_bytes_per_second`. A rate of 0 lets nothing
    /// pass; log bytes are counted up to 1e9 a second.
    #[must_use]
    pub fn new(limits: &Limits, clock: Arc<dyn Clock>) -> Self {
        let ticks = Ticks(clock);
        let rates = &limits.rates;
        let log_bytes = u32::try_from(limits.log_bytes_per_second).unwrap_or(u32::MAX);
        Self {
            requests: Limiter::new(rates.requests_per_second, &ticks),
            events: Limiter::new(rates.events_per_second, &ticks),
            calls: Limiter::new(rates.calls_per_second, &ticks),
            log_bytes: Limiter::new(log_bytes, &ticks),
            ticks,
        }
    }

    fn limiter(&self, bucket: Bucket) -> &Limiter {
        match bucket {
            Bucket::Requests => &self.requests,
            Bucket::Events => &self.events,
            Bucket::Calls => &self.calls,
        }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// [`ErrorCode::RateLimited`], with the time after which a retry can succeed.
    pub fn take(&self, bucket: Bucket) -> Result<(), Failure> {
        let limiter = self.limiter(bucket);
        limiter.take(NonZeroU32::MIN, &self.ticks).map_err(|wait| {
            let (name, rate) = (bucket.as_str(), limiter.per_second);
            let message = format!("more than {rate} {name} per second");
            let failure = Failure::new(ErrorCode::RateLimited, message)
                .rule(format!("rate {name} {rate}/s"))
                .hint("slow down, or ask for a higher rate in the manifest");
            match wait {
                Some(wait) => failure.retry_after(wait.max(Duration::from_millis(1))),
                None => failure,
            }
        })
    }

    /// [`RateGate::take`] by somebody who has just read the clock.
    ///
    /// # Errors
    /// As [`RateGate::take`].
    pub fn take_at(&self, bucket: Bucket, now: Instant) -> Result<(), Failure> {
        let _given = Given::new(self.ticks.0.monotonic_ns_at(now));
        self.take(bucket)
    }

    /// Takes `bytes` of log output. `false`: the line is to be dropped (it is counted).
    #[must_use]
    pub fn take_log_bytes(&self, bytes: usize) -> bool {
        let bytes = NonZeroU32::new(u32::try_from(bytes).unwrap_or(u32::MAX));
        bytes.is_none_or(|n| self.log_bytes.take(n, &self.ticks).is_ok())
    }

    /// How often a bucket was empty when it was asked.
    #[must_use]
    pub fn exceeded(&self, bucket: Bucket) -> u64 {
        self.limiter(bucket).refused.load(Ordering::Relaxed)
    }

    /// Bytes of log that were dropped.
    #[must_use]
    pub fn log_bytes_dropped(&self) -> u64 {
        self.log_bytes.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use palisade_model::Rates;
    use proptest::prelude::*;

    use super::*;
    use crate::gate::tests::ManualClock;

    fn gate(requests: u32, log: u64) -> (RateGate, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::default());
        let rates = Rates { requests_per_second: requests, ..Rates::default() };
        let limits = Limits { rates, log_bytes_per_second: log, ..Limits::default() };
        (RateGate::new(&limits, clock.clone()), clock)
    }

    #[test]
    fn a_burst_of_one_second_passes_and_the_next_is_told_when_to_retry() {
        let (rates, clock) = gate(10, 1000);
        for i in 0..10 {
            assert!(rates.take(Bucket::Requests).is_ok(), "request {i}");
        }
        let refused = rates.take(Bucket::Requests).unwrap_err();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert_eq!(refused.retry_after_ms, Some(100));
        assert_eq!(refused.rule.as_deref(), Some("rate requests 10/s"));
        assert_eq!(rates.exceeded(Bucket::Requests), 1);
        clock.advance(Duration::from_millis(100));
        assert!(rates.take(Bucket::Requests).is_ok(), "after the time it was told");
        assert!(rates.take(Bucket::Requests).is_err());
        assert_eq!(rates.exceeded(Bucket::Events), 0, "buckets are apart");
    }

    #[test]
    fn a_rate_of_zero_lets_nothing_pass() {
        let (rates, clock) = gate(0, 0);
        clock.advance(Duration::from_secs(100));
        assert_eq!(rates.take(Bucket::Requests).unwrap_err().retry_after_ms, None);
        assert!(!rates.take_log_bytes(1));
        assert!(rates.take_log_bytes(0));
    }

    #[test]
    fn log_bytes_are_dropped_and_counted() {
        let (rates, clock) = gate(1, 1000);
        assert!(rates.take_log_bytes(600));
        assert!(!rates.take_log_bytes(600));
        assert!(!rates.take_log_bytes(5000), "more than a second's worth never fits");
        assert_eq!(rates.log_bytes_dropped(), 5600);
        clock.advance(Duration::from_secs(1));
        assert!(rates.take_log_bytes(600));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_moment_that_was_read_before_counts_as_now() {
        let limits = Limits {
            rates: Rates { calls_per_second: 2, ..Rates::default() },
            ..Limits::default()
        };
        let rates = RateGate::new(&limits, Arc::new(palisade_audit::SystemClock));
        let now = Instant::now();
        let take = |after_ms: u64| {
            rates.take_at(Bucket::Calls, now + Duration::from_millis(after_ms)).is_ok()
        };
        assert_eq!([0, 0, 0, 499, 501, 502].map(take), [true, true, false, false, true, false]);
    }

    #[test]
    fn a_clock_that_is_not_the_machines_is_asked_itself() {
        let now = Instant::now();
        let (rates, clock) = gate(1, 1);
        assert!(rates.take_at(Bucket::Requests, now).is_ok());
        assert!(rates.take_at(Bucket::Requests, now + Duration::from_secs(9)).is_err());
        clock.advance(Duration::from_secs(1));
        assert!(rates.take_at(Bucket::Requests, now).is_ok());
    }

    proptest! {
        /// Over any pattern of arrivals no more passes than the burst plus what time has refilled.
        #[test]
        fn a_rate_holds_over_time(rate in 1u32..200, gaps in prop::collection::vec(0u64..50, 1..300)) {
            let (rates, clock) = gate(rate, 1000);
            let (mut passed, mut elapsed_ms) = (0u64, 0u64);
            for gap in gaps {
                clock.advance(Duration::from_millis(gap));
                elapsed_ms += gap;
                passed += u64::from(rates.take(Bucket::Requests).is_ok());
            }
            let most = u64::from(rate) + elapsed_ms * u64::from(rate) / 1000 + 1;
            prop_assert!(passed <= most, "{} passed, at most {} may", passed, most);
        }
    }
}
