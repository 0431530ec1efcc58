//! Opening files, in place of the engine's own `open-at`.
//!
//! The engine opens on a thread of the host that nobody can stop. A named pipe without a writer would keep that
//! thread for ever, and with enough of them the host would have none left; so only files and folders are
//! opened. It is looked first, since to open a device may do something, and opened in a way that does not wait,
//! since somebody may swap a pipe in between (`beneath.rs`). Where the kernel has no `openat2`, the look is all
//! there is; behind walls, whose filter lets none pass, the thread is one of the guest's own engine. How many may
//! be open is counted too (`files.rs`).

use wasmtime::{
    StoreContextMut,
    component::{Accessor, Linker, Resource},
};
use wasmtime_wasi::{
    filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView as _},
    p2::{
        FsError,
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
pub(super) const P2: &str = "wasi:filesystem/types@0.2.12";
pub(super) const P3: &str = "wasi:filesystem/types@0.3.0";
const OPEN_AT: &str = "[method]descriptor.open-at";

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
    let Some(place) = state.shared.files.place() else { return Err(p2::ErrorCode::Quota.into()) };
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
            place.taken_by(&opened);
            return Ok(state.table.push(opened)?);
        }
    }
    let opened = state.filesystem().open_at(folder, follow, path, open, flags).await?;
    place.taken_by(state.table.get(&opened)?);
    Ok(opened)
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
    let place = store.with(|mut store| store.get().shared.files.place());
    let Some(place) = place else { return Err(p3::ErrorCode::Quota.into()) };
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
            place.taken_by(&opened);
            return Ok(store.with(|mut store| store.get().table.push(opened))?);
        }
    }
    let opened = WasiFilesystem::open_at(&files, folder, follow, path, open, flags).await?;
    store.with(|mut store| store.get().table.get(&opened).map(|opened| place.taken_by(opened)))?;
    Ok(opened)
}
