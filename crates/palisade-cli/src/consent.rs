//! Asking a person: what a plugin wants, why, how risky it is, and what this machine enforces.
//!
//! Showing and reading are here; granting and storing is the host's. Nothing is granted without a clear
//! answer: an empty line, an end of input or anything unknown is no.

use std::io::{self, BufRead, IsTerminal as _, Write};

use palisade_host::{Consent, GrantOptions, Host, LaunchPlan, Plugin, RightState};
use palisade_model::{Capability, Guarantee, Level, Risk};

use crate::{terminal::Paint, trouble::Trouble, words};

/// One right that is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) capability: Capability,
    pub(crate) required: bool,
    /// The author's words, escaped.
    pub(crate) reason: Option<String>,
    pub(crate) risk: Risk,
    /// Why it cannot be granted as it stands, where a narrower one can.
    pub(crate) too_wide: Option<String>,
}

/// Everything that a person needs to decide.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Name, id, version.
    pub(crate) who: String,
    pub(crate) origin: String,
    pub(crate) description: Option<String>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) backend: Option<&'static str>,
    pub(crate) guarantees: Vec<(Guarantee, Level)>,
}

/// Why no usable backend can make `capability` true as it stands, where a narrower one could be.
pub(crate) fn too_wide(plan: &LaunchPlan, capability: &Capability) -> Option<String> {
    let scope = capability.path().filter(|p| p.covers_below())?;
    if scope.path() == "/" {
        return Some(
            "all of this machine cannot be granted; name the folder that is needed".to_owned(),
        );
    }
    let written = capability.to_string();
    let candidates = &plan.candidates.as_ref()?.candidates;
    let mut why = None;
    for candidate in candidates.iter().filter(|c| c.unavailable.is_none()) {
        let (_, reason) = candidate.unsupported.iter().find(|(c, _)| *c == written)?;
        why.get_or_insert_with(|| reason.clone());
    }
    why
}

/// What is missing and could be granted, as a question.
async fn question(host: &Host, plan: &LaunchPlan) -> Question {
    let asked = plan.missing(true).map(|right| Asked {
        capability: right.capability.clone(),
        required: right.required,
        reason: right.reason.clone(),
        risk: right.risk,
        too_wide: too_wide(plan, &right.capability),
    });
    let (backend, guarantees) = match &plan.wall {
        Some(wall) => (Some(wall.backend), wall.guarantees.iter().collect()),
        None => usable(host, plan).await,
    };
    Question {
        who: format!("{} ({} {})", plan.name, plan.id, plan.version),
        origin: plan.origin.to_string(),
        description: plan.description.clone(),
        asked: asked.collect(),
        backend,
        guarantees,
    }
}

/// The first backend that can be used at all, of those that were looked at, and what it gives.
pub(crate) async fn usable(
    host: &Host,
    plan: &LaunchPlan,
) -> (Option<&'static str>, Vec<(Guarantee, Level)>) {
    let looked_at = |name: &str| {
        plan.candidates
            .as_ref()
            .is_some_and(|none| none.candidates.iter().any(|c| c.backend == name))
    };
    for backend in host.backends().iter().filter(|b| looked_at(b.name())) {
        let facts = backend.probe().await;
        if facts.unavailable.is_none() {
            return (Some(backend.name()), facts.guarantees.iter().collect());
        }
    }
    (None, Vec::new())
}

/// Sees to it that the plugin has what it needs: asks on a terminal, refuses without one.
pub(crate) async fn settle(
    host: &Host,
    plugin: &Plugin,
    stdin_is_taken: bool,
) -> Result<(), Trouble> {
    let plan = plugin.plan().await?;
    let lacks = |required: bool| {
        plan.requested.iter().any(|r| r.required == required && r.state == RightState::Missing)
    };
    let is_interactive = !stdin_is_taken && io::stdin().is_terminal() && io::stderr().is_terminal();
    if !is_interactive || !(lacks(true) || lacks(false)) {
        return verdict(&plan);
    }
    if !lacks(true) && answered(plugin).await? {
        // Optional rights were refused before; nobody is asked the same thing at every start.
        return Ok(());
    }
    host.policy().check_consent()?;
    let question = question(host, &plan).await;
    // The terminal blocks; the runtime should not.
    let agreed = tokio::task::spawn_blocking(move || {
        let stdin = io::stdin().lock();
        ask(&question, stdin, io::stderr().lock(), Paint::stderr())
    })
    .await
    .map_err(|_| Trouble::Said(1))?
    .map_err(|error| Trouble::usage(format!("the terminal cannot be read: {error}")))?;
    for capability in &agreed {
        plugin.grant_with(capability.clone(), GrantOptions::new().for_this_host()).await?;
    }
    let plan = plugin.plan().await?;
    if plan.denied.is_none() {
        // What no wall can hold is not remembered: the plugin could never start again.
        walls(&plan)?;
    }
    let answer = if agreed.is_empty() { Consent::Refused } else { Consent::Agreed(agreed) };
    plugin.consent(answer).await?;
    verdict(&plan)
}

/// Whether somebody has answered for the manifest as it is.
async fn answered(plugin: &Plugin) -> Result<bool, Trouble> {
    Ok(plugin.consents().await?.iter().any(|c| c.current))
}

/// Whether rights and walls suffice. For a right that is too wide to be granted, how to narrow it.
pub(crate) fn verdict(plan: &LaunchPlan) -> Result<(), Trouble> {
    let Some(denied) = &plan.denied else { return walls(plan) };
    let options: Vec<String> = plan
        .missing(false)
        .filter_map(|right| match too_wide(plan, &right.capability) {
            Some(_) => Some(narrower(&right.capability)),
            None => right.option.clone(),
        })
        .collect();
    let mut denied = denied.clone();
    if !options.is_empty() && denied.hint.is_some() {
        denied.hint = Some(options.join(" "));
    }
    Err(Trouble::Failure(denied))
}

/// Whether there are walls.
fn walls(plan: &LaunchPlan) -> Result<(), Trouble> {
    let Some(no_wall) = &plan.no_wall else { return Ok(()) };
    let Some(none) = &plan.candidates else { return Err(no_wall.clone().into()) };
    let mut failure = no_wall.clone();
    let wide = plan.requested.iter().flat_map(|r| &r.granted).find(|c| too_wide(plan, c).is_some());
    if let Some(capability) = wide {
        failure.hint = Some(format!("grant less: {}", narrower(capability)));
    }
    Err(Trouble::NoBackend(failure, none.clone()))
}

/// The option for a part of a right that cannot be granted whole.
pub(crate) fn narrower(capability: &Capability) -> String {
    format!("--grant '{}:/FOLDER/OF/YOUR/CHOICE/**'", capability.kind())
}

enum Answer {
    Yes,
    No,
    Narrow,
}

/// Shows the question and reads the answers. Gives what was agreed to.
pub(crate) fn ask(
    question: &Question,
    mut input: impl BufRead,
    mut out: impl Write,
    paint: Paint,
) -> io::Result<Vec<Capability>> {
    show(question, &mut out, paint)?;
    let mut agreed = Vec::new();
    let mut rest = question.asked.as_slice();
    // Rights of one kind and one necessity are one decision.
    while let Some(first) = rest.first() {
        let same = |a: &Asked| {
            a.capability.kind() == first.capability.kind() && a.required == first.required
        };
        let (group, after) = rest.split_at(rest.iter().take_while(|a| same(a)).count());
        rest = after;
        ask_group(group, &mut input, &mut out, paint, &mut agreed)?;
    }
    writeln!(out)?;
    Ok(agreed)
}

fn show(question: &Question, out: &mut impl Write, paint: Paint) -> io::Result<()> {
    writeln!(out, "{}", paint.bold(&question.who))?;
    writeln!(out, "  from {}", question.origin)?;
    if let Some(description) = &question.description {
        writeln!(out, "  the author says: \"{description}\"")?;
    }
    match question.backend {
        None => writeln!(
            out,
            "\n{}",
            paint.bad("This machine has no walls for it; see `palisade doctor`.")
        )?,
        Some(backend) => {
            writeln!(out, "\nBehind this machine's walls ({backend}), whatever you answer, it")?;
            for (guarantee, level) in &question.guarantees {
                writeln!(
                    out,
                    "  {} {}",
                    words::level(*level, paint),
                    words::guarantee(*guarantee)
                )?;
            }
        }
    }
    writeln!(out, "\nIt asks for more than that:")
}

fn ask_group(
    group: &[Asked],
    input: &mut impl BufRead,
    out: &mut impl Write,
    paint: Paint,
    agreed: &mut Vec<Capability>,
) -> io::Result<()> {
    for asked in group {
        let need = if asked.required { "it does not start without" } else { "it can do without" };
        writeln!(out, "\n  {}", paint.bold(words::right(&asked.capability)))?;
        writeln!(
            out,
            "    {}   risk: {}, {need}",
            words::written(&asked.capability),
            words::risk(asked.risk, paint)
        )?;
        match &asked.reason {
            Some(reason) => writeln!(out, "    the author says: \"{reason}\"")?,
            None => writeln!(out, "    the author gives no reason")?,
        }
        if let Some(why) = &asked.too_wide {
            writeln!(out, "    {} {why}", paint.warn("not as it stands:"))?;
        }
    }
    let may_agree = group.iter().all(|a| a.too_wide.is_none());
    match read_answer(may_agree, group.len(), input, out)? {
        Answer::No => {}
        Answer::Yes => agreed.extend(group.iter().map(|a| a.capability.clone())),
        Answer::Narrow => match group {
            [one] => agreed.extend(read_narrower(one, input, out)?),
            several => {
                for one in several {
                    ask_group(std::slice::from_ref(one), input, out, paint, agreed)?;
                }
            }
        },
    }
    Ok(())
}

fn read_answer(
    may_agree: bool,
    count: usize,
    input: &mut impl BufRead,
    out: &mut impl Write,
) -> io::Result<Answer> {
    let narrow = if count == 1 { "narrow it" } else { "one by one" };
    loop {
        if may_agree {
            write!(out, "    Allow? [y]es, [N]o, [s]ome ({narrow}): ")?;
        } else {
            write!(out, "    Allow? [N]o, [s]ome ({narrow}): ")?;
        }
        out.flush()?;
        let Some(line) = read_line(input)? else { return Ok(Answer::No) };
        match line.to_ascii_lowercase().as_str() {
            "y" | "yes" if may_agree => return Ok(Answer::Yes),
            "s" | "some" | "narrow" => return Ok(Answer::Narrow),
            "" | "n" | "no" => return Ok(Answer::No),
            _ => writeln!(out, "    Not an answer. Press Enter for no.")?,
        }
    }
}

fn read_narrower(
    asked: &Asked,
    input: &mut impl BufRead,
    out: &mut impl Write,
) -> io::Result<Option<Capability>> {
    let kind = asked.capability.kind();
    let here = std::env::current_dir()?;
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from);
    loop {
        write!(out, "    {kind}, only on ({}; empty for no): ", kind.scope_form().in_words())?;
        out.flush()?;
        let Some(line) = read_line(input)?.filter(|l| !l.is_empty()) else { return Ok(None) };
        match crate::grant::parse(&format!("{kind}:{line}"), &here, home.as_deref()) {
            Err(Trouble::Failure(failure)) => writeln!(out, "    {}", failure.message)?,
            Err(_) => return Ok(None),
            Ok(capability) if capability == asked.capability && asked.too_wide.is_some() => {
                writeln!(out, "    That is what cannot be granted; name a folder.")?;
            }
            Ok(capability) if capability.is_subset_of(&asked.capability) => {
                return Ok(Some(capability));
            }
            Ok(_) => writeln!(out, "    That is more than it asks for.")?,
        }
    }
}

fn read_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let count = io::Read::take(&mut *input, 8192).read_line(&mut line)?;
    Ok((count > 0).then(|| line.trim().to_owned()))
}

#[cfg(test)]
mod tests;
