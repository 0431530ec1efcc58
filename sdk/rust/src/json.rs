//! JSON as texts that may be sent: what is too deep, too long or half a character is refused here, before it
//! ends a connection. Also the lock that the crate uses.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::PalisadeError;

/// One message, bytes without the line break.
pub(crate) const FRAME_BYTES: usize = 4 << 20;
/// Deepest nesting; the message itself is the first level.
const DEPTH_LEVELS: usize = 64;

/// Locks. A panic elsewhere leaves nothing half done behind the locks of this crate.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// JSON text that may stand in a message, one level deep, or `PAL-PARAMS`.
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, PalisadeError> {
    let mut text = serde_json::to_string(value)
        .map_err(|e| PalisadeError::params(format!("not sendable: {e}")))?;
    if text.contains(['\n', '\r']) {
        // Only a `RawValue` has them, and only between its parts.
        text = text.replace(['\n', '\r'], " ");
    }
    check(&text, DEPTH_LEVELS - 1)?;
    Ok(text)
}

/// Refuses what would end the connection: better one failed request.
fn check(text: &str, levels: usize) -> Result<(), PalisadeError> {
    // So many levels take two characters each.
    if text.len() <= 2 * levels && !text.contains("\\u") {
        return Ok(());
    }
    let refuse = |why: String| Err(PalisadeError::params(format!("not sendable: {why}")));
    let (mut depth, mut in_string, mut bytes) = (0_usize, false, text.bytes().enumerate());
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => match bytes.next() {
                Some((_, b'u')) if is_half(text, at) => {
                    return refuse("half a surrogate pair".to_owned());
                }
                // The second half of a pair that is whole.
                Some((_, b'u'))
                    if unit(text, at).is_some_and(|u| (0xd800..0xdc00).contains(&u)) =>
                {
                    bytes.nth(9);
                }
                _ => {}
            },
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > levels {
                    return refuse(format!("nested more than {levels} deep"));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// The UTF-16 unit of the escape `\uXXXX` that stands here.
fn unit(text: &str, at: usize) -> Option<u32> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    u32::from_str_radix(digits, 16).ok()
}

/// Whether the escape here is half of a surrogate pair without the other half.
fn is_half(text: &str, at: usize) -> bool {
    match unit(text, at) {
        Some(0xd800..0xdc00) => !matches!(unit(text, at + 6), Some(0xdc00..0xe000)),
        Some(0xdc00..0xe000) => true,
        _ => false,
    }
}

/// A raw value of a text that is JSON already.
pub(crate) fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nesting_counts_from_the_message() {
        let nest = |levels: usize| raw("[".repeat(levels) + &"]".repeat(levels));
        assert!(to_json(&nest(63)).is_ok());
        assert!(to_json(&nest(64)).unwrap_err().message.contains("63 deep"));
        assert!(to_json(&"[".repeat(100)).is_ok(), "inside a text they are no levels");
        assert!(to_json(&vec!["[\\\""; 100]).is_ok());
    }

    #[test]
    fn half_a_pair_of_a_raw_value_is_refused_and_its_line_breaks_are_none() {
        let sendable = |text: &str| to_json(&raw(text.to_owned())).is_ok();
        assert!(!sendable(r#""\ud83d""#));
        assert!(!sendable(r#""\udE00""#));
        assert!(!sendable(r#""\ud83d\ud83d\ude00""#));
        assert!(sendable(r#""\ud83d\ude00\u00eb""#));
        assert!(sendable(r#""\\ud83d""#));
        assert_eq!(to_json(&raw("[1,\r\n2]".to_owned())).unwrap(), "[1,  2]");
        assert_eq!(to_json("\n😀\u{0}").unwrap(), "\"\\n😀\\u0000\"");
    }
}
