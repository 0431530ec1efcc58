//! What is launched, and with what rights.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use palisade_model::{CapabilitySet, Enforcement, GuaranteeSet, InstanceId, Limits};

/// What runs the plugin's code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Runtime {
    /// A program that needs no interpreter (it may be dynamically linked).
    Native,
    /// CPython. `None`: the `python3` that the user's PATH finds.
    Python {
        /// A path, a name to look up in PATH, or `venv:FOLDER` for a virtual environment in the content.
        interpreter: Option<String>,
        /// The versions that the plugin needs. Compared with the interpreter's feature release (3.12),
        /// any patch release of which is taken as the newest.
        version: Option<semver::VersionReq>,
    },
    /// Node.js. `None`: the `node` that the user's PATH finds.
    Node {
        /// A path, or a name to look up in PATH.
        interpreter: Option<String>,
    },
    /// A WebAssembly component; [`Program::file`] is one in the content, and there are no arguments.
    Wasm {
        /// How calls find an instance.
        calls: Calls,
    },
    /// A WebAssembly module for the Extism interface; [`Program::file`] as for [`Runtime::Wasm`].
    Extism {
        /// How calls find an instance.
        calls: Calls,
        /// What its functions give.
        output: ExtismOutput,
    },
    /// A program of Palisade's own that runs what the content holds: an engine behind walls.
    /// [`Program::file`] is an absolute path of this host. It is shown with the libraries that it is linked
    /// with and nothing else of the machine, under a filter made for it; the content can be read, not
    /// executed; and it has no folder to write in but what rights name. No manifest asks for it.
    Engine,
}

impl Runtime {
    /// Whether it runs in a process of its own, and so behind the walls that are built around processes.
    #[must_use]
    pub fn is_process(&self) -> bool {
        matches!(self, Self::Native | Self::Python { .. } | Self::Node { .. } | Self::Engine)
    }

    /// The word for it in messages: the entry's kind in a manifest.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Native => "exec",
            Self::Python { .. } => "python",
            Self::Node { .. } => "node",
            Self::Wasm { .. } => "wasm",
            Self::Extism { .. } => "extism",
            Self::Engine => "engine",
        }
    }
}

/// What the bytes mean that a function of an Extism module gives, which says nothing about them itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExtismOutput {
    /// A JSON object or array where they are one, else text, else base64.
    #[default]
    Auto,
    /// JSON, always.
    Json,
    /// Text, always; base64 where they are none.
    Text,
}

/// How calls find an instance, behind a wall that makes instances cheaply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Calls {
    /// One instance answers them all, one after the other, and keeps its memory between them.
    #[default]
    Stateful,
    /// Each takes an instance out of a pool. What an instance kept from earlier calls is of no meaning.
    Stateless {
        /// Most instances of the pool, 1 to 1024.
        instances: u32,
    },
    /// Each gets an instance of its own, which has been told the configuration and nothing else, and which is thrown
    /// away after it: nothing of one call can be seen by another.
    PerCall {
        /// Most instances at a time, 1 to 1024.
        instances: u32,
    },
}

impl Calls {
    /// Most instances at a time.
    #[must_use]
    pub fn instances(self) -> u32 {
        match self {
            Self::Stateful => 1,
            Self::Stateless { instances } | Self::PerCall { instances } => instances,
        }
    }
}

/// The program to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// What runs it.
    pub runtime: Runtime,
    /// The file: relative to the content's root, or (for [`Runtime::Native`] only) an absolute path or
    /// a name to look up in the user's PATH, which is then made visible inside.
    pub file: String,
    /// Arguments after the file.
    pub args: Vec<String>,
}

/// The plugin's own files. Read-only inside every wall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Folder on this host, with every symlink resolved.
    pub root: PathBuf,
    /// Digest of what was approved, for records.
    pub digest: [u8; 32],
}

/// How the plugin talks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wire {
    /// Palisade's own protocol on handle 3; stdout and stderr are log streams.
    Native,
    /// The `jsonl` dialect on stdin and stdout; stderr is a log stream.
    Jsonl(palisade_dialect::jsonl::Jsonl),
    /// A server of the Model Context Protocol on stdin and stdout; stderr is a log stream.
    Mcp(palisade_dialect::mcp::Mcp),
    /// Bytes on stdin and stdout, handed as they are to whoever made the wire; stderr is a log stream.
    Bytes(crate::stream::ByteWire),
}

/// What a backend prepares once and launches many times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The plugin's files.
    pub content: Content,
    /// The program among them.
    pub program: Program,
    /// Software of this machine that the program is part of or needs (an installed package, a virtual
    /// environment): folders and files, every symlink resolved, shown read-only and executable under
    /// their own paths.
    pub code: Vec<PathBuf>,
}

/// Who has which number on a host, below 65536.
pub mod slots {
    /// Plugins have the numbers below this one.
    pub const PLUGINS: u32 = 65_533;
    /// Runs that fetch what a plugin is made of.
    pub const RESOLVING: u32 = 65_533;
    /// Runs that compile what a plugin is made of.
    pub const COMPILING: u32 = 65_534;
}

/// One launch.
#[derive(Clone)]
pub struct LaunchSpec {
    /// Which instance this is.
    pub instance: InstanceId,
    /// The effective rights, symlinks in their paths resolved.
    pub rights: Arc<CapabilitySet>,
    /// What it may use.
    pub limits: Limits,
    /// What the wall must guarantee; an instance that does not is killed before it is heard.
    pub demand: GuaranteeSet,
    /// How it talks.
    pub wire: Wire,
    /// Folder on this host for what the plugin keeps (`/data` inside). Exists, belongs to this plugin.
    pub data: PathBuf,
    /// Number of this plugin on this host, unique and stable: user ids are derived from it. See [`slots`].
    pub slot: u32,
    /// Environment variables that the rights allow, with their values.
    pub env: BTreeMap<String, String>,
    /// Working directory inside, an absolute path. `None`: the plugin's own folder.
    pub workdir: Option<String>,
    /// Told about the program's system calls. `None`, as in every normal launch: nothing is observed, and
    /// the filter is the ordinary one.
    pub observe: Option<Arc<dyn crate::Observer>>,
}

impl std::fmt::Debug for LaunchSpec {
    /// Of the environment only the names: values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaunchSpec")
            .field("instance", &self.instance)
            .field("rights", &self.rights)
            .field("limits", &self.limits)
            .field("demand", &self.demand)
            .field("wire", &self.wire)
            .field("data", &self.data)
            .field("slot", &self.slot)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("workdir", &self.workdir)
            .finish_non_exhaustive()
    }
}

impl LaunchSpec {
    /// A launch without rights, with default limits and the default floor of guarantees, by our own
    /// protocol, with an empty environment, in the plugin's own folder, and observed by nobody.
    #[must_use]
    pub fn new(instance: InstanceId, data: impl Into<PathBuf>, slot: u32) -> Self {
        Self {
            instance,
            rights: Arc::default(),
            limits: Limits::default(),
            demand: GuaranteeSet::default_floor(),
            wire: Wire::Native,
            data: data.into(),
            slot,
            env: BTreeMap::new(),
            workdir: None,
            observe: None,
        }
    }

    /// Whether any right leads to the network. Only then does the plugin get a way out at all, and all
    /// that takes it is decided by the host: see [`crate::HostCalls::egress`].
    #[must_use]
    pub fn has_way_out(&self) -> bool {
        self.rights.iter().any(|right| right.kind().enforcement() == Enforcement::Egress)
    }
}
