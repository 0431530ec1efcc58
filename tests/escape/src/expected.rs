//! The matrix as data: what every attempt must come to, for every launcher, in `expected/NN.toml`.
//!
//! The outcome, the outcome with a layer taken away, and the layers are asserted exactly. The control may
//! be better than written (another machine may have what this one lacks), never worse.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    control::{BY_ROOT, WORKS},
    families::{ablation, network},
    layers,
    record::{Launcher, Row},
    trouble::{Result, While},
};

/// One attempt, as one way to make it is expected to end.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Number in the catalogue.
    pub number: u16,
    /// The way.
    pub variant: String,
    /// In words.
    pub name: String,
    /// The layers that stop it (or bound it), the deciding one first.
    pub stopped_by: Vec<String>,
    /// Layers that can be taken away one at a time without the attacker reaching its goal.
    #[serde(default)]
    pub holds_without: BTreeSet<String>,
    /// How what has no control is shown to be refused: `evaluator`, or why no system call is in question.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub proof: String,
    /// By launcher.
    pub launchers: BTreeMap<String, Cell>,
}

/// What one launcher sees.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// The outcome.
    pub outcome: String,
    /// `works`, or why there is no positive control.
    pub control: String,
    /// Outcomes with one layer taken away, where that was tried.
    #[serde(default)]
    pub without: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct File {
    attempt: Vec<Expected>,
}

/// Key of an attempt.
pub type Key = (u16, String);

/// All expectations, by attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix(pub BTreeMap<Key, Expected>);

/// Where the expectations lie.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("expected")
}

/// Something that was seen otherwise than it is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which attempt, by whom: `44 spin (root)`.
    pub place: String,
    /// What is different.
    pub what: String,
    /// The attacker had success.
    pub succeeded: bool,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl Matrix {
    /// Reads every file of the suite's own folder.
    ///
    /// # Errors
    /// When one cannot be read or is not understood.
    pub fn read() -> Result<Self> {
        Self::read_from(&folder())
    }

    /// Reads every file of a folder.
    ///
    /// # Errors
    /// When one cannot be read or is not understood.
    pub fn read_from(folder: &Path) -> Result<Self> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(folder).doing("opening the expectations")?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "toml") {
                let text = fs::read_to_string(&path).doing(path.display())?;
                let file: File = toml::from_str(&text).doing(path.display())?;
                for row in file.attempt {
                    all.insert((row.number, row.variant.clone()), row);
                }
            }
        }
        Ok(Self(all))
    }

    /// Writes one file for each number.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self) -> Result<()> {
        let mut files: BTreeMap<u16, String> = BTreeMap::new();
        for ((number, _), row) in &self.0 {
            let text = files.entry(*number).or_default();
            if !text.is_empty() {
                text.push('\n');
            }
            render(text, row);
        }
        for (number, text) in files {
            let path = folder().join(format!("{number:02}.toml"));
            fs::write(&path, text).doing(path.display())?;
        }
        Ok(())
    }

    /// Gives each row its layers, from the expectations.
    pub fn annotate(&self, rows: &mut [Row]) {
        for row in rows {
            if let Some(expected) = self.0.get(&(row.number, row.variant.clone())) {
                row.stopped_by.clone_from(&expected.stopped_by);
            }
        }
    }

    /// Every difference between what was seen and what is expected; empty where there is none.
    /// Only attempts for which `covers` answers yes must have been made.
    #[must_use]
    pub fn differences(
        &self,
        rows: &[Row],
        covers: impl Fn(&Key, Launcher) -> bool,
    ) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut made: BTreeSet<(Key, Launcher)> = BTreeSet::new();
        for row in rows {
            let key = (row.number, row.variant.clone());
            made.insert((key.clone(), row.launcher));
            let place = format!("{} {} ({})", row.number, row.variant, row.launcher.key());
            let cell = self.0.get(&key).and_then(|e| e.launchers.get(row.launcher.key()));
            let worse = |(layer, seen): (&String, &String)| {
                seen.starts_with("SUCCEEDED")
                    && cell.is_some_and(|cell| cell.without.get(layer) != Some(seen))
            };
            let succeeded = row.succeeded() || row.without.iter().any(worse);
            let mut differs = |what: String| {
                found.push(Difference { place: place.clone(), what, succeeded });
            };
            if row.succeeded() {
                differs(format!("SUCCEEDED\n    {}", row.detail));
            }
            let Some(cell) = cell else {
                differs(format!("{} and nothing is expected", row.outcome));
                continue;
            };
            if cell.outcome != row.outcome && !row.succeeded() {
                differs(format!(
                    "stopped in another way\n  - {}\n  + {}\n    {}",
                    cell.outcome, row.outcome, row.detail
                ));
            }
            for (layer, seen) in &row.without {
                let wanted = cell.without.get(layer).map_or("nothing", String::as_str);
                if wanted != seen {
                    differs(format!(
                        "stopped in another way without {layer}\n  - {wanted}\n  + {seen}"
                    ));
                }
            }
            if cell.control == WORKS && row.control != WORKS {
                differs(format!("the control does not work\n  + {}", row.control));
            }
        }
        for (key, expected) in &self.0 {
            for launcher in expected.launchers.keys().filter_map(|l| Launcher::parse(l)) {
                if covers(key, launcher) && !made.contains(&(key.clone(), launcher)) {
                    let place = format!("{} {} ({})", key.0, key.1, launcher.key());
                    found.push(Difference { place, what: "not made".into(), succeeded: false });
                }
            }
        }
        found
    }

    /// Takes over what was seen, except successes of the attacker: those are never expected. Gives the
    /// rows that were refused.
    pub fn update(&mut self, rows: &[Row]) -> Vec<String> {
        let mut refused = Vec::new();
        for row in rows {
            if row.succeeded() {
                refused.push(format!("{} {}: {}", row.number, row.variant, row.detail));
                continue;
            }
            let key = (row.number, row.variant.clone());
            let expected = self.0.entry(key).or_insert_with(|| Expected {
                number: row.number,
                variant: row.variant.clone(),
                name: row.name.clone(),
                stopped_by: layers::first_guess(row),
                holds_without: BTreeSet::new(),
                proof: layers::first_proof(row),
                launchers: BTreeMap::new(),
            });
            expected.name.clone_from(&row.name);
            let cell = Cell {
                outcome: row.outcome.clone(),
                control: row.control.clone(),
                without: row.without.clone(),
            };
            expected.launchers.insert(row.launcher.key().into(), cell);
            expected.holds_without = expected.measured_holds();
        }
        refused
    }
}

/// What comes of an attempt without a layer.
enum Without {
    NotTried,
    /// No launcher's attacker succeeds.
    Holds,
    Succeeds,
    /// Only where cgroups hold the limits, or only where they are sampled.
    ByLimits,
}

impl Expected {
    /// The backend that it is made against, or the host.
    #[must_use]
    pub fn backend(&self) -> &'static str {
        use crate::families::{host, landlock, wasm};
        if self.variant.ends_with(landlock::WITH) {
            "landlock"
        } else if self.variant.ends_with(wasm::WITH) {
            "wasm+process"
        } else if wasm::covers(self.number) {
            "wasm"
        } else if host::covers(self.number, &self.variant)
            && (!matches!(self.number, 50 | 60 | 69) || self.variant.starts_with("sealed"))
        {
            "host"
        } else {
            "process"
        }
    }

    /// Layers whose absence was tried and changed nothing for the attacker, with every launcher.
    #[must_use]
    pub fn measured_holds(&self) -> BTreeSet<String> {
        let mut tried: BTreeMap<&String, bool> = BTreeMap::new();
        for (layer, outcome) in self.launchers.values().flat_map(|c| &c.without) {
            *tried.entry(layer).or_insert(true) &= !outcome.starts_with("SUCCEEDED");
        }
        tried.into_iter().filter(|(_, holds)| *holds).map(|(layer, _)| layer.clone()).collect()
    }

    /// What came of it without a layer.
    fn without(&self, layer: &str) -> Without {
        let of = |launcher: Launcher| {
            let cell = self.launchers.get(launcher.key())?;
            Some(cell.without.get(layer)?.starts_with("SUCCEEDED"))
        };
        let (root, policed, user) =
            (of(Launcher::Root), of(Launcher::RootPoliced), of(Launcher::User));
        let succeeds = [root, policed, user].into_iter().flatten();
        match succeeds.reduce(|any, one| any | one) {
            None => Without::NotTried,
            Some(false) => Without::Holds,
            // The same user with and without cgroups makes the difference, and no user makes any.
            Some(true) if policed.is_some() && policed == user && root != policed => {
                Without::ByLimits
            }
            Some(true) => Without::Succeeds,
        }
    }

    /// What is not coherent in the data itself.
    #[must_use]
    pub fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut say =
            |what: String| found.push(format!("{} {}: {what}", self.number, self.variant));
        if self.stopped_by.is_empty() {
            say("no layer is named".into());
        }
        if self.holds_without != self.measured_holds() {
            say(format!(
                "holds_without is {:?}, measured {:?}",
                self.holds_without,
                self.measured_holds()
            ));
        }
        let is_tried = |layer: &str| self.launchers.values().any(|c| c.without.contains_key(layer));
        for layer in ablation::LAYERS.iter().map(|l| l.name) {
            let alone = self.stopped_by == [layer];
            let wrong = match self.without(layer) {
                Without::NotTried => false,
                Without::Holds => alone,
                Without::Succeeds => !alone,
                // With cgroups another layer stops it than without them, and the row names both.
                Without::ByLimits => !self.stopped_by.iter().any(|named| named == layer),
            };
            if wrong {
                say(format!(
                    "stopped_by {:?}, but without {layer} the attacker {}",
                    self.stopped_by,
                    if alone {
                        "is stopped all the same: name what stops it"
                    } else {
                        "succeeds: nothing else stops it"
                    }
                ));
            }
        }
        // Where two stand one behind the other, each must have been taken away.
        let named: Vec<&String> =
            self.stopped_by.iter().filter(|l| ablation::named(l).is_some()).collect();
        // A way out cannot be opened in the host's own network; the attempt is made without one, too.
        let with_way_out = self.variant.ends_with(network::WITH) || network::only_with(self.number);
        let can_be_tried = |layer: &str| !(with_way_out && layer == "network namespace");
        if named.len() > 1 && self.backend() == "process" {
            for layer in named.iter().filter(|l| can_be_tried(l) && !is_tried(l)) {
                say(format!("it names {named:?}, and was not made without {layer}"));
            }
        }
        for (launcher, cell) in &self.launchers {
            if cell.outcome.starts_with("SUCCEEDED") {
                say(format!("a success is expected ({launcher})"));
            }
        }
        let controls: Vec<&str> = self.launchers.values().map(|c| c.control.as_str()).collect();
        let shown = controls.contains(&WORKS);
        let excused =
            controls.iter().any(|c| c.starts_with("impossible: ") || c.starts_with("vm: "));
        if !shown && !excused {
            say(format!("no control works and none is excused: {controls:?}"));
        }
        if !shown && self.proof.is_empty() {
            say("without a control it needs a proof".into());
        }
        if controls.contains(&BY_ROOT) && !self.launchers.contains_key("root") {
            say("the control is left to root, which does not make this attempt".into());
        }
        found
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A key of TOML: bare where it is one word.
fn key(text: &str) -> String {
    if text.contains(' ') { quoted(text) } else { text.to_owned() }
}

fn list<'a>(items: impl IntoIterator<Item = &'a String>) -> String {
    let items: Vec<String> = items.into_iter().map(|i| quoted(i)).collect();
    format!("[{}]", items.join(", "))
}

fn render(text: &mut String, row: &Expected) {
    // Writing to a string does not fail.
    let _ =
        writeln!(text, "[[attempt]]\nnumber = {}\nvariant = {}", row.number, quoted(&row.variant));
    let _ = writeln!(text, "name = {}\nstopped_by = {}", quoted(&row.name), list(&row.stopped_by));
    if !row.holds_without.is_empty() {
        let _ = writeln!(text, "holds_without = {}", list(&row.holds_without));
    }
    if !row.proof.is_empty() {
        let _ = writeln!(text, "proof = {}", quoted(&row.proof));
    }
    for (launcher, cell) in &row.launchers {
        let mut line = format!(
            "launchers.{launcher} = {{ outcome = {}, control = {}",
            quoted(&cell.outcome),
            quoted(&cell.control)
        );
        if !cell.without.is_empty() {
            let layers: Vec<String> =
                cell.without.iter().map(|(l, o)| format!("{} = {}", key(l), quoted(o))).collect();
            let _ = write!(line, ", without = {{ {} }}", layers.join(", "));
        }
        let _ = writeln!(text, "{line} }}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row whose attacker, without the filter, succeeds for these launchers.
    fn row(succeeds: &[(Launcher, bool)], stopped_by: &[&str]) -> Expected {
        let cell = |succeeds: bool| {
            let outcome = if succeeds { "SUCCEEDED" } else { "killed:memory" };
            Cell {
                outcome: "blocked:ENOSYS".into(),
                control: WORKS.into(),
                without: [("seccomp".to_owned(), outcome.to_owned())].into(),
            }
        };
        let launchers = succeeds.iter().map(|(of, succeeds)| (of.key().into(), cell(*succeeds)));
        let mut row = Expected {
            number: 43,
            variant: "queues".into(),
            name: "queues".into(),
            stopped_by: stopped_by.iter().map(|&layer| layer.into()).collect(),
            holds_without: BTreeSet::new(),
            proof: String::new(),
            launchers: launchers.collect(),
        };
        row.holds_without = row.measured_holds();
        row
    }

    #[test]
    fn two_layers_stand_behind_each_other_or_each_for_its_own_kind_of_limits() {
        use Launcher::{Root, RootPoliced, User};
        let wrong = |succeeds: &[(Launcher, bool)], stopped_by: &[&str]| {
            row(succeeds, stopped_by).contradictions().len()
        };
        let both = ["cgroup", "seccomp"];
        assert_eq!(wrong(&[(Root, false), (User, false)], &both), 0);
        assert_eq!(wrong(&[(Root, false), (User, false)], &["seccomp"]), 1, "what stops it then?");
        assert_eq!(wrong(&[(Root, true), (User, true)], &["seccomp"]), 0);
        assert_eq!(wrong(&[(Root, true), (User, true)], &both), 1, "nothing else stops it");
        let by_limits = [(Root, false), (RootPoliced, true), (User, true)];
        assert_eq!(wrong(&by_limits, &both), 0);
        assert_eq!(wrong(&by_limits, &["cgroup"]), 1, "the layer is not named");
        assert_eq!(wrong(&[(Root, false), (User, true)], &both), 1, "it may be the user's id");
        let by_user = [(Root, false), (RootPoliced, false), (User, true)];
        assert_eq!(wrong(&by_user, &both), 1);
    }
}
