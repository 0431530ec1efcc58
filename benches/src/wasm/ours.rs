//! Our side: a host with a gate, rates and a record on disk; and the backend alone.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use palisade_host::Host;
use palisade_model::Payload;
use palisade_protocol::{
    VersionRange,
    methods::{self, InitializeParams, Party, PluginName},
};
use palisade_sandbox::{
    Artifact, Backend, Calls, Content, Instance, Invocation, Prepared, Program, Runtime, ToolCall,
    Trace,
};
use palisade_wasm::{Options, PreparedCode, WasmBackend};
use serde_json::value::RawValue;

use crate::{
    host,
    plugin::{Identity, Result, Silent},
};

/// A folder with the component in it.
pub(crate) struct Folder {
    root: PathBuf,
    data: PathBuf,
    identity: Identity,
    _dir: tempfile::TempDir,
}

impl Folder {
    pub(crate) fn new(component: &[u8]) -> Result<Self> {
        Self::with_entry(component, "")
    }

    /// With more in the manifest's entry.
    fn with_entry(component: &[u8], more: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let real = dir.path().canonicalize()?;
        let (root, data) = (real.join("plugin"), real.join("data"));
        std::fs::create_dir_all(&root)?;
        std::fs::create_dir_all(data.join("state"))?;
        std::fs::write(root.join("plugin.wasm"), component)?;
        let entry = format!("kind = \"wasm\"\nfile = \"plugin.wasm\"\n{more}");
        let manifest = host::echo_manifest("bench", &entry);
        std::fs::write(root.join("plugin.toml"), manifest)?;
        let identity = Identity::of(&root)?;
        Ok(Self { root, data, identity, _dir: dir })
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

    /// Compiled code of the component, or what was kept of it on disk.
    pub(crate) async fn prepare(&self, backend: &WasmBackend) -> Result<Arc<dyn Prepared>> {
        Ok(backend.prepare(&self.artifact()).await?)
    }

    /// The same, as the backend itself knows it.
    pub(crate) async fn prepare_code(&self, backend: &WasmBackend) -> Result<PreparedCode> {
        Ok(backend.prepare_code(&self.artifact()).await?)
    }

    /// An instance that nobody has spoken with.
    pub(crate) async fn launch(&self, prepared: &dyn Prepared) -> Result<Arc<dyn Instance>> {
        Ok(prepared.launch(self.identity.launch(&self.data), Arc::new(Silent)).await?)
    }
}

/// A backend with room for `instances`, which compiles with Cranelift.
pub(crate) fn backend(instances: u32, state: &Path) -> WasmBackend {
    backend_with(Options::default().instances(instances).winch_from(u64::MAX), state)
}

/// A backend that keeps its code in `state`.
pub(crate) fn backend_with(options: Options, state: &Path) -> WasmBackend {
    let backend = WasmBackend::new(options);
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
        Self::open_in(folder).await
    }

    /// Each call gets an instance of its own.
    pub(crate) async fn open_per_call(component: &[u8]) -> Result<Self> {
        let folder = Folder::with_entry(component, "calls = \"per-call\"\n")?;
        Self::open_in(folder).await
    }

    async fn open_in(folder: Folder) -> Result<Self> {
        let host = host::open(&folder.data, Arc::new(backend(64, &folder.state()))).await?;
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

    /// Through the host, from a plugin that stands still to one that stands still again.
    pub(crate) async fn start_call_stop(&self, args: &RawValue) -> Result<Payload> {
        self.plugin.start().await?;
        let answer = self.call(args).await?;
        self.plugin.stop().await?;
        Ok(answer)
    }

    /// Ends the plugin, for now.
    pub(crate) async fn stop(&self) -> Result<()> {
        Ok(self.plugin.stop().await?)
    }

    pub(crate) async fn close(&self) -> Result<()> {
        Ok(self.host.shutdown().await?)
    }
}
