//! Finding and reading the manifest of a plugin's folder.
//!
//! The folder belongs to somebody who is not trusted: what looks like a manifest may be a link to a
//! secret, a FIFO that never ends, a device that acts when it is opened, or endless. So the file is
//! opened without following a link and without waiting, looked at through the opened handle, and read
//! up to a bound whatever its size is said to be.

use std::{
    fs::{File, FileType, OpenOptions},
    io::{self, Read as _},
    path::Path,
};

use palisade_model::text::escape;

use crate::{MAX_BYTES, Manifest, ManifestError, Syntax};

/// File names of a manifest.
pub const FILE_NAMES: [(&str, Syntax); 4] = [
    ("plugin.yaml", Syntax::Yaml),
    ("plugin.yml", Syntax::Yaml),
    ("plugin.toml", Syntax::Toml),
    ("plugin.json", Syntax::Json),
];

/// Manifests of other systems, for the hint when there is none of ours.
const FOREIGN_NAMES: [&str; 6] = [
    "nexus.plugin.json",
    "clawdbot.plugin.json",
    "manifest.yaml",
    "manifest.json",
    "package.json",
    "pyproject.toml",
];

/// A manifest as it lies in its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its file name.
    pub file_name: &'static str,
    /// Its syntax, as the file name says.
    pub syntax: Syntax,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Reads and checks the manifest of the plugin in `folder`.
///
/// # Errors
/// [`ManifestError`] says what is wrong, with line and column where the file could be read.
pub fn open(folder: &Path) -> Result<Manifest, ManifestError> {
    let source = read(folder)?;
    crate::parse_named(&source.bytes, source.syntax, source.file_name)
}

/// Reads the one manifest in `folder` without judging it.
///
/// # Errors
/// Every [`ManifestError`] but [`ManifestError::Invalid`].
pub fn read(folder: &Path) -> Result<Source, ManifestError> {
    let mut found = None;
    for (name, syntax) in FILE_NAMES {
        match folder.join(name).symlink_metadata() {
            Ok(_) => match found {
                None => found = Some((name, syntax)),
                Some((first, _)) => {
                    return Err(ManifestError::Ambiguous {
                        folder: shown(folder),
                        first,
                        second: name,
                    });
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(unreadable(&folder.join(name), &e)),
        }
    }
    let Some((file_name, syntax)) = found else { return Err(not_found(folder)) };
    let bytes = read_file(&folder.join(file_name))?;
    Ok(Source { file_name, syntax, bytes })
}

fn not_found(folder: &Path) -> ManifestError {
    match folder.metadata() {
        Err(e) => return unreadable(folder, &e),
        Ok(meta) if !meta.is_dir() => {
            return unreadable(folder, &io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(_) => {}
    }
    let create = "create plugin.yaml, plugin.toml or plugin.json that begins with api: palisade/1";
    let foreign =
        FOREIGN_NAMES.into_iter().find(|name| folder.join(name).symlink_metadata().is_ok());
    let hint = match foreign {
        Some(name) => format!("{create}; {name} is not read"),
        None => create.to_owned(),
    };
    ManifestError::NotFound { folder: shown(folder), hint }
}

/// Reads the regular file at `path`, which may not be a link and has at most [`MAX_BYTES`].
fn read_file(path: &Path) -> Result<Vec<u8>, ManifestError> {
    let not_regular = |what| ManifestError::NotRegular { file: shown(path), what };
    // Opening a device can already do something, so this looks first. It is a courtesy: what holds is
    // the look through the handle below, which nobody can swap for another file.
    let before = path.symlink_metadata().map_err(|e| unreadable(path, &e))?;
    if let Some(what) = not_a_regular_file(before.file_type()) {
        return Err(not_regular(what));
    }
    let file = open_without_following(path).map_err(|e| {
        if is_link_refusal(&e) { not_regular("a symbolic link") } else { unreadable(path, &e) }
    })?;
    let meta = file.metadata().map_err(|e| unreadable(path, &e))?;
    if let Some(what) = not_a_regular_file(meta.file_type()) {
        return Err(not_regular(what));
    }
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| unreadable(path, &e))?;
    if bytes.len() > MAX_BYTES {
        return Err(ManifestError::TooLarge { file: shown(path) });
    }
    Ok(bytes)
}

#[cfg(unix)]
fn open_without_following(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // open(2): O_NOFOLLOW fails on a link, O_NONBLOCK does not wait for a FIFO's writer.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

#[cfg(not(unix))]
fn open_without_following(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

/// Whether opening failed because the file is a link.
#[cfg(unix)]
fn is_link_refusal(error: &io::Error) -> bool {
    // ELOOP on Linux and macOS, EMLINK on FreeBSD.
    matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EMLINK))
}

#[cfg(not(unix))]
fn is_link_refusal(_: &io::Error) -> bool {
    false
}

fn not_a_regular_file(kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        return None;
    }
    if kind.is_symlink() {
        return Some("a symbolic link");
    }
    if kind.is_dir() {
        return Some("a folder");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        if kind.is_fifo() {
            return Some("a FIFO");
        }
        if kind.is_socket() {
            return Some("a socket");
        }
        if kind.is_char_device() || kind.is_block_device() {
            return Some("a device");
        }
    }
    Some("not a file")
}

fn unreadable(path: &Path, error: &io::Error) -> ManifestError {
    ManifestError::Unreadable { file: shown(path), why: escape(&error.to_string(), 200) }
}

fn shown(path: &Path) -> String {
    escape(&path.to_string_lossy(), 400)
}
