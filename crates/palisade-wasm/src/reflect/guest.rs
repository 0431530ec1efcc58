//! A component of no world of ours as a plugin: its exported functions are its tools.

use std::{collections::HashMap, sync::Arc, time::Instant};

use palisade_model::{CapabilitySet, ErrorCode, Failure, Payload, text::escape};
use palisade_protocol::methods::{self, CallParams, InitializeParams, InitializeResult};
use palisade_sandbox::{BoxFuture, Invocation};
use serde_json::Value;
use wasmtime::{
    Engine, Store,
    component::{Component, ComponentExportIndex, Instance, InstancePre, Linker, Val},
};
use wasmtime_wasi::I32Exit;

use super::{Signature, read, shape::Shape, write};
use crate::{
    WasmError,
    guest::{self, Code, Guest, Trouble},
    inspect::{Form, Inspection},
    state::{self, Shared, State},
    wasi,
    world::since_v0_1_0,
};

/// Longest result, as JSON text: 4 MiB.
const MAX_RESULT: usize = 4 << 20;
/// Most bytes of values that a function gives back, as they lie in memory; also what it can hand over in one
/// call of a host function.
const MAX_LIFTED: usize = read::MAX_VALUES * size_of::<Val>() + MAX_RESULT;
/// Most characters of what a function answers in place of a result that are kept.
const MAX_MESSAGE: usize = 2000;

/// See the module.
pub(crate) struct Reflected {
    shared: Arc<Compiled>,
    inspection: Arc<Inspection>,
}

/// What the instances of one component share.
struct Compiled {
    engine: Engine,
    memories: u32,
    pre: InstancePre<State>,
    functions: HashMap<String, Function>,
    introduction: Vec<methods::Tool>,
    wasi: bool,
    /// Each call gets an instance of its own, since the component runs once from its beginning to its end.
    once: bool,
}

struct Function {
    index: ComponentExportIndex,
    signature: Signature,
}

impl Reflected {
    /// Links `component` with what it imports of `palisade:plugin` and WASI.
    ///
    /// # Errors
    /// [`WasmError::UnknownImport`], and where nothing that it exports can be a tool.
    pub(crate) fn new(
        component: &Component,
        inspection: Arc<Inspection>,
    ) -> Result<Self, WasmError> {
        inspection.check_known()?;
        let code = |what: String| WasmError::Code {
            what,
            hint: "`palisade check FILE.wasm` tells what a component imports and exports".into(),
        };
        let failed = |e: wasmtime::Error| code(escape(&format!("{e:#}"), 600));
        let mut linker = Linker::new(component.engine());
        for import in &inspection.imports {
            since_v0_1_0::link(&mut linker, &import.name).map_err(failed)?;
        }
        let wasi = wasi::link(&mut linker, &inspection).map_err(failed)?;
        let pre = linker.instantiate_pre(component).map_err(failed)?;
        let mut functions = HashMap::new();
        let mut introduction = Vec::new();
        for tool in &inspection.tools {
            let Ok(signature) = &tool.signature else { continue };
            let interface = match &tool.interface {
                Some(name) => component.get_export_index(None, name.as_str()).map(Some),
                None => Some(None),
            };
            let index = interface.and_then(|interface| {
                component.get_export_index(interface.as_ref(), tool.function.as_str())
            });
            let Some(index) = index else { continue };
            let schema = super::schema::of_arguments(&signature.parameters);
            introduction.push(methods::Tool {
                name: tool.name.clone(),
                description: None,
                input_schema: serde_json::value::to_raw_value(&schema).ok(),
            });
            let function = Function { index, signature: signature.clone() };
            functions.insert(tool.name.clone(), function);
        }
        if functions.is_empty() {
            return Err(code("it exports no function that can be called".into()));
        }
        let shared = Arc::new(Compiled {
            engine: component.engine().clone(),
            memories: guest::memories(component),
            pre,
            functions,
            introduction,
            wasi,
            once: inspection.form == Form::WasiCommand,
        });
        Ok(Self { shared, inspection })
    }
}

impl Code for Reflected {
    fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    fn memories(&self) -> u32 {
        self.shared.memories
    }

    fn check(&self, rights: &CapabilitySet) -> Result<(), WasmError> {
        self.inspection.check_rights(rights)
    }

    fn instantiate(&self, store: Store<State>) -> BoxFuture<'_, Result<Box<dyn Guest>, Failure>> {
        Box::pin(async move {
            let code = Arc::clone(&self.shared);
            let (store, instance) = code.start(store).await.map_err(Trouble::into_failure)?;
            Ok(Box::new(Running { code, store, instance, used: false }) as Box<dyn Guest>)
        })
    }
}

impl Compiled {
    async fn start(&self, mut store: Store<State>) -> Result<(Store<State>, Instance), Trouble> {
        if self.wasi {
            store.data_mut().attach_wasi()?;
        }
        store.set_hostcall_fuel(MAX_LIFTED);
        let bounds = Bounds::of(&store);
        let made = bounds.hold(self.pre.instantiate_async(&mut store)).await?;
        match made {
            Ok(instance) => Ok((store, instance)),
            Err(error) => Err(state::trouble(&error, &store)),
        }
    }
}

/// An instance.
struct Running {
    code: Arc<Compiled>,
    store: Store<State>,
    instance: Instance,
    used: bool,
}

impl Guest for Running {
    fn call<'a>(
        &'a mut self,
        invocation: &'a Invocation,
    ) -> BoxFuture<'a, Result<Payload, Trouble>> {
        Box::pin(async move {
            match invocation.method {
                methods::CALL => self.call_tool(invocation).await,
                methods::INITIALIZE => Ok(self.introduce(&invocation.payload)?),
                methods::PING | methods::SHUTDOWN | methods::CONFIGURE => {
                    Ok(Payload::from_json_text("{}"))
                }
                other => Err(Failure::new(
                    ErrorCode::NotFound,
                    format!("a component without palisade:plugin/guest has no {other}"),
                )
                .into()),
            }
        })
    }

    fn store(&mut self) -> &mut Store<State> {
        &mut self.store
    }
}

impl Running {
    fn introduce(&self, payload: &Payload) -> Result<Payload, Failure> {
        let internal =
            |e: serde_json::Error| Failure::new(ErrorCode::Internal, format!("initialize: {e}"));
        let params: InitializeParams = payload.parse().map_err(internal)?;
        let tools = &self.code.introduction;
        let answer = InitializeResult {
            protocol: params.protocol.max,
            features: Vec::new(),
            plugin: None,
            // More than can be told: then what the manifest declares counts.
            tools: (tools.len() <= methods::MAX_LIST).then(|| tools.clone()),
            state_schemas: None,
        };
        Payload::json(&answer).map_err(internal)
    }

    async fn call_tool(&mut self, invocation: &Invocation) -> Result<Payload, Trouble> {
        let invalid = |e: serde_json::Error| {
            let message = format!("the arguments are not JSON: {}", escape(&e.to_string(), 200));
            Failure::new(ErrorCode::InvalidParams, message)
        };
        let (name, arguments): (String, Value) = match &invocation.tool {
            Some(call) => {
                (call.name.to_string(), serde_json::from_slice(&call.args).map_err(invalid)?)
            }
            None => {
                let call: CallParams = invocation.payload.parse().map_err(invalid)?;
                (call.tool, serde_json::from_str(call.args.get()).map_err(invalid)?)
            }
        };
        let code = Arc::clone(&self.code);
        let function = code.functions.get(&name).ok_or_else(|| {
            let message = format!("the component exports no function {}", escape(&name, 128));
            Failure::new(ErrorCode::NotFound, message)
        })?;
        let parameters = read::arguments(&function.signature.parameters, &arguments)
            .map_err(|wrong| Failure::new(ErrorCode::InvalidParams, wrong.to_string()))?;
        drop(arguments);
        if code.once && std::mem::replace(&mut self.used, true) {
            self.renew().await?;
        }
        let result = self.run(function, &parameters).await?;
        answer(&function.signature, result.as_ref())
    }

    /// Puts a fresh instance in the place of one that has run.
    async fn renew(&mut self) -> Result<(), Trouble> {
        let data = self.store.data();
        let (shared, deadline, trace) =
            (Arc::clone(&data.shared), data.deadline, data.trace.clone());
        let mut store = state::store(&self.code.engine, &shared, deadline);
        state::arm(&mut store, deadline, trace);
        (self.store, self.instance) = self.code.start(store).await?;
        Ok(())
    }

    /// Calls; a command that ends itself well has ended well.
    async fn run(
        &mut self,
        function: &Function,
        parameters: &[Val],
    ) -> Result<Option<Val>, Trouble> {
        let missing =
            || Failure::new(ErrorCode::Internal, "an exported function is not there any more");
        let func = self.instance.get_func(&mut self.store, function.index).ok_or_else(missing)?;
        let mut results = [Val::Bool(false)];
        let count = usize::from(function.signature.result.is_some());
        let room = results.get_mut(..count).unwrap_or_default();
        let bounds = Bounds::of(&self.store);
        let called = bounds.hold(func.call_async(&mut self.store, parameters, room)).await?;
        match called {
            Ok(()) => Ok(results.into_iter().next().filter(|_| count == 1)),
            Err(error) => match error.downcast_ref::<I32Exit>() {
                Some(I32Exit(0)) if self.code.once => Ok(Some(Val::Result(Ok(None)))),
                Some(I32Exit(status)) => Err(Trouble::Trapped(Failure::new(
                    ErrorCode::PluginError,
                    format!("the component ended itself with status {status}"),
                ))),
                None => Err(state::trouble(&error, &self.store)),
            },
        }
    }
}

/// What an answer is: of a `result` the good side, and the other one as a failure.
fn answer(signature: &Signature, value: Option<&Val>) -> Result<Payload, Trouble> {
    let (shape, value) = match (&signature.result, value) {
        (None, _) | (_, None) => return Ok(Payload::null()),
        (Some(Shape::Result { ok, .. }), Some(Val::Result(Ok(value)))) => match (ok, value) {
            (Some(shape), Some(value)) => (&**shape, &**value),
            _ => return Ok(Payload::null()),
        },
        (Some(Shape::Result { err, .. }), Some(Val::Result(Err(value)))) => {
            return Err(refusal(err.as_deref(), value.as_deref()).into());
        }
        (Some(shape), Some(value)) => (shape, value),
    };
    let mut text = Vec::new();
    match write::value(shape, value, &mut text, MAX_RESULT) {
        Ok(()) => Ok(Payload::from_json_text(text)),
        Err(error @ write::WriteError::TooLong(_)) => {
            Err(Failure::new(ErrorCode::LimitExceeded, error.to_string()).into())
        }
        Err(error) => Err(Failure::new(ErrorCode::ProtocolBreach, error.to_string()).into()),
    }
}

/// The failure that the bad side of a `result` is: text as it is, anything else as JSON.
fn refusal(shape: Option<&Shape>, value: Option<&Val>) -> Failure {
    let message = match (shape, value) {
        (Some(Shape::Text), Some(Val::String(text))) => escape(text, MAX_MESSAGE),
        (Some(shape), Some(value)) => {
            let mut text = Vec::new();
            match write::value(shape, value, &mut text, MAX_RESULT) {
                Ok(()) => escape(&String::from_utf8_lossy(&text), MAX_MESSAGE),
                Err(error) => error.to_string(),
            }
        }
        _ => "the function failed and did not say why".into(),
    };
    Failure::new(ErrorCode::PluginError, message)
}

/// What ends a wait of the guest's in the host, where no tick reaches it.
struct Bounds {
    deadline: Instant,
    shared: Arc<Shared>,
}

impl Bounds {
    fn of(store: &Store<State>) -> Self {
        let state = store.data();
        Self { deadline: state.deadline, shared: Arc::clone(&state.shared) }
    }

    async fn hold<T>(self, work: impl Future<Output = T>) -> Result<T, Trouble> {
        let Self { deadline, shared } = self;
        tokio::pin!(work);
        // What ends at once needs no timer.
        let first = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match work.as_mut().poll(cx) {
                std::task::Poll::Ready(done) => Some(done),
                std::task::Poll::Pending => None,
            })
        });
        if let Some(done) = first.await {
            return Ok(done);
        }
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = shared.closed() => Err(Trouble::Trapped(Failure::new(
                ErrorCode::Unavailable,
                "the instance has ended",
            ))),
            () = tokio::time::sleep_until(deadline.into()) => Err(Trouble::Trapped(State::late())),
        }
    }
}

#[cfg(test)]
mod tests;
