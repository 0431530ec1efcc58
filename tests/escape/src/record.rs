//! Rows: what one attempt came to, for one launcher.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Who starts the plugins, and how limits are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Launcher {
    /// Root, limits by cgroups where there are some.
    Root,
    /// Root, with cgroups left out: limits are policed.
    RootPoliced,
    /// User 1000 (or whoever started the suite), limits policed.
    User,
    /// User 1000 in a cgroup that was delegated to it: in the machines of `cargo xtask vm` only.
    Delegated,
}

impl Launcher {
    /// Those of the matrix, in the order of reports.
    pub const ALL: [Self; 3] = [Self::Root, Self::RootPoliced, Self::User];

    /// The key in the expectations.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::RootPoliced => "root-policed",
            Self::User => "user",
            Self::Delegated => "delegated",
        }
    }

    /// The user in reports.
    #[must_use]
    pub fn user(self) -> &'static str {
        match self {
            Self::Root | Self::RootPoliced => "root",
            Self::User | Self::Delegated => "uid1000",
        }
    }

    /// The launcher of that key.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|l| l.key() == key)
    }

    /// Whether cgroups may be used.
    #[must_use]
    pub fn cgroups(self) -> bool {
        matches!(self, Self::Root | Self::Delegated)
    }
}

/// One row of the matrix, as it was seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Number in the catalogue.
    pub number: u16,
    /// What is tried.
    pub name: String,
    /// One way to do it.
    pub variant: String,
    /// The wall.
    pub backend: String,
    /// Who launched.
    pub launcher: Launcher,
    /// What came of it: `blocked:EPERM`, `killed:policy`, `absent`, `contained`, `SUCCEEDED`, …
    pub outcome: String,
    /// The layers that stop it, from the expectations.
    #[serde(default)]
    pub stopped_by: Vec<String>,
    /// The positive control: `works`, or why there is none.
    #[serde(default)]
    pub control: String,
    /// In words. Not asserted.
    #[serde(default)]
    pub detail: String,
    /// Outcome with a layer taken away.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub without: BTreeMap<String, String>,
    /// Measured, in the unit that the name ends with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measured: BTreeMap<String, u64>,
}

impl Row {
    /// A row of the process backend.
    #[must_use]
    pub fn new(number: u16, variant: &str, name: &str, launcher: Launcher) -> Self {
        Self {
            number,
            name: name.to_owned(),
            variant: variant.to_owned(),
            backend: "process".to_owned(),
            launcher,
            outcome: String::new(),
            stopped_by: Vec::new(),
            control: String::new(),
            detail: String::new(),
            without: BTreeMap::new(),
            measured: BTreeMap::new(),
        }
    }

    /// With what was seen.
    #[must_use]
    pub fn seen(mut self, outcome: impl Into<String>, detail: impl Into<String>) -> Self {
        self.outcome = outcome.into();
        self.detail = detail.into();
        self
    }

    /// Whether the attacker reached its goal.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.outcome.starts_with("SUCCEEDED")
    }
}
