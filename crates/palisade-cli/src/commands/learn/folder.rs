//! Learning from a plugin in a folder.

use std::{fs, io::Read as _, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use palisade_host::LoadOptions;
use palisade_model::{Capability, CapabilitySet, Enforcement, ErrorCode, Failure, Kind, Origin};
use serde_json::value::RawValue;

use super::{Learn, Learned, Stage, within_ceiling};
use crate::{
    logs::Printer,
    session::{self, shown},
    terminal,
    trouble::Trouble,
};

/// How much of the plugin's files is looked through for the names of variables.
const MAX_FILES: usize = 5_000;
const MAX_BYTES_OF_FILE: u64 = 4 << 20;
const MAX_DEPTH: usize = 16;

/// A tool and its arguments.
type Call = (String, Box<RawValue>);

pub(super) async fn learn(
    args: &Learn,
    folder: &Path,
    ceiling: CapabilitySet,
    printer: Arc<Printer>,
) -> Result<Learned, Trouble> {
    let calls = args.call.iter().map(|text| call(text)).collect::<Result<Vec<Call>, Trouble>>()?;
    let wrong = |error: std::io::Error| Trouble::usage(format!("{}: {error}", shown(folder)));
    let root = fs::canonicalize(folder).map_err(wrong)?;
    let owner = fs::metadata(&root).map_err(wrong)?.uid();
    let manifest = palisade_manifest::open(&root)
        .map_err(|error| Trouble::from(palisade_host::HostError::from(error)))?;
    let requested = manifest.requested();
    let asked: Vec<Capability> =
        requested.required.iter().chain(requested.optional.iter()).cloned().collect();
    // What the broker decides harms nobody here: everything is thrown away afterwards.
    let of_broker: Vec<Capability> =
        asked.iter().filter(|c| c.kind().enforcement() == Enforcement::Broker).cloned().collect();
    let mut base = manifest.to_json();
    if let Some(map) = base.as_object_mut() {
        map.remove("capabilities");
    }
    let wide = within_ceiling(&base, &ceiling, &of_broker)?;
    let path =
        root.to_str().ok_or_else(|| Trouble::usage("the folder's path is not UTF-8 text"))?;
    let origin = Origin::Folder { path: path.to_owned(), owner };
    let mut options = LoadOptions::new();
    if let Some(file) = &args.config {
        options = options.config(session::config(file)?);
    }
    let mut stage = Stage::set(args, wide, origin, &root, options, &ceiling, printer).await?;
    let done = exercise(args, &mut stage, &calls).await;
    let (seen, records, ended) = stage.strike().await;
    let trouble = done.err().or(ended.err()).map(Trouble::from);
    let variables = ceiling
        .of_kind(Kind::Env)
        .map(|right| {
            let name = right.scope().to_string();
            let found = stands_in(&root, &name);
            (name, Some(found))
        })
        .collect();
    let (shown, notes) = (Vec::new(), Vec::new());
    Ok(Learned { base, ceiling, asked, seen, records, variables, trouble, shown, notes })
}

/// `TOOL JSON`; without arguments an empty object.
fn call(text: &str) -> Result<Call, Trouble> {
    let text = text.trim();
    let (tool, arguments) = text.split_once(char::is_whitespace).unwrap_or((text, "{}"));
    let arguments = serde_json::from_str(arguments.trim()).map_err(|error| {
        Trouble::usage(format!("--call: the arguments are not JSON: {error}")).hint(
            "write tool and arguments as one word, as in --call 'count {\"path\": \"/srv/texts\"}'",
        )
    })?;
    Ok((tool.to_owned(), arguments))
}

/// Has it do what it is watched at. Every call is made, whatever became of the one before.
async fn exercise(args: &Learn, stage: &mut Stage, calls: &[Call]) -> Result<(), Failure> {
    let interrupted = || Failure::new(ErrorCode::Cancelled, "interrupted");
    tokio::select! {
        started = stage.plugin.start() => started?,
        () = stage.interrupts.next() => return Err(interrupted()),
    }
    if args.call.is_empty() {
        terminal::err("it runs and is watched; Ctrl-C ends it");
        return tokio::select! {
            exit = stage.plugin.wait() => match exit? {
                exit if exit.is_clean() => Ok(()),
                exit => Err(exit.to_failure()),
            },
            // Ended on purpose: what was seen counts.
            () = stage.interrupts.next() => Ok(()),
        };
    }
    let mut failed = None;
    for (tool, arguments) in calls {
        let answer = tokio::select! {
            answer = stage.plugin.call(tool, arguments) => answer,
            () = stage.interrupts.next() => Err(interrupted()),
        };
        match answer {
            Ok(result) => {
                let text = String::from_utf8_lossy(result.bytes()).into_owned();
                let text = terminal::safe_json(&text);
                // Without --out the draft has stdout for itself.
                if args.out.is_some() { terminal::out(text) } else { terminal::err(text) }
            }
            Err(failure) => {
                failed.get_or_insert(failure);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Whether `name` stands in a file below `folder`. Bounded: what lies beyond the bounds is not looked at.
fn stands_in(folder: &Path, name: &str) -> bool {
    let mut left = MAX_FILES;
    below(folder, name.as_bytes(), MAX_DEPTH, &mut left)
}

fn below(folder: &Path, name: &[u8], depth: usize, left: &mut usize) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    for entry in entries.flatten() {
        if *left == 0 {
            return false;
        }
        *left -= 1;
        let Ok(kind) = entry.file_type() else { continue };
        let found = if kind.is_dir() {
            depth > 0 && below(&entry.path(), name, depth - 1, left)
        } else {
            kind.is_file() && holds(&entry.path(), name)
        };
        if found {
            return true;
        }
    }
    false
}

fn holds(file: &Path, name: &[u8]) -> bool {
    let mut bytes = Vec::new();
    let read =
        fs::File::open(file).and_then(|file| file.take(MAX_BYTES_OF_FILE).read_to_end(&mut bytes));
    read.is_ok() && bytes.windows(name.len().max(1)).any(|part| part == name)
}
