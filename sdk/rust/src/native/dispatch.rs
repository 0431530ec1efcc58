//! The host's requests as they stand on the wire: parameters read, answers written.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    args,
    call::Call,
    error::{PalisadeError, Result},
    handle::About,
    handlers::{Decision, Handlers, not_found, result, short},
    parts::{Event, Tool},
};

/// The version of the protocol that this SDK speaks.
const VERSION: u32 = 1;

#[derive(Deserialize)]
struct InitializeParams {
    protocol: Range,
    config: Option<Box<RawValue>>,
    plugin: Option<Named>,
    #[serde(default)]
    rights: Vec<String>,
}

#[derive(Deserialize)]
struct Range {
    min: u32,
    max: u32,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

#[derive(Deserialize)]
struct CallParams {
    tool: String,
    args: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct EventParams {
    subject: String,
    delivery: String,
    data: Option<Box<RawValue>>,
    #[serde(default)]
    hops: u64,
    traceparent: Option<String>,
}

#[derive(Deserialize)]
struct HookParams {
    hook: String,
    data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct CommandParams {
    command: String,
    args: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct ConfigureParams {
    config: Box<RawValue>,
}

#[derive(Deserialize)]
struct StateParams {
    schema: u32,
    state: Option<Box<RawValue>>,
}

/// Handles any method but `ping` and `shutdown`.
pub(super) fn dispatch(handlers: &Handlers, call: &Call, params: &str) -> Result<String> {
    match call.method() {
        "call" => {
            let params: CallParams = args::read(params, "params")?;
            handlers.call(call, &params.tool, text_or(params.args.as_deref(), "{}"))
        }
        "handle_event" => {
            let params: EventParams = args::read(params, "params")?;
            let event = Event {
                subject: params.subject,
                delivery: params.delivery,
                hops: params.hops,
                traceparent: params.traceparent,
                data: params.data.unwrap_or_else(|| RawValue::NULL.to_owned()),
            };
            handlers.event(call, &event).map(done)
        }
        "hook" => {
            let params: HookParams = args::read(params, "params")?;
            let data = text_or(params.data.as_deref(), "null");
            match handlers.hook(call, &params.hook, data)? {
                Decision::Pass => Ok("{}".to_owned()),
                // The data is one level deeper here than where it was checked.
                Decision::Replace(data) => result(&json_object("data", &data)?),
                Decision::Veto(reason) => result(&json!({ "veto": reason })),
            }
        }
        "run_command" => {
            let params: CommandParams = args::read(params, "params")?;
            let args = || args::read(text_or(params.args.as_deref(), "[]"), "args");
            result(&handlers.command(call, &params.command, args)?)
        }
        "initialize" => initialize(handlers, call, params),
        "configure" => {
            let params: ConfigureParams = args::read(params, "params")?;
            handlers.configure(call, params.config.get()).map(done)
        }
        "save_state" => {
            let (schema, state) = handlers.save(call)?;
            Ok(format!(r#"{{"schema":{schema},"state":{state}}}"#))
        }
        "restore_state" => {
            let params: StateParams = args::read(params, "params")?;
            let state = text_or(params.state.as_deref(), "null");
            handlers.restore(call, params.schema, state).map(done)
        }
        other => Err(not_found(format!("there is no method {:?}", short(other)))),
    }
}

fn initialize(handlers: &Handlers, call: &Call, params: &str) -> Result<String> {
    let params: InitializeParams = args::read(params, "params")?;
    let Range { min, max } = params.protocol;
    if !(min..=max).contains(&VERSION) {
        let offer = format!("this SDK speaks protocol {VERSION}; the host offers {min} to {max}");
        return Err(PalisadeError::params(offer).into());
    }
    let id = params.plugin.map(|plugin| plugin.id).unwrap_or_default();
    let config = params.config.as_deref().map_or("{}", RawValue::get).into();
    let (name, version) = handlers.names(&id);
    handlers.start(call, About { id, rights: params.rights, config })?;
    let tool = |(tool, _): &(Tool, _)| {
        let mut entry = json!({ "name": tool.name, "input_schema": tool.input_schema });
        if let (Some(entry), Some(text)) = (entry.as_object_mut(), &tool.description) {
            entry.insert("description".to_owned(), text.as_str().into());
        }
        entry
    };
    let mut answer = json!({
        "protocol": VERSION,
        "features": [],
        "plugin": { "name": name, "version": version },
        "tools": handlers.tools.iter().map(tool).collect::<Vec<Value>>(),
    });
    let schemas = handlers.state_schemas();
    if let (false, Some(answer)) = (schemas.is_empty(), answer.as_object_mut()) {
        answer.insert("state_schemas".to_owned(), schemas.into());
    }
    result(&answer)
}

fn done((): ()) -> String {
    "{}".to_owned()
}

/// An object with one field whose text is known.
fn json_object<'a>(
    name: &'a str,
    text: &'a str,
) -> Result<HashMap<&'a str, &'a RawValue>, serde_json::Error> {
    Ok(HashMap::from([(name, serde_json::from_str(text)?)]))
}

/// The text of a value; `otherwise` where it is missing or `null`.
fn text_or<'a>(value: Option<&'a RawValue>, otherwise: &'a str) -> &'a str {
    value.map(RawValue::get).filter(|text| *text != "null").unwrap_or(otherwise)
}
