//! The two backends: `process` with namespaces, `landlock` without.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use palisade_model::{Guarantee, Level};
use palisade_sandbox::{
    Artifact, Assessment, Backend, BoxFuture, Facts, HostCalls, Instance, LaunchSpec, OutputStream,
    Prepared, SandboxError, Unavailable, Wire, stream,
};
use rustix::{
    fs::{Mode, OFlags, open},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    pipe::{PipeFlags, pipe_with},
};
use tokio::sync::OnceCell;

use crate::{
    cgroup::{self, Group},
    instance::{self, ProcessInstance, Shared},
    layout::{self, Inputs},
    output,
    plan::{Plan, PlanBuilder},
    probe::Machine,
    runtime::{self, Needs},
    spawner::Spawner,
    status::{Report, Status},
    watched::watched,
};

/// How far memory can overshoot its limit where it is sampled, in bytes: what two cores can touch between
/// two samples on the machines that this was measured on, doubled. `cargo xtask escape` attacks it.
pub const POLICED_MEMORY_OVERSHOOT: u64 = 256 << 20;

/// Choices of the operator that every launch shares.
#[derive(Clone, Debug)]
pub struct Options {
    /// Started by root: the first host user id for plugins. Each gets this plus its slot, as user and as
    /// group. The default range, 1879048192 to 1879113727, lies above what systemd gives to containers.
    pub first_uid: u32,
    /// Whether cgroups may be used. Off: limits are policed even where the kernel could hold them.
    pub cgroups: bool,
    /// A layer to leave out, to see whether the next one holds.
    #[cfg(feature = "ablation")]
    pub without: Option<Layer>,
}

/// A layer of the walls that a test can take away.
#[cfg(feature = "ablation")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The system call filter.
    Seccomp,
    /// The Landlock ruleset.
    Landlock,
}

#[cfg(all(feature = "ablation", not(debug_assertions)))]
compile_error!(
    "the feature `ablation` weakens the walls and exists for tests only; do not release with it"
);

impl Options {
    /// Whether the system call filter is built.
    pub(crate) fn has_seccomp(&self) -> bool {
        #[cfg(feature = "ablation")]
        return self.without != Some(Layer::Seccomp);
        #[cfg(not(feature = "ablation"))]
        true
    }

    /// Whether the Landlock ruleset is built.
    pub(crate) fn has_landlock(&self) -> bool {
        #[cfg(feature = "ablation")]
        return self.without != Some(Layer::Landlock);
        #[cfg(not(feature = "ablation"))]
        true
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            first_uid: 0x7000_0000,
            cgroups: true,
            #[cfg(feature = "ablation")]
            without: None,
        }
    }
}

/// What both backends share: the machine's facts and the spawner.
struct Core {
    name: &'static str,
    options: Options,
    namespaces: bool,
    machine: OnceCell<Machine>,
    facts: OnceCell<Arc<Facts>>,
    spawner: tokio::sync::Mutex<Option<Arc<Spawner>>>,
}

/// Backend `process`: user, pid, mount, net, ipc, uts and cgroup namespaces, a new root, seccomp, Landlock,
/// resource limits.
pub struct ProcessBackend(Arc<Core>);

/// Backend `landlock`: for machines that forbid user namespaces. Landlock, a filter without sockets, and
/// resource limits; the plugin sees the host's paths (but cannot read them) and process numbers.
pub struct LandlockBackend(Arc<Core>);

impl ProcessBackend {
    /// A backend with these options. It belongs to the tokio runtime that first uses it.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self(Arc::new(Core::new("process", options, true)))
    }
}

impl LandlockBackend {
    /// As [`ProcessBackend::new`].
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self(Arc::new(Core::new("landlock", options, false)))
    }
}

macro_rules! delegate {
    ($backend:ty) => {
        impl Backend for $backend {
            fn name(&self) -> &'static str {
                self.0.name
            }
            fn probe(&self) -> BoxFuture<'_, Arc<Facts>> {
                Box::pin(self.0.facts())
            }
            fn assess<'a>(&'a self, spec: &'a LaunchSpec) -> BoxFuture<'a, Assessment> {
                Box::pin(async { self.0.assess(Some(spec), self.0.machine().await) })
            }
            fn prepare<'a>(
                &'a self,
                artifact: &'a Artifact,
            ) -> BoxFuture<'a, Result<Arc<dyn Prepared>, SandboxError>> {
                Box::pin(async {
                    let wanted = artifact.clone();
                    let needs = tokio::task::spawn_blocking(move || runtime::resolve(&wanted))
                        .await
                        .map_err(|e| {
                            SandboxError::Helper(format!("could not be prepared: {e}"))
                        })??;
                    let prepared = PreparedProcess {
                        core: Arc::clone(&self.0),
                        artifact: artifact.clone(),
                        needs,
                    };
                    Ok(Arc::new(prepared) as Arc<dyn Prepared>)
                })
            }
        }
    };
}
delegate!(ProcessBackend);
delegate!(LandlockBackend);

impl Core {
    fn new(name: &'static str, options: Options, namespaces: bool) -> Self {
        Self {
            name,
            options,
            namespaces,
            machine: OnceCell::new(),
            facts: OnceCell::new(),
            spawner: tokio::sync::Mutex::new(None),
        }
    }

    async fn spawner(&self) -> Result<Arc<Spawner>, SandboxError> {
        let mut slot = self.spawner.lock().await;
        if let Some(spawner) = slot.as_ref() {
            return Ok(Arc::clone(spawner));
        }
        let spawner = Arc::new(Spawner::start().await?);
        *slot = Some(Arc::clone(&spawner));
        Ok(spawner)
    }

    /// Forgets a spawner that does not answer; the next launch starts another.
    async fn forget_spawner(&self) {
        *self.spawner.lock().await = None;
    }

    async fn machine(&self) -> &Machine {
        self.machine
            .get_or_init(|| async {
                let mut machine = tokio::task::spawn_blocking(Machine::look)
                    .await
                    .unwrap_or_else(|_| Machine::look());
                if self.namespaces {
                    machine.namespaces = self.trial(&machine).await.err().map(|e| e.to_string());
                }
                machine
            })
            .await
    }

    /// Builds real walls around nothing, to see whether this machine lets us.
    async fn trial(&self, machine: &Machine) -> Result<(), SandboxError> {
        let spawner = self.spawner().await?;
        let plan = trial_plan(machine, &self.options)?;
        let (status, theirs) = Status::pair()?;
        let null = dev_null()?;
        let ends = [theirs.as_fd(), null.as_fd(), null.as_fd(), null.as_fd(), null.as_fd()];
        let started = spawner.launch(&plan, &ends).await?;
        drop(theirs);
        let report =
            tokio::time::timeout(std::time::Duration::from_secs(5), status.next())
                .await
                .map_err(|_| SandboxError::Helper("did not build trial walls within 5 s".into()))?;
        drop(started);
        match report.map_err(|e| SandboxError::step("reading pid 1's report", e))? {
            Report::WallsUp => Ok(()),
            Report::Failed { errno, place } => Err(plan.failure(place, errno)),
            _ => Err(SandboxError::Helper("ended while building trial walls".into())),
        }
    }

    async fn facts(&self) -> Arc<Facts> {
        let machine = self.machine().await;
        Arc::clone(
            self.facts
                .get_or_init(|| async {
                    let unavailable = if self.namespaces {
                        machine.namespaces.as_ref().map(|why| Unavailable {
                            reason: format!("the namespaces cannot be built: {why}"),
                            remedy: machine.namespace_remedy(),
                        })
                    } else if machine.landlock == 0 {
                        Some(Unavailable {
                            reason: "Landlock is not enabled in this kernel".into(),
                            remedy: "add landlock to the lsm= kernel parameter, or use a kernel with Landlock".into(),
                        })
                    } else {
                        None
                    };
                    let guarantees = match &unavailable {
                        Some(_) => palisade_model::GuaranteeSet::new(),
                        None => self.assess(None, machine).guarantees,
                    };
                    Arc::new(Facts { unavailable, guarantees, findings: machine.findings() })
                })
                .await,
        )
    }

    fn cgroups(&self) -> Option<Arc<cgroup::Cgroups>> {
        self.options.cgroups.then(cgroup::of_this_process)
    }

    /// What a launch would be guaranteed; without a spec, one that weakens nothing.
    fn assess(&self, spec: Option<&LaunchSpec>, machine: &Machine) -> Assessment {
        let mut a = Assessment::default();
        if let Some(spec) = spec {
            a.unsupported = spec
                .rights
                .iter()
                .filter_map(|r| layout::unsupported(r).map(|why| (r.clone(), why)))
                .collect();
        }
        use Guarantee as G;
        use Level::{Kernel, None as Not, Policed};
        if self.namespaces {
            let landlock = if machine.landlock > 0 { "; Landlock behind it" } else { "" };
            a.hold(G::FsIsolated, Kernel, format!("a mount namespace with a new root{landlock}"));
            a.hold(G::NetIsolated, Kernel, "a network namespace without interfaces");
            a.hold(
                G::IpcIsolated,
                Kernel,
                "IPC and network namespaces; no path-named socket is visible",
            );
            a.hold(G::PeersIsolated, Kernel, "a pid namespace with its own /proc");
            a.hold(
                G::DiesWithHost,
                Kernel,
                "a pid namespace whose init ends with the host's socket",
            );
        } else {
            a.weaken(
                G::FsIsolated,
                Not,
                "Landlock alone does not cover stat, chmod, utimes and chdir",
            );
            a.hold(G::NetIsolated, Kernel, "the filter lets no socket be made");
            a.hold(
                G::IpcIsolated,
                Kernel,
                "the filter refuses System V IPC, message queues and sockets",
            );
            if machine.landlock >= 6 {
                a.weaken(
                    G::PeersIsolated,
                    Not,
                    "Landlock keeps signals in, but process numbers of others are visible",
                );
            } else {
                a.weaken(G::PeersIsolated, Not, "this Landlock cannot keep signals in");
            }
            a.hold(
                G::DiesWithHost,
                Policed,
                "pid 1 reaps and kills orphans; a pid namespace would leave that to the kernel",
            );
        }
        a.hold(G::SyscallsFiltered, Kernel, "seccomp, by allow-list");
        if machine.privileged {
            a.hold(G::OwnUid, Kernel, "a user id of its own");
        } else {
            a.weaken(
                G::OwnUid,
                Not,
                "all plugins share the user's id; only root can give them their own",
            );
        }
        let cgroups = self.cgroups();
        let h = cgroups.as_ref().map(|c| c.hierarchy());
        let version =
            if h.is_some_and(cgroup::Hierarchy::is_unified) { "cgroup v2" } else { "cgroup v1" };
        if h.is_some_and(cgroup::Hierarchy::has_memory) {
            a.hold(G::MemoryCapped, Kernel, version);
        } else if self.namespaces {
            let mib = POLICED_MEMORY_OVERSHOOT >> 20;
            a.hold(
                G::MemoryCapped,
                Policed,
                format!("sampled every 5 to 20 ms; may overshoot by up to {mib} MiB"),
            );
        } else {
            a.weaken(G::MemoryCapped, Not, "no cgroup, and /proc is not the plugin's alone");
        }
        if h.is_some_and(cgroup::Hierarchy::has_pids) {
            a.hold(G::PidsCapped, Kernel, version);
        } else if self.namespaces || machine.privileged {
            a.hold(
                G::PidsCapped,
                Kernel,
                "RLIMIT_NPROC, counted in a user namespace or for a user of its own",
            );
        } else {
            a.weaken(G::PidsCapped, Not, "RLIMIT_NPROC would count all processes of the user");
        }
        if h.is_some_and(cgroup::Hierarchy::has_cpu) {
            a.hold(G::CpuCapped, Kernel, version);
        } else if self.namespaces {
            a.hold(
                G::CpuCapped,
                Policed,
                "stopped and continued every 5 ms to hold the share over 0.1 s",
            );
        } else {
            a.weaken(G::CpuCapped, Not, "no cgroup");
        }
        a.hold(
            G::DiskCapped,
            Policed,
            "the data folder is measured every 0.25 s; /tmp is capped by the kernel",
        );
        a
    }
}

fn dev_null() -> Result<OwnedFd, SandboxError> {
    open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| SandboxError::step("opening /dev/null", e))
}

/// The smallest walls: everything but a program.
fn trial_plan(machine: &Machine, options: &Options) -> Result<Plan, SandboxError> {
    use crate::plan::format::{switch, word};
    const NEW: u64 = 0x7e02_0000;
    let mut words = [0u64; word::COUNT];
    let (uid, gid) = if machine.privileged {
        (options.first_uid.saturating_add(65_535), options.first_uid.saturating_add(65_535))
    } else {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    };
    let privileged = if machine.privileged { switch::PRIVILEGED } else { 0 };
    for (index, value) in [
        (word::CLONE_FLAGS, NEW),
        (word::SWITCHES, switch::NEW_ROOT | switch::ONLY_WALLS | privileged),
        (word::HOST_UID, uid.into()),
        (word::HOST_GID, gid.into()),
        (word::INSIDE_UID, 1000),
        (word::INSIDE_GID, 1000),
    ] {
        if let Some(slot) = words.get_mut(index) {
            *slot = value;
        }
    }
    let mut plan = PlanBuilder::new();
    plan.config(words);
    plan.dir("/proc", 0o755);
    plan.dir("/tmp", 0o755);
    plan.tmpfs("/tmp", 1 << 20, 64, 0o1777, 0xe);
    plan.hostname("palisade");
    plan.finish()
}

struct PreparedProcess {
    core: Arc<Core>,
    artifact: Artifact,
    needs: Needs,
}

impl Prepared for PreparedProcess {
    fn launch(
        &self,
        spec: LaunchSpec,
        host: Arc<dyn HostCalls>,
    ) -> BoxFuture<'_, Result<Arc<dyn Instance>, SandboxError>> {
        Box::pin(self.launch_walls(spec, host))
    }
}

/// The plugin's side of the handles, and ours.
struct Ends {
    status: Status,
    stdout: Option<tokio::net::unix::pipe::Receiver>,
    stderr: tokio::net::unix::pipe::Receiver,
    /// The conversation's handles: a socket, or stdin and stdout.
    ours: (OwnedFd, Option<OwnedFd>),
    theirs: Vec<OwnedFd>,
}

impl Ends {
    fn open(wire: &Wire) -> Result<Self, SandboxError> {
        let (status, their_status) = Status::pair()?;
        let (stderr, their_stderr) = output::pipe()?;
        let step = |e| SandboxError::step("making the plugin's handles", e);
        match wire {
            Wire::Native => {
                let (stdout, their_stdout) = output::pipe()?;
                let (ours, lane) =
                    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                        .map_err(step)?;
                let theirs = vec![their_status, dev_null()?, their_stdout, their_stderr, lane];
                Ok(Self { status, stdout: Some(stdout), stderr, ours: (ours, None), theirs })
            }
            Wire::Jsonl(_) | Wire::Mcp(_) => {
                let (stdin, to_plugin) = pipe_with(PipeFlags::CLOEXEC).map_err(step)?;
                let (from_plugin, their_stdout) = pipe_with(PipeFlags::CLOEXEC).map_err(step)?;
                let theirs = vec![their_status, stdin, their_stdout, their_stderr];
                Ok(Self {
                    status,
                    stdout: None,
                    stderr,
                    ours: (to_plugin, Some(from_plugin)),
                    theirs,
                })
            }
            _ => Err(SandboxError::Artifact {
                what: "this backend does not speak the plugin's wire".into(),
                hint: "use another backend".into(),
            }),
        }
    }

    /// In the order that the helper expects. Without a lane of its own, stdin's number stands in for it.
    fn borrowed(&self) -> Vec<BorrowedFd<'_>> {
        let mut all: Vec<BorrowedFd<'_>> = self.theirs.iter().map(AsFd::as_fd).collect();
        if all.len() == 4
            && let Some(stdin) = self.theirs.get(1)
        {
            all.push(stdin.as_fd());
        }
        all
    }
}

impl PreparedProcess {
    async fn launch_walls(
        &self,
        spec: LaunchSpec,
        host: Arc<dyn HostCalls>,
    ) -> Result<Arc<dyn Instance>, SandboxError> {
        let core = &self.core;
        let machine = core.machine().await;
        let achieved = core.assess(Some(&spec), machine);
        if let Some((capability, why)) = achieved.unsupported.first() {
            return Err(SandboxError::Unsupported {
                capability: capability.to_string(),
                why: why.clone(),
            });
        }
        let mut spawner = core.spawner().await?;
        let cgroups = core.cgroups();
        let group = match &cgroups {
            Some(cgroups) => cgroups
                .create(&spec.limits)
                .map_err(|e| SandboxError::step("making the plugin's cgroup", e))?,
            None => None,
        };
        let mut needs = self.needs.clone();
        layout::programs(&mut needs, &spec)?;
        let default_hierarchy = cgroup::Hierarchy::default();
        let inputs = Inputs {
            spec: &spec,
            needs: &needs,
            content: &self.artifact.content.root,
            machine,
            options: &core.options,
            cgroups: cgroups.as_ref().map_or(&default_hierarchy, |c| c.hierarchy()),
            grouped: group.is_some(),
        };
        own_data_folder(&inputs)?;
        let plan = if core.namespaces {
            layout::namespaced(&inputs)?
        } else {
            layout::landlocked(&inputs)?
        };
        let ends = Ends::open(&spec.wire)?;
        let groups = match &group {
            Some(group) => group_handles(group)?,
            None => Vec::new(),
        };
        let mut handles = ends.borrowed();
        handles.extend(groups.iter().map(AsFd::as_fd));
        let started = match spawner.launch(&plan, &handles).await {
            Err(SandboxError::Helper(_)) => {
                // Somebody killed it (with it all its plugins ended). A new one, once.
                core.forget_spawner().await;
                spawner = core.spawner().await?;
                spawner.launch(&plan, &handles).await?
            }
            other => other?,
        };
        drop(handles);
        let Ends { status, stdout, stderr, ours, theirs } = ends;
        drop(theirs);
        let pidfd = watched(started).map_err(|e| SandboxError::step("watching pid 1", e))?;
        // Whatever fails from here on, dropping `shared` closes the status socket, and pid 1 ends.
        let shared = Arc::new(Shared::new(
            status,
            pidfd,
            group,
            core.namespaces,
            spec.data.clone(),
            spec.limits.disk,
            spawner,
        ));
        started_up(&shared, &plan, spec.limits.start_timeout).await?;
        let rate = spec.limits.log_bytes_per_second;
        if let Some(stdout) = stdout {
            tokio::spawn(output::forward(stdout, OutputStream::Stdout, rate, Arc::clone(&host)));
        }
        tokio::spawn(output::forward(stderr, OutputStream::Stderr, rate, Arc::clone(&host)));
        let watching = |e| SandboxError::step("watching the plugin's lane", e);
        let stream = match (&spec.wire, ours) {
            (Wire::Jsonl(config), (to_plugin, Some(from_plugin))) => {
                stream::jsonl(to_plugin, from_plugin, config.clone(), host).map_err(watching)?
            }
            (Wire::Mcp(config), (to_plugin, Some(from_plugin))) => {
                stream::mcp(to_plugin, from_plugin, config, host).map_err(watching)?
            }
            (_, (socket, _)) => stream::native(socket, host).map_err(watching)?,
        };
        // The conversation has a task of its own: nothing that the watcher does may delay an answer.
        let end = tokio::spawn(stream.end);
        tokio::spawn(instance::watch(Arc::clone(&shared), end, spec.limits.memory));
        let instance = ProcessInstance {
            id: spec.instance,
            shared,
            lane: stream.lane,
            achieved,
            rights: spec.rights,
        };
        // What was demanded is checked against what was achieved once more, after the fact.
        let missing = instance.achieved.guarantees.missing(&spec.demand);
        if let Some((guarantee, want, have)) = missing.first() {
            instance.kill(palisade_sandbox::KillReason::WallTooWeak).await;
            return Err(SandboxError::WallTooWeak(format!(
                "{guarantee} is {have}, demanded {want}"
            )));
        }
        Ok(Arc::new(instance))
    }
}

/// What lets pid 1 into its groups: the folder that it is cloned into, or the files that it enters by.
fn group_handles(group: &Group) -> Result<Vec<OwnedFd>, SandboxError> {
    let step = |e: std::io::Error| SandboxError::step("opening the plugin's cgroup", e);
    match group.unified_folder() {
        Some(path) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok(vec![open(&path, flags, Mode::empty()).map_err(|e| step(e.into()))?])
        }
        None => group.tasks().map_err(step),
    }
}

/// Waits until the walls stand and the program runs.
async fn started_up(
    shared: &Shared,
    plan: &Plan,
    timeout: std::time::Duration,
) -> Result<(), SandboxError> {
    let steps = async {
        loop {
            match shared
                .status
                .next()
                .await
                .map_err(|e| SandboxError::step("reading pid 1's report", e))?
            {
                Report::Running => return Ok(()),
                Report::Failed { errno, place } => return Err(plan.failure(place, errno)),
                Report::Gone => {
                    return Err(SandboxError::Helper("ended while building the walls".into()));
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(timeout, steps).await.unwrap_or_else(|_| {
        Err(SandboxError::Helper(format!("did not build the walls within {timeout:?}")))
    })
}

/// Gives the data folder to the plugin's user, where plugins have users of their own.
fn own_data_folder(inputs: &Inputs<'_>) -> Result<(), SandboxError> {
    if !inputs.machine.privileged {
        return Ok(());
    }
    let (uid, gid) = inputs.host_ids();
    let step = |e: std::io::Error| SandboxError::step("giving the data folder to the plugin", e);
    let path: &PathBuf = &inputs.spec.data;
    let meta = std::fs::symlink_metadata(path).map_err(step)?;
    if std::os::unix::fs::MetadataExt::uid(&meta) != uid {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(step)?;
    }
    Ok(())
}
