//! From the tree to a [`Manifest`]: one validator for all three syntaxes.
//!
//! Reads everything before it refuses, so that an author sees all findings at once; only a missing or
//! wrong `api` ends it early, because then the rest would be judged by the wrong rules.

mod capabilities;
pub(crate) mod contributes;
pub(crate) mod entry;
mod reader;
pub(crate) mod resources;

use palisade_model::{PluginId, text::escape};

use crate::{
    Digest, Manifest,
    error::{Diagnostic, Findings, Rule, quoted},
    json_schema,
    manifest::{Config, State},
    tree::{Node, Span, Value},
};
use reader::{Field, Fields, Reader, Text};

/// What `api` says in manifests that this version reads.
pub const API: &str = "palisade/1";
/// Longest `name`, in characters.
pub const MAX_NAME: usize = 80;
/// Longest `description` of the plugin and of what it contributes, in characters.
pub const MAX_DESCRIPTION: usize = 2000;
/// Longest `reason`, in characters.
pub const MAX_REASON: usize = 200;
/// Most entries of a list that has no other bound.
pub const MAX_ENTRIES: usize = 256;

/// Checks the document at `root`.
pub(crate) fn manifest(root: &Node, digest: Digest) -> Result<Manifest, Findings> {
    let mut reader = Reader::default();
    let made = read(root, digest, &mut reader);
    match (reader.findings(), made) {
        (None, Some(manifest)) => Ok(manifest),
        (Some(findings), _) => Err(findings),
        // Cannot be reached: what cannot be made was reported.
        (None, None) => Err(Findings {
            file: String::new(),
            diagnostics: vec![Diagnostic::new(
                Rule::Syntax,
                Span::START,
                "the manifest is not valid",
            )],
            omitted: 0,
        }),
    }
}

fn read(root: &Node, digest: Digest, reader: &mut Reader) -> Option<Manifest> {
    let top = Field { node: root, path: String::new() };
    if root.value == Value::Null {
        reader.wrong_hint(
            Rule::Api,
            &top,
            "the manifest is empty",
            format!("begin with api: {API}"),
        );
        return None;
    }
    let mut fields = reader.fields(&top)?;
    api(root, &mut fields, reader)?;

    let id = fields.need(reader, "id").and_then(|field| {
        let text = reader.str(&field)?;
        PluginId::parse(text).map_err(|e| reader.wrong(Rule::Id, &field, e.to_string())).ok()
    });
    let version = fields.need(reader, "version").and_then(|field| version(&field, reader));
    let name = fields.text(reader, "name", Text::line(MAX_NAME));
    let description = fields.text(reader, "description", Text::lines(MAX_DESCRIPTION));
    let authors = fields.take("authors").map(|field| {
        let list = reader.list(&field, 64);
        list.iter().filter_map(|author| reader.text(author, Text::line(200))).collect()
    });
    let license = fields.text(reader, "license", Text::line(200));
    let homepage = fields.take("homepage").and_then(|field| homepage(&field, reader));
    let requires = fields.take("requires").and_then(|field| requires(&field, reader));
    let entry = fields.need(reader, "entry").and_then(|field| entry::read(&field, reader));
    let content = fields.take("content").and_then(|field| content(&field, reader));
    let capabilities = fields.take("capabilities").map(|field| capabilities::read(&field, reader));
    let contributes = fields.take("contributes").map(|field| contributes::read(&field, reader));
    let resources = fields.take("resources").map(|field| resources::read(&field, reader));
    let guarantees = fields.take("guarantees").map(|field| resources::guarantees(&field, reader));
    let config = fields.take("config").and_then(|field| config(&field, reader));
    let state = fields.take("state").and_then(|field| state(&field, reader));
    fields.finish(reader);

    Some(Manifest {
        id: id?,
        name,
        version: version?,
        description,
        authors: authors.unwrap_or_default(),
        license,
        homepage,
        requires,
        entry: entry?,
        content,
        capabilities: capabilities.unwrap_or_default(),
        contributes: contributes.unwrap_or_default(),
        resources: resources.unwrap_or_default(),
        guarantees: guarantees.unwrap_or_default(),
        config,
        state,
        digest,
    })
}

/// Checks `api` before anything else.
fn api(root: &Node, fields: &mut Fields<'_>, reader: &mut Reader) -> Option<()> {
    let Some(field) = fields.take("api") else {
        let hint = match foreign(root) {
            Some(system) => format!(
                "this looks like a manifest of {system}, which is not read as it is; write one that begins with api: {API}"
            ),
            None => format!("begin with api: {API}"),
        };
        reader.report(Diagnostic::new(Rule::Api, root.span, "api is missing").hint(hint));
        return None;
    };
    match &field.node.value {
        Value::Str(text) if text == API => Some(()),
        Value::Str(text) if text.starts_with("palisade/") => {
            let message = format!("this version reads {API} only, this is {}", quoted(text));
            reader.wrong_hint(Rule::Api, &field, message, "a newer Palisade may be needed");
            None
        }
        _ => {
            reader.wrong(Rule::Api, &field, format!("must be the text {API}"));
            None
        }
    }
}

/// The other system whose manifest this seems to be, by keys that only its manifests have.
fn foreign(root: &Node) -> Option<&'static str> {
    let has = |key: &str| root.get(key).is_some();
    if has("configSchema") || has("uiHints") {
        Some("Nexus")
    } else if has("subject_permissions") || has("main_class") {
        Some("Rosey")
    } else if has("manifest_version") || has("browser_specific_settings") {
        Some("a browser extension")
    } else if has("engines") && has("activationEvents") {
        Some("Visual Studio Code")
    } else if has("entry_point") || has("permissions") {
        Some("another plugin system")
    } else {
        None
    }
}

fn version(field: &Field<'_>, reader: &mut Reader) -> Option<semver::Version> {
    let hint = "write three numbers between quotation marks, as in \"1.0.0\" (semver.org)";
    if matches!(field.node.value, Value::Int(_) | Value::Float(_)) {
        // YAML and TOML read 1.0 as a number.
        reader.wrong_hint(Rule::Type, field, "expected text, found a number", hint);
        return None;
    }
    let text = reader.str(field)?;
    match semver::Version::parse(text) {
        Ok(version) if text.len() <= 128 => Some(version),
        Ok(_) => {
            reader.wrong(Rule::Version, field, "is longer than 128 characters");
            None
        }
        Err(error) => {
            let message =
                format!("{} is not a version: {}", quoted(text), escape(&error.to_string(), 100));
            reader.wrong_hint(Rule::Version, field, message, hint);
            None
        }
    }
}

fn homepage(field: &Field<'_>, reader: &mut Reader) -> Option<String> {
    let text = reader.text(field, Text::line(2000))?;
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = |rest: &str| !rest.is_empty() && !rest.contains([' ', '"', '<', '>', '\\']);
    if rest.is_some_and(plain) {
        return Some(text);
    }
    reader.wrong(Rule::Text, field, "must be an address that begins with https:// or http://");
    None
}

fn requires(field: &Field<'_>, reader: &mut Reader) -> Option<semver::VersionReq> {
    let inner = match &field.node.value {
        Value::Map(_) => {
            let mut fields = reader.fields(field)?;
            let inner = fields.need(reader, "palisade");
            fields.finish(reader);
            inner?
        }
        _ => field.clone(),
    };
    let text = reader.str(&inner)?;
    let whole = std::ptr::eq(inner.node, field.node);
    let requirement = if whole { text.strip_prefix("palisade") } else { Some(text) };
    let parsed = requirement
        .filter(|r| r.len() <= 128 && !r.trim().is_empty())
        .and_then(|r| semver::VersionReq::parse(r.trim()).ok());
    let Some(parsed) = parsed else {
        let form = if whole { "palisade >= 0.1" } else { ">= 0.1" };
        let message = format!("{} is not a requirement", quoted(text));
        reader.wrong_hint(Rule::Requires, &inner, message, format!("write it as in \"{form}\""));
        return None;
    };
    let own = own_version();
    if own.as_ref().is_none_or(|own| parsed.matches(own)) {
        return Some(parsed);
    }
    let message = format!("needs palisade {parsed}, this is {}", env!("CARGO_PKG_VERSION"));
    reader.wrong(Rule::Requires, &inner, escape(&message, 200));
    None
}

fn content(field: &Field<'_>, reader: &mut Reader) -> Option<Digest> {
    let text = reader.str(field)?;
    let parsed = Digest::parse(text);
    if parsed.is_none() {
        let message = format!("{} is not a digest", quoted(text));
        let hint = "take it out, and palisade seal DIR writes it: sha256: and 64 digits of 0-9 a-f";
        reader.wrong_hint(Rule::Text, field, message, hint);
    }
    parsed
}

/// The version of Palisade that this is: all its crates have the same.
fn own_version() -> Option<semver::Version> {
    semver::Version::parse(env!("CARGO_PKG_VERSION")).ok()
}

fn config(field: &Field<'_>, reader: &mut Reader) -> Option<Config> {
    let mut fields = reader.fields(field)?;
    let schema = fields.need(reader, "schema").and_then(|field| schema(&field, reader));
    let defaults = fields.take("defaults");
    fields.finish(reader);
    let schema = schema?;
    let Some(defaults) = defaults else {
        return Some(Config { schema, defaults: serde_json::json!({}) });
    };
    reader.fields(&defaults)?;
    let values = defaults.node.to_json();
    if let Err(errors) = schema.validate_part(&values) {
        for error in errors {
            let at =
                if error.path.is_empty() { String::new() } else { format!(" at {}", error.path) };
            let message = format!("does not fit config.schema{at}: {}", error.message);
            reader.wrong(Rule::Defaults, &defaults, message);
        }
        return None;
    }
    Some(Config { schema, defaults: values })
}

fn state(field: &Field<'_>, reader: &mut Reader) -> Option<State> {
    let mut fields = reader.fields(field)?;
    let version = fields.need(reader, "schema");
    let version = version.and_then(|field| reader.whole32(&field, 0, u32::MAX));
    let accepts = fields.take("accepts").map(|field| {
        let mut accepts: Vec<u32> = Vec::new();
        for item in reader.list(&field, MAX_ENTRIES) {
            let Some(number) = reader.whole32(&item, 0, u32::MAX) else { continue };
            if accepts.contains(&number) {
                reader.wrong(Rule::Duplicate, &item, format!("{number} stands twice"));
            } else {
                accepts.push(number);
            }
        }
        accepts
    });
    fields.finish(reader);
    Some(State { schema: version?, accepts: accepts.unwrap_or_default() })
}

/// A JSON Schema of the plugin's, checked and compiled.
fn schema(field: &Field<'_>, reader: &mut Reader) -> Option<json_schema::JsonSchema> {
    json_schema::compile(field.node, &mut reader.schemas)
        .map_err(|finding| reader.report(finding.at(field.path.clone())))
        .ok()
}
