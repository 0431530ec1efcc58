//! `palisade check` of WebAssembly: of a file what it imports, exports and could offer; of a plugin whether
//! its manifest asks for what its component imports. Nothing of it is compiled or run.

use std::{borrow::Cow, fmt::Write as _, path::Path};

use palisade_manifest::{Entry, MAX_ENTRIES, Manifest, Syntax};
use palisade_model::{Capability, ErrorCode, Failure, Origin, text::escape};
use palisade_wasm::{
    componentize,
    inspect::{Finding, Form, Inspection, MAX_BYTES, Need, Severity, compare, inspect},
};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    session::{read, shown},
    terminal::{self, Paint},
    trouble::{Trouble, failure_text},
    words,
};

/// The name of the copy of a file that is called without a folder of its own.
const COPY: &str = "component.wasm";

/// Whether a path names a file of WebAssembly, and not a plugin's folder.
pub(crate) fn is_module(path: &Path) -> bool {
    let wasm = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("wasm"));
    wasm && path.is_file()
}

/// A file as it was seen.
#[derive(Serialize)]
pub(crate) struct Seen {
    /// Its length in bytes.
    bytes: usize,
    /// It is a core module, and this is the component that it stands for.
    from_core_module: bool,
    #[serde(flatten)]
    inspection: Inspection,
}

fn look(path: &Path) -> Result<Seen, Trouble> {
    let bytes = read(path, MAX_BYTES as u64 + 1)?;
    let named = |message: String| format!("{}: {message}", shown(path));
    let first = inspect(&bytes)
        .map_err(|error| Trouble::Failure(Failure::new(error.code(), named(error.to_string()))))?;
    let inspection = match first.form {
        Form::Embryo => {
            let component = componentize(&bytes).map_err(|error| {
                let failure = Failure::from(error);
                Trouble::Failure(Failure { message: named(failure.message.clone()), ..failure })
            })?;
            let made = inspect(&component).map_err(Failure::from)?;
            return Ok(Seen {
                bytes: bytes.len(),
                from_core_module: matches!(component, Cow::Owned(_)),
                inspection: made,
            });
        }
        _ => first,
    };
    Ok(Seen { bytes: bytes.len(), from_core_module: false, inspection })
}

/// Checks a file.
pub(crate) fn file(path: &Path, as_json: bool) -> Result<(), Trouble> {
    let seen = look(path)?;
    let problem = problem(&seen.inspection);
    if as_json {
        terminal::json(&json!({ "file": shown(path), "component": seen, "problem": problem }));
    } else {
        let paint = Paint::stdout();
        terminal::out(report(path, &seen, paint));
        match &problem {
            Some(failure) => terminal::out(format_args!("\n{}", failure_text(failure, paint))),
            None => terminal::out(format_args!("\n{}", conclusion(&seen.inspection, paint))),
        }
    }
    match problem {
        Some(failure) => Err(Trouble::Said(failure.code.exit_status())),
        None => Ok(()),
    }
}

/// Why it could not be started, whatever is granted.
fn problem(inspection: &Inspection) -> Option<Failure> {
    let lacking: Vec<String> = inspection
        .imports
        .iter()
        .filter(|import| import.need == Need::Unknown)
        .map(|import| format!("{}: {}", import.shown(), import.why))
        .collect();
    if !lacking.is_empty() {
        let message = format!("it imports what is not provided\n  {}", lacking.join("\n  "));
        return Some(
            Failure::new(ErrorCode::ManifestInvalid, message)
                .hint("build it for interfaces of palisade:plugin and WASI 0.2 or 0.3"),
        );
    }
    let not = |message: &str, hint: &str| {
        Some(Failure::new(ErrorCode::ManifestInvalid, message).hint(hint))
    };
    match inspection.form {
        Form::Module | Form::WasiModule => not(
            "it is a core module and no component",
            "build it for wasm32-wasip2, or for wasm32-unknown-unknown with bindings of palisade:plugin",
        ),
        Form::WasiHttp | Form::Component | Form::WasiCommand
            if !inspection.tools.iter().any(|tool| tool.signature.is_ok()) =>
        {
            not(
                "it exports no function that can be called",
                "export palisade:plugin/guest, or functions whose types have a form in JSON",
            )
        }
        _ => None,
    }
}

fn conclusion(inspection: &Inspection, paint: Paint) -> String {
    let takes = inspection.imports.iter().filter(|import| matches!(import.need, Need::Right(_)));
    let mut kinds: Vec<String> = takes.map(|import| import.need.either()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let good = paint.good("Everything that it imports is provided");
    match kinds.is_empty() {
        true => format!("{good}, and it takes no right."),
        false => {
            format!("{good}, once a right of each of these kinds is granted: {}.", kinds.join(", "))
        }
    }
}

fn need(need: Need, paint: Paint) -> String {
    let kinds = || -> String {
        need.kinds().iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ")
    };
    match need {
        Need::Nothing => paint.dim("no right"),
        Need::Right(_) => paint.warn(format!("takes {}", need.either())),
        Need::Shows(_) => format!("no right; shows {}", kinds()),
        Need::Unknown => paint.bad("unknown"),
    }
}

fn report(path: &Path, seen: &Seen, paint: Paint) -> String {
    let Seen { bytes, from_core_module, inspection } = seen;
    let mut text = format!(
        "{}\n  {}, {}",
        paint.bold(shown(path)),
        inspection.form.in_words(),
        words::bytes(*bytes as u64)
    );
    if *from_core_module {
        text.push_str("; made of the core module in the file when it is loaded");
    }
    if inspection.asynchronous {
        text.push_str("; with asynchronous functions");
    }
    for section in &inspection.sections {
        if let Some(says) = &section.says {
            let _ = write!(text, "\n  made with {says}");
        }
    }
    imports(inspection, paint, &mut text);
    let _ = write!(text, "\n\n{}", paint.bold("Exports"));
    if inspection.exports.is_empty() {
        text.push_str("\n  nothing");
    }
    for export in &inspection.exports {
        let _ = write!(text, "\n  {}", escape(&export.name, 200));
    }
    if inspection.tools.is_empty() {
        return text;
    }
    let _ = write!(text, "\n\n{}", paint.bold("Could be offered as tools (contributes.tools)"));
    for tool in &inspection.tools {
        let _ = write!(text, "\n  {}", escape(&tool.name, 200));
        let line = match (tool.wit(), &tool.signature) {
            (Some(wit), _) => escape(&wit, 400),
            (None, Err(why)) => format!("{} {}", paint.warn("no:"), escape(why, 400)),
            (None, Ok(_)) => continue,
        };
        let _ = write!(text, "\n    {line}");
    }
    text.push_str("\n  --json has the JSON Schema of each");
    text
}

fn imports(inspection: &Inspection, paint: Paint, text: &mut String) {
    let _ = write!(text, "\n\n{}", paint.bold("Imports, which are all that it can reach"));
    if inspection.imports.is_empty() {
        text.push_str("\n  nothing");
    }
    for import in &inspection.imports {
        let _ = write!(
            text,
            "\n  {}\n    {}: {}",
            import.shown(),
            need(import.need, paint),
            import.why
        );
    }
}

/// A component without a folder, as a plugin that a manifest made here stands for: its exported functions are
/// its tools, and it asks for what the command line grants and for nothing else.
pub(crate) struct Loose {
    /// The manifest.
    pub(crate) manifest: Manifest,
    /// Where it comes from.
    pub(crate) origin: Origin,
    /// A folder that holds a copy of it and nothing else; gone when this is dropped.
    pub(crate) folder: tempfile::TempDir,
}

/// Makes one of a file.
pub(crate) fn loose(path: &Path, granted: &[Capability]) -> Result<Loose, Trouble> {
    let unreadable =
        |error: std::io::Error| Trouble::usage(format!("cannot read {}: {error}", shown(path)));
    let real = path.canonicalize().map_err(unreadable)?;
    let Seen { inspection, .. } = look(path)?;
    if let Some(problem) = problem(&inspection) {
        return Err(problem.into());
    }
    if !matches!(inspection.form, Form::Component | Form::WasiCommand | Form::WasiHttp) {
        return Err(Trouble::usage(format!(
            "{} is {}, and takes a folder with a manifest",
            shown(path),
            inspection.form.in_words()
        )));
    }
    let tools: Vec<Value> = inspection
        .tools
        .iter()
        .filter_map(|tool| Some((tool, tool.wit()?)))
        .take(MAX_ENTRIES)
        .map(|(tool, wit)| json!({ "name": tool.name, "description": escape(&wit, 1000) }))
        .collect();
    let asks: Vec<Value> = granted
        .iter()
        .map(|right| json!({ "capability": right.to_string(), "reason": "The command line grants it." }))
        .collect();
    // Two files with one name are two plugins.
    let digest = Sha256::digest(real.as_os_str().as_encoded_bytes());
    let digest: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let stem = real.file_stem().map(|stem| stem.to_string_lossy().to_lowercase());
    let stem: String = stem
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(40)
        .collect();
    let manifest = json!({
        "api": palisade_manifest::API,
        "id": format!("wasm-{stem}-{digest}"),
        "version": "0.0.0",
        "entry": { "kind": "wasm", "file": COPY },
        "capabilities": { "required": asks },
        "contributes": { "tools": tools },
    });
    let manifest = palisade_manifest::parse(&manifest.to_string(), Syntax::Json)
        .map_err(|error| Trouble::Manifest(Box::new(error)))?;
    let folder = tempfile::tempdir().map_err(unreadable)?;
    std::fs::copy(&real, folder.path().join(COPY)).map_err(unreadable)?;
    let origin = Origin::Command { path: real.to_string_lossy().into_owned() };
    Ok(Loose { manifest, origin, folder })
}

/// A plugin's component beside its manifest.
#[derive(Serialize)]
pub(crate) struct Compared {
    #[serde(flatten)]
    seen: Seen,
    findings: Vec<Finding>,
}

/// Compares them, where the plugin is a component.
pub(crate) fn of_plugin(manifest: &Manifest, folder: &Path) -> Result<Option<Compared>, Trouble> {
    let (Entry::Wasm { file, .. } | Entry::Extism { file, .. }) = &manifest.entry else {
        return Ok(None);
    };
    let seen = look(&folder.join(file.as_str()))?;
    let requested = manifest.requested();
    let all: Vec<Capability> = requested
        .required
        .iter()
        .chain(requested.optional.iter())
        .chain(manifest.declared_registrations().iter())
        .cloned()
        .collect();
    let tools: Vec<&str> = manifest.contributes.tools.iter().map(|t| t.name.as_str()).collect();
    let findings = compare(&seen.inspection, &all, &tools);
    Ok(Some(Compared { seen, findings }))
}

impl Compared {
    /// What keeps the plugin from starting.
    pub(crate) fn problem(&self) -> Option<Failure> {
        let errors = self.findings.iter().filter(|f| f.severity == Severity::Error);
        let messages: Vec<&str> = errors.map(|finding| finding.message.as_str()).collect();
        let hint = self.findings.iter().find(|f| f.severity == Severity::Error)?.hint.clone();
        let message = match &messages[..] {
            [only] => format!("the component and its manifest do not fit: {only}"),
            all => format!("the component and its manifest do not fit\n  {}", all.join("\n  ")),
        };
        Some(Failure::new(ErrorCode::ManifestInvalid, message).hint(hint))
    }

    /// For people.
    pub(crate) fn report(&self, paint: Paint) -> String {
        let Seen { bytes, inspection, .. } = &self.seen;
        let mut text = format!(
            "\n{}\n  {}, {}",
            paint.bold("Component"),
            inspection.form.in_words(),
            words::bytes(*bytes as u64)
        );
        imports(inspection, paint, &mut text);
        for finding in self.findings.iter().filter(|f| f.severity == Severity::Warning) {
            let _ = write!(
                text,
                "\n  {} {}\n    {}",
                paint.warn("warning:"),
                finding.message,
                finding.hint
            );
        }
        text
    }
}
