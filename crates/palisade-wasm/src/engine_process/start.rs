//! What the host tells an engine behind walls before anything else, and how the engine's errors come back.
//!
//! Everything about a launch is told here and not by arguments or the environment: what the plugin may know
//! (variables, secrets among them) is nobody's else, and nothing that it is given can change how the engine
//! itself runs.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use palisade_model::{
    Capability, CapabilitySet, ErrorCode, Failure, Generation, GuaranteeSet, InstanceId, Limits,
    NodeId, Origin, PluginId, PluginRef, text::escape,
};
use palisade_sandbox::{
    Artifact, Calls, Content, ExtismOutput, LaunchSpec, Program, Runtime, Wire,
};
use serde::{Deserialize, Serialize};

use super::{Given, Job};
use crate::{CompiledBy, wasi::Trust};

/// Host to engine, once, before `initialize`: run this. The answer comes when an instance is there.
pub(crate) const START: &str = "engine.start";
/// Host to engine: other limits from now on.
pub(crate) const LIMITS: &str = "engine.limits";

/// Parameters of [`START`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The host's version: an engine of another one is not taken.
    pub(crate) version: String,
    /// The WebAssembly, relative to the working directory.
    pub(crate) file: String,
    /// Its SHA-256, in hexadecimal digits: what the code was made of.
    pub(crate) digest: String,
    /// The machine code.
    pub(crate) code: PathBuf,
    /// It was made by Winch.
    pub(crate) winch: bool,
    /// It is a module for Extism, and what its functions give.
    pub(crate) extism: Option<Output>,
    /// So many instances at a time; none: one for all calls.
    pub(crate) instances: Option<u32>,
    /// Each of them answers one call.
    pub(crate) per_call: bool,
    /// What is linked and shown. Decided is at the host.
    pub(crate) rights: Vec<String>,
    /// Variables that it sees.
    pub(crate) env: BTreeMap<String, String>,
    /// How much it may use.
    pub(crate) limits: Bounds,
    /// Open files of the guest.
    pub(crate) files: u32,
    /// Until it is launched, in milliseconds.
    pub(crate) start_ms: u64,
    /// Certificates that requests trust beside Mozilla's, as PEM text; empty: none.
    pub(crate) roots: String,
}

/// Parameters of [`LIMITS`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Bounds {
    /// Bytes of memory and tables.
    pub(crate) memory: u64,
    /// Share of one CPU.
    pub(crate) cpu: f64,
}

/// [`ExtismOutput`] as it is told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Output {
    Auto,
    Json,
    Text,
}

impl From<ExtismOutput> for Output {
    fn from(output: ExtismOutput) -> Self {
        match output {
            ExtismOutput::Auto => Self::Auto,
            ExtismOutput::Json => Self::Json,
            ExtismOutput::Text => Self::Text,
        }
    }
}

impl From<Output> for ExtismOutput {
    fn from(output: Output) -> Self {
        match output {
            Output::Auto => Self::Auto,
            Output::Json => Self::Json,
            Output::Text => Self::Text,
        }
    }
}

impl Bounds {
    /// As limits of the guest. Its log is held to its rate by the walls, which see all that comes out.
    pub(super) fn limits(self) -> Limits {
        Limits {
            memory: self.memory,
            cpu: self.cpu,
            log_bytes_per_second: u64::MAX,
            ..Limits::default()
        }
    }
}

impl Start {
    /// What is to be run.
    pub(super) fn job(self) -> Result<Job, Failure> {
        let wrong = |what: String| Failure::new(ErrorCode::Internal, what);
        if self.version != env!("CARGO_PKG_VERSION") {
            return Err(wrong(format!(
                "the engine program is of version {}, the host of version {}",
                env!("CARGO_PKG_VERSION"),
                escape(&self.version, 40)
            )));
        }
        let root = std::env::current_dir().map_err(|e| wrong(format!("its folder: {e}")))?;
        let rights: Result<CapabilitySet, _> =
            self.rights.iter().map(|right| right.parse::<Capability>()).collect();
        let calls = match self.instances {
            Some(instances) if self.per_call => Calls::PerCall { instances },
            Some(instances) => Calls::Stateless { instances },
            None => Calls::Stateful,
        };
        let runtime = match self.extism {
            Some(output) => Runtime::Extism { calls, output: output.into() },
            None => Runtime::Wasm { calls },
        };
        let spec = LaunchSpec {
            instance: here().map_err(wrong)?,
            rights: Arc::new(rights.map_err(|e| wrong(e.to_string()))?),
            limits: Limits {
                files: self.files,
                start_timeout: Duration::from_millis(self.start_ms),
                ..self.limits.limits()
            },
            demand: GuaranteeSet::new(),
            wire: Wire::Native,
            data: root.clone(),
            slot: 0,
            env: self.env,
            workdir: None,
            observe: None,
        };
        let artifact = Artifact {
            content: Content { root, digest: [0; 32] },
            program: Program { runtime, file: self.file, args: Vec::new() },
            code: Vec::new(),
        };
        let trust = Trust::with_roots(&self.roots)?;
        let by = if self.winch { CompiledBy::Winch } else { CompiledBy::Cranelift };
        let code = Some(Given { path: self.code, digest: self.digest, by });
        Ok(Job { artifact, spec, cache: None, code, trust })
    }
}

/// Who runs is known to the host, which told it to the plugin; here it is nobody's business.
///
/// # Errors
/// None in practice: the name is a valid one.
pub fn here() -> Result<InstanceId, String> {
    let id = PluginId::parse("engine").map_err(|e| e.to_string())?;
    let plugin = Arc::new(PluginRef { id, origin: Origin::Folder { path: "/".into(), owner: 0 } });
    Ok(InstanceId { node: NodeId("here".into()), plugin, generation: Generation(1), serial: 1 })
}

/// What stands before an error's hint, with its code and its rule: the protocol lets a plugin name few codes and no
/// rules, and the engine has more to say. Which of them are believed is the host's decision.
const CODED: &str = "engine:";
/// The limits that an engine ends a guest by, and may name as the rule that decided.
const RULES: [&str; 7] =
    ["memory", "stack", "resources", "host-call-bytes", "random", "headers", "body"];
/// What the protocol puts before a plugin's own hint (`palisade_protocol::WireError`).
pub(crate) const SAID: &str = "the plugin says: ";

/// An error on its way to the host.
pub(super) fn coded(mut failure: Failure) -> Failure {
    let hint = failure.hint.take().unwrap_or_default();
    let rule = failure.rule.take().unwrap_or_default();
    failure.hint = Some(format!("{CODED}{};{rule};{hint}", failure.code));
    failure
}

/// The error that the engine meant; `None` where the engine did not say it.
pub(crate) fn decoded(failure: &Failure) -> Option<Failure> {
    let told = failure.hint.as_deref()?.strip_prefix(SAID)?.strip_prefix(CODED)?;
    let (code, told) = told.split_once(';')?;
    let (rule, hint) = told.split_once(';')?;
    let mut meant = Failure::new(ErrorCode::parse(code)?, failure.message.clone());
    meant.rule = RULES.contains(&rule).then(|| rule.to_owned());
    meant.hint = (!hint.is_empty()).then(|| hint.to_owned());
    meant.retry_after_ms = failure.retry_after_ms;
    Some(meant)
}

#[cfg(test)]
mod tests {
    use palisade_protocol::{Side, WireError};

    use super::*;

    #[test]
    fn an_error_of_the_engine_keeps_its_code_on_the_way() {
        for hint in [None, Some("the plugin says: try; again"), Some("engine:PAL-DENIED;no")] {
            for code in [ErrorCode::Crashed, ErrorCode::PluginError, ErrorCode::LimitExceeded] {
                for rule in [None, Some("memory"), Some("headers")] {
                    let mut failure = Failure::new(code, "it did not work");
                    (failure.hint, failure.rule) =
                        (hint.map(str::to_owned), rule.map(str::to_owned));
                    let wire = WireError::from(&coded(failure.clone()));
                    let arrived = wire.into_failure(Side::Host);
                    assert_eq!(decoded(&arrived).unwrap(), failure);
                }
            }
        }
        // It cannot say that something of the host's decided.
        let forged = Failure::new(ErrorCode::LimitExceeded, "no").rule("forbid:all");
        let arrived = WireError::from(&coded(forged)).into_failure(Side::Host);
        assert_eq!(decoded(&arrived).unwrap().rule, None);
        // What did not come over the wire is no word of the engine's.
        assert_eq!(decoded(&Failure::new(ErrorCode::Crashed, "closed")), None);
        assert_eq!(decoded(&Failure::new(ErrorCode::Deadline, "late").hint("raise it")), None);
    }

    #[test]
    fn an_engine_of_another_version_runs_nothing() {
        let start = |version: &str| Start {
            version: version.to_owned(),
            file: "plugin.wasm".into(),
            digest: String::new(),
            code: "/code".into(),
            winch: false,
            extism: None,
            instances: Some(3),
            per_call: false,
            rights: vec!["storage.kv:a".into()],
            env: BTreeMap::new(),
            limits: Bounds { memory: 1 << 20, cpu: 0.5 },
            files: 16,
            start_ms: 1000,
            roots: String::new(),
        };
        assert!(start("0.0.0-other").job().unwrap_err().message.contains("version"));
        let text = serde_json::to_string(&start(env!("CARGO_PKG_VERSION"))).unwrap();
        let job = serde_json::from_str::<Start>(&text).unwrap().job().unwrap();
        assert_eq!(job.spec.limits.memory, 1 << 20);
        assert_eq!(
            job.artifact.program.runtime,
            Runtime::Wasm { calls: Calls::Stateless { instances: 3 } }
        );
        let each = Start { per_call: true, ..start(env!("CARGO_PKG_VERSION")) };
        assert_eq!(
            each.job().unwrap().artifact.program.runtime,
            Runtime::Wasm { calls: Calls::PerCall { instances: 3 } }
        );
        let wrong = Start { rights: vec!["nonsense".into()], ..start(env!("CARGO_PKG_VERSION")) };
        assert!(wrong.job().is_err());
        let wrong = Start { roots: "not PEM".into(), ..start(env!("CARGO_PKG_VERSION")) };
        assert!(wrong.job().unwrap_err().message.contains("certificate"));
    }
}
