//! From the words of a command line to what they start.
//!
//! Only reads. A program that is named by a path is looked at, never run; see
//! [`palisade_process::programs`] for the one exception, shims under plain names in PATH.

use std::path::{Path, PathBuf};

use palisade_model::text::escape;
use palisade_process::programs::{is_node, is_python};
use palisade_sandbox::{Program, Runtime};

use crate::{
    Command, CommandError, Context, Start, node, packages, python,
    script::{Head, head},
    start::path_arguments,
};

/// Most characters of a word that an error shows.
pub(crate) const SHOWN: usize = 120;
/// Longest chain of wrappers (`env env …`) that is followed.
const MAX_WRAPPERS: usize = 8;

/// Says what `argv` starts, as a client's configuration has it.
///
/// # Errors
/// [`CommandError::Usage`] for what cannot run behind walls as it is written (a shell line, `docker run`),
/// [`CommandError::NotFound`] for what is not there.
pub fn analyse(argv: &[String], context: &Context) -> Result<Command, CommandError> {
    let mut context = context.clone();
    let mut extra = Vec::new();
    let mut rest = argv;
    for _ in 0..MAX_WRAPPERS {
        let [program, args @ ..] = rest else {
            return Err(CommandError::usage(
                "there is no command",
                "name the server's command after --",
            ));
        };
        match base_name(program) {
            "env" => rest = behind_env(args, &mut context, &mut extra)?,
            // Configurations for Windows; the rest of them is often the same.
            "cmd" if matches!(args.first().map(String::as_str), Some("/c" | "/C")) => {
                rest = args.get(1..).unwrap_or_default();
            }
            name => {
                let name = name.to_owned();
                let mut command = one(&name, program, args, &context)?;
                match &mut command {
                    Command::Installed(start) => {
                        for (name, value) in extra {
                            start.env.insert(name, value);
                        }
                    }
                    Command::Package(package) => package.env.extend(extra),
                }
                return Ok(command);
            }
        }
    }
    Err(CommandError::usage("the command is wrapped too often", "name the server's command itself"))
}

/// The name of a program without its folder and without the endings of Windows.
fn base_name(program: &str) -> &str {
    let name = program.rsplit('/').next().unwrap_or(program);
    [".exe", ".cmd", ".bat"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// `env [-i] [-u NAME] [-C DIR] [NAME=VALUE…] COMMAND` (env(1)). Removing variables needs nothing: none is
/// handed on.
fn behind_env<'a>(
    args: &'a [String],
    context: &mut Context,
    extra: &mut Vec<(String, String)>,
) -> Result<&'a [String], CommandError> {
    let mut rest = args;
    while let [word, tail @ ..] = rest {
        rest = match word.as_str() {
            "-i" | "-" | "--ignore-environment" | "-v" | "--debug" => tail,
            "-u" | "--unset" => tail.get(1..).unwrap_or_default(),
            "-C" | "--chdir" => {
                if let Some(folder) = tail.first() {
                    context.directory = context.absolute(folder);
                }
                tail.get(1..).unwrap_or_default()
            }
            "--" => return Ok(tail),
            word if word.starts_with("--unset=") => tail,
            word if word.starts_with('-') => {
                return Err(CommandError::usage(
                    format!("env's option {} is not known here", escape(word, SHOWN)),
                    "write the command without env; variables are granted with --grant env:NAME",
                ));
            }
            word => match word.split_once('=') {
                Some((name, value)) => {
                    extra.push((name.to_owned(), value.to_owned()));
                    tail
                }
                None => return Ok(rest),
            },
        };
    }
    Ok(rest)
}

fn one(
    name: &str,
    program: &str,
    args: &[String],
    context: &Context,
) -> Result<Command, CommandError> {
    if let Some(command) = packages::parse(name, args, context)? {
        return Ok(command);
    }
    if let Some(refused) = refused(name, args) {
        return Err(refused);
    }
    let start = if is_node(name) {
        let interpreter = interpreter(program, context, |p| p.node(name))?;
        node::command(interpreter, args, context)?
    } else if is_python(name) {
        let interpreter = interpreter(program, context, |p| p.python(name))?;
        python::command(interpreter, args, context)?
    } else {
        let path = interpreter(program, context, |p| p.any(program))?;
        plain(&path, args, context)?
    };
    Ok(Command::Installed(start))
}

/// A program by its path, or by what finds it in PATH.
fn interpreter(
    program: &str,
    context: &Context,
    find: impl FnOnce(
        &palisade_process::programs::Programs,
    ) -> Result<PathBuf, palisade_sandbox::SandboxError>,
) -> Result<PathBuf, CommandError> {
    if !program.contains('/') {
        return find(&context.programs()).map_err(|e| match e {
            palisade_sandbox::SandboxError::Artifact { what, hint } => {
                CommandError::NotFound { what, hint }
            }
            other => other.into(),
        });
    }
    let path = context.absolute(program);
    if path.is_file() {
        return Ok(path);
    }
    Err(CommandError::not_found(
        format!("{} is not a file", escape(&path.to_string_lossy(), SHOWN)),
        "name the server's program by its path, or by a name that PATH finds",
    ))
}

/// A program that is neither Node.js nor Python: perhaps a script of one of them.
pub(crate) fn plain(
    path: &Path,
    args: &[String],
    context: &Context,
) -> Result<Start, CommandError> {
    let real = path.canonicalize().map_err(|e| {
        CommandError::not_found(
            format!("{}: {e}", escape(&path.to_string_lossy(), SHOWN)),
            "name a program that is there",
        )
    })?;
    match head(&real)? {
        Head::Script { interpreter, flags } => {
            let name = base_name(&interpreter).to_owned();
            if is_node(&name) {
                let node = found(&interpreter, context)?;
                return node::script(node, flags, &real, args, context);
            }
            if is_python(&name) {
                let python = found(&interpreter, context)?;
                return python::script(python, flags, &real, args, context);
            }
            if let Some(target) = node::behind_shell_shim(&real) {
                return plain(&target, args, context);
            }
            if let Some(python) = python::behind_shell_trick(&real) {
                return python::script(python, Vec::new(), &real, args, context);
            }
        }
        Head::Program => {}
    }
    let mut code: Vec<PathBuf> = own_prefix(&real, context).into_iter().collect();
    code.extend(archives(args, context));
    Ok(Start {
        program: Program { runtime: Runtime::Native, file: utf8(path)?, args: args.to_vec() },
        code,
        programs: Vec::new(),
        env: Default::default(),
        identity: utf8(&real)?,
        paths: path_arguments(args, context),
        notes: Vec::new(),
    })
}

/// An interpreter that a `#!` line names, by path or (after `env`) by name.
fn found(interpreter: &str, context: &Context) -> Result<PathBuf, CommandError> {
    let name = base_name(interpreter).to_owned();
    let by_name = |p: &palisade_process::programs::Programs| p.any(&name);
    if interpreter.starts_with('/') && !Path::new(interpreter).is_file() {
        return Err(CommandError::not_found(
            format!(
                "the script's first line names {}, which is not there",
                escape(interpreter, SHOWN)
            ),
            "install the server anew, so that its scripts name an interpreter of this machine",
        ));
    }
    self::interpreter(interpreter, context, by_name)
}

/// The folder of a program that brings its own libraries (`/opt/x/bin/x` with `/opt/x/lib`).
fn own_prefix(real: &Path, context: &Context) -> Option<PathBuf> {
    let prefix = real.parent().filter(|bin| bin.ends_with("bin"))?.parent()?;
    let own = prefix.join("lib").is_dir() && !context.is_too_wide(prefix);
    (own && !prefix.starts_with("/usr") && prefix != Path::new("/")).then(|| prefix.to_path_buf())
}

/// Java archives that are named to be run.
fn archives(args: &[String], context: &Context) -> Option<PathBuf> {
    let at = args.iter().position(|a| a == "-jar")?;
    context.absolute(args.get(at + 1)?).canonicalize().ok()
}

pub(crate) fn utf8(path: &Path) -> Result<String, CommandError> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        CommandError::usage(
            format!("{} is not UTF-8", escape(&path.to_string_lossy(), SHOWN)),
            "rename it",
        )
    })
}

/// Commands that would not run what they name behind these walls, and what to write instead.
fn refused(name: &str, args: &[String]) -> Option<CommandError> {
    let first = args.first().map_or("", String::as_str);
    let (what, hint): (String, &str) = match name {
        "sh" | "bash" | "dash" | "zsh" | "fish" | "ksh" | "pwsh" | "powershell" | "cmd" => (
            format!(
                "{name} starts programs that are only known once it runs, so they cannot be shown to it"
            ),
            "write the command that it would start, and pass variables with env NAME=VALUE or --grant env:NAME",
        ),
        "docker" | "podman" | "nerdctl" => (
            format!("{name} starts the server outside of these walls, in a container"),
            "run the program that is in the image (npx PKG, uvx PKG, or its path), or leave Palisade out and trust the container",
        ),
        "bunx" | "bun" => (
            "bun is not supported".into(),
            "most packages run on Node.js: write npx -y PKG, or node SCRIPT",
        ),
        "deno" => ("deno is not supported".into(), "where the server is on npm, write npx -y PKG"),
        "go" | "cargo" | "dotnet" | "mvn" | "gradle" | "make"
            if matches!(first, "run" | "exec" | "tool") || name == "make" =>
        {
            (
                format!(
                    "{name} {first} builds the program each time, which needs the network and the whole toolchain"
                ),
                "build it once and name the program that comes out",
            )
        }
        "npm" | "pnpm" | "yarn" => (
            format!("{name} {first} runs a shell line from package.json").trim_end().to_owned(),
            "write what it runs (node SCRIPT, see \"scripts\" in package.json), or npx PKG",
        ),
        "sudo" | "doas" | "su" => (
            format!("{name} changes the user, and nothing behind the walls can"),
            "write the server's command without it",
        ),
        _ => return None,
    };
    Some(CommandError::Usage { what, hint: hint.into() })
}

#[cfg(test)]
mod tests;
