//! What a component exports: each function of the handler interfaces, answered by the plugin's handlers.

use std::{
    marker::PhantomData,
    panic,
    sync::{Arc, OnceLock},
};

use super::{
    CallState, Session,
    bindings::exports::palisade::plugin::{
        commands::{self, Outcome},
        configure,
        events::{self, Event as WitEvent},
        guest::{self, Context, Introduction, Tool as WitTool},
        hooks::{self, Decision as WitDecision},
        shutdown,
        state::{self, Saved},
    },
    bindings::palisade::plugin::{log, types::Failure},
    failure,
};
use crate::{
    call::Call,
    error::{PalisadeError, Result},
    handle::{About, Handle},
    handlers::{Decision, Handlers, result_error},
    json::{FRAME_BYTES, raw},
    parts::Event,
    plugin::Plugin,
};

/// Makes the plugin; [`component!`](crate::component) writes this.
pub trait Make {
    /// Called once in an instance.
    fn plugin() -> Plugin;
}

/// Exports what `M` makes.
#[derive(Debug)]
pub struct Component<M>(PhantomData<M>);

/// The plugin of this instance.
struct Running {
    handlers: Handlers,
    session: Arc<Session>,
    mistake: Option<String>,
}

static RUNNING: OnceLock<Running> = OnceLock::new();

/// Runs a handler; its error becomes the answer.
fn answer<M: Make, T>(
    method: &'static str,
    handler: impl FnOnce(&Handlers, &Call) -> Result<T>,
) -> Result<T, Failure> {
    let running = RUNNING.get_or_init(|| {
        panic::set_hook(Box::new(|panic| {
            // The call ends in a trap, which says nothing; this does.
            log::write(log::Level::Error, &panic.to_string(), &[]);
        }));
        let Plugin { handlers, mistake } = M::plugin();
        Running { handlers, session: Arc::default(), mistake }
    });
    if let Some(mistake) = &running.mistake {
        return Err(failure(PalisadeError::new("PAL-PLUGIN", mistake.as_str())));
    }
    let state = CallState::new(method);
    let handle = Handle::new(Arc::clone(&running.session), Some(Arc::clone(&state)));
    let call = Call { state, handle };
    handler(&running.handlers, &call).map_err(|error| failure(PalisadeError::of_handler(error)))
}

/// A result that is not too long.
fn sendable(text: String) -> Result<String> {
    if text.len() <= FRAME_BYTES {
        return Ok(text);
    }
    let message = format!("the message is longer than {FRAME_BYTES} bytes");
    Err(result_error(&PalisadeError::new("PAL-LIMIT", message)).into())
}

impl<M: Make> guest::Guest for Component<M> {
    fn initialize(context: Context) -> Result<Introduction, Failure> {
        answer::<M, _>("initialize", |handlers, call| {
            let (name, version) = handlers.names(&context.plugin);
            let about =
                About { id: context.plugin, rights: context.rights, config: context.config.into() };
            handlers.start(call, about)?;
            let tools = handlers.tools.iter().map(|(tool, _)| WitTool {
                name: tool.name.clone(),
                description: tool.description.clone(),
                input_schema: Some(tool.input_schema.to_string()),
            });
            Ok(Introduction {
                name: Some(name),
                version: Some(version),
                tools: Some(tools.collect()),
                state_schemas: handlers.state_schemas().to_vec(),
            })
        })
    }

    fn call(tool: String, args: String) -> Result<String, Failure> {
        answer::<M, _>("call", |handlers, call| sendable(handlers.call(call, &tool, &args)?))
    }
}

impl<M: Make> events::Guest for Component<M> {
    fn handle_event(event: WitEvent) -> Result<(), Failure> {
        answer::<M, _>("handle_event", |handlers, call| {
            let WitEvent { delivery, subject, data, hops, traceparent } = event;
            let hops = hops.into();
            handlers.event(call, &Event { subject, delivery, hops, traceparent, data: raw(data) })
        })
    }
}

impl<M: Make> hooks::Guest for Component<M> {
    fn hook(name: String, data: String) -> Result<WitDecision, Failure> {
        answer::<M, _>("hook", |handlers, call| {
            Ok(match handlers.hook(call, &name, &data)? {
                Decision::Pass => WitDecision::Pass,
                Decision::Replace(data) => WitDecision::Replace(sendable(data)?),
                Decision::Veto(reason) => WitDecision::Veto(reason),
            })
        })
    }
}

impl<M: Make> commands::Guest for Component<M> {
    fn run_command(command: String, args: Vec<String>) -> Result<Outcome, Failure> {
        answer::<M, _>("run_command", |handlers, call| {
            let given = handlers.command(call, &command, || Ok(args))?;
            Ok(Outcome { status: given.status, output: given.output })
        })
    }
}

impl<M: Make> configure::Guest for Component<M> {
    fn configure(config: String) -> Result<(), Failure> {
        answer::<M, _>("configure", |handlers, call| handlers.configure(call, config.trim()))
    }
}

impl<M: Make> state::Guest for Component<M> {
    fn save_state() -> Result<Saved, Failure> {
        answer::<M, _>("save_state", |handlers, call| {
            let (schema, state) = handlers.save(call)?;
            Ok(Saved { schema, state: sendable(state)? })
        })
    }

    fn restore_state(saved: Saved) -> Result<(), Failure> {
        answer::<M, _>("restore_state", |handlers, call| {
            handlers.restore(call, saved.schema, &saved.state)
        })
    }
}

impl<M: Make> shutdown::Guest for Component<M> {
    fn shutdown(_reason: String, _grace_ms: u64) {
        if let Err(failure) = answer::<M, _>("shutdown", |handlers, call| handlers.stop(call)) {
            log::write(log::Level::Error, &failure.message, &[]);
        }
    }
}
