//! uv, or else pip, as the one who fetches.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::{HeaderValue, header};
use palisade_egress::{
    AddressPolicy, Guard,
    http::{Caps, Client, Request as HttpRequest, Tls},
};
use palisade_model::text::escape;
use serde_json::Value;

use super::{
    Quiet, Request, Watch,
    copy::Copier,
    env,
    indexes::{self, Index, Indexes},
    job::Job,
    last_words, network_hint,
    page::{self, Page},
    reach::Reach,
    scripts,
    store::{Entry, FORMAT, Store},
};
use crate::{
    CommandError, Context, Package,
    packages::normal_name,
    python::interpreters::{self, Interpreter},
    script,
};

/// Oldest feature release that is taken unasked; older ones are out of support.
const OLDEST: (u32, u32) = (3, 10);

/// What to do where the package does not run on this Python.
const OTHER_PYTHON: &str = "it needs another Python: name one (uvx --python 3.12 PACKAGE)";

/// The interpreter, the client, and how that is configured.
pub(super) struct Pypi {
    python: Interpreter,
    uv: Option<PathBuf>,
    indexes: Indexes,
}

impl Pypi {
    pub(super) fn find(package: &Package, context: &Context) -> Result<Self, CommandError> {
        let python = interpreters::choose(package.interpreter.as_deref(), OLDEST, context)?;
        let uv = context
            .programs()
            .any("uv")
            .ok()
            .filter(|uv| script::read_head(uv).is_ok_and(|head| head.starts_with(b"\x7fELF")));
        let indexes = indexes::read(
            context,
            &python.prefix,
            uv.is_some(),
            package.registry.as_deref(),
            &package.more_registries,
        )?;
        Ok(Self { python, uv, indexes })
    }

    pub(super) fn key_parts(&self) -> Vec<String> {
        let mut parts: Vec<String> =
            self.indexes.shown().into_iter().map(|url| format!("index {url}")).collect();
        parts.push(format!("python {} {}", self.python.program.display(), self.python.release()));
        parts
    }

    /// Installs it; where it needs a newer Python, and none was asked for, once more with the newest.
    pub(super) async fn install(
        &self,
        request: &Request<'_>,
        store: &Store,
        key: &str,
    ) -> Result<Entry, CommandError> {
        let error = match self.install_for(&self.python, request, store, key).await {
            Err(CommandError::Install { hint, package, why }) if hint == OTHER_PYTHON => {
                CommandError::Install { hint, package, why }
            }
            other => return other,
        };
        match interpreters::newer(&self.python, request.context) {
            Some(newer) if request.package.interpreter.is_none() => {
                request.watch.line(&format!("trying again with Python {}", newer.release()));
                self.install_for(&newer, request, store, key).await
            }
            _ => Err(error),
        }
    }

    async fn install_for(
        &self,
        python: &Interpreter,
        request: &Request<'_>,
        store: &Store,
        key: &str,
    ) -> Result<Entry, CommandError> {
        let package = request.package;
        let work = store.work()?;
        let step = |what: &'static str| move |e: std::io::Error| CommandError::cache(what, e);
        let folder = |name: &str| work.path().join(name);
        let (input, data, staged) = (folder("input"), folder("data"), folder("tree"));
        for folder in [&input, &data] {
            fs::create_dir_all(folder).map_err(step("making the job's folders"))?;
        }
        fs::set_permissions(&input, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(step("making the job's folders"))?;
        let known = store.lock_file(key).filter(|_| !request.options.refresh);
        let wanted: Vec<&str> = package.specs.iter().map(|s| s.request.as_str()).collect();
        for (name, text) in [
            ("requirements.in", Some(format!("{}\n", wanted.join("\n")).into_bytes())),
            ("requirements.txt", known.clone()),
        ] {
            if let Some(text) = text {
                fs::write(input.join(name), text)
                    .and_then(|()| {
                        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
                        fs::set_permissions(input.join(name), mode)
                    })
                    .map_err(step("writing the job's configuration"))?;
            }
        }
        let reach = self.reach(request).await?;
        let run = Run { python, request, input: &input, data: &data, reach };
        let lock = match &self.uv {
            Some(uv) => self.with_uv(&run, uv, known).await?,
            None => self.with_pip(&run, known).await?,
        };
        self.compile(&run).await?;
        let entry = self.assemble(python, package, &data, &staged, &lock)?;
        store.keep(key, &staged, entry, &lock)
    }

    /// Where the job may go: the indexes, and the servers on which they say that the files are. The
    /// indexes are asked from here, through the same guard and with the same trust.
    async fn reach(&self, request: &Request<'_>) -> Result<Arc<Reach>, CommandError> {
        let indexes = self.indexes.parsed()?;
        let mut authorities: BTreeSet<_> =
            indexes.iter().map(|index| index.target.authority().clone()).collect();
        let asking = Reach::new(authorities.clone(), Arc::clone(&request.watch));
        for spec in &request.package.specs {
            let pages = self.pages(&spec.name, &indexes, &asking).await?;
            if pages.is_empty() {
                return Err(CommandError::NotFound {
                    what: format!(
                        "{} is not in {}",
                        escape(&spec.name, 120),
                        self.indexes.shown().join(", ")
                    ),
                    hint: "check its name".into(),
                });
            }
            if only_sources(&pages) {
                return Err(needs_build(&spec.name));
            }
            authorities.extend(pages.into_iter().flat_map(|page| page.authorities));
        }
        authorities.extend(request.options.more_hosts.iter().cloned());
        Ok(Arc::new(Reach::new(authorities, Arc::clone(&request.watch))))
    }

    /// What the indexes that know a package say about it.
    async fn pages(
        &self,
        name: &str,
        indexes: &[Index],
        reach: &Reach,
    ) -> Result<Vec<Page>, CommandError> {
        let client = Client::new(Guard::new(AddressPolicy::new()), self.trust()?);
        let mut pages = Vec::new();
        for index in indexes {
            let mut ask = HttpRequest::get(index.target.join(&format!("{name}/"))?);
            ask.headers = index.headers.clone();
            ask.headers.insert(header::ACCEPT, HeaderValue::from_static(page::ACCEPT));
            let answer = client.fetch(reach, ask, &Caps::default()).await?;
            if answer.status.is_success() {
                let kind = answer.headers.get(header::CONTENT_TYPE);
                let kind = kind.and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
                pages.push(page::read(&answer.target, &kind, &answer.body));
            } else if answer.status.as_u16() != 404 {
                return Err(CommandError::Install {
                    package: escape(name, 120),
                    why: format!("the index answered {}", answer.status),
                    hint: "check its address, user name and password".into(),
                });
            }
        }
        Ok(pages)
    }

    /// Mozilla's roots, and what pip and uv are told to trust beside or in place of them.
    fn trust(&self) -> Result<Tls, CommandError> {
        let bad = |what: String| CommandError::Configuration {
            what,
            hint: "see `pip config list` (cert), SSL_CERT_FILE".into(),
        };
        let text = match &self.indexes.certificates {
            Some(file) => fs::read_to_string(file)
                .map_err(|e| bad(format!("{}: {e}", escape(&file.to_string_lossy(), 200))))?,
            None => String::new(),
        };
        // Bundles of a system hold certificates that this library cannot use; the others count.
        const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
        let good: String = text
            .split(BEGIN)
            .skip(1)
            .map(|block| format!("{BEGIN}{block}"))
            .filter(|block| Tls::with_roots(block).is_ok())
            .collect();
        Tls::with_roots(&good).map_err(|e| bad(format!("the certificates to trust: {e}")))
    }

    async fn with_uv(
        &self,
        run: &Run<'_>,
        uv: &Path,
        known: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, CommandError> {
        let python = run.python.program.to_string_lossy().into_owned();
        let mut variables = env([
            ("UV_CACHE_DIR", "/data/.uv".into()),
            ("UV_NO_CONFIG", "1".into()),
            ("UV_PYTHON_DOWNLOADS", "never".into()),
            ("UV_NO_PROGRESS", "1".into()),
            ("UV_LINK_MODE", "copy".into()),
        ]);
        if let [main, more @ ..] = self.indexes.urls.as_slice() {
            variables.insert("UV_DEFAULT_INDEX".into(), main.clone());
            if !more.is_empty() {
                variables.insert("UV_INDEX".into(), more.join(" "));
            }
        }
        if let Some(file) = &self.indexes.certificates {
            variables.insert("SSL_CERT_FILE".into(), file.to_string_lossy().into_owned());
        }
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let common = ["--only-binary", ":all:", "--python", &python].map(str::to_owned);
        let mut lock = known;
        if lock.is_none() {
            let mut args = words(
                "pip compile -q --generate-hashes --no-header --no-annotate --output-file /data/requirements.txt",
            );
            args.extend(common.clone());
            args.push("/plugin/requirements.in".into());
            self.go(run, uv, args, variables.clone(), true).await?;
            let made = fs::read(run.data.join("requirements.txt"))
                .map_err(|e| CommandError::cache("reading uv's lock file", e))?;
            lock = Some(made);
        }
        let list = if run.data.join("requirements.txt").exists() { "/data" } else { "/plugin" };
        let mut args = words("pip install -q --target /data/site --require-hashes --no-deps");
        args.extend(common);
        args.extend(["-r".to_owned(), format!("{list}/requirements.txt")]);
        self.go(run, uv, args, variables, true).await?;
        Ok(lock.unwrap_or_default())
    }

    async fn with_pip(
        &self,
        run: &Run<'_>,
        known: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, CommandError> {
        let (mut args, _) = run.python.pip().ok_or_else(|| {
            CommandError::not_found(
                format!("neither uv is found in PATH, nor pip in {}", run.python.program.display()),
                "install uv (pip install uv), or pip (python3 -m ensurepip)",
            )
        })?;
        let mut variables = env([
            ("PIP_CONFIG_FILE", "/dev/null".into()),
            ("PIP_NO_INPUT", "1".into()),
            ("PIP_NO_CACHE_DIR", "1".into()),
            ("PIP_DISABLE_PIP_VERSION_CHECK", "1".into()),
            ("PIP_ROOT_USER_ACTION", "ignore".into()),
        ]);
        if let [main, more @ ..] = self.indexes.urls.as_slice() {
            variables.insert("PIP_INDEX_URL".into(), main.clone());
            if !more.is_empty() {
                variables.insert("PIP_EXTRA_INDEX_URL".into(), more.join(" "));
            }
        }
        if let Some(file) = &self.indexes.certificates {
            variables.insert("PIP_CERT".into(), file.to_string_lossy().into_owned());
        }
        let mut add = |text: &str| args.extend(text.split(' ').map(str::to_owned));
        add(
            "install -q --target /data/site --only-binary :all: --no-compile --no-warn-script-location --progress-bar off",
        );
        add(match &known {
            Some(_) => "--require-hashes --no-deps -r /plugin/requirements.txt",
            None => "--report /data/report.json -r /plugin/requirements.in",
        });
        self.go(run, &run.python.program, args, variables, true).await?;
        match known {
            Some(known) => Ok(known),
            None => {
                let report = fs::read(run.data.join("report.json"))
                    .map_err(|e| CommandError::cache("reading pip's report", e))?;
                Ok(lock_of(&report))
            }
        }
    }

    /// Makes byte code now, since the tree cannot be written to later. The kind that is not compared with
    /// its source keeps the tree's digest free of times.
    async fn compile(&self, run: &Run<'_>) -> Result<(), CommandError> {
        let args = "-I -m compileall -q --invalidation-mode unchecked-hash /data/site";
        let args = args.split(' ').map(str::to_owned).collect();
        // Some packages hold files for other versions, which cannot be compiled; they are left as they are.
        let program = run.python.program.clone();
        self.go(run, &program, args, BTreeMap::new(), false).await
    }

    async fn go(
        &self,
        run: &Run<'_>,
        program: &Path,
        args: Vec<String>,
        env: BTreeMap<String, String>,
        network: bool,
    ) -> Result<(), CommandError> {
        let request = run.request;
        let mut code: Vec<PathBuf> = self.indexes.certificates.iter().cloned().collect();
        // uv asks the interpreter about itself; pip may come from a folder of wheels.
        code.extend(run.python.code());
        let package = request.package.shown();
        let job = Job {
            package: &package,
            program,
            args,
            code,
            env,
            input: run.input,
            data: run.data,
            reach: network.then(|| Arc::clone(&run.reach)),
            programs: vec![run.python.program.clone()],
            deadline: request.deadline,
        };
        // What cannot be compiled is nobody's worry.
        let watch: Arc<dyn Watch> =
            if network { Arc::clone(&request.watch) } else { Arc::new(Quiet) };
        let outcome = job.run(request.options, watch).await?;
        if outcome.exit.is_clean() || !network {
            return Ok(());
        }
        if let Some(name) = unmatched(&outcome.lines) {
            // pip does not say that there are only files that it was told not to take.
            let pages = self.pages(&name, &self.indexes.parsed()?, &run.reach).await;
            if pages.is_ok_and(|pages| only_sources(&pages)) {
                return Err(needs_build(&name));
            }
        }
        let hint = run.reach.hint().unwrap_or_else(|| network_hint(request.context));
        Err(failed(request.package, hint, &outcome.exit.to_string(), &outcome.lines))
    }

    /// A virtual environment made by hand: its settings, a link to the interpreter, the packages, and a
    /// script for each command.
    fn assemble(
        &self,
        python: &Interpreter,
        package: &Package,
        data: &Path,
        staged: &Path,
        lock: &[u8],
    ) -> Result<Entry, CommandError> {
        let step = |e: std::io::Error| CommandError::cache("taking over what was installed", e);
        let site = staged.join("lib").join(python.library()).join("site-packages");
        fs::create_dir_all(site.parent().unwrap_or(staged)).map_err(step)?;
        Copier::new().folder(&data.join("site"), &site, &["bin", ".lock"]).map_err(step)?;
        let bin = staged.join("bin");
        fs::create_dir_all(&bin).map_err(step)?;
        let base = &python.program;
        let home = base.parent().unwrap_or(Path::new("/")).display();
        let settings = format!(
            "home = {home}\ninclude-system-site-packages = false\nversion = {}\n",
            python.release()
        );
        fs::write(staged.join("pyvenv.cfg"), settings).map_err(step)?;
        for (link, target) in [("python3", base.as_path()), ("python", Path::new("python3"))] {
            std::os::unix::fs::symlink(target, bin.join(link)).map_err(step)?;
        }
        let mut own = BTreeMap::new();
        for entry in fs::read_dir(&site).map_err(step)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(name) = name.strip_suffix(".dist-info") else { continue };
            let name = normal_name(name.split('-').next().unwrap_or(name));
            let text =
                fs::read_to_string(entry.path().join("entry_points.txt")).unwrap_or_default();
            let scripts = scripts::console(&text);
            for (script, code) in &scripts {
                scripts::write(&bin.join(script), code).map_err(step)?;
            }
            own.insert(name, scripts.into_keys().collect::<Vec<_>>());
        }
        // Scripts that are files of a wheel, not generated ones.
        for entry in fs::read_dir(data.join("site/bin")).into_iter().flatten().flatten() {
            let target = bin.join(entry.file_name());
            if !target.exists() && entry.file_type().is_ok_and(|t| t.is_file()) {
                fs::copy(entry.path(), &target).map_err(step)?;
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o555);
                fs::set_permissions(&target, mode).map_err(step)?;
            }
        }
        let script = scripts::launch(package, &own, &bin)?;
        let packages = String::from_utf8_lossy(lock);
        let packages = packages.lines().filter_map(|line| line.split_whitespace().next());
        Ok(Entry {
            format: FORMAT,
            request: package.shown(),
            digest: String::new(),
            launch: script,
            site: Some(format!("lib/{}/site-packages", python.library())),
            packages: packages.filter(|p| p.contains("==")).map(|p| escape(p, 200)).collect(),
            notes: Vec::new(),
        })
    }
}

/// What the programs of one installation share.
struct Run<'a> {
    python: &'a Interpreter,
    request: &'a Request<'a>,
    input: &'a Path,
    data: &'a Path,
    reach: Arc<Reach>,
}

/// Whether a package must be built, whatever its version.
fn only_sources(pages: &[Page]) -> bool {
    pages.iter().any(|page| page.sources) && !pages.iter().any(|page| page.wheels)
}

/// The package for which pip found nothing at all.
fn unmatched(lines: &[String]) -> Option<String> {
    lines.iter().find(|line| line.contains("(from versions: none)"))?;
    let rest =
        lines.iter().find_map(|line| line.split_once("No matching distribution found for "))?.1;
    let end = rest
        .find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
        .unwrap_or(rest.len());
    rest.get(..end).map(normal_name).filter(|name| !name.is_empty())
}

fn needs_build(name: &str) -> CommandError {
    let name = escape(name, 120);
    CommandError::NeedsScripts {
        why: "has no wheel for this machine and this Python: it must be built when it is installed, and nothing of a package is run here".into(),
        hint: format!("install it yourself (uv tool install {name}, or pipx install {name}), and write the name of its command; another Python (--python 3.12) may have a wheel"),
        package: name,
    }
}

fn failed(package: &Package, hint: String, exit: &str, lines: &[String]) -> CommandError {
    let all = lines.join(" ");
    // uv and pip break their sentences over lines.
    let text = all.split_whitespace().collect::<Vec<_>>().join(" ");
    let other_python = [
        "requires-python",
        "Requires-Python",
        "Python version",
        "satisfy Python",
        "require a different python",
    ];
    let other_python = other_python.iter().any(|mark| text.contains(mark));
    let marks = [" has no usable wheels", " has no wheels with a matching"];
    for mark in marks.iter().filter(|_| !other_python) {
        if let Some((before, _)) = text.split_once(mark) {
            let word = before.rsplit(' ').next().unwrap_or_default();
            return needs_build(word.split(['=', '>', '<']).next().unwrap_or(word));
        }
    }
    if !other_python
        && (text.contains("there is no version of")
            || text.contains("No matching distribution found"))
    {
        return CommandError::NotFound {
            what: format!("{} is not in the index: {}", package.shown(), last_words(lines)),
            hint: "check its version, and those of what it needs".into(),
        };
    }
    let words = last_words(lines);
    CommandError::Install {
        package: package.shown(),
        why: if words.is_empty() { format!("the client {exit}") } else { words },
        hint: if other_python { OTHER_PYTHON.into() } else { hint },
    }
}

/// pip's report of an installation as requirements with digests.
fn lock_of(report: &[u8]) -> Vec<u8> {
    let report: Value = serde_json::from_slice(report).unwrap_or_default();
    let mut lines = Vec::new();
    for item in report.get("install").and_then(Value::as_array).into_iter().flatten() {
        let text = |at: &str| item.pointer(at).and_then(Value::as_str);
        if let (Some(name), Some(version), Some(hash)) = (
            text("/metadata/name"),
            text("/metadata/version"),
            text("/download_info/archive_info/hashes/sha256"),
        ) {
            lines.push(format!("{}=={version} --hash=sha256:{hash}\n", normal_name(name)));
        }
    }
    lines.sort();
    lines.concat().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_built_is_named() {
        let package = Package::new(crate::Tool::Pypi);
        let lines = [
            "  × No solution found when resolving dependencies:".to_owned(),
            "  ╰─▶ Because only docopt==0.6.2 is available and docopt==0.6.2 has no".to_owned(),
            "      usable wheels, we can conclude that …".to_owned(),
        ];
        match failed(&package, String::new(), "", &lines) {
            CommandError::NeedsScripts { package, .. } => assert_eq!(package, "docopt"),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn pips_report_becomes_a_lock() {
        let report = br#"{"install": [{"metadata": {"name": "A_b", "version": "1"}, "download_info": {"archive_info": {"hashes": {"sha256": "00"}}}}]}"#;
        assert_eq!(lock_of(report), b"a-b==1 --hash=sha256:00\n");
    }
}
