//! The plugin that is measured, in folders of its own, and what is needed to launch it.

use std::{
    error::Error,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use palisade_model::{
    ErrorCode, Failure, Generation, InstanceId, Limits, NodeId, Origin, Payload, PluginId,
    PluginRef,
};
use palisade_sandbox::{
    Artifact, BoxFuture, Content, HostCalls, HostRequest, Instance, Invocation, LaunchSpec,
    OutputStream, Program, Runtime, Trace,
};

/// What is sent in a call and comes back: 64 bytes of JSON.
pub(crate) const MESSAGE: &str =
    r#"{"text":"the quick brown fox jumps over the lazy dog, twice. ."}"#;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The compiled plugin in a temporary folder.
pub(crate) struct Plugin {
    /// Where it was built, if it was built by us.
    _dir: Option<tempfile::TempDir>,
    root: PathBuf,
    data: PathBuf,
    identity: Identity,
}

/// A plugin that is launched again and again.
pub(crate) struct Identity {
    reference: Arc<PluginRef>,
    serial: AtomicU64,
}

impl Identity {
    /// The plugin whose files are in `root`.
    pub(crate) fn of(root: &Path) -> Result<Self> {
        let origin = Origin::Folder { path: root.display().to_string(), owner: 0 };
        let reference = Arc::new(PluginRef { id: PluginId::parse("bench")?, origin });
        Ok(Self { reference, serial: AtomicU64::new(1) })
    }

    /// Its next launch: no rights, default limits, the default floor of guarantees.
    pub(crate) fn launch(&self, data: &Path) -> LaunchSpec {
        let instance = InstanceId {
            node: NodeId::local(),
            plugin: Arc::clone(&self.reference),
            generation: Generation(1),
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
        };
        LaunchSpec::new(instance, data, 65_000)
    }
}

impl Plugin {
    /// Compiles `plugin.c` statically with the machine's C compiler.
    pub(crate) fn build() -> Result<Self> {
        Self::build_from("plugin.c")
    }

    /// Compiles another program of this folder in its place.
    pub(crate) fn build_from(source: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        // The plugin's own user must be able to walk here.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
        let real = dir.path().canonicalize()?;
        let (root, data) = (real.join("plugin"), real.join("data"));
        std::fs::create_dir_all(&root)?;
        std::fs::create_dir_all(&data)?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        let status = Command::new("cc")
            .args([
                "-O2",
                "-static",
                "-nostdlib",
                "-ffreestanding",
                "-fno-stack-protector",
                "-fno-pie",
            ])
            .args(["-no-pie", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(root.join("plugin"))
            .arg(&source)
            .status()
            .map_err(|e| format!("cannot start the C compiler `cc`: {e}"))?;
        if !status.success() {
            return Err(format!("{} did not compile", source.display()).into());
        }
        Ok(Self { _dir: Some(dir), ..Self::at(&real)? })
    }

    /// One that another process has built in this folder.
    pub(crate) fn at(folder: &Path) -> Result<Self> {
        let (root, data) = (folder.join("plugin"), folder.join("data"));
        let identity = Identity::of(&root)?;
        Ok(Self { _dir: None, root, data, identity })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.root.join("plugin")
    }

    pub(crate) fn artifact(&self) -> Artifact {
        Artifact {
            content: Content { root: self.root.clone(), digest: [0; 32] },
            program: Program {
                runtime: Runtime::Native,
                file: "plugin".to_owned(),
                args: Vec::new(),
            },
            code: Vec::new(),
        }
    }

    /// A launch with time to start, whatever else the machine does.
    pub(crate) fn spec(&self) -> LaunchSpec {
        let limits = Limits { start_timeout: Duration::from_secs(20), ..Limits::default() };
        LaunchSpec { limits, ..self.identity.launch(&self.data) }
    }
}

/// A host that grants nothing; the measured plugin asks for nothing.
pub(crate) struct Silent;

impl HostCalls for Silent {
    fn request(
        &self,
        request: HostRequest,
    ) -> BoxFuture<'static, std::result::Result<Payload, Failure>> {
        Box::pin(async move {
            Err(Failure::new(ErrorCode::NotFound, format!("no method {}", request.method)))
        })
    }
    fn output(&self, _stream: OutputStream, _line: &str) {}
    fn output_dropped(&self, _bytes: u64) {}
}

/// The handshake, as the host would make it.
pub(crate) async fn initialize(instance: &Arc<dyn Instance>) -> Result<()> {
    let payload = Payload::from_json_text(r#"{"protocol":{"min":1,"max":1}}"#.to_owned());
    let invocation = Invocation {
        method: "initialize",
        payload,
        tool: None,
        deadline: Instant::now() + Duration::from_secs(20),
        trace: Trace::default(),
    };
    instance.lane().call(invocation).await.map(drop).map_err(Into::into)
}
