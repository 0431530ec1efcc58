//! Our side: a host with a gate, rates and a record on disk; and the backend alone.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use palisade_audit::{JsonLinesRecorder, Recorder};
use palisade_host::Host;
use palisade_model::{
    CapabilitySet, Generation, GuaranteeSet, InstanceId, Limits, NodeId, Origin, Payload, PluginId,
    PluginRef,
};
use palisade_protocol::{
    VersionRange,
    methods::{self, InitializeParams, Party, PluginName},
};
use palisade_sandbox::{
    Artifact, Backend, Calls, Content, Instance, Invocation, LaunchSpec, Prepared, Program,
    Runtime, ToolCall, Trace, Wire,
};
use palisade_wasm::{Options, WasmBackend};
use serde_json::value::RawValue;

use crate::plugin::{Result, Silent};

const MANIFEST: &str = r#"
api = "palisade/1"
id = "bench"
name = "Bench"
version = "1.0.0"

[entry]
kind = "wasm"
file = "plugin.wasm"

[[contributes.tools]]
name = "echo"
description = "Gives back what it is given."
input = { type = "object" }
"#;

/// A folder with the component in it.
pub(crate) struct Folder {
    root: PathBuf,
    data: PathBuf,
    reference: Arc<PluginRef>,
    serial: AtomicU64,
    _dir: tempfile::TempDir,
}

impl Folder {
    pub(crate) fn new(component: &[u8]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let real = dir.path().canonicalize()?;
        let (root, data) = (real.join("plugin"), real.join("data"));
        std::fs::create_dir_all(&root)?;
        std::fs::create_dir_all(data.join("state"))?;
        std::fs::write(root.join("plugin.wasm"), component)?;
        std::fs::write(root.join("plugin.toml"), MANIFEST)?;
        let origin = Origin::Folder { path: root.display().to_string(), owner: 0 };
        let reference = Arc::new(PluginRef { id: PluginId::parse("bench")?, origin });
        Ok(Self { root, data, reference, serial: AtomicU64::new(1), _dir: dir })
    }

    /// A folder for what is kept between the starts of a host.
    pub(crate) fn state(&self) -> PathBuf {
        self.data.join("state")
    }

    fn artifact(&self) -> Artifact {
        Artifact {
            content: Content { root: self.root.clone(), digest: [0; 32] },
            program: Program {
                runtime: Runtime::Wasm { calls: Calls::Stateful },
                file: "plugin.wasm".to_owned(),
                args: Vec::new(),
            },
            code: Vec::new(),
        }
    }

    /// A launch with default limits and the default floor of guarantees.
    fn spec(&self) -> LaunchSpec {
        LaunchSpec {
            instance: InstanceId {
                node: NodeId::local(),
                plugin: Arc::clone(&self.reference),
                generation: Generation(1),
                serial: self.serial.fetch_add(1, Ordering::Relaxed),
            },
            rights: Arc::new(CapabilitySet::new()),
            limits: Limits::default(),
            demand: GuaranteeSet::default_floor(),
            wire: Wire::Native,
            data: self.data.clone(),
            slot: 65_000,
            env: std::collections::BTreeMap::new(),
            workdir: None,
            observe: None,
        }
    }

    /// Compiled code of the component, or what was kept of it on disk.
    pub(crate) async fn prepare(&self, backend: &WasmBackend) -> Result<Arc<dyn Prepared>> {
        Ok(backend.prepare(&self.artifact()).await?)
    }

    /// An instance that nobody has spoken with.
    pub(crate) async fn launch(&self, prepared: &dyn Prepared) -> Result<Arc<dyn Instance>> {
        Ok(prepared.launch(self.spec(), Arc::new(Silent)).await?)
    }
}

/// A backend with room for `instances`.
pub(crate) fn backend(instances: u32, state: &Path) -> WasmBackend {
    let backend = WasmBackend::new(Options::default().instances(instances));
    backend.keep_in(state);
    backend
}

/// `initialize` as the host asks it.
pub(crate) async fn initialize(instance: &Arc<dyn Instance>) -> Result<()> {
    let params = InitializeParams {
        protocol: VersionRange::SUPPORTED,
        features: Vec::new(),
        host: Party { name: "palisade".into(), version: "0.1.0".into() },
        plugin: PluginName { id: "bench".into() },
        config: RawValue::from_string("{}".to_owned())?,
        rights: Vec::new(),
    };
    let invocation = Invocation {
        method: methods::INITIALIZE,
        payload: Payload::json(&params)?,
        tool: None,
        deadline: Instant::now() + Duration::from_secs(30),
        trace: Trace::default(),
    };
    instance.lane().call(invocation).await.map(drop).map_err(Into::into)
}

/// A call as the host makes it.
pub(crate) async fn ask(instance: &Arc<dyn Instance>, text: &'static str) -> Result<Payload> {
    let (prefix, args) = (r#"{"tool":"echo","args":"#, Bytes::from_static(text.as_bytes()));
    let mut payload = Vec::with_capacity(prefix.len() + args.len() + 1);
    payload.extend_from_slice(prefix.as_bytes());
    payload.extend_from_slice(&args);
    payload.push(b'}');
    let invocation = Invocation {
        method: methods::CALL,
        payload: Payload::from_json_text(payload),
        tool: Some(ToolCall { name: Arc::from("echo"), args }),
        deadline: Instant::now() + Duration::from_secs(30),
        trace: Trace::default(),
    };
    Ok(instance.lane().call(invocation).await?)
}

/// A plugin of a host, and an instance of the same component without one.
pub(crate) struct Ours {
    host: Host,
    plugin: palisade_host::Plugin,
    instance: Arc<dyn Instance>,
    _folder: Folder,
}

impl Ours {
    pub(crate) async fn open(component: &[u8]) -> Result<Self> {
        let folder = Folder::new(component)?;
        let recorder: Arc<dyn Recorder> =
            Arc::new(JsonLinesRecorder::open(folder.data.join("record.jsonl"))?);
        let host = Host::builder()
            .state_dir(folder.state())
            .backend(Arc::new(backend(64, &folder.state())))
            .recorder(recorder)
            .build()
            .await?;
        let plugin = host.load(&folder.root).await?;
        plugin.start().await?;
        let alone = backend(64, &folder.state());
        let prepared = folder.prepare(&alone).await?;
        let instance = folder.launch(&*prepared).await?;
        initialize(&instance).await?;
        Ok(Self { host, plugin, instance, _folder: folder })
    }

    /// Through the host: gate, rates, record, lane.
    pub(crate) async fn call(&self, args: &RawValue) -> Result<Payload> {
        Ok(self.plugin.call("echo", args).await?)
    }

    /// The lane alone.
    pub(crate) async fn lane(&self, text: &'static str) -> Result<Payload> {
        ask(&self.instance, text).await
    }

    pub(crate) async fn close(&self) -> Result<()> {
        Ok(self.host.shutdown().await?)
    }
}
