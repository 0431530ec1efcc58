//! Pages that promise name the tests that attack the promise; here it is checked that those exist.
//!
//! A link whose text is `escape N` leads to that number's data, which must hold an attempt. A link whose text
//! is a name in code and whose target is a Rust file leads to a function of that name. On the page about
//! the walls every item of a list, outside of what is not protected against, has at least one.

use std::{fs, path::Path};

use crate::{Result, step};

/// The page of which every statement is proven.
const PROVEN: &str = "docs/explanation/walls.md";
/// Where statements need no test: they say what does not hold.
const EXEMPT: &str = "What it does not protect against";
const FOLDERS: [&str; 2] = ["docs/explanation", "docs/reference"];

/// Text and target of every link of a line.
fn links(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split("](").zip(line.split("](").skip(1)).filter_map(|(before, after)| {
        let text = &before[before.rfind('[')? + 1..];
        Some((text, &after[..after.find(')')?]))
    })
}

/// Whether a link points at a test, and what is wrong with it.
fn proof(folder: &Path, text: &str, target: &str) -> Option<std::result::Result<(), String>> {
    let read = || fs::read_to_string(folder.join(target)).map_err(|e| format!("{target}: {e}"));
    if let Some(number) = text.strip_prefix("escape ") {
        let number: u16 = number.parse().ok()?;
        return Some(read().and_then(|data| {
            let here = target.ends_with(&format!("/{number:02}.toml"))
                && data.contains(&format!("number = {number}\n"));
            if here { Ok(()) } else { Err(format!("{target} has no attempt {number}")) }
        }));
    }
    let name = text.strip_prefix('`')?.strip_suffix('`')?;
    target.ends_with(".rs").then(|| {
        read().and_then(|source| {
            let is_there = source.contains(&format!("fn {name}("));
            if is_there { Ok(()) } else { Err(format!("{target} has no test {name}")) }
        })
    })
}

/// What is wrong with one page.
fn page(folder: &Path, text: &str, is_proven: bool) -> Vec<String> {
    let (mut findings, mut exempt) = (Vec::new(), false);
    for line in text.lines() {
        if let Some(title) = line.strip_prefix('#') {
            exempt = title.trim_start_matches('#').trim() == EXEMPT;
        }
        let proofs: Vec<_> = links(line).filter_map(|(t, to)| proof(folder, t, to)).collect();
        let numbered = line.split_once(". ").is_some_and(|(n, _)| n.parse::<u32>().is_ok());
        let is_item = line.trim_start().starts_with("- ") || numbered;
        if is_proven && is_item && !exempt && proofs.is_empty() {
            let start: String = line.chars().take(60).collect();
            findings.push(format!("nothing attacks \"{start}…\""));
        }
        findings.extend(proofs.into_iter().filter_map(std::result::Result::err));
    }
    findings
}

pub(crate) fn run() -> Result {
    let root = step::root();
    let mut errors = 0;
    for folder in FOLDERS {
        let folder = root.join(folder);
        let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for path in entries.flatten().map(|e| e.path()) {
            if path.extension().is_none_or(|e| e != "md") {
                continue;
            }
            let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            for finding in page(&folder, &text, path == root.join(PROVEN)) {
                errors += 1;
                eprintln!("error: {}: {finding}", path.display());
            }
        }
    }
    if errors == 0 { Ok(()) } else { Err(format!("{errors} statements have no test")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_about_the_walls_has_a_test_that_exists() {
        assert_eq!(run(), Ok(()));
    }

    #[test]
    fn what_is_missing_is_found() {
        let folder = tempfile_folder();
        fs::write(folder.join("a.rs"), "fn is_there() {}").unwrap();
        fs::write(folder.join("07.toml"), "number = 7\n").unwrap();
        let page = |text: &str| page(&folder, text, true).len();
        assert_eq!(page("- x [`is_there`](a.rs), [escape 7](./07.toml)"), 0);
        assert_eq!(page("- x [`is_gone`](a.rs)"), 1);
        assert_eq!(page("- x [escape 8](./07.toml)"), 1);
        assert_eq!(page("1. nothing"), 1);
        assert_eq!(page("Prose needs none."), 0);
        assert_eq!(page(&format!("## {EXEMPT}\n- nothing")), 0);
        fs::remove_dir_all(folder).unwrap();
    }

    fn tempfile_folder() -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("palisade-proofs-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }
}
