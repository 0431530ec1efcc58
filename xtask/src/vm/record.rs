//! The table of results in the documentation: a row for each situation, replaced when it is run again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::outcome::{Check, Counts, Outcome};
use crate::{Result, step};

const BEGIN: &str = "<!-- results: begin -->\n\n";
const END: &str = "\n<!-- results: end -->";
const HEAD: &str = "| Situation | Kernel | Landlock | Plugins started by | Checks | Failed | Attempts | Stopped | Not applicable | SUCCEEDED | Sources | Date |\n\
    |---|---|---|---|---|---|---|---|---|---|---|---|\n";

fn page() -> PathBuf {
    step::root().join("docs/how-to/test-on-other-kernels.md")
}

/// Writes the rows of this outcome into the page. `sources`: the state of what was measured; `machines`: all
/// there are, in their order.
pub(super) fn write(outcome: &Outcome, sources: &str, machines: &[&str]) -> Result {
    let page = page();
    let trouble = |path: &Path| {
        let path = path.display().to_string();
        move |e: std::io::Error| format!("{path}: {e}")
    };
    // Tests that write this page lock it too, and so does a second run of this command.
    let lock = fs::File::open(&page).map_err(trouble(&page))?;
    lock.lock().map_err(trouble(&page))?;
    let text = fs::read_to_string(&page).map_err(trouble(&page))?;
    let written = with_rows(&text, &rows(outcome, sources, &today()), machines)
        .ok_or("the page has no marks for results")?;
    fs::write(&page, written).map_err(trouble(&page))
}

fn today() -> String {
    let output = Command::new("date").args(["-u", "+%F"]).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}

/// A row for each situation that came to its end.
fn rows(outcome: &Outcome, sources: &str, date: &str) -> Vec<String> {
    let row = |situation: &String| {
        let checks: Vec<&Check> =
            outcome.checks.iter().filter(|c| c.situation == *situation).collect();
        let failed = checks.iter().filter(|c| !c.ok).count();
        let mut sum = Counts::default();
        for counts in checks.iter().filter_map(|c| c.counts.as_ref()) {
            sum.launcher.clone_from(&counts.launcher);
            sum.stopped += counts.stopped;
            sum.not_applicable += counts.not_applicable;
            sum.succeeded += counts.succeeded;
        }
        let launcher = if sum.launcher.is_empty() { "nobody" } else { &sum.launcher };
        format!(
            "| `{}/{situation}` | {} | {} | {launcher} | {} | {failed} | {} | {} | {} | {} | {sources} | {date} |",
            outcome.machine,
            outcome.kernel,
            outcome.landlock,
            checks.len(),
            sum.stopped + sum.not_applicable + sum.succeeded,
            sum.stopped,
            sum.not_applicable,
            sum.succeeded,
        )
    };
    outcome.situations.iter().map(|(name, _)| row(name)).collect()
}

/// `machine/situation` of a row.
fn name(row: &str) -> &str {
    row.split('`').nth(1).unwrap_or_default()
}

/// The page with these rows in place of older ones of the same name.
fn with_rows(page: &str, new: &[String], machines: &[&str]) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (is, after) = rest.split_once(END)?;
    let mut all: Vec<String> =
        is.lines().filter(|l| l.starts_with("| `")).map(str::to_owned).collect();
    for row in new {
        match all.iter_mut().find(|old| name(old) == name(row)) {
            Some(old) => old.clone_from(row),
            None => all.push(row.clone()),
        }
    }
    let machine =
        |row: &String| machines.iter().position(|m| name(row).split('/').next() == Some(*m));
    all.sort_by_key(machine);
    Some(format!("{before}{BEGIN}{HEAD}{}\n{END}{after}", all.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_the_place_of_the_older_one_and_machines_keep_their_order() {
        let page = format!("a\n{BEGIN}{END}\nb\n");
        let rows = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let machines = ["m", "n"];
        let once = with_rows(&page, &rows(&["| `n/x` | 1 |", "| `m/y` | 1 |"]), &machines).unwrap();
        let twice = with_rows(&once, &rows(&["| `n/x` | 2 |"]), &machines).unwrap();
        assert_eq!(twice, format!("a\n{BEGIN}{HEAD}| `m/y` | 1 |\n| `n/x` | 2 |\n{END}\nb\n"));
        assert_eq!(with_rows("no marks", &[], &machines), None);
    }
}
