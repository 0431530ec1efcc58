//! What a valid manifest says, as types.
//!
//! Only [`crate::parse`] makes a [`Manifest`], so one that exists has passed every check. What a host
//! does with it (start it, grant it something) is decided elsewhere.

use std::{collections::BTreeMap, time::Duration};

use palisade_model::{
    Capability, CapabilitySet, ErrorCode, Failure, GuaranteeSet, Kind, Limits, PluginId,
    text::{escape, is_deceptive, looks_mixed},
};
use serde_json::Value as Json;

use crate::{
    digest::Digest,
    json_schema::{JsonSchema, SchemaError},
    path::{Interpreter, Program, RelPath},
};

/// A plugin's manifest, read and checked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Manifest {
    /// The plugin's own name for programs.
    pub id: PluginId,
    /// The name for people; at most 80 characters. Show it with [`Manifest::display_name`].
    pub name: Option<String>,
    /// The plugin's version.
    pub version: semver::Version,
    /// What it does.
    pub description: Option<String>,
    /// Who wrote it.
    pub authors: Vec<String>,
    /// Its licence, an SPDX expression or any text.
    pub license: Option<String>,
    /// Its page on the web, `http` or `https`.
    pub homepage: Option<String>,
    /// Which versions of Palisade it needs. This one is among them.
    pub requires: Option<semver::VersionReq>,
    /// How it is started.
    pub entry: Entry,
    /// What it asks for.
    pub capabilities: Capabilities,
    /// What it offers.
    pub contributes: Contributes,
    /// How much it says it needs.
    pub resources: Resources,
    /// What it demands of its walls on top of the operator's floor.
    pub guarantees: GuaranteeSet,
    /// What it can be configured with.
    pub config: Option<Config>,
    /// The shape of the state that it saves across a reload.
    pub state: Option<State>,
    pub(crate) digest: Digest,
}

/// How a plugin is started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry {
    /// A Python program that speaks Palisade's protocol.
    Python {
        /// The script.
        file: RelPath,
        /// Its arguments.
        args: Vec<String>,
        /// Which Python runs it.
        interpreter: Interpreter,
        /// Which versions of Python it needs, as in `>=3.10`.
        version: Option<semver::VersionReq>,
    },
    /// A Node.js program that speaks Palisade's protocol.
    Node {
        /// The script.
        file: RelPath,
        /// Its arguments.
        args: Vec<String>,
    },
    /// Any program that speaks Palisade's protocol.
    Exec {
        /// The program.
        program: Program,
        /// Its arguments.
        args: Vec<String>,
    },
    /// A server of the Model Context Protocol on stdio.
    Mcp {
        /// The program.
        command: Program,
        /// Its arguments.
        args: Vec<String>,
    },
    /// A program that answers `{id, method, params}` line by line on stdout.
    Jsonl(Jsonl),
    /// A WebAssembly component.
    Wasm {
        /// The component.
        file: RelPath,
        /// How calls find an instance.
        calls: Calls,
    },
    /// A WebAssembly module for Extism.
    Extism {
        /// The module.
        file: RelPath,
        /// How calls find an instance.
        calls: Calls,
        /// What the output of its functions means.
        output: Output,
    },
    /// A container image. See [`Manifest::needs_backend`].
    Image {
        /// The image's reference.
        image: String,
    },
    /// A shared library. See [`Manifest::needs_backend`].
    Library {
        /// The library.
        file: RelPath,
    },
}

/// How calls of a WebAssembly plugin find an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Calls {
    /// One instance answers them all, one after the other, and keeps its memory between them.
    #[default]
    Stateful,
    /// Each takes an instance out of a pool.
    Stateless {
        /// Most instances of the pool, 1 to [`MAX_INSTANCES`].
        instances: u32,
    },
}

/// What the output of an Extism module's functions means. A module gives bytes and says nothing about them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Output {
    /// A JSON object or array where it is one, else text, else base64.
    #[default]
    Auto,
    /// JSON, always.
    Json,
    /// Text, always; base64 where it is none.
    Text,
}

/// Most instances of a stateless plugin.
pub const MAX_INSTANCES: u32 = 1024;
/// Instances of a stateless plugin that does not say how many.
pub const DEFAULT_INSTANCES: u32 = 16;

/// A plugin that speaks JSON lines on stdin and stdout.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Jsonl {
    /// The program, or the script that `runtime` runs.
    pub program: Program,
    /// What runs it.
    pub runtime: Runtime,
    /// Its arguments.
    pub args: Vec<String>,
    /// How long one process lives.
    pub mode: Mode,
    /// What its first message is called.
    pub init: Init,
    /// Deadline of one answer, where it is another than `resources.timeouts.call`.
    pub timeout: Option<Duration>,
}

/// What runs a `jsonl` plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Python.
    Python,
    /// Node.js.
    Node,
    /// Nothing: it is a program itself.
    #[default]
    Exec,
}

/// How long one process of a `jsonl` plugin lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// For as long as the plugin runs.
    #[default]
    Resident,
    /// For one call.
    PerCall,
}

/// The name of a `jsonl` plugin's first message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Init {
    /// `init`.
    Init,
    /// `initialize`.
    #[default]
    Initialize,
}

/// An entry that this version reads and cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("needs backend {backend}, which this version of Palisade does not have")]
pub struct NeedsBackend {
    /// The backend's name.
    pub backend: &'static str,
}

impl NeedsBackend {
    /// The stable code: always [`ErrorCode::NoBackend`].
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        ErrorCode::NoBackend
    }
}

impl From<NeedsBackend> for Failure {
    fn from(error: NeedsBackend) -> Self {
        Self::new(error.code(), error.to_string())
            .hint("entry kinds that run here: python, node, exec, mcp, jsonl")
    }
}

/// What a plugin asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Without these it does not start.
    pub required: Vec<Request>,
    /// These it can do without.
    pub optional: Vec<Request>,
}

/// One capability that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The capability.
    pub capability: Capability,
    /// Why, in the author's words; always there from medium risk on. Show it with [`shown`].
    pub reason: Option<String>,
}

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
    /// Why, in the author's words. Show it with [`shown`].
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

/// What a plugin says it needs; `None` where it says nothing. Units and ranges as in
/// [`palisade_model::Limits`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Resources {
    /// Share of one CPU, 0.01..=1024.
    pub cpu: Option<f64>,
    /// Memory in bytes, 4 MiB..=16 TiB.
    pub memory: Option<u64>,
    /// Processes and threads, 1..=4194304.
    pub pids: Option<u32>,
    /// File handles of each process, 16..=1048576.
    pub files: Option<u32>,
    /// Bytes on disk, 0..=16 TiB.
    pub disk: Option<u64>,
    /// From launch to the answer of `initialize`, 1 ms..=24 h.
    pub start_timeout: Option<Duration>,
    /// Default deadline of one call, 1 ms..=24 h.
    pub call_timeout: Option<Duration>,
    /// From `shutdown` to SIGKILL, 1 ms..=24 h.
    pub stop_timeout: Option<Duration>,
    /// Longest life of one instance, 1 s..=365 d.
    pub max_lifetime: Option<Duration>,
    /// Bytes of log a second, 1 KiB..=1 GiB.
    pub log_bytes_per_second: Option<u64>,
    /// Requests to the host a second, 1..=10000000.
    pub requests_per_second: Option<u32>,
    /// Events a second, 1..=10000000.
    pub events_per_second: Option<u32>,
    /// Calls into the plugin a second, 1..=10000000.
    pub calls_per_second: Option<u32>,
}

impl Resources {
    /// `base` with what the manifest says put in its place.
    #[must_use]
    pub fn over(&self, base: &Limits) -> Limits {
        let mut limits = base.clone();
        macro_rules! put {
            ($($from:ident => $($to:ident).+;)*) => {
                $( if let Some(value) = self.$from { limits.$($to).+ = value; } )*
            };
        }
        put! {
            cpu => cpu;
            memory => memory;
            pids => pids;
            files => files;
            disk => disk;
            start_timeout => start_timeout;
            call_timeout => call_timeout;
            stop_timeout => stop_timeout;
            log_bytes_per_second => log_bytes_per_second;
            requests_per_second => rates.requests_per_second;
            events_per_second => rates.events_per_second;
            calls_per_second => rates.calls_per_second;
        }
        limits.max_lifetime = self.max_lifetime.or(base.max_lifetime);
        limits
    }
}

/// What a plugin can be configured with.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// What a configuration looks like.
    pub schema: JsonSchema,
    /// Values for what an operator leaves out; an object.
    pub defaults: Json,
}

/// The shape of a plugin's saved state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct State {
    /// The version that it saves.
    pub schema: u32,
    /// Other versions that it can restore.
    pub accepts: Vec<u32>,
}

impl State {
    /// Whether state saved as `version` can be restored.
    #[must_use]
    pub fn can_restore(&self, version: u32) -> bool {
        self.schema == version || self.accepts.contains(&version)
    }
}

/// Everything that a manifest asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Requested {
    /// Without these the plugin does not start.
    pub required: CapabilitySet,
    /// These it can do without.
    pub optional: CapabilitySet,
    /// The author's reasons, as they stand in the manifest. Show them with [`shown`].
    pub reasons: BTreeMap<Capability, String>,
}

impl Manifest {
    /// The digest of the bytes that this was read from.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether both say the same, whatever their syntax, order of keys and comments: equal but for the
    /// digest.
    #[must_use]
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        let mut other = other.clone();
        other.digest = self.digest;
        *self == other
    }

    /// The name for people, safe to show: escaped, and marked where it mixes letters that look alike.
    /// The id where there is no name. Always show the id beside it: names can be chosen to deceive.
    #[must_use]
    pub fn display_name(&self) -> String {
        match &self.name {
            Some(name) => shown(name, 80),
            None => self.id.to_string(),
        }
    }

    /// What is asked for. Contributions are not in it: see [`Manifest::declared_registrations`].
    #[must_use]
    pub fn requested(&self) -> Requested {
        let mut out = Requested::default();
        for (list, set) in [
            (&self.capabilities.required, &mut out.required),
            (&self.capabilities.optional, &mut out.optional),
        ] {
            for request in list {
                set.insert(request.capability.clone());
                if let Some(reason) = &request.reason {
                    out.reasons.insert(request.capability.clone(), reason.clone());
                }
            }
        }
        for hook in &self.contributes.hooks {
            if let (Some(reason), Ok(capability)) =
                (&hook.reason, Capability::new(Kind::Hook, &hook.event))
            {
                out.reasons.entry(capability).or_insert_with(|| reason.clone());
            }
        }
        out
    }

    /// The rights to register that the contributions imply: `tool:NAME` for each tool, and so on.
    #[must_use]
    pub fn declared_registrations(&self) -> CapabilitySet {
        let c = &self.contributes;
        let tools = c.tools.iter().map(|x| (Kind::Tool, &x.name));
        let commands = c.commands.iter().map(|x| (Kind::Command, &x.name));
        let hooks = c.hooks.iter().map(|x| (Kind::Hook, &x.event));
        let channels = c.channels.iter().map(|x| (Kind::Channel, &x.channel_type));
        let services = c.services.iter().map(|x| (Kind::Service, &x.name));
        tools
            .chain(commands)
            .chain(hooks)
            .chain(channels)
            .chain(services)
            // Every name was checked to be an exact scope of its kind when the manifest was read.
            .filter_map(|(kind, name)| Capability::new(kind, name).ok())
            .collect()
    }

    /// The limits: the defaults of [`Limits`] with what the manifest says put in their place.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.resources.over(&Limits::default())
    }

    /// The backend that this entry needs and that does not exist in this version; `None` where the
    /// plugin can be started.
    #[must_use]
    pub fn needs_backend(&self) -> Option<NeedsBackend> {
        let backend = match &self.entry {
            Entry::Image { .. } => "container",
            Entry::Library { .. } => "library",
            Entry::Python { .. }
            | Entry::Node { .. }
            | Entry::Exec { .. }
            | Entry::Mcp { .. }
            | Entry::Jsonl(_)
            | Entry::Wasm { .. }
            | Entry::Extism { .. } => return None,
        };
        Some(NeedsBackend { backend })
    }

    /// Whether `config` fits the plugin's schema as it is, defaults not put in.
    ///
    /// # Errors
    /// Where it does not fit. A plugin without a schema takes `null` and `{}` only.
    pub fn validate_config(&self, config: &Json) -> Result<(), Vec<SchemaError>> {
        match &self.config {
            Some(own) => own.schema.validate(config),
            None if config.is_null()
                || config.as_object().is_some_and(serde_json::Map::is_empty) =>
            {
                Ok(())
            }
            None => Err(vec![SchemaError {
                path: String::new(),
                message: "this plugin takes no configuration".into(),
                keyword: "config".into(),
            }]),
        }
    }

    /// `config` with the plugin's defaults put in where it says nothing (objects are merged key by key),
    /// validated. `null` stands for an empty object.
    ///
    /// # Errors
    /// Where the result does not fit the plugin's schema.
    pub fn effective_config(&self, config: &Json) -> Result<Json, Vec<SchemaError>> {
        let mut out = match config {
            Json::Null => Json::Object(serde_json::Map::new()),
            config => config.clone(),
        };
        if let Some(own) = &self.config {
            fill(&mut out, &own.defaults);
        }
        self.validate_config(&out)?;
        Ok(out)
    }
}

fn fill(config: &mut Json, defaults: &Json) {
    if let (Json::Object(config), Json::Object(defaults)) = (config, defaults) {
        for (key, default) in defaults {
            match config.get_mut(key) {
                Some(value) => fill(value, default),
                None => {
                    config.insert(key.clone(), default.clone());
                }
            }
        }
    }
}

/// Text of an author, safe to show at a consent prompt: at most `max_chars` of it, escaped, with a mark
/// where it holds invisible or reordering characters or mixes letters that look alike.
///
/// ```
/// use palisade_manifest::shown;
/// assert_eq!(shown("p\u{430}ypal", 80), "p\u{430}ypal [mixed alphabets]");
/// assert_eq!(shown("a\u{202e}b", 80), "a\\u{202e}b [hidden characters]");
/// ```
#[must_use]
pub fn shown(text: &str, max_chars: usize) -> String {
    let mut out = escape(text, max_chars);
    if text.chars().any(is_deceptive) {
        out.push_str(" [hidden characters]");
    }
    if looks_mixed(text) {
        out.push_str(" [mixed alphabets]");
    }
    out
}
