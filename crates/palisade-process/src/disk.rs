//! The disk cap: how much a plugin keeps in its data folder, sampled.
//!
//! A folder on an ordinary file system has no quota that an ordinary user could set. So the folder is
//! measured while the plugin runs (when: `looks.rs`), and the plugin is ended when it holds too much. Between
//! two samples it can write as fast as memory takes it; `RLIMIT_FSIZE` bounds each single file at once, and
//! the filter refuses to reserve blocks without writing them.
//!
//! A file without a name takes space as long as somebody holds it, so the plugin's open handles and mappings
//! are looked through too. Nothing of the plugin's is opened for that.

use std::{
    collections::HashSet,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat},
    io::Errno,
};

use crate::processes;

/// Most entries of a data folder; more is over the limit whatever their size.
pub(crate) const MAX_ENTRIES: u64 = 100_000;
/// Deepest folder below the data folder; one handle is held open for each level while measuring.
const MAX_DEPTH: usize = 128;

/// What lies in a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Bytes of disk blocks.
    pub(crate) bytes: u64,
    /// Files, folders and links.
    pub(crate) entries: u64,
    /// Some of it cannot be measured: a folder that its owner closed to everybody, or one too deep. A
    /// plugin could hide any amount there.
    pub(crate) hidden: bool,
    /// Something can pass unseen for a moment and must not stay so: handles wait in a socket to be
    /// received, or a process cannot be looked into (as at the moment of its exec).
    pub(crate) unseen: bool,
}

fn open_folder(
    parent: impl rustix::fd::AsFd,
    name: impl rustix::path::Arg,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Measures `folder` by handles, so that no link is followed and no path gets too long. Stops beyond
/// [`MAX_ENTRIES`].
pub(crate) fn measure(folder: &Path) -> Held {
    let mut held = Held::default();
    let mut open: Vec<(OwnedFd, Dir)> = Vec::new();
    enter(&mut held, &mut open, open_folder(CWD, folder));
    while let Some((handle, entries)) = open.last_mut() {
        let Some(Ok(entry)) = entries.read() else {
            open.pop();
            continue;
        };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        held.entries += 1;
        if held.entries > MAX_ENTRIES {
            return held;
        }
        // One that vanishes meanwhile counts as nothing.
        let Ok(meta) = statat(&*handle, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        held.bytes = held
            .bytes
            .saturating_add(u64::try_from(meta.st_blocks).unwrap_or(0).saturating_mul(512));
        if FileType::from_raw_mode(meta.st_mode) == FileType::Directory {
            let inner = open_folder(&*handle, name);
            enter(&mut held, &mut open, inner);
        }
    }
    held
}

fn enter(held: &mut Held, open: &mut Vec<(OwnedFd, Dir)>, folder: Result<OwnedFd, Errno>) {
    let opened = match folder {
        // Gone, or no longer a folder: the next measurement sees what it is.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return,
        Ok(_) if open.len() >= MAX_DEPTH => Err(Errno::NAMETOOLONG),
        other => other,
    };
    match opened.and_then(|handle| Dir::read_from(&handle).map(|entries| (handle, entries))) {
        Ok(level) => open.push(level),
        Err(_) => held.hidden = true,
    }
}

/// Bytes that are free on the file system of `folder`, with what is promised to writes that are still in memory
/// taken off (statvfs(3)).
pub(crate) fn free(folder: &Path) -> Option<u64> {
    let told = rustix::fs::statvfs(folder).ok()?;
    Some(told.f_bfree.saturating_mul(told.f_frsize))
}

/// Adds the files without a name that the processes below pid 1 hold on the file system of `folder`. A
/// mapped one that is open nowhere counts as `largest`, since its size cannot be seen.
pub(crate) fn add_nameless(held: &mut Held, folder: &Path, init: impl AsFd, largest: u64) {
    let Ok(device) = fs::metadata(folder).map(|m| m.dev()) else { return };
    let Some(init) = processes::pid_of(init) else { return };
    let mut search = Search { device, open: HashSet::new(), mapped: HashSet::new(), held };
    for pid in processes::below(init) {
        search.process(pid);
    }
    let unopened = search.mapped.difference(&search.open).count() as u64;
    held.bytes = held.bytes.saturating_add(unopened.saturating_mul(largest));
}

struct Search<'a> {
    device: u64,
    open: HashSet<u64>,
    mapped: HashSet<u64>,
    held: &'a mut Held,
}

/// Whether a thread is there and has not ended.
fn lives(thread: &Path) -> bool {
    is_alive(&fs::read_to_string(thread.join("stat")).unwrap_or_default())
}

/// Whether what proc_pid_stat(5) says is of a thread that can still hold something. One on its way out has lost
/// its memory first, and with it what lets a user look into it; with its processor time used up it may stay there
/// for long. It can open nothing any more, and one that waits to be reaped (`Z`, `X`) holds nothing.
fn is_alive(stat: &str) -> bool {
    /// `PF_EXITING` of the kernel's include/linux/sched.h.
    const EXITING: u64 = 4;
    // The name in parentheses may hold anything; after it: state ppid pgrp session tty tpgid flags.
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let flags = rest.split(' ').nth(6).and_then(|flags| flags.parse::<u64>().ok());
    !rest.starts_with(['Z', 'X']) && flags.is_none_or(|flags| flags & EXITING == 0)
}

impl Search<'_> {
    /// Every thread of a process: the first may have ended while others go on, and each may have handles of
    /// its own (unshare(2), CLONE_FILES). One that lives and cannot be looked into hides something.
    fn process(&mut self, pid: i32) {
        let mut mapped = false;
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let thread = task.path();
            let seen = self.handles(&thread).and_then(|()| {
                // All threads of a process have the same memory.
                if !std::mem::replace(&mut mapped, true) { self.mappings(&thread) } else { Ok(()) }
            });
            if seen.is_err() {
                mapped = false;
                self.held.unseen |= lives(&thread);
            }
        }
    }

    fn handles(&mut self, thread: &Path) -> io::Result<()> {
        for entry in fs::read_dir(thread.join("fd"))?.flatten() {
            let Ok(meta) = fs::metadata(entry.path()) else { continue };
            let kind = FileType::from_raw_mode(meta.mode());
            if kind == FileType::Socket {
                let info = thread.join("fdinfo").join(entry.file_name());
                let info = fs::read_to_string(info).unwrap_or_default();
                let waiting = info.lines().find_map(|l| l.strip_prefix("scm_fds:"));
                self.held.unseen |= waiting.is_some_and(|n| n.trim() != "0");
            } else if meta.nlink() == 0 && meta.dev() == self.device && self.open.insert(meta.ino())
            {
                self.held.bytes = self.held.bytes.saturating_add(meta.blocks().saturating_mul(512));
            }
        }
        Ok(())
    }

    fn mappings(&mut self, thread: &Path) -> io::Result<()> {
        // address permissions offset device inode path
        for line in fs::read_to_string(thread.join("maps"))?.lines() {
            let mut words = line.split_ascii_whitespace().skip(3);
            if let (true, Some(device), Some(inode)) =
                (line.ends_with(" (deleted)"), words.next(), words.next())
                && device_number(device) == Some(self.device)
                && let Ok(inode) = inode.parse()
            {
                self.mapped.insert(inode);
            }
        }
        Ok(())
    }
}

/// `fd:01`, in hexadecimal.
fn device_number(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    let number = |t| u32::from_str_radix(t, 16).ok();
    Some(rustix::fs::makedev(number(major)?, number(minor)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn who_has_ended_or_is_on_the_way_out_is_not_alive() {
        let stat = |state, flags| {
            format!("7 (a) Z 1) {state} 1 7 7 0 -1 {flags} 90 0 0 0 0 0 0 0 20 0 1 0 5")
        };
        assert!(is_alive(&stat('R', 0x40_0040)) && is_alive(&stat('D', 0x40_0000)));
        assert!(!is_alive(&stat('R', 0x40_0044)), "PF_EXITING");
        assert!(!is_alive(&stat('Z', 0x40_0000)) && !is_alive(&stat('X', 0)));
        assert!(!is_alive(""), "it is gone");
        // What cannot be read proves nothing in its favour.
        assert!(is_alive("7 (a) R 1 7") && lives(Path::new("/proc/self")));
    }

    #[test]
    fn a_tree_too_deep_and_a_closed_folder_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut at = open_folder(CWD, dir.path()).unwrap();
        for _ in 0..200 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open_folder(&at, "d").unwrap();
        }
        assert!(measure(dir.path()).hidden);
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("closed")).unwrap();
        rustix::fs::chmod(dir.path().join("closed"), Mode::empty()).unwrap();
        // Root reads it all the same.
        assert_eq!(measure(dir.path()).hidden, !rustix::process::geteuid().is_root());
    }

    #[test]
    fn what_has_ended_hides_nothing() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let thread = std::path::PathBuf::from(format!("/proc/{0}/task/{0}", child.id()));
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while lives(&thread) {
            assert!(std::time::Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(thread.join("stat").exists(), "not reaped yet");
        let mut held = Held::default();
        let mut search =
            Search { device: 0, open: HashSet::new(), mapped: HashSet::new(), held: &mut held };
        search.process(child.id().cast_signed());
        child.wait().unwrap();
        assert_eq!(held, Held::default());
        assert!(lives(Path::new("/proc/self")));
    }

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
