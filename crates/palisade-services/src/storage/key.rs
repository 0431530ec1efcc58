//! Keys and prefixes: names that a right can be held against, checked when they are read.

use std::borrow::Cow;

use palisade_model::{Access, Kind};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// Longest key in bytes.
pub const MAX_KEY: usize = 256;
const CHARACTERS: &str = "A-Z a-z 0-9 . _ - : / @ $ +";

fn is_key(text: &str) -> bool {
    Access::new(Kind::StorageKv, text).canonical_target().is_some()
}

/// The key of an entry: 1 to 256 characters of `A-Z a-z 0-9 . _ - : / @ $ +`, so that every key can be
/// named by a right `storage.kv:KEY`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    /// The key with this text, if it is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_key(text).then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if is_key(&text) {
            return Ok(Self(text));
        }
        Err(D::Error::custom(format!("a key has 1 to {MAX_KEY} characters of {CHARACTERS}")))
    }
}

impl JsonSchema for Key {
    fn schema_name() -> Cow<'static, str> {
        "Key".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Za-z0-9._:/@$+-]{1,256}$"})
    }
}

/// What the keys of a listing begin with: like a key, or empty for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The scope of a right that covers every key which begins so.
    pub(super) fn scope(&self) -> String {
        format!("{}*", self.0)
    }

    /// The least text that is greater than every key which begins so; `None`: there is none.
    pub(super) fn end(&self) -> Option<String> {
        // Keys are ASCII, so the next character is one, too.
        let mut bytes = self.0.clone().into_bytes();
        let last = bytes.last_mut()?;
        *last += 1;
        String::from_utf8(bytes).ok()
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() || is_key(&text) {
            return Ok(Self(text));
        }
        Err(D::Error::custom(format!("a prefix has up to {MAX_KEY} characters of {CHARACTERS}")))
    }
}

impl JsonSchema for Prefix {
    fn schema_name() -> Cow<'static, str> {
        "Prefix".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Za-z0-9._:/@$+-]{0,256}$"})
    }
}
