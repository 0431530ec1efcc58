//! Opening files, in place of the engine's own `open-at`.
//!
//! The engine opens on a thread of the host that nobody can stop. A named pipe without a writer would keep that
//! thread for ever, and with enough of them the host would have none left; so only files and folders are
//! opened. It is looked first, since to open a device may do something, and opened in a way that does not wait,
//! since somebody may swap a pipe in between (`beneath.rs`). Where the kernel has no `openat2`, the look is all
//! there is; behind walls, whose filter lets none pass, the thread is one of the guest's own engine. A process
//! also has a bounded number of descriptors, which are shared out here: one launch has a
//! part of them, and all guests together leave half of them to the host.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU32, Ordering},
};

use wasmtime::{
    StoreContextMut,
    component::{Accessor, Linker, Resource, ResourceTable},
};
use wasmtime_wasi::{
    filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView as _},
    p2::{
        DynInputStream, DynOutputStream, FsError,
        bindings::filesystem::types::{self as p2, HostDescriptor as _},
    },
    p3::{
        bindings::filesystem::types::{self as p3, HostDescriptorWithStore as _},
        filesystem::FilesystemError,
    },
};

use crate::state::State;

#[cfg(target_os = "linux")]
mod beneath;

/// The interfaces under which the engine defines its own.
const P2: &str = "wasi:filesystem/types@0.2.12";
const P3: &str = "wasi:filesystem/types@0.3.0";
const OPEN_AT: &str = "[method]descriptor.open-at";

/// Most open files of one launch.
const MOST: u32 = 256;

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

/// What all guests of this process may have open together, and one launch.
static SHARES: LazyLock<(u32, u32)> = LazyLock::new(|| shares(descriptors()));
/// What they have open.
static OPEN: AtomicU32 = AtomicU32::new(0);

fn shares(descriptors: u32) -> (u32, u32) {
    (descriptors / 2, (descriptors / 8).clamp(8, MOST))
}

/// Open files of one store, as they were counted last, in the sums of its launch and of the process.
pub(crate) struct Files {
    launch: Arc<AtomicU32>,
    counted: u32,
}

impl Files {
    pub(crate) fn new(launch: Arc<AtomicU32>) -> Self {
        Self { launch, counted: 0 }
    }

    /// Counts anew, with one that is opened now; whether there may be so many.
    fn admit(&mut self, open: u32) -> bool {
        let (all, each) = *SHARES;
        self.set(open + 1);
        let fits =
            self.launch.load(Ordering::Relaxed) <= each && OPEN.load(Ordering::Relaxed) <= all;
        if !fits {
            self.set(open);
        }
        fits
    }

    fn set(&mut self, open: u32) {
        for sum in [&*self.launch, &OPEN] {
            sum.fetch_add(open.wrapping_sub(self.counted), Ordering::Relaxed);
        }
        self.counted = open;
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// What may hold a descriptor: files, folders, and streams, which outlive the file that they read or write.
fn open_files(table: &mut ResourceTable) -> u32 {
    let holds = |entry: &&mut (dyn std::any::Any + Send)| {
        entry.is::<Descriptor>() || entry.is::<DynInputStream>() || entry.is::<DynOutputStream>()
    };
    u32::try_from(table.iter_mut().filter(holds).count()).unwrap_or(u32::MAX)
}

impl State {
    /// Whether the guest may open another file.
    fn may_open(&mut self) -> bool {
        let open = open_files(&mut self.table);
        let files = self.files.get_or_insert_with(|| Files::new(Arc::clone(&self.shared.files)));
        files.admit(open)
    }
}

/// How many files one instance of the older WASI, which counts for itself, may have open.
pub(super) fn most() -> usize {
    SHARES.1 as usize
}

/// What the flags of one version of WASI ask for.
#[cfg(target_os = "linux")]
macro_rules! wish {
    ($version:ident, $follow:ident, $open:ident, $flags:ident) => {{
        use $version::{DescriptorFlags as F, OpenFlags as O, PathFlags as P};
        beneath::Wish {
            follow: $follow.contains(P::SYMLINK_FOLLOW),
            create: $open.contains(O::CREATE),
            exclusive: $open.contains(O::EXCLUSIVE),
            truncate: $open.contains(O::TRUNCATE),
            directory: $open.contains(O::DIRECTORY),
            read: $flags.contains(F::READ),
            write: $flags.contains(F::WRITE),
            more: $flags.intersects(
                F::FILE_INTEGRITY_SYNC | F::DATA_INTEGRITY_SYNC | F::REQUESTED_WRITE_SYNC,
            ),
        }
    }};
}

type P2Params = (Resource<Descriptor>, p2::PathFlags, String, p2::OpenFlags, p2::DescriptorFlags);
type P2Answer = (Result<Resource<Descriptor>, p2::ErrorCode>,);

/// Puts the checks before `open-at` of WASI 0.2.
pub(super) fn guard_p2(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let done = linker.instance(P2)?.func_wrap_async(
        OPEN_AT,
        |mut store: StoreContextMut<'_, State>, params: P2Params| {
            Box::new(async move {
                let state = store.data_mut();
                let answer: P2Answer = match open_p2(state, params).await {
                    Ok(file) => (Ok(file),),
                    Err(error) => (Err(error.downcast()?),),
                };
                Ok(answer)
            })
        },
    );
    linker.allow_shadowing(false);
    done
}

async fn open_p2(
    state: &mut State,
    (folder, follow, path, open, flags): P2Params,
) -> Result<Resource<Descriptor>, FsError> {
    if !state.may_open() {
        return Err(p2::ErrorCode::Quota.into());
    }
    let borrowed = Resource::new_borrow(folder.rep());
    // What is not there is the opening's to tell, or to make.
    if let Ok(seen) = state.filesystem().stat_at(borrowed, follow, path.clone()).await {
        use p2::DescriptorType as T;
        if !matches!(seen.type_, T::RegularFile | T::Directory | T::SymbolicLink) {
            return Err(p2::ErrorCode::NotPermitted.into());
        }
    }
    #[cfg(target_os = "linux")]
    if let Descriptor::Dir(dir) = state.table.get(&folder)? {
        let opened =
            beneath::open(dir.clone(), path.clone(), wish!(p2, follow, open, flags)).await?;
        if let Some(opened) = opened {
            return Ok(state.table.push(opened)?);
        }
    }
    state.filesystem().open_at(folder, follow, path, open, flags).await
}

type P3Params = (Resource<Descriptor>, p3::PathFlags, String, p3::OpenFlags, p3::DescriptorFlags);
type P3Answer = (Result<Resource<Descriptor>, p3::ErrorCode>,);

/// The same for WASI 0.3.
pub(super) fn guard_p3(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let done = linker.instance(P3)?.func_wrap_concurrent(
        OPEN_AT,
        |store: &Accessor<State>, params: P3Params| {
            Box::pin(async move {
                let answer: P3Answer = match open_p3(store, params).await {
                    Ok(file) => (Ok(file),),
                    Err(error) => (Err(error.downcast()?),),
                };
                Ok(answer)
            })
        },
    );
    linker.allow_shadowing(false);
    done
}

async fn open_p3(
    store: &Accessor<State>,
    (folder, follow, path, open, flags): P3Params,
) -> Result<Resource<Descriptor>, FilesystemError> {
    if !store.with(|mut store| store.get().may_open()) {
        return Err(p3::ErrorCode::Quota.into());
    }
    let files = store.with_getter::<WasiFilesystem>(State::filesystem);
    let borrowed = Resource::new_borrow(folder.rep());
    if let Ok(seen) = WasiFilesystem::stat_at(&files, borrowed, follow, path.clone()).await {
        use p3::DescriptorType as T;
        if !matches!(seen.type_, T::RegularFile | T::Directory | T::SymbolicLink) {
            return Err(p3::ErrorCode::NotPermitted.into());
        }
    }
    #[cfg(target_os = "linux")]
    {
        let dir = store.with(|mut store| match store.get().table.get(&folder) {
            Ok(Descriptor::Dir(dir)) => Some(dir.clone()),
            _ => None,
        });
        if let Some(dir) = dir
            && let Some(opened) =
                beneath::open(dir, path.clone(), wish!(p3, follow, open, flags)).await?
        {
            return Ok(store.with(|mut store| store.get().table.push(opened))?);
        }
    }
    WasiFilesystem::open_at(&files, folder, follow, path, open, flags).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_shared_out() {
        assert_eq!(shares(1024), (512, 128));
        assert_eq!(shares(1 << 20), (1 << 19, 256));
        assert_eq!(shares(20), (10, 8));
    }

    #[test]
    fn what_a_store_had_open_is_given_back_with_it() {
        let launch = Arc::new(AtomicU32::new(0));
        let (mut one, mut two) = (Files::new(Arc::clone(&launch)), Files::new(Arc::clone(&launch)));
        assert!(one.admit(0) && two.admit(2) && one.admit(4));
        assert_eq!(launch.load(Ordering::Relaxed), 8);
        assert!(!one.admit(SHARES.1), "more than a launch may have");
        drop(one);
        assert_eq!(launch.load(Ordering::Relaxed), 3);
        drop(two);
        assert_eq!(launch.load(Ordering::Relaxed), 0);
    }
}
