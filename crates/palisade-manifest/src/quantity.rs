//! Sizes, durations and rates as people write them: `128MiB`, `500ms`, `100/s`.
//!
//! Whole numbers only, so that nothing has to be rounded; no space is needed before the unit and one is
//! allowed.

use std::time::Duration;

/// Units of size with their bytes.
const SIZES: [(&str, u64); 7] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Units of time with their milliseconds.
const TIMES: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// How a size is written, for error texts.
pub(crate) const SIZE_FORM: &str =
    "a size: bytes, or a whole number with kB, MB, GB, KiB, MiB or GiB";
/// How a duration is written.
pub(crate) const TIME_FORM: &str = "a duration: seconds, or a whole number with ms, s, m, h or d";
/// How a rate is written.
pub(crate) const RATE_FORM: &str = "a rate per second: a whole number, or one followed by /s";

/// A whole number and what follows it.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.strip_prefix(' ').unwrap_or(unit)))
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = split(text)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// Bytes.
pub(crate) fn size(text: &str) -> Option<u64> {
    scaled(text, &SIZES)
}

/// A duration with its unit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    scaled(text, &TIMES).map(Duration::from_millis)
}

/// So many a second.
pub(crate) fn rate(text: &str) -> Option<u64> {
    match split(text)? {
        (number, "/s") => Some(number),
        _ => None,
    }
}

/// Bytes in the largest binary unit that holds them whole.
pub(crate) fn show_size(bytes: u64) -> String {
    for (unit, factor) in SIZES.iter().rev().filter(|(unit, _)| unit.contains('i')) {
        if bytes >= *factor && bytes.is_multiple_of(*factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes}B")
}

/// A duration in the largest unit that holds it whole. Parts of a millisecond are not shown.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    for (unit, factor) in TIMES.iter().rev() {
        if ms >= *factor && ms.is_multiple_of(*factor) {
            return format!("{}{unit}", ms / factor);
        }
    }
    format!("{ms}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_what_they_say() {
        assert_eq!(size("128MiB"), Some(128 << 20));
        assert_eq!(size("1 GB"), Some(1_000_000_000));
        assert_eq!(size("7B"), Some(7));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(rate("100/s"), Some(100));
        for bad in [
            "",
            "MiB",
            "1.5GiB",
            "-1MiB",
            "1mib",
            "1M",
            "1  MiB",
            "1MiB ",
            "99999999999GiB",
            "١MiB",
        ] {
            assert_eq!(size(bad), None, "{bad:?}");
        }
        for bad in ["5", "5 sec", "1y", "0x5s", "100/m", "18446744073709551615d"] {
            assert_eq!(duration(bad), None, "{bad:?}");
            assert_eq!(rate(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for bytes in [0, 1, 1023, 1024, 4096, 128 << 20, (1 << 30) + 1, 3 << 30] {
            assert_eq!(size(&show_size(bytes)), Some(bytes));
        }
        for ms in [0, 1, 999, 1000, 90_000, 3_600_000, 86_400_000] {
            let time = Duration::from_millis(ms);
            assert_eq!(duration(&show_duration(time)), Some(time));
        }
    }
}
