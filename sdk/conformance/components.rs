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
    let rights: Vec<&str> = RIGHTS.into_iter().flat_map(|right| ["--right", right]).collect();
    engine_with(component, &rights)
}

/// The command that runs a module for Extism behind the protocol; `output`: what its functions give.
///
/// # Panics
/// If the engine cannot be built, or the module not compiled.
#[must_use]
pub fn extism_engine(module: &Path, output: &str) -> Vec<String> {
    engine_with(module, &["--extism", "--output", output, "--right", "host.call:*"])
}

fn engine_with(file: &Path, options: &[&str]) -> Vec<String> {
    let path = |path: PathBuf| path.display().to_string();
    let program = program();
    let cache = root().join("target/guests/compiled");
    fs::create_dir_all(&cache).expect("a folder");
    // In a debug build a large component takes longer to compile than a case waits.
    let mut prepare = Command::new(&program);
    run(prepare.arg("--prepare").arg("--cache").arg(&cache).args(options).arg(file));
    let mut command = vec![path(program), "--cache".to_owned(), path(cache)];
    command.extend(options.iter().copied().map(str::to_owned));
    command.push(path(file.to_owned()));
    command
}

/// The command that runs a component, or (`extism`: what its functions give) a module for Extism, with the
/// engine behind the walls around processes.
///
/// # Panics
/// If the program cannot be built.
#[must_use]
pub fn walled(file: &Path, extism: Option<&str>) -> Vec<String> {
    let path = |path: &Path| path.display().to_string();
    let program = built("PALISADE_WALLED", ["--example", "walled"], "examples/walled");
    let cache = root().join("target/guests/walled");
    fs::create_dir_all(&cache).expect("a folder");
    let mut command = vec![path(&program), path(file), path(&cache)];
    match extism {
        Some(output) => {
            command.extend(["--extism", output, "host.call:*"].map(str::to_owned));
        }
        None => command.extend(RIGHTS.map(str::to_owned)),
    }
    // In a debug build a large component takes longer to compile than a case waits.
    let (program, arguments) = command.split_first().expect("a program");
    run(Command::new(program).args(arguments).env("PALISADE_WALLED_PREPARE", "1"));
    command
}

/// The crate of the reference plugin for Extism, which stands apart from the workspace.
fn extism_crate() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER"] {
        cargo.env_remove(name);
    }
    cargo.current_dir(root().join("sdk/conformance/plugins/extism"));
    cargo
}

/// The reference plugin for Extism, built with Extism's kit for Rust.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn extism(target: &str) -> PathBuf {
    run(Command::new("rustup").args(["target", "add", target]));
    let folder = root().join("target/guests");
    let mut cargo = extism_crate();
    cargo.args(["build", "--quiet", "--release", "--locked", "--target", target, "--target-dir"]);
    run(cargo.arg(&folder));
    folder.join(target).join("release/conformance_extism.wasm")
}

/// A module as the Extism project publishes it, in the package of its kit for Rust.
///
/// # Panics
/// If the package cannot be had.
#[must_use]
pub fn published_by_extism() -> PathBuf {
    let told = run(extism_crate().args(["metadata", "--locked", "--format-version", "1"]));
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let packages = told.get("packages").and_then(|all| all.as_array()).expect("packages");
    let is_kit = |package: &&serde_json::Value| {
        package.get("name").and_then(|name| name.as_str()) == Some("extism-pdk")
    };
    let kit = packages.iter().find(is_kit).expect("the kit");
    let manifest = kit.get("manifest_path").and_then(|path| path.as_str()).expect("a path");
    Path::new(manifest).with_file_name("count_vowels.wasm")
}

/// A plugin for Extism in AssemblyScript, built with its compiler and kit, which npm brings into
/// `target/test-packages` once.
///
/// # Panics
/// If that fails.
#[must_use]
pub fn assemblyscript() -> PathBuf {
    const PACKAGES: [&str; 2] = ["assemblyscript@0.28.20", "@extism/as-pdk@1.0.0"];
    let packages = root().join("target/test-packages/conformance-assemblyscript");
    let source = root().join("crates/palisade-wasm/tests/guests/extism-assemblyscript/plugin.ts");
    once(&packages, &PACKAGES.join(" "), || {
        fs::write(packages.join("package.json"), "{\"private\": true}").expect("a file");
        let install = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"];
        run(Command::new("npm").args(install).args(PACKAGES).current_dir(&packages));
    });
    kept("assemblyscript", &[source], &[], |folder, module| {
        std::os::unix::fs::symlink(packages.join("node_modules"), folder.join("node_modules"))
            .expect("a link");
        let build = ["node_modules/assemblyscript/bin/asc.js", "plugin.ts", "-O", "--use"];
        let mut compiler = Command::new("node");
        compiler.args(build).args(["abort=plugin/stop", "--outFile"]).arg(module);
        run(compiler.current_dir(folder));
    })
}

/// The program that speaks the protocol for a component.
fn program() -> PathBuf {
    built("PALISADE_ENGINE", ["--bin", "palisade-engine"], "palisade-engine")
}

/// A program of palisade-wasm's. `cargo xtask test` has built it together with the tests and says where it is; by
/// itself cargo would build the engine anew, with the features of fewer packages.
fn built(variable: &str, what: [&str; 2], place: &str) -> PathBuf {
    if let Some(built) = std::env::var_os(variable).map(PathBuf::from)
        && built.is_file()
    {
        return built;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", "palisade-wasm"]).args(what);
    run(cargo.current_dir(root()));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    target.join("debug").join(place)
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
