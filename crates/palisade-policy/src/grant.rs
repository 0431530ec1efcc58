//! What a manifest asks for, and what somebody approved.

use palisade_model::{Capability, CapabilitySet, Principal};
use serde::{Deserialize, Serialize};

use crate::Unused;

/// What a manifest asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// Without these the plugin does not start.
    pub required: CapabilitySet,
    /// Without these it does less.
    pub optional: CapabilitySet,
}

impl Requested {
    /// Everything that is asked for, required first.
    pub fn all(&self) -> impl Iterator<Item = &Capability> + '_ {
        self.required.iter().chain(self.optional.iter())
    }

    /// Required and optional together.
    #[must_use]
    pub fn union(&self) -> CapabilitySet {
        self.all().cloned().collect()
    }
}

/// A capability that somebody approved, for one manifest. A changed manifest has another digest and has
/// to be approved again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// What was approved; may be narrower or wider than what is asked.
    pub capability: Capability,
    /// Who approved it.
    pub by: Principal,
    /// When, in seconds since 1970-01-01T00:00:00Z.
    pub at: u64,
    /// The first second in which it no longer counts, on the same clock; `None` for no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// SHA-256 of the manifest it was given for. Text form: 64 lower-case hexadecimal digits.
    #[serde(with = "hex32")]
    pub manifest_digest: [u8; 32],
}

impl Grant {
    /// Whether the grant counts at `now` (seconds since 1970) for the manifest with this digest.
    ///
    /// # Errors
    /// [`Unused::OtherManifest`] or [`Unused::Expired`], which says why it does not.
    pub fn counts(&self, now: u64, digest: &[u8; 32]) -> Result<(), Unused> {
        if self.manifest_digest != *digest {
            return Err(Unused::OtherManifest);
        }
        match self.until {
            Some(until) if now >= until => Err(Unused::Expired { until }),
            _ => Ok(()),
        }
    }
}

/// 32 bytes as 64 hexadecimal digits.
mod hex32 {
    use std::{borrow::Cow, fmt::Write as _};

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], s: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(64);
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        s.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 32], D::Error> {
        let text = Cow::<'de, str>::deserialize(d)?;
        parse(&text).ok_or_else(|| D::Error::custom("a digest is 64 lower-case hexadecimal digits"))
    }

    fn parse(text: &str) -> Option<[u8; 32]> {
        let digit = |b: &u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return None;
        }
        let mut out = [0; 32];
        for (byte, [high, low]) in out.iter_mut().zip(pairs) {
            *byte = (digit(high)? << 4) | digit(low)?;
        }
        Some(out)
    }
}
