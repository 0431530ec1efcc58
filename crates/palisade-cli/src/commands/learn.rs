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
    cli::native::Learn,
    commands::explain,
    logs::Printer,
    platform::interrupts::Interrupts,
    session::{self, shown},
    terminal::{self, Paint},
    trouble::Trouble,
};

/// Records that are kept while it learns.
const RECORDS: usize = 100_000;

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
