//! The two backends: `process` with namespaces, `landlock` without.

use std::{os::fd::AsFd, sync::Arc};

use palisade_sandbox::{
    Artifact, Assessment, Backend, BoxFuture, Facts, LaunchSpec, Prepared, Runtime, SandboxError,
    Unavailable,
};
use tokio::sync::OnceCell;

#[cfg(feature = "ablation")]
use crate::ablation::Layer;
use crate::{
    ahead::Ahead,
    assess::assess,
    cgroup,
    ends::dev_null,
    landlock::Abi,
    launch::PreparedProcess,
    plan::{Plan, PlanBuilder},
    probe::{LANDLOCK_REFUSED, Machine},
    runtime,
    spawner::Spawner,
    status::{Report, Status},
};

/// Choices of the operator that every launch shares.
#[derive(Clone, Debug)]
pub struct Options {
    /// Started by root: the first host user id for plugins. Each gets this plus its slot, as user and as
    /// group. The default range, 1879048192 to 1879113727, lies above what systemd gives to containers.
    pub first_uid: u32,
    /// Whether cgroups may be used. Off: limits are policed even where the kernel could hold them.
    pub cgroups: bool,
    /// How many walls stand ready for each prepared program after its first launch, never used, for launches
    /// of the same shape (rights, paths, limits, environment, wire). Each is used once, and thrown away after
    /// 60 seconds or when it does not fit a launch. Each costs a process of about 100 KiB, its namespaces and
    /// its cgroups. 0, the default: none. Only backend `process` has them.
    pub spares: usize,
    /// The same for programs that answer one call and end (`mode: per-call` of a `jsonl` plugin), where every
    /// call is a launch. 1, the default: a call that comes after another finds its walls built. Where both
    /// numbers apply, the larger one counts.
    pub spares_per_call: usize,
    /// A layer to leave out, to see whether the next one holds.
    #[cfg(feature = "ablation")]
    pub without: Option<Layer>,
    /// Asks the helper that is released to leave it out, to see that it does not.
    #[cfg(feature = "ablation")]
    pub released_helper: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            first_uid: 0x7000_0000,
            cgroups: true,
            spares: 0,
            spares_per_call: 1,
            #[cfg(feature = "ablation")]
            without: None,
            #[cfg(feature = "ablation")]
            released_helper: false,
        }
    }
}

/// What both backends share: the machine's facts and the spawner.
pub(crate) struct Core {
    name: &'static str,
    pub(crate) options: Options,
    pub(crate) namespaces: bool,
    /// Groups that were made ahead.
    pub(crate) groups: Ahead,
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
    ($backend:ty, $engines:literal) => {
        impl Backend for $backend {
            fn name(&self) -> &'static str {
                self.0.name
            }
            fn runs(&self, runtime: &Runtime) -> bool {
                runtime.is_process() && ($engines || *runtime != Runtime::Engine)
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
                    let core = Arc::clone(&self.0);
                    let prepared = PreparedProcess::new(core, artifact.clone(), needs);
                    Ok(Arc::new(prepared) as Arc<dyn Prepared>)
                })
            }
        }
    };
}
delegate!(ProcessBackend, true);
// Its walls are no second wall around an engine: the host's network, IPC and processes stay in sight.
delegate!(LandlockBackend, false);

impl Core {
    fn new(name: &'static str, options: Options, namespaces: bool) -> Self {
        Self {
            name,
            options,
            namespaces,
            groups: Ahead::default(),
            machine: OnceCell::new(),
            facts: OnceCell::new(),
            spawner: tokio::sync::Mutex::new(None),
        }
    }

    pub(crate) async fn spawner(&self) -> Result<Arc<Spawner>, SandboxError> {
        let mut slot = self.spawner.lock().await;
        if let Some(spawner) = slot.as_ref() {
            return Ok(Arc::clone(spawner));
        }
        let spawner = Arc::new(Spawner::start(self.options.helper()).await?);
        *slot = Some(Arc::clone(&spawner));
        Ok(spawner)
    }

    /// Forgets a spawner that does not answer; the next launch starts another.
    pub(crate) async fn forget_spawner(&self) {
        *self.spawner.lock().await = None;
    }

    pub(crate) async fn machine(&self) -> &Machine {
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
        let started = spawner.launch(&plan, false, &ends).await?;
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
                    } else if machine.landlock == 0 && Abi::is_refused() {
                        Some(Unavailable {
                            reason: "Landlock is refused here, as by a container's system call filter".into(),
                            remedy: LANDLOCK_REFUSED.into(),
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
                    let findings = machine.findings(self.namespaces);
                    Arc::new(Facts { unavailable, guarantees, findings })
                })
                .await,
        )
    }

    pub(crate) fn cgroups(&self) -> Option<Arc<cgroup::Cgroups>> {
        self.options.cgroups.then(cgroup::of_this_process)
    }

    /// What a launch would be guaranteed; without a spec, one that weakens nothing.
    pub(crate) fn assess(&self, spec: Option<&LaunchSpec>, machine: &Machine) -> Assessment {
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
    // A container may let all this be built and have /proc/sys read-only.
    crate::layout::sysctls(&mut plan, options);
    plan.finish()
}
