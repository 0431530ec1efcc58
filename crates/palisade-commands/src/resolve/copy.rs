//! Taking over what a job left: copied, made read-only, and named by its content.
//!
//! The job's files are the words of a stranger: names of any bytes, links to anywhere, special files.
//! They are copied one by one, and what is no regular file, folder or link within the tree is left out.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{OpenOptionsExt, PermissionsExt, symlink},
    },
    path::{Component, Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// Most files, folders and links of one tree.
const MAX_ENTRIES: u64 = 400_000;
/// Most bytes of one tree.
const MAX_BYTES: u64 = 4 << 30;
/// Deepest folder of one tree.
const MAX_DEPTH: usize = 64;

/// Copies a tree and counts what it copied.
pub(super) struct Copier {
    entries: u64,
    bytes: u64,
}

impl Copier {
    pub(super) fn new() -> Self {
        Self { entries: 0, bytes: 0 }
    }

    /// Copies the folder `from`, which nobody writes to any more, to `to`, which is made. `skip` leaves
    /// out entries of the topmost folder.
    pub(super) fn folder(&mut self, from: &Path, to: &Path, skip: &[&str]) -> io::Result<()> {
        self.below(from, to, from, skip, 0)
    }

    fn below(
        &mut self,
        from: &Path,
        to: &Path,
        root: &Path,
        skip: &[&str],
        depth: usize,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("the package's folders are too deep"));
        }
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if depth == 0 && name.to_str().is_some_and(|n| skip.contains(&n)) {
                continue;
            }
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(io::Error::other(format!(
                    "the package has more than {MAX_ENTRIES} files"
                )));
            }
            let (source, target, kind) = (entry.path(), to.join(&name), entry.file_type()?);
            if kind.is_dir() {
                self.below(&source, &target, root, &[], depth + 1)?;
            } else if kind.is_symlink() {
                let link = fs::read_link(&source)?;
                if stays_within(root, from, &link) {
                    symlink(&link, &target)?;
                }
            } else if kind.is_file() {
                self.file(&source, &target)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let mut source = OpenOptions::new().read(true).custom_flags(NOFOLLOW).open(from)?;
        let executable = source.metadata()?.permissions().mode() & 0o111 != 0;
        let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        self.bytes += io::copy(&mut Read::take(&mut source, MAX_BYTES), &mut target)?;
        if self.bytes > MAX_BYTES {
            return Err(io::Error::other("the package is larger than 4 GiB"));
        }
        target.set_permissions(fs::Permissions::from_mode(if executable { 0o555 } else { 0o444 }))
    }
}

/// Whether a link in the folder `at` leads to a place below `root`, by its words alone.
fn stays_within(root: &Path, at: &Path, link: &Path) -> bool {
    let Ok(below) = at.strip_prefix(root) else { return false };
    let mut depth = below.components().count();
    for part in link.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

/// The digest of a tree: every path with its kind, and of files whether they are executable and what they
/// hold; of links where they lead. Times and owners are no part of it.
pub(super) fn digest(root: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut folders = vec![PathBuf::new()];
    let mut all = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(path.clone());
            }
            all.push((path, kind));
        }
    }
    all.sort_by(|a, b| a.0.as_os_str().as_bytes().cmp(b.0.as_os_str().as_bytes()));
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for (path, kind) in all {
        let full = root.join(&path);
        add(path.as_os_str().as_bytes());
        if kind.is_symlink() {
            add(b"link");
            add(fs::read_link(&full)?.as_os_str().as_bytes());
        } else if kind.is_dir() {
            add(b"folder");
        } else {
            let mut file = File::open(&full)?;
            let executable = file.metadata()?.permissions().mode() & 0o111 != 0;
            add(if executable { b"program" } else { b"file" });
            add(&content(&mut file)?);
        }
    }
    Ok(hex(&hash.finalize()))
}

fn content(file: &mut File) -> io::Result<Vec<u8>> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; 128 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        match buffer.get(..read) {
            Some([]) | None => return Ok(hash.finalize().to_vec()),
            Some(piece) => hash.update(piece),
        }
    }
}

/// Takes the right to write from all folders below and including `root`.
pub(super) fn seal(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            seal(&entry.path())?;
        }
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o555))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file that is there as a whole or not at all.
pub(super) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_folders_and_links_within_are_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/run"), "#!/bin/sh").unwrap();
        fs::set_permissions(from.join("a/run"), fs::Permissions::from_mode(0o6777)).unwrap();
        fs::write(from.join("skipped"), "").unwrap();
        symlink("../run", from.join("a/b/good")).unwrap();
        symlink("../../../x", from.join("a/b/out")).unwrap();
        symlink("/etc/passwd", from.join("absolute")).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, from.join("fifo"), fifo, 0o600.into(), 0).unwrap();
        Copier::new().folder(&from, &to, &["skipped"]).unwrap();
        let names = |folder: &str| {
            let mut names: Vec<_> =
                fs::read_dir(to.join(folder)).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(""), ["a"]);
        assert_eq!(names("a"), ["b", "run"]);
        assert_eq!(names("a/b"), ["good"]);
        assert_eq!(fs::metadata(to.join("a/run")).unwrap().permissions().mode() & 0o7777, 0o555);
    }

    #[test]
    fn the_digest_is_of_names_kinds_and_content() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir_all(root.join("a")).unwrap();
        fs::write(root.join("a/x"), "1").unwrap();
        let first = digest(&root).unwrap();
        assert_eq!(digest(&root).unwrap(), first);
        let mut seen = std::collections::BTreeSet::from([first.clone()]);
        fs::write(root.join("a/x"), "2").unwrap();
        assert!(seen.insert(digest(&root).unwrap()));
        fs::set_permissions(root.join("a/x"), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(seen.insert(digest(&root).unwrap()));
        fs::rename(root.join("a/x"), root.join("x")).unwrap();
        assert!(seen.insert(digest(&root).unwrap()));
        symlink("x", root.join("y")).unwrap();
        assert!(seen.insert(digest(&root).unwrap()));
        seal(&root).unwrap();
        assert_eq!(fs::metadata(root.join("a")).unwrap().permissions().mode() & 0o222, 0);
    }
}
