//! The file under the record: opening it safely, continuing after its last line, and appending groups
//! of lines that are taken back whole when they cannot be written.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use crate::{Chain, Record, RecordError, chain::Link, jsonl::Head};

/// How much of the end of an existing file is looked at. Lines are far shorter.
const TAIL_BYTES: u64 = 1 << 20;
/// How every line begins; tells a cut first line from a file that is not ours.
const LINE_START: &[u8] = b"{\"seq\":";

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
    OpenOptions::new().read(true).append(true).create(true).open(path)
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
    let head = match last_seq(lines) {
        Some(seq) => Head { seq, chain: last_chain(lines, whole_file)? },
        // Nothing but the beginning of a first line: a crash while the record was made.
        None if lines.is_empty() && is_line_start(cut) => Head::default(),
        None => return Err(RecordError::NotARecord),
    };
    let good = length.saturating_sub(u64::try_from(cut.len()).unwrap_or(0));
    let remark = if cut.is_empty() {
        "continued".to_owned()
    } else {
        file.set_len(good).map_err(|e| RecordError::io("remove a cut line", &e))?;
        format!("continued after a crash: {} bytes of an unfinished line were removed", cut.len())
    };
    Ok(Opened { log: Log::new(file, good), head, remark })
}

/// The number of the last line that is a record.
fn last_seq(lines: &[u8]) -> Option<u64> {
    let last_first = lines.split(|b| *b == b'\n').rev();
    last_first
        .into_iter()
        .find_map(|line| serde_json::from_slice::<Record>(line).ok())
        .map(|r| r.seq)
}

/// The `chain` of the last of these whole lines, if each follows from the one before. Where they are not the whole
/// file, the first of them is taken as it is, or what is left of it.
fn last_chain(lines: &[u8], whole_file: bool) -> Result<Chain, RecordError> {
    let mut before = whole_file.then_some(Chain::START);
    let lines = lines.strip_suffix(b"\n").unwrap_or(lines);
    for (n, line) in lines.split(|b| *b == b'\n').enumerate() {
        match (Link::parse(line), &before) {
            (Some(link), Some(before)) if !link.follows(before) => {
                return Err(RecordError::Altered { seq: last_seq(line) });
            }
            (Some(link), _) => before = Some(link.chain),
            (None, None) if n == 0 => {}
            (None, _) => return Err(RecordError::Altered { seq: last_seq(line) }),
        }
    }
    before.ok_or(RecordError::Altered { seq: None })
}

fn is_line_start(cut: &[u8]) -> bool {
    let n = cut.len().min(LINE_START.len());
    n > 0 && cut.get(..n) == LINE_START.get(..n)
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
