//! The policies that plugins run under.
//!
//! A process runs under the [`floor`] and one [`Profile`], loaded as one [`merged`] program. The
//! floor answers what no plugin may ever do and looks at arguments; no manifest can relax it. The
//! profile is an allow-list of call numbers. Answers are of three kinds: a call this crate does not
//! know, or that the runtime does not need, fails with `ENOSYS`, so that libraries fall back as on
//! an older kernel; a known and forbidden call fails with the errno its honest callers handle; the
//! process is killed only where no honest caller exists.
//!
//! What a filter cannot see: memory. Paths, `clone3` flags, `openat2` and `sched_setattr` arguments
//! are behind pointers and could change after the check, so calls that hide a decision there are
//! refused as a whole.

mod engine;
mod floor;
mod groups;
mod jvm;
mod lockdown;
mod native;
mod node;
mod python;
mod shell;

use std::fmt;
use std::str::FromStr;

use crate::arch::Arch;
use crate::compile::compile;
use crate::error::Error;
use crate::merge::merged;
use crate::policy::Policy;
use crate::program::Program;

pub use floor::floor;

/// An allow-list for one kind of plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Profile {
    /// Any compiled program, static or dynamic.
    Native,
    /// Scripts of POSIX shells and bash, with the tools that they start.
    Shell,
    /// CPython 3.8 and later with native extensions and subprocesses.
    Python,
    /// Node.js 20 and later.
    Node,
    /// Java virtual machines, OpenJDK 11 and later.
    Jvm,
    /// The WebAssembly engine behind walls of its own. A program of Palisade's, and no choice of a plugin.
    Engine,
    /// For hosts where namespaces cannot be made: no sockets, no IPC that other processes could
    /// share, nothing aimed at another process by its number.
    Lockdown,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Profile; 7] = [
        Profile::Native,
        Profile::Shell,
        Profile::Python,
        Profile::Node,
        Profile::Jvm,
        Profile::Engine,
        Profile::Lockdown,
    ];

    /// The name used in records and options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Native => "native",
            Profile::Shell => "shell",
            Profile::Python => "python",
            Profile::Node => "node",
            Profile::Jvm => "jvm",
            Profile::Engine => "engine",
            Profile::Lockdown => "lockdown",
        }
    }

    /// What runs under it, in a line.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Profile::Native => "compiled programs",
            Profile::Shell => "shell scripts",
            Profile::Python => "Python",
            Profile::Node => "Node.js",
            Profile::Jvm => "Java",
            Profile::Engine => "the WebAssembly engine behind walls",
            Profile::Lockdown => "every plugin where no namespaces can be made",
        }
    }

    /// Whether the runtime turns written memory into code, so that it cannot run where that is
    /// forbidden (`PR_SET_MDWE`).
    #[must_use]
    pub const fn needs_jit(self) -> bool {
        matches!(self, Profile::Node | Profile::Jvm | Profile::Engine)
    }

    /// The profile's own rules, without the floor.
    ///
    /// # Errors
    /// None in practice; a mistake in the rules would show here, and the tests would fail.
    pub fn policy(self) -> Result<Policy, Error> {
        match self {
            Profile::Native => native::native(),
            Profile::Shell => shell::shell(),
            Profile::Python => python::python(),
            Profile::Node => node::node(),
            Profile::Jvm => jvm::jvm(),
            Profile::Engine => engine::engine(),
            Profile::Lockdown => lockdown::lockdown(),
        }
    }

    /// Floor and profile as one policy.
    ///
    /// # Errors
    /// As [`Profile::policy`].
    pub fn with_floor(self) -> Result<Policy, Error> {
        Ok(merged(&floor()?, &self.policy()?))
    }

    /// Floor and profile as the one program to load.
    ///
    /// # Errors
    /// As [`Profile::policy`].
    pub fn program(self, arch: Arch) -> Result<Program, Error> {
        compile(&self.with_floor()?, arch)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is no profile's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no system call profile is called `{0}`; there are {all}", all = names())]
pub struct UnknownProfile(String);

fn names() -> String {
    Profile::ALL.map(Profile::name).join(", ")
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(text: &str) -> Result<Profile, UnknownProfile> {
        Profile::ALL
            .into_iter()
            .find(|profile| profile.name() == text)
            .ok_or_else(|| UnknownProfile(text.to_owned()))
    }
}

#[cfg(test)]
mod tests;
