//! What an author writes against: a plugin, and its handlers.

use std::{collections::HashMap, io, os::unix::net::UnixStream, process::ExitCode};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};

use crate::{
    args,
    call::Call,
    descriptor,
    error::{BoxError, PalisadeError, Result, Veto, cut},
    parts::{Command, CommandResult, Event, Hook, Subject, Tool},
    session::{Session, result_error},
    wire::to_json,
};

/// The version of the protocol that this SDK speaks.
const VERSION: u32 = 1;
/// Longest names, and most entries of a list that `initialize` takes.
const MAX_NAME: usize = 128;
const MAX_LIST: usize = 256;
const MAX_PRIORITY: u32 = 1000;

/// A handler whose types are forgotten: it reads a text and gives one.
type Erased<R> = Box<dyn Fn(&str, &Call) -> Result<R> + Send + Sync>;
/// A handler that is only told something.
type Told = Box<dyn Fn(&Call) -> Result<()> + Send + Sync>;
type EventHandler = Box<dyn Fn(&Event, &Call) -> Result<()> + Send + Sync>;
type SaveHandler = Box<dyn Fn(&Call) -> Result<String> + Send + Sync>;
type RestoreHandler = Box<dyn Fn(&str, u32, &Call) -> Result<()> + Send + Sync>;

/// The handlers of a plugin that runs.
#[derive(Default)]
pub(crate) struct Handlers {
    pub(crate) threads: usize,
    name: Option<String>,
    version: Option<String>,
    tools: Vec<(Tool, Erased<String>)>,
    tools_by_name: HashMap<String, usize>,
    commands: Vec<(Command, Erased<String>)>,
    events: Vec<(Subject, EventHandler)>,
    /// By priority.
    hooks: Vec<(Hook, Erased<Option<String>>)>,
    start: Vec<Told>,
    stop: Vec<Told>,
    configure: Vec<Erased<()>>,
    save: Option<(u32, SaveHandler)>,
    restore: Option<(Vec<u32>, RestoreHandler)>,
}

/// A plugin. Add tools, events, hooks and commands, then [`run`](Plugin::run).
///
/// Handlers run on at most eight threads ([`threads`](Plugin::threads)), which are started when they are
/// needed and count against `resources.pids` of the manifest; so do one for shutting down and, where the
/// host does not keep up, one for writing. Several calls are worked on at once, and `ping` is answered
/// meanwhile. A handler that panics fails its call; the plugin goes on.
///
/// ```no_run
/// use palisade_plugin::Plugin;
///
/// #[derive(serde::Deserialize)]
/// struct Greet {
///     name: String,
/// }
///
/// fn main() -> std::process::ExitCode {
///     let mut plugin = Plugin::new();
///     plugin.tool("greet", |args: Greet, call| {
///         call.log().field("who", &args.name).info("greeting");
///         Ok(format!("Hello, {}!", args.name))
///     });
///     plugin.run()
/// }
/// ```
#[derive(Default)]
pub struct Plugin {
    handlers: Handlers,
    /// The first thing that an author got wrong; told when the plugin starts.
    mistake: Option<String>,
}

impl Plugin {
    /// A plugin without anything yet.
    pub fn new() -> Self {
        Self { handlers: Handlers { threads: 8, ..Handlers::default() }, mistake: None }
    }

    /// Its name for logs; the manifest's id if not given.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.handlers.name = Some(name.into());
        self
    }

    /// Its version for logs.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.handlers.version = Some(version.into());
        self
    }

    /// The most threads that handlers have, 8 if not given.
    #[must_use]
    pub fn threads(mut self, most: usize) -> Self {
        if most == 0 {
            self.wrong("threads: at least 1");
        }
        self.handlers.threads = most.max(1);
        self
    }

    /// A tool: gets its arguments, as any type that they fit, and gives any JSON value. Arguments that do
    /// not fit are refused with their path. `()` takes none.
    pub fn tool<A, R>(
        &mut self,
        tool: impl Into<Tool>,
        handler: impl Fn(A, &Call) -> Result<R> + Send + Sync + 'static,
    ) where
        A: DeserializeOwned,
        R: Serialize,
    {
        let (tool, handlers) = (tool.into(), &mut self.handlers);
        let is_new = !handlers.tools_by_name.contains_key(&tool.name);
        let mistake = named(&tool.name, is_new, handlers.tools.len(), "tool");
        handlers.tools_by_name.insert(tool.name.clone(), handlers.tools.len());
        handlers.tools.push((
            tool,
            Box::new(move |text, call| result(&handler(args::read(text, "args")?, call)?)),
        ));
        self.wrong_if(mistake);
    }

    /// A command: gets a list of texts, and gives the text to show, an exit status, or both.
    pub fn command<R: Into<CommandResult>>(
        &mut self,
        command: impl Into<Command>,
        handler: impl Fn(Vec<String>, &Call) -> Result<R> + Send + Sync + 'static,
    ) {
        let (command, commands) = (command.into(), &mut self.handlers.commands);
        let is_new = commands.iter().all(|(other, _)| other.name != command.name);
        let mistake = named(&command.name, is_new, commands.len(), "command");
        commands.push((
            command,
            Box::new(move |text, call| {
                let given: CommandResult = handler(args::read(text, "args")?, call)?.into();
                result(&given)
            }),
        ));
        self.wrong_if(mistake);
    }

    /// A handler of the events whose subject fits: `*` stands for one token, a last `>` for one or more.
    /// The event is acknowledged unless a handler fails.
    pub fn event(
        &mut self,
        subject: &str,
        handler: impl Fn(&Event, &Call) -> Result<()> + Send + Sync + 'static,
    ) {
        match Subject::parse(subject) {
            Some(subject) => self.handlers.events.push((subject, Box::new(handler))),
            None => self.wrong(&format!("not a subject: {subject:?}")),
        }
    }

    /// A handler of a hook: gets the data, as any type that it fits. `None` leaves it as it is, `Some`
    /// replaces it, a [`Veto`] refuses. The priority among plugins is the manifest's.
    pub fn hook<D, R>(
        &mut self,
        hook: impl Into<Hook>,
        handler: impl Fn(D, &Call) -> Result<Option<R>> + Send + Sync + 'static,
    ) where
        D: DeserializeOwned,
        R: Serialize,
    {
        let hook = hook.into();
        if hook.priority > MAX_PRIORITY {
            self.wrong("priority: 0 to 1000");
        }
        let erased: Erased<Option<String>> = Box::new(move |text, call| {
            let given = handler(args::read(text, "data")?, call)?;
            given.as_ref().map(result).transpose()
        });
        self.handlers.hooks.push((hook, erased));
        self.handlers.hooks.sort_by_key(|(hook, _)| hook.priority);
    }

    /// Runs before the plugin is ready; the configuration is there.
    pub fn start(&mut self, handler: impl Fn(&Call) -> Result<()> + Send + Sync + 'static) {
        self.handlers.start.push(Box::new(handler));
    }

    /// Runs at `shutdown`, after the running calls.
    pub fn stop(&mut self, handler: impl Fn(&Call) -> Result<()> + Send + Sync + 'static) {
        self.handlers.stop.push(Box::new(handler));
    }

    /// Runs when the configuration changes, with the new one. If it fails, the old configuration stays.
    pub fn configure<C: DeserializeOwned>(
        &mut self,
        handler: impl Fn(C, &Call) -> Result<()> + Send + Sync + 'static,
    ) {
        let erased: Erased<()> =
            Box::new(move |text, call| handler(args::read(text, "config")?, call));
        self.handlers.configure.push(erased);
    }

    /// What survives a reload.
    pub fn state(&mut self) -> State<'_> {
        State(self)
    }

    /// What the manifest's `contributes` has to say.
    pub fn contributes(&self) -> Value {
        let handlers = &self.handlers;
        let text = |text: &Option<String>, name: &String| text.as_ref().unwrap_or(name).clone();
        let mut all = serde_json::Map::new();
        let mut add = |name: &str, list: Vec<Value>| {
            if !list.is_empty() {
                all.insert(name.to_owned(), list.into());
            }
        };
        let tool = |(tool, _): &(Tool, _)| json!({ "name": tool.name, "description": text(&tool.description, &tool.name), "input": tool.input_schema });
        let command = |(command, _): &(Command, _)| json!({ "name": command.name, "description": text(&command.description, &command.name) });
        add("tools", handlers.tools.iter().map(tool).collect());
        add("commands", handlers.commands.iter().map(command).collect());
        let mut hooks: Vec<&Hook> = Vec::new();
        for (hook, _) in &handlers.hooks {
            if hooks.iter().all(|other| other.name != hook.name) {
                hooks.push(hook);
            }
        }
        let hook = |hook: &&Hook| json!({ "event": hook.name, "priority": hook.priority });
        add("hooks", hooks.iter().map(hook).collect());
        all.into()
    }

    /// Serves the host on the socket that Palisade opened, until the host ends the plugin; to be given
    /// back from `main`. Handlers that still run then end with the process.
    ///
    /// Started by hand with `--contributes`: prints what belongs in the manifest.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let served = match descriptor::take() {
            Some(socket) => self.serve(socket),
            None if std::env::args().skip(1).eq(["--contributes".to_owned()]) => {
                println!("{:#}", self.contributes());
                self.mistake.map_or(Ok(()), |mistake| Err(io::Error::other(mistake)))
            }
            None => Err(io::Error::other(
                "This is a Palisade plugin: there is no socket on descriptor 3. Start it with\n  \
                 palisade run DIR\nor print what belongs in its manifest with --contributes.",
            )),
        };
        match served {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        }
    }

    /// As [`run`](Plugin::run), on a connected socket.
    ///
    /// # Errors
    /// `InvalidInput` where the plugin is not well made (two tools of one name), `InvalidData` where the host
    /// broke the protocol.
    pub fn serve(self, socket: UnixStream) -> io::Result<()> {
        if let Some(mistake) = self.mistake {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, mistake));
        }
        Session::run(self.handlers, socket).map_err(|breach| {
            let text = format!("palisade: the connection ended: {breach}");
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }

    fn wrong_if(&mut self, mistake: Option<String>) {
        if let Some(mistake) = mistake {
            self.wrong(&mistake);
        }
    }

    fn wrong(&mut self, mistake: &str) {
        self.mistake.get_or_insert_with(|| mistake.to_owned());
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tools: Vec<&str> = self.handlers.tools.iter().map(|(t, _)| t.name.as_str()).collect();
        f.debug_struct("Plugin").field("tools", &tools).finish_non_exhaustive()
    }
}

/// What survives a reload.
#[derive(Debug)]
pub struct State<'a>(&'a mut Plugin);

impl State<'_> {
    /// The handler that gives the state; `schema` is the version of its form.
    pub fn save<S: Serialize>(
        &mut self,
        schema: u32,
        handler: impl Fn(&Call) -> Result<S> + Send + Sync + 'static,
    ) {
        let erased = Box::new(move |call: &Call| result(&handler(call)?));
        self.0.handlers.save = Some((schema, erased));
    }

    /// The handler that takes the state and its schema back; `accepts` are the versions that it can read.
    pub fn restore<S: DeserializeOwned>(
        &mut self,
        accepts: &[u32],
        handler: impl Fn(S, u32, &Call) -> Result<()> + Send + Sync + 'static,
    ) {
        let mut accepts = accepts.to_vec();
        accepts.sort_unstable();
        accepts.dedup();
        let erased = Box::new(move |text: &str, schema: u32, call: &Call| {
            handler(args::read(text, "state")?, schema, call)
        });
        self.0.handlers.restore = Some((accepts, erased));
    }
}

// Requests of the host.

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
fn result<T: Serialize + ?Sized>(value: &T) -> Result<String> {
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

/// What is wrong with a name, if anything is.
fn named(name: &str, is_new: bool, count: usize, what: &str) -> Option<String> {
    if !(1..=MAX_NAME).contains(&name.chars().count()) {
        Some(format!("{what}: a name has 1 to {MAX_NAME} characters"))
    } else if !is_new {
        Some(format!("there are two of the {what} {name:?}"))
    } else if count >= MAX_LIST {
        Some(format!("more than {MAX_LIST} of {what}"))
    } else {
        None
    }
}
