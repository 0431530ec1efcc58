//! One program of a package client behind walls: a folder to work in, a way to the registries, and its
//! words.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use palisade_egress::{
    AddressPolicy, Guard,
    proxy::{Limits as ProxyLimits, Proxy},
};
use palisade_model::{
    CapabilitySet, ErrorCode, Failure, Generation, GuaranteeSet, InstanceId, NodeId, Origin,
    Payload, PluginId, PluginRef, text::escape,
};
use palisade_sandbox::{
    Artifact, BoxFuture, Content, Exit, HostCalls, HostRequest, LaunchSpec, OutputStream, Program,
    Runtime, WayOut, Wire, stream::ByteWire,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    sync::mpsc,
};

use super::{Options, Watch, reach::Reach};
use crate::CommandError;

/// Most lines that are remembered for an error message.
const LAST_LINES: usize = 60;
/// Longest line that is read at once.
const MAX_LINE: u64 = 8 * 1024;
/// How long the rest of a log may take to be read when its writer has ended.
const LOG: Duration = Duration::from_secs(2);
static SERIAL: AtomicU64 = AtomicU64::new(1);

/// What is to be run.
pub(super) struct Job<'a> {
    pub(super) package: &'a str,
    /// An absolute path.
    pub(super) program: &'a Path,
    pub(super) args: Vec<String>,
    pub(super) code: Vec<PathBuf>,
    pub(super) env: BTreeMap<String, String>,
    /// `/plugin` inside.
    pub(super) input: &'a Path,
    /// `/data` inside, and the working directory.
    pub(super) data: &'a Path,
    /// Where it may go; `None`: nowhere.
    pub(super) reach: Option<Arc<Reach>>,
    /// Programs that it may start.
    pub(super) programs: Vec<PathBuf>,
    pub(super) deadline: Instant,
}

/// How a program ended, and the last of its words.
pub(super) struct Outcome {
    pub(super) exit: Exit,
    pub(super) lines: Vec<String>,
}

/// What a program said.
struct Words {
    watch: Arc<dyn Watch>,
    lines: Mutex<VecDeque<String>>,
}

/// What is done for the program. Whoever reads its log holds it to the end of that.
struct Calls {
    reach: Option<Arc<Reach>>,
    words: Arc<Words>,
    _held: mpsc::Sender<()>,
}

impl Words {
    fn line(&self, line: &str) {
        let line = escape(line.trim_end(), 500);
        if line.is_empty() {
            return;
        }
        self.watch.line(&line);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

impl HostCalls for Calls {
    fn request(&self, _request: HostRequest) -> BoxFuture<'static, Result<Payload, Failure>> {
        let refused = Failure::new(ErrorCode::NotFound, "a package client has nothing to ask for");
        Box::pin(std::future::ready(Err(refused)))
    }

    fn output(&self, _stream: OutputStream, line: &str) {
        self.words.line(line);
    }

    fn output_dropped(&self, bytes: u64) {
        tracing::debug!(bytes, "a package client wrote faster than its log rate");
    }

    fn egress(&self, way: WayOut) -> BoxFuture<'static, ()> {
        let Some(reach) = self.reach.clone() else { return Box::pin(std::future::ready(())) };
        Box::pin(async move {
            let listener = match tokio::net::TcpListener::from_std(way.proxy) {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::warn!(%error, "the way out of the resolve step cannot be served");
                    return;
                }
            };
            // Names are resolved and addresses checked by the guard; what else the way out offers is for
            // programs that know no proxy, which package clients do.
            let proxy = Proxy::new(Guard::new(AddressPolicy::new()), ProxyLimits::default());
            proxy.serve(listener, reach).await;
        })
    }
}

impl Job<'_> {
    /// Runs it to its end.
    pub(super) async fn run(
        self,
        options: &Options,
        watch: Arc<dyn Watch>,
    ) -> Result<Outcome, CommandError> {
        let deadline = self.deadline;
        let package = self.package.to_owned();
        let seconds = options.deadline.as_secs();
        let late = || CommandError::Deadline { package: package.clone(), seconds };
        let left = deadline.saturating_duration_since(Instant::now());
        let words = Arc::new(Words { watch, lines: Mutex::default() });
        let (held, mut log_is_read) = mpsc::channel(1);
        let calls = Calls { reach: self.reach.clone(), words: Arc::clone(&words), _held: held };
        let (wire, ends) = ByteWire::new();
        let spec = self.spec(options, wire)?;
        let artifact = Artifact {
            content: Content { root: real(self.input)?, digest: [0; 32] },
            program: Program {
                runtime: Runtime::Native,
                file: crate::analyse::utf8(self.program)?,
                args: self.args,
            },
            code: crate::node::outermost(self.code),
        };
        // Whoever asked for the package did not ask for everybody's files.
        fs::set_permissions(self.data, fs::Permissions::from_mode(0o700))
            .map_err(|e| CommandError::cache("preparing the job's folder", e))?;
        let chosen = options.walls.resolve(&spec, None).await?;
        let prepared = chosen.backend.prepare(&artifact).await?;
        let instance = prepared.launch(spec, Arc::new(calls)).await?;
        let run = async {
            // The ends come before launch returns, or not at all.
            if let Ok(mut ends) = ends.await {
                drop(ends.to);
                let mut reader = BufReader::new(&mut ends.from);
                let mut line = Vec::new();
                while let Ok(1..) = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await
                {
                    words.line(&String::from_utf8_lossy(&line));
                    line.clear();
                }
                let exit = instance.wait().await;
                drop(ends.finished);
                return exit;
            }
            instance.wait().await
        };
        let exit = match tokio::time::timeout(left, run).await {
            Ok(exit) => exit,
            Err(_) => {
                instance
                    .kill(palisade_sandbox::KillReason::Deadline(
                        palisade_sandbox::Deadline::Lifetime,
                    ))
                    .await;
                return Err(late());
            }
        };
        drop(instance);
        let _ = tokio::time::timeout(LOG, log_is_read.recv()).await;
        let lines =
            std::mem::take(&mut *words.lines.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Outcome { exit, lines: lines.into() })
    }

    fn spec(&self, options: &Options, wire: ByteWire) -> Result<LaunchSpec, CommandError> {
        let internal = |e: &dyn std::fmt::Display| {
            CommandError::cache("describing the job", std::io::Error::other(e.to_string()))
        };
        let mut rights = CapabilitySet::new();
        for authority in self.reach.iter().flat_map(|r| &r.authorities) {
            rights.insert(format!("net.http:{authority}").parse().map_err(|e| internal(&e))?);
        }
        for program in &self.programs {
            let right = format!("exec:{}", program.display());
            rights.insert(right.parse().map_err(|e| internal(&e))?);
        }
        let plugin = PluginRef {
            id: PluginId::parse("resolve-step").map_err(|e| internal(&e))?,
            origin: Origin::Folder { path: self.data.to_string_lossy().into_owned(), owner: 0 },
        };
        Ok(LaunchSpec {
            instance: InstanceId {
                node: NodeId::local(),
                plugin: Arc::new(plugin),
                generation: Generation(1),
                serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            },
            rights: Arc::new(rights),
            limits: options.limits.clone(),
            demand: GuaranteeSet::default_floor(),
            wire: Wire::Bytes(wire),
            data: real(self.data)?,
            slot: options.slot,
            env: self.env.clone(),
            workdir: Some("/data".into()),
            observe: None,
        })
    }
}

fn real(path: &Path) -> Result<PathBuf, CommandError> {
    path.canonicalize().map_err(|e| CommandError::cache("finding the job's folder", e))
}

/// How long a job may take that needs no network.
pub(super) fn until(options: &Options) -> Instant {
    Instant::now() + options.deadline.max(Duration::from_secs(1))
}
