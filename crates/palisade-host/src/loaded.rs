//! A plugin as it was loaded: manifest, configuration and everything that follows from them and the
//! policy alone, worked out once.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use palisade_manifest::{Entry, JsonSchema, Manifest, Mode};
use palisade_model::{
    CapabilitySet, ErrorCode, Failure, Generation, GuaranteeSet, Limits, text::escape,
};
use palisade_policy::{OperatorPolicy, Requested};
use palisade_sandbox::{Artifact, Calls, Content, ExtismOutput, Program, Runtime, Wire};
use serde_json::{Value, value::RawValue};

use crate::{content::Sealed, error::HostError, secrets, unsupported};

/// How a plugin is to be loaded.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Its configuration. What it leaves out comes from the manifest's defaults, object by object; the
    /// result must fit the manifest's schema. `None` is the same as an empty object.
    pub config: Option<Value>,
    /// Takes this backend or none. `None`: the cheapest that covers the demand.
    pub backend: Option<String>,
    /// Installed software that the program is part of: folders and files of this machine, shown read-only
    /// and executable under their own, real paths.
    pub code: Vec<PathBuf>,
    /// Environment variables for the program, besides those that `env:` rights give.
    pub env: BTreeMap<String, String>,
    /// Working directory inside, an absolute path. `None`: the plugin's folder.
    pub workdir: Option<String>,
    /// Environment variables for the program that are read from the operator's secrets at each start:
    /// variable to name of the secret. Only those on whose secret the plugin has a right are set. For
    /// programs that cannot ask with `secret.get`: what is in the environment is passed on to whatever
    /// the program starts.
    pub secret_env: BTreeMap<String, String>,
}

impl LoadOptions {
    /// No configuration, any backend.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this configuration.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.config = Some(config);
        self
    }

    /// With this backend or none.
    #[must_use]
    pub fn backend(mut self, name: impl Into<String>) -> Self {
        self.backend = Some(name.into());
        self
    }

    /// With this installed software in sight.
    #[must_use]
    pub fn code(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        self.code.extend(paths);
        self
    }

    /// With this environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// With this environment variable, whose value is the secret of this name.
    #[must_use]
    pub fn secret_env(mut self, variable: impl Into<String>, secret: impl Into<String>) -> Self {
        self.secret_env.insert(variable.into(), secret.into());
        self
    }

    /// In this working directory.
    #[must_use]
    pub fn workdir(mut self, path: impl Into<String>) -> Self {
        self.workdir = Some(path.into());
        self
    }
}

/// A tool, ready to be called.
pub(crate) struct Tool {
    pub(crate) name: Arc<str>,
    /// `{"tool":"NAME","args":`, to which arguments and `}` are appended.
    pub(crate) prefix: Vec<u8>,
    /// What the arguments must fit; `None` where any object does.
    pub(crate) input: Option<JsonSchema>,
}

/// Where a plugin's files are taken from.
#[derive(Clone, Debug)]
pub(crate) enum Files {
    /// Its folder, as it is when it is looked at.
    Folder(PathBuf),
    /// A copy of the files that its manifest names.
    Sealed(Arc<Sealed>),
}

impl Files {
    pub(crate) fn root(&self) -> &Path {
        match self {
            Self::Folder(root) => root,
            Self::Sealed(sealed) => &sealed.root,
        }
    }
}

/// See the module.
pub(crate) struct Loaded {
    pub(crate) manifest: Manifest,
    pub(crate) digest: [u8; 32],
    pub(crate) generation: Generation,
    pub(crate) files: Files,
    pub(crate) requested: Requested,
    pub(crate) declared: CapabilitySet,
    pub(crate) limits: Limits,
    pub(crate) demand: GuaranteeSet,
    pub(crate) config: Box<RawValue>,
    pub(crate) backend: Option<String>,
    pub(crate) code: Vec<PathBuf>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) workdir: Option<String>,
    pub(crate) secret_env: BTreeMap<String, String>,
    pub(crate) tools: BTreeMap<String, Arc<Tool>>,
}

impl Loaded {
    /// Works out what follows from a manifest.
    pub(crate) fn new(
        manifest: Manifest,
        files: Files,
        generation: Generation,
        options: &LoadOptions,
        policy: &OperatorPolicy,
    ) -> Result<Self, HostError> {
        unsupported::check(&manifest)?;
        for (variable, secret) in &options.secret_env {
            secrets::check_variable(variable, secret)?;
        }
        let config = manifest
            .effective_config(options.config.as_ref().unwrap_or(&Value::Null))
            .map_err(|errors| HostError::Config {
                id: manifest.id.clone(),
                what: errors.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join("; "),
            })?;
        let config = serde_json::value::to_raw_value(&config)
            .map_err(|e| HostError::Config { id: manifest.id.clone(), what: e.to_string() })?;
        let requested = manifest.requested();
        let mut limits = manifest.resources.over(&policy.default_limits());
        if let Entry::Jsonl(jsonl) = &manifest.entry {
            limits.call_timeout = jsonl.timeout.unwrap_or(limits.call_timeout);
        }
        let tools = manifest.contributes.tools.iter().map(|tool| {
            let input = (!takes_any_object(tool.input.document())).then(|| tool.input.clone());
            let name = Arc::from(tool.name.as_str());
            (tool.name.clone(), Arc::new(Tool { name, prefix: prefix(&tool.name), input }))
        });
        Ok(Self {
            digest: manifest.digest().0,
            generation,
            files,
            requested: Requested { required: requested.required, optional: requested.optional },
            declared: manifest.declared_registrations(),
            limits,
            demand: palisade_policy::demand(policy, &manifest.id, &manifest.guarantees),
            config,
            backend: options.backend.clone(),
            code: options.code.clone(),
            env: options.env.clone(),
            workdir: options.workdir.clone(),
            secret_env: options.secret_env.clone(),
            tools: tools.collect(),
            manifest,
        })
    }

    /// Whether each call is answered by an instance of its own.
    pub(crate) fn is_per_call(&self) -> bool {
        matches!(&self.manifest.entry, Entry::Jsonl(jsonl) if jsonl.mode == Mode::PerCall)
    }

    /// What a backend prepares.
    pub(crate) fn artifact(&self) -> Result<Artifact, Failure> {
        let content = Content { root: self.files.root().to_owned(), digest: self.digest };
        Ok(Artifact { content, program: self.program()?, code: self.code.clone() })
    }

    /// What is started.
    pub(crate) fn program(&self) -> Result<Program, Failure> {
        if let Some(needs) = self.manifest.needs_backend() {
            return Err(needs.into());
        }
        program(&self.manifest.entry).ok_or_else(|| {
            Failure::new(
                ErrorCode::NoBackend,
                "this version of Palisade cannot start such an entry",
            )
            .hint("entry kinds that run here: python, node, exec, mcp, jsonl, wasm, extism")
        })
    }

    /// How it talks.
    pub(crate) fn wire(&self) -> Wire {
        use palisade_dialect::jsonl;
        match &self.manifest.entry {
            Entry::Jsonl(entry) => Wire::Jsonl(jsonl::Jsonl {
                init: match entry.init {
                    palisade_manifest::Init::Init => jsonl::InitMethod::Init,
                    palisade_manifest::Init::Initialize => jsonl::InitMethod::Initialize,
                },
                lifecycle: match entry.mode {
                    Mode::Resident => jsonl::Lifecycle::Resident,
                    Mode::PerCall => jsonl::Lifecycle::PerCall,
                },
                ..jsonl::Jsonl::default()
            }),
            Entry::Mcp { .. } => Wire::Mcp(palisade_dialect::mcp::Mcp::default()),
            _ => Wire::Native,
        }
    }
}

/// The beginning of the parameters of a call.
fn prefix(tool: &str) -> Vec<u8> {
    let mut out = b"{\"tool\":".to_vec();
    // Names are checked when the manifest is read; Value's text form escapes them all the same.
    out.extend_from_slice(Value::from(tool).to_string().as_bytes());
    out.extend_from_slice(b",\"args\":");
    out
}

/// Whether a schema says no more than "an object", which is what a tool without a schema takes.
fn takes_any_object(schema: &Value) -> bool {
    match schema {
        Value::Bool(anything) => *anything,
        Value::Object(map) => map.iter().all(|(key, value)| match key.as_str() {
            "type" => value == "object",
            "$schema" | "title" | "description" | "$comment" => true,
            _ => false,
        }),
        _ => false,
    }
}

fn program(entry: &Entry) -> Option<Program> {
    use palisade_manifest::{Interpreter, Program as P};
    let script = |program: &P| match program {
        P::File(path) => Some(path.as_str().to_owned()),
        _ => None,
    };
    let native = |program: &P| match program {
        // A file at the top of the folder is not to be mistaken for a name on PATH.
        P::File(path) => Some(format!("./{path}")),
        P::Absolute(path) | P::Name(path) => Some(path.clone()),
        _ => None,
    };
    Some(match entry {
        Entry::Python { file, args, interpreter, version } => Program {
            runtime: Runtime::Python {
                interpreter: Some(match interpreter {
                    Interpreter::Name(text) | Interpreter::Absolute(text) => text.clone(),
                    Interpreter::Venv(folder) => format!("venv:{folder}"),
                    _ => return None,
                }),
                version: version.clone(),
            },
            file: file.as_str().to_owned(),
            args: args.clone(),
        },
        Entry::Node { file, args } => Program {
            runtime: Runtime::Node { interpreter: None },
            file: file.as_str().to_owned(),
            args: args.clone(),
        },
        Entry::Exec { program, args } => {
            Program { runtime: Runtime::Native, file: native(program)?, args: args.clone() }
        }
        Entry::Mcp { command, args } => {
            Program { runtime: Runtime::Native, file: native(command)?, args: args.clone() }
        }
        Entry::Jsonl(jsonl) => Program {
            runtime: match jsonl.runtime {
                palisade_manifest::Runtime::Python => {
                    Runtime::Python { interpreter: None, version: None }
                }
                palisade_manifest::Runtime::Node => Runtime::Node { interpreter: None },
                palisade_manifest::Runtime::Exec => Runtime::Native,
            },
            file: match jsonl.runtime {
                palisade_manifest::Runtime::Exec => native(&jsonl.program)?,
                _ => script(&jsonl.program)?,
            },
            args: jsonl.args.clone(),
        },
        Entry::Wasm { file, calls } => Program {
            runtime: Runtime::Wasm { calls: how(*calls) },
            file: file.as_str().to_owned(),
            args: Vec::new(),
        },
        Entry::Extism { file, calls, output } => Program {
            runtime: Runtime::Extism { calls: how(*calls), output: meant(*output) },
            file: file.as_str().to_owned(),
            args: Vec::new(),
        },
        _ => return None,
    })
}

fn how(calls: palisade_manifest::Calls) -> Calls {
    match calls {
        palisade_manifest::Calls::Stateful => Calls::Stateful,
        palisade_manifest::Calls::Stateless { instances } => Calls::Stateless { instances },
        palisade_manifest::Calls::PerCall { instances } => Calls::PerCall { instances },
    }
}

fn meant(output: palisade_manifest::Output) -> ExtismOutput {
    match output {
        palisade_manifest::Output::Auto => ExtismOutput::Auto,
        palisade_manifest::Output::Json => ExtismOutput::Json,
        palisade_manifest::Output::Text => ExtismOutput::Text,
    }
}

/// The folder of a plugin: its real path and its owner's user id.
pub(crate) fn folder(dir: &Path) -> Result<(PathBuf, String, u32), HostError> {
    let refused = |what: String| HostError::Folder { path: crate::error::shown(dir), what };
    let root = dir.canonicalize().map_err(|e| refused(escape(&e.to_string(), 200)))?;
    let meta = root.metadata().map_err(|e| refused(escape(&e.to_string(), 200)))?;
    if !meta.is_dir() {
        return Err(refused("is not a folder".into()));
    }
    let text =
        root.to_str().ok_or_else(|| refused("its real path is not UTF-8 text".into()))?.to_owned();
    #[cfg(unix)]
    let owner = std::os::unix::fs::MetadataExt::uid(&meta);
    #[cfg(not(unix))]
    let owner = 0;
    Ok((root, text, owner))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_schema_that_says_nothing_is_not_checked() {
        for any in [json!(true), json!({}), json!({"type": "object"})] {
            assert!(takes_any_object(&any), "{any}");
        }
        for some in
            [json!(false), json!({"type": "array"}), json!({"type": "object", "required": ["a"]})]
        {
            assert!(!takes_any_object(&some), "{some}");
        }
    }

    #[test]
    fn the_parameters_of_a_call_are_json_whatever_the_tool_is_called() {
        for name in ["count", "a\"b\\", "é"] {
            let mut text = prefix(name);
            text.extend_from_slice(b"1}");
            let value: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(value, json!({"tool": name, "args": 1}));
        }
    }
}
