//! Python: scripts, modules, virtual environments, and where their code lies.
//!
//! The interpreter's own library and a virtual environment are shown by the wall, which finds them from
//! the interpreter's path. Found here is what lies elsewhere: the script, packages of the user's own
//! (`~/.local`), and projects that were installed in place (`pip install -e`).

pub(crate) mod interpreters;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use palisade_model::text::escape;
use palisade_sandbox::{Program, Runtime};

use crate::{
    CommandError, Context, Start,
    analyse::{SHOWN, utf8},
    companions,
    node::outermost,
    options::Options,
    script,
    start::path_arguments,
    tree,
};

/// Python's own options (its documentation, "Command line and environment").
const OPTIONS: Options<'static> =
    Options { valued: &["-W", "-X", "--check-hash-based-pycs"], ending: &["-m", "-c"] };

/// `python [options] SCRIPT|-m MODULE|-c CODE [arguments]`.
pub(crate) fn command(
    interpreter: PathBuf,
    args: &[String],
    context: &Context,
) -> Result<Start, CommandError> {
    let walked = OPTIONS.walk(args);
    let flags = walked.words.to_vec();
    match &walked.ended_by {
        Some(found) if found.name == "-m" => {
            let module = found.value.clone().unwrap_or_default();
            self::module(interpreter, flags, &module, walked.rest, context)
        }
        Some(_) => {
            let site = Site::of(&interpreter, context);
            let identity = utf8(&interpreter)?;
            finish(interpreter, flags, walked.rest, site.packages(context), identity, context)
        }
        None => {
            let Some((file, rest)) = walked.rest.split_first().filter(|(file, _)| *file != "-")
            else {
                return Err(CommandError::usage(
                    "python is started without a script or a module",
                    "name the server: python3 -m MODULE, or python3 /path/to/server.py",
                ));
            };
            let path = context.absolute(file);
            let path = if path.is_dir() { path.join("__main__.py") } else { path };
            let real = path.canonicalize().map_err(|e| {
                CommandError::not_found(
                    format!("{}: {e}", escape(file, SHOWN)),
                    "name the server's script by a path that is there; relative ones count from the working directory",
                )
            })?;
            script(interpreter, flags, &real, rest, context)
        }
    }
}

/// The script at the real path `real`, run by `interpreter` with `flags` before it.
pub(crate) fn script(
    interpreter: PathBuf,
    flags: Vec<String>,
    real: &Path,
    args: &[String],
    context: &Context,
) -> Result<Start, CommandError> {
    let site = Site::of(&interpreter, context);
    let mut shown = site.packages(context);
    let identity = utf8(real)?;
    let in_environment = site.environment.as_deref().is_some_and(|e| real.starts_with(e));
    if in_environment || real.parent().is_some_and(|folder| folder.ends_with("bin")) {
        // A console script: its code is among the environment's packages.
        shown.code.push(real.to_path_buf());
    } else {
        shown.code.extend(code_of(real, context));
    }
    let mut words = flags;
    words.push(identity.clone());
    finish(interpreter, words, args, shown, identity, context)
}

/// `python -m MODULE`.
fn module(
    interpreter: PathBuf,
    flags: Vec<String>,
    module: &str,
    args: &[String],
    context: &Context,
) -> Result<Start, CommandError> {
    let site = Site::of(&interpreter, context);
    let mut shown = site.packages(context);
    let top = module.split('.').next().unwrap_or_default();
    let has =
        |folder: &Path| folder.join(top).is_dir() || folder.join(format!("{top}.py")).is_file();
    let plain =
        !top.is_empty() && top.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80);
    if !plain {
        return Err(CommandError::usage(
            format!("{} is no name of a Python module", escape(module, SHOWN)),
            "write python3 -m MODULE",
        ));
    }
    let mut identity = format!("{}:{module}", utf8(&interpreter)?);
    // -m puts the working directory first.
    if has(&context.directory) {
        let folder = context.directory.canonicalize().unwrap_or_else(|_| context.directory.clone());
        identity = format!("{}:{module}", utf8(&folder)?);
        if tree::nearest(&folder, &["pyproject.toml", "setup.py"], context).as_deref()
            == Some(&folder)
        {
            shown.code.extend(tree::project(&folder));
        } else {
            shown.code.extend(tree::entries(&folder, |name, path| {
                name == top || name.ends_with(".py") || path.join("__init__.py").is_file()
            }));
        }
        shown.path.insert(0, folder);
    }
    finish(interpreter, flags, args, shown, identity, context)
}

fn finish(
    interpreter: PathBuf,
    words: Vec<String>,
    args: &[String],
    shown: Shown,
    identity: String,
    context: &Context,
) -> Result<Start, CommandError> {
    let mut env = BTreeMap::new();
    if let Some(base) = shown.user_base {
        env.insert("PYTHONUSERBASE".to_owned(), utf8(&base)?);
    }
    if !shown.path.is_empty() {
        let folders: Result<Vec<String>, CommandError> =
            shown.path.iter().map(|p| utf8(p)).collect();
        env.insert("PYTHONPATH".to_owned(), folders?.join(":"));
    }
    let mut all = words;
    all.extend(args.iter().cloned());
    Ok(Start {
        program: Program { runtime: Runtime::Native, file: utf8(&interpreter)?, args: all },
        code: outermost(shown.code),
        programs: shown.programs,
        env,
        identity,
        paths: path_arguments(args, context),
        notes: Vec::new(),
    })
}

/// What a script needs beside the interpreter: its project, or what lies around it.
fn code_of(script: &Path, context: &Context) -> Vec<PathBuf> {
    let Some(folder) = script.parent() else { return vec![script.to_path_buf()] };
    let mut code = vec![script.to_path_buf()];
    let marks = ["pyproject.toml", "setup.py", "setup.cfg", "requirements.txt"];
    match tree::nearest(folder, &marks, context) {
        Some(project) => code.extend(tree::project(&project)),
        None => code.extend(tree::entries(folder, |name, path| {
            (name.ends_with(".py") && path.is_file()) || path.join("__init__.py").is_file()
        })),
    }
    outermost(code)
}

/// What is shown for a Python program, and what its environment says about it.
#[derive(Default)]
struct Shown {
    code: Vec<PathBuf>,
    /// For PYTHONPATH.
    path: Vec<PathBuf>,
    user_base: Option<PathBuf>,
    /// Programs that its packages run.
    programs: Vec<PathBuf>,
}

/// Where an interpreter finds its packages.
struct Site {
    /// The virtual environment, if it is one.
    environment: Option<PathBuf>,
    /// The installation that the interpreter is part of; `/usr` for the system's.
    prefix: PathBuf,
    /// Folders of packages (`site-packages`).
    folders: Vec<PathBuf>,
    /// The user's own (`~/.local`), with its folder of packages.
    user: Option<(PathBuf, PathBuf)>,
}

impl Site {
    fn of(interpreter: &Path, context: &Context) -> Self {
        let environment = interpreter
            .parent()
            .and_then(Path::parent)
            .filter(|e| e.join("pyvenv.cfg").is_file())
            .map(Path::to_path_buf);
        let real = interpreter.canonicalize().unwrap_or_else(|_| interpreter.to_path_buf());
        let prefix = real.parent().and_then(Path::parent).unwrap_or(Path::new("/")).to_path_buf();
        let root = environment.as_deref().unwrap_or(&prefix);
        let versions = |lib: PathBuf| -> Vec<PathBuf> {
            let listed = fs::read_dir(lib).into_iter().flatten().flatten().map(|e| e.path());
            let python = |p: &PathBuf| {
                p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("python3"))
            };
            listed.filter(python).collect()
        };
        let mut folders = Vec::new();
        for lib in versions(root.join("lib")) {
            for name in ["site-packages", "dist-packages"] {
                folders.push(lib.join(name));
            }
        }
        folders.retain(|f| f.is_dir());
        let release = real.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let user = context.home.as_ref().filter(|_| environment.is_none()).and_then(|home| {
            let base =
                context.var("PYTHONUSERBASE").map_or_else(|| home.join(".local"), PathBuf::from);
            let packages = base.join("lib").join(&release).join("site-packages");
            packages.is_dir().then_some((base, packages))
        });
        Self { environment, prefix, folders, user }
    }

    /// The packages that the wall does not show by itself.
    fn packages(&self, context: &Context) -> Shown {
        let mut shown = Shown::default();
        let mut sites: Vec<&Path> = self.folders.iter().map(PathBuf::as_path).collect();
        if let Some((base, packages)) = &self.user {
            shown.user_base = Some(base.clone());
            shown.code.extend(packages.canonicalize());
            sites.push(packages);
        }
        shown.programs = companions::of(sites.iter().copied(), context);
        let inside = |path: &Path| {
            path.starts_with(&self.prefix)
                || self.environment.as_deref().is_some_and(|e| path.starts_with(e))
        };
        let mut sources = BTreeSet::new();
        for site in sites {
            sources.extend(in_place(site).into_iter().filter(|path| !inside(path)));
        }
        shown.code.extend(sources);
        shown
    }
}

/// Folders of projects that were installed in place: lines of `.pth` files that are absolute paths (site
/// module), and the mappings of setuptools' finders.
fn in_place(site: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(site).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let finder = name.starts_with("__editable__") && name.ends_with("_finder.py");
        if !finder && !name.ends_with(".pth") {
            continue;
        }
        let Ok(text) = script::read_head(&entry.path()) else { continue };
        let text = String::from_utf8_lossy(&text);
        let candidates: Vec<&str> = if finder {
            text.lines()
                .find(|line| line.starts_with("MAPPING"))
                .map(|line| line.split('\'').filter(|part| part.starts_with('/')).collect())
                .unwrap_or_default()
        } else {
            text.lines().filter(|line| line.starts_with('/')).collect()
        };
        for candidate in candidates {
            if let Ok(real) = Path::new(candidate.trim()).canonicalize() {
                found.extend(if real.join("__init__.py").is_file() || real.is_file() {
                    vec![real]
                } else {
                    tree::project(&real)
                });
            }
        }
    }
    found
}

/// The interpreter of a script that was written for a path too long for a `#!` line: `#!/bin/sh` and then
/// `'''exec' "/long/path/python" "$0" "$@"` (pip), or with a path relative to the script (uv).
pub(crate) fn behind_shell_trick(path: &Path) -> Option<PathBuf> {
    let head = String::from_utf8_lossy(&script::read_head(path).ok()?).into_owned();
    let rest = head.lines().nth(1)?.strip_prefix("'''exec' ")?;
    let program = rest.strip_suffix(" \"$0\" \"$@\"")?.trim();
    let beside = program.strip_prefix("\"$(dirname -- \"$(realpath -- \"$0\")\")\"/");
    let plain = |text: &str| text.trim_matches(['"', '\'']).to_owned();
    let python = match beside {
        Some(name) => path.parent()?.join(plain(name)),
        None => PathBuf::from(plain(program)),
    };
    (python.is_absolute() && python.is_file()).then_some(python)
}
