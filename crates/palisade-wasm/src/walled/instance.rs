//! An engine that runs behind the walls, as the plugin that it runs.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use palisade_model::{CapabilitySet, ErrorCode, Failure, InstanceId, Kind, Limits, Payload};
use palisade_sandbox::{
    Assessment, BoxFuture, Exit, Instance, Invocation, KillReason, Lane, LaunchSpec, RightsChange,
    SandboxError, Trace, Usage,
};

use super::{engine_limits, engines};
use crate::engine_process::{Bounds, LIMITS, decoded};

/// How long the end of an engine whose lane seems closed is waited for, to learn the cause: twice what the walls
/// give a program that has closed its lane. A call waits no longer than its own deadline. An engine that has not
/// ended by then is ended, so that it can keep the calls of one such second waiting, and no others.
const END: Duration = Duration::from_secs(1);
const GOES_ON: &str = "the engine answered what no engine of ours does, and went on";
/// How long an engine may take to take other limits over.
const TELL: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct WalledInstance {
    engine: Arc<dyn Instance>,
    lane: Arc<dyn Lane>,
    is_stopped: Arc<AtomicBool>,
    achieved: Assessment,
    rights: Arc<CapabilitySet>,
    has_way_out: bool,
    /// Bytes of module and code, and how many instances: what the engine takes besides.
    extra: (u64, u32),
}

impl WalledInstance {
    pub(crate) fn new(
        engine: Arc<dyn Instance>,
        achieved: Assessment,
        spec: LaunchSpec,
        extra: (u64, u32),
    ) -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let lane = Arc::new(WalledLane {
            lane: engine.lane(),
            engine: Arc::downgrade(&engine),
            is_stopped: Arc::clone(&is_stopped),
        });
        let has_way_out = spec.has_way_out();
        Self { engine, lane, is_stopped, achieved, rights: spec.rights, has_way_out, extra }
    }
}

struct WalledLane {
    lane: Arc<dyn Lane>,
    /// Who holds the lane alone does not keep the engine.
    engine: Weak<dyn Instance>,
    /// Whoever stops it waits for its end, and ends it.
    is_stopped: Arc<AtomicBool>,
}

impl Lane for WalledLane {
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Payload, Failure>> {
        Box::pin(async move {
            let deadline = invocation.deadline;
            match self.lane.call(invocation).await {
                Ok(answer) => Ok(answer),
                Err(failure) => Err(self.meant(failure, deadline).await),
            }
        })
    }
}

impl WalledLane {
    /// What happened. An error that came back is one of a call, after which the next call finds a fresh
    /// instance; a lane that closed is the end of the engine, which knows its cause. Nothing else has these
    /// codes: what an engine of ours says carries its own.
    async fn meant(&self, failure: Failure, deadline: Instant) -> Failure {
        use ErrorCode as C;
        if let Some(said) = decoded(&failure) {
            return believed(said);
        }
        let is_end = matches!(failure.code, C::Crashed | C::Unavailable | C::Internal);
        if !is_end || self.is_stopped.load(Ordering::Acquire) {
            return failure;
        }
        let Some(engine) = self.engine.upgrade() else { return failure };
        // Whether the caller still waits for it or not.
        let ended = tokio::spawn(async move {
            match tokio::time::timeout(END, engine.wait()).await {
                Ok(exit) => exit,
                Err(_) => engine.kill(KillReason::Breach(GOES_ON.into())).await,
            }
        });
        match tokio::time::timeout_at(deadline.into(), ended).await {
            Ok(Ok(exit)) => exit.to_failure(),
            _ => failure,
        }
    }
}

/// What an engine may say of a call: what the engine in the host says, and nothing that is the host's to say.
fn believed(said: Failure) -> Failure {
    use ErrorCode as C;
    let said = Failure { hint: said.hint.map(engines), ..said };
    match said.code {
        C::Crashed
        | C::Deadline
        | C::LimitExceeded
        | C::NotFound
        | C::InvalidParams
        | C::Conflict
        | C::Cancelled
        | C::Unavailable => said,
        _ => Failure { code: C::PluginError, ..said },
    }
}

impl Instance for WalledInstance {
    fn id(&self) -> &InstanceId {
        self.engine.id()
    }

    fn lane(&self) -> Arc<dyn Lane> {
        Arc::clone(&self.lane)
    }

    fn achieved(&self) -> &Assessment {
        &self.achieved
    }

    /// Of the engine and its guests together.
    fn usage(&self) -> BoxFuture<'_, Usage> {
        self.engine.usage()
    }

    fn wait(&self) -> BoxFuture<'_, Exit> {
        self.engine.wait()
    }

    fn stop(&self, grace: Duration) -> BoxFuture<'_, Exit> {
        self.is_stopped.store(true, Ordering::Release);
        self.engine.stop(grace)
    }

    fn kill(&self, why: KillReason) -> BoxFuture<'_, Exit> {
        self.engine.kill(why)
    }

    fn freeze(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        self.engine.freeze()
    }

    fn thaw(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        self.engine.thaw()
    }

    /// The walls first: whatever the engine does, they hold.
    fn set_limits<'a>(&'a self, limits: &'a Limits) -> BoxFuture<'a, Result<(), SandboxError>> {
        Box::pin(async move {
            let (bytes, instances) = self.extra;
            self.engine.set_limits(&engine_limits(limits, bytes, instances)).await?;
            let bounds = Bounds { memory: limits.memory, cpu: limits.cpu };
            let payload = Payload::json(&bounds)
                .map_err(|e| SandboxError::Helper(format!("cannot be told of limits: {e}")))?;
            let (deadline, trace) = (Instant::now() + TELL, Trace::default());
            let told = Invocation { method: LIMITS, payload, tool: None, deadline, trace };
            self.lane.call(told).await.map(drop).map_err(SandboxError::Start)
        })
    }

    fn recovers(&self) -> bool {
        true
    }

    /// What passes the host is decided there, at each request. Folders and variables were handed out, and a
    /// way to the network is there from the beginning or not at all.
    fn set_rights(&self, rights: Arc<CapabilitySet>) -> RightsChange {
        let same = |kind| {
            let (now, then) = (rights.of_kind(kind), self.rights.of_kind(kind));
            now.collect::<Vec<_>>() == then.collect::<Vec<_>>()
        };
        let wants_way_out = [Kind::NetHttp, Kind::NetTcp]
            .into_iter()
            .any(|kind| rights.of_kind(kind).next().is_some());
        let handed_out = [Kind::FsRead, Kind::FsWrite, Kind::Env].into_iter().all(same);
        if handed_out && (self.has_way_out || !wants_way_out) {
            RightsChange::Applied
        } else {
            RightsChange::NeedsRestart
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_hint_of_a_call_is_shown_as_its_own() {
        for code in [ErrorCode::LimitExceeded, ErrorCode::Denied] {
            let said = believed(Failure::new(code, "no").hint("run this command"));
            assert_eq!(said.hint.unwrap(), "the engine says: run this command");
        }
        let theirs = Failure::new(ErrorCode::PluginError, "no").hint("the plugin says: hello");
        assert_eq!(believed(theirs).hint.unwrap(), "the plugin says: hello");
    }
}
