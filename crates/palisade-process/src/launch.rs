//! One launch: the plan, the walls, the program in them, and the handle that the host gets.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use palisade_dialect::jsonl::Lifecycle;
use palisade_sandbox::{
    Artifact, BoxFuture, HostCalls, Instance, LaunchSpec, OutputStream, Prepared, SandboxError,
    WayOut, Wire, stream,
};
use tokio::{io::unix::AsyncFd, net::unix::pipe};

use crate::{
    assess::is_no_jit,
    backend::Core,
    cgroup::{Cgroups, Group, Hierarchy},
    ends::Ends,
    instance::{self, ProcessInstance, Shared},
    layout::{self, Inputs},
    observe::{self, Observing},
    output,
    pace::Pace,
    plan::{Plan, format::command},
    probe::Machine,
    runtime::Needs,
    spares::{self, Spares},
    spawner::Spawner,
    status::{Report, Status},
    steps::Steps,
    watched::watched,
    way_out,
};

/// How long after a launch what later ones may need is made: the program's first answer comes first.
const AFTERWARDS: Duration = Duration::from_millis(2);

/// A program that can be launched many times.
pub(crate) struct PreparedProcess(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    artifact: Artifact,
    needs: Needs,
    spares: Spares,
    refilling: tokio::sync::Mutex<()>,
}

/// Walls, and all that was made for them.
pub(crate) struct Walls {
    pub(crate) plan: Plan,
    pub(crate) pidfd: AsyncFd<OwnedFd>,
    status: Status,
    way_out: way_out::Arriving,
    stdout: Option<pipe::Receiver>,
    stderr: pipe::Receiver,
    ours: (OwnedFd, Option<OwnedFd>),
    group: Option<Group>,
    spawner: Arc<Spawner>,
}

impl PreparedProcess {
    pub(crate) fn new(core: Arc<Core>, artifact: Artifact, needs: Needs) -> Self {
        Self(Arc::new(Inner {
            core,
            artifact,
            needs,
            spares: Spares::default(),
            refilling: tokio::sync::Mutex::default(),
        }))
    }
}

impl Prepared for PreparedProcess {
    fn launch(
        &self,
        spec: LaunchSpec,
        host: Arc<dyn HostCalls>,
    ) -> BoxFuture<'_, Result<Arc<dyn Instance>, SandboxError>> {
        Box::pin(self.0.launch(spec, host))
    }
}

impl Inner {
    /// What the plan is made of. `needs` and `hierarchy` are the caller's, because it borrows them.
    fn inputs<'a>(
        &'a self,
        spec: &'a LaunchSpec,
        needs: &'a Needs,
        hierarchy: &'a Hierarchy,
        machine: &'a Machine,
        timed: bool,
    ) -> Inputs<'a> {
        Inputs {
            spec,
            needs,
            content: &self.artifact.content.root,
            code: &self.artifact.code,
            machine,
            options: &self.core.options,
            cgroups: hierarchy,
            grouped: hierarchy.has_any(),
            timed,
        }
    }

    fn plan(&self, inputs: &Inputs<'_>) -> Result<Plan, SandboxError> {
        own_data_folder(inputs)?;
        if self.core.namespaces { layout::namespaced(inputs) } else { layout::landlocked(inputs) }
    }

    /// Asks for walls with this plan: pid 1 exists when this returns. Without a pace it waits to be told to start
    /// the program.
    async fn build(
        &self,
        spec: &LaunchSpec,
        plan: Plan,
        cgroups: Option<&Arc<Cgroups>>,
        pace: Option<&Pace>,
        steps: &mut Steps,
    ) -> Result<Walls, SandboxError> {
        let core = &self.core;
        let mut spawner = core.spawner().await?;
        let (group, entries) = match cgroups {
            Some(cgroups) => core.groups.take_or_make(cgroups, &spec.limits)?,
            None => (None, Vec::new()),
        };
        if let (true, Some(group)) = (spec.has_way_out(), &group) {
            group
                .cap_sockets(&spec.limits)
                .map_err(|e| SandboxError::step("capping the plugin's sockets", e))?;
        }
        if let (Some(group), Some(pace)) = (&group, pace) {
            pace.begin(group);
        }
        steps.done("host: cgroups");
        let is_held = pace.is_none();
        let ends = Ends::open(&spec.wire)?;
        let mut handles = ends.borrowed();
        handles.extend(entries.iter().map(AsFd::as_fd));
        steps.done("host: handles");
        let started = match spawner.launch(&plan, is_held, &handles).await {
            Err(SandboxError::Helper(_)) => {
                // Somebody killed it (with it all its plugins ended). A new one, once.
                core.forget_spawner().await;
                spawner = core.spawner().await?;
                spawner.launch(&plan, is_held, &handles).await?
            }
            other => other?,
        };
        drop(handles);
        let Ends { status, stdout, stderr, ours, theirs } = ends;
        drop(theirs);
        let pidfd = watched(started).map_err(|e| SandboxError::step("watching pid 1", e))?;
        let way_out = way_out::Arriving::default();
        Ok(Walls { plan, pidfd, status, way_out, stdout, stderr, ours, group, spawner })
    }

    /// How many walls may stand ready for launches like this one.
    fn wanted_spares(&self, spec: &LaunchSpec) -> usize {
        let options = &self.core.options;
        if !self.core.namespaces || spec.observe.is_some() {
            return 0;
        }
        match &spec.wire {
            Wire::Jsonl(wire) if wire.lifecycle == Lifecycle::PerCall => {
                options.spares.max(options.spares_per_call)
            }
            _ => options.spares,
        }
    }

    async fn launch(
        self: &Arc<Self>,
        spec: LaunchSpec,
        host: Arc<dyn HostCalls>,
    ) -> Result<Arc<dyn Instance>, SandboxError> {
        let core = &self.core;
        let machine = core.machine().await;
        let mut steps = Steps::begin();
        let achieved = core.assess(Some(&spec), machine);
        if let Some((capability, why)) = achieved.unsupported.first() {
            return Err(SandboxError::Unsupported {
                capability: capability.to_string(),
                why: why.clone(),
            });
        }
        if is_no_jit(&spec) && self.needs.profile.needs_jit() {
            return Err(SandboxError::WallTooWeak(format!(
                "no-jit is demanded, and {} turns what it writes into code",
                self.needs.profile.about()
            )));
        }
        let cgroups = core.cgroups();
        let hierarchy = cgroups.as_ref().map(|c| c.hierarchy().clone()).unwrap_or_default();
        steps.done("host: assess");
        let mut needs = self.needs.clone();
        layout::programs(&mut needs, &spec)?;
        let inputs = self.inputs(&spec, &needs, &hierarchy, machine, steps.is_on());
        let plan = self.plan(&inputs)?;
        steps.done("host: plan");
        let keeps_spares = self.wanted_spares(&spec) > 0;
        let spare = if keeps_spares { self.spares.take(&spec, &plan) } else { None };
        let pace = Pace::of(&spec.instance.plugin);
        let walls = match spare {
            Some(walls) => {
                walls.group.iter().for_each(|group| pace.begin(group));
                let step = |e| SandboxError::step("starting the program", e);
                walls.status.send(command::START, 0).map_err(step)?;
                walls
            }
            None => self.build(&spec, plan, cgroups.as_ref(), Some(&pace), &mut steps).await?,
        };
        let Walls { plan, pidfd, status, way_out, stdout, stderr, ours, group, spawner } = walls;
        // Whatever fails from here on, dropping `shared` closes the status socket, and pid 1 ends.
        let mut shared = Shared::new(status, pidfd, group, core.namespaces, &spec, pace, spawner);
        shared.measured = !self.needs.is_engine;
        let shared = Arc::new(shared);
        let observing = observe::of(&inputs, core.namespaces)?
            .map(|o| Observing { policy_kill: Arc::clone(&shared.policy_kill), ..o });
        let timeout = spec.limits.start_timeout;
        let way_out = started_up(&shared, &plan, timeout, observing, way_out, &mut steps).await?;
        steps.done("host: told that it runs");
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
        let spec_again = keeps_spares.then(|| spec.clone());
        let instance = ProcessInstance {
            id: spec.instance,
            shared,
            lane: stream.lane,
            achieved,
            rights: spec.rights,
        };
        steps.done("host: lane, watchers");
        // What was demanded is checked against what was achieved once more, after the fact.
        let missing = instance.achieved.guarantees.missing(&spec.demand);
        if let Some((guarantee, want, have)) = missing.first() {
            instance.kill(palisade_sandbox::KillReason::WallTooWeak).await;
            return Err(SandboxError::WallTooWeak(format!(
                "{guarantee} is {have}, demanded {want}"
            )));
        }
        self.afterwards(spec_again);
        Ok(Arc::new(instance))
    }

    /// Makes what later launches may need: groups, and walls like these where they are wanted.
    fn afterwards(self: &Arc<Self>, spec: Option<LaunchSpec>) {
        let inner = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(AFTERWARDS).await;
            if let Some(inner) = inner.upgrade() {
                if let Some(cgroups) = inner.core.cgroups() {
                    let core = Arc::clone(&inner.core);
                    let _ = tokio::task::spawn_blocking(move || core.groups.refill(&cgroups)).await;
                }
                if let Some(spec) = spec {
                    inner.refill_spares(&spec).await;
                }
            }
            tokio::time::sleep(spares::MOST_AGE).await;
            if let Some(inner) = inner.upgrade() {
                inner.spares.expire();
            }
        });
    }

    /// Builds walls for launches like this one until as many stand ready as are wanted.
    async fn refill_spares(&self, spec: &LaunchSpec) {
        let _one_at_a_time = self.refilling.lock().await;
        while self.spares.count() < self.wanted_spares(spec) {
            match self.spare(spec).await {
                Ok(walls) => self.spares.put(walls, spec),
                Err(error) => {
                    tracing::debug!("no walls could be built ahead: {error}");
                    return;
                }
            }
        }
    }

    /// Walls in which pid 1 waits to be told to start the program.
    async fn spare(&self, spec: &LaunchSpec) -> Result<Walls, SandboxError> {
        let cgroups = self.core.cgroups();
        let hierarchy = cgroups.as_ref().map(|c| c.hierarchy().clone()).unwrap_or_default();
        let mut needs = self.needs.clone();
        layout::programs(&mut needs, spec)?;
        let machine = self.core.machine().await;
        let plan = self.plan(&self.inputs(spec, &needs, &hierarchy, machine, false))?;
        let mut steps = Steps::silent();
        let mut walls = self.build(spec, plan, cgroups.as_ref(), None, &mut steps).await?;
        let built = async {
            loop {
                let report = walls.status.next().await;
                match report.map_err(|e| SandboxError::step("reading pid 1's report", e))? {
                    Report::WallsUp => return Ok(()),
                    Report::Egress { socket, purpose } => walls.way_out.take(purpose, socket),
                    Report::Failed { errno, place } => {
                        return Err(walls.plan.failure(place, errno));
                    }
                    _ => return Err(SandboxError::Helper("ended while building the walls".into())),
                }
            }
        };
        let built = tokio::time::timeout(spec.limits.start_timeout, built).await;
        match built.unwrap_or(Err(SandboxError::Helper("did not build the walls in time".into()))) {
            Ok(()) => Ok(walls),
            Err(error) => {
                spares::throw_away(walls);
                Err(error)
            }
        }
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
    mut way_out: way_out::Arriving,
    timed: &mut Steps,
) -> Result<Option<WayOut>, SandboxError> {
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
                Report::Lap { kind, nanos } => timed.reported(kind, nanos),
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
    // An engine is not shown it.
    if !inputs.machine.privileged || inputs.needs.is_engine {
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
