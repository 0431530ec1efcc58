//! Listing folders, in place of the engine's own `read-directory`.
//!
//! The engine keeps a thread of the host for each listing of WASI 0.3 until the guest has read its last entry, and
//! takes a whole folder into memory for each of WASI 0.2. Here a folder is read in pages, each when the guest asks
//! for it (`pages.rs`): what nobody reads takes no thread, and a listing holds one page and one descriptor at most.
//! For as long as it is held it has the place of an open file (`files.rs`).

use std::{
    future::poll_fn,
    iter,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::sync::oneshot;
use wasmtime::{
    StoreContextMut,
    component::{
        Destination, FutureReader, Linker, Resource, ResourceType, StreamProducer, StreamReader,
        StreamResult, VecBuffer,
    },
};
use wasmtime_wasi::{
    filesystem::Descriptor,
    p2::{FsError, bindings::filesystem::types as p2},
    p3::bindings::filesystem::types as p3,
};

use super::open::{P2, P3};
use crate::state::State;

mod pages;

use pages::{Entry, Listing, PAGE, Why};

const READ_DIRECTORY: &str = "[method]descriptor.read-directory";
const STREAM: &str = "directory-entry-stream";
const READ_ENTRY: &str = "[method]directory-entry-stream.read-directory-entry";

/// What an entry is, and what ends a listing, in the words of one version of WASI.
macro_rules! words {
    ($version:ident, $other:expr) => {
        impl From<Entry> for $version::DirectoryEntry {
            fn from(entry: Entry) -> Self {
                use rustix::fs::FileType as F;
                use $version::DescriptorType as T;
                let type_ = match entry.kind {
                    F::RegularFile => T::RegularFile,
                    F::Directory => T::Directory,
                    F::Symlink => T::SymbolicLink,
                    F::Fifo => T::Fifo,
                    F::Socket => T::Socket,
                    F::CharacterDevice => T::CharacterDevice,
                    F::BlockDevice => T::BlockDevice,
                    F::Unknown => $other,
                };
                Self { type_, name: entry.name }
            }
        }

        impl From<Why> for $version::ErrorCode {
            fn from(why: Why) -> Self {
                match why {
                    Why::NotUtf8 => Self::IllegalByteSequence,
                    Why::Errno(errno) => std::io::Error::from(errno).into(),
                }
            }
        }
    };
}

words!(p2, T::Unknown);
words!(p3, T::Other(None));

/// Puts ours before `read-directory` of WASI 0.2, with the stream that it makes.
pub(super) fn guard_p2(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let done = define_p2(linker);
    linker.allow_shadowing(false);
    done
}

fn define_p2(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut types = linker.instance(P2)?;
    types.resource(STREAM, ResourceType::host::<Listing>(), |mut store, listing| {
        store.data_mut().table.delete(Resource::<Listing>::new_own(listing))?;
        Ok(())
    })?;
    types.func_wrap_async(
        READ_DIRECTORY,
        |mut store: StoreContextMut<'_, State>, (folder,): (Resource<Descriptor>,)| {
            Box::new(async move { answer(list_p2(store.data_mut(), &folder).await) })
        },
    )?;
    types.func_wrap_async(
        READ_ENTRY,
        |mut store: StoreContextMut<'_, State>, (listing,): (Resource<Listing>,)| {
            Box::new(async move { answer(next_p2(store.data_mut(), &listing).await) })
        },
    )
}

fn answer<T>(result: Result<T, FsError>) -> wasmtime::Result<(Result<T, p2::ErrorCode>,)> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

async fn list_p2(
    state: &mut State,
    folder: &Resource<Descriptor>,
) -> Result<Resource<Listing>, FsError> {
    let Descriptor::Dir(folder) = state.table.get(folder)? else {
        return Err(p2::ErrorCode::NotDirectory.into());
    };
    let Some(place) = state.shared.files.place() else { return Err(p2::ErrorCode::Quota.into()) };
    let mut listing = Listing::new(Arc::clone(&folder.dir), place);
    poll_fn(|cx| listing.poll_open(cx)).await.map_err(p2::ErrorCode::from)?;
    Ok(state.table.push(listing)?)
}

async fn next_p2(
    state: &mut State,
    listing: &Resource<Listing>,
) -> Result<Option<p2::DirectoryEntry>, FsError> {
    let listing = state.table.get_mut(listing)?;
    poll_fn(|cx| listing.poll_page(cx)).await;
    let next = listing.next().transpose().map_err(p2::ErrorCode::from)?;
    Ok(next.map(Into::into))
}

type P3Result = Result<(), p3::ErrorCode>;
type P3Answer = (StreamReader<p3::DirectoryEntry>, FutureReader<P3Result>);

/// The same for WASI 0.3.
pub(super) fn guard_p3(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let done = linker.instance(P3)?.func_wrap(
        READ_DIRECTORY,
        |store: StoreContextMut<'_, State>, (folder,): (Resource<Descriptor>,)| {
            Ok((list_p3(store, &folder)?,))
        },
    );
    linker.allow_shadowing(false);
    done
}

fn list_p3(
    mut store: StoreContextMut<'_, State>,
    folder: &Resource<Descriptor>,
) -> wasmtime::Result<P3Answer> {
    let state = store.data();
    let listing = match state.table.get(folder)? {
        Descriptor::File(_) => Err(p3::ErrorCode::NotDirectory),
        Descriptor::Dir(folder) => match state.shared.files.place() {
            Some(place) => Ok(Listing::new(Arc::clone(&folder.dir), place)),
            None => Err(p3::ErrorCode::Quota),
        },
    };
    let (ended, end) = oneshot::channel();
    let entries = match listing {
        Ok(listing) => {
            let entries = Entries { listing: Some(listing), ended: Some(ended) };
            StreamReader::new(&mut store, entries)?
        }
        Err(error) => {
            // Both ends are here still.
            let _ = ended.send(Err(error));
            StreamReader::new(&mut store, iter::empty())?
        }
    };
    Ok((entries, FutureReader::new(&mut store, end)?))
}

/// What gives the entries of a listing to a stream of WASI 0.3.
struct Entries {
    /// Until it has ended.
    listing: Option<Listing>,
    ended: Option<oneshot::Sender<P3Result>>,
}

impl Entries {
    /// Nothing of it is held any longer.
    fn end(&mut self, with: P3Result) {
        self.listing = None;
        if let Some(ended) = self.ended.take() {
            // Nobody has to wait for it.
            let _ = ended.send(with);
        }
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        self.end(Ok(()));
    }
}

impl<D> StreamProducer<D> for Entries {
    type Item = p3::DirectoryEntry;
    type Buffer = VecBuffer<p3::DirectoryEntry>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut to: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let room = to.remaining(&mut store).unwrap_or(PAGE);
        // Whether there is more is not known before it is read.
        if room == 0 {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let Some(listing) = &mut self.listing else {
            return Poll::Ready(Ok(StreamResult::Dropped));
        };
        // A page that is being read stays for whoever reads next.
        let page = listing.poll_page(cx);
        if page.is_pending() && finish {
            return Poll::Ready(Ok(StreamResult::Cancelled));
        }
        ready!(page);
        let mut entries = Vec::new();
        let mut end = listing.is_at_end().then_some(Ok(()));
        while entries.len() < room {
            match listing.next() {
                Some(Ok(entry)) => entries.push(entry.into()),
                Some(Err(why)) => {
                    end = Some(Err(why.into()));
                    break;
                }
                None => break,
            }
        }
        to.set_buffer(entries.into());
        Poll::Ready(Ok(match end {
            Some(end) => {
                self.end(end);
                StreamResult::Dropped
            }
            None => StreamResult::Completed,
        }))
    }
}
