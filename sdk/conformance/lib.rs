//! What tests need to drive plugins through the cases: the driver, and the TypeScript compiler.
//!
//! For tests alone: everything here panics with what went wrong, a missing program too.
#![forbid(unsafe_code)]
#![allow(clippy::panic, clippy::expect_used, clippy::print_stderr)]

pub mod components;

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

/// The root of the work tree.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("../..").canonicalize().expect("the work tree")
}

/// Runs a program; gives what it wrote. Panics if it cannot be started, or fails.
///
/// # Panics
/// See above.
pub fn run(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let output = command.output().unwrap_or_else(|e| panic!("{shown} cannot be started: {e}"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{shown} failed ({}):\n{out}{err}", output.status);
    out
}

/// Drives a plugin through the cases; gives the line that sums up. Panics with the cases that failed.
///
/// `command` is run in `folder`. `protocol_only`: the cases that every plugin passes; else all of them, for
/// a reference plugin. `lacks`: what the language cannot (see README.md).
///
/// # Panics
/// If a case fails.
pub fn drive(folder: &Path, command: &[&str], protocol_only: bool, lacks: &[&str]) -> String {
    let mut driver = Command::new("python3");
    driver.arg(root().join("sdk/conformance/drive.py"));
    if protocol_only {
        driver.arg("--protocol");
    }
    for lack in lacks {
        driver.args(["--lacks", lack]);
    }
    driver.arg(folder).arg("--").args(command);
    let output = driver.output().unwrap_or_else(|e| panic!("python3 cannot be started: {e}"));
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    let failed: Vec<&str> =
        out.lines().filter(|line| line.starts_with("FAILED") || line.starts_with("   ")).collect();
    assert!(output.status.success(), "{}\n{err}", failed.join("\n"));
    out.lines().last().unwrap_or_default().to_owned()
}

/// The TypeScript compiler and the types of Node.js, installed by npm into `target/test-packages` once for
/// each lock file.
#[derive(Debug)]
pub struct TypeScript {
    node_modules: PathBuf,
}

impl TypeScript {
    /// Installs it where that was not done.
    ///
    /// # Panics
    /// If npm is missing or fails.
    #[must_use]
    pub fn install() -> Self {
        let sdk = root().join("sdk/typescript");
        let folder = root().join("target/test-packages/typescript");
        fs::create_dir_all(&folder).expect("a folder for packages");
        // Tests are processes of their own; one installs, the others wait.
        let lock = File::create(folder.join("lock")).expect("a lock file");
        lock.lock().expect("the lock");
        let wanted =
            fs::read_to_string(sdk.join("package-lock.json")).expect("the lock file of npm");
        let stamp = folder.join("installed.json");
        if fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
            for name in ["package.json", "package-lock.json"] {
                fs::copy(sdk.join(name), folder.join(name)).expect("a copy");
            }
            let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
            run(Command::new("npm").args(arguments).current_dir(&folder));
            fs::write(&stamp, wanted).expect("a stamp");
        }
        Self { node_modules: folder.join("node_modules") }
    }

    /// Compiles the project in a folder, `tsc -p PROJECT`. The folder needs [`TypeScript::link`] before.
    ///
    /// # Panics
    /// If that fails.
    pub fn compile(&self, folder: &Path, project: &str) {
        let compiler = self.node_modules.join("typescript/bin/tsc");
        run(Command::new("node").arg(compiler).args(["-p", project]).current_dir(folder));
    }

    /// Gives a folder its `node_modules`, with types and, where `with_sdk`, the SDK as npm would put it there.
    ///
    /// # Panics
    /// If that fails.
    pub fn link(&self, folder: &Path, with_sdk: bool) {
        let modules = folder.join("node_modules");
        fs::create_dir_all(&modules).expect("node_modules");
        for name in ["@types", "undici-types"] {
            symlink(self.node_modules.join(name), modules.join(name)).expect("a link");
        }
        if with_sdk {
            let (from, to) = (root().join("sdk/typescript"), modules.join("@palisade/plugin"));
            copy(&from.join("dist"), &to.join("dist"));
            fs::copy(from.join("package.json"), to.join("package.json")).expect("a copy");
        }
    }
}

/// Tests and builds a plugin in Rust that `palisade new` made, and puts its program where its manifest
/// wants it. Dependencies are built once and kept in `target/test-packages`.
///
/// # Panics
/// If that fails.
pub fn build_rust(folder: &Path) {
    let target = root().join("target/test-packages/rust-plugin");
    fs::create_dir_all(&target).expect("a folder for builds");
    // Every such program has the same name there.
    let lock = File::create(target.join("lock")).expect("a lock file");
    lock.lock().expect("the lock");
    // The versions of this work tree, which are on this machine already.
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).expect("a copy");
    for what in ["test", "build"] {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([what, "--quiet", "--release"]).current_dir(folder);
        // The instrumentation of these tests is not the plugin's.
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER"] {
            cargo.env_remove(name);
        }
        run(cargo.env("CARGO_TARGET_DIR", &target));
    }
    let place = folder.join("target/release");
    fs::create_dir_all(&place).expect("a folder");
    fs::copy(target.join("release/plugin"), place.join("plugin")).expect("the program");
}

/// Copies a folder and what is below it, without `node_modules`.
///
/// # Panics
/// If that fails.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())) {
        let entry = entry.expect("an entry");
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if !path.is_dir() {
            fs::copy(&path, &copied).expect("a copy");
        } else if entry.file_name() != "node_modules" {
            copy(&path, &copied);
        }
    }
}
