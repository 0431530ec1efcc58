//! Identities: who a plugin is, which run of it, and who acts.
//!
//! An identity is made by Palisade from what it did itself (the folder it opened, the connection it
//! made), never taken from a message.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Empty.
    #[error("an id may not be empty")]
    Empty,
    /// Longer than [`PluginId::MAX_LEN`].
    #[error("an id has at most {max} characters, this one has {got}", max = PluginId::MAX_LEN)]
    TooLong {
        /// Its length in bytes.
        got: usize,
    },
    /// A character outside the allowed set.
    #[error(
        "an id is made of a-z, 0-9, '-', '_' and '.', begins and ends with a letter or digit, and has no '..'; character {position} does not fit"
    )]
    BadCharacter {
        /// Its position, counted from 1.
        position: usize,
    },
}

/// A plugin's own name, as its manifest gives it: 1 to 64 characters of `a-z`, `0-9`, `-`, `_`, `.`,
/// beginning and ending with a letter or digit, never `..`. ASCII only, so that no two ids look alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PluginId(String);

impl PluginId {
    /// Longest id, in bytes.
    pub const MAX_LEN: usize = 64;

    /// Checks and wraps `text`.
    ///
    /// # Errors
    /// [`IdError`] says what does not fit.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > Self::MAX_LEN {
            return Err(IdError::TooLong { got: text.len() });
        }
        let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let last = text.len() - 1;
        let mut previous = 0u8;
        for (i, b) in text.bytes().enumerate() {
            let ok = edge(b)
                || (i != 0
                    && i != last
                    && matches!(b, b'-' | b'_' | b'.')
                    && !(b == b'.' && previous == b'.'));
            if !ok {
                return Err(IdError::BadCharacter { position: i + 1 });
            }
            previous = b;
        }
        Ok(Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PluginId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<PluginId> for String {
    fn from(id: PluginId) -> String {
        id.0
    }
}

impl fmt::Display for PluginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a plugin comes from. The same id from another origin is another plugin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Origin {
    /// A local folder: its real path and the uid that owns it.
    Folder {
        /// Path with every symlink resolved.
        path: String,
        /// Owner's user id on this host.
        owner: u32,
    },
    /// A command that stands for a plugin without a folder (an MCP server).
    Command {
        /// The command's real path.
        path: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder { path, owner } => {
                write!(f, "folder {} (uid {owner})", crate::text::escape(path, 400))
            }
            Self::Command { path } => write!(f, "command {}", crate::text::escape(path, 400)),
        }
    }
}

/// A plugin: its id and where it comes from. Grants, data and records are keyed by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PluginRef {
    /// The plugin's own name.
    pub id: PluginId,
    /// Where it comes from.
    pub origin: Origin,
}

impl fmt::Display for PluginRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)
    }
}

/// A machine that runs Palisade. `local` where there is only one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub std::sync::Arc<str>);

impl NodeId {
    /// This machine, where no cluster is configured.
    #[must_use]
    pub fn local() -> Self {
        Self("local".into())
    }
}

/// Which loaded version of a plugin: counts up with each load of changed code. Starts at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// One running (or ended) instance of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstanceId {
    /// The machine that runs it.
    pub node: NodeId,
    /// Which plugin.
    pub plugin: std::sync::Arc<PluginRef>,
    /// Which loaded version of it.
    pub generation: Generation,
    /// Counts the starts of this plugin on this host. Starts at 1.
    pub serial: u64,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}#{}.{}", self.plugin.id, self.node.0, self.generation.0, self.serial)
    }
}

/// Who acts. Made by the transport that knows, never read from a message body.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Principal {
    /// The program that embeds Palisade.
    Application,
    /// A person who runs the `palisade` command or the daemon's control socket, by user name or uid.
    Operator(String),
    /// A running plugin.
    Plugin(InstanceId),
    /// A named client of the server.
    Client(String),
    /// Another machine of the cluster.
    Node(NodeId),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Application => f.write_str("application"),
            Self::Operator(who) => write!(f, "operator {}", crate::text::escape(who, 64)),
            Self::Plugin(instance) => write!(f, "plugin {instance}"),
            Self::Client(name) => write!(f, "client {}", crate::text::escape(name, 64)),
            Self::Node(node) => write!(f, "node {}", crate::text::escape(&node.0, 64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_ascii_words() {
        for good in ["a", "word-counter", "org.example.x_1", "0x"] {
            assert!(PluginId::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "A", "-a", "a-", ".a", "a..b", "a b", "a/b", "../x", "а", "a\n", &"x".repeat(65)]
        {
            assert!(PluginId::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
