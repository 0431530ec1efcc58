//! What of a project must be visible for a script of it to run, and what of it stays out.
//!
//! A project's folder holds more than code: `.env`, `.git`, `.ssh`. What begins with a dot is left out,
//! and so are files that are keys by their name. The rest is shown entry by entry.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::Context;

/// Most entries of one folder that are shown singly.
const MAX_ENTRIES: usize = 256;
const KEY_ENDINGS: [&str; 6] = ["pem", "key", "p12", "pfx", "keystore", "jks"];

/// Whether a file is a key or a set of passwords by its name.
fn is_secret(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    KEY_ENDINGS.contains(&ending) || name.starts_with("id_rsa") || name.starts_with("id_ed25519")
}

/// The entries of a project's folder, without hidden ones and keys, links resolved. Links that lead out of
/// the folder are left out.
pub(crate) fn project(folder: &Path) -> Vec<PathBuf> {
    entries(folder, |name, _| !is_secret(name))
}

/// The entries that `wanted` takes, of those that are not hidden.
pub(crate) fn entries(folder: &Path, wanted: impl Fn(&str, &Path) -> bool) -> Vec<PathBuf> {
    let Ok(folder) = folder.canonicalize() else { return Vec::new() };
    let listed = fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut shown: Vec<PathBuf> = listed
        .filter(|entry| {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { return false };
            !name.starts_with('.') && wanted(name, &entry.path())
        })
        .filter_map(|entry| entry.path().canonicalize().ok())
        .filter(|path| path.starts_with(&folder) && (path.is_dir() || path.is_file()))
        .collect();
    shown.sort();
    shown.dedup();
    shown.truncate(MAX_ENTRIES);
    shown
}

/// The nearest folder from `from` upwards that holds one of `marks`, not above what is too wide.
pub(crate) fn nearest(from: &Path, marks: &[&str], context: &Context) -> Option<PathBuf> {
    from.ancestors()
        .take_while(|folder| !context.is_too_wide(folder))
        .find(|folder| marks.iter().any(|mark| folder.join(mark).exists()))
        .map(Path::to_path_buf)
}
