//! The host's files in sight, as if the walls had no mount namespace: for tests that take that layer away.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use palisade_model::Kind;
use palisade_sandbox::SandboxError;

use super::tree::{Node, Tree, attr};
use crate::plan::{Bind, format};

/// Its own inside, whatever is shown: processes and devices are not files of the host, and the private folder
/// is there already.
const OWN: [&str; 3] = ["/proc", "/dev", "/tmp"];

impl Tree<'_> {
    /// Shows every folder of the host's root where nothing else stands, read-only. What lies beside a folder
    /// that is granted for writing is as writable as that, its owner shown as the plugin: so much, and no more,
    /// could be harmed. Landlock is told nothing of all this.
    pub(super) fn host(&mut self) -> Result<(), SandboxError> {
        for entry in fs::read_dir("/").into_iter().flatten().flatten() {
            let path = entry.path();
            let (Some(path), Ok(kind)) = (path.to_str(), entry.file_type()) else { continue };
            if OWN.contains(&path) || !self.is_free(path) {
                continue;
            }
            if kind.is_dir() {
                if is_for_everybody(path) {
                    self.put(path, Node::Bind(read_only(path)));
                }
            } else if let Some(target) = fs::read_link(path).ok().as_deref().and_then(Path::to_str)
            {
                self.put(path, Node::Link(target.to_owned()));
            }
        }
        for folder in self.folders_of(Kind::FsWrite) {
            let beside = Path::new(&folder).parent().and_then(Path::to_str);
            if let Some(beside) = beside.filter(|b| self.is_free(b)) {
                const ATTRIBUTES: u64 = attr::NOSUID | attr::NODEV | attr::NOEXEC;
                self.bind_unruled(beside, beside, ATTRIBUTES, true)?;
            }
        }
        Ok(())
    }
}

/// What its mode alone keeps from a plugin's user says nothing about the walls, and what the plugin needs from
/// below could not be put there.
fn is_for_everybody(folder: &str) -> bool {
    fs::metadata(folder).is_ok_and(|m| m.mode() & 0o001 != 0)
}

fn read_only(path: &str) -> Bind {
    Bind {
        source: path.into(),
        target: path.into(),
        attributes: attr::RDONLY | attr::NOSUID | attr::NODEV,
        flags: format::bind::RECURSIVE | format::bind::OPTIONAL,
        identity: (0, 0),
        idmap: None,
    }
}
