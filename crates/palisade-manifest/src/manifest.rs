//! What a valid manifest says, as types.
//!
//! Only [`crate::parse`] makes a [`Manifest`], so one that exists has passed every check. What a host
//! does with it (start it, grant it something) is decided elsewhere.

mod config;
mod contributes;
mod entry;
mod resources;

use std::collections::BTreeMap;

use palisade_model::{
    Capability, CapabilitySet, GuaranteeSet, Kind, Limits, PluginId,
    text::{escape, is_deceptive, looks_mixed},
};

use crate::digest::Digest;

pub use config::Config;
pub use contributes::{Channel, Command, Contributes, Hook, Service, Tool};
pub use entry::{
    Calls, DEFAULT_INSTANCES, Entry, Init, Jsonl, MAX_INSTANCES, Mode, NeedsBackend, Output,
    Runtime,
};
pub use resources::Resources;

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
    /// The digest of its files: of everything in its folder but the manifest. Where it is given, the
    /// plugin runs from a copy that nobody else can write to and whose digest is this one.
    pub content: Option<Digest>,
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

    /// Whether what is started is a file of the plugin's own folder: by itself, or by an interpreter of the
    /// system that is named as such. Otherwise `content` says nothing about the program.
    #[must_use]
    pub fn runs_its_own_file(&self) -> bool {
        match &self.entry {
            Entry::Exec { program, .. } | Entry::Mcp { command: program, .. } => program.is_file(),
            Entry::Jsonl(jsonl) => jsonl.program.is_file(),
            Entry::Image { .. } => false,
            _ => true,
        }
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
