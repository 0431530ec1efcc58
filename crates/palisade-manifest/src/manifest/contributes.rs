//! What a plugin offers.

use crate::json_schema::JsonSchema;

/// What a plugin offers.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Contributes {
    /// Tools.
    pub tools: Vec<Tool>,
    /// Commands.
    pub commands: Vec<Command>,
    /// Hooks.
    pub hooks: Vec<Hook>,
    /// Channels.
    pub channels: Vec<Channel>,
    /// Services.
    pub services: Vec<Service>,
}

/// A tool.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// What it takes; any object where the manifest says nothing.
    pub input: JsonSchema,
    /// What it gives.
    pub output: Option<JsonSchema>,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Command {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// How it is used.
    pub usage: Option<String>,
}

/// A hook: a place in the application's work where the plugin is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hook {
    /// Which event.
    pub event: String,
    /// 0..=1000; lower is earlier.
    pub priority: u16,
    /// Why, in the author's words. Show it with [`crate::shown`].
    pub reason: Option<String>,
}

/// A channel: a kind of place where messages come from and go to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Channel {
    /// Its type.
    pub channel_type: String,
    /// Its name for people.
    pub name: Option<String>,
    /// What it is.
    pub description: String,
}

/// A service that other plugins and the application can call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Service {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
}
