//! Where a command line stands: the folder, the home and the environment that it would have had.

use palisade_model::path::lexically_normal;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Component, Path, PathBuf},
};

use palisade_process::programs::Programs;

/// What a command line is read against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The working directory; absolute.
    pub directory: PathBuf,
    /// The user's home, where there is one.
    pub home: Option<PathBuf>,
    /// The user's environment. Read for PATH and for the configuration of package clients; nothing of
    /// it is handed on.
    pub env: BTreeMap<String, String>,
}

impl Context {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            home: std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute()),
            env: std::env::vars_os().filter_map(text).collect(),
        }
    }

    /// A variable of the user's environment that is not empty.
    pub(crate) fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The programs that a plain name means here.
    pub(crate) fn programs(&self) -> Programs {
        match self.var("PATH") {
            Some(path) => Programs::new(path.as_ref()),
            None => Programs::new("/usr/local/bin:/usr/bin:/bin".as_ref()),
        }
    }

    /// A path as a command line has it, made absolute; `~/` is the home.
    pub(crate) fn absolute(&self, path: &str) -> PathBuf {
        let from_home =
            path.strip_prefix("~/").and_then(|rest| Some(self.home.as_ref()?.join(rest)));
        lexically_normal(&from_home.unwrap_or_else(|| self.directory.join(path)))
    }

    /// Whether a folder holds too much to be shown for the sake of one program: the root, a folder right
    /// below it, the home or something around it, or one of the home's big folders.
    pub(crate) fn is_too_wide(&self, folder: &Path) -> bool {
        let depth = folder.components().filter(|c| matches!(c, Component::Normal(_))).count();
        let at_home = self.home.as_ref().is_some_and(|home| {
            let wide = [
                "Desktop",
                "Documents",
                "Downloads",
                ".config",
                ".local",
                ".local/share",
                ".cache",
            ];
            home.starts_with(folder) || wide.iter().any(|name| home.join(name) == folder)
        });
        let system =
            ["/usr/local", "/usr/share", "/usr/bin", "/usr/local/bin", "/var/lib", "/var/tmp"];
        depth <= 1 || at_home || system.iter().any(|s| Path::new(s) == folder)
    }
}
