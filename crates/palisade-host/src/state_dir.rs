//! The host's own folder: where it is, that nobody else can write to it, and each plugin's data
//! folder in it. What lies in a data folder belongs to the plugin and is never read here.

use std::path::{Path, PathBuf};

use palisade_model::PluginRef;
use sha2::{Digest as _, Sha256};

use crate::error::{HostError, state_dir};

/// The folder that is used where none is named: `$PALISADE_STATE_DIR`, for root `/var/lib/palisade`,
/// else `$XDG_STATE_HOME/palisade` or `~/.local/state/palisade` (XDG Base Directory Specification 0.8).
///
/// # Errors
/// [`HostError::NoStateDir`] where none of these is known.
pub fn default_state_dir() -> Result<PathBuf, HostError> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(path) = std::env::var_os("PALISADE_STATE_DIR").filter(|p| !p.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    if is_root() {
        return Ok(PathBuf::from("/var/lib/palisade"));
    }
    absolute("XDG_STATE_HOME")
        .map(|base| base.join("palisade"))
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state/palisade")))
        .or_else(|| absolute("LOCALAPPDATA").map(|base| base.join("palisade")))
        .ok_or(HostError::NoStateDir)
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

/// Creates `path` with mode 0700 where it does not exist, and gives its real path.
///
/// # Errors
/// [`HostError::StateDir`] where it cannot be created, belongs to somebody else, or may be written by
/// somebody else: whoever can write there can grant rights.
pub(crate) fn open(path: &Path) -> Result<PathBuf, HostError> {
    create_private(path, true).map_err(|e| state_dir(path, e))?;
    let real = path.canonicalize().map_err(|e| state_dir(path, e))?;
    check_owner(&real)?;
    Ok(real)
}

#[cfg(unix)]
fn check_owner(path: &Path) -> Result<(), HostError> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = path.metadata().map_err(|e| state_dir(path, e))?;
    if !meta.is_dir() {
        return Err(state_dir(path, "is not a folder"));
    }
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me {
        return Err(state_dir(path, format_args!("belongs to uid {}, not to {me}", meta.uid())));
    }
    if meta.mode() & 0o022 != 0 {
        let mode = meta.mode() & 0o7777;
        return Err(state_dir(
            path,
            format_args!("may be written by others (mode {mode:o}); chmod 700 it"),
        ));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_owner(_: &Path) -> Result<(), HostError> {
    Ok(())
}

/// Creates a folder that only its owner may enter; one that exists stays as it is.
pub(crate) fn create_private(path: &Path, parents: bool) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(parents);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Where a plugin's data lies: `data/<id>-<hash of origin>`, so that a plugin of the same name from
/// another origin never finds it.
pub(crate) fn data_dir(state: &Path, plugin: &PluginRef) -> PathBuf {
    state.join("data").join(folder_name(plugin))
}

/// The name of a folder that belongs to one plugin of one origin.
pub(crate) fn folder_name(plugin: &PluginRef) -> String {
    let hash = Sha256::digest(plugin.origin.to_string());
    let mut name = format!("{}-", plugin.id);
    for byte in hash.iter().take(8) {
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

/// Creates a plugin's data folder where it does not exist.
pub(crate) fn create_data_dir(path: &Path) -> Result<(), HostError> {
    if let Some(parent) = path.parent() {
        create_private(parent, false).map_err(|e| state_dir(parent, e))?;
    }
    create_private(path, false).map_err(|e| state_dir(path, e))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use palisade_model::{Origin, PluginId};

    use super::*;

    #[test]
    fn the_state_folder_is_private_and_one_that_is_not_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("a/b");
        open(&dir).unwrap();
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o770)).unwrap();
        let error = open(&dir).unwrap_err().to_string();
        assert!(error.contains("may be written by others (mode 770)"), "{error}");
        let file = tmp.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(open(&file), Err(HostError::StateDir { .. })));
    }

    #[test]
    fn data_of_two_origins_never_meets() {
        let plugin = |path: &str| PluginRef {
            id: PluginId::parse("a").unwrap(),
            origin: Origin::Folder { path: path.into(), owner: 0 },
        };
        let state = Path::new("/state");
        assert_ne!(data_dir(state, &plugin("/x")), data_dir(state, &plugin("/y")));
        assert_eq!(data_dir(state, &plugin("/x")), data_dir(state, &plugin("/x")));
    }
}
