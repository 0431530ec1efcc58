//! What an attempt answers, and how errors of the kernel become answers.
//!
//! `succeeded` means that the attacker's goal was reached, never merely that a call returned 0.
//! `blocked` carries the errno of the decisive call. `impossible` says that the attempt could not
//! be made at all (a missing parameter, a kernel without the call, a refusal to harm the machine).

use serde_json::{Value, json};
use std::io;

/// An errno as the kernel gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// The errno of the calling thread.
    pub fn last() -> Self {
        Self(io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

/// Result of one system call.
pub type Sys<T = i64> = Result<T, Errno>;

/// Result of an attempt; the error side is an outcome too, so that `?` ends an attempt.
pub type Attempted = Result<Outcome, Outcome>;

/// The three answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Blocked,
    Succeeded,
    Impossible,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub verdict: Verdict,
    pub errno: Option<i32>,
    /// The signal that ended the process which made the attempt (only where it ran in a child).
    pub killed: Option<i32>,
    /// What somebody who was asked answered, in a word; lost between a child and its supervisor.
    pub said: Option<String>,
    pub detail: String,
}

/// The wall held; `errno` is that of the decisive call.
pub fn blocked(errno: impl Into<Option<i32>>, detail: impl Into<String>) -> Outcome {
    let (errno, detail) = (errno.into(), detail.into());
    Outcome { verdict: Verdict::Blocked, errno, killed: None, said: None, detail }
}

/// Somebody who was asked said no, or something harmless; `said` is a short word for it.
pub fn refused(said: impl Into<String>, detail: impl Into<String>) -> Outcome {
    Outcome { said: Some(said.into()), ..blocked(None, detail) }
}

/// The goal was reached.
pub fn succeeded(detail: impl Into<String>) -> Outcome {
    Outcome { verdict: Verdict::Succeeded, ..blocked(None, detail) }
}

/// The attempt could not be made.
pub fn impossible(detail: impl Into<String>) -> Outcome {
    Outcome { verdict: Verdict::Impossible, ..blocked(None, detail) }
}

impl Outcome {
    /// The fields of the answer, without number and variant.
    pub fn to_json(&self) -> Value {
        let mut v = json!({
            "outcome": match self.verdict {
                Verdict::Blocked => "blocked",
                Verdict::Succeeded => "succeeded",
                Verdict::Impossible => "impossible",
            },
            "errno": self.errno.map(errno_name),
            "detail": self.detail,
        });
        if let Some(signal) = self.killed {
            v["killed"] = json!(signal_name(signal));
        }
        if let Some(said) = &self.said {
            v["said"] = json!(said);
        }
        v
    }

    /// For the pipe between a child and its supervisor: `verdict errno\n detail`.
    pub fn encode(&self) -> Vec<u8> {
        let v = match self.verdict {
            Verdict::Blocked => 'b',
            Verdict::Succeeded => 's',
            Verdict::Impossible => 'i',
        };
        let mut bytes = format!("{v}{}\n{}", self.errno.unwrap_or(-1), self.detail).into_bytes();
        // One read of the supervisor takes it whole.
        bytes.truncate(4000);
        bytes
    }

    /// The other side of `encode`.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, detail) = text.split_once('\n')?;
        let verdict = match head.chars().next()? {
            'b' => Verdict::Blocked,
            's' => Verdict::Succeeded,
            'i' => Verdict::Impossible,
            _ => return None,
        };
        let errno = head.get(1..)?.parse().ok().filter(|e: &i32| *e >= 0);
        Some(Self { verdict, errno, killed: None, said: None, detail: detail.to_owned() })
    }
}

impl From<Errno> for Outcome {
    fn from(e: Errno) -> Self {
        blocked(e.0, "")
    }
}

/// Names the call whose error decides, or marks an error as one of the preparation.
pub trait At<T> {
    /// An error here means that the wall held at `what`.
    fn at(self, what: &str) -> Result<T, Outcome>;
    /// An error here means that the attempt could not be prepared.
    fn setup(self, what: &str) -> Result<T, Outcome>;
}

impl<T> At<T> for Sys<T> {
    fn at(self, what: &str) -> Result<T, Outcome> {
        self.map_err(|e| blocked(e.0, what))
    }
    fn setup(self, what: &str) -> Result<T, Outcome> {
        self.map_err(|e| impossible(format!("cannot prepare: {what}: {}", errno_name(e.0))))
    }
}

impl<T> At<T> for io::Result<T> {
    fn at(self, what: &str) -> Result<T, Outcome> {
        self.map_err(|e| blocked(e.raw_os_error(), what))
    }
    fn setup(self, what: &str) -> Result<T, Outcome> {
        self.map_err(|e| impossible(format!("cannot prepare: {what}: {e}")))
    }
}

macro_rules! names {
    ($value:expr; $($name:ident),* $(,)?) => {
        match $value {
            $(libc::$name => stringify!($name).to_owned(),)*
            other => other.to_string(),
        }
    };
}

/// `EPERM` for 1, and so on; the number where the name is not in the table.
pub fn errno_name(errno: i32) -> String {
    names!(errno; EPERM, ENOENT, ESRCH, EINTR, EIO, ENXIO, E2BIG, ENOEXEC, EBADF, ECHILD, EAGAIN,
        ENOMEM, EACCES, EFAULT, ENOTBLK, EBUSY, EEXIST, EXDEV, ENODEV, ENOTDIR, EISDIR, EINVAL,
        ENFILE, EMFILE, ENOTTY, ETXTBSY, EFBIG, ENOSPC, ESPIPE, EROFS, EMLINK, EPIPE, EDOM, ERANGE,
        EDEADLK, ENAMETOOLONG, ENOLCK, ENOSYS, ENOTEMPTY, ELOOP, ENODATA, EPROTO, EOVERFLOW,
        EUSERS, ENOTSOCK, EMSGSIZE, EPROTOTYPE, ENOPROTOOPT, EPROTONOSUPPORT, ESOCKTNOSUPPORT,
        EOPNOTSUPP, EPFNOSUPPORT, EAFNOSUPPORT, EADDRINUSE, EADDRNOTAVAIL, ENETDOWN, ENETUNREACH,
        ECONNABORTED, ECONNRESET, ENOBUFS, ENOTCONN, ETOOMANYREFS, ETIMEDOUT, ECONNREFUSED,
        EHOSTUNREACH, EALREADY, EINPROGRESS, ESTALE, EDQUOT, ECANCELED, ENOKEY, EKEYEXPIRED,
        EKEYREVOKED, EKEYREJECTED)
}

/// `SIGKILL` for 9, and so on.
pub fn signal_name(signal: i32) -> String {
    names!(signal; SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL,
        SIGUSR1, SIGSEGV, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGSTOP, SIGTSTP, SIGXCPU, SIGXFSZ,
        SIGIO, SIGSYS)
}
