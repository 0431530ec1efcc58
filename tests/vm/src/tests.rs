//! This project's own test programs inside, where an interpreter is there for them.

use std::fs;

use crate::{FOLDER, Result, report::Finding};

/// The program whose name begins so, and its arguments. One test at a time: two share few processors.
pub(crate) fn command(program: &str, without: &[&str]) -> Result<Vec<String>> {
    let folder = format!("{FOLDER}/tests");
    let entries = fs::read_dir(&folder).map_err(|e| format!("{folder}: {e}"))?;
    let path = entries
        .flatten()
        .map(|e| e.path())
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy() == *program))
        .ok_or_else(|| format!("no test program {program} in {folder}"))?;
    let mut command = vec![path.display().to_string(), "--test-threads=1".to_owned()];
    for name in without {
        command.extend(["--skip".to_owned(), (*name).to_owned()]);
    }
    Ok(command)
}

/// The findings of what a test program printed.
pub(crate) fn judge(program: &str, printed: Result<String>) -> Result<Vec<Finding>> {
    let (text, ended) = match printed {
        Ok(text) => (text, true),
        Err(text) => (text, false),
    };
    let mut found = Vec::new();
    let mut passed = 0;
    for line in text.lines() {
        let Some((name, result)) = line.strip_prefix("test ").and_then(|l| l.split_once(" ... "))
        else {
            continue;
        };
        if result.starts_with("ok") {
            passed += 1;
        } else if result.starts_with("FAILED") {
            found.push(Finding::new(format!("test {program} {name}"), false, why(&text, name)));
        }
    }
    let ok = ended && passed > 0;
    let detail =
        if ok { format!("{passed} passed") } else { format!("{passed} passed; {}", tail(&text)) };
    found.push(Finding::new(format!("tests {program}"), ok, detail));
    Ok(found)
}

/// What a failed test said.
fn why(text: &str, name: &str) -> String {
    let head = format!("---- {name} stdout ----");
    let said = text.split_once(&head).map_or("", |(_, rest)| rest);
    let said = said.split("\n---- ").next().unwrap_or_default();
    said.chars().take(600).collect::<String>().trim().to_owned()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(6)..).unwrap_or_default().join(" | ")
}
