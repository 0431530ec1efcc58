//! The cache: trees of installed packages by the digest of their content, and what was asked for that led
//! to them.
//!
//! ```text
//! packages/SHA256/          one installed tree, read-only
//! requests/KEY.json         what a request came to: the digest, and how to start it
//! requests/KEY.lock         the versions and digests of all packages in it, in the client's own form
//! locks/KEY                 held while a request is resolved
//! work/                     half-done things; anything in it can be removed while nothing runs
//! ```
//! A plugin sees its own tree and nothing else of this, and cannot write to it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::copy::{self, hex};
use crate::{CommandError, Context};

/// Version of the files in `requests`.
pub(super) const FORMAT: u32 = 1;
/// Between two looks at a lock that another process holds.
const LOCK_LOOK: Duration = Duration::from_millis(50);

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) format: u32,
    /// The request, for people.
    pub(super) request: String,
    /// The digest of the tree.
    pub(super) digest: String,
    /// What starts it.
    pub(super) launch: Launch,
    /// Where in the tree its Python packages lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) site: Option<String>,
    /// The packages in it: name and version.
    pub(super) packages: Vec<String>,
    /// What is worth saying when it does not start.
    pub(super) notes: Vec<String>,
}

/// What starts an installed package. Paths are relative to the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Launch {
    /// A script of Node.js, with flags for node before it.
    Node { flags: Vec<String>, script: String },
    /// A script for the tree's own Python.
    Python { script: String },
    /// A program, or a script of something else.
    Program { file: String },
}

/// A cache folder.
#[derive(Clone, Debug)]
pub(super) struct Store {
    root: PathBuf,
}

/// The folder of the user's caches: `$XDG_CACHE_HOME/palisade`, or `~/.cache/palisade`.
///
/// # Errors
/// [`CommandError::Configuration`] where there is no home.
pub fn default_cache(context: &Context) -> Result<PathBuf, CommandError> {
    let own = context.var("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    own.or_else(|| Some(context.home.as_ref()?.join(".cache")))
        .map(|cache| cache.join("palisade"))
        .ok_or_else(|| CommandError::Configuration {
            what: "there is no folder for the cache of packages".into(),
            hint: "set HOME or XDG_CACHE_HOME".into(),
        })
}

impl Store {
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// Makes the folders. Only this user may look into them.
    pub(super) fn make(&self) -> Result<(), CommandError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for folder in ["packages", "requests", "locks", "work"] {
            builder
                .create(self.root.join(folder))
                .map_err(|e| CommandError::cache("making the cache of packages", e))?;
        }
        Ok(())
    }

    /// What a request came to, if its tree is there.
    pub(super) fn find(&self, key: &str) -> Option<Entry> {
        let entry = self.recorded(key)?;
        self.tree(&entry.digest).is_dir().then_some(entry)
    }

    /// What a request came to, whether or not the tree is still there.
    fn recorded(&self, key: &str) -> Option<Entry> {
        let text = fs::read(self.request(key, "json")).ok()?;
        let entry: Entry = serde_json::from_slice(&text).ok()?;
        let plain = entry.digest.len() == 64 && entry.digest.bytes().all(|b| b.is_ascii_hexdigit());
        (entry.format == FORMAT && plain).then_some(entry)
    }

    /// Whether a request was resolved after `moment`.
    pub(super) fn is_newer(&self, key: &str, moment: SystemTime) -> bool {
        let written = fs::metadata(self.request(key, "json")).and_then(|m| m.modified());
        written.is_ok_and(|written| written >= moment)
    }

    /// The lock file of an earlier resolution.
    pub(super) fn lock_file(&self, key: &str) -> Option<Vec<u8>> {
        fs::read(self.request(key, "lock")).ok()
    }

    /// The folder of a tree.
    pub(super) fn tree(&self, digest: &str) -> PathBuf {
        self.root.join("packages").join(digest)
    }

    fn request(&self, key: &str, ending: &str) -> PathBuf {
        self.root.join("requests").join(format!("{key}.{ending}"))
    }

    /// Waits until this process alone works on a request. Call it where blocking is allowed.
    pub(super) fn hold(&self, key: &str, deadline: Instant) -> io::Result<File> {
        use rustix::fs::{FlockOperation, flock};
        let path = self.root.join("locks").join(key);
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(LOCK_LOOK);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A folder for half-done things, removed when it is dropped.
    pub(super) fn work(&self) -> Result<TempDir, CommandError> {
        tempfile::Builder::new()
            .prefix("job-")
            .tempdir_in(self.root.join("work"))
            .map_err(|e| CommandError::cache("making a folder for the job", e))
    }

    /// Puts a finished tree into its place, and then what the request came to. A tree with the same
    /// content that is there already is kept.
    pub(super) fn keep(
        &self,
        key: &str,
        staged: &Path,
        mut entry: Entry,
        lock: &[u8],
    ) -> Result<Entry, CommandError> {
        let failed = |what: &'static str| move |e: io::Error| CommandError::cache(what, e);
        entry.digest = copy::digest(staged).map_err(failed("reading what was installed"))?;
        let place = self.tree(&entry.digest);
        if !place.is_dir() {
            // The folder itself is sealed last: a folder that may not be written cannot be moved.
            for below in fs::read_dir(staged).into_iter().flatten().flatten() {
                if below.file_type().is_ok_and(|kind| kind.is_dir()) {
                    copy::seal(&below.path()).map_err(failed("sealing what was installed"))?;
                }
            }
            fs::set_permissions(staged, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .and_then(|()| fs::rename(staged, &place))
                .or_else(|e| if place.is_dir() { Ok(()) } else { Err(e) })
                .map_err(failed("moving what was installed into the cache"))?;
            fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o555))
                .map_err(failed("sealing what was installed"))?;
        }
        let text =
            serde_json::to_vec_pretty(&entry).map_err(|e| failed("writing the cache")(e.into()))?;
        copy::write_whole(&self.request(key, "lock"), lock)
            .and_then(|()| copy::write_whole(&self.request(key, "json"), &text))
            .map_err(failed("writing what the request came to"))?;
        Ok(entry)
    }

    /// Whether the tree of a request is still what it was when it was put there.
    pub(super) fn is_whole(&self, digest: &str) -> io::Result<bool> {
        Ok(copy::digest(&self.tree(digest))? == digest)
    }
}

/// The key of a request: a digest of everything that can change what it comes to.
pub(super) fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}
