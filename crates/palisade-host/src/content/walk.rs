//! Walking over the files of a plugin: measuring them, and copying what was measured.
//!
//! The folder may belong to a stranger who changes it meanwhile, and its file system may be a stranger's, too.
//! On Unix nothing is opened or made by a path that could lead elsewhere by now: every folder is opened in the
//! one above it, without following a link, in the copy as well.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write as _},
    path::Path,
};

use palisade_manifest::{Digest, FILE_NAMES};
use palisade_model::text::escape;
use sha2::{Digest as _, Sha256};

use super::{
    Survey,
    folder::{Folder, Kind},
};
use crate::error::{HostError, shown, state_dir};

/// Most names, of what is left out too.
const MAX_ENTRIES: usize = 200_000;
/// Longest path.
const MAX_PATH_BYTES: usize = 4096;
/// Most bytes of all paths.
const MAX_NAME_BYTES: usize = 32 << 20;
/// Most bytes of all files.
const MAX_BYTES: u64 = 1 << 30;
/// Deepest folder.
pub(super) const MAX_DEPTH: usize = 64;
/// What tools keep for themselves, and no part of a plugin.
const NOT_CONTENT: [&str; 4] = [".git", ".hg", ".svn", "__pycache__"];

/// What was found.
pub(super) struct Walk {
    /// Path to what stands before it in the list.
    lines: BTreeMap<String, String>,
    entries: usize,
    names: usize,
    bytes: u64,
}

/// Why something could not be taken: with the plugin's folder, or with the copy.
enum Trouble {
    Source(String),
    Copy(String),
}

impl Trouble {
    fn source(path: &str, what: impl std::fmt::Display) -> Self {
        Self::Source(in_words(path, what))
    }

    fn copy(path: &str, what: impl std::fmt::Display) -> Self {
        Self::Copy(in_words(path, what))
    }
}

fn in_words(path: &str, what: impl std::fmt::Display) -> String {
    let what = escape(&what.to_string(), 200);
    if path.is_empty() { what } else { format!("{}: {what}", escape(path, 200)) }
}

/// Whose folder it is.
#[derive(Clone, Copy)]
pub(super) enum Whose<'a> {
    /// The plugin's. Its manifest and what tools keep for themselves are no part of the content.
    Author,
    /// Ours: a copy, in which the manifest has this name. All else is a part of it.
    Copy(Option<&'a str>),
}

impl Whose<'_> {
    fn leaves_out(self, name: &str, depth: usize) -> bool {
        match self {
            Self::Author => {
                NOT_CONTENT.contains(&name)
                    || depth == 0 && FILE_NAMES.iter().any(|(manifest, _)| *manifest == name)
            }
            Self::Copy(manifest) => depth == 0 && manifest == Some(name),
        }
    }
}

impl Walk {
    /// Measures `from`.
    pub(super) fn over(from: &Path, whose: Whose<'_>) -> Result<Self, HostError> {
        Self::with(from, whose, None)
    }

    /// Measures the plugin's folder `from`, and copies what is measured into the folder `to`, which is empty.
    pub(super) fn copying(from: &Path, to: &Path) -> Result<Self, HostError> {
        let into = Folder::open(to).map_err(|e| state_dir(to, e))?;
        Self::with(from, Whose::Author, Some((to, &into)))
    }

    fn with(
        from: &Path,
        whose: Whose<'_>,
        to: Option<(&Path, &Folder)>,
    ) -> Result<Self, HostError> {
        let mut walk = Self { lines: BTreeMap::new(), entries: 0, names: 0, bytes: 0 };
        Folder::open(from)
            .map_err(|e| Trouble::source("", e))
            .and_then(|folder| walk.folder(whose, &folder, "", to.map(|(_, into)| into), 0))
            .map_err(|trouble| match trouble {
                Trouble::Source(what) => HostError::Folder { path: shown(from), what },
                Trouble::Copy(what) => state_dir(to.map_or(from, |(path, _)| path), what),
            })?;
        Ok(walk)
    }

    pub(super) fn survey(&self) -> Survey {
        let mut list = Sha256::new();
        for (path, before) in &self.lines {
            list.update(format!("{before}  {path}\n"));
        }
        Survey {
            digest: Digest(list.finalize().into()),
            files: u64::try_from(self.lines.len()).unwrap_or(u64::MAX),
            bytes: self.bytes,
        }
    }

    fn folder(
        &mut self,
        whose: Whose<'_>,
        folder: &Folder,
        at: &str,
        to: Option<&Folder>,
        depth: usize,
    ) -> Result<(), Trouble> {
        if depth > MAX_DEPTH {
            return Err(Trouble::source(at, format_args!("more than {MAX_DEPTH} folders deep")));
        }
        let names = folder.names(MAX_ENTRIES - self.entries + 1);
        let names = names.map_err(|e| Trouble::source(at, e))?;
        // All that is in memory at the same time.
        self.entries += names.len();
        if self.entries > MAX_ENTRIES {
            return Err(Trouble::source(at, format_args!("more than {MAX_ENTRIES} files")));
        }
        for name in names {
            let Some(name) = name.to_str().filter(|name| !name.chars().any(char::is_control))
            else {
                let name = name.to_string_lossy();
                let what = "the name is not UTF-8 or has control characters";
                return Err(Trouble::source(&name, what));
            };
            if whose.leaves_out(name, depth) {
                continue;
            }
            let path = if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") };
            self.names += path.len();
            if path.len() > MAX_PATH_BYTES || self.names > MAX_NAME_BYTES {
                return Err(Trouble::source(&path, "the paths are too long"));
            }
            self.entry(whose, folder, (name, path), to, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        whose: Whose<'_>,
        folder: &Folder,
        (name, path): (&str, String),
        to: Option<&Folder>,
        depth: usize,
    ) -> Result<(), Trouble> {
        let failed = |e: io::Error| Trouble::source(&path, e);
        // Also where the folder lists a name twice, or the copy's file system takes two names for one.
        let not_made = |e: io::Error| Trouble::copy(&path, e);
        let line = match folder.kind(name).map_err(failed)? {
            Kind::Folder => {
                let below = folder.folder(name).map_err(failed)?;
                let into = to.map(|to| to.make_folder(name)).transpose().map_err(not_made)?;
                return self.folder(whose, &below, &path, into.as_ref(), depth + 1);
            }
            Kind::File => {
                let file = folder.file(name).map_err(failed)?;
                let copy = to.map(|to| to.make_file(name)).transpose().map_err(not_made)?;
                self.file(file, &path, copy)?
            }
            Kind::Link => {
                let target = folder.link(name).map_err(failed)?;
                to.map_or(Ok(()), |to| to.make_link(name, &target)).map_err(not_made)?;
                format!("link:{}", Digest::of(target.as_bytes()).hex())
            }
            Kind::Other => {
                return Err(Trouble::source(&path, "is no file, folder or symbolic link"));
            }
        };
        match self.lines.insert(path.clone(), line) {
            None => Ok(()),
            Some(_) => Err(Trouble::source(&path, "is there twice")),
        }
    }

    fn file(&mut self, mut file: File, path: &str, copy: Option<File>) -> Result<String, Trouble> {
        let failed = |e: io::Error| Trouble::source(path, e);
        let not_written = |e: io::Error| Trouble::copy(path, e);
        let too_large = || Trouble::source(path, "with it the files are larger than 1 GiB");
        if file.metadata().map_err(failed)?.len() > MAX_BYTES - self.bytes {
            return Err(too_large());
        }
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            let read = match file.read(&mut buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(failed)?,
            };
            let Some(piece @ [_, ..]) = buffer.get(..read) else { break };
            self.bytes += u64::try_from(read).unwrap_or(u64::MAX);
            if self.bytes > MAX_BYTES {
                return Err(too_large());
            }
            hash.update(piece);
            if let Some(mut copy) = copy.as_ref() {
                copy.write_all(piece).map_err(not_written)?;
            }
        }
        if let Some(copy) = &copy {
            Folder::finish_file(copy).map_err(not_written)?;
        }
        Ok(Digest(hash.finalize().into()).hex())
    }
}

/// What differs between what was known and what was found, for people: at most three files and how many
/// more.
pub(super) fn changes(known: &Walk, found: &Walk) -> Vec<String> {
    let paths: std::collections::BTreeSet<&String> =
        known.lines.keys().chain(found.lines.keys()).collect();
    let mut out: Vec<String> = Vec::new();
    let mut more = 0;
    for path in paths {
        let what = match (known.lines.get(path), found.lines.get(path)) {
            (Some(a), Some(b)) if a == b => continue,
            (Some(_), Some(_)) => "has changed",
            (Some(_), None) => "is gone",
            _ => "is new",
        };
        if out.len() < 3 {
            out.push(format!("{} {what}", escape(path, 100)));
        } else {
            more += 1;
        }
    }
    if more > 0 {
        out.push(format!("{more} more"));
    }
    out
}
