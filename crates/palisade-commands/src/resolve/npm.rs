//! npm as the one who fetches.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_model::text::escape;
use serde_json::{Value, json};

use super::{
    Quiet, Request,
    copy::Copier,
    env,
    job::Job,
    last_words, network_hint, npmrc, parent,
    reach::Reach,
    store::{Entry, FORMAT, Launch, Store},
};
use crate::{
    CommandError, Context, Package,
    node::read_manifest,
    packages::bin_of,
    script::{Head, head},
};

/// Scripts that npm runs at an installation.
const SCRIPTS: [&str; 3] = ["preinstall", "install", "postinstall"];
/// Words of install scripts that do nothing that the package needs.
const HARMLESS: [&str; 9] = [
    "echo ",
    "husky",
    "patch-package",
    "opencollective",
    "is-ci",
    "only-allow",
    "true",
    "exit 0",
    "node -e \"console.log",
];

/// How long a package may take to show that it misses something.
const TRIAL: Duration = Duration::from_secs(10);
/// Words of programs that miss a file, a module or a program.
const MISSING: [&str; 8] = [
    "cannot find",
    "module_not_found",
    "enoent",
    "no such file",
    "not found",
    "not installed",
    "could not locate",
    "postinstall",
];

/// npm, and how it is configured.
pub(super) struct Npm {
    pub(super) node: PathBuf,
    /// npm's own folder.
    root: PathBuf,
    npmrc: npmrc::Npmrc,
}

impl Npm {
    pub(super) fn find(package: &Package, context: &Context) -> Result<Self, CommandError> {
        let programs = context.programs();
        let missing = |_| {
            CommandError::not_found(
                "npm packages need Node.js, and no node is found in PATH",
                "install Node.js with npm",
            )
        };
        let node = programs.node("node").map_err(missing)?;
        let real_node = node.canonicalize().unwrap_or_else(|_| node.clone());
        let found = programs.any("npm").ok().and_then(|npm| npm.canonicalize().ok());
        let beside = parent(&real_node, 2).map(|prefix| prefix.join("lib/node_modules/npm"));
        let root = found
            .as_deref()
            .and_then(|npm| parent(npm, 2))
            .map(Path::to_path_buf)
            .into_iter()
            .chain(beside)
            .chain([PathBuf::from("/usr/share/nodejs/npm")])
            .find(|root| root.join("bin/npm-cli.js").is_file())
            .ok_or_else(|| {
                CommandError::not_found(
                    "npm itself is not found beside node",
                    "install npm, and put its folder in PATH",
                )
            })?;
        let npmrc = npmrc::read(context, &node, &root, package.registry.as_deref())?;
        Ok(Self { node, root, npmrc })
    }

    pub(super) fn key_parts(&self) -> Vec<String> {
        let scopes = self.npmrc.text.lines().filter(|line| line.starts_with('@'));
        let mut parts: Vec<String> = scopes.map(str::to_owned).collect();
        parts.push(format!("registry {}", self.npmrc.registry));
        parts.push(format!("node {}", self.node.display()));
        parts
    }

    pub(super) async fn install(
        &self,
        request: &Request<'_>,
        store: &Store,
        key: &str,
    ) -> Result<Entry, CommandError> {
        let package = request.package;
        let work = store.work()?;
        let step = |what: &'static str| move |e: std::io::Error| CommandError::cache(what, e);
        let root = work.path().canonicalize().map_err(step("finding the job's folder"))?;
        let (input, data, staged) = (root.join("input"), root.join("data"), root.join("tree"));
        for folder in [&input, &data] {
            fs::create_dir_all(folder).map_err(step("making the job's folders"))?;
        }
        readable(&input).map_err(step("making the job's folders"))?;
        let write = |path: PathBuf, text: &[u8]| {
            fs::write(&path, text)
                .and_then(|()| readable(&path))
                .map_err(step("writing the job's configuration"))
        };
        write(input.join("npmrc"), self.npmrc.text.as_bytes())?;
        let known = store.lock_file(key).filter(|_| !request.options.refresh);
        let locked = known.as_deref().and_then(|text| serde_json::from_slice::<Value>(text).ok());
        let dependencies: BTreeMap<&str, &str> = package
            .specs
            .iter()
            .map(|spec| {
                let version = spec.request.get(spec.name.len() + 1..).unwrap_or("*");
                (spec.name.as_str(), if version.is_empty() { "*" } else { version })
            })
            .collect();
        let mut args = vec![format!("{}/bin/npm-cli.js", self.root.display())];
        match &locked {
            Some(lock) => {
                // The same packages as the first time, by their digests.
                let root = lock.get("packages").and_then(|p| p.get(""));
                let wanted = root
                    .and_then(|r| r.get("dependencies"))
                    .cloned()
                    .unwrap_or(json!(dependencies));
                let manifest = json!({"name": "run", "private": true, "dependencies": wanted});
                write(input.join("package.json"), manifest.to_string().as_bytes())?;
                write(input.join("package-lock.json"), lock.to_string().as_bytes())?;
                args.push("ci".into());
            }
            None => {
                write(input.join("package.json"), br#"{"name":"run","private":true}"#)?;
                args.push("install".into());
                args.extend(package.specs.iter().map(|spec| spec.request.clone()));
            }
        }
        for name in ["package.json", "package-lock.json"] {
            let from = input.join(name);
            if from.is_file() {
                // The job's own copies: npm writes to them. Its user is another where Palisade is root.
                fs::copy(&from, data.join(name))
                    .map_err(step("writing the job's configuration"))?;
                fs::set_permissions(
                    data.join(name),
                    std::os::unix::fs::PermissionsExt::from_mode(0o666),
                )
                .map_err(step("writing the job's configuration"))?;
            }
        }
        args.extend(
            [
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--no-update-notifier",
                "--omit=dev",
                "--loglevel=warn",
                "--no-progress",
            ]
            .map(str::to_owned),
        );
        let mut variables = env([
            ("npm_config_userconfig", "/plugin/npmrc".into()),
            ("npm_config_globalconfig", "/plugin/none".into()),
            ("npm_config_cache", "/data/.npm".into()),
            ("npm_config_logs_max", "0".into()),
        ]);
        let mut code = vec![self.root.clone()];
        code.extend(self.npmrc.files.iter().cloned());
        if let Some(file) = request.context.var("NODE_EXTRA_CA_CERTS")
            && let Ok(real) = Path::new(file).canonicalize()
        {
            variables.insert("NODE_EXTRA_CA_CERTS".into(), real.to_string_lossy().into_owned());
            code.push(real);
        }
        let mut authorities = self.npmrc.authorities.clone();
        authorities.extend(request.options.more_hosts.iter().cloned());
        let reach = Arc::new(Reach::new(authorities, Arc::clone(&request.watch)));
        let job = Job {
            package: &package.shown(),
            program: &self.node,
            args,
            code,
            env: variables,
            input: &input,
            data: &data,
            reach: Some(Arc::clone(&reach)),
            programs: Vec::new(),
            deadline: request.deadline,
        };
        let outcome = job.run(request.options, Arc::clone(&request.watch)).await?;
        if !outcome.exit.is_clean() {
            let hint = reach.hint().unwrap_or_else(|| network_hint(request.context));
            return Err(self.failed(package, hint, &outcome.exit.to_string(), &outcome.lines));
        }
        let lock =
            fs::read(data.join("package-lock.json")).map_err(step("reading npm's lock file"))?;
        let modules = staged.join("node_modules");
        fs::create_dir_all(&staged).map_err(step("taking over what npm installed"))?;
        Copier::new()
            .folder(&data.join("node_modules"), &modules, &[])
            .map_err(step("taking over what npm installed"))?;
        // Tells what the tree is to whoever looks, and to packages that look for their project.
        fs::write(staged.join("package.json"), br#"{"name":"run","private":true}"#)
            .map_err(step("taking over what npm installed"))?;
        let parsed: Value = serde_json::from_slice(&lock).unwrap_or_default();
        let Skipped { notes, doubtful } = skipped(request, &parsed, &modules)?;
        let launch = launch(package, &staged)?;
        if let (Some(doubtful), Launch::Node { flags, script }) = (doubtful, &launch) {
            let args =
                flags.iter().cloned().chain([staged.join(script).to_string_lossy().into_owned()]);
            self.try_out(request, &root, &staged, args.collect(), doubtful).await?;
        }
        let entry = Entry {
            format: FORMAT,
            request: package.shown(),
            digest: String::new(),
            launch,
            site: None,
            packages: versions(&parsed),
            notes,
        };
        store.keep(key, &staged, entry, &lock)
    }

    fn failed(
        &self,
        package: &Package,
        hint: String,
        exit: &str,
        lines: &[String],
    ) -> CommandError {
        if let Some(missing) = missing(lines) {
            return CommandError::NotFound {
                what: format!(
                    "{missing} is not in the registry {} ({} needs it)",
                    self.npmrc.registry,
                    package.shown()
                ),
                hint: "check its name and version (npm view PACKAGE versions)".into(),
            };
        }
        let words = last_words(lines);
        CommandError::Install {
            package: package.shown(),
            why: if words.is_empty() { format!("npm {exit}") } else { words },
            hint,
        }
    }

    /// Starts the package that was asked for without the script that it has, behind the same walls and
    /// without any network, to see whether it misses what the script would have made. Its input is
    /// closed: a server ends then, or waits.
    async fn try_out(
        &self,
        request: &Request<'_>,
        work: &Path,
        tree: &Path,
        mut args: Vec<String>,
        doubtful: CommandError,
    ) -> Result<(), CommandError> {
        let (input, data) = (work.join("input"), work.join("trial"));
        fs::create_dir_all(&data)
            .map_err(|e| CommandError::cache("making the job's folders", e))?;
        args.extend(request.package.args.iter().cloned());
        let job = Job {
            package: &request.package.shown(),
            program: &self.node,
            args,
            code: vec![tree.to_path_buf()],
            env: request.package.env.clone(),
            input: &input,
            data: &data,
            reach: None,
            programs: Vec::new(),
            deadline: request.deadline.min(Instant::now() + TRIAL),
        };
        match job.run(request.options, Arc::new(Quiet)).await {
            Err(CommandError::Deadline { .. }) => Ok(()),
            Err(other) => Err(other),
            Ok(outcome) if outcome.exit.is_clean() => Ok(()),
            Ok(outcome) => {
                let text = outcome.lines.join("\n").to_ascii_lowercase();
                if MISSING.iter().any(|words| text.contains(words)) {
                    Err(doubtful)
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// What was not run.
#[derive(Default)]
struct Skipped {
    /// For whom the server does not start.
    notes: Vec<String>,
    /// The error for a package that may need its script.
    doubtful: Option<CommandError>,
}

/// Looks for packages that want to run something when they are installed.
fn skipped(request: &Request<'_>, lock: &Value, modules: &Path) -> Result<Skipped, CommandError> {
    let mut found = Skipped::default();
    let packages = lock.get("packages").and_then(Value::as_object);
    for (path, about) in packages.into_iter().flatten() {
        let is = |key: &str| about.get(key).and_then(Value::as_bool) == Some(true);
        let below = path.strip_prefix("node_modules/");
        let Some(below) = below.filter(|_| is("hasInstallScript") && !is("optional")) else {
            continue;
        };
        let folder = modules.join(below);
        let Some(manifest) = read_manifest(&folder.join("package.json")) else { continue };
        let name = below.rsplit("node_modules/").next().unwrap_or(below);
        let script = |key: &&str| manifest.get("scripts")?.get(*key)?.as_str().map(str::to_owned);
        let scripts: Vec<String> = SCRIPTS.iter().filter_map(script).collect();
        let strict = !request.package.skip_scripts;
        let shown = escape(name, 120);
        if strict && folder.join("binding.gyp").is_file() && !has_prebuilt(&folder) {
            return Err(CommandError::NeedsScripts {
                package: shown,
                why: "must be compiled when it is installed, and nothing of a package is run then"
                    .into(),
                hint: hint(request.package),
            });
        }
        if scripts.iter().all(|s| HARMLESS.iter().any(|h| s.trim_start().starts_with(h))) {
            continue;
        }
        let scripts = escape(&scripts.join("; "), 160);
        found.notes.push(format!("{shown} has an install script that was not run ({scripts})"));
        if strict && request.package.specs.iter().any(|spec| spec.name == name) {
            found.doubtful = Some(CommandError::NeedsScripts {
                package: shown,
                why: format!(
                    "needs the script that it has for its installation ({scripts}), and nothing of a package is run then"
                ),
                hint: hint(request.package),
            });
        }
    }
    Ok(found)
}

/// The package that the registry does not have, by npm's words.
fn missing(lines: &[String]) -> Option<String> {
    let after =
        |mark: &str| lines.iter().find_map(|line| line.split_once(mark)).map(|(_, rest)| rest);
    let name = match after("No matching version found for ") {
        Some(rest) => rest.split_whitespace().next()?.trim_end_matches('.'),
        None => after("The requested resource '")?.split('\'').next()?,
    };
    Some(escape(name, 120))
}

fn hint(package: &Package) -> String {
    format!(
        "install it yourself (npm install --prefix DIR {}), and write node DIR/node_modules/…; or, if it works without them, write npx --ignore-scripts -y {}",
        package.shown(),
        package.shown()
    )
}

/// Whether a package with a build file brings the result too (prebuildify, node-gyp-build).
fn has_prebuilt(folder: &Path) -> bool {
    let any = |below: &str| fs::read_dir(folder.join(below)).is_ok_and(|mut d| d.next().is_some());
    any("prebuilds") || any("build/Release") || any("lib/binding")
}

/// What starts it.
fn launch(package: &Package, tree: &Path) -> Result<Launch, CommandError> {
    let modules = tree.join("node_modules");
    let first = package.specs.first().map_or("", |spec| spec.name.as_str());
    let script = match &package.command {
        None => bin_of(&modules.join(first), None),
        Some(command) => package
            .specs
            .iter()
            .find_map(|spec| bin_of(&modules.join(&spec.name), Some(command)))
            .or_else(|| modules.join(".bin").join(command).canonicalize().ok()),
    };
    let root = tree.canonicalize().map_err(|e| CommandError::cache("finding the package", e))?;
    let script = script.filter(|s| s.starts_with(&root)).ok_or_else(|| {
        let what = match &package.command {
            Some(command) => {
                format!("{} brings no command {}", package.shown(), escape(command, 80))
            }
            None => format!(
                "{} brings no command, or several of which none has its name",
                package.shown()
            ),
        };
        CommandError::NotFound { what, hint: "name the command: npx -y -p PACKAGE COMMAND".into() }
    })?;
    let relative = script.strip_prefix(&root).unwrap_or(&script).to_string_lossy().into_owned();
    Ok(match head(&script)? {
        Head::Script { interpreter, flags } => {
            let name = interpreter.rsplit('/').next().unwrap_or_default();
            if palisade_process::programs::is_node(name) {
                Launch::Node { flags, script: relative }
            } else {
                Launch::Program { file: relative }
            }
        }
        Head::Program if is_javascript(&script) => {
            Launch::Node { flags: Vec::new(), script: relative }
        }
        Head::Program => Launch::Program { file: relative },
    })
}

fn is_javascript(path: &Path) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "js" | "mjs" | "cjs"))
}

fn versions(lock: &Value) -> Vec<String> {
    let packages = lock.get("packages").and_then(Value::as_object);
    let named = |(path, about): (&String, &Value)| {
        let name = path.rsplit_once("node_modules/")?.1;
        let version = about.get("version")?.as_str()?;
        Some(escape(&format!("{name}@{version}"), 200))
    };
    packages.into_iter().flatten().filter_map(named).collect()
}

/// Lets the job's user read it, who is another one where Palisade is root. The folder around is closed.
fn readable(path: &Path) -> std::io::Result<()> {
    let mode = if path.is_dir() { 0o755 } else { 0o644 };
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}
