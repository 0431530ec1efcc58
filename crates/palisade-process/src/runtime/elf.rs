//! The little of ELF that a launcher must know: whether a program wants a dynamic loader, and which.
//!
//! Reads the file header and the program headers (elf(5)); every offset is checked.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

const PT_INTERP: u32 = 3;
const MAX_HEADERS: u16 = 128;

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// The loader that the program at `path` names; `None` for a static one.
pub(super) fn loader(path: &Path) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    let mut header = [0u8; 64];
    file.read_exact(&mut header)
        .map_err(|_| bad("it is neither a program nor a script (too short)"))?;
    if !header.starts_with(b"\x7fELF") {
        return Err(bad("it is neither an ELF program nor a script with a #! line"));
    }
    if header.get(4..6) != Some(&[2, 1]) {
        return Err(bad("it is not a 64-bit little-endian program"));
    }
    let machine = u16_at(&header, 18).unwrap_or(0);
    let ours = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    if machine != ours {
        return Err(bad("it is built for another processor"));
    }
    let (offset, size, count) = (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
    let (Some(offset), Some(56), Some(count)) = (offset, size, count.filter(|c| *c <= MAX_HEADERS))
    else {
        return Err(bad("its program headers are malformed"));
    };
    let mut headers = vec![0u8; usize::from(count) * 56];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut headers)?;
    for entry in headers.chunks_exact(56) {
        if u32_at(entry, 0) == Some(PT_INTERP) {
            let (Some(at), Some(len @ 2..=4096)) = (u64_at(entry, 8), u64_at(entry, 32)) else {
                return Err(bad("its interpreter entry is malformed"));
            };
            let mut name = Vec::new();
            file.seek(SeekFrom::Start(at))?;
            file.take(len - 1).read_to_end(&mut name)?;
            return String::from_utf8(name)
                .map(Some)
                .map_err(|_| bad("its loader's name is not UTF-8"));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::loader;

    #[test]
    fn a_dynamic_program_names_its_loader_and_other_files_are_refused() {
        let sh = std::fs::canonicalize("/bin/sh").unwrap();
        assert!(loader(&sh).unwrap().unwrap().contains("ld-linux"));
        let dir = tempfile::tempdir().unwrap();
        for content in [&b""[..], b"hello", &[0x7f; 64], b"\x7fELF\x02\x01 truncated"] {
            let path = dir.path().join("x");
            std::fs::write(&path, content).unwrap();
            assert!(loader(&path).is_err(), "{content:?}");
        }
    }
}
