//! Pins in a file, one for each plugin, shared by all that run the same server at the same time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use palisade_model::PluginRef;
use serde::{Deserialize, Serialize};

use super::{Book, Pin, Pins, Sight, Subject, sha256};
use crate::McpError;

/// Longest file that is read, in bytes: 32 MiB.
const FILE_BYTES: u64 = 32 << 20;
/// How long another process may keep the lock.
const LOCKED_FOR: Duration = Duration::from_secs(2);

/// The content of a file.
#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    plugin: PluginRef,
    #[serde(flatten)]
    book: Book,
}

/// The pins of one plugin, kept in a file of a folder.
#[derive(Debug)]
pub struct FilePins {
    path: PathBuf,
    plugin: PluginRef,
    strict: bool,
    /// What the file said last; read when the first definition comes.
    book: Mutex<Option<Book>>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The plugin's id, so that a person finds the file, and what tells it from others of that id.
fn file_name(plugin: &PluginRef) -> String {
    // A reference always serialises.
    let text = serde_json::to_string(plugin).unwrap_or_default();
    let digest: String = sha256(&text).chars().take(16).collect();
    format!("{}-{digest}.json", plugin.id)
}

impl FilePins {
    /// The pins of `plugin` in `folder`. Nothing is read or written yet. `strict`: nothing is approved by
    /// being seen.
    #[must_use]
    pub fn new(folder: &Path, plugin: &PluginRef, strict: bool) -> Self {
        let path = folder.join(file_name(plugin));
        Self { path, plugin: plugin.clone(), strict, book: Mutex::default() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Pins for FilePins {
    fn look(&self, seen: &[(Subject<'_>, &str)]) -> Result<Vec<Sight>, McpError> {
        let mut known = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            *known = read(&self.path)?.map(|content| content.book);
        }
        if known.as_ref().is_some_and(|book| book.is_all_same(seen)) {
            return Ok(vec![Sight::Same; seen.len()]);
        }
        // Somebody else may have pinned or accepted something meanwhile: the file decides.
        let _lock = lock(&self.path)?;
        let mut book = read(&self.path)?.map(|content| content.book).unwrap_or_default();
        let (sights, has_changed) = book.look(seen, self.strict, now());
        if has_changed {
            let content = Content { version: 1, plugin: self.plugin.clone(), book: book.clone() };
            write(&self.path, &content)?;
        }
        *known = Some(book);
        Ok(sights)
    }
}

/// The pins of one plugin, to be shown and changed by a person.
#[derive(Clone, Debug)]
pub struct PinFile {
    /// The file.
    pub path: PathBuf,
    /// Whose pins.
    pub plugin: PluginRef,
    /// What was approved, by subject ([`Subject`] as text).
    pub pins: std::collections::BTreeMap<String, Pin>,
    /// What was seen instead, or was not approved yet.
    pub waiting: std::collections::BTreeMap<String, Pin>,
}

impl PinFile {
    fn of(path: PathBuf, content: Content) -> Self {
        let Book { pins, waiting } = content.book;
        Self { path, plugin: content.plugin, pins, waiting }
    }

    fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Book) -> Result<T, McpError>,
    ) -> Result<T, McpError> {
        let _lock = lock(&self.path)?;
        let mut content = read(&self.path)?.unwrap_or_else(|| Content {
            version: 1,
            plugin: self.plugin.clone(),
            book: Book::default(),
        });
        let done = change(&mut content.book)?;
        write(&self.path, &content)?;
        *self = Self::of(self.path.clone(), content);
        Ok(done)
    }

    /// Approves what was seen last under `name`, as `by`.
    ///
    /// # Errors
    /// [`McpError::NoSuchPin`] where nothing waits under this name, and what the file system refuses.
    pub fn accept(&mut self, name: &str, by: &str) -> Result<Pin, McpError> {
        self.change(|book| book.accept(name, by))
    }

    /// Forgets `name`: what is seen next counts as seen for the first time.
    ///
    /// # Errors
    /// As [`PinFile::accept`].
    pub fn forget(&mut self, name: &str) -> Result<(), McpError> {
        self.change(|book| book.forget(name))
    }
}

/// All pins in `folder`, by the plugin's id. A folder that does not exist has none.
///
/// # Errors
/// What the file system refuses, and files that are none of ours.
pub fn list_pins(folder: &Path) -> Result<Vec<PinFile>, McpError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(McpError::Io { path: folder.to_owned(), source }),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| McpError::Io { path: folder.to_owned(), source })?.path();
        if path.extension().is_some_and(|e| e == "json")
            && let Some(content) = read(&path)?
        {
            files.push(PinFile::of(path, content));
        }
    }
    files.sort_by(|a, b| a.plugin.cmp(&b.plugin));
    Ok(files)
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> McpError + '_ {
    |source| McpError::Io { path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<Option<Content>, McpError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(McpError::Io { path: path.to_owned(), source }),
    };
    let corrupt = |what: String| McpError::Corrupt { path: path.to_owned(), what };
    let mut text = String::new();
    file.take(FILE_BYTES + 1).read_to_string(&mut text).map_err(io(path))?;
    if text.len() as u64 > FILE_BYTES {
        return Err(corrupt(format!("it is longer than {FILE_BYTES} bytes")));
    }
    let content: Content = serde_json::from_str(&text).map_err(|e| corrupt(e.to_string()))?;
    if content.version != 1 {
        return Err(corrupt(format!("it is of version {}", content.version)));
    }
    Ok(Some(content))
}

/// Keeps others from changing pins in the same folder.
fn lock(path: &Path) -> Result<File, McpError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(io(folder))?;
    let lock = folder.join(".lock");
    let file = private().write(true).create(true).truncate(false).open(&lock).map_err(io(&lock))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCKED_FOR => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(McpError::Io { path: lock, source: e.into() }),
        }
    }
}

fn private() -> OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "modes of files are of Unix"))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Replaces the file as a whole; the lock is held.
fn write(path: &Path, content: &Content) -> Result<(), McpError> {
    let text = serde_json::to_string_pretty(content)
        .map_err(|e| McpError::Corrupt { path: path.to_owned(), what: e.to_string() })?;
    let new = path.with_extension("new");
    let mut file =
        private().write(true).create(true).truncate(true).open(&new).map_err(io(&new))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(io(&new))?;
    fs::rename(&new, path).map_err(io(path))
}

#[cfg(test)]
mod tests {
    use palisade_model::{Origin, PluginId};

    use super::*;

    fn plugin(path: &str) -> PluginRef {
        PluginRef {
            id: PluginId::parse("server").unwrap(),
            origin: Origin::Command { path: path.into() },
        }
    }

    #[test]
    fn pins_are_shared_and_outlive_the_value() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("pins");
        let tool = |definition| [(Subject::Tool("a"), definition)];
        let one = FilePins::new(&folder, &plugin("/bin/a"), false);
        let other = FilePins::new(&folder, &plugin("/bin/a"), false);
        let stranger = FilePins::new(&folder, &plugin("/bin/b"), false);
        assert_eq!(one.look(&tool("{1}")).unwrap(), [Sight::First]);
        assert_eq!(other.look(&tool("{2}")).unwrap(), [Sight::Changed]);
        assert_eq!(stranger.look(&tool("{2}")).unwrap(), [Sight::First]);
        assert_eq!(one.look(&tool("{1}")).unwrap(), [Sight::Same]);

        let mut files = list_pins(&folder).unwrap();
        assert_eq!(files.len(), 2);
        let file = files.iter_mut().find(|f| f.plugin == plugin("/bin/a")).unwrap();
        assert_eq!(file.waiting["tool:a"].definition.as_deref(), Some("{2}"));
        assert!(file.accept("tool:b", "ada").is_err());
        file.accept("tool:a", "ada").unwrap();
        assert!(file.waiting.is_empty());
        // The running one notices when it sees the change.
        assert_eq!(one.look(&tool("{2}")).unwrap(), [Sight::Same]);
        file.forget("tool:a").unwrap();
        let next = FilePins::new(&folder, &plugin("/bin/a"), false);
        assert_eq!(next.look(&tool("{1}")).unwrap(), [Sight::First]);
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_an_error_and_no_first_sight() {
        let dir = tempfile::tempdir().unwrap();
        let pins = FilePins::new(dir.path(), &plugin("/bin/a"), false);
        fs::write(pins.path(), "{").unwrap();
        let error = pins.look(&[(Subject::Instructions, "x")]).unwrap_err();
        assert!(matches!(error, McpError::Corrupt { .. }), "{error}");
        assert!(list_pins(&dir.path().join("nowhere")).unwrap().is_empty());
    }
}
