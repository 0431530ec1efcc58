//! The files of a plugin whose manifest says which they are.
//!
//! A local folder can be changed by whoever may write to it, between any look at it and the start of what
//! lies in it. Where the manifest names the digest of the plugin's files (`content`), they are copied into
//! the state folder, to which nobody else can write, the copy is measured, and the plugin runs from the
//! copy. So the chain is whole: a person agrees to a manifest by its digest, the manifest names its files
//! by theirs, and what was measured is what runs, for every backend.
//!
//! ```text
//! content/<id>-<hash of origin>/lock              held while a copy is made or looked at
//! content/<id>-<hash of origin>/<manifest>/       the copy for the manifest with this digest
//! content/<id>-<hash of origin>/<manifest>.use    held by every host that has the plugin loaded
//! content/<id>-<hash of origin>/work/             a copy that is not finished
//! ```

mod folder;
mod walk;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use palisade_manifest::{Digest, Source};
use palisade_model::{PluginId, PluginRef};

use crate::{
    error::{HostError, shown, state_dir},
    state_dir::{create_private, folder_name},
};
use folder::Folder;
use walk::{Walk, Whose, changes};

/// The files of a folder, taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Survey {
    /// Their digest, as `content` in a manifest names it.
    pub digest: Digest,
    /// How many files and links there are.
    pub files: u64,
    /// How many bytes the files have.
    pub bytes: u64,
}

/// Measures the files of the plugin in `folder`: everything but its manifest, and but what is named
/// `.git`, `.hg`, `.svn` or `__pycache__`. Reads all of them: call it where blocking is allowed.
///
/// The digest is the SHA-256 of a list with one line for each file, sorted by the bytes of its path, in the
/// form of `sha256sum`: 64 hexadecimal digits, two spaces, the path with `/`, a line feed. A link has
/// `link:` before the digits, which are those of the text that it leads to. Modes, times, owners and empty
/// folders are no part of it.
///
/// # Errors
/// [`HostError::Folder`] where something cannot be read, is no file, folder or link, has a name that is
/// not UTF-8 or has control characters, or where there is more than 1 GiB, 200 000 files, or 64 folders
/// within each other.
pub fn survey(folder: &Path) -> Result<Survey, HostError> {
    Ok(Walk::over(folder, Whose::Author)?.survey())
}

/// A verified copy that is in use for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) root: PathBuf,
    _in_use: File,
}

/// Makes or finds the copy of the files in `from`, which must have the digest `wanted`. May block.
pub(crate) fn take_over(
    state: &Path,
    plugin: &PluginRef,
    from: &Path,
    wanted: Digest,
    (manifest, source): (Digest, Option<&Source>),
) -> Result<Sealed, HostError> {
    let all = state.join("content");
    let own = all.join(folder_name(plugin));
    for folder in [&all, &own] {
        create_private(folder, false).map_err(|e| state_dir(folder, e))?;
    }
    let _one_at_a_time = open_lock(&own.join("lock"))?;
    let name = manifest.hex();
    let copy = own.join(&name);
    let of_copy = Whose::Copy(source.map(|source| source.file_name));
    let found = Walk::over(from, Whose::Author)?;
    let digest = found.survey().digest;
    if digest != wanted {
        // What it was before, if it was ever taken over, says which files have changed.
        let known = Walk::over(&copy, of_copy).ok().filter(|known| known.survey().digest == wanted);
        let changes = known.map(|known| changes(&known, &found)).unwrap_or_default();
        return Err(HostError::Content { path: shown(from), wanted, found: digest, changes });
    }
    drop(found);
    // First: who sees the copy sees that it has one who uses it.
    let in_use = own.join(format!("{name}.use"));
    let handle = open_file(&in_use)?;
    handle.lock_shared().map_err(|e| state_dir(&in_use, e))?;
    if !is_whole(&copy, of_copy, wanted, source) {
        remove(&copy)?;
        make(&own.join("work"), &copy, from, wanted, source)?;
    }
    remove_unused(&own, Some(&name));
    Ok(Sealed { root: copy, _in_use: handle })
}

/// Removes the copies of a plugin that no host has loaded.
pub(crate) fn forget(state: &Path, id: &PluginId) {
    let Ok(entries) = fs::read_dir(state.join("content")) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let hash = name.to_str().and_then(|name| name.strip_prefix(id.as_str())?.strip_prefix('-'));
        if !hash.is_some_and(|h| h.len() == 16 && h.bytes().all(|b| b.is_ascii_hexdigit())) {
            continue;
        }
        if let Ok(_lock) = open_lock(&entry.path().join("lock")) {
            remove_unused(&entry.path(), None);
        }
    }
}

fn make(
    work: &Path,
    copy: &Path,
    from: &Path,
    wanted: Digest,
    source: Option<&Source>,
) -> Result<(), HostError> {
    remove(work)?;
    create_private(work, false).map_err(|e| state_dir(work, e))?;
    let differs = |found: Digest| match found == wanted {
        true => Ok(()),
        // It was changed since it was measured.
        false => {
            let (path, changes) = (shown(from), Vec::new());
            Err(HostError::Content { path, wanted, found, changes })
        }
    };
    let made = Walk::copying(from, work)
        .and_then(|walk| differs(walk.survey().digest))
        .and_then(|()| Walk::over(work, Whose::Copy(None)))
        .and_then(|walk| differs(walk.survey().digest))
        .and_then(|()| {
            let finished = || -> io::Result<()> {
                let folder = Folder::open(work)?;
                if let Some(source) = source {
                    let mut file = folder.make_file(source.file_name)?;
                    file.write_all(&source.bytes)?;
                    Folder::finish_file(&file)?;
                }
                folder.finish()?;
                fs::rename(work, copy)
            };
            finished().map_err(|e| state_dir(copy, e))
        });
    if made.is_err() {
        let _ = remove(work);
    }
    made
}

/// Whether the copy is there and is what it was when it was made.
fn is_whole(copy: &Path, of_copy: Whose<'_>, wanted: Digest, source: Option<&Source>) -> bool {
    let manifest = source.is_none_or(|source| {
        fs::read(copy.join(source.file_name)).is_ok_and(|bytes| bytes == source.bytes)
    });
    manifest && Walk::over(copy, of_copy).is_ok_and(|walk| walk.survey().digest == wanted)
}

/// Removes what is half done in `own`, and the copies that nobody holds, but `keep`. What cannot be removed
/// stays. The lock must be held.
fn remove_unused(own: &Path, keep: Option<&str>) {
    let _ = remove(&own.join("work"));
    let Ok(entries) = fs::read_dir(own) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let copy = name.strip_suffix(".use").unwrap_or(name);
        let is_one = copy.len() == 64 && copy.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_one || Some(copy) == keep {
            continue;
        }
        let in_use = own.join(format!("{copy}.use"));
        let Ok(handle) = open_file(&in_use) else { continue };
        if handle.try_lock().is_ok() && remove(&own.join(copy)).is_ok() {
            let _ = fs::remove_file(in_use);
        }
    }
}

/// Removes a copy, whatever was done to its modes: a plugin that shares the user's id can change them where
/// only Landlock holds it.
fn remove(folder: &Path) -> Result<(), HostError> {
    open_up(folder, 0);
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(state_dir(folder, e)),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn open_up(folder: &Path, depth: usize) {
    use std::os::unix::fs::PermissionsExt as _;
    if depth > walk::MAX_DEPTH || !fs::symlink_metadata(folder).is_ok_and(|meta| meta.is_dir()) {
        return;
    }
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path(), depth + 1);
        }
    }
}

#[cfg(not(unix))]
fn open_up(_: &Path, _: usize) {}

/// Waits until this process alone has the lock.
fn open_lock(path: &Path) -> Result<File, HostError> {
    let file = open_file(path)?;
    file.lock().map_err(|e| state_dir(path, e))?;
    Ok(file)
}

fn open_file(path: &Path) -> Result<File, HostError> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|e| state_dir(path, e))
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
