//! Machine code that was made behind the walls, kept for engines behind walls.
//!
//! A file is found by what it was made from: the WebAssembly, what it is (component or module), the engine
//! program that compiled it and which of its compilers, and the machine that it was compiled for. Its name carries a MAC over that and its content, with a key of this folder
//! alone, so that a file that was changed, put there by somebody else or renamed is not taken. The MAC says
//! that this host has taken the code out of a compiling run; it says nothing about what the code does, and
//! need not: the code is only mapped by a process behind walls, for which it may be anything.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::{fs::OFlags, io::Errno};
use sha2::{Digest as _, Sha256};

use super::hex;
use crate::{
    CompiledBy,
    ablation::{self, Layer},
    cache::file,
};

/// Largest file of machine code, in bytes.
pub(super) const MAX_CODE: u64 = 256 << 20;
/// Most bytes of all of them; the ones that were not used for longest go first.
const MAX_FOLDER: u64 = 2 << 30;
/// What all names are made of.
const DOMAIN: &str = "palisade wasm+process 2";

/// Where the code is kept.
#[derive(Default)]
pub(crate) struct Store(OnceLock<PathBuf>);

/// A file of machine code. One that is kept nowhere is gone with this value.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    is_spent: AtomicBool,
    own: Option<Own>,
}

impl Kept {
    fn new(path: PathBuf, bytes: u64, own: Option<Own>) -> Self {
        Self { path, bytes, is_spent: AtomicBool::new(false), own }
    }

    /// Whether another start finds it.
    pub(super) fn is_lasting(&self) -> bool {
        self.own.is_none()
    }

    /// There is better code now: the file is removed with this value, when no launch is about to be shown it.
    pub(super) fn spend(&self) {
        self.is_spent.store(true, Ordering::Release);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.is_spent.load(Ordering::Acquire) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// See [`Store::nothing`].
#[derive(Debug)]
pub(crate) struct Nothing {
    pub(crate) path: PathBuf,
    _own: Option<Own>,
}

/// A private folder that is removed with this value.
#[derive(Debug)]
struct Own(PathBuf);

impl Own {
    fn new() -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|e| io::Error::other(e.to_string()))?;
        let path = std::env::temp_dir().canonicalize()?.join(format!("palisade-{}", hex(&random)));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What code is found by.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Name([u8; 32]);

impl Name {
    /// Of the code that this compiler of the engine with this stamp makes of this WebAssembly on a machine with this
    /// hash ([`made_for`](crate::engine::made_for)).
    pub(crate) fn new(
        digest: &str,
        is_extism: bool,
        stamp: &str,
        machine: &[u8; 32],
        by: CompiledBy,
    ) -> Self {
        let mut name = Sha256::new();
        let what = match (is_extism, by) {
            (false, CompiledBy::Cranelift) => "component",
            (true, CompiledBy::Cranelift) => "module",
            (false, CompiledBy::Winch) => "component by Winch",
            (true, CompiledBy::Winch) => "module by Winch",
        };
        for part in [DOMAIN, what, digest, stamp] {
            name.update((part.len() as u64).to_le_bytes());
            name.update(part);
        }
        name.update(machine);
        Self(name.finalize().into())
    }
}

impl Store {
    pub(crate) fn keep_in(&self, folder: &Path) {
        let _ = self.0.set(folder.to_owned());
    }

    /// Whether code is there for another start.
    pub(crate) fn keeps(&self) -> bool {
        self.0.get().is_some()
    }

    /// A folder in which there is nothing, for walls that want to know where a plugin's data lies: an engine
    /// is not shown any.
    pub(crate) fn nothing(&self) -> io::Result<Nothing> {
        let lasting = |folder: &PathBuf| {
            let path = opened(folder)?.0.join("nothing");
            file::private_folder(&path)?;
            io::Result::Ok(path)
        };
        // Where nothing can be kept, plugins still run.
        if let Some(path) = self.0.get().and_then(|folder| lasting(folder).ok()) {
            return Ok(Nothing { path, _own: None });
        }
        let own = Own::new()?;
        Ok(Nothing { path: own.0.clone(), _own: Some(own) })
    }

    /// The code with this name, if it is there and this host's. What is not is removed;
    /// what cannot be read now is left.
    pub(crate) fn find(&self, name: &Name) -> Option<Arc<Kept>> {
        let folder = self.0.get()?;
        let (folder, key) = opened(folder).ok()?;
        let begin = format!("{}-", hex(&name.0));
        for entry in fs::read_dir(&folder).ok()?.flatten() {
            let file = entry.file_name();
            let Some(rest) = file.to_str().and_then(|file| file.strip_prefix(&begin)) else {
                continue;
            };
            let path = entry.path();
            match read(&path) {
                Ok(Some(code)) if is_ours(rest, &tag(&key, name, &code)) => {
                    let bytes = code.len() as u64;
                    return Some(Arc::new(Kept::new(path, bytes, None)));
                }
                Ok(_) => drop(fs::remove_file(path)),
                Err(_) => {}
            }
        }
        None
    }

    /// Keeps `code`; where that is not possible, until it is not used any more.
    pub(crate) fn put(&self, name: &Name, code: &[u8]) -> io::Result<Arc<Kept>> {
        let bytes = code.len() as u64;
        let kept = self.0.get().and_then(|folder| {
            let (folder, key) = opened(folder).ok()?;
            file::make_room(&folder, MAX_FOLDER, bytes).ok()?;
            let path = folder.join(format!("{}-{}.cwasm", hex(&name.0), tag(&key, name, code)));
            shown(&folder, &path, code).ok()?;
            Some(Kept::new(path, bytes, None))
        });
        if let Some(kept) = kept {
            return Ok(Arc::new(kept));
        }
        let own = Own::new()?;
        let path = own.0.join("code.cwasm");
        shown(&own.0, &path, code)?;
        Ok(Arc::new(Kept::new(path, bytes, Some(own))))
    }
}

/// The folder, every link resolved, and its key.
fn opened(folder: &Path) -> io::Result<(PathBuf, [u8; 32])> {
    file::private_folder(folder)?;
    let folder = folder.canonicalize()?;
    let key = file::key(&folder.join("key"))?;
    Ok((folder, key))
}

fn tag(key: &[u8; 32], name: &Name, code: &[u8]) -> String {
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    hex(&mac.chain_update(DOMAIN).chain_update(name.0).chain_update(code).finalize().into_bytes())
}

/// Whether a name ends as this host names code with this tag.
fn is_ours(rest: &str, tag: &str) -> bool {
    rest.strip_suffix(".cwasm") == Some(tag) || !ablation::has(Layer::Mac)
}

/// Writes a file that is readable for whoever it is shown to; the folder around it is private.
fn shown(folder: &Path, path: &Path, code: &[u8]) -> io::Result<()> {
    file::write(folder, path, &[code])?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Reads a file of the host's user; not through a link. `None` where it is not ours.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let mut file: File = match opened {
        Err(e) if e.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => return Ok(None),
        other => other?,
    };
    let meta = file.metadata()?;
    let own = meta.uid() == rustix::process::geteuid().as_raw();
    if !meta.is_file() || !own || meta.mode() & 0o022 != 0 || meta.len() > MAX_CODE {
        return Ok(None);
    }
    let mut code = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    (&mut file).take(MAX_CODE).read_to_end(&mut code)?;
    // Only decides what goes first when there is no room.
    let _ = file.set_modified(std::time::SystemTime::now());
    Ok(Some(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("wasm+process");
        let store = Store::default();
        store.keep_in(&folder);
        (dir, store, folder)
    }

    #[test]
    fn code_is_found_for_what_it_was_made_from_and_for_nothing_else() {
        let (_dir, store, _) = store();
        let here = [1; 32];
        let cranelift = CompiledBy::Cranelift;
        let name = Name::new("aa", false, "engine 1", &here, cranelift);
        assert!(store.find(&name).is_none());
        let kept = store.put(&name, b"code").unwrap();
        assert_eq!(fs::read(&kept.path).unwrap(), b"code");
        assert!(kept.is_lasting());
        assert_eq!(store.find(&name).unwrap().path, kept.path);
        for (digest, is_extism, stamp, machine, by) in [
            ("ab", false, "engine 1", here, cranelift),
            ("aa", true, "engine 1", here, cranelift),
            ("aa", false, "engine 2", here, cranelift),
            ("aa", false, "engine 1", here, CompiledBy::Winch),
            // A copied folder: the same engine on another machine.
            ("aa", false, "engine 1", [2; 32], cranelift),
        ] {
            assert!(store.find(&Name::new(digest, is_extism, stamp, &machine, by)).is_none());
        }
    }

    #[test]
    fn a_file_that_somebody_changed_or_put_there_is_removed() {
        let (_dir, store, folder) = store();
        let of = |digest| Name::new(digest, false, "e", &[1; 32], CompiledBy::Cranelift);
        let (name, other) = (of("aa"), of("bb"));
        let path = store.put(&name, b"code").unwrap().path.clone();
        fs::write(&path, b"other code").unwrap();
        assert!(store.find(&name).is_none());
        assert!(!path.exists());
        // One plugin's code under another's name.
        let theirs = store.put(&other, b"theirs").unwrap().path.clone();
        let tag = theirs.file_name().unwrap().to_str().unwrap().split_once('-').unwrap().1;
        let forged = folder.join(format!("{}-{tag}", hex(&name.0)));
        fs::copy(&theirs, &forged).unwrap();
        assert!(store.find(&name).is_none());
        assert!(!forged.exists());
        assert!(store.find(&other).is_some());
        // With another key, nothing that was there counts.
        fs::remove_file(folder.join("key")).unwrap();
        assert!(store.find(&other).is_none());
    }

    #[test]
    fn without_a_folder_code_lives_as_long_as_it_is_used() {
        let store = Store::default();
        let name = Name::new("aa", false, "e", &[1; 32], CompiledBy::Cranelift);
        let kept = store.put(&name, b"code").unwrap();
        let path = kept.path.clone();
        assert!(path.exists() && !kept.is_lasting());
        drop(kept);
        assert!(!path.exists() && !path.parent().unwrap().exists());
    }
}
