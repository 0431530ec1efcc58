//! What an observer of a running instance is told: which system calls meet the walls, and how.
//!
//! An observer stands off the trust path. What it is told was read from memory that the program may
//! change at any time, so it is good for reports and drafts and for nothing that decides: whether a call
//! is answered with yes or no follows from the filter alone, with or without an observer.

use std::{borrow::Cow, fmt, net::SocketAddr, path::PathBuf};

/// Longest path that is reported, in bytes; a longer one the kernel refuses itself (`PATH_MAX`).
pub const MAX_PATH: usize = 4096;

/// Told about the system calls of one or more instances. Called on a thread of its own while the program
/// waits for the answer to its call, so it must be quick and must never wait for the program.
pub trait Observer: Send + Sync + fmt::Debug {
    /// The program made a call that is watched. The same call may be reported twice where a signal
    /// interrupted it.
    fn saw(&self, observation: Observation);

    /// A call was answered that could not be looked at (its memory was not readable, or its path was no
    /// path).
    fn missed(&self) {}
}

/// One system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Name of the call, as in the kernel's tables; `#NUMBER` where it has none that is known here.
    pub call: Cow<'static, str>,
    /// What it was about.
    pub subject: Subject,
    /// What the walls had to say.
    pub outcome: Outcome,
}

/// What a call was about. Paths, names and texts are the program's: escape them when they are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A file or folder.
    Path {
        /// Its absolute path inside, links resolved as far as it exists; at most [`MAX_PATH`] bytes.
        path: PathBuf,
        /// The path that the program gave, made absolute, where links lead from it to another one.
        asked: Option<PathBuf>,
        /// What was to be done with it.
        access: PathAccess,
        /// What was there before the call.
        found: Found,
    },
    /// An address of the internet.
    Address(SocketAddr),
    /// A socket address of another kind, in words.
    Socket(String),
    /// The arguments that the filter looks at, `name=value`; empty where it looks at none.
    Arguments(String),
}

/// What is done with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathAccess {
    /// Asked whether it is there and what it is (stat, access, readlink).
    Look,
    /// Its content is read, or a folder listed.
    Read,
    /// Its content or its attributes are changed in place.
    Write,
    /// It is made, removed or renamed, which changes the folder that it is in.
    Change,
    /// It is run as a program.
    Execute,
    /// It is connected to as a Unix socket.
    Connect,
}

impl PathAccess {
    /// The access in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Read => "read",
            Self::Write => "write",
            Self::Change => "change",
            Self::Execute => "execute",
            Self::Connect => "connect",
        }
    }
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A device, pipe, socket or symbolic link.
    Other,
}

/// What the walls had to say to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Nothing that is known here stands against it.
    Passed,
    /// Nothing of this name is inside the walls. It may exist outside or not: that is not looked up
    /// while the program runs, since how long the look takes would tell the program.
    NotThere,
    /// The folder is there because something below it is; nothing else of it is there.
    PartlyThere,
    /// It is there, to be read only.
    ReadOnly,
    /// It is there, and programs in it are not run.
    NotExecutable,
    /// It is there, and its owner's mode bits keep the plugin's user out.
    Mode,
    /// It is there, and no right covers it.
    NotGranted,
    /// No network inside leads there.
    NoRoute,
    /// The filter answers with this errno.
    Refused(u16),
    /// The filter ends the process.
    Killed,
}

impl Outcome {
    /// Whether the call went through, so far as the walls are concerned.
    #[must_use]
    pub const fn is_passed(self) -> bool {
        matches!(self, Self::Passed)
    }
}
