//! `palisade mcp wrap` and `unwrap`: put the servers of a client's configuration behind Palisade, and take
//! them out again.
//!
//! Of the file only what has to change is touched. Secrets go to the host's secrets before the file is
//! written; the text as it was goes into a backup. What is read is other people's text: it is bounded,
//! checked, and escaped where it is shown.

pub(crate) mod files;
pub(crate) mod jsonc;
pub(crate) mod looks;
pub(crate) mod planned;
pub(crate) mod servers;
pub(crate) mod show;
pub(crate) mod undo;

use std::{
    collections::BTreeMap,
    io::{self, BufRead, IsTerminal as _, Write},
    path::Path,
};

use palisade_host::Control;
use palisade_model::{ErrorCode, Failure, text::escape};
use palisade_policy::OperatorPolicy;
use palisade_services::secret::SecretValue;
use serde_json::json;

pub(crate) use self::undo::unwrap;
use self::{
    files::{Config, shown},
    jsonc::{Edit, Node},
    planned::{Action, Planned},
    servers::{Misfit, Server, Shape},
};
use crate::{
    cli::{
        Audit,
        native::{Access, Wrap},
    },
    session::Session,
    terminal::{self, Paint},
    trouble::Trouble,
};

/// Longest server name that is shown, in characters.
const MAX_NAME: usize = 100;

fn is_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn at(config: &Config, misfit: &Misfit) -> Trouble {
    let (line, column) = jsonc::position(&config.text, misfit.offset);
    config.misfit(line, column, &misfit.what)
}

fn internal(what: &str) -> Trouble {
    Trouble::Failure(Failure::new(ErrorCode::Internal, what).hint("nothing was changed"))
}

async fn open(state_dir: Option<&Path>, audit: &Audit) -> Result<Session, Trouble> {
    Session::open(state_dir, OperatorPolicy::default(), audit.file.as_deref(), None).await
}

/// The folder that wrapped servers are told to use, where it is not simply the default: the client's
/// environment is not this one.
fn told_state_dir(given: Option<&Path>) -> Result<Option<String>, Trouble> {
    let chosen = ["PALISADE_STATE_DIR", "XDG_STATE_HOME"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let dir = match given {
        Some(dir) => dir.to_owned(),
        None if chosen => palisade_host::default_state_dir()?,
        None => return Ok(None),
    };
    let dir =
        std::path::absolute(&dir).map_err(|e| Trouble::usage(format!("{}: {e}", shown(&dir))))?;
    let text =
        dir.to_str().ok_or_else(|| Trouble::usage("the state folder's name is not UTF-8 text"))?;
    Ok(Some(text.to_owned()))
}

/// Puts servers behind Palisade.
pub(crate) async fn wrap(args: &Wrap) -> Result<(), Trouble> {
    let config = Config::read(&args.config)?;
    let root = config.parse()?;
    let servers = servers::servers(&root).map_err(|misfit| at(&config, &misfit))?;
    let mut plans: Vec<Planned> = servers.iter().map(planned::plan).collect();
    planned::add_grants(&mut plans, &args.grant)?;
    let ask = args.grant_paths.is_none() && is_terminal() && !args.output.json && !args.dry_run;
    for plan in &mut plans {
        match args.grant_paths {
            Some(access) => plan.paths.iter_mut().for_each(|path| path.access = access),
            None if ask => ask_paths(plan, io::stdin().lock(), io::stderr().lock())
                .map_err(|e| Trouble::usage(format!("the terminal cannot be read: {e}")))?,
            None => {}
        }
    }
    let state_dir = told_state_dir(args.state_dir.as_deref())?;
    let moves = plans.iter().any(|plan| !plan.secrets.is_empty());
    let there = || match &args.state_dir {
        Some(dir) => dir.exists(),
        None => palisade_host::default_state_dir().is_ok_and(|dir| dir.exists()),
    };
    let session = match moves && (!args.dry_run || there()) {
        true => Some(open(args.state_dir.as_deref(), &args.audit).await?),
        false => None,
    };
    let new_secrets = name_secrets(&mut plans, session.as_ref().map(|s| &s.control)).await?;

    let palisade = std::env::current_exe()
        .ok()
        .and_then(|path| path.to_str().map(str::to_owned))
        .ok_or_else(|| internal("the path of this command is not known"))?;
    let text = wrapped_text(&config.text, &servers, &plans, &palisade, state_dir.as_deref());
    let new = check(&text, &servers, &plans)?;
    let changes = text != config.text;
    if args.dry_run && !args.output.json && changes {
        terminal::out(show::diff((&config.text, &root), (&text, &new), Paint::stdout()));
    }
    let mut backup = None;
    if changes && !args.dry_run {
        if let Some(session) = &session {
            for (name, value) in new_secrets {
                session.control.set_secret(&name, value).await?;
            }
        }
        backup = Some(config.back_up()?);
        config.replace(&text)?;
    }
    report_wrap(args, &config, &plans, backup.as_deref());
    Ok(())
}

/// The text with every planned server behind Palisade.
fn wrapped_text(
    text: &str,
    servers: &[Server<'_>],
    plans: &[Planned],
    palisade: &str,
    state_dir: Option<&str>,
) -> String {
    let mut edits: Vec<Edit> = Vec::new();
    for (server, plan) in servers.iter().zip(plans) {
        if let (Shape::Stdio(launch), Action::Wrap) = (&server.shape, &plan.action) {
            let moved = |name: &str| plan.secrets.iter().any(|secret| secret.variable == name);
            edits.extend(launch.wrap(text, palisade, &plan.options(state_dir), moved));
        }
    }
    jsonc::apply(text, edits)
}

/// Reads the new text again: each server must still be started with the same command and arguments, and no
/// secret that moved may be left.
fn check(text: &str, servers: &[Server<'_>], plans: &[Planned]) -> Result<Node, Trouble> {
    let broken = || internal("the changed file would not be what it should be");
    let root = jsonc::parse(text).map_err(|_| broken())?;
    let now = servers::servers(&root).map_err(|_| broken())?;
    if now.len() != servers.len() {
        return Err(broken());
    }
    for ((old, new), plan) in servers.iter().zip(&now).zip(plans) {
        let same = match (&old.shape, &new.shape, &plan.action) {
            (Shape::Stdio(old), Shape::Stdio(new), Action::Wrap) => {
                let count = new.wrapped().map_or(0, |wrapped| wrapped.options.len());
                let mut rest = new.arguments.iter().skip(count);
                let moved = new.env.and_then(Node::members).unwrap_or_default().iter().any(|m| {
                    plan.secrets.iter().any(|s| m.key.as_deref() == Some(s.variable.as_str()))
                });
                new.is_palisade()
                    && rest.next() == Some(&old.command)
                    && rest.eq(old.arguments.iter())
                    && !moved
            }
            _ => new.place == old.place && new.name == old.name,
        };
        if !same {
            return Err(broken());
        }
    }
    drop(now);
    Ok(root)
}

/// Gives each secret the name under which it will be kept; gives those that have to be set. A name that is
/// taken by another value is left alone.
async fn name_secrets(
    plans: &mut [Planned],
    control: Option<&Control>,
) -> Result<BTreeMap<String, SecretValue>, Trouble> {
    let taken: Vec<String> = match control {
        Some(control) => control.secrets().await?.into_iter().map(|info| info.name).collect(),
        None => Vec::new(),
    };
    let mut new: BTreeMap<String, SecretValue> = BTreeMap::new();
    for plan in plans.iter_mut() {
        let server = planned::name_part(&plan.name);
        for secret in &mut plan.secrets {
            for number in 1u32.. {
                let name = match number {
                    1 => format!("{server}.{}", secret.variable),
                    _ => format!("{server}-{number}.{}", secret.variable),
                };
                let stored = match control {
                    Some(control) if taken.contains(&name) => control.secret(&name).await?,
                    _ => None,
                };
                if new.get(&name).or(stored.as_ref()).is_none_or(|value| *value == secret.value) {
                    if stored.is_none() {
                        new.insert(name.clone(), secret.value.clone());
                    }
                    secret.name = name;
                    break;
                }
            }
        }
    }
    Ok(new)
}

/// Asks what a server may do with each path that it names. Anything but a clear answer is no.
fn ask_paths(plan: &mut Planned, mut input: impl BufRead, mut out: impl Write) -> io::Result<()> {
    let server = escape(&plan.name, MAX_NAME);
    for path in &mut plan.paths {
        let what = if path.is_folder { "the folder" } else { "the file" };
        writeln!(out, "{server} names {what} {}", escape(&path.path, 400))?;
        loop {
            write!(out, "  May it [r]ead it, read and [w]rite it, or [N]othing? ")?;
            out.flush()?;
            let mut line = String::new();
            let count = io::Read::take(&mut input, 1024).read_line(&mut line)?;
            match line.trim().to_ascii_lowercase().as_str() {
                "r" | "read" => path.access = Access::Read,
                "w" | "write" => path.access = Access::Write,
                "" | "n" | "no" | "none" | "nothing" => path.access = Access::None,
                _ if count == 0 => path.access = Access::None,
                _ => {
                    writeln!(out, "  Not an answer. Press Enter for nothing.")?;
                    continue;
                }
            }
            break;
        }
    }
    Ok(())
}

fn report_wrap(args: &Wrap, config: &Config, plans: &[Planned], backup: Option<&Path>) {
    let warnings = config.warnings();
    let wrapped = plans.iter().filter(|plan| plan.action == Action::Wrap).count();
    if args.output.json {
        terminal::json(&json!({
            "config": config.path,
            "dry_run": args.dry_run,
            "changed": wrapped > 0 && !args.dry_run,
            "backup": backup,
            "servers": plans.iter().map(Planned::to_json).collect::<Vec<_>>(),
            "warnings": warnings,
        }));
        return;
    }
    let paint = Paint::stdout();
    for plan in plans {
        terminal::out(plan.in_words(paint));
    }
    for warning in warnings {
        terminal::err(format_args!("{} {warning}", Paint::stderr().warn("warning:")));
    }
    let file = shown(&config.path);
    if wrapped == 0 {
        terminal::out(format_args!("\n{file}: nothing to do"));
    } else if args.dry_run {
        terminal::out(format_args!("\nNothing was changed. Without --dry-run it will be."));
    } else {
        let secrets = plans.iter().any(|plan| !plan.secrets.is_empty());
        terminal::out(format_args!("\n{file} is changed. Restart the client."));
        if let Some(backup) = backup {
            terminal::out(format_args!("  backup  {}", shown(backup)));
            if secrets {
                terminal::out(
                    "          It has the secrets in clear text: delete it once all works.",
                );
            }
        }
        terminal::out(format_args!("  undo    palisade mcp unwrap {file}"));
    }
}

#[cfg(test)]
mod tests;
