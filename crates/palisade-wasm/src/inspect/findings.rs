//! What a component imports beside what its manifest asks for.

use palisade_model::{Capability, Kind, text::escape};
use serde::Serialize;

use super::{Form, Inspection, Need, Sort};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The plugin cannot be started.
    Error,
    /// Something is not as its author meant it.
    Warning,
}

/// One thing that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is, one sentence.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Finding {
    fn error(message: String, hint: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message, hint: hint.into() }
    }

    fn warning(message: String, hint: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, message, hint: hint.into() }
    }
}

/// Kinds that an import can use.
const USED_BY_IMPORT: &[Kind] = &[
    Kind::FsRead,
    Kind::FsWrite,
    Kind::NetHttp,
    Kind::NetTcp,
    Kind::EventPublish,
    Kind::StorageKv,
    Kind::Env,
    Kind::Secret,
    Kind::HostCall,
    Kind::PluginCall,
];

/// Kinds that lead to a handler, with the interface of `palisade:plugin` that has to be exported for it.
const USED_BY_EXPORT: &[(Kind, &str)] =
    &[(Kind::EventSubscribe, "events"), (Kind::Command, "commands"), (Kind::Hook, "hooks")];

/// Compares what a component can use with what a manifest asks for and offers: `requested` has the rights
/// and the contributions (`tool:NAME` and so on), `tools` the names of its tools.
#[must_use]
pub fn compare(inspection: &Inspection, requested: &[Capability], tools: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let asks = |kind: Kind| requested.iter().any(|right| right.kind() == kind);
    for import in &inspection.imports {
        let name = import.shown();
        match import.need {
            Need::Right(kinds) if !kinds.iter().any(|kind| asks(*kind)) => {
                let kinds = import.need.either();
                findings.push(Finding::error(
                    format!("it imports {name}, and the manifest asks for no {kinds}"),
                    format!("ask for {kinds} in the manifest, or do not use the interface"),
                ));
            }
            Need::Unknown => findings.push(Finding::error(
                format!("it imports {name}: {}", import.why),
                "build it for the interfaces that are known here",
            )),
            Need::Right(_) | Need::Nothing | Need::Shows(_) => {}
        }
    }
    let usable =
        |kind: Kind| inspection.imports.iter().any(|import| import.need.kinds().contains(&kind));
    for right in requested {
        let kind = right.kind();
        if USED_BY_IMPORT.contains(&kind) && !usable(kind) {
            findings.push(Finding::warning(
                format!("the manifest asks for {right}, and no import can use it"),
                "take it out of the manifest: nobody should be asked to grant what is not used",
            ));
        }
        let handler = USED_BY_EXPORT.iter().find(|(of, _)| *of == kind);
        if let Some((_, interface)) = handler
            && !inspection.exports_interface("palisade:plugin", interface)
        {
            findings.push(Finding::warning(
                format!(
                    "the manifest has {right}, and the component does not export palisade:plugin/{interface}"
                ),
                "export the interface, or take it out of the manifest",
            ));
        }
    }
    if matches!(inspection.form, Form::Extism | Form::Module | Form::WasiModule) {
        let is_function = |name: &str| {
            inspection.exports.iter().any(|e| e.sort == Sort::Function && e.name == name)
        };
        for name in tools.iter().filter(|name| !is_function(name)) {
            let shown = escape(name, 128);
            findings.push(Finding::error(
                format!(
                    "the manifest offers the tool {shown}, and no exported function is called so"
                ),
                "see the exports that `palisade check FILE.wasm` lists",
            ));
        }
    }
    if inspection.form.is_component() && inspection.form != Form::Plugin {
        for name in tools {
            let shown = escape(name, 128);
            match inspection.tools.iter().find(|tool| tool.name == *name) {
                None => findings.push(Finding::error(
                    format!("the manifest offers the tool {shown}, and no exported function is called so"),
                    "see `palisade check FILE.wasm` for the functions that can be offered",
                )),
                Some(tool) => {
                    if let Err(why) = &tool.signature {
                        findings.push(Finding::error(
                            format!("the tool {shown} cannot be offered: {why}"),
                            "export a function with other types",
                        ));
                    }
                }
            }
        }
    }
    findings
}
