//! The disk cap: how much a plugin keeps in its data folder, sampled.
//!
//! A folder on an ordinary file system has no quota that an ordinary user could set. So the folder is
//! measured while the plugin runs, and the plugin is ended when it holds too much. Between two samples
//! it can write as fast as the disk takes it; `RLIMIT_FSIZE` bounds each single file at once.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Time between the end of one measurement and the next.
pub(crate) const INTERVAL: Duration = Duration::from_millis(250);
/// Most entries of a data folder; more is over the limit whatever their size.
pub(crate) const MAX_ENTRIES: u64 = 100_000;

/// What lies in a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Bytes of disk blocks.
    pub(crate) bytes: u64,
    /// Files, folders and links.
    pub(crate) entries: u64,
}

/// Measures `folder` without following links. Stops counting beyond [`MAX_ENTRIES`].
pub(crate) fn measure(folder: &Path) -> Held {
    let mut held = Held::default();
    let mut todo: Vec<PathBuf> = vec![folder.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            held.entries += 1;
            if held.entries > MAX_ENTRIES {
                return held;
            }
            // Does not follow links; one that vanishes meanwhile counts as nothing.
            let Ok(meta) = entry.metadata() else { continue };
            held.bytes = held.bytes.saturating_add(meta.blocks().saturating_mul(512));
            if meta.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_entries_are_counted_and_links_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), vec![1u8; 100_000]).unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("d/root")).unwrap();
        let held = measure(dir.path());
        assert_eq!(held.entries, 3);
        assert!((100_000..300_000).contains(&held.bytes), "{held:?}");
    }
}
