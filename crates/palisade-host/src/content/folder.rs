//! One folder, opened: what lies in a stranger's, and what is put into a copy.

#[cfg(not(unix))]
pub(super) use portable::Folder;
#[cfg(unix)]
pub(super) use unix::Folder;

/// What an entry is; a link is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File,
    Link,
    Other,
}

#[cfg(unix)]
mod unix {
    use std::{
        ffi::OsString,
        fs::{File, Permissions},
        io,
        os::{
            fd::OwnedFd,
            unix::{ffi::OsStringExt as _, fs::PermissionsExt as _},
        },
        path::Path,
    };

    use rustix::fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, fchmod, mkdirat, openat, readlinkat, statat,
        symlinkat,
    };

    use super::Kind;

    /// An open folder. What is opened or made in it is so by its handle: nobody can put another folder into
    /// its path meanwhile, and no link is followed.
    pub(crate) struct Folder(OwnedFd);

    const FOLDER: OFlags =
        OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
    /// A FIFO must not keep anybody waiting.
    const FILE: OFlags = OFlags::RDONLY
        .union(OFlags::NOFOLLOW)
        .union(OFlags::NONBLOCK)
        .union(OFlags::NOCTTY)
        .union(OFlags::CLOEXEC);
    const NEW: OFlags = OFlags::WRONLY
        .union(OFlags::CREATE)
        .union(OFlags::EXCL)
        .union(OFlags::NOFOLLOW)
        .union(OFlags::CLOEXEC);

    impl Folder {
        pub(crate) fn open(path: &Path) -> io::Result<Self> {
            Ok(Self(openat(CWD, path, FOLDER, Mode::empty())?))
        }

        /// At most `most` names.
        pub(crate) fn names(&self, most: usize) -> io::Result<Vec<OsString>> {
            let mut names = Vec::new();
            for entry in Dir::read_from(&self.0)? {
                let name = entry?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    names.push(OsString::from_vec(name));
                }
                if names.len() >= most {
                    break;
                }
            }
            Ok(names)
        }

        pub(crate) fn kind(&self, name: &str) -> io::Result<Kind> {
            let stat = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Kind::Folder,
                FileType::RegularFile => Kind::File,
                FileType::Symlink => Kind::Link,
                _ => Kind::Other,
            })
        }

        pub(crate) fn folder(&self, name: &str) -> io::Result<Self> {
            Ok(Self(openat(&self.0, name, FOLDER, Mode::empty())?))
        }

        pub(crate) fn file(&self, name: &str) -> io::Result<File> {
            let file = File::from(openat(&self.0, name, FILE, Mode::empty())?);
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("has become something else while it was read"));
            }
            Ok(file)
        }

        pub(crate) fn link(&self, name: &str) -> io::Result<String> {
            let target = readlinkat(&self.0, name, Vec::new())?;
            target.into_string().map_err(|_| io::Error::other("leads to a name that is not UTF-8"))
        }

        /// Makes what is not there. Plugins may have a user id of their own, so everybody may read what is in
        /// it; whoever is no plugin does not come as far as here.
        pub(crate) fn make_folder(&self, name: &str) -> io::Result<Self> {
            mkdirat(&self.0, name, Mode::RWXU)?;
            let made = self.folder(name)?;
            made.finish()?;
            Ok(made)
        }

        /// See [`Folder::make_folder`].
        pub(crate) fn finish(&self) -> io::Result<()> {
            Ok(fchmod(&self.0, Mode::from_raw_mode(0o755))?)
        }

        /// Makes a file that is not there, to be written and then to be finished.
        pub(crate) fn make_file(&self, name: &str) -> io::Result<File> {
            Ok(File::from(openat(&self.0, name, NEW, Mode::RUSR | Mode::WUSR)?))
        }

        pub(crate) fn finish_file(file: &File) -> io::Result<()> {
            file.set_permissions(Permissions::from_mode(0o555))
        }

        pub(crate) fn make_link(&self, name: &str, target: &str) -> io::Result<()> {
            Ok(symlinkat(target, &self.0, name)?)
        }
    }
}

#[cfg(not(unix))]
mod portable {
    use std::{
        ffi::OsString,
        fs::{self, File},
        io,
        path::{Path, PathBuf},
    };

    use super::Kind;

    /// A folder by its path.
    pub(crate) struct Folder(PathBuf);

    impl Folder {
        pub(crate) fn open(path: &Path) -> io::Result<Self> {
            Ok(Self(path.to_owned()))
        }

        /// At most `most` names.
        pub(crate) fn names(&self, most: usize) -> io::Result<Vec<OsString>> {
            fs::read_dir(&self.0)?.take(most).map(|entry| Ok(entry?.file_name())).collect()
        }

        pub(crate) fn kind(&self, name: &str) -> io::Result<Kind> {
            let kind = fs::symlink_metadata(self.0.join(name))?.file_type();
            Ok(match () {
                () if kind.is_dir() => Kind::Folder,
                () if kind.is_file() => Kind::File,
                () if kind.is_symlink() => Kind::Link,
                () => Kind::Other,
            })
        }

        pub(crate) fn folder(&self, name: &str) -> io::Result<Self> {
            Ok(Self(self.0.join(name)))
        }

        pub(crate) fn file(&self, name: &str) -> io::Result<File> {
            File::open(self.0.join(name))
        }

        pub(crate) fn link(&self, _: &str) -> io::Result<String> {
            Err(io::Error::other("symbolic links are not taken over on this system"))
        }

        pub(crate) fn make_folder(&self, name: &str) -> io::Result<Self> {
            fs::create_dir(self.0.join(name))?;
            self.folder(name)
        }

        pub(crate) fn finish(&self) -> io::Result<()> {
            Ok(())
        }

        pub(crate) fn make_file(&self, name: &str) -> io::Result<File> {
            File::create_new(self.0.join(name))
        }

        pub(crate) fn finish_file(_: &File) -> io::Result<()> {
            Ok(())
        }

        pub(crate) fn make_link(&self, _: &str, _: &str) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }
}
