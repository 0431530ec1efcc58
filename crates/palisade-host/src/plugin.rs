//! A loaded plugin, through the eyes of whoever controls it.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use palisade_audit::RecordKind;
use palisade_broker::{Action, Caller};
use palisade_manifest::Manifest;
use palisade_model::{CapabilitySet, ErrorCode, Failure, PluginId, PluginRef};
use palisade_sandbox::{Assessment, Exit, Usage, Wire, stream::ByteWire};

use crate::{
    Control, Status,
    cell::{self, Attempt, PluginCell},
    deliver, grants,
    host::HostInner,
    launch, machine,
    running::{Running, Way},
    status::Counters,
    watch::REAPED_WITHIN,
};

/// A loaded plugin. Every operation acts for the caller of the [`Control`] that it came from
/// ([`crate::Host::load`]: the application). Cloning is cheap; a clone is the same plugin.
#[derive(Clone)]
pub struct Plugin {
    control: Control,
    cell: Arc<PluginCell>,
}

impl Plugin {
    pub(crate) fn new(control: Control, cell: Arc<PluginCell>) -> Self {
        Self { control, cell }
    }

    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    pub(crate) fn cell(&self) -> &Arc<PluginCell> {
        &self.cell
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &PluginId {
        &self.cell.reference.id
    }

    /// Its id and where it comes from.
    #[must_use]
    pub fn reference(&self) -> &Arc<PluginRef> {
        &self.cell.reference
    }

    /// Its manifest, as it was loaded last.
    #[must_use]
    pub fn manifest(&self) -> Manifest {
        self.cell.loaded().manifest.clone()
    }

    /// Where it is and what it has done.
    #[must_use]
    pub fn status(&self) -> Status {
        let (life, running) = (self.cell.life(), self.cell.running());
        Status {
            state: life.state,
            instance: running.as_ref().and_then(|r| r.caller.instance().cloned()),
            backend: running.as_ref().map(|r| r.backend),
            exit: life.exit,
            failure: life.failure,
            counts: self.cell.counts(),
        }
    }

    /// Has an observer told about the system calls of every instance that is started from now on: for
    /// people who want to know what the walls refused. It slows the plugin down and decides nothing.
    ///
    /// # Errors
    /// [`ErrorCode::Denied`] for callers that are not owners.
    pub fn observe(&self, observer: Arc<dyn palisade_sandbox::Observer>) -> Result<(), Failure> {
        self.control.owner()?;
        *self.cell.observer.lock().unwrap_or_else(PoisonError::into_inner) = Some(observer);
        Ok(())
    }

    /// What it uses now; `None` where no instance runs.
    pub async fn usage(&self) -> Option<Usage> {
        match &self.cell.running()?.way {
            Way::Resident { watched, .. } => Some(watched.instance.usage().await),
            Way::PerCall { .. } => None,
        }
    }

    /// What the wall of the running instance really gives; `None` where no instance runs.
    #[must_use]
    pub fn achieved(&self) -> Option<Assessment> {
        match &self.cell.running()?.way {
            Way::Resident { watched, .. } => Some(watched.instance.achieved().clone()),
            Way::PerCall { .. } => None,
        }
    }

    /// Starts it: checks rights and limits, picks the cheapest wall that covers the demand, launches,
    /// and waits for the answer to `initialize`. Dropping the future gives the start up.
    ///
    /// A plugin whose manifest says `mode: per-call` is checked and made ready; its instances are
    /// started by its calls.
    ///
    /// # Errors
    /// [`ErrorCode::Denied`] naming each missing capability with the option that grants it,
    /// [`ErrorCode::NoBackend`] naming what each backend lacks, [`ErrorCode::Deadline`],
    /// [`ErrorCode::Conflict`] where it runs already, the cause of its end where it ended, and what
    /// the gate refuses.
    pub async fn start(&self) -> Result<(), Failure> {
        self.start_as(Talk::Own).await
    }

    /// Starts it to be spoken with in this way.
    pub(crate) async fn start_as(&self, talk: Talk) -> Result<(), Failure> {
        let (host, cell) = (self.control.host(), &self.cell);
        host.check_open()?;
        let action = Action::new(RecordKind::Launch).about(Arc::clone(&cell.reference));
        host.gate()
            .run(self.control.caller(), action, || async {
                let attempt = cell.begin()?;
                let started = tokio::select! {
                    biased;
                    () = attempt.given_up() => Err(cell::stopped()),
                    started = start(host, cell, &attempt, talk) => started,
                };
                match started {
                    Ok(running) => attempt.ready(running).await?,
                    Err(failure) => {
                        // What was prepared may be what is wrong (an interpreter that has moved).
                        *cell.prepared.lock().await = None;
                        attempt.failed(failure.clone()).await;
                        return Err(failure);
                    }
                }
                // The host may have gone between the last look and now.
                host.check_open().inspect_err(|_| cell.abandon())
            })
            .await
    }

    /// Ends it in order: `shutdown`, then SIGTERM, and after the manifest's `resources.timeouts.stop`
    /// SIGKILL. Returns when nothing of it is left. Does nothing where it does not run.
    ///
    /// # Errors
    /// What the gate refuses, and [`ErrorCode::Deadline`] where the kernel does not let go of it.
    pub async fn stop(&self) -> Result<(), Failure> {
        self.end(false).await
    }

    /// Ends it now. Returns when nothing of it is left. Does nothing where it does not run.
    ///
    /// # Errors
    /// As [`Plugin::stop`].
    pub async fn kill(&self) -> Result<(), Failure> {
        self.end(true).await
    }

    async fn end(&self, kill: bool) -> Result<(), Failure> {
        let (host, cell) = (self.control.host(), &self.cell);
        host.check_open()?;
        let grace = if kill { Duration::ZERO } else { cell.loaded().limits.stop_timeout };
        let mut action = Action::new(RecordKind::Stop).about(Arc::clone(&cell.reference));
        if kill {
            action = action.detail("kill");
        }
        host.gate()
            .run(self.control.caller(), action, || async {
                end(cell, kill);
                cell.rests(grace + 2 * REAPED_WITHIN).await.map(|_| ())
            })
            .await
    }

    /// Waits until it has ended, and gives how. Where it does not run: how it ended last.
    ///
    /// # Errors
    /// Why its last start failed, and [`ErrorCode::Unavailable`] where it was never started.
    pub async fn wait(&self) -> Result<Exit, Failure> {
        let life = self.cell.end_of_run().await;
        match (life.exit, life.failure) {
            (Some(exit), _) => Ok(exit),
            (None, Some(failure)) => Err(failure),
            (None, None) => {
                let message = format!("plugin {} has not been started", self.cell.reference);
                Err(Failure::new(ErrorCode::Unavailable, message))
            }
        }
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("reference", &self.cell.reference)
            .field("state", &self.cell.life().state)
            .finish_non_exhaustive()
    }
}

/// Has it end, in a task of its own: whoever asked may give up waiting.
pub(crate) fn end(cell: &Arc<PluginCell>, kill: bool) {
    let Some((action, running)) = cell.end(kill) else { return };
    let cell = Arc::clone(cell);
    tokio::spawn(async move {
        if let Some(exit) = running.end(action == machine::Action::Kill).await {
            cell.ended(running.start, &exit);
        }
    });
}

/// Who speaks with a plugin that is started.
pub(crate) enum Talk {
    /// This host, as its manifest says.
    Own,
    /// Somebody else, in whatever language.
    Bytes {
        /// Where its ends go.
        wire: ByteWire,
        /// What is registered for it besides what it declares.
        offered: CapabilitySet,
    },
}

/// Everything between the decision to start and a plugin that takes calls.
async fn start(
    host: &Arc<HostInner>,
    cell: &Arc<PluginCell>,
    attempt: &Attempt,
    talk: Talk,
) -> Result<Arc<Running>, Failure> {
    let loaded = cell.loaded();
    let mut plan = launch::plan(host, cell, &loaded).await?;
    let (number, backend) = (attempt.number(), plan.backend);
    let (rights, until) = (plan.held.rights.clone(), plan.held.until);
    let counters = Arc::new(Counters::default());
    let is_led_here = matches!(talk, Talk::Own);
    let parts = if let Talk::Bytes { wire, offered } = talk {
        plan.spec.wire = Wire::Bytes(wire);
        let watching = Arc::clone(cell);
        let ended = move |exit: &Exit| watching.ended(number, exit);
        let launched = |watched: &crate::watch::Watched| attempt.launched(watched.clone());
        let launched =
            launch::launch_unspoken(host, &loaded, plan, &offered, &counters, launched, ended)
                .await?;
        let (watched, lane, caller, offer) = launched.keep();
        (caller, offer, Way::Resident { watched, lane })
    } else if loaded.is_per_call() {
        let rules = plan.held.rules(&loaded, &CapabilitySet::new(), &host.policy);
        let (instance, clock) = (plan.spec.instance.clone(), Arc::clone(&host.clock));
        let caller = Caller::plugin(instance, Arc::new(rules), &loaded.limits, clock);
        let offer = launch::register(host, &loaded, &caller, None);
        let rules = plan.held.rules(&loaded, &offer.registered, &host.policy);
        caller.set_rules(Arc::new(rules));
        (caller, offer, Way::per_call(Arc::clone(cell)))
    } else {
        let watching = Arc::clone(cell);
        let ended = move |exit: &Exit| watching.ended(number, exit);
        let launched = |watched: &crate::watch::Watched| attempt.launched(watched.clone());
        let launched = launch::launch(host, &loaded, plan, &counters, launched, ended).await?;
        let (watched, lane, caller, offer) = launched.keep();
        (caller, offer, Way::Resident { watched, lane })
    };
    let running = Arc::new(Running::new(number, loaded, backend, counters, rights.clone(), parts));
    if is_led_here {
        deliver::subscribe(host, &running, &rights).await?;
    }
    grants::watch_expiry(host, cell, &running, until);
    Ok(running)
}
