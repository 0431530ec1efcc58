//! Running one program: shown before, timed, and an error that says what failed.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::Result;

/// The root of the work tree.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Whether this is a run for continuous integration, where nothing may be missing and nobody can be asked.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|v| v == "true")
}

/// The cargo that started this program, in the root of the work tree.
pub(crate) fn cargo<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(root());
    command
}

fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(name).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs it with our own input and output.
pub(crate) fn run(command: &mut Command) -> Result {
    let line = shown(command);
    eprintln!("$ {line}");
    let start = Instant::now();
    let status = command.status().map_err(|e| format!("`{line}` cannot be started: {e}"))?;
    eprintln!("  {:.1} s", start.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(format!("`{line}` failed ({status})")) }
}

/// Whether it runs and succeeds. Its output is thrown away.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_is_named_with_its_arguments() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error, "`sh -c exit 3` failed (exit status: 3)");
        let missing = run(&mut Command::new("/no/such/program")).unwrap_err();
        assert!(missing.contains("cannot be started"), "{missing}");
    }
}
