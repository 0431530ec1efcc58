//! The escape suite inside: one runner in a place, its rows against the matrix.
//!
//! Nothing may succeed, ever. Beyond that a row must come out as on the developer's host with the same
//! kind of launcher, except where `differences.toml` says why this kernel stops it in another way.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use palisade_escape::{
    attacker::Twin,
    control::{BY_ROOT, WORKS},
    expected::{Cell, Expected, Matrix},
    record::{Launcher, Row},
    runner::Task,
    scene,
    suite::Family,
};

use crate::{
    FOLDER, Result, controls,
    differences::{Differences, NOT_MADE},
    place::Place,
    report::{Counts, Finding},
    situation::words,
};

/// In the runner's environment and arguments, and nowhere inside the walls.
const FORBIDDEN: &str = "forbidden-word-of-the-launcher";

/// One run of the suite.
#[derive(Clone, Debug)]
pub(crate) struct Escapes {
    pub(crate) launcher: Launcher,
    pub(crate) families: &'static [&'static str],
    pub(crate) only: &'static [u16],
    /// Run the controls that could hurt a machine, and demand that they work.
    pub(crate) harmful: bool,
    /// Make each attempt without each layer that can be taken away, too.
    pub(crate) layered: bool,
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
        Self { launcher, families, only: &[], harmful: false, layered: false }
    }

    /// Only these numbers of the catalogue.
    pub(crate) const fn only(self, only: &'static [u16]) -> Self {
        Self { only, ..self }
    }

    pub(crate) fn name(&self) -> String {
        let families = self.families.join(" + ");
        let more = match (self.harmful, self.layered) {
            (true, _) => ", with harmful controls",
            (false, true) => ", and without each layer",
            (false, false) => "",
        };
        match self.only {
            [] => format!("escapes {families}{more}"),
            some => {
                let some: Vec<String> = some.iter().map(u16::to_string).collect();
                format!("escapes {families}: {}{more}", some.join(", "))
            }
        }
    }

    /// The runner, started by a host that hands its whole environment on to what it starts.
    pub(crate) fn command() -> Result<Vec<String>> {
        let variables = [
            ("PALISADE_ESCAPE_WORD", FORBIDDEN),
            ("PYTHONPATH", "/palisade/escape"),
            ("NODE_OPTIONS", "--palisade-escape"),
            ("GCONV_PATH", "/palisade/escape"),
            ("BASH_ENV", "/palisade/escape"),
        ];
        let env = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let careless = Place { env, ..Place::default() };
        let careless = serde_json::to_string(&careless).map_err(|e| e.to_string())?;
        let runner = format!("{FOLDER}/escape");
        Ok(words(&["palisade-vm", "enter", &careless, &runner, "runner", FORBIDDEN]))
    }

    /// Whether WebAssembly is attacked.
    fn wants_guests(&self) -> bool {
        self.families.iter().any(|family| matches!(*family, "wasm" | "walled"))
    }

    /// How long the runner may take, by the machine's own clock.
    pub(crate) fn limit(&self) -> Duration {
        let is_long = self.families.contains(&"host") || self.wants_guests();
        let minutes = if is_long { 60 } else { 15 };
        Duration::from_secs(minutes * 60)
    }

    /// What the runner is told, on one line.
    pub(crate) fn task(&self) -> Result<String> {
        let (attacker, privileged) = copies()?;
        let task = Task {
            launcher: self.launcher,
            attacker,
            forbidden: vec![FORBIDDEN.into()],
            privileged,
            command: Some(format!("{FOLDER}/palisade").into()),
            guests: self.wants_guests().then(|| format!("{FOLDER}/guests").into()),
            meter: None,
            families: self.families.iter().map(|f| (*f).to_owned()).collect(),
            only: self.only.to_vec(),
            own_machine: self.harmful,
            whole_only: !self.layered,
            emulated: true,
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
        let differences = Differences::read()?;
        let mut found = Vec::new();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &rows {
            *counts.entry(row.outcome.split(':').next().unwrap_or_default()).or_default() += 1;
            let name = format!("attempt {} {}", row.number, row.variant);
            if row.succeeded() {
                found.push(Finding::new(name, false, format!("SUCCEEDED: {}", row.detail)));
                continue;
            }
            let key = (row.number, row.variant.as_str());
            let accepted = |outcome: &str| differences.accept(situation, key, outcome);
            match self.wanted(&matrix, row) {
                Some(cell) if cell.outcome != row.outcome && !accepted(&row.outcome) => {
                    let detail =
                        format!("{}, expected {}; {}", row.outcome, cell.outcome, row.detail);
                    found.push(Finding::new(name.clone(), false, detail));
                }
                None if is_compared(row) => {
                    let detail = format!("{}, and nothing is expected", row.outcome);
                    found.push(Finding::new(name.clone(), false, detail));
                }
                _ => {}
            }
            let held = matrix.0.get(&(row.number, row.variant.clone()));
            for (layer, outcome) in &row.without {
                let holds = held.is_some_and(|e| e.holds_without.contains(layer));
                if holds && outcome.starts_with("SUCCEEDED") {
                    let name = format!("{name} without {layer}");
                    let detail = "SUCCEEDED; on the matrix's kernel another layer holds";
                    found.push(Finding::new(name, false, detail));
                }
            }
            if let Some(why) = self.control_fails(&matrix, row)
                && !differences.excuse_control(situation, key)
            {
                found.push(Finding::new(format!("control of {name}"), false, why));
            }
        }
        found.extend(self.not_made(&matrix, &differences, situation, &rows));
        found.extend(controls::missing(situation, self, &rows));
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

    /// Whether this run has to make an attempt of the matrix.
    fn asks_for(&self, number: u16, variant: &str) -> bool {
        let of_family = |name: &&str| match *name {
            "python" => variant.ends_with(Twin::Python.suffix()),
            name => Family::ALL.iter().any(|f| f.name() == name && f.covers(number, variant)),
        };
        (self.only.is_empty() || self.only.contains(&number)) && self.families.iter().any(of_family)
    }

    /// What the matrix has and this run did not make.
    fn not_made(
        &self,
        matrix: &Matrix,
        differences: &Differences,
        situation: &str,
        rows: &[Row],
    ) -> Vec<Finding> {
        let made: BTreeSet<(u16, &str)> =
            rows.iter().map(|r| (r.number, r.variant.as_str())).collect();
        let wanted = matrix.0.values().filter(|expected| {
            let key = (expected.number, expected.variant.as_str());
            let launcher = self.in_the_matrix(key.0, key.1);
            self.asks_for(key.0, key.1)
                && expected.launchers.contains_key(launcher.key())
                && !made.contains(&key)
                && !differences.accept(situation, key, NOT_MADE)
        });
        let finding = |expected: &Expected| {
            let name = format!("attempt {} {}", expected.number, expected.variant);
            Finding::new(name, false, NOT_MADE)
        };
        wanted.map(finding).collect()
    }

    /// Why a control proves nothing, though it works where the matrix was made, or had to be tried here.
    fn control_fails(&self, matrix: &Matrix, row: &Row) -> Option<String> {
        if row.control == WORKS || row.control == BY_ROOT {
            return None;
        }
        let elsewhere = self.wanted(matrix, row).is_some_and(|cell| cell.control == WORKS);
        let tried = self.harmful && !row.control.starts_with("impossible: ");
        (elsewhere || tried).then(|| row.control.clone())
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

    /// What the matrix says of a row.
    fn wanted<'a>(&self, matrix: &'a Matrix, row: &Row) -> Option<&'a Cell> {
        if !is_compared(row) {
            return None;
        }
        let launcher = self.in_the_matrix(row.number, &row.variant);
        matrix.0.get(&(row.number, row.variant.clone()))?.launchers.get(launcher.key())
    }

    /// Whose cell of the matrix an attempt is compared with. A delegated user's limits are cgroups, as root's
    /// are.
    fn in_the_matrix(&self, number: u16, variant: &str) -> Launcher {
        match self.launcher {
            // Memory files are refused only where memory is sampled.
            Launcher::Delegated if matches!(number, 42..=46) || variant.starts_with("memfd") => {
                Launcher::Root
            }
            Launcher::Delegated => Launcher::User,
            other => other,
        }
    }
}

/// Whether the matrix tells how a row must come out here: what the weaker backend can stop goes by the ABI of its
/// Landlock.
fn is_compared(row: &Row) -> bool {
    row.backend != "landlock"
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rows(matrix: &Matrix, escapes: &Escapes) -> Vec<Row> {
        let asked = matrix.0.values().filter(|e| escapes.asks_for(e.number, &e.variant));
        asked.map(|e| Row::new(e.number, &e.variant, &e.name, escapes.launcher)).collect()
    }

    #[test]
    fn an_attempt_that_was_not_made_is_noticed() {
        let (matrix, differences) = (Matrix::read().unwrap(), Differences::read().unwrap());
        let asked: [&[&str]; 5] =
            [&["general"], &["survive", "channel"], &["host", "python"], &["wasm"], &["walled"]];
        for families in asked {
            for launcher in [Launcher::Root, Launcher::User, Launcher::Delegated] {
                let escapes = Escapes::of(launcher, families);
                let missing =
                    |rows: &[Row]| escapes.not_made(&matrix, &differences, "cgroup2/root", rows);
                let mut all = rows(&matrix, &escapes);
                assert!(missing(&all).is_empty(), "{families:?} {launcher:?}");
                let one = all.pop().unwrap();
                let found = missing(&all);
                let name = format!("attempt {} {}", one.number, one.variant);
                assert_eq!(found, [Finding::new(name, false, NOT_MADE)]);
            }
        }
    }

    #[test]
    fn only_what_is_asked_for_must_be_made() {
        let of = |families, only| Escapes::of(Launcher::Root, families).only(only);
        let python = of(&["host", "python"], &[]);
        assert!(python.asks_for(71, "sampling") && python.asks_for(22, "socket-vsock@python"));
        assert!(!python.asks_for(22, "socket-vsock") && !python.asks_for(22, "socket-vsock@node"));
        let core = of(&["general"], &[1, 53]);
        assert!(core.asks_for(53, "iopl") && !core.asks_for(2, "dot-dot"));
        assert!(!core.asks_for(53, "iopl@landlock"), "of another family");
    }

    #[test]
    fn a_control_that_works_elsewhere_must_work_here() {
        let matrix = Matrix::read().unwrap();
        let root = Escapes::of(Launcher::Root, &["general"]);
        let mut row = Row::new(53, "acct", "", Launcher::Root);
        row.control = WORKS.into();
        assert_eq!(root.control_fails(&matrix, &row), None);
        row.control = "impossible: for some reason".into();
        assert_eq!(root.control_fails(&matrix, &row), Some(row.control.clone()));
        let (user, mut of_user) = (Escapes::of(Launcher::User, &["general"]), row);
        of_user.control = BY_ROOT.into();
        assert_eq!(user.control_fails(&matrix, &of_user), None);
        // One that could hurt: refused elsewhere, tried here.
        let harmful = Escapes { harmful: true, ..root.clone() };
        let mut row = Row::new(9, "sysrq", "", Launcher::Root);
        row.control = "vm: could hurt this machine".into();
        assert_eq!(root.control_fails(&matrix, &row), None);
        assert!(harmful.control_fails(&matrix, &row).is_some());
    }
}
