//! `palisade mcp unwrap`: takes Palisade out of a client's configuration again.
//!
//! An entry's old text is taken from a backup if wrapping that text again in the same way gives what stands
//! in the file now. An entry that was changed since is taken apart by its structure. Nothing else is
//! believed about a backup.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, Write as _},
    path::{Path, PathBuf},
};

use palisade_model::text::escape;
use palisade_services::secret::SecretValue;
use serde_json::{Value, json};

use super::{
    MAX_NAME, at,
    files::{Backup, Config, shown},
    internal, is_terminal,
    jsonc::{self, Edit, Node},
    open,
    servers::{self, Server, Shape},
    show,
};
use crate::{
    cli::native::Unwrap,
    terminal::{self, Paint},
    trouble::Trouble,
};

/// A server that was behind Palisade.
pub(super) struct Restored {
    place: String,
    name: String,
    /// Variables that were put back.
    pub(super) variables: Vec<String>,
    /// Whether its text is what it was before.
    pub(super) exact: bool,
    pub(super) warnings: Vec<String>,
}

/// Takes servers out again.
pub(crate) async fn unwrap(args: &Unwrap) -> Result<(), Trouble> {
    let config = Config::read(&args.config)?;
    let root = config.parse()?;
    let servers = servers::servers(&root).map_err(|misfit| at(&config, &misfit))?;
    let backups = config.backups();
    let names = servers.iter().filter_map(|s| match &s.shape {
        Shape::Stdio(launch) => launch.wrapped(),
        _ => None,
    });
    let secrets: usize = names.map(|wrapped| wrapped.secrets.len()).sum();
    let ask =
        secrets > 0 && !args.keep_secrets && !args.dry_run && is_terminal() && !args.output.json;
    let keep = args.keep_secrets || (ask && !ask_secrets(secrets)?);
    let values = if keep { BTreeMap::new() } else { stored(args, &servers).await? };

    let (text, restored) =
        unwrapped_text(&config.text, &servers, &backups, (!keep).then_some(&values));
    let new = jsonc::parse(&text).map_err(|_| internal("the changed file would not be valid"))?;
    servers::servers(&new).map_err(|_| internal("the changed file would not be valid"))?;
    let changes = text != config.text;
    if args.dry_run && !args.output.json && changes {
        terminal::out(show::diff((&config.text, &root), (&text, &new), Paint::stdout()));
    }
    let mut removed = Vec::new();
    if changes && !args.dry_run {
        config.replace(&text)?;
        // The file itself is that backup now.
        for backup in backups.iter().filter(|backup| backup.text == text) {
            if std::fs::remove_file(&backup.path).is_ok() {
                removed.push(backup.path.clone());
            }
        }
    }
    report_unwrap(args, &config, &restored, &removed);
    Ok(())
}

fn ask_secrets(count: usize) -> Result<bool, Trouble> {
    let mut err = io::stderr().lock();
    let _ = write!(err, "Write {count} secrets back into the file in clear text? [Y/n] ");
    let _ = err.flush();
    let mut line = String::new();
    let read = io::Read::take(io::stdin().lock(), 1024).read_line(&mut line);
    let count = read.map_err(|e| Trouble::usage(format!("the terminal cannot be read: {e}")))?;
    Ok(count > 0 && matches!(line.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes"))
}

/// The values of the secrets that wrapped servers use, by the folder that they are told to use and name.
pub(super) type Values = BTreeMap<(Option<String>, String), SecretValue>;

/// The folder that a wrapped server is told to use.
fn folder_of(wrapped: &servers::Wrapped<'_>) -> Option<String> {
    wrapped.options.windows(2).find_map(|pair| match pair {
        ["--state-dir", dir] => Some((*dir).to_owned()),
        _ => None,
    })
}

async fn stored(args: &Unwrap, servers: &[Server<'_>]) -> Result<Values, Trouble> {
    let mut wanted: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
    for server in servers {
        if let Shape::Stdio(launch) = &server.shape
            && let Some(wrapped) = launch.wrapped()
        {
            let names = wrapped.secrets.iter().map(|(_, name)| (*name).to_owned());
            wanted.entry(folder_of(&wrapped)).or_default().extend(names);
        }
    }
    let mut values = Values::new();
    for (folder, names) in wanted.into_iter().filter(|(_, names)| !names.is_empty()) {
        let dir = folder.as_deref().map(Path::new).or(args.state_dir.as_deref());
        // What the file names is not created; where there is no such folder there are no secrets.
        if folder.is_some() && dir.is_some_and(|dir| !dir.is_dir()) {
            continue;
        }
        let session = open(dir, &args.audit).await?;
        for name in names {
            // The name comes from the file; what is no name has no value.
            if palisade_services::secret::check_name(&name).is_ok()
                && let Some(value) = session.control.secret(&name).await?
            {
                values.insert((folder.clone(), name), value);
            }
        }
    }
    Ok(values)
}

/// The text with every wrapped server as it was. `values`: the secrets to write back; `None`: none.
pub(super) fn unwrapped_text(
    text: &str,
    servers: &[Server<'_>],
    backups: &[Backup],
    values: Option<&Values>,
) -> (String, Vec<Restored>) {
    let older: Vec<(&str, Vec<Server<'_>>)> = backups
        .iter()
        .filter_map(|b| Some((b.text.as_str(), servers::servers(&b.root).ok()?)))
        .collect();
    let (mut edits, mut all) = (Vec::new(), Vec::new());
    for server in servers {
        let Shape::Stdio(launch) = &server.shape else { continue };
        let Some(wrapped) = launch.wrapped() else { continue };
        let folder = folder_of(&wrapped);
        let value =
            |name: &str| values.and_then(|values| values.get(&(folder.clone(), name.to_owned())));
        let mut restored = Restored {
            place: server.place.clone(),
            name: server.name.to_owned(),
            variables: Vec::new(),
            exact: false,
            warnings: Vec::new(),
        };
        let before = older.iter().find_map(|(old, old_servers)| {
            servers::original(text, server, old, old_servers).map(|found| (*old, found))
        });
        let variables = || wrapped.secrets.iter().map(|(variable, _)| (*variable).to_owned());
        match before {
            Some((old, (entry, old_launch))) if values.is_some() || wrapped.secrets.is_empty() => {
                // A value that was set anew since is the one that counts.
                let members = old_launch.env.and_then(Node::members).unwrap_or_default();
                let renewed: Vec<Edit> = members
                    .iter()
                    .filter_map(|member| {
                        let key = member.key.as_deref()?;
                        let (_, name) = wrapped.secrets.iter().find(|(v, _)| *v == key)?;
                        let now = value(name)?.expose();
                        (member.node.text() != Some(now))
                            .then(|| Edit::replace(&member.node, servers::quoted(now)))
                    })
                    .collect();
                restored.exact = renewed.is_empty();
                restored.variables = variables().collect();
                edits.push(Edit::replace(server.node, servers::changed(old, entry.node, renewed)));
            }
            _ => {
                let mut known = Vec::new();
                for (variable, name) in &wrapped.secrets {
                    match value(name) {
                        Some(value) => known.push((*variable, value.expose())),
                        None if values.is_some() => restored.warnings.push(format!(
                            "the secret {} is not set any more; {} is missing in env",
                            escape(name, MAX_NAME),
                            escape(variable, MAX_NAME)
                        )),
                        None => restored.warnings.push(format!(
                            "{} is missing in env; its value is kept as the secret {}",
                            escape(variable, MAX_NAME),
                            escape(name, MAX_NAME)
                        )),
                    }
                }
                restored.variables =
                    known.iter().map(|(variable, _)| (*variable).to_owned()).collect();
                edits.extend(launch.unwrap(text, &wrapped, &known));
            }
        }
        all.push(restored);
    }
    (jsonc::apply(text, edits), all)
}

fn report_unwrap(args: &Unwrap, config: &Config, restored: &[Restored], removed: &[PathBuf]) {
    if args.output.json {
        let servers = restored.iter().map(|server| {
            json!({
                "place": server.place, "name": server.name, "variables": server.variables,
                "exact": server.exact, "warnings": server.warnings,
            })
        });
        terminal::json(&json!({
            "config": config.path,
            "dry_run": args.dry_run,
            "changed": !restored.is_empty() && !args.dry_run,
            "servers": servers.collect::<Vec<Value>>(),
            "removed_backups": removed,
            "warnings": config.warnings(),
        }));
        return;
    }
    let (paint, file) = (Paint::stdout(), shown(&config.path));
    for server in restored {
        terminal::out(format_args!(
            "{} {}",
            paint.good("restored"),
            paint.bold(escape(&server.name, MAX_NAME))
        ));
        for warning in &server.warnings {
            terminal::out(format_args!("    {} {warning}", paint.warn("warning:")));
        }
    }
    for warning in config.warnings() {
        terminal::err(format_args!("{} {warning}", Paint::stderr().warn("warning:")));
    }
    if restored.is_empty() {
        terminal::out(format_args!("{file}: no server in it runs behind Palisade"));
    } else if args.dry_run {
        terminal::out("\nNothing was changed. Without --dry-run it will be.");
    } else {
        terminal::out(format_args!("\n{file} is changed. Restart the client."));
        if restored.iter().any(|server| !server.variables.is_empty()) {
            terminal::out("  Their secrets are kept too; palisade secret list shows them.");
        }
        for backup in removed {
            terminal::out(format_args!(
                "  The file is as it was before; its backup {} is removed.",
                shown(backup)
            ));
        }
    }
}
