//! From what a run showed to a draft.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use palisade_audit::{Decision, Record, RecordKind};
use palisade_learn::{Advice, Candidate, Denial, Draft, Drafted, MAX_FILES, Use, fold, uses};
use palisade_manifest::Syntax;
use palisade_model::{Access, Capability, CapabilitySet, Enforcement, Kind, text::escape};
use palisade_sandbox::observe::{Found, PathAccess};
use serde_json::Value;

use super::Learned;

/// Most refused calls that a note names.
const MAX_CALLS: usize = 12;

/// The smallest manifest that allows what was seen.
pub(super) fn draft(learned: &Learned, refused: &[Denial]) -> Draft {
    let mut used = uses(&learned.seen, &|path| fs::read_link(path).ok());
    // Shown with the command itself.
    used.retain(|one| {
        let writes = matches!(one.access, PathAccess::Write | PathAccess::Change);
        writes || !learned.shown.iter().any(|code| one.path.starts_with(code))
    });
    let listed = own_folders(&mut used, &learned.shown);
    let mut rights: Vec<Drafted> = fold(&used, &learned.ceiling)
        .into_iter()
        .map(|capability| Drafted { seen: seen(&capability, &used), capability })
        .collect();
    let mut candidates = Vec::new();
    for folder in listed {
        let right =
            folder.to_str().and_then(|p| Capability::new(Kind::FsRead, &format!("{p}/**")).ok());
        candidates.extend(right.map(|capability| Candidate {
            capability,
            why: "the folder of the program was listed: interpreters do that for themselves".into(),
        }));
    }
    by_the_record(learned, &mut rights, &mut candidates);
    variables(learned, &mut rights, &mut candidates);
    for denial in refused.iter().filter(|d| !d.probably_harmless) {
        if let Advice::Grant(capability) = &denial.advice {
            let why = format!("{} {}: {}", denial.access, denial.what, denial.answer);
            candidates.push(Candidate { capability: capability.clone(), why });
        }
    }
    tidy(&mut rights, &mut candidates);
    let draft =
        Draft { base: learned.base.clone(), rights, candidates, notes: notes(learned, refused) };
    match palisade_manifest::parse(&draft.to_yaml(), Syntax::Yaml) {
        Ok(_) => draft,
        // What a server says of its tools need not fit a manifest.
        Err(_) => {
            let mut base = draft.base;
            if let Some(map) = base.as_object_mut() {
                map.remove("contributes");
            }
            Draft { base, ..draft }
        }
    }
}

/// Folders that are listed and hold the command's own code. Interpreters list the folder of a script to find
/// modules, and do with what is shown of it; whether the script lists it too cannot be seen. They count as
/// looked at.
fn own_folders(used: &mut [Use], shown: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut listed = BTreeSet::new();
    for one in used.iter_mut() {
        let lists = one.access == PathAccess::Read && one.found == Found::Folder;
        if lists && shown.iter().any(|code| code.parent() == Some(&one.path)) {
            one.access = PathAccess::Look;
            listed.insert(one.path.clone());
        }
    }
    listed
}

/// Each capability once, and nothing as a candidate that is drafted.
fn tidy(rights: &mut Vec<Drafted>, candidates: &mut Vec<Candidate>) {
    let mut have = BTreeSet::new();
    rights.retain(|r| have.insert(r.capability.clone()));
    candidates.retain(|c| {
        !have.iter().any(|h| c.capability.is_subset_of(h)) && have.insert(c.capability.clone())
    });
}

/// What was done with what a right covers, in one line.
fn seen(right: &Capability, used: &[Use]) -> String {
    let mut paths: BTreeMap<&str, usize> = BTreeMap::new();
    let mut example: Option<&Path> = None;
    for one in used {
        let Some(path) = one.path.to_str() else { continue };
        if right.covers(&Access::new(right.kind(), path)) {
            *paths.entry(one.access.as_str()).or_default() += 1;
            example.get_or_insert(&one.path);
        }
    }
    let counts: Vec<String> = paths.iter().map(|(access, n)| format!("{access} {n}")).collect();
    let example = example.map(|p| escape(&p.to_string_lossy(), 200)).unwrap_or_default();
    match right.path() {
        Some(scope) if scope.covers_below() => {
            format!("seen: {} (as in {example})", counts.join(", "))
        }
        _ => format!("seen: {}", counts.join(", ")),
    }
}

/// What the gate and the egress guard decided.
fn by_the_record(learned: &Learned, rights: &mut Vec<Drafted>, candidates: &mut Vec<Candidate>) {
    let mut accesses: BTreeMap<(Capability, bool), u64> = BTreeMap::new();
    for record in &learned.records {
        if let Some((capability, allowed)) = decided(record) {
            *accesses.entry((capability, allowed)).or_default() += 1;
        }
    }
    let count = |n: u64| if n == 1 { "once".to_owned() } else { format!("{n} times") };
    for ((capability, allowed), times) in accesses {
        if allowed {
            let seen = format!("seen: {}", count(times));
            rights.push(Drafted { capability, seen });
        } else {
            candidates.push(Candidate { capability, why: format!("refused, {}", count(times)) });
        }
    }
    let drafted: CapabilitySet = rights.iter().map(|r| r.capability.clone()).collect();
    for asked in &learned.asked {
        if asked.kind() == Kind::EventSubscribe {
            // Being subscribed is no act of the plugin's: whether it matters cannot be seen.
            let seen = "asked for by the present manifest; use cannot be seen".to_owned();
            rights.push(Drafted { capability: asked.clone(), seen });
        } else if !drafted.iter().any(|d| d.is_subset_of(asked)) {
            let why = "asked for by the present manifest and not seen in use".to_owned();
            candidates.push(Candidate { capability: asked.clone(), why });
        }
    }
}

/// The exact right that a record's access takes, and whether it was allowed.
fn decided(record: &Record) -> Option<(Capability, bool)> {
    let kind = Kind::parse(record.capability.as_deref()?)?;
    let of_plugin = match kind.enforcement() {
        Enforcement::Egress => record.kind == RecordKind::Egress,
        Enforcement::Broker => {
            matches!(record.kind, RecordKind::Request | RecordKind::Event | RecordKind::Secret)
        }
        _ => false,
    };
    let target = record.target.as_deref().filter(|_| of_plugin)?;
    let capability = Capability::new(kind, target).ok()?;
    // A target that would mean more as a scope than it is.
    if !capability.covers(&Access::new(kind, target)) || target.contains(['*', '>']) {
        return None;
    }
    Some((capability, record.decision != Some(Decision::Deny)))
}

fn variables(learned: &Learned, rights: &mut Vec<Drafted>, candidates: &mut Vec<Candidate>) {
    for (name, stands) in &learned.variables {
        let Ok(capability) = Capability::new(Kind::Env, name) else { continue };
        match stands {
            Some(true) => {
                let seen = "its name stands in the plugin's files".to_owned();
                rights.push(Drafted { capability, seen });
            }
            Some(false) => {
                let why =
                    "given with --env; its name stands in none of the plugin's files".to_owned();
                candidates.push(Candidate { capability, why });
            }
            None => {
                let seen = "given with --env; whether it was read cannot be seen".to_owned();
                rights.push(Drafted { capability, seen });
            }
        }
    }
}

fn notes(learned: &Learned, refused: &[Denial]) -> Vec<String> {
    let mut notes = learned.notes.clone();
    let profile = profile(&learned.base);
    let calls: Vec<String> = refused
        .iter()
        .filter(|d| d.access == "call" && !d.probably_harmless)
        .take(MAX_CALLS)
        .map(|d| format!("{}({})", d.calls.join("|"), d.what))
        .collect();
    let calls = if calls.is_empty() { "nothing that matters".into() } else { calls.join(", ") };
    notes.push(format!("System call profile: {profile}. The filter refused {calls}."));
    notes.push(format!(
        "More than {MAX_FILES} single files of one folder became the folder; making, removing and renaming \
         takes the folder."
    ));
    notes.push("Reading a variable is no system call: `env` is what was given with --env.".into());
    if learned.seen.dropped > 0 || learned.seen.missed > 0 {
        notes.push(format!(
            "Not complete: {} observations were not kept, {} system calls could not be looked at.",
            learned.seen.dropped, learned.seen.missed
        ));
    }
    notes
}

/// The system call profile that a program of this entry runs under, as the walls choose it.
fn profile(base: &Value) -> &'static str {
    let text = |at: &str| base.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let command = text("/entry/command");
    let name = command.rsplit('/').next().unwrap_or(command);
    let runs = |language: &str| [text("/entry/kind"), text("/entry/runtime")].contains(&language);
    if runs("python") || name.starts_with("python") {
        "python"
    } else if runs("node") || name == "node" {
        "node"
    } else {
        "native"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_profile_follows_the_interpreter() {
        for (entry, expected) in [
            (json!({"kind": "python", "file": "a.py"}), "python"),
            (json!({"kind": "jsonl", "runtime": "node", "file": "a.js"}), "node"),
            (json!({"kind": "mcp", "command": "/usr/bin/python3.12"}), "python"),
            (json!({"kind": "mcp", "command": "node"}), "node"),
            (json!({"kind": "exec", "command": "/opt/tool"}), "native"),
        ] {
            assert_eq!(profile(&json!({ "entry": entry })), expected, "{entry}");
        }
    }
}
