//! The resolve step: from a package's name to a tree in the cache that can be started without network.
//!
//! The package client (npm, uv or pip) runs behind walls of its own. It sees itself, an empty folder, and
//! a configuration made for it; it reaches the registries that it is configured with, through the guard,
//! and nothing else; install scripts and builds are off. The server never shares anything with it: not its
//! tokens, not its network, not its folder.

mod copy;
mod indexes;
mod job;
mod npm;
mod npmrc;
mod page;
mod pypi;
mod reach;
mod scripts;
mod store;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_egress::{Authority, Entry};
use palisade_model::Limits;
use palisade_sandbox::{Program, Resolver, Runtime, slots};

use crate::{
    CommandError, Context, Package, Start, Tool, analyse::utf8, companions, start::path_arguments,
};

pub use store::default_cache;

/// Told what happens while a package is fetched.
pub trait Watch: Send + Sync {
    /// A line of the package client, escaped, at most 500 characters.
    fn line(&self, line: &str);

    /// One decision of the guard about where the client may go, or the end of a connection.
    fn egress(&self, entry: &Entry<'_>) {
        let _ = entry;
    }
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Watch for Quiet {
    fn line(&self, _line: &str) {}
}

/// How packages are fetched.
#[derive(Clone)]
pub struct Options {
    /// The cache's folder; see [`default_cache`].
    pub cache: PathBuf,
    /// Where the client may run.
    pub walls: Resolver,
    /// Resolve again, even where the cache has an answer.
    pub refresh: bool,
    /// Servers that the client may reach beside its registries, where those keep their files elsewhere.
    pub more_hosts: Vec<Authority>,
    /// How long everything may take, waiting for another process that does the same included.
    pub deadline: Duration,
    /// What each program of the client may use.
    pub limits: Limits,
    /// The number from which the client's user is derived where plugins have users of their own; see
    /// [`palisade_sandbox::LaunchSpec::slot`].
    pub slot: u32,
}

impl Options {
    /// Ten minutes, 2 GiB of memory, 4 GiB of files, the last but one of the slots.
    #[must_use]
    pub fn new(cache: PathBuf, walls: Resolver) -> Self {
        let limits = Limits {
            cpu: 4.0,
            memory: 2 << 30,
            pids: 256,
            files: 4096,
            disk: 4 << 30,
            start_timeout: Duration::from_secs(30),
            ..Limits::default()
        };
        Self {
            cache,
            walls,
            refresh: false,
            more_hosts: Vec::new(),
            deadline: Duration::from_secs(600),
            limits,
            slot: slots::RESOLVING,
        }
    }
}

/// A request with everything that can change what it comes to.
struct Request<'a> {
    package: &'a Package,
    context: &'a Context,
    options: &'a Options,
    watch: Arc<dyn Watch>,
    deadline: Instant,
}

/// The client that does the work, found and configured.
enum Client {
    Npm(npm::Npm),
    Pypi(pypi::Pypi),
}

impl Client {
    fn find(package: &Package, context: &Context) -> Result<Self, CommandError> {
        Ok(match package.tool {
            Tool::Npm => Self::Npm(npm::Npm::find(package, context)?),
            Tool::Pypi => Self::Pypi(pypi::Pypi::find(package, context)?),
        })
    }

    fn key(&self, package: &Package) -> String {
        let own = match self {
            Self::Npm(npm) => npm.key_parts(),
            Self::Pypi(pypi) => pypi.key_parts(),
        };
        let mut parts = vec![
            format!("format {}", store::FORMAT),
            package.tool.to_string(),
            std::env::consts::ARCH.to_owned(),
            format!("scripts {}", package.skip_scripts),
            format!("command {}", package.command.as_deref().unwrap_or_default()),
        ];
        parts.extend(package.specs.iter().map(|spec| format!("spec {}", spec.request)));
        parts.extend(own);
        store::key(&parts.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// What a command starts, where the cache has it: reads a few small files, runs nothing and reaches
/// nothing. `None`: [`resolve`] must be asked.
///
/// # Errors
/// As [`resolve`], where the package client or its configuration cannot be used.
pub fn cached(
    package: &Package,
    context: &Context,
    options: &Options,
) -> Result<Option<Start>, CommandError> {
    if options.refresh {
        return Ok(None);
    }
    let client = Client::find(package, context)?;
    let store = store::Store::at(&options.cache);
    let found = store.find(&client.key(package));
    found.map(|entry| start(&entry, &store, &client, package, context)).transpose()
}

/// What a package's command starts: from the cache, or after it was fetched. Two requests for the same at
/// one time, of any processes, fetch once.
///
/// # Errors
/// [`CommandError::NeedsScripts`] where it cannot be installed without running what it brings,
/// [`CommandError::Install`] with the client's last words, and those of walls, registry and cache.
pub async fn resolve(
    package: &Package,
    context: &Context,
    options: &Options,
    watch: Arc<dyn Watch>,
) -> Result<Start, CommandError> {
    if let Some(start) = cached(package, context, options)? {
        return Ok(start);
    }
    let client = Client::find(package, context)?;
    let store = store::Store::at(&options.cache);
    store.make()?;
    let key = client.key(package);
    let deadline = job::until(options);
    let begun = std::time::SystemTime::now();
    let held = {
        let (store, key) = (store.clone(), key.clone());
        tokio::task::spawn_blocking(move || store.hold(&key, deadline))
            .await
            .unwrap_or_else(|e| Err(std::io::Error::other(e)))
    };
    let lock = held.map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => {
            CommandError::Deadline { package: package.shown(), seconds: options.deadline.as_secs() }
        }
        _ => CommandError::cache("waiting for another process that fetches the same", e),
    })?;
    // Somebody else may have done it in the meantime; what is newer than the wish to refresh is fresh.
    let entry = match store.find(&key).filter(|_| !options.refresh || store.is_newer(&key, begun)) {
        Some(entry) => entry,
        None => {
            let request = Request { package, context, options, watch, deadline };
            match &client {
                Client::Npm(npm) => npm.install(&request, &store, &key).await?,
                Client::Pypi(pypi) => pypi.install(&request, &store, &key).await?,
            }
        }
    };
    drop(lock);
    start(&entry, &store, &client, package, context)
}

/// Whether what the cache keeps for a package is still, byte for byte, what was put there. `None`: it
/// keeps nothing for it. Reads all of it.
///
/// # Errors
/// As [`cached`], and where it cannot be read.
pub fn verify(
    package: &Package,
    context: &Context,
    options: &Options,
) -> Result<Option<bool>, CommandError> {
    let client = Client::find(package, context)?;
    let store = store::Store::at(&options.cache);
    let Some(entry) = store.find(&client.key(package)) else { return Ok(None) };
    let whole = store.is_whole(&entry.digest);
    whole.map(Some).map_err(|e| CommandError::cache("reading the cache", e))
}

fn start(
    entry: &store::Entry,
    store: &store::Store,
    client: &Client,
    package: &Package,
    context: &Context,
) -> Result<Start, CommandError> {
    let tree = store.tree(&entry.digest);
    let tree = tree.canonicalize().map_err(|e| CommandError::cache("finding the package", e))?;
    let inside = |relative: &str| utf8(&tree.join(relative));
    let (file, mut args) = match (&entry.launch, client) {
        (store::Launch::Node { flags, script }, Client::Npm(npm)) => {
            let mut args = flags.clone();
            args.push(inside(script)?);
            (utf8(&npm.node)?, args)
        }
        (store::Launch::Python { script }, _) => (inside("bin/python3")?, vec![inside(script)?]),
        (store::Launch::Program { file } | store::Launch::Node { script: file, .. }, _) => {
            (inside(file)?, Vec::new())
        }
    };
    args.extend(package.args.iter().cloned());
    let mut env = package.env.clone();
    let mut code = vec![tree.clone()];
    if let store::Launch::Node { script, .. } = &entry.launch {
        companions::set_data(&tree.join(script), &mut env);
        code.extend(crate::node::run_by(Path::new(script), &package.args, context));
    }
    let folders =
        [tree.join("node_modules"), tree.join(entry.site.as_deref().unwrap_or("node_modules"))];
    Ok(Start {
        program: Program { runtime: Runtime::Native, file, args },
        code: crate::node::outermost(code),
        programs: companions::of(folders.iter().map(PathBuf::as_path), context),
        env,
        identity: package.identity(),
        paths: path_arguments(&package.args, context),
        notes: entry.notes.clone(),
    })
}

/// The client's words about what went wrong, for people.
fn last_words(lines: &[String]) -> String {
    let telling: Vec<&str> = lines
        .iter()
        .map(String::as_str)
        .filter(|line| {
            let lower = line.to_ascii_lowercase();
            lower.contains("err") || lower.contains("because") || lower.contains("not found")
        })
        .collect();
    let chosen: Vec<&str> = if telling.is_empty() {
        lines.iter().rev().take(3).rev().map(String::as_str).collect()
    } else {
        telling.into_iter().take(6).collect()
    };
    palisade_model::text::escape(&chosen.join("; "), 900)
}

/// Environment from pairs.
fn env<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The hint where the machine itself reaches the network through a proxy only.
fn network_hint(context: &Context) -> String {
    let proxied =
        ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    if proxied.iter().any(|name| context.var(name).is_some()) {
        "this machine's environment names a proxy, which the resolve step does not go through; install the package yourself and name its program".into()
    } else {
        "check the package's name and version, and whether the registry answers".into()
    }
}

fn parent(path: &Path, times: usize) -> Option<&Path> {
    path.ancestors().nth(times)
}
