//! What a WebAssembly file is and what it can ask for, told without compiling or running it.
//!
//! The imports of a component are all that it can reach, so its import list is its list of capabilities:
//! [`inspect`] gives each import with the right that it takes, the exports, and the functions that can be
//! offered as tools. Only types and names are read; whether the code is valid is told by the engine when it
//! is compiled. The bytes are a plugin's: everything is bounded, and names are escaped where they are shown.

mod component;
mod findings;
mod module;
pub mod rights;
mod shapes;

use palisade_model::{CapabilitySet, ErrorCode, Failure, text::escape};
use serde::Serialize;
use wasmparser::{Encoding, Parser, Payload, WasmFeatures};

use crate::{WasmError, reflect::Tool};

pub use findings::{Finding, Severity, compare};
pub use rights::Need;

/// Longest file in bytes that is looked at: 128 MiB.
pub const MAX_BYTES: usize = 128 << 20;
/// Most imports and most exports, each; and most functions of all of them.
pub const MAX_NAMES: usize = 4096;
/// Most characters of a name that are shown.
const SHOWN: usize = 200;
/// Most custom sections that are told of.
const MAX_SECTIONS: usize = 64;

/// Why a file cannot be inspected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// Not WebAssembly.
    #[error("it is not WebAssembly: it does not begin with \"\\0asm\"")]
    NotWasm,
    /// Too long.
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// More of something than is looked at.
    #[error("it has more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// It does not follow the format, or uses what the engine does not.
    #[error("it is not valid WebAssembly: {0}")]
    Invalid(String),
}

impl From<wasmparser::BinaryReaderError> for InspectError {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        let message = escape(error.message(), 300);
        Self::Invalid(format!("{message} (at byte {})", error.offset()))
    }
}

impl InspectError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLong | Self::TooMany { .. } => ErrorCode::LimitExceeded,
            Self::NotWasm | Self::Invalid(_) => ErrorCode::ManifestInvalid,
        }
    }
}

impl From<InspectError> for Failure {
    fn from(error: InspectError) -> Self {
        Failure::new(error.code(), error.to_string())
    }
}

impl From<InspectError> for WasmError {
    fn from(error: InspectError) -> Self {
        WasmError::Code {
            what: error.to_string(),
            hint: "`palisade check FILE.wasm` tells what a file is".into(),
        }
    }
}

/// What kind of thing a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Form {
    /// A component that exports `palisade:plugin/guest`.
    Plugin,
    /// A component that exports `wasi:cli/run`.
    WasiCommand,
    /// A component that exports `wasi:http/incoming-handler` or `wasi:http/handler`: it serves requests, and
    /// nothing here makes any.
    WasiHttp,
    /// Another component.
    Component,
    /// A core module for Extism.
    Extism,
    /// A core module that carries the types of a component (section `component-type…`): it becomes one.
    Embryo,
    /// A core module with WASI preview 1 and `_start`.
    WasiModule,
    /// Another core module.
    Module,
}

impl Form {
    /// In words.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Plugin => "a component of Palisade's own world (palisade:plugin)",
            Self::WasiCommand => "a WASI command (component)",
            Self::WasiHttp => "a WASI HTTP handler (component)",
            Self::Component => "a component",
            Self::Extism => "a module for Extism",
            Self::Embryo => "a core module that carries the types of a component",
            Self::WasiModule => "a WASI preview 1 command (core module)",
            Self::Module => "a core module",
        }
    }

    /// Whether it is a component, and not a core module.
    #[must_use]
    pub const fn is_component(self) -> bool {
        matches!(self, Self::Plugin | Self::WasiCommand | Self::WasiHttp | Self::Component)
    }
}

/// What stands behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sort {
    /// An interface: an instance with functions and types.
    Interface,
    /// A function.
    Function,
    /// A type or resource.
    Type,
    /// A component.
    Component,
    /// A core module.
    Module,
    /// A value.
    Value,
    /// A memory, table, global or tag of a core module.
    Core,
}

/// One import.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Import {
    /// The full name as it stands there, with its version; of a core module `module/name`.
    pub name: String,
    /// What it is.
    pub sort: Sort,
    /// What it needs.
    #[serde(flatten)]
    pub need: Need,
    /// Why, in words.
    pub why: &'static str,
    /// The functions of an interface.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<String>,
}

impl Import {
    /// The name, safe to show.
    #[must_use]
    pub fn shown(&self) -> String {
        escape(&self.name, SHOWN)
    }

    /// What is told where it cannot be had.
    fn lacking(&self) -> WasmError {
        let name = self.shown();
        match self.need {
            Need::Right(_) => WasmError::NotGranted { import: name, need: self.need },
            _ => WasmError::UnknownImport { import: name },
        }
    }
}

/// One export.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Export {
    /// The full name as it stands there.
    pub name: String,
    /// What it is.
    pub sort: Sort,
    /// The functions of an interface.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<String>,
}

/// A custom section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: usize,
    /// What is said in it, where it is known: of `producers` what the file was made with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// What kind of thing.
    pub form: Form,
    /// Its imports, in their order.
    pub imports: Vec<Import>,
    /// Its exports, in their order.
    pub exports: Vec<Export>,
    /// Exported functions that can be offered as tools, and those that cannot, with why. Empty for
    /// [`Form::Plugin`], which says itself what it offers, and for core modules.
    pub tools: Vec<Tool>,
    /// Whether it uses asynchronous functions, streams or futures of the component model.
    pub asynchronous: bool,
    /// Custom sections of the outermost level.
    pub sections: Vec<Section>,
}

/// Whether a component has to run on the engine for concurrent components: it uses the asynchronous part of
/// the component model, or WASI 0.3.
#[must_use]
pub fn needs_concurrency(inspection: &Inspection) -> bool {
    inspection.asynchronous
        || inspection
            .imports
            .iter()
            .map(|i| &i.name)
            .chain(inspection.exports.iter().map(|e| &e.name))
            .any(|name| {
                rights::Interface::parse(name).is_some_and(|interface| interface.is_wasi_p3())
            })
}

impl Inspection {
    /// Whether the interface `package/interface` is exported, in whichever version. `package` with its
    /// namespace.
    #[must_use]
    pub fn exports_interface(&self, package: &str, interface: &str) -> bool {
        self.exports.iter().any(|export| is_interface(&export.name, package, interface))
    }

    /// That everything that is imported can be had by somebody.
    ///
    /// # Errors
    /// The first import that is unknown.
    pub fn check_known(&self) -> Result<(), WasmError> {
        let unknown = |import: &&Import| import.need == Need::Unknown;
        self.imports.iter().find(unknown).map_or(Ok(()), |import| Err(import.lacking()))
    }

    /// That everything that is imported can be had with `rights`.
    ///
    /// # Errors
    /// The first import that is unknown; else the first that takes a right that is not there.
    pub fn check_rights(&self, rights: &CapabilitySet) -> Result<(), WasmError> {
        self.check_known()?;
        let lacks = |import: &&Import| !import.need.is_met(rights);
        self.imports.iter().find(lacks).map_or(Ok(()), |import| Err(import.lacking()))
    }
}

fn is_interface(name: &str, package: &str, interface: &str) -> bool {
    rights::Interface::parse(name)
        .is_some_and(|name| name.package == package && name.interface == interface)
}

/// Tells what `bytes` are.
///
/// # Errors
/// [`InspectError`].
pub fn inspect(bytes: &[u8]) -> Result<Inspection, InspectError> {
    if bytes.len() > MAX_BYTES {
        return Err(InspectError::TooLong);
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(InspectError::NotWasm);
    }
    let mut parser = Parser::new(0).parse_all(bytes);
    match parser.next() {
        Some(Ok(Payload::Version { encoding: Encoding::Module, .. })) => module::inspect(bytes),
        Some(Ok(Payload::Version { encoding: Encoding::Component, .. })) => {
            component::inspect(bytes)
        }
        Some(Err(error)) => Err(error.into()),
        _ => Err(InspectError::NotWasm),
    }
}

/// What the engine takes. Without `concurrent`, less.
fn features(concurrent: bool) -> WasmFeatures {
    let mut features = WasmFeatures::default();
    features.set(WasmFeatures::CM_ASYNC, concurrent);
    features
}

/// The outermost custom sections as they are told of.
#[derive(Default)]
struct Sections(Vec<Section>);

impl Sections {
    fn add(&mut self, section: &wasmparser::CustomSectionReader<'_>) {
        // The names of functions are of no interest here and nearly always there.
        if self.0.len() >= MAX_SECTIONS || section.name().starts_with(".debug") {
            return;
        }
        let says = match section.as_known() {
            wasmparser::KnownCustom::Producers(reader) => Some(producers(reader)),
            _ => None,
        };
        self.0.push(Section {
            name: escape(section.name(), 100),
            bytes: section.data().len(),
            says,
        });
    }
}

/// What a file was made with, as `language Rust 1.95; processed-by rustc 1.95`.
fn producers(reader: wasmparser::ProducersSectionReader<'_>) -> String {
    let mut parts = Vec::new();
    for field in reader.into_iter().take(8).map_while(Result::ok) {
        for value in field.values.into_iter().take(8).map_while(Result::ok) {
            let (name, version) = (escape(value.name, 60), escape(value.version, 60));
            parts.push(format!("{} {name} {version}", field.name).trim_end().to_owned());
        }
    }
    parts.join("; ")
}

/// Counts names, so that no file can make many of them.
struct Budget(usize);

impl Budget {
    fn new() -> Self {
        Self(MAX_NAMES)
    }

    fn spend(&mut self) -> Result<(), InspectError> {
        let over =
            InspectError::TooMany { what: "imports, exports and functions", limit: MAX_NAMES };
        self.0 = self.0.checked_sub(1).ok_or(over)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
