//! `palisade doctor`: what this machine can enforce, why not, and what would change that.

#[cfg(target_os = "linux")]
pub(crate) mod filter;

use std::sync::Arc;

use palisade_model::{ErrorCode, Failure, Guarantee, GuaranteeSet, Level};
use palisade_sandbox::{Facts, Finding};
use serde_json::json;

use crate::{
    cli::Doctor,
    platform::{machine, walls},
    session::shown,
    terminal::{self, Paint, Progress},
    trouble::Trouble,
    words,
};

/// Runs the command.
pub(crate) async fn doctor(args: &Doctor) -> Result<(), Trouble> {
    if let Some(name) = &args.seccomp {
        return walls::filter(name, args.output.json);
    }
    if args.extract_helper {
        terminal::out(shown(&walls::extract_helper()?));
        return Ok(());
    }
    let progress = Progress::new(!args.output.json);
    progress.step("trying what this machine lets us build");
    let mut probed = Vec::new();
    for backend in walls::backends() {
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
            "version": env!("CARGO_PKG_VERSION"), "machine": machine::name(), "default_floor": floor, "backends": backends,
        }));
    } else {
        terminal::out(report(&probed, Paint::stdout()));
    }
    Ok(())
}

fn report(probed: &[(&'static str, Arc<Facts>)], paint: Paint) -> String {
    let mut lines = vec![
        format!("palisade {} on {}", env!("CARGO_PKG_VERSION"), machine::name()),
        String::new(),
    ];
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
