//! The baseline: wasmtime and nothing else. The engine is set up as ours is.

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Store,
    component::{Component, ComponentExportIndex, InstancePre, Linker, TypedFunc},
};

use crate::plugin::Result;

/// Tool and arguments in, the answer or the plugin's own failure out.
pub(crate) type Call =
    TypedFunc<(&'static str, &'static str), (std::result::Result<String, Failure>,)>;

/// `failure` of `palisade:plugin/types@0.1.0`.
#[derive(Debug, wasmtime::component::ComponentType, wasmtime::component::Lift)]
#[component(record)]
#[expect(dead_code, reason = "only ever shown")]
pub(crate) struct Failure {
    code: String,
    message: String,
    rule: Option<String>,
    hint: Option<String>,
    #[component(name = "retry-after-ms")]
    retry_after_ms: Option<u64>,
}

/// The same settings as in `palisade-wasm/src/engine.rs`.
fn engine(instances: u32) -> Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances * 64)
        .total_memories(instances * 3)
        .total_tables(instances * 4)
        .total_stacks(instances)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_tables_per_module(64)
        .max_memories_per_module(64)
        .table_elements(200_000)
        .max_unused_warm_slots(16)
        .linear_memory_keep_resident(2 << 20)
        .pagemap_scan(Enabled::Auto)
        .table_keep_resident(4 << 10)
        .decommit_batch_size(8);
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(512 << 10)
        .async_stack_size(1 << 20)
        .memory_init_cow(true)
        .cranelift_opt_level(OptLevel::Speed)
        .generate_address_map(false)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Ok(Engine::new(&config)?)
}

/// A compiled component, linked as far as can be without an instance.
pub(crate) struct Bare {
    engine: Engine,
    pre: InstancePre<()>,
    initialize: ComponentExportIndex,
    call: ComponentExportIndex,
}

impl Bare {
    pub(crate) fn compile(wasm: &[u8], instances: u32) -> Result<Self> {
        let engine = engine(instances)?;
        Self::link(&engine, &Component::new(&engine, wasm)?)
    }

    fn link(engine: &Engine, component: &Component) -> Result<Self> {
        let guest = component.get_export_index(None, "palisade:plugin/guest@0.1.0");
        let call = component
            .get_export_index(guest.as_ref(), "call")
            .ok_or("the component exports no `call`")?;
        let initialize = component
            .get_export_index(guest.as_ref(), "initialize")
            .ok_or("the component exports no `initialize`")?;
        let mut linker: Linker<()> = Linker::new(engine);
        linker.instance("palisade:plugin/types@0.1.0")?;
        let pre = linker.instantiate_pre(component)?;
        Ok(Self { engine: engine.clone(), pre, initialize, call })
    }

    fn store(&self) -> Store<()> {
        let mut store = Store::new(&self.engine, ());
        // Nobody counts this engine's epochs.
        store.set_epoch_deadline(1);
        store
    }

    /// An instance that is called from outside of any task.
    pub(crate) fn instance(&self) -> Result<(Store<()>, Call)> {
        let mut store = self.store();
        let instance = self.pre.instantiate(&mut store)?;
        let call = instance.get_typed_func(&mut store, self.call)?;
        Ok((store, call))
    }

    /// An instance as one needs it whose host functions may wait.
    pub(crate) async fn instance_async(&self) -> Result<(Store<()>, Call)> {
        let mut store = self.store();
        let instance = self.pre.instantiate_async(&mut store).await?;
        let call = instance.get_typed_func(&mut store, self.call)?;
        Ok((store, call))
    }
}

/// The answer's text, or the failure.
pub(crate) fn answer(
    called: wasmtime::Result<(std::result::Result<String, Failure>,)>,
) -> Result<String> {
    called?.0.map_err(|failure| format!("the guest: {failure:?}").into())
}

/// `context` of the world's `guest`.
#[derive(wasmtime::component::ComponentType, wasmtime::component::Lower)]
#[component(record)]
struct Context {
    plugin: String,
    config: String,
    rights: Vec<String>,
    #[component(name = "host-version")]
    host_version: String,
}

/// `introduction`, with the same parts as ours reads.
#[derive(wasmtime::component::ComponentType, wasmtime::component::Lift)]
#[component(record)]
#[expect(dead_code, reason = "read by nobody, but made for the comparison")]
struct Introduction {
    name: Option<String>,
    version: Option<String>,
    tools: Option<Vec<Tool>>,
    #[component(name = "state-schemas")]
    state_schemas: Vec<u32>,
}

#[derive(wasmtime::component::ComponentType, wasmtime::component::Lift)]
#[component(record)]
#[expect(dead_code, reason = "as above")]
struct Tool {
    name: String,
    description: Option<String>,
    #[component(name = "input-schema")]
    input_schema: Option<String>,
}

type Initialize = TypedFunc<(Context,), (std::result::Result<Introduction, Failure>,)>;

impl Bare {
    /// [`Bare::instance_async`], with `initialize` as the host asks it.
    pub(crate) async fn initialized(&self) -> Result<(Store<()>, Call)> {
        let mut store = self.store();
        let instance = self.pre.instantiate_async(&mut store).await?;
        let initialize: Initialize = instance.get_typed_func(&mut store, self.initialize)?;
        let call = instance.get_typed_func(&mut store, self.call)?;
        let context = Context {
            plugin: "bench".into(),
            config: "{}".into(),
            rights: Vec::new(),
            host_version: "0.1.0".into(),
        };
        let (answer,) = initialize.call_async(&mut store, (context,)).await?;
        answer.map_err(|failure| format!("the guest: {failure:?}"))?;
        Ok((store, call))
    }

    /// Its code in a file.
    pub(crate) fn kept(&self) -> Result<tempfile::NamedTempFile> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), self.pre.component().serialize()?)?;
        Ok(file)
    }

    /// The same from a file of [`Bare::kept`], on the same engine.
    #[allow(unsafe_code)]
    pub(crate) fn read(&self, path: &std::path::Path) -> Result<Self> {
        // SAFETY: the file was written by `kept` of this process, with this engine, and by nobody else.
        let component = unsafe { Component::deserialize_file(&self.engine, path) }?;
        Self::link(&self.engine, &component)
    }
}
