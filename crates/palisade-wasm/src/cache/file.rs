//! Files of the folder for compiled code: private, opened once, never followed through a link.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
    time::SystemTime,
};

/// Bytes of the key.
const KEY: usize = 32;

/// Makes sure that `folder` is there, is the host's own, and nobody else can open it. Folders above it that are
/// missing are made, as private.
pub(crate) fn private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let meta = fs::symlink_metadata(folder)?;
    if !meta.is_dir() {
        return Err(io::Error::other("is not a folder"));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("belongs to somebody else"));
        }
        if meta.mode() & 0o077 != 0 {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
    }
    Ok(())
}

/// The key, made where there is none. One that is not whole, or that others can read, is replaced: what
/// was written with it is refused then, and made anew.
pub(crate) fn key(path: &Path) -> io::Result<[u8; KEY]> {
    if let Some(key) = read_key(path)? {
        return Ok(key);
    }
    let mut key = [0; KEY];
    getrandom::fill(&mut key).map_err(|e| io::Error::other(e.to_string()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let beside = temporary(folder, &[&key])?;
    // Another process may have been faster; its key counts then.
    let linked = fs::hard_link(&beside, path);
    let _ = fs::remove_file(&beside);
    match linked {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read_key(path)?.ok_or_else(|| io::Error::other("the key cannot be read"))
        }
        Err(error) => Err(error),
    }
}

fn read_key(path: &Path) -> io::Result<Option<[u8; KEY]>> {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // A link, say.
        Err(_) => {
            fs::remove_file(path)?;
            return Ok(None);
        }
    };
    let mut bytes = Vec::new();
    let private = is_private(&file)?;
    file.take(KEY as u64 + 1).read_to_end(&mut bytes)?;
    match <[u8; KEY]>::try_from(bytes) {
        Ok(key) if private => Ok(Some(key)),
        _ => {
            fs::remove_file(path)?;
            Ok(None)
        }
    }
}

/// Whether it is a plain file of the host's user that nobody else can open.
fn is_private(file: &File) -> io::Result<bool> {
    let meta = file.metadata()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let own = meta.uid() == rustix::process::geteuid().as_raw();
        Ok(meta.is_file() && own && meta.mode() & 0o077 == 0)
    }
    #[cfg(not(unix))]
    Ok(meta.is_file())
}

/// Opens for reading; not a link, and without waiting where it is a pipe.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags.bits() as i32);
    }
    options.open(path)
}

/// Reads a private file of at most `most` bytes, and notes that it was used.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = open(path)?;
    let length = file.metadata()?.len();
    if !is_private(&file)? || length > most {
        return Err(io::Error::other("is not ours"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    (&mut file).take(most).read_to_end(&mut bytes)?;
    // Only decides what goes first when there is no room.
    let _ = file.set_modified(SystemTime::now());
    Ok(bytes)
}

/// Writes a private file under `path`: whole, or not at all.
pub(crate) fn write(folder: &Path, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let beside = temporary(folder, parts)?;
    fs::rename(&beside, path).inspect_err(|_| drop(fs::remove_file(&beside)))
}

fn temporary(folder: &Path, parts: &[&[u8]]) -> io::Result<std::path::PathBuf> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|e| io::Error::other(e.to_string()))?;
    let path = folder.join(format!(".new-{:016x}", u64::from_le_bytes(random)));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options
        .open(&path)
        .and_then(|mut file| parts.iter().try_for_each(|part| file.write_all(part)));
    match written {
        Ok(()) => Ok(path),
        Err(error) => {
            let _ = fs::remove_file(&path);
            Err(error)
        }
    }
}

/// Removes what was not used for longest until `more` bytes fit under `most`, and what was left behind
/// half written.
pub(crate) fn make_room(folder: &Path, most: u64, more: u64) -> io::Result<()> {
    const ABANDONED: std::time::Duration = std::time::Duration::from_secs(3600);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)?.flatten() {
        let (name, Ok(meta)) = (entry.file_name(), entry.metadata()) else { continue };
        let Some(name) = name.to_str() else { continue };
        let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        if name.starts_with(".new-") && used.elapsed().is_ok_and(|age| age > ABANDONED) {
            let _ = fs::remove_file(entry.path());
        } else if name.ends_with(".cwasm") {
            files.push((used, meta.len(), entry.path()));
        }
    }
    files.sort();
    let mut sum: u64 = files.iter().map(|(_, length, _)| length).sum();
    for (_, length, path) in files {
        if sum.saturating_add(more) <= most {
            break;
        }
        fs::remove_file(path)?;
        sum -= length;
    }
    Ok(())
}
