//! Payload: bytes with the name of their encoding.
//!
//! Lanes carry payloads and do not look inside; services and tools do. JSON is the default encoding.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// How a payload's bytes are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Encoding {
    /// UTF-8 JSON text (RFC 8259), one value.
    #[default]
    Json,
    /// Bytes with no structure that Palisade knows.
    Octets,
}

/// Bytes and their encoding. Cloning shares the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    bytes: Bytes,
    encoding: Encoding,
}

impl Payload {
    /// The JSON value `null`.
    #[must_use]
    pub fn null() -> Self {
        Self::from_json_text(Bytes::from_static(b"null"))
    }

    /// JSON text that the caller knows to be well formed (it was serialised or checked before).
    #[must_use]
    pub fn from_json_text(text: impl Into<Bytes>) -> Self {
        Self { bytes: text.into(), encoding: Encoding::Json }
    }

    /// Serialises `value` as JSON.
    ///
    /// # Errors
    /// When `value` cannot be represented as JSON (a map with keys that are not strings, say).
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_vec(value).map(Self::from_json_text)
    }

    /// Unstructured bytes.
    #[must_use]
    pub fn octets(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), encoding: Encoding::Octets }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes' encoding.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Reads the payload as JSON.
    ///
    /// # Errors
    /// When the bytes are not JSON of the shape of `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.bytes)
    }
}
