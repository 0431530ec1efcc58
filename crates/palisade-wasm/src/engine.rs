//! Engines, and the clock that lets them be interrupted.
//!
//! Code without asynchronous functions runs on the plain engine, which does without the component
//! model's own concurrency; the rest on a second one that is made when it is first needed. Both take
//! instances out of a pool where the address space suffices for one, and are told of the time by one
//! thread that sleeps while nothing is called.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::Thread,
    time::Duration,
};

use wasmtime::{
    Config, Engine, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
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
const MAX_TABLE: usize = 200_000;
/// Most core instances, memories and tables of one component.
const MAX_PARTS: u32 = 64;
/// Most instances that can be asked for.
const MAX_INSTANCES: u32 = 100_000;

/// Both engines.
pub(crate) struct Engines {
    plain: Engine,
    concurrent: OnceLock<Result<Engine, String>>,
    instances: u32,
    pooled: bool,
    places: Arc<Places>,
    pub(crate) clock: Arc<Clock>,
}

/// Mappings that one idle instance takes of those that the kernel allows a process: four for memory, table and
/// the guards behind them, two for its stack and the guard of that, which it keeps between calls. Counted in
/// /proc/self/maps of a process with thousands of them.
pub(crate) const MAPS_EACH: u64 = 6;
/// Mappings that are left to the host.
const MAPS_OF_HOST: u64 = 4096;

/// How many mappings the kernel allows a process (`vm.max_map_count`, proc_sys_vm(5)); `None` where there is
/// no such limit.
pub(crate) fn max_map_count() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()
}

/// How many instances fit under what the kernel allows.
fn fitting(instances: u32, maps: Option<u64>) -> u32 {
    let Some(maps) = maps else { return instances };
    let fit = maps.saturating_sub(MAPS_OF_HOST) / MAPS_EACH;
    instances.min(u32::try_from(fit).unwrap_or(u32::MAX)).max(1)
}

/// How many instances there may be in this process, and are.
pub(crate) struct Places {
    most: u32,
    used: AtomicU32,
}

/// One of them.
pub(crate) struct Place(Arc<Places>);

impl Places {
    pub(crate) fn most(&self) -> u32 {
        self.most
    }

    /// A place for one more.
    ///
    /// # Errors
    /// [`WasmError::TooMany`].
    pub(crate) fn take(self: &Arc<Self>) -> Result<Place, WasmError> {
        let more = |used: u32| (used < self.most).then_some(used + 1);
        match self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Place(Arc::clone(self))),
            Err(_) => Err(WasmError::TooMany {
                what: "WebAssembly instances of this host",
                limit: self.most.into(),
            }),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Engines {
    /// Engines for at most `instances` instances at one time.
    pub(crate) fn new(instances: u32) -> Result<Self, WasmError> {
        let clock = Clock::start()?;
        let instances = instances.clamp(1, MAX_INSTANCES);
        let (plain, pooled) = engine(instances, false)?;
        clock.tell(&plain);
        let places =
            Arc::new(Places { most: fitting(instances, max_map_count()), used: AtomicU32::new(0) });
        Ok(Self { plain, concurrent: OnceLock::new(), instances, pooled, places, clock })
    }

    /// The engines of this process for so many instances: a pool takes too much address space to have one
    /// for each host.
    pub(crate) fn shared(instances: u32) -> Result<Arc<Self>, WasmError> {
        static MADE: Mutex<Vec<Weak<Engines>>> = Mutex::new(Vec::new());
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|engines| engines.strong_count() > 0);
        let wanted = instances.clamp(1, MAX_INSTANCES);
        if let Some(found) = made.iter().filter_map(Weak::upgrade).find(|e| e.instances == wanted) {
            return Ok(found);
        }
        let engines = Arc::new(Self::new(instances)?);
        made.push(Arc::downgrade(&engines));
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
        &self.plain
    }

    /// The engine for code with them (WASI 0.3).
    pub(crate) fn concurrent(&self) -> Result<&Engine, WasmError> {
        let made = self.concurrent.get_or_init(|| {
            let (engine, _) = engine(self.instances, true).map_err(|e| e.to_string())?;
            self.clock.tell(&engine);
            Ok(engine)
        });
        made.as_ref().map_err(|e| WasmError::Engine(e.clone()))
    }

    /// Whether instances come out of a pool.
    pub(crate) fn is_pooled(&self) -> bool {
        self.pooled
    }
}

/// An engine, pooled if there is address space for the pool.
fn engine(instances: u32, concurrent: bool) -> Result<(Engine, bool), WasmError> {
    let mut config = config(concurrent);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances)));
    if let Ok(engine) = Engine::new(&config) {
        return Ok((engine, true));
    }
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    let engine = Engine::new(&config).map_err(|e| WasmError::Engine(e.to_string()))?;
    Ok((engine, false))
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

fn pool(instances: u32) -> PoolingAllocationConfig {
    let parts = instances.saturating_mul(2).saturating_add(64);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(parts.saturating_mul(2))
        .total_memories(instances.saturating_add(64))
        .total_tables(parts)
        .total_stacks(instances.saturating_add(64))
        .max_core_instances_per_component(MAX_PARTS)
        .max_memories_per_component(MAX_PARTS)
        .max_tables_per_component(MAX_PARTS)
        .max_memories_per_module(MAX_PARTS)
        .max_tables_per_module(MAX_PARTS)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_memory_size(MAX_MEMORY)
        .table_elements(MAX_TABLE)
        .max_unused_warm_slots(64)
        .linear_memory_keep_resident(64 << 10)
        .table_keep_resident(4 << 10)
        .decommit_batch_size(8);
    pool
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
mod tests {
    use super::fitting;

    #[test]
    fn instances_fit_under_the_kernels_limit_on_mappings() {
        assert_eq!(fitting(20_000, None), 20_000);
        // The kernel's default holds ten thousand.
        assert_eq!(fitting(20_000, Some(65_530)), 10_239);
        assert_eq!(fitting(4096, Some(65_530)), 4096);
        assert_eq!(fitting(4096, Some(0)), 1);
    }
}
