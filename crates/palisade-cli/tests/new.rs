//! `palisade new`, end to end: what it makes works behind the walls, and passes the cases of the
//! conformance suite that every plugin passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use std::{fs, path::Path, process::Command};

use palisade_conformance::{TypeScript, build_rust, components, copy, drive, root, run};
use serde_json::Value;
use support::{Launcher, Place, launchers};

/// Makes a plugin, has `build` finish it, and sees that it is one.
fn works(lang: &str, command: &[&str], build: impl Fn(&Path)) {
    for launcher in launchers() {
        let place = Place::new(launcher);
        let (status, out, err) = place.run(&["new", "my.greeter-1", "--lang", lang]);
        assert_eq!((status, err.as_str()), (0, ""), "{lang}, {launcher:?}");
        assert!(out.contains("palisade call my.greeter-1 greet '{\"name\": \"Ada\"}'"), "{out}");
        let folder = place.path("my.greeter-1");
        build(&folder);
        let (status, _, err) = place.run(&["check", "my.greeter-1"]);
        assert_eq!(status, 0, "{lang}, {launcher:?}: {err}");
        for (arguments, result) in [
            (r#"{"name":"Ada"}"#, "\"Hello, Ada!\"\n"),
            (r#"{"name":"Ada","times":2}"#, "\"Hello, Ada, Ada!\"\n"),
        ] {
            let (status, out, err) = place.run(&["call", "my.greeter-1", "greet", arguments]);
            assert_eq!((status, out.as_str()), (0, result), "{lang}, {launcher:?}: {err}");
            assert!(err.contains("greeting"), "its line of log: {err}");
        }
        let (status, _, err) = place.run(&["call", "my.greeter-1", "greet", r#"{"nom":"Ada"}"#]);
        assert_eq!(status, 1, "{err}");
        if launcher == Launcher::Me {
            let summary = drive(&folder, command, true, &[]);
            assert!(summary.starts_with("23 passed, 0 failed"), "{lang}: {summary}");
            contributes_as_it_says(&folder, command);
        }
    }
}

/// What `--contributes` prints are the tools of the manifest.
fn contributes_as_it_says(folder: &Path, command: &[&str]) {
    let printed =
        run(Command::new(command[0]).args(&command[1..]).arg("--contributes").current_dir(folder));
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let manifest = fs::read_to_string(folder.join("plugin.yaml")).unwrap();
    let tool = &printed["tools"][0];
    assert_eq!(printed["tools"].as_array().unwrap().len(), 1);
    for text in [&tool["name"], &tool["description"]] {
        assert!(manifest.contains(text.as_str().unwrap()), "{text}");
    }
}

#[test]
fn a_new_plugin_in_python_works() {
    works("python", &["python3", "main.py"], |folder| {
        run(Command::new("python3").args(["-B", "-m", "unittest"]).current_dir(folder));
    });
}

#[test]
fn a_new_plugin_in_typescript_works_before_it_is_compiled_and_after() {
    let compiler = TypeScript::install();
    works("typescript", &["node", "dist/main.js"], |folder| {
        run(Command::new("node").args(["--test", "test/greet.test.js"]).current_dir(folder));
        let work = tempfile::tempdir().unwrap();
        let work = work.path().join("plugin");
        copy(folder, &work);
        fs::remove_dir_all(work.join("dist")).unwrap();
        compiler.link(&work, false);
        compiler.compile(&work, ".");
        for name in ["main.js", "greet.js"] {
            let read = |folder: &Path| fs::read_to_string(folder.join("dist").join(name)).unwrap();
            assert!(read(folder) == read(&work), "dist/{name} is not what the compiler makes");
        }
    });
}

#[test]
fn a_new_plugin_in_rust_works() {
    // The program is made of the same files for every launcher.
    let built = tempfile::tempdir().unwrap();
    let program = built.path().join("plugin");
    works("rust", &["target/release/plugin"], |folder| {
        let place = folder.join("target/release/plugin");
        if program.exists() {
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::copy(&program, place).unwrap();
        } else {
            build_rust(folder);
            fs::copy(place, &program).unwrap();
        }
    });
}

/// Makes a component, has `build` finish it, and sees that it is a plugin. Gives the place where it is, in the folder
/// `greeter`.
fn component_works(lang: &str, file: &str, build: impl Fn(&Path)) -> Place {
    let place = Place::new(Launcher::Me);
    let (status, out, err) = place.run(&["new", "greeter", "--lang", lang]);
    assert_eq!((status, err.as_str()), (0, ""), "{lang}: {out}");
    let folder = place.path("greeter");
    build(&folder);
    greets(&place, lang);
    let engine = components::engine(&folder.join(file));
    let engine: Vec<&str> = engine.iter().map(String::as_str).collect();
    // Rust exports every handler interface; the others what their world names, which has no configuration.
    let (lacks, passed): (&[&str], _) =
        if lang == "rust-wasm" { (&[], 23) } else { (&["configure"], 21) };
    let summary = drive(&folder, &engine, true, lacks);
    assert!(summary.starts_with(&format!("{passed} passed, 0 failed")), "{lang}: {summary}");
    place
}

/// The plugin in the folder `greeter` is found good, answers, and refuses what it does not know.
fn greets(place: &Place, which: &str) {
    let (status, _, err) = place.run(&["check", "greeter"]);
    assert_eq!(status, 0, "{which}: {err}");
    let call = ["call", "greeter", "greet", r#"{"name":"Ada","times":2}"#];
    let (status, out, err) = place.run(&call);
    assert_eq!((status, out.as_str()), (0, "\"Hello, Ada, Ada!\"\n"), "{which}: {err}");
    assert!(err.contains("greeting"), "its line of log: {err}");
    assert_eq!(place.run(&["call", "greeter", "greet", r#"{"nom":"Ada"}"#]).0, 1, "{which}");
}

fn cargo(folder: &Path, arguments: &str) {
    let mut cargo = Command::new(env!("CARGO"));
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_TARGET_DIR"] {
        cargo.env_remove(name);
    }
    run(cargo.args(arguments.split(' ')).arg("--quiet").current_dir(folder));
}

/// The builds of a new component in Rust: the command, and what its manifest says then.
const RUST_BUILDS: [(&str, &str, &str); 3] = [
    (
        "build --release --lib --target wasm32-unknown-unknown",
        "wasm",
        "target/wasm32-unknown-unknown/release/plugin.wasm",
    ),
    (
        "build --release --lib --target wasm32-wasip2",
        "wasm",
        "target/wasm32-wasip2/release/plugin.wasm",
    ),
    ("build --release", "exec", "target/release/process"),
];

#[test]
fn a_new_component_in_rust_works_for_both_targets_and_as_a_process() {
    let [first, others @ ..] = RUST_BUILDS;
    let place = component_works("rust-wasm", first.2, |folder| {
        let targets = ["wasm32-unknown-unknown", "wasm32-wasip2"];
        run(Command::new("rustup").args(["target", "add"]).args(targets));
        fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
        cargo(folder, "test");
        cargo(folder, first.0);
    });
    // Of its files the manifest alone changes, as its README says.
    let folder = place.path("greeter");
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    let manifest = fs::read_to_string(folder.join("plugin.yaml")).unwrap();
    let entry = |kind: &str, file: &str| format!("  kind: {kind}\n  file: {file}\n");
    assert!(manifest.contains(&entry(first.1, first.2)), "{manifest}");
    for (build, kind, file) in RUST_BUILDS {
        let row = format!("| `cargo {build}` | `{kind}` | `{file}` |");
        assert!(readme.contains(&row), "{row} in {readme}");
    }
    for (build, kind, file) in others {
        cargo(&folder, build);
        let manifest = manifest.replace(&entry(first.1, first.2), &entry(kind, file));
        fs::write(folder.join("plugin.yaml"), manifest).unwrap();
        greets(&place, file);
        let command = match kind {
            "exec" => vec![file.to_owned()],
            _ => components::engine(&folder.join(file)),
        };
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let summary = drive(&folder, &command, true, &[]);
        assert!(summary.starts_with("23 passed, 0 failed"), "{file}: {summary}");
    }
}

#[test]
fn a_new_component_in_python_works() {
    component_works("python-wasm", "plugin.wasm", |folder| {
        let python = components::componentize_py().join("bin/python");
        run(Command::new(&python).args(["-B", "-m", "unittest"]).current_dir(folder));
        let build = ["-B", "-m", "palisade_plugin", "build"];
        run(Command::new(&python).args(build).current_dir(folder));
    });
}

#[test]
fn a_new_component_in_javascript_works() {
    component_works("js-wasm", "plugin.wasm", |folder| {
        components::link_componentize_js(folder);
        run(Command::new("npm").args(["run", "--silent", "build"]).current_dir(folder));
        run(Command::new("npm").args(["test", "--silent"]).current_dir(folder));
    });
}

/// The guide changes what `palisade new` makes; its files are taken from its page.
#[test]
fn the_guide_is_right() {
    let page = fs::read_to_string(root().join("docs/how-to/write-a-plugin.md")).unwrap();
    let block = |name: &str| {
        let marker = format!("<!-- file: {name} -->\n```");
        let (_, rest) = page.split_once(&marker).unwrap_or_else(|| panic!("no {marker}"));
        let (_, rest) = rest.split_once('\n').unwrap();
        rest.split_once("\n```").unwrap().0.to_owned() + "\n"
    };
    for (lang, program) in
        [("python", "main.py"), ("typescript", "src/main.ts"), ("rust", "src/main.rs")]
    {
        let place = Place::new(Launcher::Me);
        assert_eq!(place.run(&["new", "greeter", "--lang", lang]).0, 0);
        let folder = place.path("greeter");
        let entry_of = |manifest: &str| {
            let (_, entry) = manifest.split_once("entry:\n").unwrap();
            entry.lines().take(2).collect::<Vec<_>>().join("\n")
        };
        let theirs = entry_of(&fs::read_to_string(folder.join("plugin.yaml")).unwrap());
        let manifest = block("plugin.yaml");
        let manifest = manifest.replace(&entry_of(&manifest), &theirs);
        fs::write(folder.join("plugin.yaml"), manifest).unwrap();
        fs::write(folder.join(program), block(&format!("{lang}/{program}"))).unwrap();
        match lang {
            "typescript" => {
                let compiler = TypeScript::install();
                compiler.link(&folder, false);
                compiler.compile(&folder, ".");
            }
            "rust" => build_rust(&folder),
            _ => {}
        }
        let call = ["call", "greeter", "greet", r#"{"name":"Ada","times":2}"#];
        let (status, _, err) = place.run(&call);
        assert_eq!(status, 3, "{lang}: {err}");
        let (status, out, err) = place.run(&[&call[..], &["--grant-all"]].concat());
        assert_eq!((status, out.as_str()), (0, "\"Hello, Ada, Ada!\"\n"), "{lang}: {err}");
    }
}

#[test]
fn nothing_that_exists_is_written_over() {
    let place = Place::new(Launcher::Me);
    fs::create_dir(place.path("mine")).unwrap();
    fs::write(place.path("file"), "text").unwrap();
    for name in ["mine", "file"] {
        let (status, out, err) = place.run(&["new", name, "--lang", "python"]);
        assert_eq!((status, out.as_str()), (2, ""));
        assert!(err.contains("exists already") && err.contains("PAL-USAGE"), "{err}");
    }
    assert_eq!(fs::read_dir(place.path("mine")).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(place.path("file")).unwrap(), "text");
}

#[test]
fn a_name_is_an_id_and_leads_nowhere_else() {
    let place = Place::new(Launcher::Me);
    let long = "x".repeat(65);
    for name in ["", ".", "..", "../x", "a/b", "/tmp/x", "A", "a b", "-a", "a\n", "ä", &long] {
        let (status, _, _) = place.run(&["new", "--lang", "python", "--", name]);
        assert_eq!(status, 2, "{name:?}");
    }
    assert_eq!(place.run(&["new", "a", "--lang", "cobol"]).0, 2);
    assert_eq!(place.run(&["new", "a"]).0, 2);
    assert!(!place.path("a").exists());
}

#[test]
fn programs_are_told_as_json() {
    let place = Place::new(Launcher::Me);
    let (status, out, err) = place.run(&["new", "greeter", "--lang", "typescript", "--json"]);
    assert_eq!((status, err.as_str()), (0, ""));
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&told["id"], &told["lang"]), (&"greeter".into(), &"typescript".into()));
    for file in told["files"].as_array().unwrap() {
        assert!(place.path("greeter").join(file.as_str().unwrap()).is_file(), "{file}");
    }
    assert!(told["next"].as_array().unwrap().len() >= 3);
    let (status, out, _) = place.run(&["new", "greeter", "--lang", "python", "--json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &told["error"]["code"]), (2, &"PAL-USAGE".into()));
}
