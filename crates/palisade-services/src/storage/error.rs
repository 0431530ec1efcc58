//! What can go wrong with what plugins keep.

use std::path::{Path, PathBuf};

use palisade_model::{ErrorCode, Failure};

/// An error of the storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The folder cannot be created or used.
    #[error("{}: {cause}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file is not a database, or a damaged one.
    #[error("{} is damaged: {cause}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        cause: String,
    },
    /// The file was written by a newer version of Palisade.
    #[error("{} has format {found}; this version knows {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format of the file.
        found: i64,
        /// The newest format that is known here.
        known: i64,
    },
    /// The file cannot be read or written now.
    #[error("{}: {cause}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        cause: String,
    },
    /// What would be kept exceeds the quota.
    #[error(
        "storage would hold {wanted} bytes, more than the {quota} that the limit `disk` allows"
    )]
    Quota {
        /// How much there would be.
        wanted: u64,
        /// How much there may be.
        quota: u64,
    },
    /// No thread can be started to serve a file.
    #[error("no thread can be started for storage: {0}")]
    Thread(std::io::Error),
    /// So many plugins use their storage at once that no further file is opened.
    #[error("{0} plugins use their storage at this moment; no further one is opened")]
    Busy(usize),
    /// The host is closing, or the thread that serves the file has ended.
    #[error("the storage is closed")]
    Closed,
    /// Who asks is no plugin, so there is nothing that belongs to it.
    #[error("only a plugin has storage of its own")]
    NoPlugin,
}

/// What SQLite says, sorted into what can be done about it.
pub(super) fn sqlite(path: &Path, error: &rusqlite::Error) -> StorageError {
    use rusqlite::ErrorCode as Code;
    let path = path.to_owned();
    let cause = error.to_string();
    match error.sqlite_error_code() {
        Some(Code::DatabaseCorrupt | Code::NotADatabase) => StorageError::Damaged { path, cause },
        _ => StorageError::Database { path, cause },
    }
}

impl StorageError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Quota { .. } => ErrorCode::LimitExceeded,
            Self::NoPlugin => ErrorCode::Usage,
            Self::Folder { .. }
            | Self::Damaged { .. }
            | Self::Newer { .. }
            | Self::Database { .. }
            | Self::Thread(_)
            | Self::Busy(_)
            | Self::Closed => ErrorCode::Unavailable,
        }
    }
}

/// The file's name without its folder: where the host keeps it is not the plugin's business.
fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

impl From<&StorageError> for Failure {
    fn from(error: &StorageError) -> Failure {
        let code = error.code();
        match error {
            StorageError::Quota { .. } => Failure::new(code, error.to_string())
                .rule("limit disk")
                .hint("delete what is not needed, or ask the operator for a higher `disk` limit"),
            StorageError::Damaged { path, cause } => {
                let name = file_name(path);
                Failure::new(code, format!("the plugin's storage, {name}, is damaged: {cause}"))
                    .hint(format!(
                        "the operator stops the host, moves storage/{name} with its -wal and -shm out \
                         of the host's state folder, and starts again with an empty storage; \
                         `sqlite3 {name} .recover` reads what is left"
                    ))
            }
            StorageError::Newer { path, found, known } => {
                let name = file_name(path);
                let message = format!("{name} has format {found}; this version knows {known}");
                Failure::new(code, message)
                    .hint("use the version of Palisade that wrote it, or a newer one")
            }
            StorageError::Database { path, cause } => {
                let message = format!("the plugin's storage, {}: {cause}", file_name(path));
                Failure::new(code, message)
                    .hint("try again; the operator looks at disk and permissions")
            }
            StorageError::Folder { cause, .. } => {
                Failure::new(code, format!("the folder for storage cannot be used: {cause}"))
                    .hint("the operator looks at the host's state folder")
            }
            StorageError::Thread(_) => Failure::new(code, error.to_string())
                .hint("try again; the operator looks at the machine's limits on threads"),
            StorageError::Busy(_) => Failure::new(code, error.to_string()).hint("try again"),
            StorageError::Closed => Failure::new(code, error.to_string())
                .hint("a write may have been done or not; read before writing again"),
            StorageError::NoPlugin => {
                Failure::new(code, error.to_string()).hint("an application keeps its data itself")
            }
        }
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Failure {
        Failure::from(&error)
    }
}
