//! The command line of what stands on the Linux walls. It can be said on every system; where there are no such
//! walls the answer is a refusal ([`crate::platform`]).

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{Audit, Backend, Output};

/// Show good plugins at work and a hostile one contained
///
/// Sets up a folder of texts, a secret, a server on loopback and other temptations in a temporary folder, runs
/// three useful plugins and one hostile one behind this machine's walls, and prints what each tried and what came of
/// it. Whether something was achieved is looked up on this side of the walls, never believed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade demo
  palisade demo --audit record.jsonl         keep the record of everything that was asked
  palisade demo --json                       for programs

Exit status: 0 if the good plugins did all their work and the hostile one achieved nothing; 4 where the walls
are missing, with what to do about it; 1 otherwise.")]
pub(crate) struct Demo {
    #[command(flatten)]
    pub(crate) backend: Backend,
    #[command(flatten)]
    pub(crate) audit: Audit,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Run a plugin or a command, and draft the smallest manifest that allows what it did
///
/// It runs behind walls, within a ceiling that you give: --read, --write, --net, --env, --grant. What it uses of
/// that is drafted; what it tries beyond is refused, told, and drafted as a comment. Without --read and --write it
/// may read the current folder. What it keeps in /data is thrown away. Reading an environment variable is no system
/// call and cannot be seen: only what --env names is drafted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade learn plugins/word-counter --call 'count {\"path\": \"/srv/texts\"}' --read /srv/texts > plugin.yaml
  palisade learn my-plugin --net api.example.org:443 --out plugin.yaml    until it ends or Ctrl-C
  palisade learn --out report.yaml --write out -- python3 make_report.py

Exit status: as for `palisade run`; the draft is written in any case where something ran.")]
pub(crate) struct Learn {
    /// The plugin's folder
    #[arg(value_name = "DIR", required_unless_present = "command", conflicts_with = "command")]
    pub(crate) folder: Option<PathBuf>,
    /// Call this tool with these arguments; may be given several times. Without it the plugin runs until it ends or
    /// Ctrl-C
    #[arg(long, value_name = "TOOL JSON", conflicts_with = "command")]
    pub(crate) call: Vec<String>,
    /// It may read this file or folder; may be given several times
    #[arg(long, value_name = "PATH")]
    pub(crate) read: Vec<PathBuf>,
    /// It may read and write this file or folder; may be given several times
    #[arg(long, value_name = "PATH")]
    pub(crate) write: Vec<PathBuf>,
    /// It may reach this host, or every public one
    #[arg(long, value_name = "HOST:PORT", num_args = 0..=1, default_missing_value = "*:*", require_equals = true)]
    pub(crate) net: Vec<String>,
    /// It gets this environment variable
    #[arg(long, value_name = "NAME")]
    pub(crate) env: Vec<String>,
    /// It may do what this manifest asks for, and nothing else: to try a draft on a command, or to refine it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["read", "write", "net", "env", "grant"])]
    pub(crate) within: Option<PathBuf>,
    /// It may do this too, `kind:scope`
    #[arg(long, value_name = "CAP")]
    pub(crate) grant: Vec<String>,
    /// Write the draft to this file, which must not exist yet [default: stdout]
    #[arg(long, value_name = "FILE", required_unless_present = "folder")]
    pub(crate) out: Option<PathBuf>,
    /// The plugin's configuration, a JSON file
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    pub(crate) config: Option<PathBuf>,
    /// The operator's policy, a TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) backend: Backend,
    /// The command and its arguments
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The server's command and its arguments
    #[arg(last = true, value_name = "CMD", required_unless_present = "manifest")]
    pub(crate) command: Vec<String>,
    /// Take rights, tools and limits from this manifest. With a command, that is started in place of the manifest's
    /// entry
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Grant a capability, `kind:scope`; may be given several times. A path may be relative
    #[arg(long, value_name = "CAP")]
    pub(crate) grant: Vec<String>,
    /// Grant everything that the manifest asks for
    #[arg(long, requires = "manifest")]
    pub(crate) grant_all: bool,
    /// Set a variable of the server's environment from a secret; may be given several times
    #[arg(long, value_name = "ENV=NAME")]
    pub(crate) secret: Vec<String>,
    /// Offer this tool, or those that begin so (`get_*`), and no others; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) tool: Vec<String>,
    /// Offer no tool before it was accepted with `palisade mcp pins`
    #[arg(long)]
    pub(crate) strict_pins: bool,
    /// Most memory, as in 512MiB [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,
    /// How long the server may take to answer `initialize`, in seconds [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) start_timeout: Option<Duration>,
    /// How long a request may go without answer or progress, in seconds [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) call_timeout: Option<Duration>,
    /// Fetch the command's package again, even where it is in the cache
    #[arg(long, requires = "command")]
    pub(crate) refresh: bool,
    /// The operator's policy, a TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Where pins and the servers' data are kept [default: PALISADE_STATE_DIR, else /var/lib/palisade for root and
    /// ~/.local/state/palisade]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) backend: Backend,
    #[command(flatten)]
    pub(crate) explain: Explain,
    #[command(flatten)]
    pub(crate) audit: Audit,
}

/// Put every server of an MCP client's configuration behind Palisade
///
/// Knows the files of Claude Desktop, Claude Code, Cursor, Windsurf, VS Code, Zed and others that are written like
/// them. Each server that the client starts is started as `palisade mcp -- COMMAND` instead; remote servers are left
/// alone. Variables in `env` that look like secrets move to `palisade secret`. Everything else in the file stays as it
/// is, and a backup of it is kept.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade mcp wrap ~/.cursor/mcp.json --dry-run
  palisade mcp wrap ~/.cursor/mcp.json --grant-paths read
  palisade mcp wrap .vscode/mcp.json --grant 'fetch=net.http:example.org'
  palisade mcp unwrap ~/.cursor/mcp.json     undo it")]
pub(crate) struct Wrap {
    /// The client's configuration file
    #[arg(value_name = "CONFIG.json")]
    pub(crate) config: PathBuf,
    /// What each server may do with the files and folders that its arguments and variables name [default: asked on a
    /// terminal, else none]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) grant_paths: Option<Access>,
    /// Grant a capability to one server; may be given several times
    #[arg(long, value_name = "SERVER=CAP")]
    pub(crate) grant: Vec<String>,
    /// Show what would change and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Where secrets are kept and the servers' state will be [default: PALISADE_STATE_DIR, else /var/lib/palisade for
    /// root and ~/.local/state/palisade]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) audit: Audit,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Undo `palisade mcp wrap`
///
/// Takes Palisade out of every server that was put behind it and puts the secrets back. Servers that were added or
/// changed since stay as they are; where nothing else changed, the file is what it was, byte for byte.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade mcp unwrap ~/.cursor/mcp.json
  palisade mcp unwrap ~/.cursor/mcp.json --keep-secrets    without writing secrets into the file")]
pub(crate) struct Unwrap {
    /// The client's configuration file
    #[arg(value_name = "CONFIG.json")]
    pub(crate) config: PathBuf,
    /// Leave secrets where they are instead of writing them into the file in clear text
    #[arg(long)]
    pub(crate) keep_secrets: bool,
    /// Show what would change and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Where the secrets are kept, if the file does not say
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) audit: Audit,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What a server may do with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Access {
    /// Read it
    Read,
    /// Read, change and delete it
    Write,
    /// Nothing
    None,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Say at the end what the walls refused: path, system call or address, how often, and the --grant that would
    /// allow it. Slows the plugin down
    #[arg(long)]
    pub(crate) explain: bool,
}

fn size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("write it as in 512MiB".to_owned()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    bytes.filter(|n| (4 << 20..=16 << 40).contains(n)).ok_or_else(|| "4MiB to 16TiB".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|s| (0.001..=86_400.0).contains(s));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "0.001 to 86400 seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_bounded() {
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("16000000"), Ok(16_000_000));
        for wrong in ["", "MiB", "1MiB", "12 MiB", "-1", "99999999999GiB", "1TB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for wrong in ["0", "-1", "1e9", "NaN", "x"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
