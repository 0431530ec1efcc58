//! The commands that Python packages bring: generated from their entry points, as installers do.
//!
//! Names and objects are a stranger's words that become a program's text: only plain ones are taken.

use std::{collections::BTreeMap, fs, path::Path};

use palisade_model::text::escape;

use super::store::Launch;
use crate::{CommandError, Package, packages::normal_name, script};

/// The scripts of an `entry_points.txt` (entry points specification): name, and what the script says.
pub(super) fn console(text: &str) -> BTreeMap<String, String> {
    let mut scripts = BTreeMap::new();
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.trim();
        } else if section == "console_scripts"
            && let Some((name, object)) = line.split_once('=')
        {
            let (name, object) = (name.trim(), object.split('[').next().unwrap_or_default().trim());
            let Some((module, function)) = object.split_once(':') else { continue };
            let dotted = |text: &str| {
                text.split('.').all(|part| {
                    !part.is_empty()
                        && !part.starts_with(|c: char| c.is_ascii_digit())
                        && part.chars().all(|c| c.is_alphanumeric() || c == '_')
                })
            };
            let plain = !name.is_empty()
                && !name.starts_with(['.', '-'])
                && !matches!(name, "python" | "python3")
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            let (module, function) = (module.trim(), function.trim());
            if plain && dotted(module) && dotted(function) {
                let first = function.split('.').next().unwrap_or(function);
                scripts.insert(
                    name.to_owned(),
                    format!("import sys\nfrom {module} import {first}\nif __name__ == \"__main__\":\n    sys.exit({function}())\n"),
                );
            }
        }
    }
    scripts
}

pub(super) fn write(path: &Path, code: &str) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    fs::write(path, format!("#!/usr/bin/env python3\n{code}"))?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o555))
}

/// The command to run: the one that was named, or the package's only one.
pub(super) fn launch(
    package: &Package,
    own: &BTreeMap<String, Vec<String>>,
    bin: &Path,
) -> Result<Launch, CommandError> {
    let main = package.specs.first().map_or("", |spec| spec.name.as_str());
    let wanted = package.command.as_deref().unwrap_or(main);
    let of_main = own.get(main).cloned().unwrap_or_default();
    let same = |name: &&String| normal_name(name) == normal_name(wanted);
    let name = if bin.join(wanted).is_file() && !wanted.contains('/') {
        wanted.to_owned()
    } else if let Some(name) = of_main.iter().find(same) {
        name.clone()
    } else if let [only] = of_main.as_slice() {
        only.clone()
    } else {
        let names =
            if of_main.is_empty() { "none".to_owned() } else { escape(&of_main.join(", "), 300) };
        return Err(CommandError::NotFound {
            what: format!("{} brings no command {}; its commands: {names}", package.shown(), escape(wanted, 80)),
            hint: "name one of them: uvx --from PACKAGE COMMAND; a package without commands may have a module: install it in a virtual environment and write VENV/bin/python -m MODULE".into(),
        });
    };
    let script = bin.join(&name);
    let head = script::read_head(&script)
        .map_err(|e| CommandError::cache("reading the package's command", e))?;
    let first = head.split(|b| *b == b'\n').next().unwrap_or_default();
    let python = first.starts_with(b"#!") && String::from_utf8_lossy(first).contains("python");
    let relative = format!("bin/{name}");
    Ok(if python {
        Launch::Python { script: relative }
    } else {
        Launch::Program { file: relative }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_entry_points_become_scripts() {
        let text = "[console_scripts]\nserver-x = pkg.mod:main\nnested=pkg:Cls.run [extra]\n\
            evil = pkg:main(); import os\n../up = pkg:main\npython3 = pkg:main\nempty = pkg\n[gui_scripts]\ng = pkg:main\n";
        let scripts = console(text);
        assert_eq!(scripts.keys().collect::<Vec<_>>(), ["nested", "server-x"]);
        assert!(scripts["nested"].contains("from pkg import Cls\n"));
        assert!(scripts["nested"].contains("sys.exit(Cls.run())"));
    }
}
