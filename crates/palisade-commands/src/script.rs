//! The first line of a program.

use std::{fs::File, io::Read, path::Path};

use palisade_model::text::escape;

use crate::CommandError;

/// What kind of file it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// No script: most likely a program of the machine.
    Program,
    /// A `#!` line: the interpreter by path, or by name where it went through `env`; and its arguments.
    Script { interpreter: String, flags: Vec<String> },
}

/// Reads the head of a file: at most 4 KiB.
pub(crate) fn read_head(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(4096);
    File::open(path)?.take(4096).read_to_end(&mut head)?;
    Ok(head)
}

pub(crate) fn head(path: &Path) -> Result<Head, CommandError> {
    let shown = || escape(&path.to_string_lossy(), 200);
    let head = read_head(path).map_err(|e| {
        CommandError::not_found(format!("{}: {e}", shown()), "it must be a readable file")
    })?;
    let Some(line) = head.strip_prefix(b"#!") else { return Ok(Head::Program) };
    let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| {
        CommandError::usage(format!("{}: its #! line is not UTF-8", shown()), "mend its first line")
    })?;
    let mut words = line.split_whitespace();
    let interpreter = words.next().unwrap_or_default().to_owned();
    if interpreter.ends_with("/env") {
        // `env -S node --flag`, `env NAME=VALUE node`; without -S everything is one word, but nobody means that.
        let mut words = words.skip_while(|w| w.starts_with('-') || w.contains('='));
        let interpreter = words.next().unwrap_or_default().to_owned();
        return Ok(Head::Script { interpreter, flags: words.map(str::to_owned).collect() });
    }
    Ok(Head::Script { interpreter, flags: words.map(str::to_owned).collect() })
}
