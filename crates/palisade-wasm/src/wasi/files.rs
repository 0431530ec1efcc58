//! How many files and folders guests have open.
//!
//! A launch has what its limits say (`resources.files`), all its instances together. A process also has a bounded
//! number of descriptors, which are shared out here: one launch has a part of them at most, and all guests together
//! leave half of them to the host. A process that is there for one launch ([`alone`]) shares nothing out: its walls
//! give it the launch's files and the engine's own.
//!
//! What is counted is the open file itself, for as long as anything holds it: streams outlive the handle that they
//! were made from, and those of WASI 0.3 stand in no table. The folders that were granted are not counted, since the
//! guest did not open them. A listing (`list.rs`) has a place like a file that is being opened, for as long as anything
//! holds it.

use std::{
    fs::File,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use wasmtime_wasi::filesystem::Descriptor;

/// Most open files of one launch that shares its process.
const MOST: u32 = 256;

/// Whether this process is there for one launch.
static ALONE: AtomicBool = AtomicBool::new(false);
/// What all guests of this process may have open together, and one launch.
static SHARES: LazyLock<(u32, u32)> = LazyLock::new(|| {
    if ALONE.load(Ordering::Relaxed) { (u32::MAX, u32::MAX) } else { shares(descriptors()) }
});
/// What they have open, as it was counted last.
static OPEN: AtomicU32 = AtomicU32::new(0);
/// Those who ever opened one.
static ALL: Mutex<Vec<Weak<Files>>> = Mutex::new(Vec::new());

/// Says that this process runs one launch and nothing else, before there is any.
#[cfg(target_os = "linux")]
pub(crate) fn alone() {
    ALONE.store(true, Ordering::Relaxed);
}

/// How many descriptors this process may have (getrlimit(2), `RLIMIT_NOFILE`).
fn descriptors() -> u32 {
    #[cfg(unix)]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        u32::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(u32::MAX)
    }
    #[cfg(not(unix))]
    8192
}

fn shares(descriptors: u32) -> (u32, u32) {
    (descriptors / 2, (descriptors / 8).clamp(8, MOST))
}

/// The open files of one launch.
pub(crate) struct Files {
    most: u32,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    files: Vec<Weak<File>>,
    /// Places of those that are being opened, and of listings.
    places: u32,
    /// What stands in [`OPEN`] for this launch.
    counted: u32,
    /// It stands in [`ALL`].
    is_listed: bool,
}

impl Files {
    /// A launch that may have so many files open, if there are so many for it.
    pub(crate) fn new(limit: u32) -> Self {
        Self { most: limit.min(SHARES.1), open: Mutex::default() }
    }

    /// A place for one more; `None` where there are as many as there may be.
    pub(crate) fn place(self: &Arc<Self>) -> Option<Place> {
        self.place_of(SHARES.0)
    }

    fn place_of(self: &Arc<Self>, all: u32) -> Option<Place> {
        let mut open = self.counted();
        if open.counted >= self.most {
            return None;
        }
        if !one_more(all) {
            drop(open);
            // What others have closed since they opened their last one is free.
            for files in listed() {
                drop(files.counted());
            }
            open = self.counted();
            if open.counted >= self.most || !one_more(all) {
                return None;
            }
        }
        open.counted += 1;
        open.places += 1;
        if !std::mem::replace(&mut open.is_listed, true) {
            let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|files| files.strong_count() > 0);
            all.push(Arc::downgrade(self));
        }
        Some(Place(Arc::clone(self)))
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counted anew.
    fn counted(&self) -> MutexGuard<'_, Open> {
        let mut open = self.open();
        open.count();
        open
    }
}

impl Open {
    fn count(&mut self) {
        self.files.retain(|file| file.strong_count() > 0);
        let files = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        let now = files.saturating_add(self.places);
        OPEN.fetch_add(now.wrapping_sub(self.counted), Ordering::Relaxed);
        self.counted = now;
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        OPEN.fetch_sub(self.open().counted, Ordering::Relaxed);
    }
}

/// Takes one of the places of all guests.
fn one_more(all: u32) -> bool {
    let more = |open: u32| (open < all).then(|| open + 1);
    OPEN.try_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

fn listed() -> Vec<Arc<Files>> {
    let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().filter_map(Weak::upgrade).collect()
}

/// The place of a file that is being opened, or of a listing.
pub(crate) struct Place(Arc<Files>);

impl Place {
    /// It is open: the place is taken until nothing holds it any more.
    pub(crate) fn taken_by(self, opened: &Descriptor) {
        let file = match opened {
            Descriptor::File(file) => &file.file,
            Descriptor::Dir(folder) => &folder.dir,
        };
        self.0.open().files.push(Arc::downgrade(file));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.0.open();
        open.places -= 1;
        open.count();
    }
}

#[cfg(test)]
mod tests {
    use wasmtime_wasi::{FsPerms, OpenMode, filesystem};

    use super::*;

    /// Opens a file in a place, and keeps it open.
    fn opened(place: Option<Place>) -> Descriptor {
        let file = tempfile::tempfile().unwrap();
        let file = filesystem::File::new(file, FsPerms::ReadOnly, OpenMode::READ, false);
        let descriptor = Descriptor::File(file);
        place.expect("a place").taken_by(&descriptor);
        descriptor
    }

    #[test]
    fn descriptors_are_shared_out() {
        assert_eq!(shares(1024), (512, 128));
        assert_eq!(shares(1 << 20), (1 << 19, 256));
        assert_eq!(shares(20), (10, 8));
        // What a launch may have is the lower of the two.
        assert_eq!(Files::new(3).most, 3);
        assert_eq!(Files::new(u32::MAX).most, SHARES.1);
    }

    #[test]
    fn a_place_is_taken_while_anything_holds_the_file() {
        let files = Arc::new(Files::new(3));
        let one = opened(files.place());
        let two = opened(files.place());
        let opening = files.place().expect("the third");
        assert!(files.place().is_none(), "a place is taken before its file is open");
        drop(opening);
        let three = opened(files.place());
        assert!(files.place().is_none());
        // A stream keeps the file when its handle is gone.
        let Descriptor::File(stream) = &three else { panic!("a file") };
        let stream = Arc::clone(&stream.file);
        drop(three);
        assert!(files.place().is_none());
        drop(stream);
        assert!(files.place().is_some());
        drop((one, two));
        let all: Vec<_> = (0..3).map(|_| opened(files.place())).collect();
        assert!(files.place().is_none());
        drop(all);
        drop(files);
        assert_eq!(OPEN.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_one_launch_has_closed_another_may_open() {
        const ALL_GUESTS: u32 = 4;
        let (one, two) = (Arc::new(Files::new(4)), Arc::new(Files::new(4)));
        let kept: Vec<_> = (0..4).map(|_| opened(one.place_of(ALL_GUESTS))).collect();
        assert!(two.place_of(ALL_GUESTS).is_none(), "all of them are taken");
        // It opens nothing any more, and so does not count its own again.
        drop(kept);
        let kept: Vec<_> = (0..4).map(|_| opened(two.place_of(ALL_GUESTS))).collect();
        assert!(one.place_of(ALL_GUESTS).is_none());
        drop((kept, two));
        assert!(one.place_of(ALL_GUESTS).is_some());
    }
}
