//! Compiled code: made once for a piece of WebAssembly, kept on disk, never taken from anybody else.
//!
//! A compiled file is native code and runs with all rights of the host, so what stands in the folder is
//! believed only if this host wrote it. Every file carries an HMAC-SHA256 over its kind, the digest of the
//! WebAssembly, the engine's hash (version and settings of wasmtime, target, features of the CPU) and the
//! code itself. The key, 32 random bytes, lies beside them with mode 0600 in a folder with mode 0700 that
//! belongs to the host's user. A file is opened once and read whole; what was checked is the very memory
//! that the engine then copies its code from, so changing or swapping the file later changes nothing.
//!
//! Threat model. Held off: a file that was cut short or damaged, that another version or another machine
//! wrote, that was put there by somebody who can write to the folder but not read the key (a restored
//! backup, a shared folder, a plugin with a right on the wrong place), a file of one plugin renamed to
//! another's, symbolic links. Such files are refused, and made anew. Not held off: whoever can read the
//! key, that is the host's own user and root, who can change the host itself as well.
//!
//! Code of Winch and code of Cranelift have entries of their own: the compiler is part of the name, and the
//! engine's hash differs as well. An engine of the one refuses code of the other, whatever a file is called.
//!
//! What this is not: a promise about WebAssembly itself. The engine checks it when it compiles.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use wasmtime::{Engine, Module, component::Component};

use crate::{
    WasmError,
    ablation::{self, Layer},
    engine::Winch,
};

mod background;
mod compiler;
pub(crate) mod file;

#[cfg(target_os = "linux")]
pub(crate) use background::give_way;
#[cfg(target_os = "linux")]
pub(crate) use compiler::LATER;
pub(crate) use compiler::{Compiler, Current, WINCH_FROM};

/// What stands at the beginning of every compiled file.
const MAGIC: &[u8; 16] = b"palisade-wasm\0\0\x01";
/// Bytes of a MAC.
const TAG: usize = 32;
/// Largest compiled file that is read, in bytes.
const MAX_FILE: u64 = 1 << 30;
/// Most bytes of all compiled files together; the ones that were not used for longest go first.
const MAX_FOLDER: u64 = 2 << 30;

/// Which compiler of the engine made code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompiledBy {
    /// Slow, and its code is fast: what every start takes that finds it.
    Cranelift,
    /// The other way round: for a first start.
    Winch,
}

impl CompiledBy {
    /// How WebAssembly becomes machine code: part of every name.
    fn strategy(self) -> &'static str {
        match self {
            Self::Cranelift => "cranelift-speed",
            Self::Winch => "winch",
        }
    }
}

/// What was compiled.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Component,
    Module,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Module => "module",
        }
    }
}

/// Compiles with Winch. `None` where it does not take the code: it knows less than Cranelift, and there are
/// instructions at which it panics. And where the pool, which its instances do not come out of, would not take them.
pub(crate) fn machine_code_by_winch(winch: &Winch, kind: Kind, wasm: &[u8]) -> Option<Vec<u8>> {
    // What a panic may leave behind is a free list of buffers in the compiler, each made anew where it lacks.
    let compile = AssertUnwindSafe(|| machine_code(&winch.engine, kind, wasm));
    let code = catch_unwind(compile).ok()?.ok()?;
    let bounds = winch.bounds()?;
    // SAFETY: this process has just made the code, with the same settings.
    #[allow(unsafe_code)]
    let fits = unsafe {
        match kind {
            Kind::Component => Component::deserialize(bounds, &code).is_ok(),
            Kind::Module => Module::deserialize(bounds, &code).is_ok(),
        }
    };
    fits.then_some(code)
}

/// Compiles, and keeps nothing.
pub(crate) fn machine_code(engine: &Engine, kind: Kind, wasm: &[u8]) -> Result<Vec<u8>, WasmError> {
    let compiled = match kind {
        Kind::Component => engine.precompile_component(wasm),
        Kind::Module => engine.precompile_module(wasm),
    };
    compiled.map_err(|error| not_compiled(&error))
}

fn not_compiled(error: &wasmtime::Error) -> WasmError {
    WasmError::Code {
        what: format!("the file cannot be compiled: {}", said(error)),
        hint: "build it again; `palisade check FILE.wasm` says what it is".into(),
    }
}

fn said(error: &wasmtime::Error) -> String {
    let text = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    palisade_model::text::escape(&text, 400)
}

/// Compiled code that this process made, or that this host made earlier. There is no other way to make
/// one than the two below, and the bytes do not change afterwards; that is what `deserialize` asks for.
pub(crate) struct Ready {
    bytes: Vec<u8>,
    start: usize,
}

impl Ready {
    fn compiled(bytes: Vec<u8>) -> Self {
        Self { bytes, start: 0 }
    }

    /// What a file holds, if its MAC is right.
    fn checked(file: Vec<u8>, mac: Hmac<Sha256>) -> Option<Self> {
        let rest = file.strip_prefix(MAGIC)?;
        let (tag, code) = rest.split_at_checked(TAG)?;
        // In constant time.
        let ours = mac.chain_update(code).verify_slice(tag).is_ok();
        if !ours && ablation::has(Layer::Mac) {
            return None;
        }
        Some(Self { bytes: file, start: MAGIC.len() + TAG })
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

/// One place in the folder.
#[derive(Clone)]
struct Entry {
    folder: PathBuf,
    path: PathBuf,
    /// Keyed, and fed with everything but the code.
    mac: Hmac<Sha256>,
}

impl Entry {
    fn new(
        folder: &Path,
        engine: &Engine,
        by: CompiledBy,
        kind: Kind,
        wasm: &[u8],
    ) -> Result<Self, WasmError> {
        let failed = |what| move |source| WasmError::Cache { what, source };
        file::private_folder(folder).map_err(failed("making it private"))?;
        let key = file::key(&folder.join("key")).map_err(failed("its key"))?;
        let mut name = Sha256::new();
        name.update(by.strategy());
        name.update(kind.word());
        name.update(Sha256::digest(wasm));
        name.update(engine_hash(engine));
        let name = name.finalize();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
            .map_err(failed("its key"))?;
        mac.update(MAGIC);
        mac.update(&name);
        let path = folder.join(format!("{}.cwasm", hex(&name)));
        Ok(Self { folder: folder.to_owned(), path, mac })
    }

    /// The code, if it is there and ours. What is not is removed.
    fn read(&self) -> Option<Ready> {
        let bytes = match file::read(&self.path, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    let _ = fs::remove_file(&self.path);
                }
                return None;
            }
        };
        let ready = Ready::checked(bytes, self.mac.clone());
        if ready.is_none() {
            let _ = fs::remove_file(&self.path);
        }
        ready
    }

    /// Keeps `code`. Whole or not at all: it is written beside and then given its name.
    fn write(&self, code: &[u8]) -> io::Result<()> {
        let tag = self.mac.clone().chain_update(code).finalize().into_bytes();
        file::make_room(&self.folder, MAX_FOLDER, code.len() as u64)?;
        file::write(&self.folder, &self.path, &[MAGIC, &tag, code])
    }
}

/// Everything about the engine that decides whether it can run the code.
pub(crate) fn engine_hash(engine: &Engine) -> [u8; 32] {
    struct Feed(Sha256);
    impl std::hash::Hasher for Feed {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut feed = Feed(Sha256::new());
    std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut feed);
    feed.0.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// For the fuzzer: a file with this code, as the host of a certain key writes it.
#[cfg(any(test, fuzzing))]
pub(crate) fn signed(code: &[u8]) -> Vec<u8> {
    let tag = certain().chain_update(code).finalize().into_bytes();
    [&MAGIC[..], &tag, code].concat()
}

/// The code of a file, if that host wrote it.
#[cfg(any(test, fuzzing))]
pub(crate) fn believed(file: Vec<u8>) -> Option<Vec<u8>> {
    Ready::checked(file, certain()).map(|ready| ready.bytes().to_vec())
}

#[cfg(any(test, fuzzing))]
fn certain() -> Hmac<Sha256> {
    // A key of any length makes one.
    let mac = Hmac::<Sha256>::new_from_slice(&[7; 32]).unwrap_or_else(|_| std::process::abort());
    mac.chain_update(MAGIC).chain_update([7; 32])
}

#[cfg(test)]
mod tests;
