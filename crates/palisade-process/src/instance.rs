//! A running plugin behind process walls: its end, its limits, its signals.
//!
//! One task per instance watches pid 1's reports and the conversation's end, and is the only one that
//! decides how the instance ended. Everybody else reads the decision.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use palisade_model::{CapabilitySet, InstanceId, Limits, Payload};
use palisade_sandbox::{
    Assessment, BoxFuture, Exit, ExitCause, HostCalls, Instance, Invocation, KillReason, Lane,
    LaunchSpec, RightsChange, SandboxError, Trace, Usage, stream::End,
};
use palisade_seccomp::{Arch, SeccompData};
use rustix::process::Signal;
use tokio::{io::unix::AsyncFd, sync::watch, task::JoinHandle, time::Instant};

use crate::{
    cgroup::Group,
    disk, lookout,
    pace::Pace,
    plan::format::command,
    processes,
    spawner::{self, Spawner},
    status::{Report, Status},
};

const SIGTERM: u32 = 15;
const SIGSTOP: u32 = 19;
const SIGCONT: u32 = 18;
const SIGSYS: i32 = 31;
const SIGKILL: i32 = 9;
/// How long an answer to a question to pid 1 may take.
const ANSWER: Duration = Duration::from_millis(500);
/// Between the plugin's last report and the disappearance of pid 1.
const REAP: Duration = Duration::from_secs(10);
/// Between an end and the removal of what it leaves behind.
const TIDY: Duration = Duration::from_millis(25);

/// What handles and the watcher share.
pub(crate) struct Shared {
    pub(crate) status: Status,
    pub(crate) pidfd: AsyncFd<OwnedFd>,
    pub(crate) group: Option<Group>,
    pub(crate) data: PathBuf,
    /// The instance has a pid namespace.
    pub(crate) namespaced: bool,
    pub(crate) disk_limit: AtomicU64,
    /// The data folder is the plugin's, and its size is watched. An engine has none.
    pub(crate) measured: bool,
    /// Microseconds that processes have run, as pid 1 reports them where no group counts.
    ran: AtomicU64,
    pub(crate) pace: Pace,
    /// The end, once it is known.
    exit: watch::Sender<Option<Exit>>,
    /// Why we killed it, if we did; the first reason stands.
    reason: Mutex<Option<KillReason>>,
    usage: watch::Sender<(u64, Option<(u32, u64)>)>,
    /// The call that the program itself is ended for: told by pid 1, or by the observer.
    pub(crate) policy_kill: Arc<OnceLock<String>>,
    /// Keeps the spawner, pid 1's parent, alive as long as the instance.
    _spawner: Arc<Spawner>,
}

impl Shared {
    pub(crate) fn new(
        status: Status,
        pidfd: AsyncFd<OwnedFd>,
        group: Option<Group>,
        namespaced: bool,
        spec: &LaunchSpec,
        pace: Pace,
        spawner: Arc<Spawner>,
    ) -> Self {
        Self {
            status,
            pidfd,
            group,
            data: spec.data.clone(),
            namespaced,
            disk_limit: AtomicU64::new(spec.limits.disk),
            measured: true,
            ran: AtomicU64::new(0),
            pace,
            exit: watch::Sender::new(None),
            reason: Mutex::new(None),
            usage: watch::Sender::new((0, None)),
            policy_kill: Arc::default(),
            _spawner: spawner,
        }
    }

    /// Ends everything now; the first reason given is the one reported.
    pub(crate) fn kill(&self, why: KillReason) {
        let mut reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if self.exit.borrow().is_none() {
            reason.get_or_insert(why);
            // Killing pid 1 makes the kernel kill all that live in its pid namespace. Without one, pid 1
            // must do it: it is asked, and killed only if it cannot be asked. Both fail only where it has
            // ended already.
            if self.namespaced || self.status.send(command::END, 0).is_err() {
                let _ = spawner::signal(self.pidfd.get_ref(), Signal::KILL);
            }
        }
    }

    /// Whether it is known how it ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    pub(crate) async fn ended(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let result = match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone(),
            Err(_) => None,
        };
        result.unwrap_or(Exit { cause: ExitCause::Unknown, usage: None })
    }

    /// Processor time that it has used, where its group counts.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        self.group.as_ref().and_then(Group::cpu_time)
    }

    /// For how long processes of it have run, where pid 1 samples and has reported any.
    pub(crate) fn ran(&self) -> Option<Duration> {
        let told = self.ran.load(Ordering::Relaxed);
        (told > 0).then(|| Duration::from_micros(told))
    }

    fn usage_now(&self, asked: Option<(u32, u64)>, cpu_micros: Option<u64>) -> Usage {
        let group = self.group.as_ref();
        Usage {
            cpu: cpu_micros.map(Duration::from_micros),
            memory: group.and_then(Group::memory).or(asked.map(|a| a.1)),
            memory_peak: group.and_then(Group::memory_peak),
            pids: group.and_then(Group::pids).or(asked.map(|a| a.0)),
            disk: None,
        }
    }
}

/// What is known when pid 1 is gone.
#[derive(Default)]
struct Seen {
    wait_status: Option<i32>,
    cpu_micros: Option<u64>,
    memory_exceeded: Option<u64>,
    /// Forbidden calls are answered by the kernel itself.
    unwatched: bool,
}

/// Watches an instance until nothing is left of it, then publishes how it ended.
pub(crate) async fn watch(
    shared: Arc<Shared>,
    end: JoinHandle<End>,
    memory_limit: u64,
    host: Arc<dyn HostCalls>,
) {
    let mut seen = Seen::default();
    let mut end = Some(end);
    lookout::watch(&shared);
    let mut deadline: Option<Instant> = None;
    loop {
        let conversation = async {
            match end.as_mut() {
                Some(future) => future.await,
                None => std::future::pending().await,
            }
        };
        let overdue = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            report = shared.status.next() => match report {
                Ok(Report::Ended { wait_status, cpu_micros }) => {
                    seen.wait_status = Some(wait_status);
                    seen.cpu_micros = Some(cpu_micros);
                }
                Ok(Report::MemoryExceeded { bytes }) => seen.memory_exceeded = Some(bytes),
                Ok(Report::Violation { nr, interface, program }) => {
                    let call = SeccompData { nr, arch: interface, ..SeccompData::default() };
                    let name = Arch::native().map_or_else(|| "#?".into(), |arch| call.name(arch));
                    host.violation(&name, program);
                    if program {
                        let _ = shared.policy_kill.set(name.into_owned());
                    }
                }
                Ok(Report::Unwatched) => seen.unwatched = true,
                Ok(Report::Ran { micros }) => shared.ran.store(micros, Ordering::Relaxed),
                Ok(Report::Usage { pids, memory }) => {
                    shared.usage.send_modify(|(turn, usage)| { *turn += 1; *usage = Some((pids, memory)); });
                }
                Ok(Report::Gone) | Err(_) => break,
                Ok(_) => {}
            },
            ended = conversation => {
                end = None;
                match ended.unwrap_or(End::Closed) {
                    End::Breach(how) => shared.kill(KillReason::Breach(how)),
                    // A resident plugin without its lane is of no use to anybody; its exit usually follows
                    // at once and tells the cause.
                    End::Closed => deadline = Some(Instant::now() + ANSWER),
                    End::Local => {}
                }
            },
            () = overdue => {
                deadline = None;
                shared.kill(KillReason::Breach("the plugin closed its end of the conversation and kept running".into()));
            },
        }
    }
    // pid 1 has closed its socket: it is ending, or has ended.
    if let Some(mut conversation) = end {
        // A plugin whose breach closed the lane may exit before the breach was heard of here; its exit
        // status must not hide it.
        let exited = seen.wait_status.is_some_and(|status| status & 0x7f == 0);
        if exited
            && let Ok(Ok(End::Breach(how))) = tokio::time::timeout(ANSWER, &mut conversation).await
        {
            shared.kill(KillReason::Breach(how));
        }
        conversation.abort();
    }
    let gone = tokio::time::timeout(REAP, async { shared.pidfd.readable().await.is_ok() }).await;
    if gone.is_err() {
        shared.kill(KillReason::Asked);
        let _ = shared.pidfd.readable().await;
    }
    // Without a pid namespace, what pid 1 started outlives it where the plugin managed to end it.
    if let (false, Some(group)) = (shared.namespaced, &shared.group) {
        group.kill_all();
    }
    let cause = cause(&shared, &seen, memory_limit);
    let usage = shared.usage_now(None, seen.cpu_micros);
    let is_limit =
        matches!(cause, ExitCause::OutOfMemory | ExitCause::Killed(KillReason::Limit(_)));
    shared.pace.ended(is_limit);
    shared.exit.send_replace(Some(Exit { cause, usage: Some(usage) }));
    // Not before those who wait for it have gone on; and it may have to wait for the last process on its way out,
    // which is not done here, where others wait for their turn. Who ends meanwhile drops it, which removes it too.
    drop(host);
    tokio::time::sleep(TIDY).await;
    tokio::task::spawn_blocking(move || shared.group.as_ref().map(Group::remove));
}

/// How it ended, from what the kernel and pid 1 told.
fn cause(shared: &Shared, seen: &Seen, memory_limit: u64) -> ExitCause {
    if let Some(bytes) = seen.memory_exceeded {
        return ExitCause::Killed(KillReason::Limit(format!(
            "memory: {bytes} bytes in use when sampled, allowed are {memory_limit}"
        )));
    }
    let oom = shared.group.as_ref().is_some_and(|g| g.oom_kills() > 0);
    let reason = shared.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match seen.wait_status {
        // The program's own end was reported before any kill of ours took effect.
        Some(status) if status & 0x7f == 0 => match reason {
            Some(why @ (KillReason::Breach(_) | KillReason::Limit(_))) => ExitCause::Killed(why),
            _ => ExitCause::Exited((status >> 8) & 0xff),
        },
        Some(status) => match status & 0x7f {
            SIGKILL if let Some(call) = shared.policy_kill.get() => {
                ExitCause::PolicyKill { syscall: Some(call.clone()) }
            }
            SIGKILL if oom => ExitCause::OutOfMemory,
            // Where calls are told, a program that ends by SIGSYS has sent it to itself.
            SIGSYS if seen.unwatched => ExitCause::PolicyKill { syscall: None },
            signal => reason.map_or(ExitCause::Signalled(signal), ExitCause::Killed),
        },
        None if oom && reason.is_none() => ExitCause::OutOfMemory,
        None => reason.map_or(ExitCause::Unknown, ExitCause::Killed),
    }
}

/// The handle that the host holds.
pub(crate) struct ProcessInstance {
    pub(crate) id: InstanceId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) lane: Arc<dyn Lane>,
    pub(crate) achieved: Assessment,
    pub(crate) rights: Arc<CapabilitySet>,
}

impl Drop for ProcessInstance {
    fn drop(&mut self) {
        self.shared.kill(KillReason::Dropped);
    }
}

impl Instance for ProcessInstance {
    fn id(&self) -> &InstanceId {
        &self.id
    }

    fn lane(&self) -> Arc<dyn Lane> {
        Arc::clone(&self.lane)
    }

    fn achieved(&self) -> &Assessment {
        &self.achieved
    }

    fn usage(&self) -> BoxFuture<'_, Usage> {
        Box::pin(async {
            if let Some(exit) = self.shared.exit.borrow().as_ref() {
                return exit.usage.unwrap_or_default();
            }
            let mut answers = self.shared.usage.subscribe();
            let before = answers.borrow_and_update().0;
            let mut asked = None;
            if !self.shared.namespaced {
                // Its pid 1 sees the processes of the whole machine.
                let init = processes::pid_of(self.shared.pidfd.get_ref());
                asked = init.map(processes::usage);
            } else if self.shared.status.send(command::USAGE, 0).is_ok() {
                let answered = answers.wait_for(|(turn, _)| *turn > before);
                if let Ok(Ok(answer)) = tokio::time::timeout(ANSWER, answered).await {
                    asked = answer.1;
                }
            }
            let data = self.shared.data.clone();
            let held = tokio::task::spawn_blocking(move || disk::measure(&data)).await.ok();
            Usage { disk: held.map(|h| h.bytes), ..self.shared.usage_now(asked, None) }
        })
    }

    fn wait(&self) -> BoxFuture<'_, Exit> {
        Box::pin(self.shared.ended())
    }

    fn stop(&self, grace: Duration) -> BoxFuture<'_, Exit> {
        Box::pin(async move {
            let deadline = Instant::now() + grace;
            let params = Payload::json(&serde_json::json!({
                "reason": "stop",
                "grace_ms": u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
            }))
            .unwrap_or_default();
            let polite = self.lane.call(Invocation {
                method: "shutdown",
                payload: params,
                tool: None,
                deadline: deadline.into_std(),
                trace: Trace::default(),
            });
            // Half of the time for the polite way, the rest for SIGTERM.
            let half = Instant::now() + grace / 2;
            tokio::select! {
                exit = self.shared.ended() => return asked_for(exit),
                _ = async {
                    let answered = tokio::time::timeout_at(half, polite).await;
                    if matches!(answered, Ok(Ok(_))) {
                        // It said yes: give it the time to end by itself.
                        tokio::time::sleep_until(half).await;
                    }
                } => {}
            }
            let _ = self.shared.status.send(command::SIGNAL, SIGTERM);
            match tokio::time::timeout_at(deadline, self.shared.ended()).await {
                Ok(exit) => asked_for(exit),
                Err(_) => {
                    self.shared.kill(KillReason::Deadline(palisade_sandbox::Deadline::Stop));
                    self.shared.ended().await
                }
            }
        })
    }

    fn kill(&self, why: KillReason) -> BoxFuture<'_, Exit> {
        self.shared.kill(why);
        Box::pin(self.shared.ended())
    }

    fn freeze(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(async { self.signal_all(SIGSTOP) })
    }

    fn thaw(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(async { self.signal_all(SIGCONT) })
    }

    fn set_limits<'a>(&'a self, limits: &'a Limits) -> BoxFuture<'a, Result<(), SandboxError>> {
        Box::pin(async move {
            let step = |e| SandboxError::step("changing limits", e);
            self.shared.disk_limit.store(limits.disk, Ordering::Relaxed);
            let mebibytes = u32::try_from(limits.memory >> 20).unwrap_or(u32::MAX);
            self.shared.status.send(command::MEMORY_LIMIT, mebibytes).map_err(step)?;
            match &self.shared.group {
                Some(group) => group.set_limits(limits).map_err(step),
                None => Ok(()),
            }
        })
    }

    fn set_rights(&self, rights: Arc<CapabilitySet>) -> RightsChange {
        // What is mounted stays as it was launched; everything else is decided elsewhere.
        let walled = |set: &CapabilitySet| -> Vec<String> {
            set.iter()
                .filter(|c| c.kind().enforcement() == palisade_model::Enforcement::Mount)
                .map(ToString::to_string)
                .collect()
        };
        if walled(&rights) == walled(&self.rights) {
            RightsChange::Applied
        } else {
            RightsChange::NeedsRestart
        }
    }
}

impl ProcessInstance {
    fn signal_all(&self, signal: u32) -> Result<(), SandboxError> {
        if self.shared.has_ended() {
            return Err(SandboxError::Ended);
        }
        self.shared
            .status
            .send(command::SIGNAL_ALL, signal)
            .map_err(|e| SandboxError::step("signalling the plugin", e))
    }
}

/// An end by SIGTERM after a stop is what was asked for.
fn asked_for(exit: Exit) -> Exit {
    match exit.cause {
        ExitCause::Signalled(15) => Exit { cause: ExitCause::Killed(KillReason::Asked), ..exit },
        _ => exit,
    }
}
