//! Making text of unknown origin safe to show to a person.
//!
//! Names, reasons, log lines and error texts come from plugins. Before one of them reaches a terminal
//! it passes through [`escape`], which leaves no control character, no bidirectional override and no
//! invisible character that could make the reader see something else than what is there.

use std::fmt::Write as _;

/// Escapes everything that could move the cursor, change colours, reorder or hide text. Line breaks and
/// tabs are escaped too. The result has at most `max_chars` characters of the original; what is cut is
/// marked with `…`.
///
/// ```
/// assert_eq!(palisade_model::text::escape("a\x1b[31mb\nc", 80), "a\\u{1b}[31mb\\nc");
/// ```
#[must_use]
pub fn escape(text: &str, max_chars: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max_chars.saturating_mul(2)));
    for (count, c) in text.chars().enumerate() {
        if count == max_chars {
            out.push('…');
            break;
        }
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_deceptive(c) => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// Whether `c` may change how the text around it is shown: control characters (C0, C1, DEL), line and
/// paragraph separators, bidirectional controls (UAX #9), zero-width and other invisible characters,
/// variation selectors, tags, noncharacters and private use.
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0x00AD | 0x034F | 0x061C | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F
            | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0x3164 | 0xFE00..=0xFE0F
            | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFB | 0xFFFE | 0xFFFF | 0xE000..=0xF8FF
            | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF | 0xF0000..)
}

/// Whether `text` mixes ASCII letters with letters of scripts that look like them (Cyrillic, Greek,
/// Armenian, Cherokee, full-width, mathematical letters). Shown to the reader as a warning beside the
/// name; this is a hint and not a proof (see Unicode TR 39).
#[must_use]
pub fn looks_mixed(text: &str) -> bool {
    let look_alike = |c: char| {
        matches!(u32::from(c), 0x0370..=0x052F | 0x0530..=0x058F | 0x13A0..=0x13FF | 0x1C80..=0x1C8F
            | 0x2C00..=0x2C7F | 0xA640..=0xA69F | 0xAB70..=0xABBF | 0xFF21..=0xFF5A | 0x1D400..=0x1D7FF)
    };
    text.chars().any(|c| c.is_ascii_alphabetic()) && text.chars().any(look_alike)
}

/// Of `candidates`, the one that takes the fewest edits to reach from `given`: at most a third of its
/// length and at most three. For "did you mean" hints.
#[must_use]
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given: Vec<char> = given.chars().take(64).collect();
    candidates
        .into_iter()
        .map(|c| (edit_distance(&given, c), c))
        .filter(|(d, c)| *d <= 3 && *d * 3 <= c.chars().count().max(3))
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// Levenshtein distance.
fn edit_distance(a: &[char], b: &str) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (j, cb) in b.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(j + 1);
        for ((ca, up), diagonal) in a.iter().zip(row.iter().skip(1)).zip(row.iter()) {
            let left = next.last().copied().unwrap_or(j + 1);
            next.push((diagonal + usize::from(*ca != cb)).min(up + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_or_the_reading_order_is_left() {
        for hostile in
            ["\x1b]0;x\x07", "a\u{202e}b", "\u{9b}31m", "x\u{200b}y", "l1\r\nl2", "\u{2066}"]
        {
            let shown = escape(hostile, 100);
            assert!(shown.chars().all(|c| !is_deceptive(c)), "{shown:?}");
            assert!(!shown.contains('\n'));
        }
        assert_eq!(escape("naïve 漢字 ok", 100), "naïve 漢字 ok");
    }

    #[test]
    fn cut_text_is_marked() {
        assert_eq!(escape("abcdef", 3), "abc…");
        assert_eq!(escape("abc", 3), "abc");
    }

    #[test]
    fn the_nearest_name_is_found_only_when_near() {
        assert_eq!(nearest("fs.raed", ["fs.read", "fs.write"]), Some("fs.read"));
        assert_eq!(nearest("memroy", ["memory", "pids"]), Some("memory"));
        assert_eq!(nearest("zzz", ["memory", "pids"]), None);
    }

    #[test]
    fn look_alike_letters_are_noticed() {
        assert!(looks_mixed("pаypal"), "the second letter is Cyrillic");
        assert!(!looks_mixed("paypal"));
        assert!(!looks_mixed("привет"));
    }
}
