//! The client's file: read once, replaced whole, its backups beside it.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use palisade_model::{ErrorCode, Failure, text::escape};

use super::jsonc::{self, Node};
use crate::trouble::Trouble;

/// What is added to a file's name for its backup.
const BACKUP: &str = ".palisade-backup";
/// Most backups that are looked at.
const MAX_BACKUPS: usize = 32;

/// A path, safe to show.
pub(crate) fn shown(path: &Path) -> String {
    escape(&path.to_string_lossy(), 400)
}

fn io_trouble(path: &Path, what: &str, error: &io::Error) -> Trouble {
    let error = escape(&error.to_string(), 200);
    Trouble::usage(format!("{}: {what}: {error}", shown(path)))
}

/// A client's configuration as it was read.
pub(crate) struct Config {
    /// Where it really lies, every link followed.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    meta: fs::Metadata,
}

/// A backup that can be read.
pub(crate) struct Backup {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) root: Node,
}

impl Config {
    /// Reads a configuration.
    pub(crate) fn read(path: &Path) -> Result<Self, Trouble> {
        let real = path.canonicalize().map_err(|e| io_trouble(path, "it cannot be opened", &e))?;
        let file = File::open(&real).map_err(|e| io_trouble(&real, "it cannot be opened", &e))?;
        let meta = file.metadata().map_err(|e| io_trouble(&real, "it cannot be opened", &e))?;
        if !meta.is_file() {
            return Err(Trouble::usage(format!("{} is not a file", shown(&real))));
        }
        let text = read_text(file).map_err(|e| io_trouble(&real, "it cannot be read", &e))?;
        Ok(Self { path: real, text, meta })
    }

    /// Reads its text.
    pub(crate) fn parse(&self) -> Result<Node, Trouble> {
        jsonc::parse(&self.text).map_err(|e| self.misfit(e.line, e.column, e.what))
    }

    /// What is wrong with it, and where.
    pub(crate) fn misfit(&self, line: usize, column: usize, what: &str) -> Trouble {
        Trouble::usage(format!("{}:{line}:{column}: {}", shown(&self.path), escape(what, 300)))
    }

    /// Who else decides what the client starts.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let me = rustix::process::geteuid().as_raw();
        let mut look = |what: &str, meta: &fs::Metadata| {
            if meta.uid() != me && meta.uid() != 0 {
                warnings.push(format!("{what} belongs to uid {}, who can change it", meta.uid()));
            }
            // In a folder with the sticky bit only a file's owner can replace it.
            let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0;
            if meta.mode() & 0o022 != 0 && !sticky {
                warnings.push(format!(
                    "{what} can be written by others (mode {:o}); whoever does chooses what the client starts",
                    meta.mode() & 0o777
                ));
            }
        };
        look("the file", &self.meta);
        if let Some(meta) = self.path.parent().and_then(|folder| folder.metadata().ok()) {
            look("its folder", &meta);
        }
        warnings
    }

    fn beside(&self, added: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(added);
        PathBuf::from(name)
    }

    /// Writes the text as it was read into a file that only its owner can read. One that has the same
    /// text already will do.
    pub(crate) fn back_up(&self) -> Result<PathBuf, Trouble> {
        if let Some(same) = self.backups().into_iter().find(|backup| backup.text == self.text) {
            return Ok(same.path);
        }
        let stamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let stamped = format!("{BACKUP}-{}", stamp.as_secs());
        let again = format!("{stamped}-{}", stamp.subsec_nanos());
        for added in [BACKUP, &stamped, &again] {
            let path = self.beside(added);
            let created = File::options().write(true).create_new(true).mode(0o600).open(&path);
            let mut file = match created {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(io_trouble(&path, "the backup cannot be made", &e)),
            };
            let written = file
                .set_permissions(fs::Permissions::from_mode(0o600))
                .and_then(|()| self.give_owner(&file))
                .and_then(|()| file.write_all(self.text.as_bytes()))
                .and_then(|()| file.sync_all());
            if let Err(e) = written {
                let _ = fs::remove_file(&path);
                return Err(io_trouble(&path, "the backup cannot be written", &e));
            }
            return Ok(path);
        }
        Err(Trouble::usage(format!("{}: there are backups already", shown(&self.path))))
    }

    /// The backups that lie beside it, the newest first; only plain files that nobody but the owner of the
    /// configuration could have written.
    pub(crate) fn backups(&self) -> Vec<Backup> {
        let (Some(folder), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Vec::new();
        };
        let prefix = format!("{}{BACKUP}", name.to_string_lossy());
        let mut found: Vec<(SystemTime, PathBuf)> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .filter_map(|entry| {
                let meta = entry.path().symlink_metadata().ok()?;
                let mine =
                    meta.is_file() && meta.mode() & 0o022 == 0 && meta.uid() == self.meta.uid();
                mine.then(|| Some((meta.modified().ok()?, entry.path())))?
            })
            .collect();
        found.sort();
        let read = |(_, path): (SystemTime, PathBuf)| {
            let text = read_text(File::open(&path).ok()?).ok()?;
            let root = jsonc::parse(&text).ok()?;
            Some(Backup { path, text, root })
        };
        found.into_iter().rev().take(MAX_BACKUPS).filter_map(read).collect()
    }

    fn give_owner(&self, file: &File) -> io::Result<()> {
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::fchown(file, Some(self.meta.uid()), Some(self.meta.gid()))?;
        }
        Ok(())
    }

    /// Replaces the file whole: its readers see the old text or the new one. Owner and mode stay.
    pub(crate) fn replace(&self, text: &str) -> Result<(), Trouble> {
        let failed = |e: io::Error| io_trouble(&self.path, "it cannot be written", &e);
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let mut new = tempfile::Builder::new()
            .prefix(".palisade-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(folder)
            .map_err(failed)?;
        new.write_all(text.as_bytes()).map_err(failed)?;
        self.give_owner(new.as_file()).map_err(failed)?;
        let mode = fs::Permissions::from_mode(self.meta.mode() & 0o777);
        new.as_file().set_permissions(mode).map_err(failed)?;
        new.as_file().sync_all().map_err(failed)?;
        let now = File::open(&self.path).and_then(read_text).map_err(failed)?;
        if now != self.text {
            let message = format!("{} was changed by somebody else just now", shown(&self.path));
            return Err(Trouble::Failure(
                Failure::new(ErrorCode::Conflict, message).hint("run the command again"),
            ));
        }
        new.persist(&self.path).map_err(|e| failed(e.error))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

fn read_text(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(jsonc::MAX_LEN as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}
