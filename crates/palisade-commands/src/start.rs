//! What a command line comes to.

use std::{collections::BTreeMap, path::PathBuf};

use palisade_sandbox::Program;

use crate::{Context, Package};

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Command {
    /// A program that is there.
    Installed(Start),
    /// A package that is to be fetched, unless the cache has it.
    Package(Package),
}

/// A program that can be launched, and what it needs to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The program and its arguments, for [`palisade_sandbox::Artifact`]. Its file is an absolute path.
    pub program: Program,
    /// Software to show under its own path, for [`palisade_sandbox::Artifact::code`].
    pub code: Vec<PathBuf>,
    /// Programs of this machine that it is known to run (git, for what is built on GitPython): to be granted
    /// with `exec:`. Behind the same walls they can do nothing that the server could not do itself.
    pub programs: Vec<PathBuf>,
    /// Environment that it needs, for [`palisade_sandbox::LaunchSpec::env`].
    pub env: BTreeMap<String, String>,
    /// Whose data and rights these are: the real path of the program or script, or `npm:PACKAGE`,
    /// `pypi:PACKAGE`. The version is no part of it.
    pub identity: String,
    /// Arguments that look like paths of this machine: most likely it wants to read them.
    pub paths: Vec<PathArgument>,
    /// What is worth saying when it does not start: packages whose install scripts were not run, say.
    /// Escaped.
    pub notes: Vec<String>,
}

/// An argument that looks like a path of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathArgument {
    /// The argument as it is written.
    pub argument: String,
    /// The path in it, made absolute.
    pub path: PathBuf,
    /// Whether a folder is there.
    pub folder: bool,
    /// Whether anything is there.
    pub exists: bool,
}

/// The arguments that look like paths: absolute ones, ones that begin with `~/`, `./` or `../`, and the
/// same after `--option=`.
pub(crate) fn path_arguments(args: &[String], context: &Context) -> Vec<PathArgument> {
    let looks = |text: &str| {
        text == "." || ["/", "~/", "./", "../"].iter().any(|start| text.starts_with(start))
    };
    args.iter()
        .filter_map(|argument| {
            let value = match argument.split_once('=') {
                Some((option, value)) if option.starts_with("--") => value,
                _ => argument,
            };
            looks(value).then(|| {
                let path = context.absolute(value);
                PathArgument {
                    argument: argument.clone(),
                    folder: path.is_dir(),
                    exists: path.exists(),
                    path,
                }
            })
        })
        .collect()
}
