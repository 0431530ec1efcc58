//! Bounds that the engine holds and tells as text alone: here each is looked at before the engine does, and
//! told as the limit that it is.

use bytes::Bytes;
use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource},
};
use wasmtime_wasi::{
    p2::{
        DynOutputStream, OutputStream, Pollable, StreamError, StreamResult,
        bindings::random::{insecure::Host as _, random::Host as _},
        pipe::ClosedOutputStream,
    },
    random::WasiRandomView as _,
};
use wasmtime_wasi_http::{
    WasiHttpView as _,
    p2::{bindings::http::types::HostOutgoingBody as _, body::HostOutgoingBody},
};

use crate::state::{Exceeded, MAX_RANDOM, State};

/// The interfaces under which the engine defines its own.
const RANDOM: &str = "wasi:random/random@0.2.12";
const INSECURE: &str = "wasi:random/insecure@0.2.12";
const HTTP: &str = "wasi:http/types@0.2.12";

/// Puts ours before the functions of an interface of WASI 0.2, where it has one.
pub(super) fn guard_p2(
    linker: &mut Linker<State>,
    package: &str,
    interface: &str,
) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let done = match (package, interface) {
        ("wasi:random", "random") => linker.instance(RANDOM)?.func_wrap(
            "get-random-bytes",
            |mut store: StoreContextMut<'_, State>, (length,): (u64,)| {
                within(length)?;
                Ok((store.data_mut().random().get_random_bytes(length)?,))
            },
        ),
        ("wasi:random", "insecure") => linker.instance(INSECURE)?.func_wrap(
            "get-insecure-random-bytes",
            |mut store: StoreContextMut<'_, State>, (length,): (u64,)| {
                within(length)?;
                Ok((store.data_mut().random().get_insecure_random_bytes(length)?,))
            },
        ),
        ("wasi:http", "types") => linker.instance(HTTP)?.func_wrap(
            "[method]outgoing-body.write",
            |mut store: StoreContextMut<'_, State>, (body,): (Resource<HostOutgoingBody>,)| {
                let state = store.data_mut();
                let stream = state.http().write(body)?;
                if let Ok(stream) = &stream {
                    let stream = state.table.get_mut(stream)?;
                    let inner = std::mem::replace(stream, Box::new(ClosedOutputStream));
                    *stream = Box::new(BodyStream(inner));
                }
                Ok((stream,))
            },
        ),
        _ => Ok(()),
    };
    linker.allow_shadowing(false);
    done
}

/// Whether so many random bytes are given in one call.
///
/// # Errors
/// [`Exceeded::Random`].
pub(crate) fn within(random: u64) -> Result<(), Exceeded> {
    if random > MAX_RANDOM { Err(Exceeded::Random(random)) } else { Ok(()) }
}

/// The stream into a request's body, which takes no more at once than it said.
struct BodyStream(DynOutputStream);

impl BodyStream {
    fn admit(&mut self, bytes: usize) -> StreamResult<()> {
        if bytes > self.0.check_write()? {
            return Err(StreamError::Trap(Exceeded::Body.into()));
        }
        Ok(())
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for BodyStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.admit(bytes.len())?;
        if bytes.is_empty() { Ok(()) } else { self.0.write(bytes) }
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.0.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.0.check_write()
    }

    fn write_zeroes(&mut self, count: usize) -> StreamResult<()> {
        self.admit(count)?;
        self.write(Bytes::from(vec![0; count]))
    }

    async fn cancel(&mut self) {
        self.0.cancel().await;
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for BodyStream {
    async fn ready(&mut self) {
        self.0.ready().await;
    }
}
