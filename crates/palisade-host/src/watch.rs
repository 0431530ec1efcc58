//! Watching one instance: its end is recorded once, whoever brought it about, and everybody who waits
//! learns the cause.

use std::{sync::Arc, time::Duration};

use palisade_audit::{Act, RecordKind};
use palisade_broker::{Caller, Gate};
use palisade_model::{ErrorCode, Failure, Limits};
use palisade_sandbox::{Deadline, Exit, ExitCause, Instance, KillReason};
use tokio::sync::{Notify, watch};

/// How long an instance whose lane has failed may take to end before it is ended.
const END_AFTER_LANE: Duration = Duration::from_secs(1);
/// How long the end of a killed instance is waited for.
pub(crate) const REAPED_WITHIN: Duration = Duration::from_secs(10);

/// An instance that is watched until its end.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) instance: Arc<dyn Instance>,
    exit: watch::Receiver<Option<Exit>>,
    wishes: Arc<Wishes>,
}

/// What the watcher is asked to do.
#[derive(Default)]
struct Wishes {
    abandon: Notify,
    stop: Notify,
}

impl Watched {
    /// Starts to watch. `ended` is called once, after the end was recorded.
    pub(crate) fn new(
        instance: Arc<dyn Instance>,
        caller: Arc<Caller>,
        gate: Gate,
        limits: &Limits,
        ended: impl FnOnce(&Exit) + Send + 'static,
    ) -> Self {
        let (lifetime, grace) = (limits.max_lifetime, limits.stop_timeout);
        let (tell, exit) = watch::channel(None);
        let wishes = Arc::new(Wishes::default());
        let (watched, asked) = (Arc::clone(&instance), Arc::clone(&wishes));
        tokio::spawn(async move {
            let exit = tokio::select! {
                exit = watched.wait() => exit,
                () = asked.abandon.notified() => watched.kill(KillReason::Dropped).await,
                () = sleep(lifetime) => watched.kill(KillReason::Deadline(Deadline::Lifetime)).await,
                // The instance knows best which end is the one that was asked for.
                () = asked.stop.notified() => tokio::select! {
                    exit = watched.stop(grace) => exit,
                    () = asked.abandon.notified() => watched.kill(KillReason::Dropped).await,
                },
            };
            record(&gate, &caller, watched.as_ref(), &exit);
            ended(&exit);
            tell.send_replace(Some(exit));
        });
        Self { instance, exit, wishes }
    }

    /// Has the instance end in order, without waiting.
    pub(crate) fn stop(&self) {
        self.wishes.stop.notify_one();
    }

    /// Has the instance killed, without waiting. For whoever cannot wait: a destructor.
    pub(crate) fn abandon(&self) {
        self.wishes.abandon.notify_one();
    }

    /// How it ended, once it has.
    pub(crate) async fn ended(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or(UNKNOWN),
            // The runtime is going down with the watcher; the instance dies with its last handle.
            Err(_) => UNKNOWN,
        }
    }

    /// The cause of a lane's failure: where the instance has ended, or ends now, its end and not the
    /// closed connection. A breach of the protocol ends it.
    pub(crate) async fn explain(&self, failure: Failure) -> Failure {
        use ErrorCode as C;
        match failure.code {
            C::Crashed | C::Unavailable | C::ProtocolBreach | C::Internal => {}
            _ => return failure,
        }
        // A broken instance behind such a wall was thrown away and the next call gets a fresh one.
        if failure.code == C::Crashed && self.instance.recovers() {
            return failure;
        }
        if let Ok(exit) = tokio::time::timeout(END_AFTER_LANE, self.ended()).await {
            return because(&exit, failure);
        }
        if matches!(failure.code, C::ProtocolBreach | C::Crashed) {
            let instance = Arc::clone(&self.instance);
            let why = KillReason::Breach(failure.message.clone());
            let killed = tokio::spawn(async move { instance.kill(why).await });
            if let Ok(Ok(exit)) = tokio::time::timeout(REAPED_WITHIN, killed).await {
                return because(&exit, failure);
            }
        }
        failure
    }
}

const UNKNOWN: Exit = Exit { cause: ExitCause::Unknown, usage: None };

/// The end as a failure; what the lane said stays where it says more.
fn because(exit: &Exit, lane: Failure) -> Failure {
    match &exit.cause {
        ExitCause::Killed(KillReason::Breach(_)) if lane.code == ErrorCode::ProtocolBreach => lane,
        _ => exit.to_failure(),
    }
}

async fn sleep(lifetime: Option<Duration>) {
    match lifetime {
        Some(lifetime) => tokio::time::sleep(lifetime).await,
        None => std::future::pending().await,
    }
}

fn record(gate: &Gate, caller: &Caller, instance: &dyn Instance, exit: &Exit) {
    let code = (!exit.is_clean()).then(|| exit.to_failure().code);
    let about =
        |kind| Act::new(kind, Arc::clone(caller.principal())).instance(instance.id().clone());
    if let ExitCause::Killed(KillReason::Breach(how)) = &exit.cause {
        gate.note(about(RecordKind::Breach).detail(how), Some(ErrorCode::ProtocolBreach));
    }
    gate.note(about(RecordKind::Exit).detail(&exit.to_string()), code);
}
