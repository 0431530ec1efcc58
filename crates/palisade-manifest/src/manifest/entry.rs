//! How a plugin is started.

use std::time::Duration;

use palisade_model::{ErrorCode, Failure};

use crate::path::{Interpreter, Program, RelPath};

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
    /// A container image. See [`crate::Manifest::needs_backend`].
    Image {
        /// The image's reference.
        image: String,
    },
    /// A shared library. See [`crate::Manifest::needs_backend`].
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
    /// Each gets an instance of its own, which is thrown away after it.
    PerCall {
        /// Most instances at a time, 1 to [`MAX_INSTANCES`].
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

/// Most instances of one plugin.
pub const MAX_INSTANCES: u32 = 1024;
/// Instances of a plugin that may have several and does not say how many.
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
            .hint("entry kinds that run here: python, node, exec, mcp, jsonl, wasm, extism")
    }
}
