//! Compiled modules and their instances.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use palisade_model::{Access, CapabilitySet, ErrorCode, Failure, Kind, Payload, text::escape};
use palisade_protocol::{
    VersionRange,
    methods::{
        self, CallParams, ConfigureParams, HandleEventParams, HookParams, InitializeParams,
        InitializeResult, RunCommandParams,
    },
};
use palisade_sandbox::{BoxFuture, ExtismOutput, Invocation};
use serde_json::{Value, value::RawValue};
use wasmtime::{
    Engine, ExternType, FuncType, Instance, InstancePre, Linker, Memory, Module, ModuleExport,
    Store, TypedFunc, UnknownImportError, ValType,
};

use super::{
    Extism,
    env::{self, Refused, USER},
    kernel::Kernel,
    link::{DATA, ENV, STATE},
    mapping, wasi,
};
use crate::{
    WasmError,
    guest::{Code, Guest, Trouble},
    inspect,
    state::{self, State},
};

/// Functions that are called once, before any other.
const CONSTRUCTORS: &[&str] = &["__wasm_call_ctors", "_initialize"];
/// What the run-time system of Haskell is started with.
const HASKELL: &str = "hs_init";

/// A function that can be a tool.
#[derive(Clone, Copy)]
struct Export {
    export: ModuleExport,
    /// Whether it gives a status: `() -> i32`, otherwise `() -> ()`.
    status: bool,
}

/// A linked and compiled module.
pub(crate) struct ExtismCode {
    engine: Engine,
    pre: InstancePre<State>,
    /// Everything that it imports: from where, and the name.
    imports: Vec<(String, String)>,
    functions: Arc<HashMap<String, Export>>,
    data: ModuleExport,
    state: ModuleExport,
    uses_wasi: bool,
    memories: u32,
    /// What the functions' output means.
    output: ExtismOutput,
}

fn is_function(ty: &FuncType, params: usize) -> bool {
    ty.params().len() == params
        && ty.params().all(|ty| matches!(ty, ValType::I32))
        && ty.results().len() <= 1
        && ty.results().all(|ty| matches!(ty, ValType::I32))
}

fn unknown(module: &str, name: &str) -> WasmError {
    WasmError::UnknownImport { import: escape(&format!("{module}/{name}"), 200) }
}

impl ExtismCode {
    /// Takes a module that came out of [`super::link()`].
    ///
    /// # Errors
    /// It imports what nobody provides.
    pub(crate) fn new(module: &Module, output: ExtismOutput) -> Result<Self, WasmError> {
        let engine = module.engine().clone();
        let mut linker = Linker::new(&engine);
        let broken = |error: wasmtime::Error| WasmError::Code {
            what: format!("the module cannot be linked: {}", escape(&format!("{error:#}"), 300)),
            hint: "build it with a current Extism PDK".into(),
        };
        env::add_to_linker(&mut linker).map_err(broken)?;
        let mut imports = Vec::new();
        let mut uses_wasi = false;
        for import in module.imports() {
            let (from, name) = (import.module(), import.name());
            imports.push((from.to_owned(), name.to_owned()));
            match (from, import.ty()) {
                (ENV, ExternType::Func(_)) => {}
                (USER, ExternType::Func(ty)) => {
                    if !env::is_user_type(&ty) {
                        return Err(WasmError::Code {
                            what: format!(
                                "it imports {} of {USER}, which takes or gives something else than blocks",
                                escape(name, 100)
                            ),
                            hint: "a function of the application takes up to 16 handles (i64) and gives \
                                   one or none"
                                .into(),
                        });
                    }
                    env::add_user_function(&mut linker, name, ty).map_err(broken)?;
                }
                (wasi::MODULE, ExternType::Func(_)) => uses_wasi = true,
                _ => return Err(unknown(from, name)),
            }
        }
        if uses_wasi {
            wasi::add_to_linker(&mut linker).map_err(broken)?;
        }
        let functions = module
            .exports()
            .filter_map(|export| {
                let ty = export.ty();
                let ty = ty.func().filter(|ty| is_function(ty, 0))?;
                let status = ty.results().len() == 1;
                let at = module.get_export_index(export.name())?;
                Some((export.name().to_owned(), Export { export: at, status }))
            })
            .collect();
        let memory = |name| {
            module.get_export_index(name).ok_or_else(|| WasmError::Code {
                what: format!("the module was not linked: it has no {name}"),
                hint: "this is a mistake of Palisade".into(),
            })
        };
        let (data, state) = (memory(DATA)?, memory(STATE)?);
        let pre = linker.instantiate_pre(module).map_err(|error| {
            match error.downcast_ref::<UnknownImportError>() {
                Some(import) => unknown(import.module(), import.name()),
                None => broken(error),
            }
        })?;
        let functions = Arc::new(functions);
        let memories = module.resources_required().num_memories;
        Ok(Self { engine, pre, imports, functions, data, state, uses_wasi, memories, output })
    }
}

impl Code for ExtismCode {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn memories(&self) -> u32 {
        self.memories
    }

    fn check(&self, rights: &CapabilitySet) -> Result<(), WasmError> {
        for (from, name) in &self.imports {
            let (need, _) = inspect::rights::of_module_import(from, name);
            let met = match (from.as_str(), name.as_str()) {
                // A function of the application is a service with a name of its own.
                (USER, name) => rights.allows(&Access::new(Kind::HostCall, name)).is_some(),
                // PDKs of several languages import it into every plugin, used or not; each request is
                // decided by itself.
                (ENV, "http_request") => true,
                _ => need.is_met(rights),
            };
            if !met {
                return Err(WasmError::NotGranted {
                    import: escape(&format!("{from}/{name}"), 200),
                    need,
                });
            }
        }
        Ok(())
    }

    fn instantiate(
        &self,
        mut store: Store<State>,
    ) -> BoxFuture<'_, Result<Box<dyn Guest>, Failure>> {
        Box::pin(async move {
            let mut extism = Box::new(Extism::default());
            if self.uses_wasi {
                extism.wasi = Some(wasi::context(&store.data().shared)?);
            }
            store.data_mut().extism = Some(extism);
            let instance = match self.pre.instantiate_async(&mut store).await {
                Ok(instance) => instance,
                Err(error) => return Err(trapped(&error, &store).into_failure()),
            };
            let mut memory = |export| {
                let export = instance.get_module_export(&mut store, export);
                export.and_then(wasmtime::Extern::into_memory)
            };
            let (data, state): (Option<Memory>, Option<Memory>) =
                (memory(&self.data), memory(&self.state));
            let (Some(data), Some(state)) = (data, state) else {
                return Err(Failure::new(ErrorCode::Internal, "the module was not linked"));
            };
            let kernel = Kernel::new(data, state);
            if let Some(extism) = store.data_mut().extism.as_deref_mut() {
                extism.kernel = Some(kernel);
            }
            let functions = Arc::clone(&self.functions);
            let (output, known) = (self.output, None);
            let guest = ExtismGuest { store, instance, kernel, functions, output, known };
            Ok(Box::new(guest) as Box<dyn Guest>)
        })
    }
}

/// What a failed call means: where the host refused something, that is what the caller hears.
fn trapped(error: &wasmtime::Error, store: &Store<State>) -> Trouble {
    if let Some(Refused(failure)) = error.downcast_ref::<Refused>() {
        return Trouble::Trapped(failure.clone());
    }
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        let message = format!("the plugin ended itself with status {}", exit.0);
        return Trouble::Trapped(Failure::new(ErrorCode::Crashed, message));
    }
    state::trouble(error, store)
}

enum Function {
    Status(TypedFunc<(), i32>),
    Plain(TypedFunc<(), ()>),
}

struct ExtismGuest {
    store: Store<State>,
    instance: Instance,
    kernel: Kernel,
    functions: Arc<HashMap<String, Export>>,
    output: ExtismOutput,
    /// The function that was called last, since it is often the next.
    known: Option<(Arc<str>, Function)>,
}

impl ExtismGuest {
    /// Looks a function up, unless it is the one of the last call.
    fn find(&mut self, name: &Arc<str>) -> Result<(), Failure> {
        if let Some((known, _)) = &self.known
            && (Arc::ptr_eq(known, name) || known == name)
        {
            return Ok(());
        }
        let missing = || {
            let message =
                format!("the module exports no function {} for a tool", escape(name, 128));
            Failure::new(ErrorCode::NotFound, message)
                .hint("a tool is a function without parameters that gives an i32 or nothing")
        };
        let export = self.functions.get(&**name).ok_or_else(missing)?;
        let func = self
            .instance
            .get_module_export(&mut self.store, &export.export)
            .and_then(wasmtime::Extern::into_func)
            .ok_or_else(missing)?;
        let function = if export.status {
            Function::Status(func.typed(&self.store).map_err(|_| missing())?)
        } else {
            Function::Plain(func.typed(&self.store).map_err(|_| missing())?)
        };
        self.known = Some((Arc::clone(name), function));
        Ok(())
    }

    async fn tool(&mut self, name: &Arc<str>, args: &[u8]) -> Result<Payload, Trouble> {
        self.find(name)?;
        let input = mapping::input(args)?;
        self.kernel.begin(&mut self.store, &input).map_err(Failure::from)?;
        let ended = match &self.known {
            Some((_, Function::Status(function))) => function.call_async(&mut self.store, ()).await,
            Some((_, Function::Plain(function))) => {
                function.call_async(&mut self.store, ()).await.map(|()| 0)
            }
            None => Ok(0),
        };
        let error = self.kernel.error(&self.store);
        match (ended, error) {
            (Ok(0), None) => Ok(mapping::output(self.kernel.output(&self.store), self.output)?),
            (Ok(status), error) => Err(mapping::failure(error, status).into()),
            (Err(trap), None) => Err(trapped(&trap, &self.store)),
            (Err(trap), Some(error)) => {
                // A plugin often says why before it gives up.
                let said = mapping::failure(Some(error), 0).message;
                let mut failure = trapped(&trap, &self.store).into_failure();
                failure.message = format!("{} ({said})", failure.message);
                Err(Trouble::Trapped(failure))
            }
        }
    }

    async fn initialize(&mut self, payload: &Payload) -> Result<Payload, Trouble> {
        let unread = |e: serde_json::Error| Failure::new(ErrorCode::InvalidParams, e.to_string());
        let params: InitializeParams = payload.parse().map_err(unread)?;
        self.configure(&params.config)?;
        self.start().await.map_err(|trap| trapped(&trap, &self.store))?;
        let result = InitializeResult {
            protocol: VersionRange::SUPPORTED
                .choose(params.protocol)
                .unwrap_or(params.protocol.max),
            features: Vec::new(),
            plugin: None,
            // Those that the manifest declares.
            tools: None,
            state_schemas: None,
        };
        Ok(Payload::json(&result).map_err(unread)?)
    }

    /// Starts the run-time system of the plugin's language, as every host of Extism does.
    async fn start(&mut self) -> wasmtime::Result<()> {
        self.kernel.reset(&mut self.store);
        if let Some(start) = self.instance.get_func(&mut self.store, HASKELL)
            && is_function(&start.ty(&self.store), 2)
        {
            if let Ok(before) =
                self.instance.get_typed_func::<(), ()>(&mut self.store, "_initialize")
            {
                before.call_async(&mut self.store, ()).await?;
            }
            let mut results = vec![wasmtime::Val::I32(0); start.ty(&self.store).results().len()];
            let nothing = [wasmtime::Val::I32(0), wasmtime::Val::I32(0)];
            return start.call_async(&mut self.store, &nothing, &mut results).await;
        }
        for name in CONSTRUCTORS {
            if let Ok(start) = self.instance.get_typed_func::<(), ()>(&mut self.store, name) {
                return start.call_async(&mut self.store, ()).await;
            }
        }
        Ok(())
    }

    /// Takes the configuration. Text is handed to the plugin as it is, everything else as JSON.
    fn configure(&mut self, config: &RawValue) -> Result<(), Failure> {
        let values: Option<BTreeMap<String, Value>> = serde_json::from_str(config.get())
            .map_err(|e| Failure::new(ErrorCode::InvalidParams, e.to_string()))?;
        let config = values
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| match value {
                Value::Null => None,
                Value::String(text) => Some((name, text)),
                value => Some((name, value.to_string())),
            })
            .collect();
        if let Some(extism) = self.store.data_mut().extism.as_deref_mut() {
            extism.config = config;
        }
        Ok(())
    }
}

/// Why a method is not answered: the interface of Extism has functions and nothing beside them.
fn without(method: &str, payload: &Payload) -> Failure {
    fn named<T: serde::de::DeserializeOwned>(
        payload: &Payload,
        what: impl Fn(T) -> String,
    ) -> Result<String, serde_json::Error> {
        payload.parse().map(what)
    }
    let what = match method {
        methods::HANDLE_EVENT => {
            named(payload, |event: HandleEventParams| format!("no events ({})", event.subject))
        }
        methods::HOOK => named(payload, |hook: HookParams| format!("no hooks ({})", hook.hook)),
        methods::RUN_COMMAND => {
            named(payload, |asked: RunCommandParams| format!("no commands ({})", asked.command))
        }
        methods::SAVE_STATE | methods::RESTORE_STATE => Ok("no state to hand over".into()),
        other => Ok(format!("nothing for {other}")),
    };
    match what {
        Ok(what) => {
            let message = format!("an Extism module has {}", escape(&what, 300));
            Failure::new(ErrorCode::NotFound, message)
                .hint("its functions are tools; for all else a plugin is a component or a program")
        }
        Err(error) => Failure::new(ErrorCode::InvalidParams, error.to_string()),
    }
}

impl Guest for ExtismGuest {
    fn call<'a>(
        &'a mut self,
        invocation: &'a Invocation,
    ) -> BoxFuture<'a, Result<Payload, Trouble>> {
        Box::pin(async move {
            let unread =
                |e: serde_json::Error| Failure::new(ErrorCode::InvalidParams, e.to_string());
            match invocation.method {
                methods::CALL => match &invocation.tool {
                    Some(tool) => self.tool(&tool.name, &tool.args).await,
                    None => {
                        let params: CallParams = invocation.payload.parse().map_err(unread)?;
                        self.tool(&params.tool.into(), params.args.get().as_bytes()).await
                    }
                },
                methods::INITIALIZE => self.initialize(&invocation.payload).await,
                methods::CONFIGURE => {
                    let params: ConfigureParams = invocation.payload.parse().map_err(unread)?;
                    self.configure(&params.config)?;
                    Ok(Payload::from_json_text("{}"))
                }
                methods::PING | methods::SHUTDOWN => Ok(Payload::from_json_text("{}")),
                other => Err(without(other, &invocation.payload).into()),
            }
        })
    }

    fn store(&mut self) -> &mut Store<State> {
        &mut self.store
    }
}
