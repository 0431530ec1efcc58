//! The methods of the protocol: their names and the shapes of their parameters and results.
//!
//! Results and parameters that belong to a tool, an event or a plugin's own state stay raw JSON here;
//! whoever knows their schema reads them. Unknown fields are ignored everywhere.

use palisade_model::{Payload, text::escape};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{FrameError, Id, VersionRange, agree};

/// Host to plugin: the first request of a connection.
pub const INITIALIZE: &str = "initialize";
/// Either way: are you there?
pub const PING: &str = "ping";
/// Host to plugin: call a tool.
pub const CALL: &str = "call";
/// Host to plugin: an event the plugin subscribed to.
pub const HANDLE_EVENT: &str = "handle_event";
/// Host to plugin: a hook the plugin contributes.
pub const HOOK: &str = "hook";
/// Host to plugin: a command the plugin contributes.
pub const RUN_COMMAND: &str = "run_command";
/// Host to plugin: the configuration changed.
pub const CONFIGURE: &str = "configure";
/// Host to plugin: hand over your state.
pub const SAVE_STATE: &str = "save_state";
/// Host to plugin: take this state.
pub const RESTORE_STATE: &str = "restore_state";
/// Host to plugin: finish and exit.
pub const SHUTDOWN: &str = "shutdown";
/// Plugin to host: a log line. The only one that may also be a notification.
pub const LOG: &str = "log";
/// Plugin to host: publish an event.
pub const EVENT_PUBLISH: &str = "event.publish";
/// Plugin to host: call a service of the application.
pub const HOST_CALL: &str = "host.call";
/// Either way, a notification: the sender no longer wants the answer to a request of its own.
pub const CANCEL: &str = "$/cancel";
/// Either way, a notification: how far a request of the other side has come.
pub const PROGRESS: &str = "$/progress";
/// Prefix of the names reserved for streams (`$/stream.open`, `$/stream.chunk`, `$/stream.close`).
pub const STREAM_PREFIX: &str = "$/stream.";

/// A name and a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Which plugin is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginName {
    /// The manifest's id.
    pub id: String,
}

/// Parameters of [`INITIALIZE`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InitializeParams {
    /// The versions the host speaks.
    pub protocol: VersionRange,
    /// Optional parts of the protocol that the host knows. None in this version.
    #[serde(default)]
    pub features: Vec<String>,
    /// The host.
    pub host: Party,
    /// The plugin as the host knows it.
    pub plugin: PluginName,
    /// The plugin's configuration, checked against the manifest's schema.
    pub config: Box<RawValue>,
    /// The capabilities in effect, `kind:scope`.
    #[serde(default)]
    pub rights: Vec<String>,
}

/// A tool that a plugin names when it starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tool {
    /// Its name, 1..=[`MAX_NAME_CHARS`] characters.
    pub name: String,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Box<RawValue>>,
}

/// Result of [`INITIALIZE`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InitializeResult {
    /// The version chosen from those offered.
    pub protocol: u32,
    /// Those of the host's features that the plugin uses.
    #[serde(default)]
    pub features: Vec<String>,
    /// The plugin's own name and version, for logs only; identity comes from the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<Party>,
    /// Its tools, where it tells. The manifest stays the upper bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Tool>>,
    /// The state schema versions it can restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_schemas: Option<Vec<u32>>,
}

/// Longest name in the result of [`INITIALIZE`], in characters.
pub const MAX_NAME_CHARS: usize = 128;
/// Most entries of each list in the result of [`INITIALIZE`].
pub const MAX_LIST: usize = 256;

impl InitializeResult {
    /// Reads the plugin's answer, checks its bounds and that its version lies within the offer.
    ///
    /// # Errors
    /// [`FrameError::Shape`] and [`FrameError::Version`].
    pub fn read(answer: &Payload, offered: VersionRange) -> Result<Self, FrameError> {
        let shape = |what: String| FrameError::Shape { method: INITIALIZE, what };
        let result: Self = answer.parse().map_err(|e| shape(escape(&e.to_string(), 200)))?;
        agree(offered, result.protocol)?;
        let tools = result.tools.as_deref().unwrap_or_default();
        let named = result.plugin.iter().flat_map(|p| [&p.name, &p.version]);
        let names = result.features.iter().chain(tools.iter().map(|t| &t.name)).chain(named);
        for name in names {
            if name.is_empty() || name.chars().count() > MAX_NAME_CHARS {
                return Err(shape(format!("a name is empty or longer than {MAX_NAME_CHARS}")));
            }
        }
        let schemas = result.state_schemas.as_deref().map_or(0, <[u32]>::len);
        if result.features.len().max(tools.len()).max(schemas) > MAX_LIST {
            return Err(shape(format!("a list has more than {MAX_LIST} entries")));
        }
        Ok(result)
    }
}

/// Parameters of [`CALL`]. The result is the tool's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallParams {
    /// Which tool.
    pub tool: String,
    /// Its arguments.
    pub args: Box<RawValue>,
}

/// [`CallParams`] as a payload, without reading `args` again: for the path of every call.
///
/// `args` is JSON text; the [`crate::Peer`] checks the whole before it is sent.
#[must_use]
pub fn call_params(tool: &str, args: &Payload) -> Payload {
    let mut text = Vec::with_capacity(tool.len() + args.len() + 24);
    text.extend_from_slice(b"{\"tool\":");
    // A str always serialises, and a Vec takes every byte.
    drop(serde_json::to_writer(&mut text, tool));
    text.extend_from_slice(b",\"args\":");
    text.extend_from_slice(args.bytes());
    text.push(b'}');
    Payload::from_json_text(text)
}

/// Parameters of [`HANDLE_EVENT`]. Any result acknowledges the delivery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HandleEventParams {
    /// Names the delivery; the same for a repeated one.
    pub delivery: String,
    /// The event's subject.
    pub subject: String,
    /// The event's content.
    pub data: Box<RawValue>,
    /// How many publishers in a row led to this event; 0 for an event from the application.
    #[serde(default)]
    pub hops: u32,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// Parameters of [`HOOK`]. The result is the hook's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookParams {
    /// Which hook.
    pub hook: String,
    /// What it works on.
    pub data: Box<RawValue>,
}

/// Parameters of [`RUN_COMMAND`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCommandParams {
    /// Which command.
    pub command: String,
    /// Its arguments, without the command itself.
    pub args: Vec<String>,
}

/// Result of [`RUN_COMMAND`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCommandResult {
    /// Exit status; 0 for success.
    #[serde(default)]
    pub status: u8,
    /// What to show. Escaped before it is shown.
    #[serde(default)]
    pub output: String,
}

/// Parameters of [`CONFIGURE`]. The result is `{}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConfigureParams {
    /// The whole new configuration.
    pub config: Box<RawValue>,
}

/// Result of [`SAVE_STATE`] and parameters of [`RESTORE_STATE`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Version of the state's schema.
    pub schema: u32,
    /// The state.
    pub state: Box<RawValue>,
}

/// Parameters of [`SHUTDOWN`]. The result is `{}`; the plugin exits after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownParams {
    /// Why, one sentence.
    pub reason: String,
    /// Milliseconds until the plugin is killed.
    pub grace_ms: u64,
}

/// How serious a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// For whoever looks for a fault.
    Debug,
    /// What happened.
    Info,
    /// Odd, but work goes on.
    Warn,
    /// Something failed.
    Error,
}

/// Parameters of [`LOG`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogParams {
    /// How serious.
    pub level: LogLevel,
    /// The line. Escaped before it is shown.
    pub message: String,
    /// Further values, a JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Box<RawValue>>,
}

/// Parameters of [`CANCEL`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelParams {
    /// The request that is no longer wanted.
    pub id: Id,
}
