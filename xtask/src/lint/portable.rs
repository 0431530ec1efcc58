//! Whether the code type-checks for machines that this one is not: another processor, and the systems that
//! have no Linux walls, where WebAssembly is the wall.
//!
//! Nothing is linked or run there. C code that dependencies bring (SQLite, ring) is not compiled: in place
//! of a C compiler for that system stand two scripts that make empty files.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::{Result, step, tools};

/// What only this repository's own tests, measurements and commands use; they run on the developers' system.
const OWN: [&str; 6] = [
    "palisade-bench",
    "palisade-conformance",
    "palisade-conformance-guest",
    "palisade-escape",
    "palisade-vm",
    "xtask",
];

const TARGETS: [&str; 3] =
    ["aarch64-unknown-linux-gnu", "aarch64-apple-darwin", "x86_64-pc-windows-msvc"];

const COMPILER: &str = r#"#!/bin/sh
# In place of a C compiler: an empty object file.
out=
while [ $# -gt 0 ]; do
    case "$1" in
        -o) out=$2; shift ;;
        -o*) out=${1#-o} ;;
        /Fo* | -Fo*) out=${1#?Fo} ;;
    esac
    shift
done
[ -z "$out" ] || : > "$out"
"#;

const ARCHIVER: &str = r#"#!/bin/sh
# In place of an archiver: an empty archive.
for word in "$@"; do
    case "$word" in
        -out:* | /out:*) : > "${word#?out:}"; exit ;;
        *.a | *.lib) : > "$word"; exit ;;
    esac
done
"#;

fn script(folder: &Path, name: &str, text: &str) -> Result<std::path::PathBuf> {
    let path = folder.join(name);
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, text))
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)));
    written.map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

pub(super) fn run() -> Result {
    let folder = std::env::current_dir()
        .map_err(|e| format!("the current folder: {e}"))?
        .join("target/no-compiler");
    let compiler = script(&folder, "cc", COMPILER)?;
    let archiver = script(&folder, "ar", ARCHIVER)?;
    let present = tools::ensure_targets(&TARGETS)?;
    for target in TARGETS {
        if !present.contains(&target) {
            eprintln!("NOT CHECKED: {target}");
            continue;
        }
        let mut check = step::cargo(["check", "--workspace", "--quiet", "--target", target]);
        for package in OWN {
            check.args(["--exclude", package]);
        }
        let name = target.replace('-', "_");
        check
            .env(format!("CC_{name}"), &compiler)
            .env(format!("CXX_{name}"), &compiler)
            .env(format!("AR_{name}"), &archiver)
            // The helper of the Linux walls is linked when its crate is built; it needs nothing of a system.
            .env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), "rust-lld")
            .env("RUSTFLAGS", "-D warnings");
        step::run(&mut check).map_err(|e| format!("{target}: {e}"))?;
    }
    Ok(())
}
