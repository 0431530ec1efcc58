//! The two backends: `process` with namespaces, `landlock` without.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use palisade_sandbox::{
    Artifact, Assessment, Backend, BoxFuture, Facts, HostCalls, Instance, LaunchSpec, OutputStream,
    Prepared, SandboxError, Unavailable, WayOut, Wire, stream,
};
use rustix::fs::{Mode, OFlags, open};
use tokio::sync::OnceCell;

use crate::{
    assess::assess,
    cgroup::{self, Group},
    ends::{Ends, dev_null},
    instance::{self, ProcessInstance, Shared},
    layout::{self, Inputs},
    observe::{self, Observing},
    output,
    plan::{Plan, PlanBuilder},
    probe::Machine,
    runtime::{self, Needs},
    spawner::Spawner,
    status::{Report, Status},
    watched::watched,
    way_out,
};

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
                let with_cgroups = self.options.cgroups;
                let look = move || {
                    // Before the spawner is started: in a delegated version 2 cgroup only a process that is
                    // alone there can step aside, and the spawner must follow it.
                    if with_cgroups {
                        let _ = cgroup::of_this_process();
                    }
                    Machine::look()
                };
                let mut machine =
                    tokio::task::spawn_blocking(look).await.unwrap_or_else(|_| Machine::look());
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
        let cgroups = self.cgroups();
        assess(spec, machine, self.namespaces, cgroups.as_ref().map(|c| c.hierarchy()))
    }
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
            code: &self.artifact.code,
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
        let observing = observe::of(&inputs, core.namespaces)?
            .map(|o| Observing { policy_kill: Arc::clone(&shared.policy_kill), ..o });
        let way_out = started_up(&shared, &plan, spec.limits.start_timeout, observing).await?;
        if let Some(way) = way_out {
            serve_way_out(&shared, way, &host);
        }
        let rate = spec.limits.log_bytes_per_second;
        if let Some(stdout) = stdout {
            tokio::spawn(output::forward(stdout, OutputStream::Stdout, rate, Arc::clone(&host)));
        }
        tokio::spawn(output::forward(stderr, OutputStream::Stderr, rate, Arc::clone(&host)));
        let watching = |e| SandboxError::step("watching the plugin's lane", e);
        let told = Arc::clone(&host);
        let stream = match (&spec.wire, ours) {
            (Wire::Jsonl(config), (to_plugin, Some(from_plugin))) => {
                stream::jsonl(to_plugin, from_plugin, config.clone(), host).map_err(watching)?
            }
            (Wire::Bytes(wire), (to_plugin, Some(from_plugin))) => {
                stream::bytes(to_plugin, from_plugin, wire).map_err(watching)?
            }
            (Wire::Mcp(config), (to_plugin, Some(from_plugin))) => {
                stream::mcp(to_plugin, from_plugin, config, host).map_err(watching)?
            }
            (_, (socket, _)) => stream::native(socket, host).map_err(watching)?,
        };
        // The conversation has a task of its own: nothing that the watcher does may delay an answer.
        let end = tokio::spawn(stream.end);
        tokio::spawn(instance::watch(Arc::clone(&shared), end, spec.limits.memory, told));
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

/// Has the host serve the way out for as long as the instance lives.
fn serve_way_out(shared: &Arc<Shared>, way: WayOut, host: &Arc<dyn HostCalls>) {
    let serving = host.egress(way);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        tokio::select! {
            () = serving => {}
            _ = shared.ended() => {}
        }
    });
}

/// Waits until the walls stand and the program runs. Gives the way out, if there is one.
async fn started_up(
    shared: &Shared,
    plan: &Plan,
    timeout: std::time::Duration,
    mut observing: Option<Observing>,
) -> Result<Option<WayOut>, SandboxError> {
    let mut way_out = way_out::Arriving::default();
    let steps = async {
        loop {
            match shared
                .status
                .next()
                .await
                .map_err(|e| SandboxError::step("reading pid 1's report", e))?
            {
                // The program's exec waited for the observer, so it is there if it was asked for.
                Report::Running if observing.is_none() => {
                    return way_out
                        .complete()
                        .map_err(|e| SandboxError::step("preparing the way out", e));
                }
                Report::Running => {
                    return Err(SandboxError::Helper("started a program unobserved".into()));
                }
                Report::Listener(listener) => {
                    if let Some(observing) = observing.take() {
                        let step = |e| SandboxError::step("starting the observer", e);
                        observing.serve(listener).map_err(step)?;
                    }
                }
                Report::Egress { socket, purpose } => way_out.take(purpose, socket),
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
