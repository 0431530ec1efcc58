//! The entries of a folder, a page at a time.
//!
//! A page is read on a thread for what blocks, and never longer than it takes to fill it. The folder is opened
//! anew for each listing: what was granted can only be looked up in, and two listings of one folder go on
//! independently of each other.

use std::{
    fs::File,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    vec,
};

use rustix::{
    fs::{AtFlags, Dir, DirEntry, FileType, Mode, OFlags, openat, statat},
    io::Errno,
};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::wasi::files::Place;

/// Most entries of a page.
pub(super) const PAGE: usize = 128;

/// An entry as it stands in its folder.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: FileType,
}

/// Why there is no entry.
#[derive(Clone, Copy)]
pub(super) enum Why {
    /// It has a name that WASI cannot say.
    NotUtf8,
    /// What the kernel says.
    Errno(Errno),
}

type Page = Vec<Result<Entry, Why>>;

/// A listing that is under way.
pub(super) struct Listing {
    page: vec::IntoIter<Result<Entry, Why>>,
    next: Next,
    /// Kept by those who read as well, so that no descriptor is without one.
    place: Arc<Place>,
}

/// The page after this one.
enum Next {
    In(Folder),
    Read(JoinHandle<(Page, Option<Folder>)>),
    None,
}

enum Folder {
    Closed(Arc<File>),
    Open(Dir),
}

impl Listing {
    /// Of `folder`, which is not opened before it is asked for.
    pub(super) fn new(folder: Arc<File>, place: Place) -> Self {
        let next = Next::In(Folder::Closed(folder));
        Self { page: Page::new().into_iter(), next, place: Arc::new(place) }
    }

    /// Ready when there is an entry, or there are no more.
    pub(super) fn poll_page(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.page.len() == 0 {
            self.next = match std::mem::replace(&mut self.next, Next::None) {
                Next::In(folder) => {
                    let place = Arc::clone(&self.place);
                    Next::Read(spawn_blocking(move || {
                        let read = folder.page();
                        drop(place);
                        read
                    }))
                }
                Next::Read(mut page) => match Pin::new(&mut page).poll(cx) {
                    Poll::Ready(read) => {
                        // Only a task that panicked has none.
                        let (page, rest) =
                            read.unwrap_or_else(|_| (vec![Err(Why::Errno(Errno::IO))], None));
                        self.page = page.into_iter();
                        rest.map_or(Next::None, Next::In)
                    }
                    Poll::Pending => {
                        self.next = Next::Read(page);
                        return Poll::Pending;
                    }
                },
                Next::None => break,
            };
        }
        Poll::Ready(())
    }

    /// The same as [`Self::poll_page`], where a folder that cannot be read from the beginning is an error.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Why>> {
        ready!(self.poll_page(cx));
        Poll::Ready(match self.page.as_slice().first() {
            Some(Err(why @ Why::Errno(_))) => Err(*why),
            _ => Ok(()),
        })
    }

    /// The next entry of the page that is there.
    pub(super) fn next(&mut self) -> Option<Result<Entry, Why>> {
        self.page.next()
    }

    /// Whether there is no page after this one, and none of it left.
    pub(super) fn is_at_end(&self) -> bool {
        self.page.len() == 0 && matches!(self.next, Next::None)
    }
}

impl Folder {
    /// A page of entries, and the folder unless it has been read to its end.
    fn page(self) -> (Page, Option<Self>) {
        let opened = match self {
            Self::Closed(folder) => opened(&folder),
            Self::Open(folder) => Ok(folder),
        };
        let mut folder = match opened {
            Ok(folder) => folder,
            Err(errno) => return (vec![Err(Why::Errno(errno))], None),
        };
        let mut page = Page::new();
        while page.len() < PAGE {
            match folder.read() {
                Some(Ok(entry)) => page.extend(seen(&folder, &entry)),
                Some(Err(errno)) => {
                    page.push(Err(Why::Errno(errno)));
                    return (page, None);
                }
                None => return (page, None),
            }
        }
        (page, Some(Self::Open(folder)))
    }
}

fn opened(folder: &File) -> Result<Dir, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Dir::new(openat(folder, ".", flags, Mode::empty())?)
}

/// What is shown of an entry: nothing of the folder itself, the one above it, and what has gone meanwhile.
fn seen(folder: &Dir, entry: &DirEntry) -> Option<Result<Entry, Why>> {
    let name = entry.file_name();
    if matches!(name.to_bytes(), b"." | b"..") {
        return None;
    }
    let kind = match entry.file_type() {
        // Some file systems do not tell (readdir(3)).
        FileType::Unknown => {
            let stat = folder.fd().and_then(|at| statat(at, name, AtFlags::SYMLINK_NOFOLLOW));
            match stat {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => return None,
                Err(errno) => return Some(Err(Why::Errno(errno))),
            }
        }
        kind => kind,
    };
    let Ok(name) = name.to_str() else { return Some(Err(Why::NotUtf8)) };
    Some(Ok(Entry { name: name.to_owned(), kind }))
}
