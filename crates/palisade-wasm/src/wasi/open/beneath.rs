//! Opening below a granted folder without waiting for anybody.
//!
//! What stands at a path is known for sure only when it is open. To open a named pipe waits for its other end, unless
//! `O_NONBLOCK` is said (open(2)), which means nothing for files and folders; so everything is opened with it, and
//! what turns out to be something else is closed again. Paths are resolved as the engine does it: by the kernel,
//! beneath the folder (openat2(2)).

use std::{fs::File, io};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fcntl_getfl, fcntl_setfl, fstat, openat2},
    io::Errno,
};
use wasmtime_wasi::{
    FsPerms, OpenMode,
    filesystem::{self, Descriptor, Dir},
};

/// How often what the kernel could not decide is asked again: something was renamed meanwhile, perhaps elsewhere.
const TRIES: usize = 64;

/// What is to be opened, and how.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    pub(super) follow: bool,
    pub(super) create: bool,
    pub(super) exclusive: bool,
    pub(super) truncate: bool,
    pub(super) directory: bool,
    pub(super) read: bool,
    pub(super) write: bool,
    /// Something that the engine does not do either.
    pub(super) more: bool,
}

impl Wish {
    fn mode(self) -> OpenMode {
        let mut mode = OpenMode::empty();
        mode.set(OpenMode::READ, self.read || !self.write);
        mode.set(OpenMode::WRITE, self.write || self.create || self.truncate);
        mode
    }

    fn flags(self) -> OFlags {
        let mode = self.mode();
        let mut flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        flags |= match (mode.contains(OpenMode::READ), mode.contains(OpenMode::WRITE)) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        };
        flags.set(OFlags::NOFOLLOW, !self.follow);
        flags.set(OFlags::CREATE, self.create);
        flags.set(OFlags::EXCL, self.create && self.exclusive);
        flags.set(OFlags::TRUNC, self.truncate && !(self.create && self.exclusive));
        flags
    }

    /// Whether the engine refuses it before it opens anything, in its own words.
    fn is_refused(self, perms: FsPerms) -> bool {
        let makes = self.create || self.exclusive || self.truncate;
        self.more
            || (self.directory && makes)
            || (perms.write_not_permitted() && self.mode().contains(OpenMode::WRITE))
    }
}

/// The file or folder at `path`; `None` where the engine has to do it: it refuses, or the kernel has no `openat2`.
///
/// # Errors
/// As the engine's own opening; what is neither file nor folder is not permitted.
pub(super) async fn open(dir: Dir, path: String, wish: Wish) -> io::Result<Option<Descriptor>> {
    if wish.is_refused(dir.perms) {
        return Ok(None);
    }
    let (perms, mode) = (dir.perms, wish.mode());
    let opened = tokio::task::spawn_blocking(move || opened(&dir.dir, &path, wish)).await;
    let opened = opened.map_err(|_| io::Error::from(Errno::IO))??;
    Ok(opened.map(|(file, is_folder)| {
        if is_folder {
            Descriptor::Dir(Dir::new(file, perms, mode, false))
        } else {
            Descriptor::File(filesystem::File::new(file, perms, mode, false))
        }
    }))
}

fn opened(dir: &File, path: &str, wish: Wish) -> io::Result<Option<(File, bool)>> {
    let mode = if wish.create { Mode::from_raw_mode(0o666) } else { Mode::empty() };
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    let file = loop {
        tries += 1;
        match openat2(dir, path, wish.flags(), mode, within) {
            Err(Errno::AGAIN) if tries < TRIES => {}
            // The filter of walls around this process, or an older kernel.
            Err(Errno::NOSYS | Errno::PERM) => return Ok(None),
            // It leads out; or it is a pipe that nobody reads, or a socket.
            Err(Errno::XDEV | Errno::NXIO) => return Err(Errno::PERM.into()),
            other => break File::from(other?),
        }
    };
    let is_folder = match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::Directory => true,
        FileType::RegularFile if wish.directory => return Err(Errno::NOTDIR.into()),
        FileType::RegularFile => false,
        _ => return Err(Errno::PERM.into()),
    };
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(Some((file, is_folder)))
}
