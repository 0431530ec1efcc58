//! What an author writes against: a plugin, and its handlers.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    args,
    call::Call,
    error::Result,
    handlers::{Erased, Handlers, MAX_NAME, result},
    parts::{Command, CommandResult, Event, Hook, Subject, Tool},
};

/// Most entries of a list that `initialize` takes.
const MAX_LIST: usize = 256;
const MAX_PRIORITY: u32 = 1000;

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
    pub(crate) handlers: Handlers,
    /// The first thing that an author got wrong; told when the plugin starts.
    pub(crate) mistake: Option<String>,
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
        commands.push((command, Box::new(move |args, call| Ok(handler(args, call)?.into()))));
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
    /// replaces it, a [`Veto`](crate::Veto) refuses. The priority among plugins is the manifest's.
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
