//! `npx`, `npm exec`, `pnpm dlx`: a package of npm by its name.

use std::path::{Path, PathBuf};

use palisade_model::text::escape;

use super::{Package, Spec, Tool, unknown_option};
use crate::{Command, CommandError, Context, analyse, analyse::SHOWN, node::read_manifest};

/// Options that change nothing here.
const IDLE: [&str; 13] = [
    "-y",
    "--yes",
    "--no",
    "--no-install",
    "-q",
    "--quiet",
    "-s",
    "--silent",
    "--prefer-online",
    "--prefer-offline",
    "--offline",
    "--ignore-existing",
    "--verbose",
];
/// Options whose value changes nothing here.
const IDLE_VALUED: [&str; 4] = ["--loglevel", "--cache", "--shell", "--script-shell"];

/// `npx [options] PACKAGE[@VERSION] [arguments]`, or with `-p PACKAGE… COMMAND`.
pub(super) fn parse(
    args: &[String],
    drops_dashes: bool,
    context: &Context,
) -> Result<Command, CommandError> {
    let mut package = Package::new(Tool::Npm);
    let mut rest = args;
    let mut plain_name = false;
    while let [word, tail @ ..] = rest {
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let value = || attached.clone().or_else(|| tail.first().cloned()).unwrap_or_default();
        let after_value = if attached.is_some() { tail } else { tail.get(1..).unwrap_or_default() };
        rest = match name {
            "--" => {
                rest = tail;
                break;
            }
            "-p" | "--package" => {
                package.specs.push(spec(&value())?);
                after_value
            }
            "--registry" => {
                package.registry = Some(value());
                after_value
            }
            "--ignore-scripts" => {
                package.skip_scripts = true;
                tail
            }
            "-c" | "--call" => {
                return Err(CommandError::usage(
                    "npx -c runs a shell line",
                    "write npx -y -p PACKAGE COMMAND, with its arguments",
                ));
            }
            name if IDLE.contains(&name) => tail,
            name if IDLE_VALUED.contains(&name) => after_value,
            name if name.starts_with('-') => {
                return Err(unknown_option(
                    "npx",
                    name,
                    "write npx -y PACKAGE, and the server's own options after the package",
                ));
            }
            _ => break,
        };
    }
    let [word, tail @ ..] = rest else {
        return Err(CommandError::usage("npx names no package", "write npx -y PACKAGE"));
    };
    if package.specs.is_empty() {
        let spec = spec(word)?;
        plain_name = spec.request == spec.name;
        package.specs.push(spec);
    } else {
        if !is_command(word) {
            return Err(CommandError::usage(
                format!("{} is no name of a command", escape(word, SHOWN)),
                "write npx -y -p PACKAGE COMMAND",
            ));
        }
        package.command = Some(word.clone());
    }
    package.args = tail.to_vec();
    if drops_dashes && package.args.first().is_some_and(|a| a == "--") {
        package.args.remove(0);
    }
    // npx itself takes what is installed before it fetches anything.
    if plain_name
        && package.registry.is_none()
        && let Some(spec) = package.specs.first()
        && let Some(bin) = installed(&spec.name, context)
    {
        return analyse::plain(&bin, &package.args, context).map(Command::Installed);
    }
    Ok(Command::Package(package))
}

/// Whether a word can be the name of a command in `node_modules/.bin`.
fn is_command(word: &str) -> bool {
    !word.is_empty()
        && !word.starts_with(['-', '.'])
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Reads `name`, `name@version`, `@scope/name@range` (the registry forms of npm's package-spec page).
fn spec(text: &str) -> Result<Spec, CommandError> {
    let shown = escape(text, SHOWN);
    let elsewhere = [
        "://",
        "git+",
        "git@",
        "github:",
        "gitlab:",
        "bitbucket:",
        "file:",
        "link:",
        ".tgz",
        ".tar.gz",
    ];
    let scoped = text.starts_with('@');
    let slashes = text.matches('/').count();
    if elsewhere.iter().any(|mark| text.contains(mark))
        || text.starts_with(['.', '/', '~'])
        || slashes > usize::from(scoped)
    {
        return Err(CommandError::usage(
            format!("{shown} is not a package of the registry"),
            "install it yourself (npm install --prefix DIR …), look at it, and write node DIR/node_modules/PACKAGE/SCRIPT",
        ));
    }
    let at = text.get(1..).and_then(|rest| rest.find('@')).map(|at| at + 1);
    let (name, version) = match at.and_then(|at| text.split_at_checked(at)) {
        Some((name, version)) => (name, version.get(1..)),
        None => (text, None),
    };
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '_', '-'])
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    let good_name = name.len() <= 214
        && match name.strip_prefix('@') {
            Some(scoped) => scoped.split_once('/').is_some_and(|(s, n)| part(s) && part(n)),
            None => part(name),
        };
    let good_version = version.is_none_or(|v| {
        !v.is_empty()
            && v.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_+^~<>=*| ".contains(&b))
    });
    if !good_name || !good_version {
        return Err(CommandError::usage(
            format!("{shown} is no name of an npm package"),
            "write PACKAGE, @scope/PACKAGE, or either with @VERSION",
        ));
    }
    Ok(Spec { name: name.to_owned(), request: text.to_owned() })
}

/// A package (or a command by that name) that is installed in the project here, or globally.
fn installed(name: &str, context: &Context) -> Option<PathBuf> {
    for folder in context.directory.ancestors() {
        let modules = folder.join("node_modules");
        let command = modules.join(".bin").join(name);
        if is_command(name) && command.is_file() {
            return Some(command);
        }
        if let Some(script) = bin_of(&modules.join(name), None) {
            return Some(script);
        }
    }
    let node = context.programs().node("node").ok()?;
    let prefix = node.parent()?.parent()?;
    bin_of(&prefix.join("lib/node_modules").join(name), None)
}

/// The script of a package that a command of that name runs; without a name the package's only one, or the
/// one that is named like it (libnpmexec, get-bin-from-manifest).
pub(crate) fn bin_of(package: &Path, command: Option<&str>) -> Option<PathBuf> {
    let manifest = read_manifest(&package.join("package.json"))?;
    let name = manifest.get("name")?.as_str()?;
    let short = name.rsplit('/').next().unwrap_or(name);
    let bin = manifest.get("bin")?;
    let scripts: Vec<(String, String)> = match bin {
        serde_json::Value::String(script) => vec![(short.to_owned(), script.clone())],
        serde_json::Value::Object(map) => map
            .iter()
            .filter_map(|(name, script)| Some((name.clone(), script.as_str()?.to_owned())))
            .collect(),
        _ => return None,
    };
    let first = scripts.first()?.1.clone();
    let relative = match command {
        Some(command) => scripts.into_iter().find(|(name, _)| name == command)?.1,
        None if scripts.iter().all(|(_, script)| *script == first) => first,
        None => scripts.into_iter().find(|(name, _)| name == short)?.1,
    };
    let root = package.canonicalize().ok()?;
    let script = package.join(relative).canonicalize().ok()?;
    (script.starts_with(&root) && script.is_file()).then_some(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_the_registry_are_told_from_others() {
        for (text, name) in [
            ("left-pad", "left-pad"),
            ("left-pad@1.3.0", "left-pad"),
            ("@scope/x", "@scope/x"),
            ("@scope/x@^1.2 || 3", "@scope/x"),
            ("x@latest", "x"),
        ] {
            assert_eq!(spec(text).unwrap(), Spec { name: name.into(), request: text.into() });
        }
        for bad in [
            "",
            "@",
            "@x",
            "a/b",
            "./a",
            "/a",
            "git+https://h/x",
            "github:a/b",
            "https://h/x.tgz",
            "a@file:../b",
            "-rf",
            "a b",
            "a@",
            "@a/b/c",
            "a@$(x)",
            "_a",
            ".a",
            "a\n",
        ] {
            assert!(spec(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
