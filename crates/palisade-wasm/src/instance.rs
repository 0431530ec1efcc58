//! A running plugin behind this wall: its lane, what it uses, and its end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_model::{CapabilitySet, InstanceId, Kind, Limits, Payload};
use palisade_protocol::methods;
use palisade_sandbox::{
    Assessment, BoxFuture, Exit, ExitCause, Instance, Invocation, KillReason, Lane, RightsChange,
    SandboxError, Trace, Usage,
};
use tokio::sync::watch;

use crate::{engine::TICK, lane::Way, state::Shared};

/// See the module.
pub(crate) struct WasmInstance {
    shared: Arc<Shared>,
    way: Arc<dyn Way>,
    lane: Arc<dyn Lane>,
    achieved: Assessment,
    exit: watch::Sender<Option<Exit>>,
}

impl WasmInstance {
    pub(crate) fn new(shared: Arc<Shared>, way: Arc<dyn Way>, achieved: Assessment) -> Self {
        let lane: Arc<dyn Lane> = Arc::clone(&way) as Arc<dyn Lane>;
        Self { shared, way, lane, achieved, exit: watch::Sender::new(None) }
    }

    fn used(&self) -> Usage {
        let (memory, peak) = self.shared.memory();
        Usage {
            cpu: Some(self.shared.cpu()),
            memory: Some(memory),
            memory_peak: Some(peak),
            pids: Some(0),
            disk: None,
        }
    }

    fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    async fn ended(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let found = exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
        // The sender lives as long as this value.
        found.unwrap_or(Exit { cause: ExitCause::Unknown, usage: None })
    }
}

impl Instance for WasmInstance {
    fn id(&self) -> &InstanceId {
        &self.shared.spec.instance
    }

    fn lane(&self) -> Arc<dyn Lane> {
        Arc::clone(&self.lane)
    }

    fn achieved(&self) -> &Assessment {
        &self.achieved
    }

    fn usage(&self) -> BoxFuture<'_, Usage> {
        Box::pin(std::future::ready(self.used()))
    }

    fn wait(&self) -> BoxFuture<'_, Exit> {
        Box::pin(self.ended())
    }

    fn stop(&self, grace: Duration) -> BoxFuture<'_, Exit> {
        Box::pin(async move {
            if !self.has_ended() {
                let deadline = Instant::now() + grace;
                let params = methods::ShutdownParams {
                    reason: "stop".into(),
                    grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
                };
                let polite = self.lane.call(Invocation {
                    method: methods::SHUTDOWN,
                    payload: Payload::json(&params).unwrap_or_default(),
                    tool: None,
                    deadline,
                    trace: Trace::default(),
                });
                // Whatever it answers, it ends.
                let _ = tokio::time::timeout_at(deadline.into(), polite).await;
            }
            self.kill(KillReason::Asked).await
        })
    }

    fn kill(&self, why: KillReason) -> BoxFuture<'_, Exit> {
        Box::pin(async move {
            self.shared.close();
            self.way.empty().await;
            let exit = Exit { cause: ExitCause::Killed(why), usage: Some(self.used()) };
            // Who came first says why.
            self.exit.send_if_modified(|slot| {
                let first = slot.is_none();
                slot.get_or_insert(exit);
                first
            });
            self.ended().await
        })
    }

    fn freeze(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(async {
            if self.has_ended() {
                return Err(SandboxError::Ended);
            }
            self.shared.freeze(true);
            // What computes stops at the next tick.
            tokio::time::sleep(2 * TICK).await;
            Ok(())
        })
    }

    fn thaw(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(async {
            if self.has_ended() {
                return Err(SandboxError::Ended);
            }
            self.shared.freeze(false);
            Ok(())
        })
    }

    fn set_limits<'a>(&'a self, limits: &'a Limits) -> BoxFuture<'a, Result<(), SandboxError>> {
        Box::pin(async {
            if self.has_ended() {
                return Err(SandboxError::Ended);
            }
            self.shared.set_limits(limits.memory, limits.cpu, limits.log_bytes_per_second);
            Ok(())
        })
    }

    fn recovers(&self) -> bool {
        true
    }

    /// What passes the host is decided there, at each request. Folders and variables were handed out.
    fn set_rights(&self, rights: Arc<CapabilitySet>) -> RightsChange {
        let held = &self.shared.spec.rights;
        let same = |kind| {
            let (now, then) = (rights.of_kind(kind), held.of_kind(kind));
            now.collect::<Vec<_>>() == then.collect::<Vec<_>>()
        };
        if [Kind::FsRead, Kind::FsWrite, Kind::Env].into_iter().all(same) {
            RightsChange::Applied
        } else {
            RightsChange::NeedsRestart
        }
    }
}

impl Drop for WasmInstance {
    fn drop(&mut self) {
        self.shared.close();
        self.way.abandon();
    }
}
