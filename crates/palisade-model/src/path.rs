//! Paths as text, where the file system is not to be asked.

use std::path::{Component, Path, PathBuf};

/// Takes `.`, `..` and doubled slashes out of a path without looking at it: `..` is taken as if there were
/// no links. An absolute path never leaves the root.
///
/// ```
/// use palisade_model::path::lexically_normal;
/// use std::path::Path;
/// assert_eq!(lexically_normal(Path::new("/srv//a/./b/../c")), Path::new("/srv/a/c"));
/// assert_eq!(lexically_normal(Path::new("/../etc")), Path::new("/etc"));
/// ```
#[must_use]
pub fn lexically_normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}
