//! The command line: what can be said, and the help that explains it. What it means is elsewhere.

pub(crate) mod native;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, builder::PossibleValuesParser};
use palisade_seccomp::profiles::Profile;

const EXAMPLES: &str = "\
Examples:
  palisade demo                              watch good plugins work and a hostile one fail
  palisade doctor                            what this machine can enforce
  palisade check plugins/word-counter        what a plugin asks for, and whether it can run here
  palisade call plugins/word-counter count '{\"path\": \"/srv/texts\"}' --grant 'fs.read:/srv/texts/**'

Exit status:
  0  done
  1  the plugin failed or answered with an error
  2  usage, or the manifest is not valid
  3  denied
  4  no backend on this machine covers the demand
  5  a limit or a deadline was hit
  6  the plugin crashed or broke the protocol";

/// Run other people's plugins without trusting them.
#[derive(Debug, Parser)]
#[command(name = "palisade", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Say more about what happens, on stderr; -vv and -vvv say still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(native::Demo),
    Run(Run),
    Call(Call),
    Check(Check),
    Grants(crate::commands::grants::Grants),
    Learn(native::Learn),
    Mcp(crate::commands::mcp::Mcp),
    New(crate::commands::new::New),
    Seal(crate::commands::seal::Seal),
    Audit(crate::commands::audit::Audit),
    Secret(crate::commands::secret::Secret),
    Doctor(Doctor),
    /// Print the JSON Schema of the manifest
    ///
    /// Editors use it to complete and check `plugin.yaml` and `plugin.json` while they are written.
    #[command(after_help = "\
Example:
  palisade schema > plugin.schema.json
  and as the first line of plugin.yaml:  # yaml-language-server: $schema=plugin.schema.json")]
    Schema,
    Completions(Completions),
    #[command(hide = true)]
    Man(Man),
}

/// Run a plugin until it ends or Ctrl-C
///
/// What the plugin asks for and nobody has granted is asked on a terminal, and the answer is remembered. Without a
/// terminal it is denied. The plugin's log goes to stderr.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade run plugins/markov-chatter
  palisade run plugins/word-counter --grant 'fs.read:/srv/texts/**' --remember
  palisade run plugins/markov-chatter --json     one JSON object a line: started, log, dropped, ended")]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) plugin: PluginArgs,
    #[command(flatten)]
    pub(crate) explain: native::Explain,
    #[command(flatten)]
    pub(crate) remember: Remember,
    #[command(flatten)]
    pub(crate) audit: Audit,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Start a plugin, call one of its tools, print the result as JSON, stop it
///
/// A file FILE.wasm in place of a folder is a component whose exported functions are the tools; it has the rights that
/// --grant gives and no others. With --command: run one of its commands and print its text. A command that ends with another status than 0 gives
/// exit status 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade call plugins/checksum sha256 '{\"text\": \"abc\"}'
  palisade call plugins/word-counter count '{\"path\": \"/srv/texts\"}' --grant 'fs.read:/srv/texts/**'
  echo '{\"words\": 12}' | palisade call plugins/markov-chatter say -
  palisade call plugins/spam-filter --command report -- --since monday
  palisade call add.wasm calc.add '{\"a\": 1, \"b\": 2}'      a component: its exported functions are tools")]
pub(crate) struct Call {
    #[command(flatten)]
    pub(crate) plugin: PluginArgs,
    #[command(flatten)]
    pub(crate) explain: native::Explain,
    /// The tool
    #[arg(required_unless_present = "command", conflicts_with = "command")]
    pub(crate) tool: Option<String>,
    /// Its arguments, a JSON object; `-` reads them from stdin
    #[arg(value_name = "JSON", default_value = "{}")]
    pub(crate) arguments: String,
    /// Run this command instead of a tool
    #[arg(long, value_name = "NAME")]
    pub(crate) command: Option<String>,
    /// The command's arguments
    #[arg(last = true, value_name = "ARGS", requires = "command", conflicts_with = "tool")]
    pub(crate) command_args: Vec<String>,
    #[command(flatten)]
    pub(crate) remember: Remember,
    #[command(flatten)]
    pub(crate) audit: Audit,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Validate a plugin; show what it asks for, what this machine can enforce, and what is missing
///
/// With a file in place of a folder: what a WebAssembly component imports, the right that each import takes, and the
/// functions that it could offer as tools. Nothing of the plugin or the component runs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade check plugins/word-counter
  palisade check plugins/word-counter --grant 'fs.read:/srv/texts/**' --json
  palisade check FILE.wasm

Exit status: 0 if it could be started here once its rights are granted; 2 if the manifest is not valid, or a component
imports what is not provided or what its manifest does not ask for; 3 if the policy forbids what it needs; 4 if no
backend here covers the demand.")]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) plugin: PluginArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Show what this machine can enforce, why not, and the command that would fix it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade doctor
  palisade doctor --seccomp python           what the filter of Python plugins lets through
  sudo install -D \"$(palisade doctor --extract-helper)\" /usr/libexec/palisade/palisade-helper")]
pub(crate) struct Doctor {
    /// Print what a system call profile answers to each call
    #[arg(long, value_name = "PROFILE", value_parser = profiles())]
    pub(crate) seccomp: Option<String>,
    /// Write the helper to a new private folder and print its path, to install it
    #[arg(long, conflicts_with_all = ["seccomp", "json"])]
    pub(crate) extract_helper: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The names of system call profiles, for checking and for completion.
fn profiles() -> PossibleValuesParser {
    let value = |p: Profile| clap::builder::PossibleValue::new(p.name()).help(p.about());
    PossibleValuesParser::new(Profile::ALL.map(value))
}

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade completions bash > ~/.local/share/bash-completion/completions/palisade
  palisade completions fish > ~/.config/fish/completions/palisade.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Write the manual pages into a folder
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The folder; created if it does not exist
    pub(crate) folder: PathBuf,
}

/// What concerns one plugin.
#[derive(Debug, Args)]
pub(crate) struct PluginArgs {
    /// The plugin's folder; or a WebAssembly component, FILE.wasm
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// Grant a capability, `kind:scope`, for this run; may be given several times. A path may be relative
    #[arg(long, value_name = "CAP")]
    pub(crate) grant: Vec<String>,
    /// Grant everything that the manifest asks for, for this run
    #[arg(long)]
    pub(crate) grant_all: bool,
    /// The plugin's configuration, a JSON file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The operator's policy, a TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Where grants and the plugins' data are kept [default: PALISADE_STATE_DIR, else /var/lib/palisade for root and
    /// ~/.local/state/palisade]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) backend: Backend,
}

#[derive(Debug, Args)]
pub(crate) struct Backend {
    /// Use this backend or none [default: the cheapest that covers the demand]
    #[arg(long = "backend", value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Remember {
    /// Remember what --grant and --grant-all grant, until the manifest changes
    #[arg(long)]
    pub(crate) remember: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Append the record of everything that is asked to this file, as JSON lines
    #[arg(long = "audit", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Print JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_pages_are_as_reviewed() {
        let mut command = Cli::command().term_width(100);
        command.build();
        insta::assert_snapshot!("help-palisade", command.render_long_help().to_string());
        let names: Vec<String> = command
            .get_subcommands()
            .map(|c| c.get_name().to_owned())
            .filter(|n| n != "help")
            .collect();
        for name in names {
            let help = command.find_subcommand_mut(&name).unwrap().render_long_help().to_string();
            insta::assert_snapshot!(format!("help-{name}"), help);
        }
    }
}
