//! The server itself: found, walled, granted, and relayed to the client.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use palisade_broker::Caller;
use palisade_commands::{Context, Start, resolve};
use palisade_host::{Conversation, ConverseOptions, GrantOptions, LoadOptions, Plugin};
use palisade_manifest::{Entry, Manifest, Program};
use palisade_mcp::{Ended, FilePins, Options, Relay, Report};
use palisade_model::{
    Access, Capability, CapabilitySet, ErrorCode, Failure, Kind, Limits, Origin, text::escape,
};
use palisade_policy::OperatorPolicy;
use palisade_sandbox::{Exit, Resolver, stream::End};
use palisade_services::log::{LogStream, output_line};
use tokio::sync::watch;

use super::{made, pins};
use crate::{
    cli::native::Serve,
    commands::explain::Explaining,
    grant,
    logs::Printer,
    platform::interrupts::Interrupts,
    session::{self, Session},
    terminal::Paint,
    trouble::{Trouble, failure_text},
};

/// A server that ends sooner than this has most likely not found what it needs.
const EARLY: Duration = Duration::from_secs(10);
/// How long a client that does not read stderr is waited for at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Where a server keeps what it writes, inside.
const HOME_INSIDE: &str = "/data";

/// What the command line says beside the command.
struct Wanted {
    granted: Vec<Capability>,
    secrets: Vec<(String, String)>,
    /// Patterns of tools; empty where all are meant.
    tools: Vec<Capability>,
}

impl Wanted {
    fn read(args: &Serve) -> Result<Self, Trouble> {
        let here = std::env::current_dir()
            .map_err(|e| Trouble::usage(format!("the current folder cannot be named: {e}")))?;
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|p| p.is_absolute());
        let (mut granted, mut tools, mut secrets) = (Vec::new(), Vec::new(), Vec::new());
        for text in &args.grant {
            let capability = grant::parse(text, &here, home.as_deref())?;
            let list = if capability.kind() == Kind::Tool { &mut tools } else { &mut granted };
            list.push(capability);
        }
        for name in &args.tool {
            tools.push(
                Capability::new(Kind::Tool, name)
                    .map_err(|e| Trouble::usage(format!("--tool {}: {e}", escape(name, 80))))?,
            );
        }
        for text in &args.secret {
            let bad = || {
                Trouble::usage(format!("--secret {} is not ENV=NAME", escape(text, 80)))
                    .hint("palisade secret list shows the names")
            };
            let (variable, name) = text.split_once('=').ok_or_else(bad)?;
            granted.push(Capability::new(Kind::Secret, name).map_err(|_| bad())?);
            secrets.push((variable.to_owned(), name.to_owned()));
        }
        Ok(Self { granted, secrets, tools })
    }

    /// The first folder that is granted, where the server is started.
    fn folder(&self) -> Option<String> {
        let files = |c: &&Capability| matches!(c.kind(), Kind::FsRead | Kind::FsWrite);
        let paths = self.granted.iter().filter(files).filter_map(Capability::path);
        let mut real = paths.filter_map(|p| Path::new(p.path()).canonicalize().ok());
        real.find(|p| p.is_dir()).and_then(|p| p.to_str().map(str::to_owned))
    }
}

/// Prints a line of Palisade's own, behind the server's.
fn say(printer: &Printer, text: &str) {
    printer.send(format!("{} {text}", Paint::stderr().dim("palisade |")));
}

/// Tells people on stderr.
struct Stderr {
    printer: Arc<Printer>,
    server: Arc<Caller>,
}

impl Report for Stderr {
    fn stray(&self, line: &str) {
        let _ = output_line(&self.server, &*self.printer, LogStream::Stdout, line);
    }

    fn notice(&self, text: &str) {
        say(&self.printer, text);
    }
}

/// The package client's words, while a package is fetched.
struct Fetching(Arc<Printer>);

impl resolve::Watch for Fetching {
    fn line(&self, line: &str) {
        say(&self.0, line);
    }
}

/// Runs the server until the client closes, or it ends.
pub(crate) async fn serve(args: &Serve) -> Result<(), Trouble> {
    let (printer, finish) = Printer::start(false)
        .map_err(|e| Failure::new(ErrorCode::Internal, format!("no thread can be started: {e}")))?;
    let result = relayed(args, &printer).await;
    // Through the printer: a client that does not read stderr must not keep this command from ending.
    let result = result.map_err(|trouble| match trouble {
        Trouble::Failure(failure) => {
            say(&printer, &failure_text(&failure, Paint::stderr()));
            Trouble::Said(failure.code.exit_status())
        }
        other => other,
    });
    let finished = tokio::task::spawn_blocking(move || finish.finish());
    let _ = tokio::time::timeout(LAST_WORDS, finished).await;
    result
}

async fn relayed(args: &Serve, printer: &Arc<Printer>) -> Result<(), Trouble> {
    let wanted = Wanted::read(args)?;
    let policy = match &args.policy {
        Some(path) => session::policy(path)?,
        None => OperatorPolicy::default(),
    };
    let mut interrupts = Interrupts::new();
    let backends = palisade_process::backends();
    let start = async {
        if args.command.is_empty() {
            return Ok(None);
        }
        found(&args.command, args.refresh, printer, &backends).await.map(Some)
    };
    // What the walls can do here takes a while to find out, and so does opening the store.
    let probe = async {
        let name = args.backend.name.as_deref();
        if let Some(first) = backends.iter().find(|b| name.is_none_or(|name| b.name() == name)) {
            first.probe().await;
        }
    };
    let sink = Arc::clone(printer);
    let open = Session::open_with(
        backends.clone(),
        args.state_dir.as_deref(),
        policy.clone(),
        args.audit.file.as_deref(),
        Some(sink as _),
    );
    let (session, start) = tokio::select! {
        all = async { tokio::join!(open, start, probe) } => (all.0?, all.1?),
        () = interrupts.next() => return Err(Failure::new(ErrorCode::Cancelled, "interrupted").into()),
    };
    let mut wanted = wanted;
    if let (Some(start), None) = (&start, &args.manifest) {
        // What it is known to run; behind the same walls that can do no more than the server itself.
        let programs = start.programs.iter().filter_map(|path| path.to_str());
        wanted.granted.extend(programs.filter_map(|path| Capability::new(Kind::Exec, path).ok()));
    }
    let plugin = load(args, &session, &policy, &wanted, start.as_ref()).await?;
    let options = GrantOptions::new().for_this_host();
    for capability in &wanted.granted {
        plugin.grant_with(capability.clone(), options).await?;
    }
    if args.grant_all {
        plugin.grant_requested_with(options).await?;
    }
    let offered = offered(args, &plugin, &wanted)?;
    let explaining = Explaining::of(&args.explain, &plugin, args.manifest.is_some())?;
    let conversation = tokio::select! {
        conversation = plugin.converse(ConverseOptions::new().offered(offered)) => {
            conversation.inspect_err(|_| explaining.tell(false))?
        }
        () = interrupts.next() => return Err(Failure::new(ErrorCode::Cancelled, "interrupted").into()),
    };
    let ended =
        converse(args, printer, &session, conversation, start.as_ref(), &mut interrupts).await;
    // A second interruption does not wait for a server that takes its time.
    let stopped = tokio::select! {
        stopped = session.host.shutdown() => stopped,
        () = interrupts.next() => plugin.kill().await,
    };
    explaining.tell(false);
    ended?;
    Ok(stopped?)
}

/// What the command line starts; fetched first, where it names a package; again, where `refresh` says so.
pub(crate) async fn found(
    argv: &[String],
    refresh: bool,
    printer: &Arc<Printer>,
    backends: &[Arc<dyn palisade_sandbox::Backend>],
) -> Result<Start, Trouble> {
    let context = Context::of_process();
    let command = palisade_commands::analyse(argv, &context).map_err(Failure::from)?;
    let package = match command {
        palisade_commands::Command::Installed(start) => return Ok(start),
        palisade_commands::Command::Package(package) => package,
        _ => return Err(Trouble::usage("this command is not understood")),
    };
    let cache = resolve::default_cache(&context).map_err(Failure::from)?;
    let mut options = resolve::Options::new(cache, Resolver::new(backends.to_vec()));
    options.refresh = refresh;
    let watch = Arc::new(Fetching(Arc::clone(printer)));
    let start = resolve::resolve(&package, &context, &options, watch).await;
    Ok(start.map_err(Failure::from)?)
}

async fn load(
    args: &Serve,
    session: &Session,
    policy: &OperatorPolicy,
    wanted: &Wanted,
    start: Option<&Start>,
) -> Result<Plugin, Trouble> {
    let mut options = LoadOptions::new();
    if let Some(name) = &args.backend.name {
        options = options.backend(name);
    }
    for (variable, secret) in &wanted.secrets {
        options = options.secret_env(variable, secret);
    }
    if let Some(start) = start {
        options = options.code(start.code.iter().cloned());
        for (name, value) in &start.env {
            options = options.env(name, value);
        }
        options = options.workdir(wanted.folder().unwrap_or_else(|| HOME_INSIDE.to_owned()));
    }
    let Some(file) = &args.manifest else {
        let start = start.ok_or_else(|| Trouble::usage("there is no command"))?;
        let limits = Limits {
            memory: args.memory.unwrap_or(made::limits(policy.ceilings()).memory),
            ..made::limits(policy.ceilings())
        };
        let manifest = made::manifest(start, &wanted.granted, &limits)
            .map_err(palisade_host::HostError::from)?;
        return by_manifest(session, manifest, &start.identity, None, options).await;
    };
    let mut manifest = read_manifest(file)?;
    if let Some(memory) = args.memory {
        manifest.resources.memory = Some(memory);
    }
    match start {
        None => {
            let root = folder_of(file)?;
            let is_plugin = args.memory.is_none()
                && palisade_manifest::FILE_NAMES.iter().any(|(name, _)| file.ends_with(name));
            if is_plugin || file.is_dir() {
                return Ok(session.control.load(&root, options).await?);
            }
            let identity = real(file)?;
            by_manifest(session, manifest, &identity, Some(&root), options).await
        }
        Some(start) => {
            manifest.entry = Entry::Mcp {
                command: Program::Absolute(start.program.file.clone()),
                args: start.program.args.clone(),
            };
            by_manifest(session, manifest, &start.identity, None, options).await
        }
    }
}

async fn by_manifest(
    session: &Session,
    manifest: Manifest,
    identity: &str,
    root: Option<&Path>,
    options: LoadOptions,
) -> Result<Plugin, Trouble> {
    let root = match root {
        Some(root) => root.to_owned(),
        None => empty_folder(session.host.state_dir())?,
    };
    let origin = Origin::Command { path: identity.to_owned() };
    Ok(session.control.load_manifest(manifest, origin, root, options).await?)
}

/// The folder that a server sees as its own: there is nothing in it.
fn empty_folder(state_dir: &Path) -> Result<PathBuf, Trouble> {
    let folder = state_dir.join("empty");
    std::fs::create_dir_all(&folder)
        .map_err(|e| Trouble::usage(format!("{}: {e}", session::shown(&folder))))?;
    Ok(folder)
}

fn real(path: &Path) -> Result<String, Trouble> {
    let real = path
        .canonicalize()
        .map_err(|e| Trouble::usage(format!("{}: {e}", session::shown(path))))?;
    let real = real.to_str().map(str::to_owned);
    real.ok_or_else(|| Trouble::usage(format!("{} is not UTF-8 text", session::shown(path))))
}

fn folder_of(file: &Path) -> Result<PathBuf, Trouble> {
    let path = PathBuf::from(real(file)?);
    if path.is_dir() {
        return Ok(path);
    }
    Ok(path.parent().map(Path::to_owned).unwrap_or(path))
}

pub(crate) fn read_manifest(file: &Path) -> Result<Manifest, Trouble> {
    let read = if file.is_dir() {
        palisade_manifest::open(file)
    } else {
        let syntax = match file.extension().and_then(|e| e.to_str()) {
            Some("toml") => palisade_manifest::Syntax::Toml,
            Some("json") => palisade_manifest::Syntax::Json,
            _ => palisade_manifest::Syntax::Yaml,
        };
        let bytes = session::read(file, palisade_manifest::MAX_BYTES as u64 + 1)?;
        palisade_manifest::parse_named(&bytes, syntax, &file.to_string_lossy())
    };
    Ok(read.map_err(palisade_host::HostError::from)?)
}

/// Which tools are offered besides those that the manifest declares.
fn offered(args: &Serve, plugin: &Plugin, wanted: &Wanted) -> Result<CapabilitySet, Trouble> {
    let declares = !plugin.manifest().contributes.tools.is_empty();
    if declares && !wanted.tools.is_empty() {
        return Err(Trouble::usage("the manifest says which tools there are")
            .hint("leave --tool out, or take contributes.tools out of the manifest"));
    }
    if declares && args.manifest.is_some() {
        return Ok(CapabilitySet::new());
    }
    if wanted.tools.is_empty() {
        let all = Capability::new(Kind::Tool, "*");
        return Ok(all.into_iter().collect());
    }
    Ok(wanted.tools.iter().cloned().collect())
}

/// Relays until one side ends.
async fn converse(
    args: &Serve,
    printer: &Arc<Printer>,
    session: &Session,
    conversation: Conversation,
    start: Option<&Start>,
    interrupts: &mut Interrupts,
) -> Result<(), Trouble> {
    let limits = &conversation.limits;
    // A manifest's own deadlines count; without one ours stand in the manifest that was made.
    let call_timeout = args.call_timeout.unwrap_or(limits.call_timeout);
    let options = Options {
        start_timeout: args.start_timeout.unwrap_or(limits.start_timeout),
        call_timeout,
        longest_call: Options::default().longest_call.max(call_timeout),
        ..Options::default()
    };
    let folder = pins::folder(session.host.state_dir());
    let pins = FilePins::new(&folder, conversation.plugin(), args.strict_pins);
    let server = Arc::clone(&conversation.server);
    let report = Stderr { printer: Arc::clone(printer), server: Arc::clone(&server) };
    let relay = Relay::new(
        conversation.gate.clone(),
        Arc::clone(&conversation.client),
        Arc::clone(&server),
        Arc::new(pins),
        Arc::new(report),
        options,
    );
    let begun = std::time::Instant::now();
    let (exited, exit) = watch::channel(None::<Exit>);
    let died = {
        let exit = conversation.exit();
        async move {
            let exit = exit.await;
            let failure = exit.to_failure();
            let _ = exited.send(Some(exit));
            failure
        }
    };
    let ends = conversation.ends;
    let client = (tokio::io::stdin(), tokio::io::stdout());
    let ended = relay.run(client, (ends.from, ends.to), interrupts.next(), died).await;
    let end = match &ended {
        Ended::Breach(failure) => End::Breach(failure.message.clone()),
        Ended::ServerEnded(_) => End::Closed,
        _ => End::Local,
    };
    let _ = ends.finished.send(end);
    let failure = match ended {
        Ended::ClientClosed | Ended::Stopped => return Ok(()),
        Ended::ServerEnded(_) if exit.borrow().as_ref().is_some_and(Exit::is_clean) => {
            return Ok(());
        }
        Ended::ServerEnded(failure) | Ended::Breach(failure) => failure,
    };
    let early = begun.elapsed() < EARLY;
    let hint = start.filter(|_| early).and_then(|start| early_hint(start, &server));
    Err(Failure { hint: hint.or(failure.hint.clone()), ..failure }.into())
}

/// What a server that ended at once most likely lacked.
fn early_hint(start: &Start, server: &Caller) -> Option<String> {
    let rights = server.rules()?;
    let sees = |path: &str| {
        let access = |kind| Access::new(kind, path);
        rights
            .rights()
            .iter()
            .any(|r| r.covers(&access(Kind::FsRead)) || r.covers(&access(Kind::FsWrite)))
    };
    let mut lines: Vec<String> = Vec::new();
    for path in start.paths.iter().filter(|path| path.exists) {
        let Ok(real) = path.path.canonicalize() else { continue };
        let Some(text) = real.to_str() else { continue };
        // What is shown as software is seen already.
        if sees(text) || start.code.iter().any(|code| real.starts_with(code)) {
            continue;
        }
        let scope = if path.folder { format!("{text}/**") } else { text.to_owned() };
        let option = Capability::new(Kind::FsRead, &scope)
            .ok()
            .and_then(|c| palisade_policy::grant_option(&c));
        if let Some(option) = option {
            lines.push(format!("{} is not granted; grant it with {option}", escape(text, 200)));
        }
    }
    lines.extend(start.notes.iter().cloned());
    (!lines.is_empty()).then(|| lines.join("\n"))
}
