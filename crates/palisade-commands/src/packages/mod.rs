//! Commands that fetch what they run: `npx`, `uvx`, `pipx run` and their kin, as requests for packages.
//!
//! Only reads words. What cannot be fetched from a registry (a repository, a folder, a script with its
//! own list of packages) is refused with what to write instead.

mod npx;
mod pypi;
mod uv;

use std::{collections::BTreeMap, fmt};

pub(crate) use npx::bin_of;
pub(crate) use pypi::normal_name;

use palisade_model::text::escape;
use serde::{Deserialize, Serialize};

use crate::{Command, CommandError, Context, analyse::SHOWN};

/// Which kind of registry a package comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// The npm registry, through `npm`.
    Npm,
    /// The Python package index, through `uv` or `pip`.
    Pypi,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Npm => "npm",
            Self::Pypi => "pypi",
        })
    }
}

/// One package by name, with what is said about its version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Spec {
    /// Its name; for PyPI in its normal form (lower case, `-` for `_` and `.`).
    pub name: String,
    /// What the client is asked for, name included: `@scope/name@^1.2`, `name[extra]==1.0`.
    pub request: String,
}

/// A package to be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Package {
    /// Where it comes from.
    pub tool: Tool,
    /// What is to be installed; the first is the one that is run, unless `command` is another's.
    pub specs: Vec<Spec>,
    /// The command to run; `None`: the one that the first package is named after, or has.
    pub command: Option<String>,
    /// The Python to use, as the command line names it.
    pub interpreter: Option<String>,
    /// A registry that the command line names in place of the configured one.
    pub registry: Option<String>,
    /// Further indexes that the command line names (PyPI).
    pub more_registries: Vec<String>,
    /// Packages that want to run a script when they are installed are run without it (npm's
    /// `--ignore-scripts`). Otherwise they are refused.
    pub skip_scripts: bool,
    /// The arguments for what is run.
    pub args: Vec<String>,
    /// Variables that the command line sets.
    pub env: BTreeMap<String, String>,
}

impl Package {
    pub(crate) fn new(tool: Tool) -> Self {
        Self {
            tool,
            specs: Vec::new(),
            command: None,
            interpreter: None,
            registry: None,
            more_registries: Vec::new(),
            skip_scripts: false,
            args: Vec::new(),
            env: BTreeMap::new(),
        }
    }

    /// `npm:PACKAGE` or `pypi:PACKAGE`: whose data and rights these are.
    #[must_use]
    pub fn identity(&self) -> String {
        let name = self.specs.first().map_or("", |spec| spec.name.as_str());
        let same = |command: &String| *command == name || normal_name(command) == name;
        match &self.command {
            Some(command) if !same(command) => format!("{}:{name}:{command}", self.tool),
            _ => format!("{}:{name}", self.tool),
        }
    }

    /// What was asked for, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        let specs: Vec<&str> = self.specs.iter().map(|s| s.request.as_str()).collect();
        escape(&specs.join(" "), SHOWN)
    }
}

/// The request that a program of this name makes with these arguments; `None` where it is no such
/// program.
pub(crate) fn parse(
    name: &str,
    args: &[String],
    context: &Context,
) -> Result<Option<Command>, CommandError> {
    let first = args.first().map(String::as_str);
    let tail = args.get(1..).unwrap_or_default();
    match (name, first) {
        ("npx" | "pnpx", _) => npx::parse(args, false, context).map(Some),
        ("npm", Some("exec" | "x")) => npx::parse(tail, true, context).map(Some),
        ("pnpm" | "yarn", Some("dlx")) => npx::parse(tail, false, context).map(Some),
        ("uvx", _) => uv::tool_run(args).map(Some),
        ("uv", _) => uv::parse(args, context).map(Some),
        ("pipx", Some("run")) => uv::pipx_run(tail).map(Some),
        ("pipx", _) => Err(CommandError::usage(
            "of pipx only `pipx run` starts a server",
            "write pipx run PACKAGE, or the name of a command that pipx installed",
        )),
        _ => Ok(None),
    }
}

/// An option that is known neither to matter nor not to.
fn unknown_option(program: &str, option: &str, hint: &str) -> CommandError {
    CommandError::usage(
        format!("{program}'s option {} is not known here", escape(option, SHOWN)),
        hint.to_owned(),
    )
}
