//! `palisade grants`, end to end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use serde_json::Value;
use support::{Launcher, Place, launchers, manifest, program};

const DIR: &str = "plugins/word-counter";

fn remember(place: &Place, capability: &str) {
    let path = format!(r#"{{"path":"{}"}}"#, place.text("texts"));
    let call = ["call", DIR, "count", &path, "--grant", capability, "--remember"];
    let (status, _, err) = place.run(&call);
    assert_eq!(status, 0, "{err}");
}

#[test]
fn what_is_remembered_is_shown_with_who_when_and_for_which_manifest() {
    for launcher in launchers() {
        let place = Place::new(launcher);
        let (status, out, err) = place.run(&["grants", DIR]);
        assert_eq!((status, out.as_str()), (0, "word-counter: nothing is remembered\n"), "{err}");
        remember(&place, "fs.read:texts/**");
        let (status, out, err) = place.run(&["grants", DIR]);
        assert_eq!(status, 0, "{launcher:?}: {err}");
        let right = format!("fs.read:{}/**", place.text("texts"));
        for part in
            ["1 grant", &right, "counts", "granted by", "uid ", "UTC", "without an end", "sha256:"]
        {
            assert!(out.contains(part), "no {part} in {out}");
        }
        let (_, out, _) = place.run(&["grants", DIR, "--json"]);
        let json: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (&json["plugin"], &json["revoked"]),
            (&"word-counter".into(), &Value::Array(vec![]))
        );
        let grant = &json["grants"][0];
        assert_eq!(
            (&grant["capability"], &grant["counts"]),
            (&right.as_str().into(), &true.into())
        );
        assert_eq!((&grant["digest"], &grant["until"]), (&json["digest"], &Value::Null));
    }
}

#[test]
fn what_is_taken_back_is_denied_from_then_on() {
    let place = Place::new(Launcher::Me);
    remember(&place, "fs.read:texts/**");
    let path = format!(r#"{{"path":"{}"}}"#, place.text("texts"));
    let call = || place.run(&["call", DIR, "count", &path]).0;
    assert_eq!(call(), 0);
    let (status, _, err) = place.run(&["grants", DIR, "--revoke", "fs.read:/srv/**"]);
    assert!(
        status == 2 && err.contains("nothing within fs.read:/srv/** is granted"),
        "{status} {err}"
    );
    let (status, _, err) = place.run(&["grants", DIR, "--revoke", "fs.raed:texts/**"]);
    assert!(status == 2 && err.contains("--revoke fs.raed"), "{status} {err}");
    assert_eq!(call(), 0, "nothing was taken back");
    // A wider one takes what lies within it.
    let (status, out, err) =
        place.run(&["grants", DIR, "--revoke", "fs.read:./**", "--audit", "record.jsonl"]);
    assert_eq!(status, 0, "{err}");
    assert!(out.contains("taken back: fs.read:") && out.contains("nothing is remembered"), "{out}");
    assert_eq!(call(), 3);
    let record = std::fs::read_to_string(place.path("record.jsonl")).unwrap();
    assert!(record.contains("\"grant\"") && record.contains("revoke"), "{record}");

    remember(&place, "fs.read:texts/**");
    let (_, out, _) = place.run(&["grants", DIR, "--revoke-all", "--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (json["revoked"].as_array().unwrap().len(), &json["grants"]),
        (1, &Value::Array(vec![]))
    );
    assert_eq!(call(), 3);
}

#[test]
fn grants_for_another_manifest_are_shown_as_such() {
    let place = Place::new(Launcher::Me);
    remember(&place, "fs.read:texts/**");
    let path = place.path("plugins/word-counter/plugin.yaml");
    let changed = std::fs::read_to_string(&path).unwrap() + "\n# changed\n";
    std::fs::write(&path, changed).unwrap();
    let (status, out, err) = place.run(&["grants", DIR]);
    assert_eq!(status, 0, "{err}");
    assert!(out.contains("does not count: the manifest has changed"), "{out}");
}

#[test]
fn a_command_of_a_plugin_is_run_and_its_text_shown() {
    let place = Place::new(Launcher::Me);
    let rest = "x-note: none\n";
    let commands = "contributes: { commands: [{ name: greet, description: Greets. }], tools:";
    let text = manifest("greeter", rest).replace("contributes: { tools:", commands);
    // The template answers `{}` to what it does not know; a command is answered by its arguments.
    let body = program("reply({})").replace(
        r#"elif message["method"] == "initialize":"#,
        r#"elif message["method"] == "run_command":
        args = message["params"]["args"]
        reply({"status": len(args) - 1, "output": "\x1b[31m" + "\n".join(args)})
    elif message["method"] == "initialize":"#,
    );
    place.plugin("greeter", &text, &body);
    let dir = "plugins/greeter";
    let run = |more: &[&str]| place.run(&[&["call", dir, "--command"], more].concat());
    let (status, out, err) = run(&["greet", "--", "--loud"]);
    assert_eq!((status, out.as_str()), (0, "\\u{1b}[31m--loud\n"), "{err}");
    let (status, out, err) = run(&["greet", "--", "a", "b"]);
    assert_eq!((status, out.as_str()), (1, "\\u{1b}[31ma\nb\n"), "{err}");
    assert!(err.contains("ended with status 1"), "{err}");
    let (status, out, _) = run(&["greet", "--json", "--", "a"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &json["status"], &json["output"]), (0, &0.into(), &"\x1b[31ma".into()));
    let (status, out, err) = run(&["gret"]);
    assert!(status == 1 && out.is_empty() && err.contains("did you mean greet?"), "{status} {err}");
    // A tool or a command, not both; arguments only for a command.
    assert_eq!(place.run(&["call", dir, "go", "--command", "greet"]).0, 2);
    assert_eq!(place.run(&["call", dir, "go", "--", "a"]).0, 2);
    assert_eq!(place.run(&["call", dir]).0, 2);
}
