//! An instance that exports `palisade:plugin/guest@0.1.0`, and the methods of the protocol as calls of
//! its exports. The optional interfaces are found by looking, once for a component.

use std::sync::Arc;

use palisade_model::{CapabilitySet, ErrorCode, Failure, Payload, text::escape};
use palisade_protocol::{
    methods::{
        self, CallParams, ConfigureParams, HandleEventParams, HookParams, InitializeParams,
        InitializeResult, Party, RunCommandParams, ShutdownParams, Tool,
    },
    scan,
};
use palisade_sandbox::{BoxFuture, Invocation};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use wasmtime::{
    Engine, Store,
    component::{Component, ComponentExportIndex, Instance, InstancePre, Linker, TypedFunc},
};

use super::{
    super::json::{self, Object},
    bindings::{exports::palisade::plugin as exports, palisade::plugin::types},
    told,
};
use crate::{
    WasmError,
    guest::{self, Code, Guest, Trouble},
    inspect::{Inspection, Need},
    state::{State, trouble},
    wasi,
};

/// What a plugin of this version exports at least.
pub(crate) const GUEST: &str = "palisade:plugin/guest@0.1.0";

/// Where the exports of a component are.
pub(crate) struct Plugin {
    pre: InstancePre<State>,
    guest: exports::guest::GuestIndices,
    call: ComponentExportIndex,
    events: Option<exports::events::GuestIndices>,
    hooks: Option<exports::hooks::GuestIndices>,
    commands: Option<exports::commands::GuestIndices>,
    configure: Option<exports::configure::GuestIndices>,
    state: Option<exports::state::GuestIndices>,
    shutdown: Option<exports::shutdown::GuestIndices>,
}

impl Plugin {
    /// Finds the exports. An error where it is not a plugin of this version.
    pub(crate) fn new(pre: InstancePre<State>) -> wasmtime::Result<Self> {
        let component = pre.component();
        let guest = component.get_export_index(None, GUEST);
        let call = component.get_export_index(guest.as_ref(), "call");
        Ok(Self {
            guest: exports::guest::GuestIndices::new(&pre)?,
            call: call.ok_or_else(|| wasmtime::format_err!("it does not export call"))?,
            events: exports::events::GuestIndices::new(&pre).ok(),
            hooks: exports::hooks::GuestIndices::new(&pre).ok(),
            commands: exports::commands::GuestIndices::new(&pre).ok(),
            configure: exports::configure::GuestIndices::new(&pre).ok(),
            state: exports::state::GuestIndices::new(&pre).ok(),
            shutdown: exports::shutdown::GuestIndices::new(&pre).ok(),
            pre,
        })
    }

    /// An instance in `store`.
    pub(crate) async fn instantiate(
        self: &Arc<Self>,
        mut store: Store<State>,
    ) -> Result<Running, Failure> {
        let made = self.pre.instantiate_async(&mut store).await;
        let instance = made.map_err(|e| trouble(&e, &store).into_failure())?;
        let guest = self.guest.load(&mut store, &instance);
        let guest = guest.map_err(|e| trouble(&e, &store).into_failure())?;
        let call = instance.get_typed_func(&mut store, self.call);
        let call = call.map_err(|e| trouble(&e, &store).into_failure())?;
        Ok(Running { plugin: Arc::clone(self), store, instance, guest, call })
    }
}

/// A component that exports [`GUEST`], linked.
pub(crate) struct PluginCode {
    plugin: Arc<Plugin>,
    engine: Engine,
    inspection: Arc<Inspection>,
    memories: u32,
    wasi: bool,
}

impl PluginCode {
    /// Links what `component` imports, and nothing else.
    ///
    /// # Errors
    /// [`WasmError::UnknownImport`], and [`WasmError::Code`] where it is no plugin of this version.
    pub(crate) fn new(
        component: &Component,
        inspection: Arc<Inspection>,
    ) -> Result<Self, WasmError> {
        if inspection.imports.iter().any(|import| import.need == Need::Unknown) {
            // Says which one, whatever is granted.
            inspection.check_rights(&CapabilitySet::new())?;
        }
        let failed = |error: wasmtime::Error| WasmError::Code {
            what: format!("the component cannot be linked: {}", escape(&format!("{error:#}"), 600)),
            hint: "build it with the WIT of this version (palisade:plugin@0.1.0)".into(),
        };
        let mut linker = Linker::new(component.engine());
        for import in &inspection.imports {
            super::link(&mut linker, &import.name).map_err(failed)?;
        }
        let wasi = wasi::link(&mut linker, &inspection).map_err(failed)?;
        let pre = linker.instantiate_pre(component).map_err(failed)?;
        let plugin = Arc::new(Plugin::new(pre).map_err(failed)?);
        let (engine, memories) = (component.engine().clone(), guest::memories(component));
        Ok(Self { plugin, engine, inspection, memories, wasi })
    }
}

impl Code for PluginCode {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn memories(&self) -> u32 {
        self.memories
    }

    fn check(&self, rights: &CapabilitySet) -> Result<(), WasmError> {
        self.inspection.check_rights(rights)
    }

    fn instantiate(
        &self,
        mut store: Store<State>,
    ) -> BoxFuture<'_, Result<Box<dyn Guest>, Failure>> {
        Box::pin(async move {
            if self.wasi {
                store.data_mut().attach_wasi()?;
            }
            Ok(Box::new(self.plugin.instantiate(store).await?) as Box<dyn Guest>)
        })
    }
}

/// See the module.
pub(crate) struct Running {
    plugin: Arc<Plugin>,
    store: Store<State>,
    instance: Instance,
    guest: exports::guest::Guest,
    /// The generated binding wants its arguments as `String`s of their own.
    call: Call,
}

type Call = TypedFunc<(&'static str, &'static str), (Result<String, types::Failure>,)>;

impl Guest for Running {
    fn call<'a>(
        &'a mut self,
        invocation: &'a Invocation,
    ) -> BoxFuture<'a, Result<Payload, Trouble>> {
        Box::pin(self.answer(invocation))
    }

    fn store(&mut self) -> &mut Store<State> {
        &mut self.store
    }

    fn plugin(&mut self) -> Option<&mut Running> {
        Some(self)
    }
}

/// Calls an export: loads it, calls it, and tells a trap from an answer.
macro_rules! ask {
    ($self:ident, $interface:ident, $function:ident($($argument:expr),*)) => {{
        let Some(indices) = &$self.plugin.$interface else {
            return Err(not_exported(stringify!($interface)).into());
        };
        let loaded = indices.load(&mut $self.store, &$self.instance);
        let export = loaded.map_err(|e| trouble(&e, &$self.store))?;
        let called = export.$function(&mut $self.store, $($argument),*).await;
        called.map_err(|e| trouble(&e, &$self.store))?
    }};
}

impl Running {
    async fn answer(&mut self, invocation: &Invocation) -> Result<Payload, Trouble> {
        let payload = &invocation.payload;
        match invocation.method {
            methods::CALL => match &invocation.tool {
                Some(tool) => self.call_tool(&tool.name, &tool.args).await,
                None => {
                    let CallParams { tool, args } = params(payload)?;
                    self.call_tool(&tool, args.get().as_bytes()).await
                }
            },
            methods::PING => Ok(empty()),
            methods::INITIALIZE => self.initialize(params(payload)?).await,
            methods::HANDLE_EVENT => {
                let event: HandleEventParams = params(payload)?;
                let event = exports::events::Event {
                    delivery: event.delivery,
                    subject: event.subject,
                    data: text(event.data),
                    hops: event.hops,
                    traceparent: event.traceparent,
                };
                ask!(self, events, call_handle_event(&event)).map_err(told)?;
                Ok(empty())
            }
            methods::HOOK => {
                let HookParams { hook, data } = params(payload)?;
                let decision = ask!(self, hooks, call_hook(&hook, &text(data))).map_err(told)?;
                Ok(match decision {
                    exports::hooks::Decision::Pass => empty(),
                    exports::hooks::Decision::Replace(data) => {
                        Object::new().json("data", &data).map_err(theirs)?.payload()
                    }
                    exports::hooks::Decision::Veto(why) => {
                        Object::new().text("veto", &why).payload()
                    }
                })
            }
            methods::RUN_COMMAND => {
                let RunCommandParams { command, args } = params(payload)?;
                let outcome =
                    ask!(self, commands, call_run_command(&command, &args)).map_err(told)?;
                let status = u64::from(outcome.status);
                Ok(Object::new().number("status", status).text("output", &outcome.output).payload())
            }
            methods::CONFIGURE => {
                let ConfigureParams { config } = params(payload)?;
                ask!(self, configure, call_configure(&text(config))).map_err(told)?;
                Ok(empty())
            }
            methods::SAVE_STATE => {
                let saved = ask!(self, state, call_save_state()).map_err(told)?;
                let object = Object::new().number("schema", saved.schema.into());
                Ok(object.json("state", &saved.state).map_err(theirs)?.payload())
            }
            methods::RESTORE_STATE => {
                let methods::State { schema, state } = params(payload)?;
                let saved = exports::state::Saved { schema, state: text(state) };
                ask!(self, state, call_restore_state(&saved)).map_err(told)?;
                Ok(empty())
            }
            methods::SHUTDOWN => {
                if self.plugin.shutdown.is_some() {
                    let ShutdownParams { reason, grace_ms } = params(payload)?;
                    ask!(self, shutdown, call_shutdown(&reason, grace_ms));
                }
                Ok(empty())
            }
            method => Err(Failure::new(
                ErrorCode::NotFound,
                format!("components have no method {method}"),
            )
            .into()),
        }
    }

    /// Calls a tool with `args`, which are JSON.
    pub(crate) async fn call_tool(&mut self, tool: &str, args: &[u8]) -> Result<Payload, Trouble> {
        let args = scan::utf8(args).map_err(|_| not_utf8())?;
        match self.call.call_async(&mut self.store, (tool, args)).await {
            Ok((Ok(answer),)) => Ok(json::answer(answer)?),
            Ok((Err(failure),)) => Err(told(failure).into()),
            Err(error) => Err(trouble(&error, &self.store)),
        }
    }

    async fn initialize(&mut self, asked: InitializeParams) -> Result<Payload, Trouble> {
        let context = exports::guest::Context {
            plugin: asked.plugin.id,
            config: text(asked.config),
            rights: asked.rights,
            host_version: asked.host.version,
        };
        let introduced = self.guest.call_initialize(&mut self.store, &context).await;
        let introduced = introduced.map_err(|e| trouble(&e, &self.store))?.map_err(told)?;
        let tools = introduced.tools.map(|tools| {
            let tools = tools.into_iter().map(|tool| {
                let schema = tool.input_schema.map(RawValue::from_string).transpose();
                let input_schema = schema.map_err(|_| {
                    theirs(Failure::new(ErrorCode::InvalidParams, "a tool's schema is not JSON"))
                })?;
                Ok(Tool { name: tool.name, description: tool.description, input_schema })
            });
            tools.collect::<Result<Vec<_>, Failure>>()
        });
        let name = introduced.name.filter(|name| !name.is_empty());
        let result = InitializeResult {
            protocol: asked.protocol.max,
            features: Vec::new(),
            plugin: name.map(|name| Party {
                name,
                version: introduced.version.filter(|v| !v.is_empty()).unwrap_or_else(|| "?".into()),
            }),
            tools: tools.transpose()?,
            state_schemas: Some(introduced.state_schemas),
        };
        Payload::json(&result)
            .map_err(|e| Failure::new(ErrorCode::Internal, format!("initialize: {e}")).into())
    }
}

fn params<T: DeserializeOwned>(payload: &Payload) -> Result<T, Failure> {
    payload
        .parse()
        .map_err(|e| Failure::new(ErrorCode::InvalidParams, format!("the parameters: {e}")))
}

fn text(json: Box<RawValue>) -> String {
    String::from(Box::<str>::from(json))
}

fn empty() -> Payload {
    Payload::from_json_text(bytes::Bytes::from_static(b"{}"))
}

fn not_utf8() -> Failure {
    Failure::new(ErrorCode::InvalidParams, "the arguments are not UTF-8")
}

/// What is wrong with something that the guest answered.
fn theirs(failure: Failure) -> Failure {
    Failure::new(ErrorCode::PluginError, format!("the plugin's answer: {}", failure.message))
}

fn not_exported(interface: &str) -> Failure {
    Failure::new(
        ErrorCode::NotFound,
        format!("the plugin does not export palisade:plugin/{interface}"),
    )
}
