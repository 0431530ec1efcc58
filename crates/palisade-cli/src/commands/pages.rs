//! Completion scripts and manual pages, made from the definition of the command line.

use std::path::Path;

use clap::CommandFactory as _;

use crate::{cli::Cli, session::shown, trouble::Trouble};

/// Prints a completion script.
pub(crate) fn completions(shell: clap_complete::Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "palisade", &mut script);
    crate::terminal::out(String::from_utf8_lossy(&script).trim_end());
}

/// Writes `palisade.1` and `palisade-COMMAND.1` into a folder.
pub(crate) fn man(folder: &Path) -> Result<(), Trouble> {
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .map_err(|error| {
            Trouble::usage(format!("cannot write manual pages into {}: {error}", shown(folder)))
        })
}
