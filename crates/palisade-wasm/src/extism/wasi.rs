//! WASI preview 1 for Extism modules: what components are shown, in its older form.

use std::{collections::HashSet, sync::Arc};

use palisade_model::Failure;
use wasmtime::{AsContextMut as _, Caller, Extern, Linker, Memory};
use wasmtime_wasi::{
    WasiCtxBuilder, WasiView as _,
    filesystem::Descriptor,
    p1::{
        self, WasiP1Ctx,
        wasi_snapshot_preview1::{
            WasiSnapshotPreview1 as _, path_filestat_get, path_open, random_get,
        },
    },
};
use wiggle::GuestMemory;

use crate::state::{Shared, State};

/// The module that plugins import from.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";

/// Parameters of `path_open`: the folder, how links are looked up, the path and its length, how it is opened, the
/// rights to it and below it, its flags, and where its number goes.
type PathOpen = (i32, i32, i32, i32, i32, i64, i64, i32, i32);

/// `errno` for too many open files, and for what is not permitted.
const MFILE: i32 = 33;
const PERM: i32 = 63;
/// Bytes of a `filestat`, and where in it the type of the file stands.
const FILESTAT: usize = 64;
const FILETYPE: usize = 16;
/// `filetype` of folders, files and symbolic links.
const OPENED: [u8; 3] = [3, 4, 7];
/// Longest path that is looked at, in bytes; none that is longer can be opened.
const MAX_PATH: usize = 64 << 10;

/// Defines all of it.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    p1::add_to_linker_async(linker, wasi)?;
    linker.allow_shadowing(true);
    let done = linker
        .func_wrap_async(MODULE, "path_open", |mut caller: Caller<'_, State>, params: PathOpen| {
            Box::new(async move { open(&mut caller, params).await })
        })
        .and_then(|linker| {
            linker.func_wrap(
                MODULE,
                "random_get",
                |mut caller: Caller<'_, State>, place: i32, length: i32| {
                    crate::wasi::within(length.cast_unsigned().into())?;
                    let memory = memory(&mut caller)?;
                    let (ctx, mut memory) = prepared(&memory, &mut caller);
                    random_get(ctx, &mut memory, place, length)
                },
            )
        })
        .map(drop);
    linker.allow_shadowing(false);
    done
}

fn memory(caller: &mut Caller<'_, State>) -> wasmtime::Result<Memory> {
    let memory = caller.get_export("memory").and_then(Extern::into_memory);
    memory.ok_or_else(|| wasmtime::Error::msg("the module has no memory"))
}

/// What the engine's own functions work on. They are told how much of a module's memory they may copy, as the engine
/// tells them.
fn prepared<'a>(
    memory: &Memory,
    caller: &'a mut Caller<'_, State>,
) -> (&'a mut WasiP1Ctx, GuestMemory<'a>) {
    let fuel = caller.as_context_mut().hostcall_fuel();
    let (bytes, state) = memory.data_and_store_mut(caller);
    let ctx = wasi(state);
    ctx.set_hostcall_fuel(fuel);
    (ctx, GuestMemory::Unshared(bytes))
}

fn wasi(state: &mut State) -> &mut WasiP1Ctx {
    let extism = state.extism.get_or_insert_default();
    // There is one since the instance was made; without, it would show nothing.
    extism.wasi.get_or_insert_with(|| WasiCtxBuilder::new().build_p1())
}

/// What an instance of this launch is shown.
pub(crate) fn context(shared: &Shared) -> Result<WasiP1Ctx, Failure> {
    crate::wasi::preview1(shared)
}

/// The engine's own opening, of files and folders only, and of no more than the launch may have: it would wait for
/// ever at a named pipe, on a thread of the host's ([`crate::wasi`] has the same for components). Whoever can change a
/// granted folder from outside may still swap one in between the look and the opening.
async fn open(caller: &mut Caller<'_, State>, params: PathOpen) -> wasmtime::Result<i32> {
    let memory = memory(caller)?;
    let Some(file) = caller.data().shared.files.place() else { return Ok(MFILE) };
    let (folder, lookup, path, length, how, rights, inherited, flags, place) = params;
    let text = usize::try_from(path.cast_unsigned()).ok().and_then(|from| {
        let length = usize::try_from(length.cast_unsigned()).ok()?;
        memory.data(&*caller).get(from..from.checked_add(length)?)
    });
    // What is no path is the opening's to tell.
    let text = text.filter(|text| text.len() <= MAX_PATH).map(<[u8]>::to_vec);
    let (ctx, mut memory) = prepared(&memory, caller);
    if let Some(text) = text
        && !is_opened(ctx, folder, lookup, &text).await?
    {
        return Ok(PERM);
    }
    let before = opened(ctx).map(|(_, at)| at).collect::<HashSet<_>>();
    let errno = path_open(
        ctx,
        &mut memory,
        folder,
        lookup,
        path,
        length,
        how,
        rights,
        inherited,
        flags,
        place,
    )
    .await?;
    // Where it failed, nothing is new.
    if let Some((new, _)) = opened(ctx).find(|(_, at)| !before.contains(at)) {
        file.taken_by(new);
    }
    Ok(errno)
}

/// The files and folders in the module's table, and what tells each from the others that are there.
fn opened(ctx: &mut WasiP1Ctx) -> impl Iterator<Item = (&Descriptor, usize)> {
    let entries = ctx.ctx().table.iter_mut();
    entries.filter_map(|entry| entry.downcast_ref::<Descriptor>()).map(|descriptor| {
        let file = match descriptor {
            Descriptor::File(file) => &file.file,
            Descriptor::Dir(folder) => &folder.dir,
        };
        (descriptor, Arc::as_ptr(file).addr())
    })
}

/// Whether a file, a folder or nothing stands at a path: asked as the module itself could ask, in a memory of its own.
async fn is_opened(
    ctx: &mut WasiP1Ctx,
    folder: i32,
    lookup: i32,
    path: &[u8],
) -> wasmtime::Result<bool> {
    let mut own = vec![0; FILESTAT];
    own.extend_from_slice(path);
    let (at, length) = (i32::try_from(FILESTAT)?, i32::try_from(path.len())?);
    let mut memory = GuestMemory::Unshared(&mut own);
    let errno = path_filestat_get(ctx, &mut memory, folder, lookup, at, length, 0).await?;
    Ok(errno != 0 || own.get(FILETYPE).is_some_and(|kind| OPENED.contains(kind)))
}
