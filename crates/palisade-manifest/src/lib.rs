//! What a plugin says about itself and asks for: schema, three syntaxes, validation with spans.
//!
//! A plugin's folder holds one `plugin.yaml`, `plugin.toml` or `plugin.json` that begins with
//! `api: palisade/1`. [`open`] finds, reads and checks it; [`parse`] does the same with text that is at
//! hand. Both give a [`Manifest`] or a [`ManifestError`] with all findings, each with its line and
//! column. Nothing is started, granted or fetched here, and no other file is read.
//!
//! ```
//! use palisade_manifest::{Syntax, parse};
//! let manifest = parse(
//!     "api: palisade/1\nid: word-counter\nversion: 1.0.0\nentry: { kind: python, file: main.py }\n",
//!     Syntax::Yaml,
//! )?;
//! assert_eq!(manifest.id.as_str(), "word-counter");
//! # Ok::<(), palisade_manifest::ManifestError>(())
//! ```
#![forbid(unsafe_code)]

mod canonical;
mod digest;
pub mod environment;
mod error;
mod json_schema;
mod manifest;
mod path;
mod published;
mod quantity;
mod seal;
mod source;
pub mod tree;
mod validate;

pub use digest::Digest;
pub use error::{Diagnostic, Excerpt, Findings, MAX_DIAGNOSTICS, ManifestError, Rule};
pub use json_schema::{
    JsonSchema, MAX_PATTERN_BYTES, MAX_PATTERNS, MAX_SCHEMA_COST, MAX_SCHEMA_DEPTH, SchemaError,
};
pub use manifest::{
    Calls, Capabilities, Channel, Command, Config, Contributes, DEFAULT_INSTANCES, Entry, Hook,
    Init, Jsonl, MAX_INSTANCES, Manifest, Mode, NeedsBackend, Output, Request, Requested,
    Resources, Runtime, Service, State, Tool, shown,
};
pub use path::{Interpreter, MAX_PATH_BYTES, Program, RelPath};
pub use published::schema;
pub use seal::with_content;
pub use source::{FILE_NAMES, Source, open, read};
pub use tree::Syntax;
pub use validate::{API, MAX_DESCRIPTION, MAX_ENTRIES, MAX_NAME, MAX_REASON};

/// Largest manifest, in bytes.
pub const MAX_BYTES: usize = 256 << 10;

/// Reads and checks a manifest that is at hand as text. It is held against the same bounds as a file.
///
/// # Errors
/// [`ManifestError::Invalid`] with all findings, or [`ManifestError::TooLarge`].
pub fn parse(text: &str, syntax: Syntax) -> Result<Manifest, ManifestError> {
    parse_named(text.as_bytes(), syntax, "")
}

/// Like [`parse`] for bytes that came from the file `name`, which stands in the error text.
///
/// # Errors
/// As [`parse`]; bytes that are not UTF-8 are a finding.
pub fn parse_named(bytes: &[u8], syntax: Syntax, name: &str) -> Result<Manifest, ManifestError> {
    let file = palisade_model::text::escape(name, 400);
    if bytes.len() > MAX_BYTES {
        let file = if file.is_empty() { "the manifest".into() } else { file };
        return Err(ManifestError::TooLarge { file });
    }
    let findings = |diagnostics, omitted| {
        ManifestError::Invalid(Findings { file: file.clone(), diagnostics, omitted })
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
        findings(vec![not_utf8(&String::from_utf8_lossy(valid))], 0)
    })?;
    // A byte order mark says nothing in UTF-8; some editors write one.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let root = tree::parse(text, syntax).map_err(|mut finding| {
        finding.quote(text);
        findings(vec![finding], 0)
    })?;
    validate::manifest(&root, Digest::of(bytes)).map_err(|mut found| {
        found.diagnostics.iter_mut().for_each(|finding| finding.quote(text));
        findings(found.diagnostics, found.omitted)
    })
}

fn not_utf8(before: &str) -> Diagnostic {
    let line = error::lines(before).count();
    let column = error::lines(before).last().map_or(0, |l| l.chars().count()) + 1;
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let span = tree::Span { line: small(line), column: small(column) };
    Diagnostic::new(Rule::Syntax, span, "the manifest is not UTF-8 text")
}
