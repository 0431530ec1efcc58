//! The file under the record: opening it safely, continuing after its last line, and appending groups
//! of lines that are taken back whole when they cannot be written.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use crate::{
    Head, RecordError,
    follow::{Follow, MAX_LINE, Seen},
};

/// How much of the end of an existing file is looked at: there is a whole line in it.
pub(super) const TAIL_BYTES: u64 = 2 * MAX_LINE as u64;

/// An append-only file of whole lines.
pub(super) struct Log {
    file: File,
    /// Length of what is known to be whole.
    good: u64,
    /// A failed write may have left something behind `good`.
    torn: bool,
}

/// A record that was opened.
pub(super) struct Opened {
    pub(super) log: Log,
    pub(super) head: Head,
    /// What was found, for the first line that is written.
    pub(super) remark: String,
}

impl Log {
    pub(super) fn new(file: File, good: u64) -> Self {
        Self { file, good, torn: false }
    }

    /// Appends `lines` and waits until they are on disk; or leaves the file as it was.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), RecordError> {
        if self.torn {
            self.file
                .set_len(self.good)
                .map_err(|e| RecordError::io("take back a half-written group", &e))?;
            self.torn = false;
        }
        #[cfg(not(unix))]
        self.file
            .seek(SeekFrom::Start(self.good))
            .map_err(|e| RecordError::io("find the end of the record", &e))?;
        let written =
            self.file.write_all(lines).map_err(|e| RecordError::io("write the record", &e));
        let result = written.and_then(|()| {
            self.file.sync_data().map_err(|e| RecordError::io("sync the record", &e))
        });
        match result {
            Ok(()) => {
                self.good = self.good.saturating_add(u64::try_from(lines.len()).unwrap_or(0));
                Ok(())
            }
            Err(error) => {
                self.torn = self.file.set_len(self.good).is_err();
                Err(error)
            }
        }
    }
}

#[cfg(unix)]
fn open_file(path: &Path) -> std::io::Result<File> {
    use rustix::fs::OFlags;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    // O_NONBLOCK: a FIFO in the way must not hang us; it has no effect on regular files.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(i32::try_from(flags).unwrap_or_default())
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

#[cfg(not(unix))]
fn open_file(path: &Path) -> std::io::Result<File> {
    // Not for appending: on Windows such a handle cannot cut the file. Each group is written where the last one ended.
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// Opens the record at `path` and finds where to go on.
pub(super) fn open(path: &Path) -> Result<Opened, RecordError> {
    let mut file = open_file(path).map_err(|e| RecordError::io("open the record", &e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(RecordError::InUse),
        Err(TryLockError::Error(e)) => return Err(RecordError::io("lock the record", &e)),
    }
    let metadata = file.metadata().map_err(|e| RecordError::io("look at the record", &e))?;
    if !metadata.is_file() {
        return Err(RecordError::NotARecord);
    }
    let length = metadata.len();
    if length == 0 {
        sync_folder(path)?;
        let remark = "new record".into();
        return Ok(Opened { log: Log::new(file, 0), head: Head::default(), remark });
    }
    let tail = read_tail(&mut file, length).map_err(|e| RecordError::io("read the record", &e))?;
    let whole_file = u64::try_from(tail.len()) == Ok(length);
    let whole = tail.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    let (lines, cut) = tail.split_at_checked(whole).unwrap_or((&tail, &[]));
    let head = head(lines, cut, whole_file)?;
    let good = length.saturating_sub(u64::try_from(cut.len()).unwrap_or(0));
    let remark = if cut.is_empty() {
        "continued".to_owned()
    } else {
        file.set_len(good).map_err(|e| RecordError::io("remove a cut line", &e))?;
        format!("continued after a crash: {} bytes of an unfinished line were removed", cut.len())
    };
    Ok(Opened { log: Log::new(file, good), head, remark })
}

/// The last of these whole lines, if they and what is left of one more follow from each other.
fn head(lines: &[u8], cut: &[u8], whole_file: bool) -> Result<Head, RecordError> {
    // What is left of a line at the beginning is not looked at.
    let at =
        if whole_file { 0 } else { lines.iter().position(|b| *b == b'\n').map_or(0, |i| i + 1) };
    let lines = lines.get(at..).unwrap_or_default();
    let lines: Vec<&[u8]> = lines.split_inclusive(|b| *b == b'\n').collect();
    let lines = lines.iter().map(|line| line.strip_suffix(b"\n").unwrap_or(line));
    let is_ours =
        if lines.len() == 0 { whole_file } else { lines.clone().any(|l| Seen::parse(l).is_some()) };
    if !is_ours {
        return Err(RecordError::NotARecord);
    }
    let mut follow = if whole_file { Follow::start() } else { Follow::middle() };
    let altered = |follow: &Follow, fault| RecordError::Altered {
        seq: follow.head().map(|head| head.seq + 1),
        fault,
    };
    let nothing_before = lines.len() == 0;
    for line in lines {
        if let Err(fault) = follow.next(line) {
            return Err(altered(&follow, fault));
        }
    }
    match follow.unfinished(cut) {
        Ok(()) => Ok(follow.head().unwrap_or_default()),
        // Whatever it is, it has not begun as a record.
        Err(_) if nothing_before => Err(RecordError::NotARecord),
        Err(fault) => Err(altered(&follow, fault)),
    }
}

fn read_tail(file: &mut File, length: u64) -> std::io::Result<Vec<u8>> {
    let from = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    Read::by_ref(file).take(TAIL_BYTES).read_to_end(&mut tail)?;
    Ok(tail)
}

/// Makes a new file's name durable: `fsync(2)` of the file alone does not promise that.
fn sync_folder(path: &Path) -> Result<(), RecordError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if cfg!(unix) {
        File::open(folder)
            .and_then(|f| f.sync_all())
            .map_err(|e| RecordError::io("sync the record's folder", &e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
