//! An initramfs: a cpio archive in the "new ASCII" format, as the kernel unpacks it
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufWriter, Write},
    path::Path,
};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const SECRET: u32 = 0o100_600;

/// Writes one.
pub(super) struct Archive<W: Write> {
    out: W,
    number: u32,
    folders: BTreeSet<String>,
}

impl Archive<BufWriter<fs::File>> {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self::new(BufWriter::new(fs::File::create(path)?)))
    }
}

impl<W: Write> Archive<W> {
    fn new(out: W) -> Self {
        Self { out, number: 0, folders: BTreeSet::new() }
    }

    fn entry(&mut self, name: &str, mode: u32, time: u32, content: &[u8]) -> io::Result<()> {
        self.number += 1;
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::other(format!("{name} is larger than 4 GiB")))?;
        let links = if mode == FOLDER { 2 } else { 1 };
        // Inode, mode, uid, gid, links, time, size, four device numbers, length of the name, checksum.
        let fields = [
            self.number,
            mode,
            0,
            0,
            links,
            time,
            size,
            0,
            0,
            0,
            0,
            u32::try_from(name.len()).unwrap_or(u32::MAX).saturating_add(1),
            0,
        ];
        let mut head = "070701".to_owned();
        for field in fields {
            head.push_str(&format!("{field:08x}"));
        }
        head.push_str(name);
        head.push('\0');
        self.out.write_all(head.as_bytes())?;
        self.pad(head.len())?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        let rest = written.next_multiple_of(4) - written;
        self.out.write_all([0u8; 4].get(..rest).unwrap_or_default())
    }

    /// An empty folder, and those above it.
    pub(super) fn folder(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            let part = path.get(..end).unwrap_or_default().to_owned();
            if !part.is_empty() && self.folders.insert(part.clone()) {
                self.entry(&part, FOLDER, 0, b"")?;
            }
        }
        Ok(())
    }

    /// A file that can be run, with the folders above it.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.file_of(path, content, 0)
    }

    /// The same, last changed at this time (seconds of Unix).
    pub(super) fn file_of(&mut self, path: &str, content: &[u8], time: u32) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder)?;
        }
        self.entry(path, PROGRAM, time, content)
    }

    /// A file for root alone.
    pub(super) fn secret(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.entry(path.trim_start_matches('/'), SECRET, 0, content)
    }

    /// Ends it.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.number = 0;
        self.entry("TRAILER!!!", 0, 0, b"")?;
        self.out.flush()?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpio_reads_what_is_written() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a/b/c", b"hello").unwrap();
        archive.file("/a/b/d", b"").unwrap();
        archive.folder("/e").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        // Header, name and end of the first folder: 110 bytes, "a", NUL.
        assert!(bytes.starts_with(b"070701"));
        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<&str> = text
            .split("070701")
            .skip(1)
            .map(|entry| {
                entry.get(104..).unwrap_or_default().split('\0').next().unwrap_or_default()
            })
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d", "e", "TRAILER!!!"]);
        assert!(text.contains("a/b/c\0"));
        let content = text.find("hello").unwrap();
        assert_eq!(content % 4, 0, "content is aligned");
    }
}
