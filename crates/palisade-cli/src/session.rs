//! One host for one command: opened from the options, spoken to as the person who runs the command.

use std::{path::Path, sync::Arc};

use palisade_audit::JsonLinesRecorder;
use palisade_broker::Caller;
use palisade_host::{Control, Host, LoadOptions, Plugin};
use palisade_model::{Failure, text::escape};
use palisade_policy::OperatorPolicy;
use palisade_sandbox::Backend;
use palisade_services::log::LogSink;

use crate::{
    cli::PluginArgs,
    commands::component,
    grant,
    platform::{machine, walls},
    trouble::Trouble,
};

/// Longest configuration file, in bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// An open host. Dropping it kills what runs.
pub(crate) struct Session {
    pub(crate) host: Host,
    pub(crate) control: Control,
    /// Holds what a plugin without a folder of its own consists of.
    _copy: Option<tempfile::TempDir>,
}

/// Who runs the command, as records name it.
pub(crate) fn operator() -> Arc<Caller> {
    Caller::operator(machine::user())
}

impl Session {
    /// Opens the host.
    pub(crate) async fn open(
        state_dir: Option<&Path>,
        policy: OperatorPolicy,
        audit: Option<&Path>,
        sink: Option<Arc<dyn LogSink>>,
    ) -> Result<Self, Trouble> {
        Self::open_with(walls::backends(), state_dir, policy, audit, sink).await
    }

    /// [`Session::open`] with backends that are in use already.
    pub(crate) async fn open_with(
        backends: Vec<Arc<dyn Backend>>,
        state_dir: Option<&Path>,
        policy: OperatorPolicy,
        audit: Option<&Path>,
        sink: Option<Arc<dyn LogSink>>,
    ) -> Result<Self, Trouble> {
        let mut builder = Host::builder().policy(policy).backends(backends);
        if let Some(path) = state_dir {
            builder = builder.state_dir(path);
        }
        if let Some(path) = audit {
            let recorder = JsonLinesRecorder::open(path).map_err(|e| {
                let failure = Failure::from(e);
                let message = format!("the record {}: {}", shown(path), failure.message);
                Trouble::Failure(Failure { message, ..failure })
            })?;
            builder = builder.recorder(Arc::new(recorder));
        }
        if let Some(sink) = sink {
            builder = builder.log_sink(sink);
        }
        let host = builder.build().await?;
        let control = host.control(operator());
        Ok(Self { host, control, _copy: None })
    }

    /// Opens the host and loads the plugin that the options name.
    pub(crate) async fn with_plugin(
        args: &PluginArgs,
        audit: Option<&Path>,
        sink: Option<Arc<dyn LogSink>>,
    ) -> Result<(Self, Plugin), Trouble> {
        let policy = match &args.policy {
            Some(path) => policy(path)?,
            None => OperatorPolicy::default(),
        };
        let mut options = LoadOptions::new();
        if let Some(path) = &args.config {
            options = options.config(config(path)?);
        }
        if let Some(name) = &args.backend.name {
            options = options.backend(name);
        }
        let mut session = Self::open(args.state_dir.as_deref(), policy, audit, sink).await?;
        if component::is_module(&args.folder) {
            let granted = grant::parse_all(args)?;
            let component::Loose { manifest, origin, folder } =
                component::loose(&args.folder, &granted)?;
            let plugin =
                session.control.load_manifest(manifest, origin, folder.path(), options).await?;
            session._copy = Some(folder);
            return Ok((session, plugin));
        }
        let plugin = session.control.load(&args.folder, options).await?;
        Ok((session, plugin))
    }
}

pub(crate) fn policy(path: &Path) -> Result<OperatorPolicy, Trouble> {
    let bytes = read(path, palisade_policy::MAX_POLICY_LEN as u64 + 1)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Trouble::usage(format!("the policy {} is not UTF-8 text", shown(path))))?;
    palisade_policy::parse(&text)
        .map_err(|error| Trouble::usage(format!("the policy {}: {error}", shown(path))))
}

pub(crate) fn config(path: &Path) -> Result<serde_json::Value, Trouble> {
    let bytes = read(path, MAX_CONFIG + 1)?;
    if bytes.len() as u64 > MAX_CONFIG {
        return Err(Trouble::usage(format!(
            "the configuration {} is larger than 1 MiB",
            shown(path)
        )));
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        Trouble::usage(format!("the configuration {} is not JSON: {error}", shown(path)))
    })
}

pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>, Trouble> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(most).read_to_end(&mut bytes))
        .map_err(|error| Trouble::usage(format!("cannot read {}: {error}", shown(path))))?;
    Ok(bytes)
}

/// A path, safe to show.
pub(crate) fn shown(path: &Path) -> String {
    escape(&path.to_string_lossy(), 400)
}
