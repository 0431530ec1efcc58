//! `escape`: makes every attempt and prints the matrix.
//!
//! `escape [--json]`; exit status 0 if nothing differs from the expectations, 1 if something does, 2 if the
//! suite itself could not run. `escape runner` is how the suite starts itself as another user.
//! `escape compare [--srt DIR] [--sandlock PROGRAM] [--json | --write]` makes the attempts behind bubblewrap and
//! those, and prints who stops what, or writes it into the page of the documentation.
//! `escape guests DIR` builds the guests of the WebAssembly wall into a new folder, for a runner elsewhere.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    io::{BufRead, Read},
    path::Path,
    process::ExitCode,
};

use palisade_escape::{
    elsewhere::{self, page, tools::Tool},
    expected::{Expected, Matrix},
    families::wasm,
    matrix,
    record::{Launcher, Row},
    report, runner,
    suite::{can_make, launchers},
    trouble::{Result, Trouble, While},
};
use serde::de::DeserializeOwned;

fn main() -> ExitCode {
    // This program is the engine behind the walls too.
    if let Some(status) = palisade_wasm::engine_process::enter() {
        return status;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        Some("runner") => run_as_runner(runner::run).map(|()| true),
        Some("elsewhere-runner") => run_as_runner(elsewhere::run).map(|()| true),
        Some("guests") => guests(args.get(1..).unwrap_or_default()).map(|()| true),
        Some("compare") => compare(args.get(1..).unwrap_or_default()).map(|()| true),
        None | Some("--json") => run_all(!args.is_empty()),
        _ => Err(Trouble("usage: escape [--json] | compare … | guests DIR".into())),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(e) => {
            eprintln!("escape: {e}");
            ExitCode::from(2)
        }
    }
}

/// Reads a task from standard input, and prints its rows. Ends when standard input does: then whoever
/// started it is gone.
fn run_as_runner<T: DeserializeOwned>(run: fn(&T) -> Result<Vec<Row>>) -> Result<()> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).doing("reading the task")?;
    let task: T = serde_json::from_str(&line).doing("reading the task")?;
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _ = std::io::stdin().lock().read_to_end(&mut rest);
        std::process::exit(3);
    });
    let rows = run(&task)?;
    println!("{}", serde_json::to_string(&rows)?);
    Ok(())
}

fn guests(args: &[String]) -> Result<()> {
    let [folder] = args else { return Err(Trouble("usage: escape guests DIR".into())) };
    wasm::build(Path::new(folder))
}

/// The rows that cannot be made by who started this, a line for each launcher. The attempts that a launcher
/// of this run cannot make are named by its runner.
fn skipped(expected: &Matrix, here: &[Launcher]) -> Vec<String> {
    let missing = Launcher::ALL.into_iter().filter(|launcher| !here.contains(launcher));
    let line = |launcher: Launcher| {
        let has = |row: &&Expected| row.launchers.contains_key(launcher.key());
        format!(
            "SKIPPED: rows of launcher {}: {} of them; the suite was started by an ordinary user, and only root can be root",
            launcher.key(),
            expected.0.values().filter(has).count()
        )
    };
    missing.map(line).collect()
}

fn run_all(json: bool) -> Result<bool> {
    let expected = Matrix::read()?;
    let skipped = skipped(&expected, &launchers());
    for line in &skipped {
        eprintln!("{line}");
    }
    if !skipped.is_empty() && std::env::var("CI").is_ok_and(|v| v == "true") {
        return Err(Trouble("in CI nothing may be skipped: start the suite as root".into()));
    }
    let rows = matrix(&std::env::current_exe()?)?;
    let differences = expected.differences(&rows, |key, launcher| {
        launchers().contains(&launcher) && can_make(key.0, &key.1)
    });
    if json {
        println!("{}", serde_json::to_string_pretty(&report::json(&rows))?);
    } else {
        print!("{}\n{}", report::table(&rows), report::summary(&rows));
    }
    for difference in &differences {
        eprintln!("escape: {difference}");
    }
    Ok(differences.is_empty())
}

fn compare(args: &[String]) -> Result<()> {
    let mut tools = vec![Tool::Bubblewrap];
    let (mut json, mut write) = (false, false);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut value = || {
            let path = rest.next().ok_or_else(|| Trouble(format!("{arg} needs a path")))?;
            std::fs::canonicalize(path).doing(path)
        };
        match arg.as_str() {
            "--json" => json = true,
            "--write" => write = true,
            "--srt" => tools.push(Tool::Srt(value()?)),
            "--sandlock" => tools.push(Tool::Sandlock(value()?)),
            other => return Err(Trouble(format!("compare has no {other}"))),
        }
    }
    let rows = elsewhere::compare(&std::env::current_exe()?, &tools)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report::json(&rows))?);
    }
    let made = page::made(&tools)?;
    if write {
        page::write(&rows, &made)?;
    } else if !json {
        println!("{}", page::markdown(&rows, &made));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ordinary_user_leaves_out_is_said() {
        let expected = Matrix::read().unwrap();
        let said = skipped(&expected, &[Launcher::User]);
        assert_eq!(said.len(), 2, "{said:#?}");
        for (line, launcher) in said.iter().zip(["root", "root-policed"]) {
            let head = format!("SKIPPED: rows of launcher {launcher}: ");
            let rest = line.strip_prefix(&head).unwrap_or_else(|| panic!("{line}"));
            let count: usize = rest.split(' ').next().unwrap().parse().unwrap();
            assert!(count > 20, "{line}");
        }
        assert_eq!(skipped(&expected, &Launcher::ALL), Vec::<String>::new());
    }
}
