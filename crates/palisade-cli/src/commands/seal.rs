//! `palisade seal`: which files a plugin consists of, written into its manifest.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use palisade_host::{HostError, content};
use palisade_model::{ErrorCode, Failure};
use serde_json::json;

use crate::{
    cli::Output,
    session::shown,
    terminal::{self, Paint},
    trouble::Trouble,
    words,
};

/// Write into a plugin's manifest which files it consists of
///
/// Sets `content` in the manifest to the digest of all other files of the folder; what is named .git, .hg, .svn or
/// __pycache__ is no part of it. From then on the plugin runs from a copy of just these files that nobody but the host
/// can write to, and a folder with other files is refused (status 3). Seal again after a change. The manifest changes
/// with it, so what was granted has to be granted again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade seal plugins/word-counter
  palisade seal plugins/word-counter --dry-run     print the digest, change nothing
  palisade check plugins/word-counter              afterwards: are the files still the same?")]
pub(crate) struct Seal {
    /// The plugin's folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Print the digest and leave the manifest as it is
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Runs the command.
pub(crate) fn seal(args: &Seal) -> Result<(), Trouble> {
    let failed = |e: io::Error| Trouble::usage(format!("{}: {e}", shown(&args.folder)));
    let folder = args.folder.canonicalize().map_err(failed)?;
    let source = palisade_manifest::read(&folder).map_err(HostError::from)?;
    let file = folder.join(source.file_name);
    let manifest = palisade_manifest::parse_named(&source.bytes, source.syntax, source.file_name)
        .map_err(HostError::from)?;
    let found = content::survey(&folder)?;
    let changes = manifest.content != Some(found.digest);
    if changes && !args.dry_run {
        let text = String::from_utf8_lossy(&source.bytes);
        let sealed = palisade_manifest::with_content(&text, source.syntax, found.digest);
        let sealed = sealed.ok_or_else(|| {
            let message = format!("{}: no place for the digest was found", shown(&file));
            Trouble::usage(message).hint(format!("write it yourself: content: {}", found.digest))
        })?;
        replace(&file, &source.bytes, sealed.as_bytes())?;
    }
    if args.output.json {
        terminal::json(&json!({
            "plugin": manifest.id.as_str(),
            "content": found.digest,
            "files": found.files,
            "bytes": found.bytes,
            "changed": changes,
            "written": changes && !args.dry_run,
        }));
        return Ok(());
    }
    let paint = Paint::stdout();
    let what = match (changes, args.dry_run) {
        (false, _) => paint.good("is sealed as it is:"),
        (true, true) => paint.warn("would be sealed as"),
        (true, false) => paint.good("sealed:"),
    };
    let files = if found.files == 1 { "file" } else { "files" };
    terminal::out(format_args!(
        "{} {what} {} {files}, {}, {}",
        paint.bold(manifest.id.as_str()),
        found.files,
        words::bytes(found.bytes),
        found.digest
    ));
    if !manifest.runs_its_own_file() {
        terminal::out(format_args!(
            "  {} the program that entry starts is none of these files, and is not sealed",
            paint.warn("in part:")
        ));
    }
    Ok(())
}

/// Replaces the manifest whole; its mode stays, and for root its owner.
fn replace(file: &Path, old: &[u8], new: &[u8]) -> Result<(), Trouble> {
    let failed = |e: io::Error| Trouble::usage(format!("{}: {e}", shown(file)));
    let meta = fs::symlink_metadata(file).map_err(failed)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut made =
        tempfile::Builder::new().prefix(".palisade-").tempfile_in(folder).map_err(failed)?;
    io::Write::write_all(&mut made, new).map_err(failed)?;
    #[cfg(unix)]
    if rustix::process::geteuid().is_root() {
        use std::os::unix::fs::{MetadataExt as _, fchown};
        fchown(made.as_file(), Some(meta.uid()), Some(meta.gid())).map_err(failed)?;
    }
    made.as_file().set_permissions(meta.permissions()).map_err(failed)?;
    made.as_file().sync_all().map_err(failed)?;
    let now = palisade_manifest::read(folder).map_err(HostError::from)?;
    if now.bytes != old {
        let message = format!("{} was changed by somebody else just now", shown(file));
        let failure = Failure::new(ErrorCode::Conflict, message).hint("run the command again");
        return Err(Trouble::Failure(failure));
    }
    made.persist(file).map_err(|e| failed(e.error))?;
    Ok(())
}
