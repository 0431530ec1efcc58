//! `palisade doctor`: what this machine can enforce, why not, and what would change that.

use std::sync::Arc;

use palisade_model::{ErrorCode, Failure, Guarantee, GuaranteeSet, Level};
use palisade_sandbox::{Facts, Finding};
use palisade_seccomp::{
    Action, Arch, Listing, listing,
    profiles::{Profile, UnknownProfile},
};
use serde_json::json;

use crate::{
    cli::Doctor,
    session::{self, shown},
    terminal::{self, Paint, Progress},
    trouble::Trouble,
    words,
};

/// Runs the command.
pub(crate) async fn doctor(args: &Doctor) -> Result<(), Trouble> {
    if let Some(name) = &args.seccomp {
        return seccomp(name, args.output.json);
    }
    if args.extract_helper {
        return extract_helper();
    }
    let progress = Progress::new(!args.output.json);
    progress.step("trying what this machine lets us build");
    let mut probed = Vec::new();
    for backend in session::backends() {
        probed.push((backend.name(), backend.probe().await));
    }
    progress.done();
    if probed.is_empty() {
        return Err(Failure::new(
            ErrorCode::NoBackend,
            "this version of Palisade has no backend for this platform",
        )
        .hint("run it on Linux, on x86_64 or aarch64")
        .into());
    }
    if args.output.json {
        let floor = GuaranteeSet::default_floor();
        let backends: Vec<_> = probed
            .iter()
            .map(|(name, facts)| json!({"name": name, "covers_default_floor": facts.guarantees.covers(&floor), "facts": facts}))
            .collect();
        terminal::json(&json!({
            "version": env!("CARGO_PKG_VERSION"), "machine": machine(), "default_floor": floor, "backends": backends,
        }));
    } else {
        terminal::out(report(&probed, Paint::stdout()));
    }
    Ok(())
}

fn machine() -> String {
    let name = rustix::system::uname();
    format!(
        "{} {} on {}",
        name.sysname().to_string_lossy(),
        name.release().to_string_lossy(),
        name.machine().to_string_lossy()
    )
}

fn report(probed: &[(&'static str, Arc<Facts>)], paint: Paint) -> String {
    let mut lines =
        vec![format!("palisade {} on {}", env!("CARGO_PKG_VERSION"), machine()), String::new()];
    let mut seen: Vec<&Finding> = Vec::new();
    for (_, facts) in probed {
        for finding in &facts.findings {
            if !seen.iter().any(|s| s.topic == finding.topic && s.good == finding.good) {
                seen.push(finding);
            }
        }
    }
    lines.push(paint.bold("What was found"));
    for finding in &seen {
        let mark = if finding.good { paint.good("good") } else { paint.warn("poor") };
        lines.push(format!("  {mark}  {:<11} {}", finding.topic, finding.detail));
        if let Some(remedy) = &finding.remedy {
            lines.push(format!(
                "        {:<11} {}",
                "remedy:",
                remedy.replace('\n', "\n                    ")
            ));
        }
    }
    lines.push(String::new());
    lines.push(paint.bold("What can be enforced"));
    let floor = GuaranteeSet::default_floor();
    let mut head = format!("  {:<18}", "");
    let width = |name: &str| name.len().max(7) + 3;
    for (name, _) in probed {
        head.push_str(&format!("{name:<0$}", width(name)));
    }
    lines.push(format!("{head}{:<10}", "demanded"));
    for guarantee in Guarantee::ALL {
        let mut line = format!("  {:<18}", guarantee.as_str());
        for (name, facts) in probed {
            // Levels are 7 wide already, colours apart.
            let level = words::level(facts.guarantees.level(guarantee), paint);
            line.push_str(&format!("{level}{:<1$}", "", width(name) - 7));
        }
        let demanded = match floor.level(guarantee) {
            Level::None => String::new(),
            level => level.to_string(),
        };
        line.push_str(&format!("{demanded:<10}{}", paint.dim(words::guarantee(guarantee))));
        lines.push(line);
    }
    lines.push(String::new());
    for (name, facts) in probed {
        lines.push(match &facts.unavailable {
            Some(why) => format!(
                "{}: {} cannot be used: {}\n  remedy: {}",
                paint.bold(name),
                paint.bad("no"),
                why.reason,
                why.remedy.replace('\n', "\n          ")
            ),
            None if facts.guarantees.covers(&floor) => {
                format!(
                    "{}: {}, covers what is demanded of every plugin by default",
                    paint.bold(name),
                    paint.good("yes")
                )
            }
            None => {
                let missing: Vec<String> =
                    facts.guarantees.missing(&floor).iter().map(|(g, ..)| g.to_string()).collect();
                format!(
                    "{}: {}, only where the policy demands no {}",
                    paint.bold(name),
                    paint.warn("weaker"),
                    missing.join(", ")
                )
            }
        });
    }
    lines.join("\n")
}

fn seccomp(name: &str, as_json: bool) -> Result<(), Trouble> {
    let profile: Profile =
        name.parse().map_err(|e: UnknownProfile| Trouble::usage(e.to_string()))?;
    let arch = Arch::native().ok_or_else(|| {
        Trouble::from(Failure::new(
            ErrorCode::NoBackend,
            "there are no system call filters for this processor",
        ))
    })?;
    let policy =
        profile.with_floor().map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))?;
    let table = listing(&policy, arch);
    if !as_json {
        terminal::out(filter_in_words(profile, &table, Paint::stdout()));
        return Ok(());
    }
    let rows: Vec<_> = table
        .rows
        .iter()
        .map(|row| {
            let cases: Vec<_> = row
                .cases
                .iter()
                .map(|c| json!({"when": c.when, "action": c.action.to_string()}))
                .collect();
            json!({"number": row.number, "name": row.name, "cases": cases})
        })
        .collect();
    terminal::json(&json!({
        "profile": table.title, "about": profile.about(), "arch": table.arch.to_string(),
        "unknown": table.unknown.to_string(), "other_interfaces": table.foreign.to_string(), "calls": rows,
    }));
    Ok(())
}

/// The filter as a person reads it: by what becomes of a call.
fn filter_in_words(profile: Profile, table: &Listing, paint: Paint) -> String {
    let answer = |action: Action| match action {
        Action::KillProcess => "end the plugin, which is told by name".to_owned(),
        Action::ENOSYS => "look absent (ENOSYS)".to_owned(),
        Action::Errno(_) => format!("are refused ({action})"),
        Action::Allow => "are allowed".to_owned(),
        other => format!("are answered with {other}"),
    };
    let mut lines = vec![format!(
        "{}: the filter of {} ({} on {})",
        paint.bold(profile.name()),
        profile.about(),
        table.title,
        table.arch
    )];
    for (action, names) in table.unconditional() {
        let count =
            if names.len() == 1 { "1 call".into() } else { format!("{} calls", names.len()) };
        lines.extend([String::new(), paint.bold(format!("{count} {}", answer(action)))]);
        lines.extend(wrapped(&names));
    }
    let conditional = table.conditional();
    lines.push(String::new());
    lines.push(paint.bold(format!("{} calls depend on their arguments", conditional.len())));
    for row in conditional {
        for (n, case) in row.cases.iter().enumerate() {
            let name = if n == 0 { row.name } else { "" };
            let when = if case.when.is_empty() { "otherwise" } else { &case.when };
            lines.push(format!("  {name:<20} {when}: {}", case.action));
        }
    }
    lines.push(String::new());
    lines.push(format!("Calls that are not known here {}.", answer(table.unknown)));
    lines.push("Calls through another interface (32-bit, x32) end the plugin.".to_owned());
    lines.join("\n")
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

#[cfg(target_os = "linux")]
fn extract_helper() -> Result<(), Trouble> {
    let path = palisade_process::extract_helper().map_err(Failure::from)?;
    terminal::out(shown(&path));
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn extract_helper() -> Result<(), Trouble> {
    Err(Failure::new(ErrorCode::NoBackend, "there is no helper for this platform").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_reads_as_sentences_and_leaves_no_call_out() {
        for profile in Profile::ALL {
            let table = listing(&profile.with_floor().unwrap(), Arch::X86_64);
            let text = filter_in_words(profile, &table, Paint::NONE);
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
}
