//! Time for records and rates: wall clock and monotonic clock, injected so that tests can set them.

#[cfg(any(target_os = "linux", not(unix)))]
use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Nanoseconds since 1970-01-01T00:00:00Z, leap seconds not counted. 0 for earlier moments.
    pub unix_ns: u64,
    /// Nanoseconds on a clock that is never set and never goes back (on Linux CLOCK_MONOTONIC, which
    /// starts with the machine). Comparable only within one boot.
    pub monotonic_ns: u64,
}

/// A source of time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Stamp;

    /// Nanoseconds on the monotonic clock alone, where that is cheaper than both.
    fn monotonic_ns(&self) -> u64 {
        self.now().monotonic_ns
    }

    /// [`Clock::monotonic_ns`] at a moment that somebody has read already, where that is cheaper than to
    /// read the clock again. A clock that is not the machine's gives its own time.
    fn monotonic_ns_at(&self, moment: Instant) -> u64 {
        let _ = moment;
        self.monotonic_ns()
    }
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Stamp {
        let unix_ns = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
        Stamp { unix_ns, monotonic_ns: monotonic_ns() }
    }

    fn monotonic_ns(&self) -> u64 {
        monotonic_ns()
    }

    // Elsewhere an `Instant` may be of a clock that stops while the machine sleeps.
    #[cfg(target_os = "linux")]
    fn monotonic_ns_at(&self, moment: Instant) -> u64 {
        // Both are CLOCK_MONOTONIC: one pair of readings tells how far they are apart.
        static PAIR: OnceLock<(Instant, u64)> = OnceLock::new();
        let (then, then_ns) = *PAIR.get_or_init(|| (Instant::now(), monotonic_ns()));
        let ns = |d: std::time::Duration| {
            d.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(d.subsec_nanos()))
        };
        match moment.checked_duration_since(then) {
            Some(after) => then_ns.saturating_add(ns(after)),
            None => then_ns.saturating_sub(ns(then.saturating_duration_since(moment))),
        }
    }
}

#[cfg(unix)]
fn monotonic_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(t.tv_nsec).unwrap_or(0))
}

/// Elsewhere the clock starts with its first use.
#[cfg(not(unix))]
fn monotonic_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Names this boot of the machine: Linux's random boot id (`random(4)`), elsewhere the process and its
/// start, which is narrower and never mistaken for another boot.
pub(crate) fn boot_id() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) if !id.trim().is_empty() => id.trim().chars().take(64).collect(),
        _ => format!("process-{}-{}", std::process::id(), SystemClock.now().unix_ns),
    }
}

/// `unix_ns` as RFC 3339 text in UTC with microseconds, `2026-11-20T21:12:37.123456Z`.
pub(crate) fn rfc3339(unix_ns: u64) -> String {
    let seconds = unix_ns / 1_000_000_000;
    let micros = unix_ns % 1_000_000_000 / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day % 3600 / 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Days since 1970-01-01 as year, month 1..=12 and day 1..=31 of the Gregorian calendar. The method is
/// Howard Hinnant's `civil_from_days` (<https://howardhinnant.github.io/date_algorithms.html>), for
/// days from 1970 on.
#[must_use]
pub fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // days since 0000-03-01
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_is_written_as_rfc_3339() {
        for (seconds, text) in [
            (0u64, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (1_795_209_157, "2026-11-20T21:12:37.000000Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1_000_000_000), text);
        }
        assert_eq!(rfc3339(1_234_567), "1970-01-01T00:00:00.001234Z");
    }

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let first = SystemClock.now();
        let second = SystemClock.now();
        assert!(second.monotonic_ns >= first.monotonic_ns);
        assert!(first.unix_ns > 1_500_000_000_000_000_000, "the wall clock is set");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_moment_that_was_read_is_the_same_on_the_monotonic_clock() {
        let clock = SystemClock;
        let early = Instant::now();
        for moment in [early, Instant::now(), Instant::now()] {
            let before = clock.monotonic_ns();
            let at = clock.monotonic_ns_at(moment);
            // Read before, and not long ago.
            assert!(at <= before + 1_000_000, "{at} {before}");
            assert!(at + 10_000_000_000 > before, "{at} {before}");
        }
        let between = std::time::Duration::from_secs(5);
        let gap = clock.monotonic_ns_at(early + between) - clock.monotonic_ns_at(early);
        assert_eq!(gap, 5_000_000_000);
    }
}
