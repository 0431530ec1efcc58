//! Where a path leads inside the walls, and what the walls let be done there.
//!
//! Looked up through `/proc/THREAD/root` with `openat2`, which never leaves that root, and with handles
//! that only name (`O_PATH`): nothing is opened, read, connected to or woken. What is outside is not looked
//! at here at all.

use palisade_model::path::lexically_normal;
use std::{
    ffi::OsStr,
    fs,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use palisade_sandbox::observe::{Found, MAX_PATH, Outcome, PathAccess, Subject};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags, open, openat2};

use super::calls::{Use, open as flag};

/// What the mode bits and the mount say about one file or folder.
#[derive(Clone, Copy, Debug)]
struct Seen {
    mode: u32,
    uid: u32,
    gid: u32,
    read_only: bool,
    no_exec: bool,
    device: u64,
}

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// As the program gave it, where that is another.
    pub(super) asked: Option<PathBuf>,
    pub(super) found: Found,
    here: Option<Seen>,
    /// The folder that it is in, where nothing is there yet or its entry is to change.
    folder: Option<Seen>,
}

/// What a rule of the tier without a new root gives.
#[derive(Clone, Debug)]
pub(crate) struct Visible {
    pub(crate) path: PathBuf,
    pub(crate) below: bool,
    pub(crate) write: bool,
    pub(crate) execute: bool,
}

/// Which walls stand.
#[derive(Clone, Debug)]
pub(crate) enum Tier {
    /// What is not mounted does not exist.
    NewRoot,
    /// Everything exists; these can be opened.
    Landlock(Vec<Visible>),
}

pub(super) struct Inside {
    pub(super) tier: Tier,
    /// User and group of the program, by their numbers out here.
    pub(super) ids: (u32, u32),
    root: Option<OwnedFd>,
    /// The device of the new root, which holds folders and links of the wall's making and nothing else.
    scaffold: Option<u64>,
}

/// Paths that lead to whoever asks, which here would be us.
const OWN: [&str; 6] =
    ["/proc/self", "/proc/thread-self", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"];

impl Place {
    /// As it is reported.
    pub(super) fn subject(self, access: PathAccess) -> Subject {
        Subject::Path { path: self.path, asked: self.asked, access, found: self.found }
    }
}

impl Inside {
    pub(super) fn new(tier: Tier, ids: (u32, u32)) -> Self {
        Self { tier, ids, root: None, scaffold: None }
    }

    /// Every task inside has the same root: the filter refuses `chroot`, `pivot_root` and `setns`.
    fn root(&mut self, thread: u32) -> Option<&OwnedFd> {
        if self.root.is_none() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            self.root = open(format!("/proc/{thread}/root"), flags, Mode::empty()).ok();
            if matches!(self.tier, Tier::NewRoot) {
                let stat = self.root.as_ref().and_then(|root| rustix::fs::fstat(root).ok());
                self.scaffold = stat.map(|s| s.st_dev);
            }
        }
        self.root.as_ref()
    }

    /// Finds where `text` leads; begins at the handle `folder` of the thread, or at its working directory.
    /// `entry_changes`: the folder that it is in is looked at in any case.
    /// `Ok(None)`: nothing to report, it is about the process itself. `Err`: cannot be found out.
    pub(super) fn find(
        &mut self,
        thread: u32,
        folder: Option<i32>,
        text: &[u8],
        follow: bool,
        entry_changes: bool,
    ) -> Result<Option<Place>, ()> {
        if text.is_empty() {
            return Ok(None);
        }
        let asked = Path::new(OsStr::from_bytes(text));
        let raw = if asked.is_absolute() {
            asked.to_owned()
        } else {
            let begin = match folder {
                Some(handle) => format!("/proc/{thread}/fd/{handle}"),
                None => format!("/proc/{thread}/cwd"),
            };
            let begin = fs::read_link(begin).map_err(|_| ())?;
            if !begin.is_absolute() {
                return Err(());
            }
            begin.join(asked)
        };
        if raw.as_os_str().len() >= MAX_PATH {
            return Err(());
        }
        let tidy = lexically_normal(&raw);
        if OWN.iter().any(|own| tidy.starts_with(own)) {
            return Ok(None);
        }
        let root = self.root(thread).ok_or(())?;
        if let Some((path, found, here)) = look(root, &raw, follow) {
            let above = path.parent().filter(|_| entry_changes);
            let folder = above.and_then(|p| look(root, p, true)).map(|(_, _, seen)| seen);
            let asked = (path != tidy).then_some(tidy);
            return Ok(Some(Place { path, asked, found, here: Some(here), folder }));
        }
        let above = raw.parent().zip(raw.file_name()).and_then(|(parent, name)| {
            let (parent, kind, seen) = look(root, parent, true)?;
            (kind == Found::Folder).then(|| (parent.join(name), seen))
        });
        Ok(Some(match above {
            Some((path, seen)) => {
                let asked = (path != tidy).then_some(tidy);
                Place { path, asked, found: Found::Nothing, here: None, folder: Some(seen) }
            }
            None => {
                Place { path: tidy, asked: None, found: Found::Nothing, here: None, folder: None }
            }
        }))
    }

    /// What is really done at a place, and what the walls have to say to it. `flags` are those of `open`.
    pub(super) fn judge(&self, place: &Place, what: Use, flags: u64) -> (PathAccess, Outcome) {
        let there = place.found != Found::Nothing;
        let access = match what {
            Use::As(access) => access,
            Use::Create => {
                if there {
                    PathAccess::Write
                } else {
                    PathAccess::Change
                }
            }
            Use::Make if there => PathAccess::Look,
            Use::Make | Use::Put | Use::Remove => PathAccess::Change,
            Use::Open(_) => opened(flags, there),
        };
        let in_folder = access == PathAccess::Change;
        let must_be_there = !in_folder || what == Use::Remove;
        if (must_be_there && !there) || (in_folder && place.folder.is_none()) {
            return (access, Outcome::NotThere);
        }
        (access, self.permits(place, access))
    }

    fn permits(&self, place: &Place, access: PathAccess) -> Outcome {
        // Access bits: 4 read, 2 write, 1 execute.
        let (seen, want) = match access {
            // Sockets are found by name; whether somebody answers is not the walls' business.
            PathAccess::Look | PathAccess::Connect => return Outcome::Passed,
            PathAccess::Read => (place.here, 4),
            PathAccess::Write => (place.here, 2),
            PathAccess::Execute => (place.here, 1),
            PathAccess::Change => (place.folder, 2),
        };
        let Some(seen) = seen else { return Outcome::NotThere };
        // What is behind a device, pipe or socket does not lie on the mount.
        let on_mount = in_tree(place.found) || access == PathAccess::Change;
        if want == 2 && seen.read_only && on_mount {
            return Outcome::ReadOnly;
        }
        let listed = access == PathAccess::Read && place.found == Found::Folder;
        if listed && self.scaffold == Some(seen.device) {
            return Outcome::PartlyThere;
        }
        if access == PathAccess::Execute && seen.no_exec {
            return Outcome::NotExecutable;
        }
        if let Tier::Landlock(rules) = &self.tier {
            let covers = |rule: &Visible| {
                place.path == rule.path || (rule.below && place.path.starts_with(&rule.path))
            };
            let enough = |rule: &Visible| match access {
                PathAccess::Execute => rule.execute,
                PathAccess::Write | PathAccess::Change => rule.write,
                _ => true,
            };
            if !rules.iter().any(|rule| covers(rule) && enough(rule)) {
                return Outcome::NotGranted;
            }
        }
        let (uid, gid) = self.ids;
        let shift = if seen.uid == uid {
            6
        } else if seen.gid == gid {
            3
        } else {
            0
        };
        if (seen.mode >> shift) & want == want { Outcome::Passed } else { Outcome::Mode }
    }
}

fn in_tree(found: Found) -> bool {
    matches!(found, Found::File | Found::Folder)
}

/// What `open` does, by its flags and by whether there is anything.
fn opened(flags: u64, there: bool) -> PathAccess {
    let creates = flags & flag::CREAT != 0;
    let writes = flags & (flag::WRONLY | flag::RDWR | flag::TRUNC) != 0;
    if flags & flag::PATH != 0 {
        PathAccess::Look
    } else if flags & flag::TMPFILE != 0 {
        PathAccess::Write
    } else if creates && !there {
        PathAccess::Change
    } else if creates && flags & flag::EXCL != 0 {
        // It fails: something is there.
        PathAccess::Look
    } else if writes {
        PathAccess::Write
    } else {
        PathAccess::Read
    }
}

/// Looks one path up: its real path inside, what it is, and what mode and mount say.
fn look(root: &OwnedFd, path: &Path, follow: bool) -> Option<(PathBuf, Found, Seen)> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let handle = openat2(root, path, flags, Mode::empty(), resolve).ok()?;
    let stat = rustix::fs::fstat(&handle).ok()?;
    let mount = rustix::fs::fstatvfs(&handle).ok()?.f_flag;
    let real = fs::read_link(format!("/proc/self/fd/{}", handle.as_raw_fd())).ok()?;
    let found = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Found::File,
        FileType::Directory => Found::Folder,
        _ => Found::Other,
    };
    let seen = Seen {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        read_only: mount.contains(StatVfsMountFlags::RDONLY),
        no_exec: mount.contains(StatVfsMountFlags::NOEXEC),
        device: stat.st_dev,
    };
    Some((real, found, seen))
}

#[cfg(test)]
mod tests {
    use std::os::unix::{
        ffi::OsStringExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
    };

    use super::*;

    /// This very process as the one that is looked at: its root is ours.
    fn inside(tier: Tier) -> (Inside, u32, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let meta = fs::metadata(dir.path()).unwrap();
        (Inside::new(tier, (meta.uid(), meta.gid())), std::process::id(), dir)
    }

    fn judged(
        inside: &mut Inside,
        me: u32,
        path: &Path,
        what: Use,
        flags: u64,
    ) -> (PathAccess, Outcome) {
        let place =
            inside.find(me, None, path.as_os_str().as_bytes(), true, true).unwrap().unwrap();
        inside.judge(&place, what, flags)
    }

    #[test]
    fn a_path_is_reported_where_its_links_lead() {
        let (mut inside, me, dir) = inside(Tier::NewRoot);
        let real = dir.path().canonicalize().unwrap();
        fs::write(real.join("file"), "x").unwrap();
        symlink(real.join("file"), real.join("link")).unwrap();
        let text = real.join("link").into_os_string().into_vec();
        let place = inside.find(me, None, &text, true, false).unwrap().unwrap();
        assert_eq!((place.path, place.found), (real.join("file"), Found::File));
        let place = inside.find(me, None, &text, false, false).unwrap().unwrap();
        assert_eq!((place.path, place.found), (real.join("link"), Found::Other));
        let text = real.join("./nothing//there").into_os_string().into_vec();
        let place = inside.find(me, None, &text, true, false).unwrap().unwrap();
        assert_eq!((place.path, place.found), (real.join("nothing/there"), Found::Nothing));
        assert!(inside.find(me, None, b"/proc/self/maps", true, false).unwrap().is_none());
        assert!(inside.find(me, None, &vec![b'/'; MAX_PATH], true, false).is_err());
    }

    #[test]
    fn what_open_does_follows_from_its_flags_and_from_what_is_there() {
        let (mut inside, me, dir) = inside(Tier::NewRoot);
        let file = dir.path().join("file");
        let write = flag::WRONLY | flag::CREAT | flag::TRUNC;
        let open = Use::Open(1);
        assert_eq!(judged(&mut inside, me, &file, open, 0), (PathAccess::Read, Outcome::NotThere));
        assert_eq!(
            judged(&mut inside, me, &file, open, write),
            (PathAccess::Change, Outcome::Passed)
        );
        fs::write(&file, "x").unwrap();
        assert_eq!(judged(&mut inside, me, &file, open, 0), (PathAccess::Read, Outcome::Passed));
        assert_eq!(
            judged(&mut inside, me, &file, open, write),
            (PathAccess::Write, Outcome::Passed)
        );
        let exclusive = write | flag::EXCL;
        assert_eq!(judged(&mut inside, me, &file, open, exclusive).0, PathAccess::Look);
        assert_eq!(judged(&mut inside, me, &file, open, flag::PATH).0, PathAccess::Look);
        assert_eq!(judged(&mut inside, me, &file, Use::Make, 0).0, PathAccess::Look);
        assert_eq!(judged(&mut inside, me, &file, Use::Remove, 0).0, PathAccess::Change);
        let gone = dir.path().join("gone");
        assert_eq!(
            judged(&mut inside, me, &gone, Use::Remove, 0),
            (PathAccess::Change, Outcome::NotThere)
        );
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(judged(&mut inside, me, &file, open, write), (PathAccess::Write, Outcome::Mode));
        assert_eq!(
            judged(&mut inside, me, Path::new("/dev/null"), open, flag::WRONLY).1,
            Outcome::Passed
        );
    }

    #[test]
    fn without_a_new_root_the_rules_decide_what_can_be_opened() {
        let (mut inside, me, dir) = inside(Tier::Landlock(Vec::new()));
        let real = dir.path().canonicalize().unwrap();
        let file = real.join("file");
        fs::write(&file, "x").unwrap();
        let read = |inside: &mut Inside| judged(inside, me, &file, Use::Open(1), 0).1;
        assert_eq!(read(&mut inside), Outcome::NotGranted);
        let rule = Visible { path: real, below: true, write: false, execute: false };
        inside.tier = Tier::Landlock(vec![rule]);
        assert_eq!(read(&mut inside), Outcome::Passed);
        assert_eq!(judged(&mut inside, me, &file, Use::Open(1), flag::RDWR).1, Outcome::NotGranted);
    }
}
