//! A plugin that takes calls: resident in one instance, or with an instance for each call.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use palisade_audit::RecordKind;
use palisade_broker::{Action, Caller};
use palisade_model::{CapabilitySet, ErrorCode, Failure, Payload};
use palisade_sandbox::{Exit, ExitCause, Invocation, KillReason, Lane, Trace};
use tokio::{
    sync::{Semaphore, watch},
    task::AbortHandle,
};

use crate::{
    cell::PluginCell,
    host::HostInner,
    launch::{self, Offer},
    loaded::Loaded,
    status::Counters,
    watch::{REAPED_WITHIN, Watched},
};

/// Most instances that answer calls of one plugin at the same time, where each call has its own.
const PER_CALL_INSTANCES: u32 = 16;

/// See the module.
pub(crate) struct Running {
    /// The plugin as somebody of whom something is asked.
    pub(crate) caller: Arc<Caller>,
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) offer: Offer,
    pub(crate) backend: &'static str,
    pub(crate) counters: Arc<Counters>,
    /// The rights that the wall was built with, or was told last.
    pub(crate) wall_rights: Mutex<CapabilitySet>,
    pub(crate) way: Way,
    /// When the first of the grants that count ends, in seconds since 1970.
    pub(crate) until: watch::Sender<Option<u64>>,
    /// Which start of the plugin this is.
    pub(crate) start: u64,
    expires: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
    subscriptions: Mutex<Vec<AbortHandle>>,
}

/// How calls reach the plugin's code.
pub(crate) enum Way {
    /// One instance answers them all.
    Resident {
        /// The instance.
        watched: Watched,
        /// The way in.
        lane: Arc<dyn Lane>,
    },
    /// Each call starts, initializes, asks and ends an instance of its own.
    PerCall {
        /// What is launched.
        cell: Arc<PluginCell>,
        /// A permit for each instance; it is held until the instance has ended.
        permits: Arc<Semaphore>,
        /// Turns true when the plugin is stopped.
        closing: watch::Sender<bool>,
    },
}

impl Way {
    pub(crate) fn per_call(cell: Arc<PluginCell>) -> Self {
        let permits = Arc::new(Semaphore::new(PER_CALL_INSTANCES as usize));
        Self::PerCall { cell, permits, closing: watch::Sender::new(false) }
    }
}

impl Running {
    /// A run of `loaded` that began as the start number `start`, with these rights in its wall.
    pub(crate) fn new(
        start: u64,
        loaded: Arc<Loaded>,
        backend: &'static str,
        counters: Arc<Counters>,
        rights: CapabilitySet,
        (caller, offer, way): (Arc<Caller>, Offer, Way),
    ) -> Self {
        Self {
            caller,
            loaded,
            offer,
            backend,
            counters,
            wall_rights: Mutex::new(rights),
            way,
            until: watch::Sender::new(None),
            start,
            expires: AtomicBool::new(false),
            tasks: Mutex::default(),
            subscriptions: Mutex::default(),
        }
    }

    /// Ties a task to the plugin's run.
    pub(crate) fn adopt(&self, task: AbortHandle) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// Ties a subscription to the plugin's run.
    pub(crate) fn adopt_subscription(&self, task: AbortHandle) {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// Ends the subscriptions.
    pub(crate) fn end_subscriptions(&self) {
        for task in self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    /// Says once that nobody watches the end of grants yet.
    pub(crate) fn is_first_expiry(&self) -> bool {
        !self.expires.swap(true, Ordering::Relaxed)
    }

    /// Ends the tasks that belong to the run.
    pub(crate) fn release(&self) {
        self.end_subscriptions();
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    /// Has everything killed without waiting.
    pub(crate) fn abandon(&self) {
        self.release();
        match &self.way {
            Way::Resident { watched, .. } => watched.abandon(),
            Way::PerCall { closing, .. } => {
                closing.send_replace(true);
            }
        }
    }

    /// Asks the plugin, and waits for its answer. Rights, rates and the record are the gate's work and
    /// are done with here.
    pub(crate) async fn invoke(
        &self,
        host: &HostInner,
        method: &'static str,
        payload: Payload,
        timeout: Duration,
        trace: Option<Arc<str>>,
    ) -> Result<Payload, Failure> {
        let (deadline, trace) = (Instant::now() + timeout, Trace(trace));
        self.ask(host, Invocation { method, payload, tool: None, deadline, trace }).await
    }

    /// [`Running::invoke`] of whatever the invocation says.
    pub(crate) async fn ask(
        &self,
        host: &HostInner,
        invocation: Invocation,
    ) -> Result<Payload, Failure> {
        // What is rare is in a box of its own, so that nobody moves its room about at each call.
        match &self.way {
            Way::Resident { watched, lane } => match lane.call(invocation).await {
                Ok(answer) => Ok(answer),
                Err(failure) => Err(Box::pin(watched.explain(failure)).await),
            },
            Way::PerCall { cell, permits, closing } => {
                Box::pin(async {
                    let mut closed = closing.subscribe();
                    tokio::select! {
                        answer = self.invoke_once(host, cell, permits, invocation) => answer,
                        _ = closed.wait_for(|closed| *closed) => Err(asked().to_failure()),
                    }
                })
                .await
            }
        }
    }

    async fn invoke_once(
        &self,
        host: &HostInner,
        cell: &Arc<PluginCell>,
        permits: &Arc<Semaphore>,
        invocation: Invocation,
    ) -> Result<Payload, Failure> {
        let permit = Arc::clone(permits).acquire_owned();
        let permit = tokio::time::timeout_at(invocation.deadline.into(), permit)
            .await
            .map_err(|_| {
                let most = PER_CALL_INSTANCES;
                let message = format!("{most} calls are being answered and none has ended in time");
                Failure::new(ErrorCode::Deadline, message)
            })?
            .map_err(|_| asked().to_failure())?;
        let action = Action::new(RecordKind::Launch)
            .about(Arc::clone(&cell.reference))
            .detail("for one call");
        let launched = host
            .gate()
            .run(&host.application, action, || async {
                let plan = launch::plan(host, cell, &self.loaded).await?;
                let ended = move |_: &Exit| drop(permit);
                launch::launch(host, &self.loaded, plan, &self.counters, |_| (), ended).await
            })
            .await?;
        let answer = match launched.lane.call(invocation).await {
            Ok(answer) => Ok(answer),
            Err(failure) => Err(launched.watched.explain(failure).await),
        };
        // The answer does not wait for the instance's end; the permit does.
        launched.keep().0.stop();
        answer
    }

    /// Ends what runs: in order within `grace`, or at once. Gives the end where the run has one of its
    /// own and is not told by the instance's watcher.
    pub(crate) async fn end(&self, kill: bool) -> Option<Exit> {
        match &self.way {
            Way::Resident { watched, .. } if kill => {
                watched.instance.kill(KillReason::Asked).await;
                None
            }
            Way::Resident { watched, .. } => {
                watched.stop();
                watched.ended().await;
                None
            }
            Way::PerCall { cell, permits, closing } => {
                closing.send_replace(true);
                // No more calls: what the backend keeps ready for them goes.
                cell.prepared.lock().await.take();
                // Each permit comes back when its instance has ended.
                let all = permits.acquire_many(PER_CALL_INSTANCES);
                let _ = tokio::time::timeout(self.loaded.limits.stop_timeout + REAPED_WITHIN, all)
                    .await;
                permits.close();
                Some(asked())
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.release();
    }
}

fn asked() -> Exit {
    Exit { cause: ExitCause::Killed(KillReason::Asked), usage: None }
}
