//! Every SDK passes every case, and its own tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use palisade_conformance::{TypeScript, components, copy, drive, root, run};
use serde_json::Value;

/// Drives a plugin. What it cannot is named in a `conformance.json` and nowhere else: see [`lacks_of`].
fn passes(sdk: &str, folder: &Path, command: &[&str], lacks: &[String], at_least: usize) {
    let lacks: Vec<&str> = lacks.iter().map(String::as_str).collect();
    let summary = drive(folder, command, false, &lacks);
    println!("{sdk}: {summary}");
    let passed: usize = summary.split(' ').next().unwrap().parse().unwrap();
    assert!(passed >= at_least, "{sdk}: {summary}");
}

/// What the plugin `plugins/PLUGIN` says in its `conformance.json` that it lacks.
fn lacks_of(plugin: &str) -> Vec<String> {
    let path = root().join("sdk/conformance/plugins").join(plugin).join("conformance.json");
    let about: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let lacks = about["lacks"].as_array().unwrap().iter();
    lacks.map(|lack| lack.as_str().unwrap().to_owned()).collect()
}

#[test]
fn python_passes_the_suite() {
    let folder = root().join("sdk/conformance/plugins/python");
    passes("python", &folder, &["python3", "main.py"], &lacks_of("python"), 95);
}

#[test]
fn rust_passes_the_suite() {
    let folder = root().join("sdk/conformance/plugins/rust");
    let command = [env!("CARGO_BIN_EXE_conformance-plugin")];
    passes("rust", &folder, &command, &lacks_of("rust"), 95);
}

#[test]
fn typescript_passes_the_suite() {
    let compiler = TypeScript::install();
    let folder = scratch("conformance");
    copy(&root().join("sdk/conformance/plugins/typescript"), &folder);
    compiler.link(&folder, true);
    compiler.compile(&folder, ".");
    passes("typescript", &folder, &["node", "dist/main.js"], &lacks_of("typescript"), 83);
}

/// Drives the component, or the module, that `plugins/PLUGIN` is about.
fn component_passes(name: &str, plugin: &str, command: &[String], at_least: usize) {
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    passes(name, &root(), &command, &lacks_of(plugin), at_least);
}

/// The same of one with WASI: it has standard streams, those of the engine, beside what the plugin has.
fn component_on_wasi_passes(name: &str, plugin: &str, command: &[String], at_least: usize) {
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut lacks = lacks_of(plugin);
    lacks.retain(|lack| lack != "streams");
    passes(name, &root(), &command, &lacks, at_least);
}

#[test]
fn wasm_rust_passes_the_suite() {
    let component = components::rust("wasm32-unknown-unknown");
    let command = components::engine(&component);
    component_passes("wasm/rust, wasm32-unknown-unknown", "rust-wasm", &command, 70);
}

#[test]
fn wasm_rust_on_wasi_passes_the_suite() {
    let command = components::engine(&components::rust("wasm32-wasip2"));
    component_on_wasi_passes("wasm/rust, wasm32-wasip2", "rust-wasm", &command, 71);
}

#[test]
fn wasm_python_passes_the_suite() {
    let plugins = root().join("sdk/conformance/plugins");
    let sources = [plugins.join("python/main.py"), plugins.join("python-wasm/world.wit")];
    let component = components::python("python", &sources);
    component_passes("wasm/python", "python-wasm", &components::engine(&component), 70);
}

/// The plugin in TypeScript as a component. Two tests drive it, which may be processes of their own.
fn javascript_component() -> PathBuf {
    let place = root().join("target/test-packages/typescript-work");
    fs::create_dir_all(&place).unwrap();
    let lock = fs::File::create(place.join("component.lock")).unwrap();
    lock.lock().unwrap();
    let compiler = TypeScript::install();
    let folder = scratch("component");
    let plugins = root().join("sdk/conformance/plugins");
    copy(&plugins.join("typescript"), &folder);
    compiler.link(&folder, true);
    compiler.compile(&folder, ".");
    let sources = [folder.join("dist/main.js"), plugins.join("js-wasm/world.wit")];
    components::javascript("js", &sources)
}

#[test]
fn wasm_js_passes_the_suite() {
    component_passes("wasm/js", "js-wasm", &components::engine(&javascript_component()), 70);
}

// A component whose engine stands behind walls can what it can without them.

#[test]
fn walled_rust_passes_the_suite() {
    let component = components::rust("wasm32-unknown-unknown");
    let command = components::walled(&component, None);
    component_passes("wasm+process/rust", "rust-wasm", &command, 70);
}

#[test]
fn walled_python_passes_the_suite() {
    let plugins = root().join("sdk/conformance/plugins");
    let sources = [plugins.join("python/main.py"), plugins.join("python-wasm/world.wit")];
    let component = components::python("python", &sources);
    let command = components::walled(&component, None);
    component_passes("wasm+process/python", "python-wasm", &command, 70);
}

#[test]
fn walled_rust_on_wasi_passes_the_suite() {
    let command = components::walled(&components::rust("wasm32-wasip2"), None);
    component_on_wasi_passes("wasm+process/rust, wasm32-wasip2", "rust-wasm", &command, 71);
}

#[test]
fn walled_js_passes_the_suite() {
    let command = components::walled(&javascript_component(), None);
    component_passes("wasm+process/js", "js-wasm", &command, 70);
}

#[test]
fn walled_extism_passes_what_its_interface_has_words_for() {
    let command = components::walled(&components::extism("wasm32-wasip1"), Some("json"));
    component_passes("wasm+process/extism", "extism", &command, 55);
}

#[test]
fn walled_modules_for_extism_of_any_origin_speak_the_protocol() {
    modules_speak(|module| components::walled(module, Some("auto")));
}

#[test]
fn extism_passes_what_its_interface_has_words_for() {
    let command = components::extism_engine(&components::extism("wasm32-wasip1"), "json");
    component_passes("extism", "extism", &command, 55);
}

#[test]
fn modules_for_extism_of_any_origin_speak_the_protocol() {
    modules_speak(|module| components::extism_engine(module, "auto"));
}

/// The cases that need nothing of a plugin but that it speaks the protocol, on modules that were built for
/// Extism and know nothing of it.
fn modules_speak(command: impl Fn(&Path) -> Vec<String>) {
    for module in [components::published_by_extism(), components::assemblyscript()] {
        let command = command(&module);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let summary = drive(&root(), &command, true, &["introduction"]);
        println!("{}: {summary}", module.display());
        assert!(summary.contains(" 0 failed, 1 not possible"), "{summary}");
    }
}

/// A lack without a reason, or that no case asks about, would be a silent gap.
#[test]
fn every_lack_has_its_reason_and_its_cases() {
    let folder = root().join("sdk/conformance");
    let mut needs = BTreeSet::new();
    for text in files(&folder.join("cases")).values() {
        let cases: Vec<Value> = serde_json::from_str(text).unwrap();
        for list in cases.iter().flat_map(|case| [&case["needs"], &case["without"]]) {
            let names = list.as_array().into_iter().flatten();
            needs.extend(names.map(|name| name.as_str().unwrap().to_owned()));
        }
    }
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    for name in &needs {
        assert!(readme.contains(&format!("`{name}`")), "README.md does not say what {name} is");
    }
    for entry in fs::read_dir(folder.join("plugins")).unwrap() {
        let path = entry.unwrap().path().join("conformance.json");
        let about: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        for lack in about["lacks"].as_array().unwrap() {
            let lack = lack.as_str().unwrap();
            assert!(needs.contains(lack), "{}: no case asks for {lack}", path.display());
            let why = about["why"][lack].as_str().unwrap_or_default();
            assert!(!why.is_empty(), "{}: why no {lack}?", path.display());
        }
    }
}

/// The WIT files stand in each SDK, because each can be used alone.
#[test]
fn the_wit_files_of_every_sdk_are_those_of_the_engine() {
    let engine = files(&root().join("crates/palisade-wasm/wit/0.1.0"));
    assert!(engine.len() >= 4, "{:?}", engine.keys());
    for sdk in ["rust/wit/0.1.0", "python/palisade_plugin/wit", "typescript/wit"] {
        let copy = files(&root().join("sdk").join(sdk));
        assert!(
            engine == copy,
            "sdk/{sdk} differs: cp crates/palisade-wasm/wit/0.1.0/*.wit sdk/{sdk}"
        );
    }
}

#[test]
fn the_tests_of_the_python_sdk_pass() {
    let folder = root().join("sdk/python");
    run(Command::new("python3").args(["-m", "unittest", "--quiet"]).current_dir(folder));
}

#[test]
fn the_tests_of_the_typescript_sdk_pass() {
    let compiler = TypeScript::install();
    let folder = scratch("tests");
    copy(&root().join("sdk/typescript"), &folder);
    compiler.link(&folder, false);
    compiler.compile(&folder, "test");
    let tests = fs::read_dir(folder.join("build/test")).unwrap().map(|entry| entry.unwrap().path());
    let tests: Vec<_> = tests.filter(|path| path.to_string_lossy().ends_with(".test.js")).collect();
    assert!(tests.len() >= 3, "{tests:?}");
    run(Command::new("node").arg("--test").args(tests).current_dir(&folder));
}

/// `palisade new` gives away what is in `dist`, so that it must be what the sources say.
#[test]
fn what_is_kept_of_the_typescript_sdk_is_what_the_compiler_makes() {
    let compiler = TypeScript::install();
    let folder = scratch("dist");
    copy(&root().join("sdk/typescript"), &folder);
    fs::remove_dir_all(folder.join("dist")).unwrap();
    compiler.link(&folder, false);
    compiler.compile(&folder, ".");
    let (made, kept) = (files(&folder.join("dist")), files(&root().join("sdk/typescript/dist")));
    let advice = "run `npm install && npm run build` in sdk/typescript";
    assert!(made.keys().eq(kept.keys()), "{:?}, {:?}: {advice}", made.keys(), kept.keys());
    for (name, text) in made {
        assert!(kept[&name] == text, "dist/{name} is not what the compiler makes: {advice}");
    }
}

fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

/// An empty folder below `target`.
fn scratch(name: &str) -> PathBuf {
    let folder = root().join("target/test-packages/typescript-work").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}
