//! From WebAssembly to code that runs: what was kept, or what a compiler makes now.
//!
//! Where nothing was kept, the first start need not wait for Cranelift: Winch makes code in a fraction of the
//! time, the plugin starts with it, and Cranelift's is made afterwards ([`background`]), kept, and taken by the next
//! start. Instances stay with the code that they were made from. This is done where code is kept at all, above
//! [`WINCH_FROM`] bytes, and where there is Winch ([`Engines::winch_for`]); what Winch refuses is compiled by
//! Cranelift at once. Code of Winch is kept as well until the other is there, for processes that end before.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use wasmtime::{Engine, Module, component::Component};

use super::{
    CompiledBy, Entry, Kind, Ready,
    background::{self, Job},
    machine_code, machine_code_by_winch, not_compiled, said,
};
use crate::{
    WasmError,
    engine::{self, Engines, Winch},
};

/// From so many bytes of WebAssembly on Winch is worth it. On two processors, with others at work, Cranelift took 0.3 to
/// 0.5 s for 120 to 240 KB (Rust), 5 to 7 s for 2.4 MB and 8 to 14 s for 5.7 MB: about a second where this begins.
/// Winch took 0.05, 0.1, 0.9 and 1.5 s.
pub(crate) const WINCH_FROM: u64 = 512 << 10;

/// How long after a start with Winch's code Cranelift begins. What ends before that has not made the machine work
/// for nothing, and the first calls have it for themselves.
pub(crate) const LATER: Duration = Duration::from_secs(2);

/// Compiles, and keeps what it compiled.
pub(crate) struct Compiler {
    pub(crate) engines: Arc<Engines>,
    folder: OnceLock<PathBuf>,
    /// Code that was compiled already and is taken as it is; nothing is compiled then.
    given: Option<(PathBuf, CompiledBy)>,
    /// See [`WINCH_FROM`].
    winch_from: u64,
}

/// Code in the engine: of a component, or of a module.
pub(crate) trait Native: Sized {
    const KIND: Kind;

    /// Reads it: what is beyond the engine's bounds is refused.
    fn read(engine: &Engine, code: &Ready) -> wasmtime::Result<Self>;

    /// Makes the image of its memory now, so that the first instance does not pay for it.
    fn make_image(&self) -> wasmtime::Result<()>;

    /// Ready for instances.
    fn load(engine: &Engine, code: &Ready) -> wasmtime::Result<Self> {
        let native = Self::read(engine, code)?;
        native.make_image()?;
        Ok(native)
    }

    /// Maps the file: see [`Compiler::given`].
    fn map(engine: &Engine, path: &Path) -> wasmtime::Result<Self>;
}

impl Native for Component {
    const KIND: Kind = Kind::Component;

    fn read(engine: &Engine, code: &Ready) -> wasmtime::Result<Self> {
        // SAFETY: see `Ready`.
        #[allow(unsafe_code)]
        unsafe {
            Self::deserialize(engine, code.bytes())
        }
    }

    fn make_image(&self) -> wasmtime::Result<()> {
        self.initialize_copy_on_write_image()
    }

    fn map(engine: &Engine, path: &Path) -> wasmtime::Result<Self> {
        // SAFETY: see `Compiler::given`; the mount that shows the file is read-only.
        #[allow(unsafe_code)]
        unsafe {
            Self::deserialize_file(engine, path)
        }
    }
}

impl Native for Module {
    const KIND: Kind = Kind::Module;

    fn read(engine: &Engine, code: &Ready) -> wasmtime::Result<Self> {
        // SAFETY: see `Ready`.
        #[allow(unsafe_code)]
        unsafe {
            Self::deserialize(engine, code.bytes())
        }
    }

    fn make_image(&self) -> wasmtime::Result<()> {
        self.initialize_copy_on_write_image()
    }

    fn map(engine: &Engine, path: &Path) -> wasmtime::Result<Self> {
        // SAFETY: see `Compiler::given`; the mount that shows the file is read-only.
        #[allow(unsafe_code)]
        unsafe {
            Self::deserialize_file(engine, path)
        }
    }
}

/// Where code is read from: a second engine reads it without a copy of it in between.
enum Source {
    Bytes(Ready),
    File(PathBuf),
}

impl Source {
    fn read<N: Native>(&self, engine: &Engine) -> wasmtime::Result<N> {
        match self {
            Self::Bytes(code) => N::read(engine, code),
            Self::File(path) => N::map(engine, path),
        }
    }
}

/// Code in its engine, and where it was read from.
struct Loaded<N> {
    native: N,
    source: Source,
}

impl<N: Native> Loaded<N> {
    /// Ready for instances.
    fn new(engine: &Engine, code: Ready) -> wasmtime::Result<Self> {
        Ok(Self { native: N::load(engine, &code)?, source: Source::Bytes(code) })
    }

    fn mapped(engine: &Engine, path: &Path) -> wasmtime::Result<Self> {
        Ok(Self { native: N::map(engine, path)?, source: Source::File(path.to_owned()) })
    }
}

/// What the next launch takes, and which compiler made it.
pub(crate) struct Current<T>(Mutex<(T, CompiledBy)>);

impl<T: Clone> Current<T> {
    pub(crate) fn get(&self) -> (T, CompiledBy) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, code: T, by: CompiledBy) {
        let before = {
            let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, (code, by))
        };
        // Without the lock: it may be the last of it.
        drop(before);
    }
}

impl Compiler {
    /// Compiles and keeps nothing, until it is told where. `winch_from`: see [`WINCH_FROM`].
    pub(crate) fn new(engines: Arc<Engines>, winch_from: u64) -> Self {
        Self { engines, folder: OnceLock::new(), given: None, winch_from }
    }

    /// Takes the code in the file at `given`, which must be what this program made of the very file that is asked
    /// for, with this compiler. Only where this process stands behind walls and may be anything: the host has
    /// made the file, and shows it here.
    #[cfg(target_os = "linux")]
    pub(crate) fn given(engines: Arc<Engines>, given: PathBuf, by: CompiledBy) -> Self {
        let (folder, given) = (OnceLock::new(), Some((given, by)));
        Self { engines, folder, given, winch_from: u64::MAX }
    }

    /// Where compiled code is kept from now on. The first call counts.
    pub(crate) fn keep_in(&self, folder: PathBuf) {
        let _ = self.folder.set(folder);
    }

    /// Code of `wasm` for `engine`, one of [`Compiler::engines`], as `link` makes it ready for launches.
    pub(crate) async fn code<N, T>(
        &self,
        engine: &Engine,
        wasm: Vec<u8>,
        link: impl Fn(&N) -> Result<T, WasmError> + Send + 'static,
    ) -> Result<Arc<Current<T>>, WasmError>
    where
        N: Native + 'static,
        T: Clone + Send + 'static,
    {
        let task = Task {
            engines: Arc::clone(&self.engines),
            engine: engine.clone(),
            folder: self.folder.get().cloned(),
            wasm,
            link,
            of: std::marker::PhantomData,
        };
        let (given, winch_from) = (self.given.clone(), self.winch_from);
        let work = move || match given {
            Some((path, by)) => task.given(&path, by),
            None => task.run(winch_from),
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|e| WasmError::Engine(format!("compiling was given up: {e}")))?
    }
}

/// One piece of WebAssembly on its way.
struct Task<N, T, L> {
    engines: Arc<Engines>,
    engine: Engine,
    folder: Option<PathBuf>,
    wasm: Vec<u8>,
    link: L,
    of: std::marker::PhantomData<fn() -> (N, T)>,
}

impl<N, T, L> Task<N, T, L>
where
    N: Native + 'static,
    T: Clone + Send + 'static,
    L: Fn(&N) -> Result<T, WasmError> + Send + 'static,
{
    fn given(self, path: &Path, by: CompiledBy) -> Result<Arc<Current<T>>, WasmError> {
        let engine = match by {
            CompiledBy::Cranelift => &self.engine,
            CompiledBy::Winch => self
                .engines
                .winch_for(&self.engine)
                .map(|winch| &winch.engine)
                .ok_or_else(|| WasmError::Unfit("there is no Winch here".into()))?,
        };
        let loaded =
            Loaded::mapped(engine, path).map_err(|error| WasmError::Unfit(said(&error)))?;
        self.current(&loaded, by)
    }

    fn run(self, winch_from: u64) -> Result<Arc<Current<T>>, WasmError> {
        // What cannot be kept can still be run.
        let entry = self.entry(&self.engine, CompiledBy::Cranelift);
        if let Some(loaded) = entry.as_ref().and_then(|entry| kept(&self.engine, entry)) {
            return self.current(&loaded, CompiledBy::Cranelift);
        }
        if let Some(entry) = entry.clone().filter(|_| self.wasm.len() as u64 >= winch_from)
            && let Some((loaded, winchs)) = self.by_winch()
        {
            let current = self.current(&loaded, CompiledBy::Winch)?;
            let (replaced, asks) = (Arc::downgrade(&current), Arc::downgrade(&current));
            let from = Instant::now() + LATER;
            background::add(Job {
                bytes: self.wasm.len() as u64,
                is_wanted: Box::new(move || asks.strong_count() > 0),
                work: Box::new(move || {
                    thread::sleep(from.saturating_duration_since(Instant::now()));
                    self.replace(&replaced, &entry, &winchs);
                }),
            });
            return Ok(current);
        }
        let ready = Ready::compiled(machine_code(&self.engine, N::KIND, &self.wasm)?);
        if let Some(entry) = entry {
            let _ = entry.write(ready.bytes());
        }
        let loaded = Loaded::new(&self.engine, ready).map_err(|error| not_compiled(&error))?;
        self.current(&loaded, CompiledBy::Cranelift)
    }

    /// What Winch makes, or has made for a process that ended early, and where it is kept.
    fn by_winch(&self) -> Option<(Loaded<N>, Entry)> {
        let winch = self.engines.winch_for(&self.engine)?;
        let entry = self.entry(&winch.engine, CompiledBy::Winch)?;
        if let Some(loaded) = kept(&winch.engine, &entry) {
            // It may be of a version with wider bounds.
            let fits = self.fits(&loaded.source, CompiledBy::Winch).is_ok();
            return fits.then_some((loaded, entry));
        }
        let ready = Ready::compiled(machine_code_by_winch(winch, N::KIND, &self.wasm)?);
        let _ = entry.write(ready.bytes());
        Some((Loaded::new(&winch.engine, ready).ok()?, entry))
    }

    /// Makes the code that is to stay, if nobody was faster, and has the next launch take it.
    fn replace(self, replaced: &Weak<Current<T>>, entry: &Entry, winchs: &Entry) {
        // What is kept and does not fit the engine is made anew; what cannot be kept can still be run.
        let mut is_kept = true;
        let loaded = kept(&self.engine, entry).or_else(|| {
            let compiler = engine::on_one_thread().ok()?;
            let ready = Ready::compiled(machine_code(&compiler, N::KIND, &self.wasm).ok()?);
            is_kept = entry.write(ready.bytes()).is_ok();
            Loaded::new(&self.engine, ready).ok()
        });
        let Some(loaded) = loaded else { return };
        if is_kept {
            let _ = fs::remove_file(&winchs.path);
        }
        if let Some(current) = replaced.upgrade()
            && let Ok(code) = self.linked(&loaded, CompiledBy::Cranelift)
        {
            current.set(code, CompiledBy::Cranelift);
        }
    }

    fn entry(&self, engine: &Engine, by: CompiledBy) -> Option<Entry> {
        Entry::new(self.folder.as_deref()?, engine, by, N::KIND, &self.wasm).ok()
    }

    fn current(&self, loaded: &Loaded<N>, by: CompiledBy) -> Result<Arc<Current<T>>, WasmError> {
        Ok(Arc::new(Current(Mutex::new((self.linked(loaded, by)?, by)))))
    }

    /// Ready for launches, if a pool would take its instances.
    fn linked(&self, loaded: &Loaded<N>, by: CompiledBy) -> Result<T, WasmError> {
        self.fits(&loaded.source, by)?;
        (self.link)(&loaded.native)
    }

    /// Whether a pool would take its instances, where they come out of none.
    fn fits(&self, source: &Source, by: CompiledBy) -> Result<(), WasmError> {
        let bounds = match by {
            CompiledBy::Cranelift => self.engines.bounds_for(&self.engine),
            CompiledBy::Winch => {
                let winch = self.engines.winch_for(&self.engine).and_then(Winch::bounds);
                Some(winch.ok_or_else(|| WasmError::Unfit("there is no Winch here".into()))?)
            }
        };
        let Some(bounds) = bounds else { return Ok(()) };
        source.read::<N>(bounds).map(drop).map_err(|error| not_compiled(&error))
    }
}

/// What was kept, if it is ours and fits.
fn kept<N: Native>(engine: &Engine, entry: &Entry) -> Option<Loaded<N>> {
    Loaded::new(engine, entry.read()?).ok()
}
