//! `uvx`, `uv tool run`, `pipx run`: a package of PyPI by its name. `uv run`: a project's environment.

use palisade_model::text::escape;

use super::{Package, Tool, pypi, unknown_option};
use crate::{Command, CommandError, Context, analyse, analyse::SHOWN, python, script, tree};

/// Options that change nothing here.
const IDLE: [&str; 22] = [
    "-q",
    "--quiet",
    "-v",
    "--verbose",
    "--isolated",
    "-n",
    "--no-cache",
    "--refresh",
    "-U",
    "--upgrade",
    "--offline",
    "--no-progress",
    "--no-config",
    "--native-tls",
    "--system-certs",
    "--no-build",
    "--managed-python",
    "--no-managed-python",
    "--no-python-downloads",
    "--no-env-file",
    "--lfs",
    "--compile-bytecode",
];
/// Options whose value changes nothing here.
const IDLE_VALUED: [&str; 7] = [
    "--cache-dir",
    "--color",
    "--python-preference",
    "--link-mode",
    "--refresh-package",
    "--directory",
    "--allow-insecure-host",
];

/// What an option asks for.
enum Meaning {
    Idle,
    IdleValue,
    From,
    With,
    Python,
    Index,
    MoreIndex,
    Refused(&'static str),
    Unknown,
}

/// `uvx [options] PACKAGE[@VERSION] [arguments]`, or with `--from PACKAGE COMMAND`.
pub(super) fn tool_run(args: &[String]) -> Result<Command, CommandError> {
    let meaning = |name: &str| match name {
        "--from" => Meaning::From,
        "-w" | "--with" => Meaning::With,
        "-p" | "--python" => Meaning::Python,
        "-i" | "--index-url" | "--default-index" => Meaning::Index,
        "--index" | "--extra-index-url" => Meaning::MoreIndex,
        "--with-editable"
        | "--with-requirements"
        | "-c"
        | "--constraints"
        | "-b"
        | "--build-constraints"
        | "--overrides"
        | "--env-file"
        | "-f"
        | "--find-links"
        | "-C"
        | "--config-setting"
        | "--prerelease"
        | "--resolution"
        | "--exclude-newer"
        | "--no-index"
        | "--index-strategy"
        | "--config-file"
        | "--python-platform"
        | "--torch-backend" => Meaning::Refused(
            "install the tool yourself (uv tool install …), and write the name of its command",
        ),
        name if IDLE.contains(&name) => Meaning::Idle,
        name if IDLE_VALUED.contains(&name) => Meaning::IdleValue,
        _ => Meaning::Unknown,
    };
    run("uvx", args, meaning)
}

/// `pipx run [options] PACKAGE [arguments]`, or with `--spec PACKAGE COMMAND`.
pub(super) fn pipx_run(args: &[String]) -> Result<Command, CommandError> {
    let meaning = |name: &str| match name {
        "--spec" => Meaning::From,
        "--with" => Meaning::With,
        "--python" => Meaning::Python,
        "-i" | "--index-url" => Meaning::Index,
        "--pip-args" | "--path" | "--editable" | "-e" | "--system-site-packages" => {
            Meaning::Refused(
                "install the tool yourself (pipx install …), and write the name of its command",
            )
        }
        "-q" | "--quiet" | "-v" | "--verbose" | "--no-cache" | "--fetch-missing-python" => {
            Meaning::Idle
        }
        _ => Meaning::Unknown,
    };
    run("pipx run", args, meaning)
}

fn run(
    program: &str,
    args: &[String],
    meaning: impl Fn(&str) -> Meaning,
) -> Result<Command, CommandError> {
    let mut package = Package::new(Tool::Pypi);
    let (mut from, mut with) = (None, Vec::new());
    let mut rest = args;
    while let [word, tail @ ..] = rest {
        if word == "--" {
            rest = tail;
            break;
        }
        if !word.starts_with('-') {
            break;
        }
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let value = attached.clone().or_else(|| tail.first().cloned()).unwrap_or_default();
        let after_value = if attached.is_some() { tail } else { tail.get(1..).unwrap_or_default() };
        rest = match meaning(name) {
            Meaning::Idle => {
                rest = tail;
                continue;
            }
            Meaning::IdleValue => after_value,
            Meaning::From => {
                from = Some(value);
                after_value
            }
            Meaning::With => {
                with.extend(value.split(',').map(str::to_owned));
                after_value
            }
            Meaning::Python => {
                package.interpreter = Some(value);
                after_value
            }
            Meaning::Index => {
                package.registry = Some(value);
                after_value
            }
            Meaning::MoreIndex => {
                // `name=url` gives the index a name.
                let url = value
                    .split_once('=')
                    .filter(|(n, _)| !n.contains([':', '/']))
                    .map(|(_, u)| u.to_owned());
                package.more_registries.push(url.unwrap_or(value));
                after_value
            }
            Meaning::Refused(hint) => {
                return Err(CommandError::usage(
                    format!("{program} {} is not supported", escape(name, SHOWN)),
                    hint,
                ));
            }
            Meaning::Unknown => {
                return Err(unknown_option(
                    program,
                    name,
                    "write the package and the server's own options after it",
                ));
            }
        };
    }
    let [word, tail @ ..] = rest else {
        return Err(CommandError::usage(
            format!("{program} names no package"),
            format!("write {program} PACKAGE"),
        ));
    };
    match from {
        Some(from) => {
            package.specs.push(pypi::spec(&from)?.0);
            let good = !word.is_empty() && !word.starts_with(['-', '.']) && !word.contains('/');
            if !good {
                return Err(CommandError::usage(
                    format!("{} is no name of a command", escape(word, SHOWN)),
                    format!("write {program} with the package and the command that it brings"),
                ));
            }
            // `uvx --from x cmd@1.2` is allowed and means the package's version; nobody writes it.
            package.command = Some(word.clone());
        }
        None => {
            let (spec, written) = pypi::spec(word)?;
            package.specs.push(spec);
            package.command = Some(written);
        }
    }
    for more in with {
        package.specs.push(pypi::spec(&more)?.0);
    }
    package.args = tail.to_vec();
    Ok(Command::Package(package))
}

/// `uv [global options] tool run …` or `uv run …`.
pub(super) fn parse(args: &[String], context: &Context) -> Result<Command, CommandError> {
    let mut context = context.clone();
    let mut rest = args;
    while let [word, tail @ ..] = rest {
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.as_str(), None),
        };
        match (name, attached) {
            ("--directory" | "--project", Some(folder)) => {
                context.directory = context.absolute(folder);
                rest = tail;
            }
            ("--directory" | "--project", None) => {
                if let Some(folder) = tail.first() {
                    context.directory = context.absolute(folder);
                }
                rest = tail.get(1..).unwrap_or_default();
            }
            (name, _) if IDLE.contains(&name) => rest = tail,
            (name, None) if IDLE_VALUED.contains(&name) => rest = tail.get(1..).unwrap_or_default(),
            ("run", _) => return project_run(tail, &mut context),
            ("tool", _) if tail.first().is_some_and(|w| w == "run") => {
                return tool_run(tail.get(1..).unwrap_or_default());
            }
            _ => break,
        }
    }
    Err(CommandError::usage(
        "of uv only `uv run` and `uv tool run` start a server",
        "write uvx PACKAGE, or uv run --directory PROJECT COMMAND",
    ))
}

/// `uv run [options] COMMAND|SCRIPT|-m MODULE`: from the project's environment as it is. uv would bring that
/// up to date first; this does not.
fn project_run(args: &[String], context: &mut Context) -> Result<Command, CommandError> {
    const HINT: &str = "packages of the index: uvx --from PACKAGE COMMAND. A project: uv sync in its folder once, then uv run --directory PROJECT COMMAND";
    let mut rest = args;
    let mut module = None;
    while let [word, tail @ ..] = rest {
        if word == "--" {
            rest = tail;
            break;
        }
        if !word.starts_with('-') {
            break;
        }
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let value = attached.clone().or_else(|| tail.first().cloned()).unwrap_or_default();
        let after_value = if attached.is_some() { tail } else { tail.get(1..).unwrap_or_default() };
        rest = match name {
            "--directory" | "--project" => {
                context.directory = context.absolute(&value);
                after_value
            }
            "-m" | "--module" => {
                module = Some(value);
                rest = after_value;
                break;
            }
            "--frozen" | "--locked" | "--no-sync" | "--exact" | "--no-dev" | "--dev"
            | "--all-extras" | "--active" | "--all-packages" | "--all-groups" => tail,
            "--package" | "--extra" | "--group" | "--python" | "-p" => after_value,
            name if IDLE.contains(&name) => tail,
            name if IDLE_VALUED.contains(&name) => after_value,
            name => {
                return Err(CommandError::usage(
                    format!("uv run {} is not supported", escape(name, SHOWN)),
                    HINT,
                ));
            }
        };
    }
    let first = rest.first().cloned();
    let looks_like_script = first.as_deref().is_some_and(|w| w.ends_with(".py"));
    if module.is_none()
        && looks_like_script
        && let Some(file) = &first
        && let Ok(text) = script::read_head(&context.absolute(file))
        && String::from_utf8_lossy(&text).lines().any(|line| line.trim() == "# /// script")
    {
        return Err(CommandError::usage(
            format!(
                "{} lists its own packages, for which uv makes an environment at each start",
                escape(file, SHOWN)
            ),
            "make one: uv venv ENV; uv pip install --python ENV PACKAGES; and write ENV/bin/python SCRIPT",
        ));
    }
    let project = tree::nearest(&context.directory, &["pyproject.toml", ".venv"], context)
        .unwrap_or_else(|| context.directory.clone());
    let bin = project.join(".venv/bin");
    let interpreter = bin.join("python");
    if !interpreter.is_file() {
        return Err(CommandError::not_found(
            format!("{} has no environment (.venv)", escape(&project.to_string_lossy(), SHOWN)),
            HINT,
        ));
    }
    let start = match (module, rest) {
        (Some(module), args) => {
            let mut words = vec!["-m".to_owned(), module];
            words.extend(args.iter().cloned());
            python::command(interpreter, &words, context)?
        }
        (None, [word, args @ ..]) => {
            let own = bin.join(word);
            if palisade_process::programs::is_python(word) {
                python::command(interpreter, args, context)?
            } else if looks_like_script {
                python::command(interpreter, rest, context)?
            } else if !word.contains('/') && own.is_file() {
                analyse::plain(&own, args, context)?
            } else {
                return analyse::analyse(rest, context);
            }
        }
        (None, []) => return Err(CommandError::usage("uv run names no command", HINT)),
    };
    Ok(Command::Installed(start))
}
