//! What the host asks of a plugin, and which handlers answer it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use crate::{
    args,
    call::Call,
    error::{BoxError, PalisadeError, Result, Veto, cut},
    parts::{Command, Event, Hook, Subject, Tool},
    session::result_error,
    wire::to_json,
};

/// The version of the protocol that this SDK speaks.
const VERSION: u32 = 1;
/// Longest names, in characters.
pub(crate) const MAX_NAME: usize = 128;

/// A handler whose types are forgotten: it reads a text and gives one.
pub(crate) type Erased<R> = Box<dyn Fn(&str, &Call) -> Result<R> + Send + Sync>;
/// A handler that is only told something.
pub(crate) type Told = Box<dyn Fn(&Call) -> Result<()> + Send + Sync>;
pub(crate) type EventHandler = Box<dyn Fn(&Event, &Call) -> Result<()> + Send + Sync>;
pub(crate) type SaveHandler = Box<dyn Fn(&Call) -> Result<String> + Send + Sync>;
pub(crate) type RestoreHandler = Box<dyn Fn(&str, u32, &Call) -> Result<()> + Send + Sync>;

/// The handlers of a plugin that runs.
#[derive(Default)]
pub(crate) struct Handlers {
    pub(crate) threads: usize,
    pub(crate) name: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) tools: Vec<(Tool, Erased<String>)>,
    pub(crate) tools_by_name: HashMap<String, usize>,
    pub(crate) commands: Vec<(Command, Erased<String>)>,
    pub(crate) events: Vec<(Subject, EventHandler)>,
    /// By priority.
    pub(crate) hooks: Vec<(Hook, Erased<Option<String>>)>,
    pub(crate) start: Vec<Told>,
    pub(crate) stop: Vec<Told>,
    pub(crate) configure: Vec<Erased<()>>,
    pub(crate) save: Option<(u32, SaveHandler)>,
    pub(crate) restore: Option<(Vec<u32>, RestoreHandler)>,
}

#[derive(Deserialize)]
struct InitializeParams {
    protocol: Range,
    config: Option<Box<RawValue>>,
    plugin: Option<About>,
    #[serde(default)]
    rights: Vec<String>,
}

#[derive(Deserialize)]
struct Range {
    min: u32,
    max: u32,
}

#[derive(Deserialize)]
struct About {
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

impl Handlers {
    /// Handles any method but `ping` and `shutdown`.
    pub(crate) fn dispatch(&self, call: &Call, params: &str) -> Result<String> {
        match call.method() {
            "call" => self.on_call(call, params),
            "handle_event" => self.on_event(call, params),
            "hook" => self.on_hook(call, params),
            "run_command" => self.on_command(call, params),
            "initialize" => self.on_initialize(call, params),
            "configure" => self.on_configure(call, params),
            "save_state" => self.on_save(call),
            "restore_state" => self.on_restore(call, params),
            other => Err(not_found(format!("there is no method {:?}", short(other)))),
        }
    }

    /// Runs the stop handlers: all of them, whatever one does. The first error counts.
    pub(crate) fn stop(&self, call: &Call) -> Result<String> {
        let mut error = None;
        for handler in &self.stop {
            if let Err(e) = handler(call) {
                error.get_or_insert(e);
            }
        }
        error.map_or_else(|| Ok("{}".to_owned()), Err)
    }

    fn on_call(&self, call: &Call, params: &str) -> Result<String> {
        let params: CallParams = args::read(params, "params")?;
        let index = self.tools_by_name.get(&params.tool);
        let (_, handler) = index
            .and_then(|index| self.tools.get(*index))
            .ok_or_else(|| not_found(format!("there is no tool {:?}", short(&params.tool))))?;
        handler(text_or(params.args.as_deref(), "{}"), call)
    }

    fn on_event(&self, call: &Call, params: &str) -> Result<String> {
        let params: EventParams = args::read(params, "params")?;
        let event = Event {
            subject: params.subject,
            delivery: params.delivery,
            hops: params.hops,
            traceparent: params.traceparent,
            data: params.data.unwrap_or_else(|| RawValue::NULL.to_owned()),
        };
        let mut is_handled = false;
        for (_, handler) in self.events.iter().filter(|(subject, _)| subject.fits(&event.subject)) {
            handler(&event, call)?;
            call.check()?;
            is_handled = true;
        }
        if is_handled {
            Ok("{}".to_owned())
        } else {
            Err(not_found(format!("nothing handles {:?}", short(&event.subject))))
        }
    }

    fn on_hook(&self, call: &Call, params: &str) -> Result<String> {
        let params: HookParams = args::read(params, "params")?;
        let mut data = text_or(params.data.as_deref(), "null").to_owned();
        let (mut is_handled, mut is_changed) = (false, false);
        for (_, handler) in self.hooks.iter().filter(|(hook, _)| hook.name == params.hook) {
            is_handled = true;
            match handler(&data, call) {
                Ok(Some(new)) => (data, is_changed) = (new, true),
                Ok(None) => {}
                Err(error) => {
                    let veto = error.downcast::<Veto>()?;
                    return result(&json!({ "veto": cut(&veto.reason) }));
                }
            }
            call.check()?;
        }
        match (is_handled, is_changed) {
            (false, _) => {
                Err(not_found(format!("nothing handles the hook {:?}", short(&params.hook))))
            }
            (true, false) => Ok("{}".to_owned()),
            // The data is one level deeper here than where it was checked.
            (true, true) => result(&json_object("data", &data)?),
        }
    }

    fn on_command(&self, call: &Call, params: &str) -> Result<String> {
        let params: CommandParams = args::read(params, "params")?;
        let found = self.commands.iter().find(|(command, _)| command.name == params.command);
        let (_, handler) = found.ok_or_else(|| {
            not_found(format!("there is no command {:?}", short(&params.command)))
        })?;
        handler(text_or(params.args.as_deref(), "[]"), call)
    }

    fn on_initialize(&self, call: &Call, params: &str) -> Result<String> {
        let params: InitializeParams = args::read(params, "params")?;
        let Range { min, max } = params.protocol;
        if !(min..=max).contains(&VERSION) {
            let offer =
                format!("this SDK speaks protocol {VERSION}; the host offers {min} to {max}");
            return Err(PalisadeError::params(offer).into());
        }
        call.handle.session.set_about(|about| {
            about.id = params.plugin.map(|plugin| plugin.id).unwrap_or_default();
            about.rights = params.rights;
            if let Some(config) = params.config {
                about.config = config.into();
            }
        });
        for handler in &self.start {
            handler(call)?;
        }
        let about = |given: &Option<String>, other: String| {
            given.clone().unwrap_or(other).chars().take(MAX_NAME).collect::<String>()
        };
        let id = call.id();
        let id = if id.is_empty() { "plugin".to_owned() } else { id };
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
            "plugin": { "name": about(&self.name, id), "version": about(&self.version, "0.0.0".to_owned()) },
            "tools": self.tools.iter().map(tool).collect::<Vec<Value>>(),
        });
        if let (Some((accepts, _)), Some(answer)) = (&self.restore, answer.as_object_mut()) {
            answer.insert("state_schemas".to_owned(), accepts.as_slice().into());
        }
        result(&answer)
    }

    fn on_configure(&self, call: &Call, params: &str) -> Result<String> {
        let params: ConfigureParams = args::read(params, "params")?;
        if !params.config.get().starts_with('{') {
            return Err(PalisadeError::params("config: expected object").into());
        }
        let session = &call.handle.session;
        let text = params.config.get().to_owned();
        let old = session.set_about(|about| about.config = params.config.into());
        for handler in &self.configure {
            if let Err(error) = handler(&text, call) {
                session.set_about(|about| about.config = old.config);
                return Err(error);
            }
        }
        Ok("{}".to_owned())
    }

    fn on_save(&self, call: &Call) -> Result<String> {
        let (schema, handler) =
            self.save.as_ref().ok_or_else(|| not_found("the plugin saves no state".to_owned()))?;
        let state = handler(call)?;
        Ok(format!(r#"{{"schema":{schema},"state":{state}}}"#))
    }

    fn on_restore(&self, call: &Call, params: &str) -> Result<String> {
        let Some((accepts, handler)) = &self.restore else {
            return Err(not_found("the plugin restores no state".to_owned()));
        };
        let params: StateParams = args::read(params, "params")?;
        if !accepts.contains(&params.schema) {
            let text = format!("state of schema {} cannot be restored", params.schema);
            return Err(PalisadeError::params(text).into());
        }
        handler(text_or(params.state.as_deref(), "null"), params.schema, call)?;
        Ok("{}".to_owned())
    }
}

/// The text of a handler's result.
pub(crate) fn result<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    to_json(value).map_err(|error| result_error(&error).into())
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

fn short(name: &str) -> String {
    name.chars().take(128).collect()
}

fn not_found(message: String) -> BoxError {
    PalisadeError::not_found(message).into()
}
