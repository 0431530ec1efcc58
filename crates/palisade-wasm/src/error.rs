//! What can go wrong with WebAssembly code before and between calls.

use palisade_egress::http::TlsError;
use palisade_model::{ErrorCode, Failure};
use palisade_sandbox::SandboxError;

use crate::inspect::Need;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WasmError {
    /// The engine cannot be made on this machine.
    #[error("the WebAssembly engine cannot be made: {0}")]
    Engine(String),
    /// The file is no WebAssembly that this engine takes.
    #[error("{what}")]
    Code {
        /// What is wrong with it.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// Compiled code was made for another engine: another version, other settings, another processor.
    #[error("the compiled code does not fit this engine: {0}")]
    Unfit(String),
    /// It imports what nobody provides.
    #[error("the component imports {import}, which is not known here")]
    UnknownImport {
        /// The import, escaped.
        import: String,
    },
    /// It imports what takes a right that was not granted.
    #[error("the component imports {import}, for which it takes the right {}, and it has none", need.either())]
    NotGranted {
        /// The import.
        import: String,
        /// What it takes.
        need: Need,
    },
    /// There are as many instances as there may be.
    #[error("{what}: at most {limit}")]
    TooMany {
        /// Of what there are too many.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// The roots that an application adds are none.
    #[error("whom requests trust: {0}")]
    Roots(#[from] TlsError),
    /// An instance could not be made.
    #[error("no instance could be made: {0}")]
    Instance(Failure),
    /// The host's own folder for compiled code cannot be used.
    #[error("the folder for compiled code: {what}: {source}")]
    Cache {
        /// What was done.
        what: &'static str,
        /// What the system answered.
        source: std::io::Error,
    },
}

impl WasmError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Engine(_) => ErrorCode::NoBackend,
            Self::Code { .. } | Self::UnknownImport { .. } => ErrorCode::ManifestInvalid,
            Self::Unfit(_) => ErrorCode::Conflict,
            Self::NotGranted { .. } => ErrorCode::Denied,
            Self::TooMany { .. } => ErrorCode::LimitExceeded,
            Self::Roots(_) => ErrorCode::InvalidParams,
            Self::Instance(failure) => failure.code,
            Self::Cache { .. } => ErrorCode::Internal,
        }
    }

    /// What to do about it, where something can be done.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Code { hint, .. } => Some(hint.clone()),
            Self::UnknownImport { .. } => Some(
                "`palisade check FILE.wasm` lists what a component imports; the interfaces of \
                 palisade:plugin and WASI are provided"
                    .into(),
            ),
            Self::NotGranted { need, .. } => {
                let kind = need.kinds().first().map_or("", |kind| kind.as_str());
                Some(format!(
                    "ask for it in the manifest (capabilities) and grant it: --grant '{kind}:…'"
                ))
            }
            Self::TooMany { .. } => Some("stop others, or give the host a higher limit".into()),
            Self::Roots(_) => Some("give certificates of authorities, as PEM text".into()),
            Self::Instance(failure) => failure.hint.clone(),
            Self::Engine(_) | Self::Unfit(_) | Self::Cache { .. } => None,
        }
    }
}

impl From<WasmError> for Failure {
    fn from(error: WasmError) -> Self {
        let (code, hint, message) = (error.code(), error.hint(), error.to_string());
        if let WasmError::Instance(failure) = error {
            return failure;
        }
        Failure { hint, ..Failure::new(code, message) }
    }
}

impl From<WasmError> for SandboxError {
    fn from(error: WasmError) -> Self {
        match error {
            WasmError::Engine(reason) => SandboxError::Unavailable {
                backend: crate::NAME,
                reason,
                remedy: "use a machine that wasmtime runs on".into(),
            },
            WasmError::Code { what, hint } => SandboxError::Artifact { what, hint },
            error => SandboxError::Start(error.into()),
        }
    }
}
