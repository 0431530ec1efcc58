//! The handlers of a plugin, and which of them answers what. How the host asks, and in which form it wants
//! the answer, is the transport's: `native` or `component`.

use std::collections::HashMap;

use serde::Serialize;

use crate::{
    call::Call,
    error::{BoxError, PalisadeError, Result, Veto, cut},
    handle::About,
    json::to_json,
    parts::{Command, CommandResult, Event, Hook, Subject, Tool},
};

/// Longest names, in characters.
pub(crate) const MAX_NAME: usize = 128;

/// A handler whose types are forgotten: it reads a text and gives one.
pub(crate) type Erased<R> = Box<dyn Fn(&str, &Call) -> Result<R> + Send + Sync>;
pub(crate) type CommandHandler =
    Box<dyn Fn(Vec<String>, &Call) -> Result<CommandResult> + Send + Sync>;
/// A handler that is only told something.
pub(crate) type Told = Box<dyn Fn(&Call) -> Result<()> + Send + Sync>;
pub(crate) type EventHandler = Box<dyn Fn(&Event, &Call) -> Result<()> + Send + Sync>;
pub(crate) type SaveHandler = Box<dyn Fn(&Call) -> Result<String> + Send + Sync>;
pub(crate) type RestoreHandler = Box<dyn Fn(&str, u32, &Call) -> Result<()> + Send + Sync>;

/// What a hook's handlers decided.
#[derive(Debug)]
pub(crate) enum Decision {
    Pass,
    /// The new data, JSON.
    Replace(String),
    /// Why not.
    Veto(String),
}

/// The handlers of a plugin that runs.
#[derive(Default)]
pub(crate) struct Handlers {
    pub(crate) threads: usize,
    pub(crate) name: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) tools: Vec<(Tool, Erased<String>)>,
    pub(crate) tools_by_name: HashMap<String, usize>,
    pub(crate) commands: Vec<(Command, CommandHandler)>,
    pub(crate) events: Vec<(Subject, EventHandler)>,
    /// By priority.
    pub(crate) hooks: Vec<(Hook, Erased<Option<String>>)>,
    pub(crate) start: Vec<Told>,
    pub(crate) stop: Vec<Told>,
    pub(crate) configure: Vec<Erased<()>>,
    pub(crate) save: Option<(u32, SaveHandler)>,
    pub(crate) restore: Option<(Vec<u32>, RestoreHandler)>,
}

impl Handlers {
    /// Runs the start handlers, now that the host has told `about`.
    pub(crate) fn start(&self, call: &Call, about: About) -> Result<()> {
        call.handle.session.set_about(|old| *old = about);
        for handler in &self.start {
            handler(call)?;
        }
        Ok(())
    }

    /// Name and version for logs.
    pub(crate) fn names(&self, id: &str) -> (String, String) {
        let cut = |text: &str| text.chars().take(MAX_NAME).collect::<String>();
        let id = if id.is_empty() { "plugin" } else { id };
        let name = self.name.as_deref().unwrap_or(id);
        (cut(name), cut(self.version.as_deref().unwrap_or("0.0.0")))
    }

    /// The versions of its state's form that the plugin can restore.
    pub(crate) fn state_schemas(&self) -> &[u32] {
        self.restore.as_ref().map_or(&[], |(accepts, _)| accepts)
    }

    /// Calls a tool.
    pub(crate) fn call(&self, call: &Call, tool: &str, args: &str) -> Result<String> {
        let index = self.tools_by_name.get(tool);
        let (_, handler) = index
            .and_then(|index| self.tools.get(*index))
            .ok_or_else(|| not_found(format!("there is no tool {:?}", short(tool))))?;
        handler(args, call)
    }

    /// Gives an event to the handlers that it fits.
    pub(crate) fn event(&self, call: &Call, event: &Event) -> Result<()> {
        let mut is_handled = false;
        for (_, handler) in self.events.iter().filter(|(subject, _)| subject.fits(&event.subject)) {
            handler(event, call)?;
            call.check()?;
            is_handled = true;
        }
        if is_handled {
            Ok(())
        } else {
            Err(not_found(format!("nothing handles {:?}", short(&event.subject))))
        }
    }

    /// Runs a hook's handlers one after another.
    pub(crate) fn hook(&self, call: &Call, name: &str, data: &str) -> Result<Decision> {
        let mut new: Option<String> = None;
        let mut is_handled = false;
        for (_, handler) in self.hooks.iter().filter(|(hook, _)| hook.name == name) {
            is_handled = true;
            match handler(new.as_deref().unwrap_or(data), call) {
                Ok(Some(data)) => new = Some(data),
                Ok(None) => {}
                Err(error) => {
                    let veto = error.downcast::<Veto>()?;
                    return Ok(Decision::Veto(cut(&veto.reason).to_owned()));
                }
            }
            call.check()?;
        }
        if is_handled {
            Ok(new.map_or(Decision::Pass, Decision::Replace))
        } else {
            Err(not_found(format!("nothing handles the hook {:?}", short(name))))
        }
    }

    /// Runs a command; `args` gives its arguments, once it is known that there is such a command.
    pub(crate) fn command(
        &self,
        call: &Call,
        name: &str,
        args: impl FnOnce() -> Result<Vec<String>, PalisadeError>,
    ) -> Result<CommandResult> {
        let found = self.commands.iter().find(|(command, _)| command.name == name);
        let (_, handler) =
            found.ok_or_else(|| not_found(format!("there is no command {:?}", short(name))))?;
        handler(args()?, call)
    }

    /// Takes a new configuration, a JSON object; the old one stays where a handler fails.
    pub(crate) fn configure(&self, call: &Call, config: &str) -> Result<()> {
        if !config.starts_with('{') {
            return Err(PalisadeError::params("config: expected object").into());
        }
        let session = &call.handle.session;
        let old = session.set_about(|about| about.config = config.into());
        for handler in &self.configure {
            if let Err(error) = handler(config, call) {
                session.set_about(|about| about.config = old.config);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Gives the state, JSON, with the version of its form.
    pub(crate) fn save(&self, call: &Call) -> Result<(u32, String)> {
        let (schema, handler) =
            self.save.as_ref().ok_or_else(|| not_found("the plugin saves no state".to_owned()))?;
        Ok((*schema, handler(call)?))
    }

    /// Takes the state back.
    pub(crate) fn restore(&self, call: &Call, schema: u32, state: &str) -> Result<()> {
        let Some((accepts, handler)) = &self.restore else {
            return Err(not_found("the plugin restores no state".to_owned()));
        };
        if !accepts.contains(&schema) {
            let text = format!("state of schema {schema} cannot be restored");
            return Err(PalisadeError::params(text).into());
        }
        handler(state, schema, call)
    }

    /// Runs the stop handlers: all of them, whatever one does. The first error counts.
    pub(crate) fn stop(&self, call: &Call) -> Result<()> {
        let mut error = None;
        for handler in &self.stop {
            if let Err(e) = handler(call) {
                error.get_or_insert(e);
            }
        }
        error.map_or(Ok(()), Err)
    }
}

/// The text of a handler's result.
pub(crate) fn result<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    to_json(value).map_err(|error| result_error(&error).into())
}

/// A result that cannot be sent is the plugin's own fault. Not `PAL-PARAMS`: that would blame the caller.
pub(crate) fn result_error(error: &PalisadeError) -> PalisadeError {
    PalisadeError::new("PAL-PLUGIN", format!("the result: {}", error.message))
}

pub(crate) fn short(name: &str) -> String {
    name.chars().take(128).collect()
}

pub(crate) fn not_found(message: String) -> BoxError {
    PalisadeError::not_found(message).into()
}
