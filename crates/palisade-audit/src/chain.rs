//! What ties each line of the record to all lines before it.
//!
//! The last member of a line is `chain`: the SHA-256 of the `chain` of the line before (as the 64 digits that
//! stand there; 64 zeros before the first line) followed by the line without this member and without its line
//! break. So a line that is changed, taken out, put in or moved no longer fits, and whoever has noted a `chain`
//! can tell that everything up to it is as it was.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

/// Digits of a SHA-256.
const DIGITS: usize = 64;
/// What stands before them.
pub(crate) const MEMBER: &[u8] = b",\"chain\":\"";
/// What stands behind them.
const END: &[u8] = b"\"}";

/// The `chain` of a line: 64 hexadecimal digits, in small letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chain([u8; DIGITS]);

impl Chain {
    /// What the first line follows.
    pub const START: Self = Self([b'0'; DIGITS]);
    /// How many digits it has.
    pub(crate) const DIGITS: usize = DIGITS;

    /// The `chain` of the line after this one, which says `line` (without a `chain` of its own and without its
    /// line break).
    #[must_use]
    pub fn then(&self, line: &[u8]) -> Self {
        self.then_parts(&[line])
    }

    fn then_parts(&self, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new_with_prefix(self.0);
        for part in parts {
            hash.update(part);
        }
        let mut digits = [b'0'; DIGITS];
        for (two, byte) in digits.chunks_exact_mut(2).zip(hash.finalize()) {
            two.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        Self(digits)
    }

    /// Ends a line that was rendered at the end of `lines`, from `start` on, with its `chain`. `None`, and the
    /// line is left as it is, where it is no JSON object with a member.
    pub(crate) fn end_line(&self, lines: &mut Vec<u8>, start: usize) -> Option<Self> {
        let line = lines.get(start..)?;
        let next = self.then(line);
        if line.len() < 3 || line.last() != Some(&b'}') {
            return None;
        }
        lines.pop();
        lines.extend([MEMBER, &next.0, END].concat());
        Some(next)
    }

    fn digits(&self) -> &str {
        // Only digits ever come in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

fn digit(n: u8) -> u8 {
    if n < 10 { b'0' + n } else { b'a' + (n - 10) }
}

/// A line as it stands in the record, taken apart.
#[derive(Clone, Copy)]
pub(crate) struct Link<'a> {
    /// All before its `chain`.
    body: &'a [u8],
    /// Its `chain`.
    pub(crate) chain: Chain,
}

impl<'a> Link<'a> {
    /// `None` where the line does not end with a `chain`.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let (rest, digits) = line.strip_suffix(END)?.split_last_chunk::<DIGITS>()?;
        let chain = Chain::from_digits(digits)?;
        Some(Self { body: rest.strip_suffix(MEMBER)?, chain })
    }

    /// Whether its `chain` is the one that it must have after a line with that one.
    pub(crate) fn follows(&self, before: &Chain) -> bool {
        before.then_parts(&[self.body, b"}"]) == self.chain
    }
}

impl Chain {
    fn from_digits(digits: &[u8; DIGITS]) -> Option<Self> {
        digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f')).then_some(Self(*digits))
    }
}

/// A text that is no `chain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not 64 hexadecimal digits in small letters")]
pub struct NoChain;

impl FromStr for Chain {
    type Err = NoChain;

    fn from_str(text: &str) -> Result<Self, NoChain> {
        let digits = text.as_bytes().try_into().map_err(|_| NoChain)?;
        Self::from_digits(digits).ok_or(NoChain)
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digits())
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({self})")
    }
}

impl Serialize for Chain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.digits())
    }
}

impl<'de> Deserialize<'de> for Chain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A record of these lines, which have no `chain` yet.
    pub(crate) fn chained(lines: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<u8> {
        let (mut all, mut chain) = (Vec::new(), Chain::START);
        for line in lines {
            let start = all.len();
            all.extend(line.as_ref().bytes());
            chain = chain.end_line(&mut all, start).unwrap();
            all.push(b'\n');
        }
        all
    }

    /// A line with this number, and `more` members.
    pub(crate) fn line(seq: u64, more: &str) -> String {
        format!("{{\"seq\":{seq},\"boot\":\"b\",\"time\":\"t\",\"kind\":\"exit\"{more}}}")
    }

    #[test]
    fn it_can_be_made_by_hand() {
        // printf '%064d%s' 0 '{"a":1}' | sha256sum
        let by_hand = "fc6cee09194dd2578bd7664604fcb72a539066fd34544cea0009c43eb6cdc289";
        let mut lines = b"before\n{\"a\":1}".to_vec();
        let chain = Chain::START.end_line(&mut lines, 7).unwrap();
        assert_eq!(chain.to_string(), by_hand);
        assert_eq!(lines, format!("before\n{{\"a\":1,\"chain\":\"{by_hand}\"}}").into_bytes());
        let link = Link::parse(&lines[7..]).unwrap();
        assert!(link.follows(&Chain::START) && !link.follows(&chain));
        assert_eq!(by_hand.parse(), Ok(chain));
    }

    #[test]
    fn what_is_no_chain_is_none() {
        let digits = Chain::START.to_string();
        for text in ["", "0", &digits[1..], &format!("{digits}0"), &digits.replace('0', "A")] {
            assert_eq!(text.parse::<Chain>(), Err(NoChain), "{text}");
        }
        for line in [
            "",
            "{}",
            &format!("\"{digits}\"}}"),
            &format!("{{\"a\":1,\"chain\":\"{digits}\"}} "),
            &format!("{{\"a\":1,\"chain\":\"{}\"}}", &digits[1..]),
            &format!("{{\"a\":1,\"chain\": \"{digits}\"}}"),
        ] {
            assert!(Link::parse(line.as_bytes()).is_none(), "{line}");
        }
        // A text that looks like one is not the line's own.
        let inner = format!("{{\"a\":\"\\\",\\\"chain\\\":\\\"{digits}\\\"}}\"}}");
        assert!(Link::parse(inner.as_bytes()).is_none());
        for no_object in ["", "{}", "7"] {
            assert_eq!(Chain::START.end_line(&mut no_object.as_bytes().to_vec(), 0), None);
        }
    }
}
