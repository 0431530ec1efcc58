//! `palisade audit verify`: whether a record is as it was written.

use std::{
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use palisade_audit::{Chain, Verified, VerifyError, verify};
use palisade_model::{ErrorCode, Failure, text::escape};
use serde_json::json;

use crate::{
    cli::Output,
    session::shown,
    terminal::{self, Paint},
    trouble::Trouble,
};

/// Look at the record of what was asked
///
/// The record is what --audit FILE appends to.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  palisade audit verify audit.jsonl
  palisade audit verify audit.jsonl --contains HEAD    with the head that an earlier look has printed")]
pub(crate) struct Audit {
    #[command(subcommand)]
    command: Command,
}

impl Audit {
    /// Whether JSON is printed.
    pub(crate) fn is_json(&self) -> bool {
        let Command::Verify(args) = &self.command;
        args.output.json
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(Verify),
}

/// Check that a record is as it was written
///
/// Each line is tied to all lines before it, so that one that was changed, taken out, put in or moved is found (status
/// 3). Who writes all that follows anew as well, cuts off the end or goes on with it is not found by that. Everything up
/// to a line is known to be as it was if the head of an earlier look was kept somewhere else and is given with
/// --contains. On Linux and macOS the record of a running host can be checked too.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  palisade audit verify audit.jsonl
  palisade audit verify audit.jsonl --json | jq -r .head     keep this where nobody can write who can write the record
  palisade audit verify audit.jsonl --contains \"$(ssh log cat head)\"")]
struct Verify {
    /// The record
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A line with this chain must be in it; may be given several times
    #[arg(long, value_name = "CHAIN")]
    contains: Vec<Chain>,
    #[command(flatten)]
    output: Output,
}

/// Does what was asked.
pub(crate) fn audit(args: &Audit) -> Result<(), Trouble> {
    let Command::Verify(args) = &args.command;
    let unread = |e: io::Error| Trouble::usage(format!("cannot read {}: {e}", shown(&args.file)));
    let record = BufReader::with_capacity(1 << 16, open(&args.file).map_err(unread)?);
    let seen = verify(record, &args.contains).map_err(|error| refused(&args.file, &error))?;
    if args.output.json {
        terminal::json(&json!({
            "file": args.file.to_string_lossy(),
            "records": seen.records,
            "first": seen.first,
            "last": seen.last,
            "head": seen.head,
            "closed": seen.closed,
            "unfinished": seen.unfinished,
        }));
    } else {
        say(&args.file, &seen, args.contains.len());
    }
    Ok(())
}

/// A file, and nothing that is waited for.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0));
    }
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"))
}

fn unfinished(seen: &Verified) {
    if seen.unfinished > 0 {
        terminal::out(format_args!(
            "at its end {} bytes of a line that is not whole yet, or was not when its host ended",
            seen.unfinished
        ));
    }
}

fn refused(file: &Path, error: &VerifyError) -> Trouble {
    let hint = match error {
        VerifyError::Io(_) => return Trouble::usage(format!("{}: {error}", shown(file))),
        VerifyError::Altered { line: 1, .. } => {
            "keep the file as it is: nothing in it is known to be as it was written"
        }
        VerifyError::Missing(_) => {
            "keep the file as it is; what is in it may not be what was recorded"
        }
        _ => {
            "keep the file as it is; lines before this one are as they were written, unless all of it was written anew"
        }
    };
    let message = format!("the record {} is not as it was written: {error}", shown(file));
    Trouble::Failure(Failure::new(ErrorCode::RecordFailed, message).rule("chain").hint(hint))
}

fn say(file: &Path, seen: &Verified, noted: usize) {
    let paint = Paint::stdout();
    let (Some(first), Some(last)) = (&seen.first, &seen.last) else {
        terminal::out(format_args!("{}: nothing is recorded yet", shown(file)));
        return unfinished(seen);
    };
    let count =
        if seen.records == 1 { "1 record".into() } else { format!("{} records", seen.records) };
    terminal::out(format_args!(
        "{}: {count} from {} to {}, {}",
        paint.bold(shown(file)),
        escape(&first.time, 40),
        escape(&last.time, 40),
        paint.good("each as it was written after the one before")
    ));
    if !seen.closed {
        terminal::out("not closed: a host is writing it, was ended, or the end is missing");
    }
    unfinished(seen);
    match noted {
        0 => {}
        1 => terminal::out("the chain that was noted is in it"),
        n => terminal::out(format_args!("all {n} chains that were noted are in it")),
    }
    terminal::out(format_args!("head {}", seen.head));
}
