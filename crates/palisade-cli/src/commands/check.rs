//! `palisade check`: is it valid, what does it ask for, what can this machine enforce, what is missing?

use palisade_host::{LaunchPlan, RightState};
use palisade_learn::is_todo;
use palisade_model::{ErrorCode, Failure, Level};
use serde_json::json;

use crate::{
    cli::Check,
    commands::component,
    consent::{narrower, too_wide, usable},
    grant,
    session::Session,
    terminal::{self, Paint},
    trouble::{Trouble, failure_text, in_lines},
    words,
};

/// Runs the command.
pub(crate) async fn check(args: &Check) -> Result<(), Trouble> {
    if component::is_module(&args.plugin.folder) {
        return component::file(&args.plugin.folder, args.output.json);
    }
    let (session, plugin) = Session::with_plugin(&args.plugin, None, None).await?;
    grant::apply(&plugin, &args.plugin).await?;
    let plan = plugin.plan().await?;
    let compared = component::of_plugin(&plugin.manifest(), &args.plugin.folder)?;
    let misfit = compared.as_ref().and_then(component::Compared::problem);
    let verdict = misfit.map_or_else(|| verdict(&plan), Err);
    if args.output.json {
        let mut document = json!({ "plan": plan, "problem": verdict.as_ref().err() });
        if let (Some(compared), Some(members)) = (&compared, document.as_object_mut()) {
            members.insert("component".into(), json!(compared));
        }
        terminal::json(&document);
    } else {
        let fallback = usable(&session.host, &plan).await;
        let paint = Paint::stdout();
        terminal::out(report(&plan, fallback, paint));
        if let Some(compared) = &compared {
            terminal::out(compared.report(paint));
        }
        match (&verdict, &plan.candidates) {
            (Ok(()), _) => terminal::out(format_args!("\n{}", conclusion(&plan, paint))),
            (Err(problem), Some(none)) if problem.code == ErrorCode::NoBackend => {
                terminal::out(format_args!("\n{}", failure_text(&in_lines(problem, none), paint)));
            }
            (Err(problem), _) => terminal::out(format_args!("\n{}", failure_text(problem, paint))),
        }
    }
    verdict.map_err(|problem| Trouble::Said(problem.code.exit_status()))
}

/// Whether it could be started here by somebody who grants what can be granted.
fn verdict(plan: &LaunchPlan) -> Result<(), Failure> {
    // A right that nobody has granted yet is not a fault of the plugin or the machine.
    let grantable = plan.missing(false).next().is_some()
        && !plan.requested.iter().any(|r| {
            r.required && matches!(r.state, RightState::Forbidden(_) | RightState::Unusable(_))
        });
    if let Some(denied) = plan.denied.as_ref().filter(|_| !grantable) {
        return Err(denied.clone());
    }
    let Some(no_wall) = &plan.no_wall else { return Ok(()) };
    let lacks_only_width = plan.candidates.as_ref().is_some_and(|none| {
        none.candidates.iter().any(|c| {
            c.unavailable.is_none()
                && c.missing.is_empty()
                && c.unsupported.iter().all(|(written, _)| {
                    plan.missing(true).any(|r| {
                        r.capability.to_string() == *written
                            && too_wide(plan, &r.capability).is_some()
                    })
                })
        })
    });
    if lacks_only_width { Ok(()) } else { Err(no_wall.clone()) }
}

/// What is left to do for somebody who wants to run it.
fn conclusion(plan: &LaunchPlan, paint: Paint) -> String {
    match plan.missing(false).count() {
        0 => paint.good("It can be started here."),
        1 => format!("{} once what it requires is granted.", paint.good("It can be started here,")),
        count => format!(
            "{} once the {count} rights that it requires are granted.",
            paint.good("It can be started here,")
        ),
    }
}

fn report(
    plan: &LaunchPlan,
    fallback: (Option<&'static str>, Vec<(palisade_model::Guarantee, Level)>),
    paint: Paint,
) -> String {
    let mut lines = vec![
        format!("{} ({} {})", paint.bold(&plan.name), plan.id, plan.version),
        format!("  from {}", plan.origin),
    ];
    if let Some(description) = &plan.description {
        lines.push(format!("  {}", description.replace("\\n", " ")));
    }
    match &plan.content {
        Some(content) if plan.content_has_program => {
            lines.push(format!("  {} runs only with the files {content}", paint.good("sealed:")));
        }
        Some(content) => lines.push(format!(
            "  {} its files are {content}; the program that it starts is not among them",
            paint.warn("sealed in part:")
        )),
        None => {}
    }
    lines.push(format!("\n{}", paint.bold("Asks for")));
    if plan.requested.is_empty() {
        lines.push("  nothing".into());
    }
    for right in &plan.requested {
        let need = if right.required { "required" } else { "optional" };
        lines.push(format!(
            "  {}\n    {need}, risk {}: may {}",
            words::written(&right.capability),
            words::risk(right.risk, paint),
            words::right(&right.capability)
        ));
        if let Some(reason) = &right.reason {
            lines.push(format!("    the author says: \"{reason}\""));
        }
        lines.push(match &right.state {
            RightState::Granted => {
                let granted: Vec<String> = right.granted.iter().map(words::written).collect();
                format!("    {} {}", paint.good("granted:"), granted.join(", "))
            }
            RightState::Missing => match too_wide(plan, &right.capability) {
                Some(why) => format!(
                    "    {} to be narrowed when it is granted: {}\n      ({why})",
                    paint.warn("not granted;"),
                    narrower(&right.capability)
                ),
                None => format!(
                    "    {} {}",
                    paint.warn("not granted:"),
                    right
                        .option
                        .as_deref()
                        .unwrap_or("it cannot be written as an option; grant it on a terminal")
                ),
            },
            RightState::Forbidden(why) => format!("    {} {why}", paint.bad("forbidden:")),
            RightState::Unusable(why) => {
                format!("    {} {why}", paint.bad("granted, but cannot be used:"))
            }
            _ => String::new(),
        });
    }
    let drafted =
        plan.requested.iter().filter(|r| r.reason.as_deref().is_some_and(is_todo)).count();
    if drafted > 0 {
        lines.push(format!(
            "  {} {drafted} of its reasons {} still to be written by the author; do not hand it out like this",
            paint.warn("a draft:"),
            if drafted == 1 { "is" } else { "are" },
        ));
    }
    for unused in &plan.unused_grants {
        lines.push(format!(
            "  {} {}: {}",
            paint.warn("a grant that gives nothing:"),
            words::written(&unused.capability),
            unused.why
        ));
    }
    lines.push(format!("\n{}", paint.bold("Offers")));
    if plan.contributes.is_empty() {
        lines.push("  nothing".into());
    }
    for offer in &plan.contributes {
        let description = offer.description.as_deref().unwrap_or_default().replace("\\n", " ");
        lines.push(format!("  {:<18} {description}", words::written(&offer.capability)));
    }
    lines.push(format!("\n{}\n  {}", paint.bold("May use"), words::limits(&plan.limits)));
    walls(plan, fallback, paint, &mut lines);
    lines.join("\n")
}

fn walls(
    plan: &LaunchPlan,
    fallback: (Option<&'static str>, Vec<(palisade_model::Guarantee, Level)>),
    paint: Paint,
    lines: &mut Vec<String>,
) {
    let heading =
        |name: &str| format!("\n{}", paint.bold(format!("This machine enforces (backend {name})")));
    match (&plan.wall, fallback) {
        (Some(wall), _) => {
            lines.push(heading(wall.backend));
            for (guarantee, level, how) in &wall.reasons {
                lines.push(format!(
                    "  {:<18}{} {how}",
                    guarantee.as_str(),
                    words::level(*level, paint)
                ));
            }
        }
        (None, (Some(name), guarantees)) => {
            lines.push(heading(name));
            for (guarantee, level) in guarantees {
                lines.push(format!(
                    "  {:<18}{} {}",
                    guarantee.as_str(),
                    words::level(level, paint),
                    words::guarantee(guarantee)
                ));
            }
        }
        (None, (None, _)) => {}
    }
}
