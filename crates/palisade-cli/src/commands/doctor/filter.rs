//! `palisade doctor --seccomp`: what the filter of a system call profile answers to each call.

use palisade_model::{ErrorCode, Failure};
use palisade_process::additions;
use palisade_seccomp::{
    Action, Arch, Case, Listing, Row, listing,
    profiles::{Profile, UnknownProfile},
};
use serde_json::{Value, json};

use crate::{
    terminal::{self, Paint},
    trouble::Trouble,
};

/// Prints it.
pub(crate) fn filter(name: &str, as_json: bool) -> Result<(), Trouble> {
    let profile: Profile =
        name.parse().map_err(|e: UnknownProfile| Trouble::usage(e.to_string()))?;
    let arch = Arch::native().ok_or_else(|| {
        Trouble::from(Failure::new(
            ErrorCode::NoBackend,
            "there are no system call filters for this processor",
        ))
    })?;
    let internal = |e: palisade_seccomp::Error| Failure::new(ErrorCode::Internal, e.to_string());
    let policy = profile.with_floor().map_err(internal)?;
    let table = listing(&policy, arch);
    let added = additions::of(profile).map_err(internal)?;
    let added: Vec<Added> = added.iter().map(|addition| Added::of(addition, arch)).collect();
    if !as_json {
        terminal::out(filter_in_words(profile, &table, &added, Paint::stdout()));
        return Ok(());
    }
    let rows = |rows: &[Row]| -> Vec<Value> {
        let case = |c: &Case| json!({"when": c.when, "action": c.action.to_string()});
        let row = |row: &Row| {
            let cases: Vec<_> = row.cases.iter().map(case).collect();
            json!({"number": row.number, "name": row.name, "cases": cases})
        };
        rows.iter().map(row).collect()
    };
    let added: Vec<_> = added
        .iter()
        .map(|a| json!({"name": a.table.title, "when": a.when, "calls": rows(&a.table.rows)}))
        .collect();
    terminal::json(&json!({
        "profile": table.title, "about": profile.about(), "arch": table.arch.to_string(),
        "unknown": table.unknown.to_string(), "other_interfaces": table.foreign.to_string(), "calls": rows(&table.rows),
        "additions": added,
    }));
    Ok(())
}

/// What the walls add to a profile.
struct Added {
    when: &'static str,
    /// The calls that it answers; about all others it says nothing.
    table: Listing,
}

impl Added {
    fn of(addition: &additions::Addition, arch: Arch) -> Self {
        let mut table = listing(&addition.policy, arch);
        let silent = |row: &Row| row.cases.iter().all(|case| case.action == Action::Allow);
        table.rows.retain(|row| !silent(row));
        Self { when: addition.when, table }
    }
}

/// The filter as a person reads it: by what becomes of a call.
fn filter_in_words(profile: Profile, table: &Listing, added: &[Added], paint: Paint) -> String {
    let mut lines = vec![format!(
        "{}: the filter of {} ({} on {})",
        paint.bold(profile.name()),
        profile.about(),
        table.title,
        table.arch
    )];
    for (action, names) in table.unconditional() {
        lines.extend([String::new(), paint.bold(answered(&names, action))]);
        lines.extend(wrapped(&names));
    }
    let conditional = table.conditional();
    lines.push(String::new());
    lines.push(paint.bold(format!("{} calls depend on their arguments", conditional.len())));
    for row in conditional {
        lines.extend(cases(row, "otherwise"));
    }
    lines.push(String::new());
    lines.push(format!("Calls that are not known here {}.", answer(table.unknown, false)));
    lines.push("Calls through another interface (32-bit, x32) end the plugin.".to_owned());
    lines.push(String::new());
    lines.push("To floor and profile the walls add refusals:".to_owned());
    for Added { when, table } in added {
        lines.extend([String::new(), format!("{}, {when}", paint.bold(&table.title))]);
        for (action, names) in table.unconditional() {
            lines.push(format!("  {}", answered(&names, action)));
            lines.extend(wrapped(&names));
        }
        for row in table.conditional() {
            lines.extend(cases(row, "otherwise as above"));
        }
    }
    lines.join("\n")
}

fn answer(action: Action, is_one: bool) -> String {
    let (are, s) = if is_one { ("is", "s") } else { ("are", "") };
    match action {
        Action::KillProcess => format!("end{s} the plugin, which is told by name"),
        Action::ENOSYS => format!("look{s} absent (ENOSYS)"),
        Action::Errno(_) => format!("{are} refused ({action})"),
        Action::Allow => format!("{are} allowed"),
        other => format!("{are} answered with {other}"),
    }
}

fn answered(names: &[&str], action: Action) -> String {
    let is_one = names.len() == 1;
    let calls = if is_one { "call" } else { "calls" };
    format!("{} {calls} {}", names.len(), answer(action, is_one))
}

/// What a call with these arguments gets; `last` stands for all others.
fn cases(row: &Row, last: &str) -> Vec<String> {
    let line = |(n, case): (usize, &Case)| {
        let name = if n == 0 { row.name } else { "" };
        match (case.when.as_str(), last) {
            ("", "otherwise") => format!("  {name:<20} otherwise: {}", case.action),
            ("", last) => format!("  {name:<20} {last}"),
            (when, _) => format!("  {name:<20} {when}: {}", case.action),
        }
    };
    row.cases.iter().enumerate().map(line).collect()
}

/// Names in lines of at most 100 columns.
fn wrapped(names: &[&str]) -> Vec<String> {
    const WIDTH: usize = 100;
    let mut lines = vec![String::from(" ")];
    for (n, name) in names.iter().enumerate() {
        let comma = if n + 1 < names.len() { "," } else { "" };
        if let Some(line) = lines.last_mut()
            && line.len() + name.len() + 2 <= WIDTH
        {
            line.push_str(&format!(" {name}{comma}"));
        } else {
            lines.push(format!("  {name}{comma}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_reads_as_sentences_and_leaves_no_call_out() {
        for profile in Profile::ALL {
            let table = listing(&profile.with_floor().unwrap(), Arch::X86_64);
            let added: Vec<Added> = additions::of(profile)
                .unwrap()
                .iter()
                .map(|addition| Added::of(addition, Arch::X86_64))
                .collect();
            let text = filter_in_words(profile, &table, &added, Paint::NONE);
            assert!(text.starts_with(&format!("{profile}: the filter of")), "{text}");
            let head = "13 calls end the plugin, which is told by name\n  bpf,";
            assert!(text.contains(head), "{text}");
            let words: std::collections::BTreeSet<&str> = text.split([' ', ',', '\n']).collect();
            for row in &table.rows {
                assert!(words.contains(row.name), "{profile} leaves out {}", row.name);
            }
            assert!(text.lines().all(|line| line.len() <= 160), "{text}");
        }
    }

    #[test]
    fn what_the_walls_add_to_a_profile_is_said_with_when() {
        let added: Vec<Added> = additions::of(Profile::Python)
            .unwrap()
            .iter()
            .map(|addition| Added::of(addition, Arch::X86_64))
            .collect();
        let table = listing(&Profile::Python.with_floor().unwrap(), Arch::X86_64);
        let text = filter_in_words(Profile::Python, &table, &added, Paint::NONE);
        let (_, said) = text.split_once("To floor and profile").unwrap();
        let wanted = " the walls add refusals:

init-guard/1, in every launch
  ioprio_set           who == 1: EPERM
                       which == 3: EPERM
                       otherwise as above
  prlimit64            pid == 1: EPERM
                       otherwise as above
  sched_setparam       pid == 1: EPERM
                       otherwise as above
  sched_setscheduler   pid == 1: EPERM
                       otherwise as above
  setpriority          who == 1: EPERM
                       which == 2: EPERM
                       otherwise as above

policed-memory/2, where no cgroup holds the plugin's memory, so that it is only sampled
  6 calls look absent (ENOSYS)
  memfd_create, memfd_secret, msgget, semget, shmget, vmsplice
  mmap                 flags & 47 in {33, 35}: EPERM
                       otherwise as above
  setsockopt           level == 1 and optname in {7, 32}: EPERM
                       otherwise as above

policed-cpu/1, where no cgroup holds the plugin's processor time, so that it is only sampled
  1 call is refused (EPERM)
  setsid

no-jit/1, where the guarantee no-jit is demanded
  2 calls look absent (ENOSYS)
  memfd_create, memfd_secret
  shmat                shmflg & 0x8000 != 0: EACCES
                       otherwise as above";
        assert_eq!(said, wanted);
    }
}
