//! Modules that were made for Extism, from the command line: a published one as it is, in a folder with a manifest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use palisade_conformance::components;
use serde_json::{Value, json};
use support::{Launcher, Place};

/// A folder with a module and a manifest; `rest` stands behind `entry` and the tools.
fn plugin(place: &Place, id: &str, module: &[u8], entry: &str, tools: &[&str], rest: &str) {
    let tools: Vec<String> =
        tools.iter().map(|name| format!("{{ name: {name}, description: Does it. }}")).collect();
    let manifest = format!(
        "api: palisade/1\nid: {id}\nversion: 1.0.0\nentry: {{ kind: extism, file: it.wasm{entry} }}\n\
         contributes: {{ tools: [{}] }}\n{rest}",
        tools.join(", ")
    );
    place.plugin(id, &manifest, "");
    std::fs::write(place.path(&format!("plugins/{id}/it.wasm")), module).unwrap();
}

fn published(name: &str) -> Vec<u8> {
    std::fs::read(components::published_by_extism().with_file_name(name)).unwrap()
}

#[test]
fn a_published_module_is_a_plugin_as_it_is() {
    for launcher in support::launchers() {
        let place = Place::new(launcher);
        let module = published("count_vowels.wasm");
        plugin(&place, "vowels", &module, "", &["count_vowels"], "");
        let (status, out, err) = place.run(&["check", "plugins/vowels"]);
        assert_eq!(status, 0, "{out}{err}");
        for expected in ["a module for Extism", "extism:host/env", "wasm"] {
            assert!(out.contains(expected), "no {expected:?} in\n{out}");
        }
        let (status, out, err) =
            place.run(&["call", "plugins/vowels", "count_vowels", r#"{"input": "Hello, world"}"#]);
        assert_eq!(status, 0, "{err}");
        let answer: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(answer["count"], 3, "{out}");
    }
}

#[test]
fn a_tool_that_the_module_does_not_export_is_found_before_it_is_started() {
    let place = Place::new(Launcher::Me);
    let module = published("count_vowels.wasm");
    plugin(&place, "vowels", &module, "", &["count_vowels", "count_consonants", "memory"], "");
    let (status, out, err) = place.run(&["check", "plugins/vowels"]);
    assert_eq!(status, 2, "{out}{err}");
    for name in ["count_consonants", "memory"] {
        let says = format!("offers the tool {name}, and no exported function is called so");
        assert!(out.contains(&says), "{out}");
    }
    assert!(!out.contains("the tool count_vowels,"), "{out}");
}

#[test]
fn a_module_without_a_folder_is_shown_and_not_called() {
    let place = Place::new(Launcher::Me);
    std::fs::write(place.path("it.wasm"), published("count_vowels.wasm")).unwrap();
    let (status, out, err) = place.run(&["check", "it.wasm"]);
    assert_eq!(status, 0, "{out}{err}");
    assert!(out.contains("a module for Extism") && out.contains("extism:host/env"), "{out}");
    let (status, _, err) = place.run(&["call", "it.wasm", "count_vowels", "{}"]);
    assert_eq!(status, 2, "{err}");
    assert!(err.contains("takes a folder with a manifest"), "{err}");
}

#[test]
fn what_its_functions_give_is_what_the_manifest_says_that_it_is() {
    let place = Place::new(Launcher::Me);
    let module = std::fs::read(components::extism("wasm32-wasip1")).unwrap();
    let rights = "capabilities: { required: [{ capability: 'host.call:get_user_profile', reason: Asks. }, { capability: 'host.call:slow', reason: Asks. }, { capability: 'host.call:busy', reason: Asks. }] }";
    for (id, entry, answer) in [
        ("auto", "", json!("42")),
        ("json", ", output: json", json!(42)),
        ("text", ", output: text", json!("42")),
    ] {
        plugin(&place, id, &module, entry, &["add", "shape"], rights);
        let folder = format!("plugins/{id}");
        let (status, out, err) =
            place.run(&["call", &folder, "add", r#"{"a": 40, "b": 2}"#, "--grant-all"]);
        assert_eq!(status, 0, "{id}: {err}");
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), answer, "{id}");
    }
    plugin(&place, "wrong", &module, ", output: yaml", &["add"], rights);
    let (status, _, err) = place.run(&["check", "plugins/wrong"]);
    assert!(status == 2 && err.contains("entry.output"), "{err}");
}

#[test]
fn a_function_of_the_application_takes_its_right() {
    let place = Place::new(Launcher::Me);
    let module = published("test/host_function.wasm");
    plugin(&place, "asks", &module, "", &["count_vowels"], "");
    let (status, out, err) = place.run(&["check", "plugins/asks"]);
    assert_eq!(status, 2, "{out}{err}");
    assert!(out.contains("extism:host/user") && out.contains("asks for no host.call"), "{out}");

    let rights =
        "capabilities: { required: [{ capability: 'host.call:hello_world', reason: Asks. }] }";
    plugin(&place, "asks", &module, "", &["count_vowels"], rights);
    let call = ["call", "plugins/asks", "count_vowels", r#"{"input": "a"}"#];
    let (status, _, err) = place.run(&call);
    assert_eq!(status, 3, "{err}");
    assert!(err.contains("host.call:hello_world"), "{err}");
    // Granted it starts; that this host has no such service is told by the call.
    let (status, _, err) = place.run(&[&call[..], &["--grant-all"]].concat());
    assert!(status == 1 && err.contains("hello_world"), "{status}: {err}");
}

#[test]
fn what_the_interface_has_no_words_for_is_refused_when_it_is_loaded() {
    let place = Place::new(Launcher::Me);
    let module = published("count_vowels.wasm");
    for (id, rest, says) in [
        ("hooked", "  hooks: [{ event: message.received }]", "hooks (message.received"),
        ("commanding", "  commands: [{ name: greet, description: Greets. }]", "commands (greet"),
        (
            "listening",
            "capabilities: { optional: ['event.subscribe:mail.>'] }",
            "events (event.subscribe:mail.>",
        ),
    ] {
        let manifest = format!(
            "api: palisade/1\nid: {id}\nversion: 1.0.0\nentry: {{ kind: extism, file: it.wasm }}\n\
             contributes:\n  tools: [{{ name: count_vowels, description: Counts. }}]\n{rest}\n"
        );
        place.plugin(id, &manifest, "");
        std::fs::write(place.path(&format!("plugins/{id}/it.wasm")), &module).unwrap();
        let folder = format!("plugins/{id}");
        for command in [&["check", &folder][..], &["call", &folder, "count_vowels", "{}"]] {
            let (status, out, err) = place.run(command);
            assert_eq!(status, 2, "{command:?}: {out}{err}");
            let said = format!("{out}{err}");
            assert!(said.contains(says) && said.contains("extism"), "{command:?}: {said}");
        }
    }
}
