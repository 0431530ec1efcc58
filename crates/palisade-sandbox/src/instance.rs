//! A running plugin, as the host sees it.

use std::{fmt, sync::Arc, time::Duration};

use palisade_model::{CapabilitySet, ErrorCode, Failure, InstanceId, Limits};
use serde::{Deserialize, Serialize};

use crate::{Assessment, BoxFuture, Lane, SandboxError};

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deadline {
    /// From launch to the answer of `initialize`.
    Start,
    /// From `shutdown` to the end.
    Stop,
    /// The longest life of an instance.
    Lifetime,
    /// The watchdog's `ping`.
    Watchdog,
}

/// Why the host ended an instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KillReason {
    /// Somebody asked for it.
    Asked,
    /// A deadline passed.
    Deadline(Deadline),
    /// A policed limit was exceeded; names it.
    Limit(String),
    /// The plugin broke the protocol; says how.
    Breach(String),
    /// What was achieved does not cover the demand.
    WallTooWeak,
    /// The last handle was dropped.
    Dropped,
}

impl fmt::Display for KillReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("asked for"),
            Self::Deadline(d) => write!(
                f,
                "{} deadline passed",
                match d {
                    Deadline::Start => "the start",
                    Deadline::Stop => "the stop",
                    Deadline::Lifetime => "the lifetime",
                    Deadline::Watchdog => "the watchdog's",
                }
            ),
            Self::Limit(what) => write!(f, "limit exceeded: {what}"),
            Self::Breach(what) => write!(f, "protocol breach: {what}"),
            Self::WallTooWeak => f.write_str("the wall did not cover the demand"),
            Self::Dropped => f.write_str("the last handle was dropped"),
        }
    }
}

/// How an instance ended. Never a guess: what the kernel does not tell is [`ExitCause::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ExitCause {
    /// It exited by itself with this status, 0..=255.
    Exited(i32),
    /// A signal ended it that nobody here sent.
    Signalled(i32),
    /// The kernel's out-of-memory killer ended it for its own memory limit.
    OutOfMemory,
    /// It made a system call that no honest program makes, and was ended for it.
    #[serde(rename_all = "kebab-case")]
    PolicyKill {
        /// The call's name; `#NUMBER` where it has none, and with the interface in front where it came
        /// through another one than the machine's own (`x32:execve`, `i386:#11`). `None` where the kernel
        /// ended it by itself (SIGSYS) and does not tell for what.
        syscall: Option<String>,
    },
    /// The host ended it.
    Killed(KillReason),
    /// It ended, and the kernel does not tell how.
    Unknown,
}

/// The end of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// How it ended.
    pub cause: ExitCause,
    /// What it had used, where that is known.
    pub usage: Option<Usage>,
}

impl Exit {
    /// Whether the plugin ended as it should: status 0, or because it was asked to.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        matches!(
            self.cause,
            ExitCause::Exited(0) | ExitCause::Killed(KillReason::Asked | KillReason::Dropped)
        )
    }

    /// The exit as a failure of whoever was waiting for an answer.
    #[must_use]
    pub fn to_failure(&self) -> Failure {
        let code = match &self.cause {
            ExitCause::Exited(_) | ExitCause::Signalled(_) | ExitCause::Unknown => {
                ErrorCode::Crashed
            }
            ExitCause::OutOfMemory | ExitCause::Killed(KillReason::Limit(_)) => {
                ErrorCode::LimitExceeded
            }
            ExitCause::PolicyKill { .. } => ErrorCode::PolicyKill,
            ExitCause::Killed(KillReason::Deadline(_)) => ErrorCode::Deadline,
            ExitCause::Killed(KillReason::Breach(_)) => ErrorCode::ProtocolBreach,
            ExitCause::Killed(KillReason::WallTooWeak) => ErrorCode::NoBackend,
            ExitCause::Killed(KillReason::Asked | KillReason::Dropped) => ErrorCode::Cancelled,
        };
        Failure::new(code, format!("the plugin ended: {self}"))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            ExitCause::Exited(status) => write!(f, "exited with status {status}"),
            ExitCause::Signalled(signal) => write!(f, "killed by signal {signal}"),
            ExitCause::OutOfMemory => f.write_str("out of memory (its own limit)"),
            ExitCause::PolicyKill { syscall: Some(call) } => {
                write!(f, "killed for the forbidden system call {call}")
            }
            ExitCause::PolicyKill { syscall: None } => f.write_str(
                "killed for a forbidden system call; the kernel does not tell which (SIGSYS)",
            ),
            ExitCause::Killed(why) => write!(f, "ended by Palisade: {why}"),
            ExitCause::Unknown => f.write_str("ended, cause unknown"),
        }
    }
}

/// What an instance uses or has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of all its processes, user and system.
    pub cpu: Option<Duration>,
    /// Bytes of memory now.
    pub memory: Option<u64>,
    /// Highest bytes of memory.
    pub memory_peak: Option<u64>,
    /// Processes and threads now.
    pub pids: Option<u32>,
    /// Bytes in its data folder.
    pub disk: Option<u64>,
}

/// What became of a change of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RightsChange {
    /// In force.
    Applied,
    /// This wall fixes such rights at launch.
    NeedsRestart,
}

/// A running plugin. Dropping the last handle kills it.
pub trait Instance: Send + Sync {
    /// Which instance this is.
    fn id(&self) -> &InstanceId;

    /// The way in.
    fn lane(&self) -> Arc<dyn Lane>;

    /// What was really achieved.
    fn achieved(&self) -> &Assessment;

    /// What it uses now.
    fn usage(&self) -> BoxFuture<'_, Usage>;

    /// Waits for the end. Any number may wait; dropping the future harms nothing.
    fn wait(&self) -> BoxFuture<'_, Exit>;

    /// Asks it to end (`shutdown`, then SIGTERM), and kills it after `grace`.
    fn stop(&self, grace: Duration) -> BoxFuture<'_, Exit>;

    /// Ends it now. Returns when nothing of it is left.
    fn kill(&self, why: KillReason) -> BoxFuture<'_, Exit>;

    /// Stops all its processes where they are.
    ///
    /// # Errors
    /// When it has ended or the kernel refuses.
    fn freeze(&self) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// Lets frozen processes run on.
    ///
    /// # Errors
    /// As [`Instance::freeze`].
    fn thaw(&self) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// Changes memory, CPU, process and data limits of the running instance.
    ///
    /// # Errors
    /// When a limit cannot be changed at run time; nothing is changed then.
    fn set_limits<'a>(&'a self, limits: &'a Limits) -> BoxFuture<'a, Result<(), SandboxError>>;

    /// Whether it answers further calls after one that failed with [`ErrorCode::Crashed`]: behind a wall
    /// that throws the broken instance away and takes a fresh one. Elsewhere a crash is the end.
    fn recovers(&self) -> bool {
        false
    }

    /// Changes the rights that the wall itself enforces.
    fn set_rights(&self, rights: Arc<CapabilitySet>) -> RightsChange;
}
