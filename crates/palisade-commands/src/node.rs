//! Scripts of Node.js: which one a command line runs, and which folders hold its code.
//!
//! Node looks for modules beside a script and in every `node_modules` above it (its documentation,
//! "Loading from node_modules folders"), and reads the nearest `package.json` to tell how a script is
//! written.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use palisade_model::text::escape;
use palisade_sandbox::{Program, Runtime};

use crate::{
    CommandError, Context, Start,
    analyse::{SHOWN, utf8},
    companions,
    options::Options,
    script,
    start::path_arguments,
    tree,
};

/// Node's own options that take their value from the next word (`node --help`).
const OPTIONS: Options<'static> = Options {
    valued: &[
        "-r",
        "--require",
        "--import",
        "--loader",
        "--experimental-loader",
        "-C",
        "--conditions",
        "--env-file",
        "--env-file-if-exists",
        "--title",
        "--icu-data-dir",
        "--input-type",
        "--experimental-default-type",
        "--diagnostic-dir",
        "--redirect-warnings",
        "--max-http-header-size",
        "--disable-warning",
        "--openssl-config",
        "--tls-cipher-list",
        "--unhandled-rejections",
    ],
    ending: &["-e", "--eval", "-p", "--print", "-pe"],
};
/// Options whose value may be a file.
const FILES: [&str; 8] = [
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "--env-file",
    "--env-file-if-exists",
    "--openssl-config",
];
/// Tools that run another script, named as their first operand.
const RUNNERS: [&str; 4] = ["tsx", "ts-node", "ts-node-esm", "nodemon"];

/// `node [options] SCRIPT [arguments]`.
pub(crate) fn command(
    interpreter: PathBuf,
    args: &[String],
    context: &Context,
) -> Result<Start, CommandError> {
    let walked = OPTIONS.walk(args);
    let mut code = BTreeSet::new();
    for option in &walked.options {
        let Some(value) = option.value.as_deref().filter(|_| FILES.contains(&option.name.as_str()))
        else {
            continue;
        };
        let file = context.absolute(value.strip_prefix("file://").unwrap_or(value));
        if let Ok(real) = file.canonicalize()
            && real.is_file()
        {
            code.insert(real);
        }
    }
    if walked.ended_by.is_some() {
        // A program in the command line itself: there is nothing to show.
        let file = utf8(&interpreter)?;
        let words = args.to_vec();
        return Ok(Start {
            program: Program { runtime: Runtime::Native, file: file.clone(), args: words },
            code: code.into_iter().collect(),
            programs: Vec::new(),
            env: Default::default(),
            identity: file,
            paths: path_arguments(walked.rest, context),
            notes: Vec::new(),
        });
    }
    let Some((file, rest)) = walked.rest.split_first().filter(|(file, _)| *file != "-") else {
        return Err(CommandError::usage(
            "node is started without a script",
            "name the server's script: node /path/to/server.js",
        ));
    };
    let real = main_file(&context.absolute(file)).ok_or_else(|| {
        CommandError::not_found(
            format!("{} is not a script", escape(file, SHOWN)),
            "name the server's script by a path that is there; relative ones count from the working directory",
        )
    })?;
    let mut start = self::script(interpreter, walked.words.to_vec(), &real, rest, context)?;
    code.extend(start.code);
    start.code = code.into_iter().collect();
    Ok(start)
}

/// The file that node runs for a path: itself, with an ending, or a folder's main file.
fn main_file(path: &Path) -> Option<PathBuf> {
    let with = |ending: &str| PathBuf::from(format!("{}{ending}", path.display()));
    let folder_main = || {
        let manifest = read_manifest(&path.join("package.json"))?;
        Some(path.join(manifest.get("main")?.as_str()?))
    };
    [Some(path.to_path_buf()), Some(with(".js")), Some(with(".mjs")), Some(with(".cjs"))]
        .into_iter()
        .chain([folder_main(), Some(path.join("index.js"))])
        .flatten()
        .find(|p| p.is_file())
        .and_then(|p| p.canonicalize().ok())
}

/// The script at the real path `real`, run by `interpreter` with `flags` before it.
pub(crate) fn script(
    interpreter: PathBuf,
    flags: Vec<String>,
    real: &Path,
    args: &[String],
    context: &Context,
) -> Result<Start, CommandError> {
    let mut code: BTreeSet<PathBuf> = code_of(real, context).into_iter().collect();
    code.extend(run_by(real, args, context));
    let mut env = BTreeMap::new();
    companions::set_data(real, &mut env);
    let identity = utf8(real)?;
    let modules: Vec<PathBuf> = code
        .iter()
        .flat_map(|folder| [folder.clone(), folder.join("node_modules")])
        .filter(|folder| folder.ends_with("node_modules"))
        .collect();
    let programs = companions::of(modules.iter().map(PathBuf::as_path), context);
    let mut words = flags;
    words.push(identity.clone());
    words.extend(args.iter().cloned());
    Ok(Start {
        program: Program { runtime: Runtime::Native, file: utf8(&interpreter)?, args: words },
        code: code.into_iter().collect(),
        programs,
        env,
        identity,
        paths: path_arguments(args, context),
        notes: Vec::new(),
    })
}

/// The code of what a tool like tsx runs, if the script at `tool` is one.
pub(crate) fn run_by(tool: &Path, args: &[String], context: &Context) -> Vec<PathBuf> {
    let is_tool = |name: &str| RUNNERS.contains(&name);
    if !tool.components().any(|part| part.as_os_str().to_str().is_some_and(is_tool)) {
        return Vec::new();
    }
    let script = args.iter().find(|a| !a.starts_with('-') && *a != "watch");
    let script = script.and_then(|script| main_file(&context.absolute(script)));
    script.map(|script| code_of(&script, context)).unwrap_or_default()
}

/// What must be visible for a script: the package that it is part of, and the packages that it may use.
pub(crate) fn code_of(script: &Path, context: &Context) -> Vec<PathBuf> {
    let Some(folder) = script.parent() else { return vec![script.to_path_buf()] };
    if let Some(modules) = outermost_modules(folder) {
        return installed(&modules, script);
    }
    let mut code = vec![script.to_path_buf()];
    match tree::nearest(folder, &["package.json"], context) {
        Some(project) => {
            code.extend(tree::project(&project));
            code.extend(linked(&project));
            // Where the script lies deeper than the package that describes it (`dist/package.json`), the
            // project around that is needed too.
            if let Some(around) =
                project.parent().and_then(|p| tree::nearest(p, &["package.json"], context))
                && around.join("node_modules").is_dir()
            {
                code.extend(around.join("node_modules").canonicalize());
                code.extend(linked(&around));
            }
        }
        None => {
            let near = ["node_modules", "lib", "src", "dist"];
            code.extend(tree::entries(folder, |name, path| {
                let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
                near.contains(&name)
                    || (path.is_file() && ["js", "mjs", "cjs", "node", "wasm"].contains(&ending))
            }));
        }
    }
    for above in folder.ancestors().skip(1).take_while(|f| !context.is_too_wide(f)) {
        code.extend(above.join("node_modules").canonicalize());
    }
    outermost(code)
}

/// The topmost `node_modules` that a folder lies in.
fn outermost_modules(folder: &Path) -> Option<PathBuf> {
    let inside = |f: &&Path| f.file_name().is_some_and(|name| name == "node_modules");
    folder.ancestors().filter(inside).last().map(Path::to_path_buf)
}

/// A script in `node_modules`: that folder as a whole where it belongs to one project; the script's own
/// package where it is a place for global installs, which hold unrelated packages beside each other.
fn installed(modules: &Path, script: &Path) -> Vec<PathBuf> {
    let marks = [".package-lock.json", ".modules.yaml", ".yarn-state.yml", ".yarn-integrity"];
    let of_project = modules.parent().is_some_and(|p| p.join("package.json").is_file())
        || marks.iter().any(|mark| modules.join(mark).is_file());
    if of_project {
        return vec![modules.to_path_buf()];
    }
    let Ok(below) = script.strip_prefix(modules) else { return vec![script.to_path_buf()] };
    let mut parts = below.components();
    let first = parts.next().map(|c| c.as_os_str().to_owned()).unwrap_or_default();
    let mut package = modules.join(&first);
    if first.to_string_lossy().starts_with('@')
        && let Some(name) = parts.next()
    {
        package.push(name);
    }
    vec![package]
}

/// Packages of a project that are links to other folders (workspaces, `npm link`): the code of those too.
fn linked(project: &Path) -> Vec<PathBuf> {
    let modules = project.join("node_modules");
    let mut found = Vec::new();
    let list = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect()
    };
    for entry in list(&modules) {
        let scope = entry.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with('@'));
        let packages = if scope { list(&entry) } else { vec![entry] };
        for package in packages.iter().filter(|p| p.is_symlink()) {
            if let Ok(real) = package.canonicalize()
                && !real.components().any(|c| c.as_os_str() == "node_modules")
                && real.is_dir()
            {
                found.extend(tree::project(&real));
            }
        }
    }
    found
}

/// Without what lies in another one of them.
pub(crate) fn outermost(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let all: BTreeSet<PathBuf> = paths.into_iter().collect();
    let below = |path: &Path| path.ancestors().skip(1).any(|above| all.contains(above));
    all.iter().filter(|path| !below(path)).cloned().collect()
}

/// The script that a shell script made by pnpm, yarn or npm for Windows starts:
/// `exec node "$basedir/../x/index.js" "$@"`.
pub(crate) fn behind_shell_shim(shim: &Path) -> Option<PathBuf> {
    let head = String::from_utf8(script::read_head(shim).ok()?).ok()?;
    let folder = shim.parent()?;
    let targets = head.split("\"$basedir/").skip(1).filter_map(|rest| rest.split('"').next());
    let scripts = targets
        .map(|relative| folder.join(relative))
        .filter(|path| !path.ends_with("node") && path.is_file());
    scripts.last()?.canonicalize().ok()
}

/// A `package.json`, if it is one. At most 4 MiB.
pub(crate) fn read_manifest(path: &Path) -> Option<serde_json::Value> {
    use std::io::Read as _;
    let mut text = Vec::new();
    std::fs::File::open(path).ok()?.take(4 << 20).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}
