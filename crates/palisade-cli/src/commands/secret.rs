//! `palisade secret`: the values that the operator keeps for plugins. A value is read from stdin or typed
//! without an echo; it is never an argument and never printed.

use std::{
    io::{self, IsTerminal as _, Read as _},
    path::PathBuf,
};

use clap::Subcommand;
use palisade_model::text::escape;
use palisade_policy::OperatorPolicy;
use palisade_services::secret::{MAX_SECRET, SecretValue};
use serde_json::json;

use crate::{platform::typed, session::Session, terminal, trouble::Trouble, words};

/// Keep secrets for plugins: set, list, remove
///
/// A plugin gets the value of a secret if it has the right `secret:NAME`: as an answer to `secret.get`, or as an
/// environment variable for programs that cannot ask (`palisade mcp --secret VARIABLE=NAME`). Each time is recorded.
/// Values are kept in the state folder, in files that only you can read; they are not encrypted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  palisade secret set github.GITHUB_TOKEN               type it, nothing is shown
  pass show github | palisade secret set github.GITHUB_TOKEN
  palisade secret list
  palisade secret remove github.GITHUB_TOKEN")]
pub(crate) struct Secret {
    #[command(subcommand)]
    command: Command,
    /// Where secrets are kept [default: PALISADE_STATE_DIR, else /var/lib/palisade for root and
    /// ~/.local/state/palisade]
    #[arg(long, value_name = "DIR", global = true)]
    state_dir: Option<PathBuf>,
    /// Append the record of everything that is asked to this file, as JSON lines
    #[arg(long, value_name = "FILE", global = true)]
    audit: Option<PathBuf>,
    /// Print JSON on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set a secret; the value comes from stdin, or is typed
    ///
    /// From stdin all is taken, but for one line break at the end.
    Set {
        /// Its name: A-Z a-z 0-9 . _ - : / @ $ +
        name: String,
    },
    /// List the secrets that are set, without their values
    List,
    /// Remove a secret
    Remove {
        /// Its name
        name: String,
    },
}

/// Does what was asked.
pub(crate) async fn secret(args: &Secret) -> Result<(), Trouble> {
    // Before the folder is opened or anything is asked for.
    if let Command::Set { name } | Command::Remove { name } = &args.command {
        palisade_services::secret::check_name(name).map_err(|f| Trouble::usage(f.message))?;
    }
    let value = match &args.command {
        Command::Set { name } => Some(read_value(name)?),
        Command::List | Command::Remove { .. } => None,
    };
    let audit = args.audit.as_deref();
    let session =
        Session::open(args.state_dir.as_deref(), OperatorPolicy::default(), audit, None).await?;
    let control = &session.control;
    match (&args.command, value) {
        (Command::Set { name }, Some(value)) => {
            let replaced = control.set_secret(name, value).await?;
            if args.json {
                terminal::json(&json!({ "name": name, "replaced": replaced }));
            } else {
                let how = if replaced { "has a new value" } else { "is set" };
                terminal::out(format_args!("{name} {how}"));
            }
        }
        (Command::Remove { name }, _) => {
            control.remove_secret(name).await?;
            if args.json {
                terminal::json(&json!({ "name": name, "removed": true }));
            } else {
                terminal::out(format_args!("{name} is removed"));
            }
        }
        (Command::List | Command::Set { .. }, _) => {
            let secrets = control.secrets().await?;
            if args.json {
                terminal::json(&json!({ "secrets": secrets }));
            } else if secrets.is_empty() {
                terminal::out("no secrets are set");
            } else {
                let width = secrets.iter().map(|s| s.name.len()).max().unwrap_or(0).min(60);
                for secret in secrets {
                    let name = escape(&secret.name, 256);
                    terminal::out(format_args!(
                        "{name:<width$}  set {}",
                        words::day(secret.changed)
                    ));
                }
            }
        }
    }
    session.host.shutdown().await?;
    Ok(())
}

fn read_value(name: &str) -> Result<SecretValue, Trouble> {
    let failed = |e: io::Error| Trouble::usage(format!("the value cannot be read: {e}"));
    let mut bytes = if io::stdin().is_terminal() {
        typed::line(&format!("Value of {name} (not shown): "), MAX_SECRET + 2)?
    } else {
        // One read buffer of the full size, so that no copies are left behind where it grows.
        let mut bytes = Vec::with_capacity(MAX_SECRET + 3);
        io::stdin().lock().take(MAX_SECRET as u64 + 3).read_to_end(&mut bytes).map_err(failed)?;
        bytes
    };
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Trouble::usage("the value of a secret is UTF-8 text, and this is not"))?;
    SecretValue::new(text).map_err(|failure| Trouble::usage(failure.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_as_its_date() {
        for (unix, shown) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_795_219_199, "2026-11-20"),
            (4_107_542_399, "2100-02-28"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(words::day(unix), shown);
        }
    }
}
