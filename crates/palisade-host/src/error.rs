//! What can go wrong while a host is built and a plugin is loaded.
//!
//! Operations on a loaded plugin answer with [`Failure`]; building and loading answer with this enum,
//! so that a caller can show a manifest's findings with line and column.

use palisade_broker::BrokerError;
use palisade_manifest::{Digest, ManifestError};
use palisade_model::{ErrorCode, Failure, Origin, PluginId, text::escape};

/// An error of the host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The state folder cannot be used.
    #[error("state folder {path}: {what}")]
    StateDir {
        /// The folder, escaped.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// No state folder was named and none can be derived.
    #[error("no state folder: neither PALISADE_STATE_DIR, XDG_STATE_HOME nor HOME is set")]
    NoStateDir,
    /// The host's database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A service could not be registered.
    #[error(transparent)]
    Service(#[from] BrokerError),
    /// The manifest cannot be taken.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The plugin's folder cannot be used.
    #[error("plugin folder {path}: {what}")]
    Folder {
        /// The folder, escaped.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The plugin's files are not those that its manifest names.
    #[error(
        "the files in {path} are not those that its manifest names: {}their digest is {found}, and content says {wanted}",
        in_words(changes)
    )]
    Content {
        /// The plugin's folder, escaped.
        path: String,
        /// What the manifest says.
        wanted: Digest,
        /// What was found.
        found: Digest,
        /// What has changed since the files were last right, where that is known.
        changes: Vec<String>,
    },
    /// The same id is known from another origin.
    #[error(
        "plugin {id} is known from {known}, and this one comes from {new}; two origins cannot share an id"
    )]
    OriginConflict {
        /// The id.
        id: PluginId,
        /// Where the known plugin comes from.
        known: Origin,
        /// Where the refused one comes from.
        new: Origin,
    },
    /// The plugin runs, and what is on disk now is not what was loaded.
    #[error(
        "plugin {0} is running and its manifest or configuration has changed; stop it before it is loaded again"
    )]
    ChangedWhileRunning(PluginId),
    /// The configuration does not fit the plugin's schema.
    #[error("the configuration of {id} does not fit its schema: {what}")]
    Config {
        /// The plugin.
        id: PluginId,
        /// The first findings.
        what: String,
    },
    /// The manifest declares what the entry's dialect has no message for.
    #[error(
        "plugin {id} declares {what} ({name} in {place}), and the dialect {dialect} of its entry has none"
    )]
    Unsupported {
        /// The plugin.
        id: PluginId,
        /// The dialect: `jsonl`, `mcp` or `extism`.
        dialect: &'static str,
        /// What it lacks: hooks, commands or events.
        what: &'static str,
        /// Where the manifest declares it.
        place: &'static str,
        /// The first of them, escaped.
        name: String,
    },
    /// The gate refused, or the host is gone.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl HostError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::StateDir { .. } | Self::NoStateDir | Self::Folder { .. } => ErrorCode::Usage,
            Self::Store(error) => error.code(),
            Self::Service(_) | Self::OriginConflict { .. } | Self::ChangedWhileRunning(_) => {
                ErrorCode::Conflict
            }
            Self::Manifest(error) => error.code(),
            Self::Content { .. } => ErrorCode::Denied,
            Self::Config { .. } => ErrorCode::InvalidParams,
            Self::Unsupported { .. } => ErrorCode::ManifestInvalid,
            Self::Failure(failure) => failure.code,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::StateDir { .. } | Self::NoStateDir => {
                Some("name a folder of your own in PALISADE_STATE_DIR".into())
            }
            Self::Store(error) => Some(error.hint().into()),
            Self::Service(_) | Self::Folder { .. } => None,
            Self::Manifest(error) => error.hint(),
            Self::Content { .. } => Some(
                "if the change is yours, palisade seal DIR writes the new digest; otherwise get the plugin anew from where it came"
                    .into(),
            ),
            Self::OriginConflict { .. } => Some(
                "give one of them another id, or let the host forget the known one (its grants go with it)"
                    .into(),
            ),
            Self::ChangedWhileRunning(_) => Some("stop the plugin first".into()),
            Self::Config { .. } => Some("the manifest's config.schema says what fits".into()),
            Self::Unsupported { place, .. } => Some(format!(
                "take it out of {place}, or let the plugin speak the plugin protocol (entry kinds python, node, exec)"
            )),
            Self::Failure(failure) => failure.hint.clone(),
        }
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Failure {
        match error {
            HostError::Failure(failure) => failure,
            HostError::Manifest(error) => error.into(),
            other => {
                let mut failure = Failure::new(other.code(), other.to_string());
                if matches!(other, HostError::Content { .. }) {
                    failure = failure.rule("content");
                }
                match other.hint() {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
        }
    }
}

/// An error of `host.db`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process holds the database for longer than the host waits.
    #[error("host.db is locked by another process")]
    Locked,
    /// The file is not a database, or is damaged.
    #[error("host.db is damaged: {0}")]
    Corrupt(String),
    /// It was written by a newer Palisade.
    #[error("host.db has schema {found}, and this version of Palisade knows schemas up to {known}")]
    TooNew {
        /// The file's schema version.
        found: i64,
        /// The highest known one.
        known: i64,
    },
    /// All plugin numbers are taken.
    #[error("this host has seen 65533 plugins, which is the most it can tell apart")]
    Full,
    /// SQLite answered with another error.
    #[error("host.db: {0}")]
    Sqlite(rusqlite::Error),
    /// The plugin was forgotten after this handle to it was made.
    #[error("the host has forgotten this plugin")]
    Forgotten,
    /// The host is stopping.
    #[error("the host is stopping")]
    Stopping,
}

impl StoreError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Locked | Self::Forgotten | Self::Stopping => ErrorCode::Unavailable,
            Self::Full => ErrorCode::LimitExceeded,
            Self::Corrupt(_) | Self::TooNew { .. } | Self::Sqlite(_) => ErrorCode::Internal,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Locked => "end the other process, or use another state folder",
            Self::Corrupt(_) => {
                "move host.db away; all grants have to be given again and nothing else is lost"
            }
            Self::TooNew { .. } => "use the newer version of Palisade, or another state folder",
            Self::Full => "use another state folder",
            Self::Sqlite(_) => "see whether the disk is full or read-only",
            Self::Forgotten => "load it again",
            Self::Stopping => "nothing has to be done",
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as C;
        match error.sqlite_error_code() {
            Some(C::DatabaseBusy | C::DatabaseLocked) => Self::Locked,
            Some(C::NotADatabase | C::DatabaseCorrupt) => Self::Corrupt(error.to_string()),
            _ => Self::Sqlite(error),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::new(error.code(), error.to_string()).hint(error.hint())
    }
}

/// What has changed, before the rest of the sentence.
fn in_words(changes: &[String]) -> String {
    if changes.is_empty() { String::new() } else { format!("{}; ", changes.join(", ")) }
}

/// A path for people.
pub(crate) fn shown(path: &std::path::Path) -> String {
    escape(&path.to_string_lossy(), 400)
}

/// A failure of the operating system with the state folder.
pub(crate) fn state_dir(path: &std::path::Path, what: impl std::fmt::Display) -> HostError {
    HostError::StateDir { path: shown(path), what: what.to_string() }
}
