//! `palisade grants`: what is remembered of a plugin's rights, and taking it back.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use palisade_host::{Granted, LoadOptions, Plugin};
use palisade_model::{Capability, ErrorCode, text::escape};
use palisade_policy::OperatorPolicy;
use serde_json::json;

use crate::{
    cli::{Audit, Output},
    grant,
    session::Session,
    terminal::{self, Paint},
    trouble::Trouble,
    words,
};

/// Show which rights of a plugin are remembered, and take them back
///
/// Shows what --remember and answers on a terminal have granted: who, when, until when, and for which manifest. A grant
/// for another manifest than the one that is there does not count. Nothing of the plugin runs. What is taken back is
/// gone for every later start; a plugin that another command runs right now keeps it until it ends.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade grants plugins/word-counter
  palisade grants plugins/word-counter --revoke 'fs.read:/srv/**'    and everything within it
  palisade grants plugins/word-counter --revoke-all --json")]
pub(crate) struct Grants {
    /// The plugin's folder
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// Take back every grant that lies within this capability; may be given several times. A path may be relative
    #[arg(long, value_name = "CAP")]
    pub(crate) revoke: Vec<String>,
    /// Take back everything
    #[arg(long, conflicts_with = "revoke")]
    pub(crate) revoke_all: bool,
    /// Where grants and the plugins' data are kept [default: PALISADE_STATE_DIR, else /var/lib/palisade for root and
    /// ~/.local/state/palisade]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) audit: Audit,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Runs the command.
pub(crate) async fn grants(args: &Grants) -> Result<(), Trouble> {
    let audit = args.audit.file.as_deref();
    let session =
        Session::open(args.state_dir.as_deref(), OperatorPolicy::default(), audit, None).await?;
    let plugin = session.control.load(&args.folder, LoadOptions::new()).await?;
    let revoked = revoke(&plugin, args).await?;
    let left = plugin.grants().await?;
    let digest = plugin.manifest().digest().to_string();
    if args.output.json {
        terminal::json(&json!({
            "plugin": plugin.id(), "digest": digest, "grants": left, "revoked": revoked,
        }));
    } else {
        terminal::out(report(&plugin, &digest, &left, &revoked, now(), Paint::stdout()));
    }
    // Flushes the record.
    Ok(session.host.shutdown().await?)
}

/// Takes back what the options name; gives what was taken.
async fn revoke(plugin: &Plugin, args: &Grants) -> Result<Vec<Capability>, Trouble> {
    if args.revoke_all {
        return Ok(plugin.revoke_all().await?.0);
    }
    let before = plugin.grants().await?;
    // All of them are read before one is taken back.
    let here = std::env::current_dir()
        .map_err(|error| Trouble::usage(format!("the current folder cannot be named: {error}")))?;
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let named = args
        .revoke
        .iter()
        .map(|text| grant::parse_option("--revoke", text, &here, home.as_deref()))
        .collect::<Result<Vec<Capability>, Trouble>>()?;
    let within = |c: &Capability| named.iter().any(|wide| c.is_subset_of(wide));
    let taken: Vec<Capability> =
        before.into_iter().map(|g| g.capability).filter(|c| within(c)).collect();
    if let Some(nothing) = named.iter().find(|wide| !taken.iter().any(|c| c.is_subset_of(wide))) {
        let shown = words::written(nothing);
        return Err(Trouble::usage(format!(
            "nothing within {shown} is granted to {}",
            plugin.id()
        ))
        .hint("palisade grants DIR shows what is"));
    }
    for capability in named {
        match plugin.revoke(capability).await {
            // Another one that was named has taken it.
            Err(failure) if failure.code == ErrorCode::NotFound => {}
            revoked => drop(revoked?),
        }
    }
    Ok(taken)
}

fn report(
    plugin: &Plugin,
    digest: &str,
    grants: &[Granted],
    revoked: &[Capability],
    now: u64,
    paint: Paint,
) -> String {
    let mut text = String::new();
    for capability in revoked {
        text.push_str(&format!("taken back: {}\n", words::written(capability)));
    }
    let count = match grants.len() {
        0 => "nothing is remembered".to_owned(),
        1 => "1 grant is remembered".to_owned(),
        many => format!("{many} grants are remembered"),
    };
    text.push_str(&format!("{}: {count}", paint.bold(plugin.id())));
    for grant in grants {
        let (state, counts) = state(grant, digest, now);
        let state = if counts { paint.good(state) } else { paint.warn(state) };
        text.push_str(&format!("\n\n  {}  {state}", paint.bold(words::written(&grant.capability))));
        text.push_str(&format!("\n    {}", words::right(&grant.capability)));
        if grant.resolved != grant.capability {
            text.push_str(&format!("\n    leads to {}", words::written(&grant.resolved)));
        }
        let by = escape(&grant.by.to_string(), 200);
        let until = match grant.until {
            Some(until) => format!("until {}", words::date(until)),
            None => "without an end".to_owned(),
        };
        text.push_str(&format!("\n    granted by {by} on {}, {until}", words::date(grant.at)));
        text.push_str(&paint.dim(format!("\n    for the manifest {}", grant.digest)));
    }
    text
}

/// Whether and why a grant counts.
fn state(grant: &Granted, digest: &str, now: u64) -> (&'static str, bool) {
    if grant.counts {
        ("counts", true)
    } else if grant.digest != digest {
        ("does not count: the manifest has changed", false)
    } else if grant.until.is_some_and(|until| now >= until) {
        ("does not count: its time is over", false)
    } else {
        ("does not count", false)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
