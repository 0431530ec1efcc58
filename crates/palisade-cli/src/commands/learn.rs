//! `palisade learn`: run something within a ceiling, watch what it uses, draft the smallest manifest.

mod ceiling;
mod command;
mod draft;
mod folder;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use palisade_audit::{MemoryRecorder, Record};
use palisade_host::{Control, Host, LoadOptions, Plugin};
use palisade_learn::{Seen, Tally};
use palisade_manifest::{Manifest, Syntax};
use palisade_model::{Capability, CapabilitySet, ErrorCode, Failure, Origin};
use serde_json::{Value, json};

use crate::{
    cli::Backend,
    commands::{explain, run::Interrupts},
    logs::Printer,
    session::{self, shown},
    terminal::{self, Paint},
    trouble::Trouble,
};

/// Records that are kept while it learns.
const RECORDS: usize = 100_000;

/// Run a plugin or a command, and draft the smallest manifest that allows what it did
///
/// It runs behind walls, within a ceiling that you give: --read, --write, --net, --env, --grant. What it uses of
/// that is drafted; what it tries beyond is refused, told, and drafted as a comment. Without --read and --write it
/// may read the current folder. What it keeps in /data is thrown away. Reading an environment variable is no system
/// call and cannot be seen: only what --env names is drafted.
#[derive(Debug, clap::Args)]
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

/// What a run showed.
pub(crate) struct Learned {
    /// The manifest without its capabilities.
    pub(crate) base: Value,
    pub(crate) ceiling: CapabilitySet,
    /// What the manifest asks for already.
    pub(crate) asked: Vec<Capability>,
    pub(crate) seen: Seen,
    pub(crate) records: Vec<Record>,
    /// Each variable of the ceiling, and whether its name stands in the plugin's files; `None` where there
    /// are none to look at.
    pub(crate) variables: Vec<(String, Option<bool>)>,
    /// What was shown of the machine besides: the command's own code.
    pub(crate) shown: Vec<PathBuf>,
    /// What else there is to say.
    pub(crate) notes: Vec<String>,
    /// Why it did not end well.
    pub(crate) trouble: Option<Trouble>,
}

/// Runs the command.
pub(crate) async fn learn(args: &Learn) -> Result<(), Trouble> {
    // Before anything runs: nothing is worse than a run that cannot be written down.
    let mut out = match &args.out {
        Some(path) => Some(fs::File::create_new(path).map_err(|error| {
            Trouble::usage(format!("the draft {} cannot be written: {error}", shown(path)))
        })?),
        None => None,
    };
    let learned = run(args).await;
    let learned = match learned {
        Ok(learned) => learned,
        Err(trouble) => {
            if let (Some(_), Some(path)) = (&out, &args.out) {
                // It is empty, and ours.
                let _ = fs::remove_file(path);
            }
            return Err(trouble);
        }
    };
    let refused = explain::refused(&learned.seen);
    let draft = draft::draft(&learned, &refused);
    let text = draft.to_yaml();
    terminal::err(explain::text(&refused, &learned.seen, None, Paint::stderr()));
    match &mut out {
        Some(file) => {
            file.write_all(text.as_bytes()).and_then(|()| file.flush()).map_err(|error| {
                let path = args.out.as_deref().map(shown).unwrap_or_default();
                Failure::new(ErrorCode::Internal, format!("the draft {path}: {error}"))
            })?;
            let path = args.out.as_deref().map(shown).unwrap_or_default();
            terminal::err(format_args!(
                "drafted {} right{} in {path}; each reason is still to be written",
                draft.rights.len(),
                if draft.rights.len() == 1 { "" } else { "s" },
            ));
        }
        None => terminal::out(text.trim_end()),
    }
    match learned.trouble {
        Some(trouble) => Err(trouble),
        None => Ok(()),
    }
}

async fn run(args: &Learn) -> Result<Learned, Trouble> {
    let ceiling = ceiling::of(args)?;
    let (printer, finish) = Printer::start(false)
        .map_err(|e| Failure::new(ErrorCode::Internal, format!("no thread can be started: {e}")))?;
    let learned = match &args.folder {
        Some(folder) => folder::learn(args, folder, ceiling, printer).await,
        None => command::learn(args, ceiling, printer).await,
    };
    finish.finish();
    learned
}

/// A host of its own that leaves nothing behind, with a plugin in it that may do everything within the
/// ceiling and is watched.
struct Stage {
    host: Host,
    plugin: Plugin,
    tally: Arc<Tally>,
    recorder: Arc<MemoryRecorder>,
    interrupts: Interrupts,
    _state: tempfile::TempDir,
}

impl Stage {
    async fn set(
        args: &Learn,
        manifest: Manifest,
        origin: Origin,
        root: &Path,
        options: LoadOptions,
        ceiling: &CapabilitySet,
        printer: Arc<Printer>,
    ) -> Result<Self, Trouble> {
        let internal = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(ErrorCode::Internal, format!("{what}: {error}"))
        };
        let state = tempfile::tempdir().map_err(|e| internal("a temporary folder", &e))?;
        let recorder = Arc::new(MemoryRecorder::new(RECORDS));
        let policy = match &args.policy {
            Some(path) => session::policy(path)?,
            None => palisade_policy::OperatorPolicy::default(),
        };
        let host = Host::builder()
            .policy(policy)
            .backends(palisade_process::backends())
            .state_dir(state.path().join("state"))
            .recorder(Arc::clone(&recorder) as _)
            .log_sink(printer)
            .build()
            .await?;
        let control: Control = host.control(session::operator());
        let mut options = options;
        if let Some(name) = &args.backend.name {
            options = options.backend(name);
        }
        let plugin = control.load_manifest(manifest, origin, root, options).await?;
        let grants = palisade_host::GrantOptions::new().for_this_host();
        plugin.grant_requested_with(grants).await?;
        let tally = Arc::new(Tally::within(ceiling.clone()));
        plugin.observe(Arc::clone(&tally) as _)?;
        Ok(Self { host, plugin, tally, recorder, interrupts: Interrupts::new(), _state: state })
    }

    /// Ends what runs, and gives what was seen.
    async fn strike(self) -> (Seen, Vec<Record>, Result<(), Failure>) {
        let ended = self.host.shutdown().await;
        (self.tally.seen(), self.recorder.records(), ended)
    }
}

/// A manifest that asks for all of the ceiling, made from one that is finished but for that.
fn within_ceiling(
    base: &Value,
    ceiling: &CapabilitySet,
    besides: &[Capability],
) -> Result<Manifest, Trouble> {
    let asked: CapabilitySet = ceiling.iter().chain(besides).cloned().collect();
    let required: Vec<Value> = asked
        .iter()
        .map(|right| json!({ "capability": right.to_string(), "reason": "The ceiling of palisade learn." }))
        .collect();
    let mut whole = base.clone();
    if let Some(map) = whole.as_object_mut() {
        map.insert("capabilities".into(), json!({ "required": required }));
    }
    palisade_manifest::parse(&whole.to_string(), Syntax::Json)
        .map_err(|error| palisade_host::HostError::from(error).into())
}
