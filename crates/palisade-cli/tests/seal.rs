//! `palisade seal`, and that nothing but the sealed files runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use support::{Launcher, Place, launchers, manifest, program};

const DIR: &str = "plugins/sealed";

/// A plugin whose tool tells what its module says.
fn sealed(place: &Place) {
    let body = "sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))\nimport module\nreply(module.SAYS)";
    place.plugin("sealed", &manifest("sealed", ""), &program(body));
    write(place, "module.py", "SAYS = 'approved'\n");
    let (status, out, err) = place.run(&["seal", DIR]);
    assert_eq!(status, 0, "{err}");
    assert!(out.starts_with("sealed sealed: 2 files, "), "{out}");
}

/// Writes a file of the plugin as its owner would.
fn write(place: &Place, name: &str, text: &str) {
    let path = place.path(DIR).join(name);
    fs::write(&path, text).unwrap();
    if place.launcher == Launcher::User {
        std::os::unix::fs::chown(&path, Some(1000), Some(1000)).unwrap();
    }
}

fn call(place: &Place, more: &[&str]) -> (i32, String, String) {
    place.run(&[&["call", DIR, "go"], more].concat())
}

/// The one copy of the plugin in the state folder.
fn copy(place: &Place) -> PathBuf {
    let below = |folder: &Path| {
        let mut found: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|path| path.is_dir())
            .collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    };
    below(&below(&place.path("state/content")))
}

#[test]
fn a_sealed_plugin_runs_and_one_with_another_file_does_not() {
    for launcher in launchers() {
        let place = Place::new(launcher);
        sealed(&place);
        let said = call(&place, &[]);
        assert_eq!((said.0, said.1.trim()), (0, "\"approved\""), "{launcher:?}: {}", said.2);
        let (status, out, err) = place.run(&["check", DIR]);
        assert!(
            status == 0 && out.contains("sealed: runs only with the files sha256:"),
            "{out}{err}"
        );

        write(&place, "module.py", "SAYS = 'swapped'\n");
        for command in [&["call", DIR, "go"][..], &["check", DIR], &["run", DIR]] {
            let args = [command, &["--json"]].concat();
            let (status, out, err) = place.run(&args);
            let error = serde_json::from_str::<Value>(&out).unwrap()["error"].take();
            let text = |key: &str| error[key].as_str().unwrap_or_default();
            assert_eq!((status, text("code"), text("rule")), (3, "PAL-DENIED", "content"), "{err}");
            assert!(text("message").contains("module.py has changed; "), "{error}");
            assert!(text("hint").contains("palisade seal DIR"), "{error}");
        }
        let record = ["--audit", "record.jsonl"];
        assert_eq!(call(&place, &record).0, 3);
        let record = fs::read_to_string(place.path("record.jsonl")).unwrap();
        assert!(
            record.contains("\"decision\":\"deny\"") && record.contains("module.py"),
            "{record}"
        );

        // The owner says that it is the new one.
        assert_eq!(place.run(&["seal", DIR]).0, 0);
        let said = call(&place, &[]);
        assert_eq!((said.0, said.1.trim()), (0, "\"swapped\""), "{launcher:?}: {}", said.2);
        // The old copy is in nobody's use any more.
        assert!(fs::read_to_string(copy(&place).join("module.py")).unwrap().contains("swapped"));
    }
}

/// The plugin cannot write to what it runs from, behind either tier of the walls.
#[test]
fn the_copy_is_nobodys_to_write_to() {
    let body = "here = os.path.dirname(os.path.abspath(__file__))\n\
        tried = []\n\
        for act in [lambda: open(here + '/main.py', 'a'), lambda: os.unlink(here + '/main.py'),\n\
        \x20           lambda: open(here + '/new', 'w'), lambda: os.chmod(here + '/main.py', 0o777),\n\
        \x20           lambda: os.rename(here + '/main.py', here + '/other')]:\n\
        \x20   try:\n\
        \x20       act()\n\
        \x20       tried.append('done')\n\
        \x20   except OSError as e:\n\
        \x20       tried.append('refused')\n\
        reply(tried)";
    for launcher in launchers() {
        let place = Place::new(launcher);
        fs::write(place.path("any.toml"), "[floor]\n").unwrap();
        place.plugin("sealed", &manifest("sealed", ""), &program(body));
        assert_eq!(place.run(&["seal", DIR]).0, 0);
        // Behind Landlock alone, users of their own cannot come to the state folder of root.
        let both = ["process", "landlock"];
        for &backend in if launcher == Launcher::User { &both[..] } else { &both[..1] } {
            let how = ["--backend", backend, "--policy", "any.toml"];
            let (status, out, err) = call(&place, &how);
            assert_eq!(status, 0, "{launcher:?} {backend}: {err}");
            let said: Vec<String> = serde_json::from_str(&out).unwrap();
            // Landlock has no right for modes, and a user's plugins share the user's id. What is in the files, and
            // which there are, is what counts.
            let chmod = match (launcher, backend) {
                (Launcher::User, "landlock") => "done",
                _ => "refused",
            };
            let refused = "refused";
            assert_eq!(said, [refused, refused, refused, chmod, refused], "{launcher:?} {backend}");
        }
        let names = |folder: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&copy(&place)), ["main.py", "plugin.yaml"]);
        let text = |folder: &Path| fs::read_to_string(folder.join("main.py")).unwrap();
        assert_eq!(text(&copy(&place)), text(&place.path(DIR)));
    }
}

#[test]
fn an_operator_can_take_sealed_plugins_only() {
    let place = Place::new(Launcher::Me);
    sealed(&place);
    fs::write(place.path("policy.toml"), "require-seal = true\n").unwrap();
    let policy = ["--policy", "policy.toml"];
    let said = call(&place, &policy);
    assert_eq!(said.0, 0, "{}", said.2);
    for other in [
        &["call", "plugins/checksum", "sha256", r#"{"text": "abc"}"#][..],
        &["check", "plugins/checksum"],
    ] {
        let (status, _, err) = place.run(&[other, &policy].concat());
        assert!(status == 3 && err.contains("require-seal = true"), "{status} {err}");
    }
    let (status, _, err) = place.run(&["mcp", "--policy", "policy.toml", "--", "/bin/cat"]);
    assert!(status == 3 && err.contains("require-seal = true"), "{status} {err}");
    // A seal around nothing: the program is not one of the plugin's files.
    let outside =
        "api: palisade/1\nid: outside\nversion: 1.0.0\nentry: { kind: exec, command: /bin/cat }\n";
    place.plugin("outside", outside, "");
    let (status, out, _) = place.run(&["seal", "plugins/outside"]);
    assert!(status == 0 && out.contains("none of these files"), "{out}");
    let (_, out, err) = place.run(&["check", "plugins/outside"]);
    assert!(out.contains("sealed in part:"), "{out}{err}");
    let made = place.text("plugins/outside/plugin.yaml");
    for other in
        [&["check", "plugins/outside"][..], &["mcp", "--manifest", &made, "--", "/bin/cat"]]
    {
        let (first, rest) = other.split_at(1);
        let (status, _, err) = place.run(&[first, &policy, rest].concat());
        assert!(status == 3 && err.contains("require-seal = true"), "{status} {err}");
    }
}

#[test]
fn the_manifest_keeps_everything_else() {
    let place = Place::new(Launcher::Me);
    let text = "# Mine.\napi: palisade/1   # the form\nid: sealed\nversion: 1.0.0\nentry: { kind: python, file: main.py }\n";
    place.plugin("sealed", text, &program("reply(1)"));
    let file = place.path(DIR).join("plugin.yaml");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    fs::set_permissions(&file, mode).unwrap();
    let json = |args: &[&str]| -> Value {
        let (status, out, err) = place.run(&[&["seal", DIR, "--json"], args].concat());
        assert_eq!(status, 0, "{err}");
        serde_json::from_str(&out).unwrap()
    };
    let dry = json(&["--dry-run"]);
    assert_eq!((&dry["changed"], &dry["written"]), (&true.into(), &false.into()));
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    let wet = json(&[]);
    assert_eq!((&wet["content"], &wet["written"]), (&dry["content"], &true.into()));
    let line = format!("content: {}\n", wet["content"].as_str().unwrap());
    assert_eq!(fs::read_to_string(&file).unwrap(), text.replacen("id:", &format!("{line}id:"), 1));
    let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata().unwrap());
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(json(&[])["changed"], false);
    // What cannot be content is named.
    std::os::unix::net::UnixListener::bind(place.path(DIR).join("socket")).unwrap();
    let (status, _, err) = place.run(&["seal", DIR]);
    assert!(status == 2 && err.contains("socket: is no file, folder or symbolic link"), "{err}");
    let (status, _, err) = place.run(&["seal", "plugins/nowhere"]);
    assert!(status == 2 && err.contains("No such file"), "{err}");
}

/// A virtual environment is links to the system's Python; a component is compiled and kept.
#[test]
fn environments_and_components_are_sealed_too() {
    let place = Place::new(Launcher::Me);
    let manifest = "api: palisade/1\nid: sealed\nversion: 1.0.0\nentry: { kind: python, file: main.py, interpreter: 'venv:.venv' }\n\
        contributes: { tools: [{ name: go, description: Does it. }] }\n";
    place.plugin("sealed", manifest, &program("reply(sys.prefix != sys.base_prefix)"));
    let made = std::process::Command::new("/usr/bin/python3")
        .args(["-m", "venv", "--without-pip", ".venv"])
        .current_dir(place.path(DIR))
        .status();
    assert!(made.unwrap().success());
    assert_eq!(place.run(&["seal", DIR]).0, 0);
    let (status, out, err) = call(&place, &[]);
    assert_eq!((status, out.trim()), (0, "true"), "{err}");

    let component = r#"(component
        (core module $m (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))
        (core instance $i (instantiate $m))
        (func $add (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
        (instance $calc (export "add" (func $add)))
        (export "docs:calculator/calc@0.1.0" (instance $calc)))"#;
    let manifest = "api: palisade/1\nid: calc\nversion: 1.0.0\nentry: { kind: wasm, file: it.wasm }\n\
        contributes: { tools: [{ name: calc.add, description: Adds. }] }\n";
    place.plugin("calc", manifest, "");
    let file = place.path("plugins/calc/it.wasm");
    fs::write(&file, wat::parse_str(component).unwrap()).unwrap();
    assert_eq!(place.run(&["seal", "plugins/calc"]).0, 0);
    let add = |backend: &str| {
        let args = r#"{"a": 40, "b": 2}"#;
        place.run(&["call", "plugins/calc", "calc.add", args, "--backend", backend])
    };
    for backend in ["wasm", "wasm+process"] {
        let (status, out, err) = add(backend);
        assert_eq!((status, out.trim()), (0, "42"), "{backend}: {err}");
    }
    let swapped = component.replace("i32.add (local", "i32.sub (local");
    fs::write(&file, wat::parse_str(swapped).unwrap()).unwrap();
    for backend in ["wasm", "wasm+process"] {
        assert_eq!(add(backend).0, 3);
    }
}
