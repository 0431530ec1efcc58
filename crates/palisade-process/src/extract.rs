//! Writing the embedded helper to a file, to be installed.

use std::{
    fs::{DirBuilder, OpenOptions},
    hash::{BuildHasher as _, RandomState},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use palisade_sandbox::SandboxError;

use crate::spawner::HELPER;

/// Writes the helper into a new folder below `parent`. The folder's name cannot be guessed and the folder is
/// made here, so nobody else has put anything there.
pub(crate) fn extract(parent: &Path) -> Result<PathBuf, SandboxError> {
    let name = format!("palisade-helper-{:016x}", RandomState::new().hash_one(std::process::id()));
    let folder = parent.join(name);
    let path = folder.join("palisade-helper");
    write(&folder, &path).map_err(|e| SandboxError::step("writing the helper", e))?;
    Ok(path)
}

fn write(folder: &Path, path: &Path) -> io::Result<()> {
    // mkdir(2) fails where something is there already, a link too.
    DirBuilder::new().mode(0o700).create(folder)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(path)?;
    file.write_all(HELPER)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_helper_is_written_where_only_its_owner_comes() {
        let parent = tempfile::tempdir().unwrap();
        let path = extract(parent.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), HELPER);
        let mode = |p: &Path| p.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(mode(&path), 0o755);
        assert_ne!(extract(parent.path()).unwrap(), path);
    }
}
