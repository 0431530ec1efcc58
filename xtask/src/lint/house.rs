//! The project's own rules, read off the work tree: no file grows too long, nothing points at notes that
//! are not in the repository, and no measurement stands without saying how it was made.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Result, step};

/// Lines of a source file: more is a warning, and an error.
const WARN_LINES: usize = 500;
const MAX_LINES: usize = 700;
/// Folders that hold nothing of ours.
const SKIPPED: [&str; 6] = ["target", ".git", "corpus", "artifacts", "node_modules", "__pycache__"];
/// Notes of the makers, outside the repository. Written in two parts so that this file passes.
const FOREIGN: [&str; 2] = [concat!("shared/", "design"), concat!("HOUSE", ".md")];
/// What a section with a measured table names, each as a row or a line of its own.
const PROVENANCE: [&str; 4] = ["command", "date", "machine", "versions"];

#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Warning(String),
    Error(String),
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            if !SKIPPED.iter().any(|s| name == *s) {
                walk(&entry.path(), found)?;
            }
        } else {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|s| s == "tests")
        || path.components().any(|c| c.as_os_str() == "tests")
}

fn length(path: &Path, text: &str) -> Option<Finding> {
    let is_source = path.extension().is_some_and(|e| e == "rs" || e == "c" || e == "py");
    let lines = text.lines().count();
    if !is_source || is_test(path) || lines <= WARN_LINES {
        return None;
    }
    let what = format!("{}: {lines} lines; split it by thing", path.display());
    Some(if lines > MAX_LINES { Finding::Error(what) } else { Finding::Warning(what) })
}

fn foreign(path: &Path, text: &str) -> impl Iterator<Item = Finding> {
    FOREIGN.iter().filter(|word| text.contains(**word)).map(move |word| {
        Finding::Error(format!("{}: points at {word}, which readers do not have", path.display()))
    })
}

/// Whether a table's header row is that of measurements.
fn is_measured(row: &str) -> bool {
    let lower = row.to_lowercase();
    row.starts_with('|')
        && lower.split('|').map(str::trim).any(|c| matches!(c, "measured" | "median" | "ratio"))
}

/// Every section with a table of measurements says where the numbers come from.
fn provenance(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut sections: Vec<(&str, Vec<&str>)> = vec![("the page's beginning", Vec::new())];
    for line in text.lines() {
        if line.starts_with('#') {
            sections.push((line.trim_start_matches('#').trim(), Vec::new()));
        } else if let Some((_, lines)) = sections.last_mut() {
            lines.push(line.trim());
        }
    }
    for (title, lines) in sections {
        if !lines.iter().any(|l| is_measured(l)) {
            continue;
        }
        for word in PROVENANCE {
            let says = |line: &&str| {
                let line = line.trim_start_matches(['|', '-', '*', ' ']).to_lowercase();
                line.strip_prefix(word).is_some_and(|rest| rest.starts_with([':', ' ', '|', '*']))
            };
            if !lines.iter().any(says) {
                findings.push(Finding::Error(format!(
                    "{}: the measurements under \"{title}\" do not name their {word}",
                    path.display()
                )));
            }
        }
    }
    findings
}

pub(crate) fn run() -> Result {
    let root = step::root();
    let mut files = Vec::new();
    walk(&root, &mut files).map_err(|e| format!("reading the work tree: {e}"))?;
    files.sort();
    let mut findings = Vec::new();
    for file in &files {
        let path = file.strip_prefix(&root).unwrap_or(file);
        // What is not text has no rules here.
        let Ok(text) = fs::read_to_string(file) else { continue };
        findings.extend(length(path, &text));
        findings.extend(foreign(path, &text));
        if path.extension().is_some_and(|e| e == "md") {
            findings.extend(provenance(path, &text));
        }
    }
    let mut errors = 0;
    for finding in &findings {
        match finding {
            Finding::Warning(what) => eprintln!("warning: {what}"),
            Finding::Error(what) => {
                errors += 1;
                eprintln!("error: {what}");
            }
        }
    }
    if errors == 0 { Ok(()) } else { Err(format!("{errors} rules of the house are broken")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> String {
        "x\n".repeat(count)
    }

    #[test]
    fn long_sources_are_warned_about_and_longer_ones_refused() {
        let path = Path::new("crates/a/src/lib.rs");
        assert_eq!(length(path, &lines(500)), None);
        assert!(matches!(length(path, &lines(501)), Some(Finding::Warning(_))));
        assert!(matches!(length(path, &lines(701)), Some(Finding::Error(_))));
    }

    #[test]
    fn tests_and_texts_may_be_long() {
        for path in ["crates/a/tests/b.rs", "crates/a/src/x/tests.rs", "docs/a.md"] {
            assert_eq!(length(Path::new(path), &lines(2000)), None, "{path}");
        }
    }

    #[test]
    fn notes_outside_the_repository_are_not_pointed_at() {
        let text = format!("see {}", FOREIGN[1]);
        assert_eq!(foreign(Path::new("a.rs"), &text).count(), 1);
        assert_eq!(foreign(Path::new("a.rs"), "see ARCHITECTURE.md").count(), 0);
    }

    #[test]
    fn a_measured_table_must_say_where_it_comes_from() {
        let page =
            "# Page\n\n## Numbers\n| name | median | unit |\n|---|---|---|\n| a | 1 | us |\n";
        assert_eq!(provenance(Path::new("a.md"), page).len(), 4);
        let told = format!(
            "{page}\n| Command | `x` |\n|---|---|\n| Date | 2026-01-01 |\n- Machine: m\n* Versions: v\n"
        );
        assert_eq!(provenance(Path::new("a.md"), &told), []);
    }

    #[test]
    fn other_tables_need_nothing() {
        let page = "## Kinds\n| kind | default value |\n|---|---|\n| a | 1 |\n";
        assert_eq!(provenance(Path::new("a.md"), page), []);
    }
}
