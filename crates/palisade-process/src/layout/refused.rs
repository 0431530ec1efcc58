//! Rights that these walls cannot make true, and paths that are not shown.

use std::{fs, path::Path};

use palisade_model::{Capability, Kind};
use palisade_sandbox::SandboxError;

use super::DATA;
use crate::runtime::PLUGIN;

/// Folders that cannot be granted: they are the wall's own, or the kernel's.
const RESERVED: [&str; 9] = ["/", "/proc", "/sys", "/dev", "/tmp", "/run", PLUGIN, DATA, "/etc"];

/// Why a right cannot be made true by these walls; `None` if it can.
pub(crate) fn unsupported(right: &Capability, namespaces: bool) -> Option<String> {
    use palisade_model::Enforcement;
    match right.kind().enforcement() {
        Enforcement::Egress if namespaces => return None,
        Enforcement::Egress => {
            return Some(
                "without a network namespace there is no way out that only this plugin can take"
                    .into(),
            );
        }
        Enforcement::Link => return Some("only WebAssembly backends link imports".into()),
        Enforcement::Broker | Enforcement::Registration => return None,
        Enforcement::Mount => {}
    }
    match right.kind() {
        Kind::Gpu => Some("these walls cannot share a GPU safely".into()),
        Kind::FsRead | Kind::FsWrite | Kind::Exec | Kind::Device => {
            let path = right.path().map(|p| p.path())?;
            let device = right.kind() == Kind::Device;
            let reserved = is_reserved(path) && !(device && path.starts_with("/dev/"));
            reserved.then(|| {
                format!("{path} is part of the wall itself (or all of the machine); grant the folders that are needed")
            })
        }
        _ => None,
    }
}

/// Whether a path is the wall's own, the kernel's, or all of the machine.
pub(super) fn is_reserved(path: &str) -> bool {
    RESERVED.contains(&path)
        || ["/proc", "/sys", "/dev", PLUGIN, DATA].iter().any(|r| Path::new(path).starts_with(r))
}

/// What stands at a path that is to be shown. A link is refused: what it leads to may change.
pub(super) fn checked(path: &str) -> Result<fs::Metadata, SandboxError> {
    let error =
        |what: String| SandboxError::Path { path: palisade_model::text::escape(path, 300), what };
    let meta = fs::symlink_metadata(path).map_err(|e| error(e.to_string()))?;
    if meta.file_type().is_symlink() {
        return Err(error("is a symbolic link; grant what it leads to".into()));
    }
    Ok(meta)
}

/// Refuses a granted path with a link anywhere in it, where it is not bound and the helper does not look.
pub(super) fn plain(path: &str) -> Result<(), SandboxError> {
    checked(path)?;
    if fs::canonicalize(path).is_ok_and(|real| real == Path::new(path)) {
        return Ok(());
    }
    let what = "a symbolic link stands in the path; grant what it leads to".to_owned();
    Err(SandboxError::Path { path: palisade_model::text::escape(path, 300), what })
}
