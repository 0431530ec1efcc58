//! The escape suite inside: one runner in a place, its rows against the matrix.
//!
//! Nothing may succeed, ever. Beyond that a row must come out as on the developer's host with the same
//! kind of launcher, except where `differences.toml` says why this kernel stops it in another way.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use palisade_escape::{
    control::{BY_ROOT, WORKS},
    expected::Matrix,
    record::{Launcher, Row},
    runner::Task,
    scene,
};
use serde::Deserialize;

use crate::{
    FOLDER, Result,
    report::{Counts, Finding},
};

const DIFFERENCES: &str = include_str!("../differences.toml");
/// In the runner's environment and arguments, and nowhere inside the walls.
pub(crate) const FORBIDDEN: &str = "forbidden-word-of-the-launcher";

/// One run of the suite.
#[derive(Clone, Debug)]
pub(crate) struct Escapes {
    pub(crate) launcher: Launcher,
    pub(crate) families: &'static [&'static str],
    pub(crate) only: &'static [u16],
    /// Run the controls that could hurt a machine, and demand that they work.
    pub(crate) harmful: bool,
}

/// Why a row comes out otherwise inside.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    /// Situations, by the beginning of their full name (`machine/situation`); all where empty.
    #[serde(default)]
    within: Vec<String>,
    number: u16,
    /// All of the number where empty.
    #[serde(default)]
    variant: String,
    /// What is accepted beside what the matrix says.
    outcomes: Vec<String>,
    /// The reason, for people.
    #[allow(dead_code, reason = "read by people")]
    why: String,
}

#[derive(Deserialize)]
struct Differences {
    differs: Vec<Difference>,
}

impl Difference {
    fn covers(&self, situation: &str, row: &Row) -> bool {
        (self.within.is_empty() || self.within.iter().any(|w| situation.starts_with(w.as_str())))
            && self.number == row.number
            && (self.variant.is_empty() || self.variant == row.variant)
            && self.outcomes.contains(&row.outcome)
    }
}

/// The suite's copies that root makes once: the attacker, and set-id copies of it.
fn copies() -> Result<(PathBuf, Option<PathBuf>)> {
    let folder = Path::new("/var/tmp/palisade-vm");
    let (attacker, rights) = (folder.join("attacker"), folder.join("rights"));
    if !rights.exists() {
        let step = |e: std::io::Error| format!("{}: {e}", folder.display());
        fs::create_dir_all(&rights).map_err(step)?;
        fs::copy(format!("{FOLDER}/attacker"), &attacker).map_err(step)?;
        fs::set_permissions(&attacker, fs::Permissions::from_mode(0o755)).map_err(step)?;
        scene::make_privileged(&attacker, &rights).map_err(|e| e.to_string())?;
    }
    Ok((attacker, Some(rights)))
}

impl Escapes {
    /// The families of one kind of launcher.
    pub(crate) const fn of(launcher: Launcher, families: &'static [&'static str]) -> Self {
        Self { launcher, families, only: &[], harmful: false }
    }

    /// Only these numbers of the catalogue.
    pub(crate) const fn only(self, only: &'static [u16]) -> Self {
        Self { only, ..self }
    }

    pub(crate) fn name(&self) -> String {
        let families = self.families.join(" + ");
        let harmful = if self.harmful { ", with harmful controls" } else { "" };
        match self.only {
            [] => format!("escapes {families}{harmful}"),
            some => {
                let some: Vec<String> = some.iter().map(u16::to_string).collect();
                format!("escapes {families}: {}{harmful}", some.join(", "))
            }
        }
    }

    /// What the runner is told, on one line.
    pub(crate) fn task(&self) -> Result<String> {
        let (attacker, privileged) = copies()?;
        let task = Task {
            launcher: self.launcher,
            attacker,
            forbidden: vec![FORBIDDEN.into()],
            privileged,
            command: None,
            guests: None,
            meter: None,
            families: self.families.iter().map(|f| (*f).to_owned()).collect(),
            only: self.only.to_vec(),
            own_machine: self.harmful,
            whole_only: true,
        };
        serde_json::to_string(&task).map_err(|e| e.to_string())
    }

    /// The findings of a runner's rows.
    pub(crate) fn judge(&self, situation: &str, printed: &str) -> Result<Vec<Finding>> {
        let line = printed.lines().last().unwrap_or_default();
        let rows: Vec<Row> =
            serde_json::from_str(line).map_err(|e| format!("the runner's rows: {e}"))?;
        let matrix = Matrix::read_from(Path::new(&format!("{FOLDER}/expected")))
            .map_err(|e| e.to_string())?;
        let differences: Differences =
            toml::from_str(DIFFERENCES).map_err(|e| format!("differences.toml: {e}"))?;
        let mut found = Vec::new();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &rows {
            *counts.entry(row.outcome.split(':').next().unwrap_or_default()).or_default() += 1;
            let name = format!("attempt {} {}", row.number, row.variant);
            if row.succeeded() {
                found.push(Finding::new(name, false, format!("SUCCEEDED: {}", row.detail)));
                continue;
            }
            if let Some(wanted) = self.wanted(&matrix, row)
                && wanted != row.outcome
                && !differences.differs.iter().any(|d| d.covers(situation, row))
            {
                let detail = format!("{}, expected {wanted}; {}", row.outcome, row.detail);
                found.push(Finding::new(name.clone(), false, detail));
            }
            let must_work = self.harmful && !row.control.starts_with("impossible: ");
            if must_work && row.control != WORKS && row.control != BY_ROOT {
                found.push(Finding::new(format!("control of {name}"), false, row.control.clone()));
            }
        }
        let counted: Vec<String> = counts.iter().map(|(k, n)| format!("{n} {k}")).collect();
        let works = rows.iter().filter(|r| r.control == WORKS).count();
        let detail = format!("{}; {works} controls work", counted.join(", "));

        // One that was refused at the launch was not made.
        let made = rows.iter().filter(|r| !r.outcome.starts_with("blocked:PAL-")).count();
        let enough = made * 2 > rows.len() && (!self.harmful || works > 0);
        let counts = Some(self.counts(&rows));
        let name = format!("{} attempts", rows.len());
        found.push(Finding { counts, ..Finding::new(name, enough, detail) });
        Ok(found)
    }

    fn counts(&self, rows: &[Row]) -> Counts {
        let mut counts = Counts { launcher: self.launcher.user().into(), ..Counts::default() };
        for row in rows {
            let kind = row.outcome.split(':').next().unwrap_or_default();
            *match kind {
                "blocked" | "killed" | "contained" | "ended" => &mut counts.stopped,
                "absent" | "impossible" | "not-guaranteed" => &mut counts.not_applicable,
                // Whatever else it is, it is nothing that stopped the attacker.
                _ => &mut counts.succeeded,
            } += 1;
        }
        counts
    }

    /// What the matrix says of a row. A delegated user's limits are cgroups, as root's are.
    fn wanted<'a>(&self, matrix: &'a Matrix, row: &Row) -> Option<&'a str> {
        if row.backend != "process" {
            return None;
        }
        let launcher = match self.launcher {
            // Memory files are refused only where memory is sampled.
            Launcher::Delegated
                if matches!(row.number, 42..=46) || row.variant.starts_with("memfd") =>
            {
                Launcher::Root
            }
            Launcher::Delegated => Launcher::User,
            other => other,
        };
        let expected = matrix.0.get(&(row.number, row.variant.clone()))?;
        expected.launchers.get(launcher.key()).map(|cell| cell.outcome.as_str())
    }
}
