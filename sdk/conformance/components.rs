//! Plugins as WebAssembly components for tests: built once for their sources, and run by `palisade-engine`,
//! which speaks the protocol for them.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{root, run};

/// What the reference plugin has, so that everything that it imports is linked.
const RIGHTS: [&str; 5] = [
    "storage.kv:k",
    "event.publish:chat.>",
    "net.http:example.org:80",
    "host.call:x",
    "secret:token",
];

/// The command that runs a component behind the protocol. Compiled code is kept between runs.
///
/// # Panics
/// If the engine cannot be built.
#[must_use]
pub fn engine(component: &Path) -> Vec<String> {
    let path = |path: PathBuf| path.display().to_string();
    let program = program();
    let cache = root().join("target/guests/compiled");
    fs::create_dir_all(&cache).expect("a folder");
    // In a debug build a large component takes longer to compile than a case waits.
    let mut prepare = Command::new(&program);
    run(prepare.arg("--prepare").arg("--cache").arg(&cache).arg(component));
    let mut command = vec![path(program), "--cache".to_owned(), path(cache)];
    for right in RIGHTS {
        command.extend(["--right".to_owned(), right.to_owned()]);
    }
    command.push(path(component.to_owned()));
    command
}

/// The program that speaks the protocol for a component. `cargo xtask test` has built it together with the
/// tests and says so; by itself cargo would build the engine anew, with the features of fewer packages.
fn program() -> PathBuf {
    if let Some(built) = std::env::var_os("PALISADE_ENGINE").map(PathBuf::from)
        && built.is_file()
    {
        return built;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", "palisade-wasm", "--bin", "palisade-engine"]);
    run(cargo.current_dir(root()));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    target.join("debug/palisade-engine")
}

/// The reference plugin in Rust, for `wasm32-unknown-unknown` or `wasm32-wasip2`.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn rust(target: &str) -> PathBuf {
    run(Command::new("rustup").args(["target", "add", target]));
    let folder = root().join("target/guests");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--release", "-p", "palisade-conformance-guest"]);
    cargo.args(["--target", target, "--target-dir"]).arg(&folder);
    for (name, value) in [("DEBUG", "0"), ("STRIP", "symbols"), ("OPT_LEVEL", "s")] {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
    }
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER"] {
        cargo.env_remove(name);
    }
    run(cargo.current_dir(root()));
    folder.join(target).join("release/conformance_guest.wasm")
}

/// A plugin in Python, from a folder with `main.py` and `world.wit`.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn python(name: &str, sources: &[PathBuf]) -> PathBuf {
    let sdk = root().join("sdk/python");
    kept(name, sources, &[&sdk.join("palisade_plugin")], |folder, component| {
        let build = ["-B", "-m", "palisade_plugin", "build", "-o"];
        let mut python = Command::new(componentize_py().join("bin/python"));
        python.args(build).arg(component).env("PYTHONPATH", &sdk);
        run(python.current_dir(folder));
    })
}

/// A Python with componentize-py, installed by pip into `target/test-packages` once.
///
/// # Panics
/// If that fails.
#[must_use]
pub fn componentize_py() -> PathBuf {
    const PACKAGE: &str = "componentize-py==0.25.1";
    let folder = root().join("target/test-packages/componentize-py");
    once(&folder, PACKAGE, || {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")));
        let mut pip = Command::new(folder.join("venv/bin/pip"));
        run(pip.args(["install", "--quiet", "--disable-pip-version-check", PACKAGE]));
    });
    folder.join("venv")
}

/// A plugin in JavaScript, from a folder with `main.js` and `world.wit`.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn javascript(name: &str, sources: &[PathBuf]) -> PathBuf {
    let sdk = root().join("sdk/typescript");
    kept(name, sources, &[&sdk.join("dist"), &sdk.join("wit")], |folder, component| {
        let place = folder.join("node_modules/@palisade/plugin");
        for part in ["dist", "wit"] {
            crate::copy(&sdk.join(part), &place.join(part));
        }
        fs::copy(sdk.join("package.json"), place.join("package.json")).expect("a copy");
        link_componentize_js(folder);
        let build = ["node_modules/@palisade/plugin/dist/build.js", "main.js", "-o"];
        run(Command::new("node").args(build).arg(component).current_dir(folder));
    })
}

/// Gives a folder componentize-js in its `node_modules`, installed by npm into `target/test-packages` once.
///
/// # Panics
/// If that fails.
pub fn link_componentize_js(folder: &Path) {
    const PACKAGE: &str = "@bytecodealliance/componentize-js@0.23.0";
    let packages = root().join("target/test-packages/componentize-js");
    once(&packages, PACKAGE, || {
        fs::write(packages.join("package.json"), "{\"private\": true}").expect("a file");
        let install = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"];
        run(Command::new("npm").args(install).arg(PACKAGE).current_dir(&packages));
    });
    let modules = folder.join("node_modules");
    fs::create_dir_all(&modules).expect("a folder");
    let link = modules.join("@bytecodealliance");
    if !link.exists() {
        std::os::unix::fs::symlink(packages.join("node_modules/@bytecodealliance"), link)
            .expect("a link");
    }
}

/// Does `install` unless that was done for `wanted`. Tests are processes of their own; one installs, the
/// others wait.
fn once(folder: &Path, wanted: &str, install: impl FnOnce()) {
    fs::create_dir_all(folder).expect("a folder for packages");
    let lock = File::create(folder.join("lock")).expect("a lock file");
    lock.lock().expect("the lock");
    let stamp = folder.join("installed.txt");
    if fs::read_to_string(&stamp).ok().as_deref() != Some(wanted) {
        install();
        fs::write(stamp, wanted).expect("a stamp");
    }
}

/// The component that was built for the same sources, or a new one.
fn kept(
    name: &str,
    sources: &[PathBuf],
    sdk: &[&Path],
    build: impl FnOnce(&Path, &Path),
) -> PathBuf {
    let folder = root().join("target/guests").join(name);
    fs::create_dir_all(&folder).expect("a folder");
    let lock = File::create(folder.join("lock")).expect("a lock file");
    lock.lock().expect("the lock");
    let mut digest = DefaultHasher::new();
    for path in sources.iter().map(PathBuf::as_path).chain(sdk.iter().copied()) {
        digest_of(path, &mut digest);
    }
    let component = folder.join(format!("{:016x}.wasm", digest.finish()));
    if !component.exists() {
        for entry in fs::read_dir(&folder).expect("the folder").flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "wasm") {
                fs::remove_file(entry.path()).expect("an old one gone");
            }
        }
        let work = folder.join("work");
        let _ = fs::remove_dir_all(&work);
        fs::create_dir_all(&work).expect("a folder");
        for source in sources {
            let name = source.file_name().expect("a name");
            fs::copy(source, work.join(name)).expect("a copy");
        }
        let made = folder.join("made");
        build(&work, &made);
        fs::rename(made, &component).expect("the component");
    }
    component
}

fn digest_of(path: &Path, digest: &mut DefaultHasher) {
    if path.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path).expect("a folder").flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries.iter().filter(|entry| entry.file_name() != "__pycache__") {
            digest_of(&entry.path(), digest);
        }
    } else {
        path.display().to_string().hash(digest);
        fs::read(path).expect("a file").hash(digest);
    }
}
