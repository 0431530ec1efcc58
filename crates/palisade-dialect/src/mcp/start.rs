//! The handshake and the list of tools: what a server is asked before it can be called.

use palisade_model::{Payload, text::escape};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{CURSOR_BYTES, INITIALIZE, PAGES, TOOL_NAME_CHARS, TOOLS, TOOLS_LIST, VERSIONS, codec};
use crate::DialectError;

fn payload(value: &serde_json::Value) -> Payload {
    Payload::from_json_text(value.to_string())
}

fn shape(method: &'static str, what: impl Into<String>) -> DialectError {
    DialectError::Shape { method, what: what.into() }
}

fn misfit(method: &'static str, error: &serde_json::Error) -> DialectError {
    shape(method, format!("does not fit: {}", escape(&error.to_string(), 200)))
}

/// The parameters of [`INITIALIZE`]: the newest version that is spoken, and no client feature.
#[must_use]
pub fn initialize_params() -> Payload {
    payload(&json!({
        "protocolVersion": VERSIONS[0],
        "capabilities": {},
        "clientInfo": { "name": "palisade", "version": env!("CARGO_PKG_VERSION") },
    }))
}

/// The line of [`super::INITIALIZED`].
///
/// # Errors
/// None in practice; as [`codec::encode_notification`].
pub fn initialized() -> Result<Vec<u8>, DialectError> {
    codec::encode_notification(super::INITIALIZED, &payload(&json!({})))
}

/// What a server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The version that it chose, one of [`VERSIONS`].
    pub version: &'static str,
    /// Its name and its version, each at most 128 characters, escaped; for logs only.
    pub party: Option<(String, String)>,
    /// Whether it has tools.
    pub has_tools: bool,
}

impl Server {
    /// Reads the answer to [`INITIALIZE`].
    ///
    /// # Errors
    /// [`DialectError::Shape`], and [`DialectError::Version`] for a version that is not spoken here.
    pub fn read(answer: &Payload) -> Result<Self, DialectError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Result<'a> {
            protocol_version: String,
            #[serde(borrow)]
            capabilities: Capabilities<'a>,
            server_info: Option<Info>,
        }
        #[derive(Deserialize)]
        struct Capabilities<'a> {
            #[serde(borrow)]
            tools: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Info {
            name: String,
            version: String,
        }
        let result: Result<'_> =
            serde_json::from_slice(answer.bytes()).map_err(|e| misfit(INITIALIZE, &e))?;
        let chosen = &result.protocol_version;
        let version = VERSIONS.into_iter().find(|v| v == chosen).ok_or_else(|| {
            DialectError::Version { chosen: escape(chosen, 64), spoken: VERSIONS.join(", ") }
        })?;
        // The mark of a cut is one character more.
        let shown = |text: &str| escape(text, 64).chars().take(128).collect::<String>();
        let party = result.server_info.map(|i| (shown(&i.name), shown(&i.version)));
        Ok(Self {
            version,
            party: party.filter(|(name, version)| !name.is_empty() && !version.is_empty()),
            has_tools: result.capabilities.tools.is_some(),
        })
    }
}

/// A list of tools while it is read, page by page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tools {
    names: Vec<String>,
    pages: usize,
    cursor: Option<String>,
}

impl Tools {
    /// The parameters of the next [`TOOLS_LIST`].
    #[must_use]
    pub fn params(&self) -> Payload {
        payload(&match &self.cursor {
            Some(cursor) => json!({ "cursor": cursor }),
            None => json!({}),
        })
    }

    /// Takes one page. Says whether there is another.
    ///
    /// # Errors
    /// [`DialectError::Shape`] for a page that is none, for more than [`PAGES`] or [`TOOLS`], and for
    /// names that are empty or longer than [`TOOL_NAME_CHARS`].
    pub fn page(&mut self, answer: &Payload) -> Result<bool, DialectError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Page {
            tools: Vec<Tool>,
            next_cursor: Option<String>,
        }
        #[derive(Deserialize)]
        struct Tool {
            name: String,
        }
        let page: Page =
            serde_json::from_slice(answer.bytes()).map_err(|e| misfit(TOOLS_LIST, &e))?;
        self.pages += 1;
        if self.names.len() + page.tools.len() > TOOLS {
            return Err(shape(TOOLS_LIST, format!("has more than {TOOLS} tools")));
        }
        for Tool { name } in page.tools {
            if name.is_empty() || name.chars().count() > TOOL_NAME_CHARS {
                let what = format!("has a name that is empty or longer than {TOOL_NAME_CHARS}");
                return Err(shape(TOOLS_LIST, what));
            }
            self.names.push(name);
        }
        if page.next_cursor.as_ref().is_some_and(|cursor| cursor.len() > CURSOR_BYTES) {
            let what = format!("has a cursor of more than {CURSOR_BYTES} bytes");
            return Err(shape(TOOLS_LIST, what));
        }
        self.cursor = page.next_cursor;
        if self.cursor.is_some() && self.pages >= PAGES {
            return Err(shape(TOOLS_LIST, format!("has more than {PAGES} pages")));
        }
        Ok(self.cursor.is_some())
    }

    /// The names, in the server's order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}
