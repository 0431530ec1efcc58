//! Engines, and the clock that lets them be interrupted.
//!
//! Code without asynchronous functions runs on the plain engine, which does without the component
//! model's own concurrency; the rest on a second one that is made when it is first needed. Both take
//! instances out of a pool where the address space suffices for one. A third one, made when it is first
//! needed too, compiles with Winch and runs what Winch made; its instances are made one by one. All are told
//! of the time by one thread that sleeps while nothing is called.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::Thread,
    time::Duration,
};

use wasmtime::{
    Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, OptLevel,
    PoolingAllocationConfig, Strategy,
};

use crate::WasmError;

/// Time between two looks at a running guest: how late a deadline can be, and how long one guest can
/// keep a thread from others.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// Ticks without a call after which the clock sleeps.
const IDLE_TICKS: u32 = 200;

/// Stack of one guest, in bytes; beyond it a call traps.
pub(crate) const GUEST_STACK: usize = 512 << 10;
/// The same with room for the host functions that run on it.
const WHOLE_STACK: usize = GUEST_STACK + (512 << 10);
/// Most bytes of one linear memory: what 32-bit code can address.
pub(crate) const MAX_MEMORY: usize = 1 << 32;
/// Most elements of one table.
pub(crate) const MAX_TABLE: usize = 200_000;
/// Most core instances, memories and tables of one component.
const MAX_PARTS: u32 = 64;
/// Places without an instance that keep memory, as [`keep_resident`] says: at most 32 MiB together.
const WARM_SLOTS: u32 = 16;
/// Most instances that can be asked for.
const MAX_INSTANCES: u32 = 100_000;
/// Memories that are set aside for each instance, as long as there are not too many: a component has one as a
/// rule, an Extism plugin three.
const MEMORIES_EACH: u32 = 3;
/// How many are not too many. Each takes 4 GiB of address space, so that these are 49 TiB of 128.
const MANY_MEMORIES: u32 = 12_500;

/// Whether Winch is used: it is in wasmtime's first tier for x86_64 alone, and what it does is tested on Linux. There are
/// instructions at which it panics, so not in a program for which a panic is the end.
pub(crate) const HAS_WINCH: bool =
    cfg!(all(target_arch = "x86_64", target_os = "linux", panic = "unwind"));

/// The engine that compiles with Winch, and the bounds of the pool that it does without.
pub(crate) struct Winch {
    /// Runs what it compiled.
    pub(crate) engine: Engine,
    bounds: OnceLock<Option<Engine>>,
}

impl Winch {
    /// See [`bounds`]. `None` where there is no address space for it.
    pub(crate) fn bounds(&self) -> Option<&Engine> {
        self.bounds.get_or_init(|| bounds(&mut winch_config(), MEMORIES_EACH).ok()).as_ref()
    }
}

/// An engine with the pool's bounds on a single instance, for one whose instances come out of no pool. It refuses to
/// load what goes beyond them: hundreds of thousands of globals, or memory that threads share, take what nobody
/// counts. It runs nothing. With `memories` an instance may have fewer of them than one in the pool: each takes 4 GiB
/// of address space, which the pool has set aside, and outside of it nobody counts.
fn bounds(config: &mut Config, memories: u32) -> wasmtime::Result<Engine> {
    let mut one = pool(0);
    one.max_memories_per_component(memories)
        .max_memories_per_module(memories)
        .total_component_instances(1)
        .total_core_instances(1)
        .total_memories(1)
        .total_tables(1)
        .total_stacks(1);
    Engine::new(config.allocation_strategy(InstanceAllocationStrategy::Pooling(one)))
}

/// All engines of hosts with one limit.
pub(crate) struct Engines {
    plain: Runs,
    concurrent: OnceLock<Result<Runs, String>>,
    winch: OnceLock<Option<Winch>>,
    instances: u32,
    places: Arc<Places>,
    pub(crate) clock: Arc<Clock>,
}

/// Mappings that an idle instance with one memory takes of those that the kernel allows a process. Counted in
/// /proc/self/maps of a process with thousands of them.
pub(crate) const MAPS_EACH: u64 = maps(1);
/// Mappings that are left to the host.
const MAPS_OF_HOST: u64 = 4096;

/// Mappings of an idle instance: four for a memory with its image, a table and the guards behind them, two for its
/// stack and the guard of that, which it keeps between calls.
const fn maps(memories: u32) -> u64 {
    let memories = if memories == 0 { 1 } else { memories };
    2 + 4 * memories as u64
}

/// How many mappings the kernel allows a process (`vm.max_map_count`, proc_sys_vm(5)); `None` where there is
/// no such limit.
pub(crate) fn max_map_count() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()
}

/// How many instances there may be of the backends with one limit, and are; and the mappings that they take, which the
/// kernel counts for the whole process, and so are counted over all backends.
pub(crate) struct Places {
    most: u32,
    most_maps: u64,
    used: AtomicU64,
    used_maps: &'static AtomicU64,
}

/// The mappings of all instances of this process.
static USED_MAPS: AtomicU64 = AtomicU64::new(0);

/// One of them.
pub(crate) struct Place {
    places: Arc<Places>,
    maps: u64,
}

impl Places {
    /// Room for so many instances, as far as the kernel allows that many mappings; `None`: it does not count
    /// them. `used_maps` counts those that are there.
    fn new(instances: u32, allowed: Option<u64>, used_maps: &'static AtomicU64) -> Self {
        let most_maps = allowed.map_or(u64::MAX, |maps| maps.saturating_sub(MAPS_OF_HOST));
        // There is room for one at least: where that is wrong, the kernel says so.
        let most_maps = most_maps.max(maps(MAX_PARTS));
        let fit = u32::try_from(most_maps / MAPS_EACH).unwrap_or(u32::MAX);
        Self { most: instances.min(fit), most_maps, used: AtomicU64::new(0), used_maps }
    }

    pub(crate) fn most(&self) -> u32 {
        self.most
    }

    /// A place for one more, with so many memories.
    ///
    /// # Errors
    /// [`WasmError::TooMany`].
    pub(crate) fn take(self: &Arc<Self>, memories: u32) -> Result<Place, WasmError> {
        let maps = maps(memories);
        if !take(&self.used, 1, self.most.into()) {
            let what = "WebAssembly instances of this host";
            return Err(WasmError::TooMany { what, limit: self.most.into() });
        }
        if !take(self.used_maps, maps, self.most_maps) {
            self.used.fetch_sub(1, Ordering::Relaxed);
            let what = "mappings of WebAssembly instances, by vm.max_map_count";
            return Err(WasmError::TooMany { what, limit: self.most_maps });
        }
        Ok(Place { places: Arc::clone(self), maps })
    }
}

/// Adds, unless it is more than `most` then.
fn take(used: &AtomicU64, more: u64, most: u64) -> bool {
    let add = |used: u64| used.checked_add(more).filter(|sum| *sum <= most);
    used.try_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.used.fetch_sub(1, Ordering::Relaxed);
        self.places.used_maps.fetch_sub(self.maps, Ordering::Relaxed);
    }
}

impl Engines {
    /// Engines for at most `instances` instances at one time.
    pub(crate) fn new(instances: u32) -> Result<Self, WasmError> {
        Self::within(instances, max_map_count())
    }

    /// The same where the kernel allows so many mappings.
    pub(crate) fn within(instances: u32, allowed: Option<u64>) -> Result<Self, WasmError> {
        let instances = instances.clamp(1, MAX_INSTANCES);
        Self::with(instances, Arc::new(Places::new(instances, allowed, &USED_MAPS)))
    }

    fn with(instances: u32, places: Arc<Places>) -> Result<Self, WasmError> {
        let clock = Clock::start()?;
        // The pool takes two mappings for each stack when it is made.
        let plain = Runs::new(places.most(), false)?;
        clock.tell(&plain.engine);
        let (concurrent, winch) = (OnceLock::new(), OnceLock::new());
        Ok(Self { plain, concurrent, winch, instances, places, clock })
    }

    /// The same on a machine without address space for a pool.
    #[cfg(test)]
    pub(crate) fn without_pool(instances: u32) -> Result<Self, WasmError> {
        Ok(Self { plain: Runs::without_pool(false)?, ..Self::new(instances)? })
    }

    /// The engines of this process for so many instances: a pool takes too much address space to have one
    /// for each host. Instances that are left of a backend that is gone are counted for the next one.
    pub(crate) fn shared(instances: u32) -> Result<Arc<Self>, WasmError> {
        type Made = (u32, Weak<Engines>, Weak<Places>);
        static MADE: Mutex<Vec<Made>> = Mutex::new(Vec::new());
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|(.., places)| places.strong_count() > 0);
        let wanted = instances.clamp(1, MAX_INSTANCES);
        let known = made.iter_mut().find(|(instances, ..)| *instances == wanted);
        if let Some((_, engines, places)) = known
            && let Some(places) = places.upgrade()
        {
            if let Some(engines) = engines.upgrade() {
                return Ok(engines);
            }
            let again = Arc::new(Self::with(wanted, places)?);
            *engines = Arc::downgrade(&again);
            return Ok(again);
        }
        let engines = Arc::new(Self::new(wanted)?);
        made.push((wanted, Arc::downgrade(&engines), Arc::downgrade(&engines.places)));
        Ok(engines)
    }

    /// How many instances there may be.
    pub(crate) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// How many were asked for; the kernel may allow less.
    pub(crate) fn wanted(&self) -> u32 {
        self.instances
    }

    /// The engine for code without asynchronous functions.
    pub(crate) fn plain(&self) -> &Engine {
        &self.plain.engine
    }

    /// The engine for code with them (WASI 0.3).
    pub(crate) fn concurrent(&self) -> Result<&Engine, WasmError> {
        let made = self.concurrent.get_or_init(|| {
            let runs = Runs::new(self.places.most(), true).map_err(|e| e.to_string())?;
            self.clock.tell(&runs.engine);
            Ok(runs)
        });
        made.as_ref().map(|runs| &runs.engine).map_err(|e| WasmError::Engine(e.clone()))
    }

    /// The engine that compiles with Winch what `engine` compiles with Cranelift. `None` where there is none:
    /// on other processors, and for code with asynchronous functions, which Winch does not hold for its own
    /// (wasmtime's tests expect it to fail with them).
    ///
    /// Its instances have their places among all others, but no pool: that would take as much address space
    /// again, for the few that run until the other code is there.
    pub(crate) fn winch_for(&self, engine: &Engine) -> Option<&Winch> {
        if !HAS_WINCH || !Engine::same(engine, self.plain()) {
            return None;
        }
        let made = self.winch.get_or_init(|| {
            let engine = Engine::new(&winch_config()).ok()?;
            self.clock.tell(&engine);
            Some(Winch { engine, bounds: OnceLock::new() })
        });
        made.as_ref()
    }

    /// Whether instances come out of a pool.
    pub(crate) fn is_pooled(&self) -> bool {
        self.plain.bounds.is_none()
    }

    /// What code for `engine` is loaded by first: see [`bounds`]. `None` for an engine with a pool, which does that
    /// itself.
    pub(crate) fn bounds_for(&self, engine: &Engine) -> Option<&Engine> {
        let concurrent = self.concurrent.get().and_then(|made| made.as_ref().ok());
        let mut all = std::iter::once(&self.plain).chain(concurrent);
        all.find(|runs| Engine::same(&runs.engine, engine))?.bounds.as_ref()
    }
}

/// An engine that runs plugins, and, where it has no pool, the pool's [`bounds`].
struct Runs {
    engine: Engine,
    bounds: Option<Engine>,
}

impl Runs {
    /// With a pool if there is address space for it.
    fn new(instances: u32, concurrent: bool) -> Result<Self, WasmError> {
        let mut config = config(concurrent);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances)));
        match Engine::new(&config) {
            Ok(engine) => Ok(Self { engine, bounds: None }),
            Err(_) => Self::without_pool(concurrent),
        }
    }

    fn without_pool(concurrent: bool) -> Result<Self, WasmError> {
        let failed = |e: wasmtime::Error| WasmError::Engine(e.to_string());
        let bounds = bounds(&mut config(concurrent), MAX_PARTS).map_err(failed)?;
        let engine = Engine::new(&config(concurrent)).map_err(failed)?;
        Ok(Self { engine, bounds: Some(bounds) })
    }
}

/// What decides about compiled code and about what a guest can do.
pub(crate) fn config(concurrent: bool) -> Config {
    let mut config = Config::new();
    config
        .concurrency_support(concurrent)
        .wasm_component_model(true)
        .wasm_component_model_async(concurrent)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK)
        .async_stack_size(WHOLE_STACK)
        .memory_init_cow(true)
        .parallel_compilation(true)
        .cranelift_opt_level(OptLevel::Speed)
        .generate_address_map(false);
    config
}

/// The same as [`config`] for Winch. What it does not know (tail calls, say) is refused by it, and so is what plugins do
/// without: vectors, which it knows in part, and memories and tables of 64 bits, where a mistake of an earlier version
/// let out data of the host (RUSTSEC-2026-0086).
pub(crate) fn winch_config() -> Config {
    let mut config = config(false);
    config
        .strategy(Strategy::Winch)
        .wasm_memory64(false)
        .wasm_simd(false)
        .allocation_strategy(InstanceAllocationStrategy::OnDemand);
    config
}

/// An engine that compiles what [`Engines::plain`] runs, on the caller's thread alone. It runs nothing.
pub(crate) fn on_one_thread() -> Result<Engine, WasmError> {
    Engine::new(config(false).parallel_compilation(false))
        .map_err(|e| WasmError::Engine(e.to_string()))
}

/// What decides about compiled code on this machine: version and settings of the engine, target, features of the
/// processor. Nothing is compiled or run by the engine that is made to learn it, and no signal handler is set.
#[cfg(target_os = "linux")]
pub(crate) fn made_for() -> Result<[u8; 32], WasmError> {
    static HASH: OnceLock<[u8; 32]> = OnceLock::new();
    if let Some(hash) = HASH.get() {
        return Ok(*hash);
    }
    let hash = made_by(&mut config(false))?;
    Ok(*HASH.get_or_init(|| hash))
}

#[cfg(target_os = "linux")]
fn made_by(config: &mut Config) -> Result<[u8; 32], WasmError> {
    let engine = Engine::new(config.signals_based_traps(false));
    let engine = engine.map_err(|e| WasmError::Engine(e.to_string()))?;
    Ok(crate::cache::engine_hash(&engine))
}

fn pool(instances: u32) -> PoolingAllocationConfig {
    // More than one each, for what is being made or taken away while all are there.
    let some = instances.saturating_add(64);
    let memories = instances.saturating_mul(MEMORIES_EACH).min(MANY_MEMORIES).max(some);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(some)
        // A component in Python has dozens of modules, which share a memory. These two are only counted.
        .total_core_instances(some.saturating_mul(MAX_PARTS))
        .total_memories(memories)
        .total_tables(some.saturating_mul(4))
        .total_stacks(some)
        .max_core_instances_per_component(MAX_PARTS)
        .max_memories_per_component(MAX_PARTS)
        .max_tables_per_component(MAX_PARTS)
        .max_memories_per_module(MAX_PARTS)
        .max_tables_per_module(MAX_PARTS)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_memory_size(MAX_MEMORY)
        .table_elements(MAX_TABLE)
        .max_unused_warm_slots(WARM_SLOTS)
        .linear_memory_keep_resident(keep_resident())
        .pagemap_scan(Enabled::Auto)
        .table_keep_resident(4 << 10)
        .decommit_batch_size(8);
    pool
}

/// Bytes of a memory that stay with its place after the instance's end, set back to what they were, so that the next
/// one there takes no page fault for them. Where the kernel tells which pages were written (Linux 6.7), these are
/// the pages of an interpreter's first call; elsewhere it is the beginning of the memory, whatever was used of it.
fn keep_resident() -> usize {
    if PoolingAllocationConfig::is_pagemap_scan_available() { 2 << 20 } else { 64 << 10 }
}

/// Counts ticks for all engines of a host, while anything runs.
pub(crate) struct Clock {
    active: AtomicBool,
    asleep: AtomicBool,
    engines: Mutex<Vec<EngineWeak>>,
    thread: OnceLock<Thread>,
}

impl Clock {
    fn start() -> Result<Arc<Self>, WasmError> {
        let clock = Arc::new(Self {
            active: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            engines: Mutex::default(),
            thread: OnceLock::new(),
        });
        let weak = Arc::downgrade(&clock);
        let made = std::thread::Builder::new()
            .name("palisade-wasm".into())
            .spawn(move || run(&weak))
            .map_err(|e| WasmError::Engine(format!("its clock: {e}")))?;
        let _ = clock.thread.set(made.thread().clone());
        Ok(clock)
    }

    fn tell(&self, engine: &Engine) {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        engines.push(engine.weak());
    }

    /// Says that something runs. Called at the beginning of every call, and of every tick of a long one,
    /// so the clock cannot fall asleep under a call.
    pub(crate) fn wake(&self) {
        if !self.active.load(Ordering::Relaxed) {
            self.active.store(true, Ordering::SeqCst);
        }
        if self.asleep.load(Ordering::SeqCst) {
            self.asleep.store(false, Ordering::SeqCst);
            if let Some(thread) = self.thread.get() {
                thread.unpark();
            }
        }
    }

    fn tick(&self) {
        let engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        for engine in engines.iter().filter_map(EngineWeak::upgrade) {
            engine.increment_epoch();
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

fn run(clock: &Weak<Clock>) {
    let mut idle = 0;
    loop {
        std::thread::sleep(TICK);
        let Some(clock) = clock.upgrade() else { return };
        clock.tick();
        idle = if clock.active.swap(false, Ordering::SeqCst) { 0 } else { idle + 1 };
        if idle < IDLE_TICKS {
            continue;
        }
        // Whoever comes after this store sees it; whoever came before has set `active`.
        clock.asleep.store(true, Ordering::SeqCst);
        if clock.active.load(Ordering::SeqCst) {
            clock.asleep.store(false, Ordering::SeqCst);
            continue;
        }
        let asleep = Arc::downgrade(&clock);
        drop(clock);
        loop {
            match asleep.upgrade() {
                Some(clock) if clock.asleep.load(Ordering::SeqCst) => {}
                _ => break,
            }
            std::thread::park();
        }
        idle = 0;
    }
}

#[cfg(test)]
mod tests;
