//! `palisade call`, end to end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use serde_json::Value;
use support::{Launcher, Place, launchers, manifest, program};

#[test]
fn the_result_and_nothing_else_is_on_stdout() {
    for launcher in launchers() {
        let place = Place::new(launcher);
        let (status, out, err) =
            place.run(&["call", "plugins/checksum", "sha256", r#"{"text":"abc"}"#]);
        assert_eq!(status, 0, "{launcher:?}: {err}");
        assert_eq!(
            out,
            "{\"sha256\":\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}\n"
        );
        assert_eq!(err, "", "{launcher:?}");
    }
}

#[test]
fn arguments_can_come_from_stdin() {
    let place = Place::new(Launcher::Me);
    place
        .palisade(&["call", "plugins/markov-chatter", "say", "-"])
        .write_stdin(r#"{"seed": 1, "words": 3}"#)
        .assert()
        .success();
}

#[test]
fn what_nobody_granted_is_denied_with_the_option_that_grants_it() {
    for launcher in launchers() {
        let place = Place::new(launcher);
        let call = ["call", "plugins/word-counter", "count", r#"{"path":"texts"}"#];
        let (status, out, err) = place.run(&call);
        assert_eq!((status, out.as_str()), (3, ""), "{launcher:?}: {err}");
        assert!(err.contains("PAL-DENIED") && err.contains("--grant 'fs.read:"), "{err}");

        let path = format!(r#"{{"path":"{}"}}"#, place.text("texts"));
        let call = ["call", "plugins/word-counter", "count", &path, "--grant", "fs.read:texts/**"];
        let (status, out, err) = place.run(&call);
        assert_eq!(status, 0, "{launcher:?}: {err}");
        let counted: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&counted["files"], &counted["words"]), (&1.into(), &3.into()));
    }
}

#[test]
fn a_grant_holds_for_one_run_unless_it_is_to_be_remembered() {
    let place = Place::new(Launcher::Me);
    let path = format!(r#"{{"path":"{}"}}"#, place.text("texts"));
    let call = ["call", "plugins/word-counter", "count", &path];
    let with = |more: &[&str]| place.run(&[&call[..], more].concat()).0;
    assert_eq!(with(&["--grant", "fs.read:texts/**"]), 0);
    assert_eq!(with(&[]), 3);
    assert_eq!(with(&["--grant", "fs.read:texts/**", "--remember"]), 0);
    assert_eq!(with(&[]), 0);
    // Another manifest has to be granted again.
    let manifest = place.path("plugins/word-counter/plugin.yaml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(manifest, text + "# changed\n").unwrap();
    assert_eq!(with(&[]), 3);
}

#[test]
fn what_cannot_be_enforced_is_not_remembered() {
    let place = Place::new(Launcher::Me);
    let path = format!(r#"{{"path":"{}"}}"#, place.text("texts"));
    let call = ["call", "plugins/word-counter", "count", &path];
    let (status, _, err) = place.run(&[&call[..], &["--grant-all", "--remember"]].concat());
    assert_eq!(status, 4, "{err}");
    assert!(err.contains("grant less: --grant 'fs.read:"), "{err}");
    assert_eq!(place.run(&call).0, 3, "the grant of everything was kept");
}

#[test]
fn the_exit_status_tells_what_went_wrong() {
    let place = Place::new(Launcher::Me);
    place.plugin(
        "slow",
        &manifest("slow", "resources: { timeouts: { call: 300ms } }"),
        &program("time.sleep(60)"),
    );
    place.plugin("crash", &manifest("crash", ""), &program("os.kill(os.getpid(), signal.SIGSEGV)"));
    place.plugin(
        "garbage",
        &manifest("garbage", ""),
        &program("answers.write('garbage\\n'); answers.flush()\ntime.sleep(60)"),
    );
    let memory = "reply(len(b'x' * (1 << 30)))";
    place.plugin("hungry", &manifest("hungry", "resources: { memory: 64MiB }"), &program(memory));
    std::fs::write(place.path("forbid.toml"), "forbid = [\"fs.read:/**\"]\n").unwrap();
    std::fs::write(place.path("wrong.toml"), "forbit = []\n").unwrap();
    let sum = "plugins/checksum";
    for (status, says, args) in [
        (1, "PAL-NOT-FOUND", vec![sum, "sha255"]),
        (1, "did you mean sha256?", vec![sum, "sha255"]),
        (1, "PAL-PARAMS", vec![sum, "sha256", r#"{"text":1}"#]),
        (
            1,
            "PAL-PLUGIN",
            vec![
                "plugins/word-counter",
                "count",
                r#"{"path":"/nowhere"}"#,
                "--grant",
                "fs.read:texts/**",
            ],
        ),
        (2, "not JSON", vec![sum, "sha256", "{text:1}"]),
        (2, "No such file", vec!["plugins/none", "go"]),
        (2, "no manifest", vec!["texts", "go"]),
        (2, "did you mean fs.read?", vec![sum, "sha256", "--grant", "fs.raed:/x"]),
        (2, "does not ask for", vec![sum, "sha256", "--grant", "secret:x"]),
        (2, "there is no backend nowall", vec![sum, "sha256", "--backend", "nowall"]),
        (2, "forbit", vec![sum, "sha256", "--policy", "wrong.toml"]),
        (
            3,
            "forbid fs.read:/**",
            vec![
                "plugins/word-counter",
                "count",
                "--grant",
                "fs.read:texts/**",
                "--policy",
                "forbid.toml",
            ],
        ),
        (4, "fs-isolated is demanded", vec![sum, "sha256", "--backend", "landlock"]),
        (5, "PAL-DEADLINE", vec!["plugins/slow", "go"]),
        (5, "PAL-LIMIT", vec!["plugins/hungry", "go"]),
        (6, "PAL-CRASHED", vec!["plugins/crash", "go"]),
        (6, "PAL-PROTOCOL", vec!["plugins/garbage", "go"]),
    ] {
        let (got, out, err) = place.run(&[&["call"], args.as_slice()].concat());
        assert_eq!(got, status, "{args:?}: {err}");
        assert!(err.contains(says), "{args:?} does not say {says:?}: {err}");
        assert_eq!(out, "", "{args:?}");
    }
    assert_eq!(place.run(&["call"]).0, 2, "usage");
}

#[test]
fn errors_are_json_for_programs() {
    let place = Place::new(Launcher::Me);
    let (status, out, err) = place.run(&["call", "plugins/checksum", "sha255", "--json"]);
    let error: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (status, error["error"]["code"].as_str(), err.as_str()),
        (1, Some("PAL-NOT-FOUND"), "")
    );
    let (status, out, _) =
        place.run(&["call", "plugins/checksum", "sha256", "--json", "--backend", "landlock"]);
    let error: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status, 4);
    assert_eq!(error["error"]["candidates"][0]["backend"], "landlock");
}

#[test]
fn a_result_cannot_steer_the_terminal() {
    let place = Place::new(Launcher::Me);
    let body = "reply('\\x9b31m\\u202eevil')";
    place.plugin("steer", &manifest("steer", ""), &program(body));
    let (status, out, err) = place.run(&["call", "plugins/steer", "go"]);
    assert_eq!((status, out.as_str()), (0, "\"\\u009b31m\\u202eevil\"\n"), "{err}");
}

#[test]
fn a_configuration_reaches_the_plugin_and_must_fit_its_schema() {
    let place = Place::new(Launcher::Me);
    let schema = "config: { schema: { type: object, properties: { depth: { type: integer } } } }";
    let echo = program("reply(config)").replace(
        "reply({\"protocol\": 1})",
        "config = message['params']['config']; reply({\"protocol\": 1})",
    );
    place.plugin("configured", &manifest("configured", schema), &echo);
    std::fs::write(place.path("good.json"), r#"{"depth": 3}"#).unwrap();
    std::fs::write(place.path("bad.json"), r#"{"depth": "x"}"#).unwrap();
    let call = |config| place.run(&["call", "plugins/configured", "go", "--config", config]);
    assert_eq!(call("good.json").1, "{\"depth\": 3}\n");
    let (status, _, err) = call("bad.json");
    assert!(status != 0 && err.contains("does not fit its schema"), "{status}: {err}");
    assert_eq!(call("none.json").0, 2);
}

#[test]
fn the_record_tells_what_was_asked() {
    let place = Place::new(Launcher::Me);
    let call =
        ["call", "plugins/checksum", "sha256", r#"{"text":"abc"}"#, "--audit", "record.jsonl"];
    assert_eq!(place.run(&call).0, 0);
    let record = std::fs::read_to_string(place.path("record.jsonl")).unwrap();
    let lines: Vec<Value> = record.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for kind in ["launch", "call", "stop", "exit"] {
        assert!(lines.iter().any(|l| l["kind"] == kind), "no {kind} in {record}");
    }
    assert!(lines.iter().any(|l| l["actor"].to_string().contains("uid ")), "{record}");
    assert!(!record.contains("abc\""), "the record holds digests, not payloads");
}
