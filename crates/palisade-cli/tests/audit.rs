//! `palisade audit verify`, and hosts that go on with a record.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use support::{Launcher, Place, launchers, manifest, program};

const RECORD: &str = "record.jsonl";

/// A record of one call by a plugin.
fn recorded(launcher: Launcher) -> Place {
    let place = Place::new(launcher);
    place.plugin("good", &manifest("good", ""), &program("reply({})"));
    call(&place, 0);
    place
}

fn call(place: &Place, expected: i32) -> String {
    let (status, out, err) =
        place.run(&["call", "plugins/good", "go", "--json", "--audit", RECORD]);
    assert_eq!(status, expected, "{err}");
    out
}

fn verified(place: &Place, more: &[&str]) -> (i32, Value) {
    let (status, out, err) = place.run(&[&["audit", "verify", RECORD, "--json"], more].concat());
    (status, serde_json::from_str(&out).expect(&err))
}

fn head(place: &Place) -> String {
    let (status, seen) = verified(place, &[]);
    assert_eq!(status, 0, "{seen}");
    seen["head"].as_str().unwrap().to_owned()
}

/// What the command says that it refuses.
fn refusal(place: &Place, more: &[&str]) -> String {
    let (status, seen) = verified(place, more);
    let error = &seen["error"];
    assert_eq!(
        (status, &error["code"], &error["rule"]),
        (3, &"PAL-RECORD".into(), &"chain".into())
    );
    format!("{} {}", error["message"].as_str().unwrap(), error["hint"].as_str().unwrap())
}

fn text(place: &Place) -> String {
    fs::read_to_string(place.path(RECORD)).unwrap()
}

#[test]
fn a_record_is_checked_and_what_was_noted_is_found_again() {
    for launcher in launchers() {
        let place = recorded(launcher);
        let (status, seen) = verified(&place, &[]);
        let lines = text(&place).lines().count();
        assert_eq!((status, &seen["records"]), (0, &lines.into()), "{seen}");
        assert_eq!((&seen["closed"], &seen["unfinished"]), (&true.into(), &0.into()));
        assert_eq!((&seen["first"]["seq"], &seen["file"]), (&1.into(), &RECORD.into()));
        let first = head(&place);
        call(&place, 0);
        let second = head(&place);
        let noted = ["--contains", &first, "--contains", &second];
        let (status, out, err) = place.run(&[&["audit", "verify", RECORD], &noted[..]].concat());
        assert_eq!(status, 0, "{err}");
        for words in ["each as it was written", "all 2 chains that were noted are in it", &second] {
            assert!(out.contains(words), "{out}");
        }

        // Somebody takes the second call back.
        let whole = text(&place);
        let cut: String = whole.lines().take(lines).map(|line| format!("{line}\n")).collect();
        fs::write(place.path(RECORD), &cut).unwrap();
        assert_eq!(verified(&place, &["--contains", &first]).0, 0);
        let said = refusal(&place, &["--contains", &second]);
        assert!(said.contains(&second) && said.contains("the end was cut off"), "{said}");
    }
}

#[test]
fn a_record_that_was_changed_is_refused_with_its_line_and_not_continued() {
    for launcher in launchers() {
        let place = recorded(launcher);
        let whole = text(&place);
        let launch = whole.lines().position(|line| line.contains("\"kind\":\"launch\"")).unwrap();
        let changed = whole.replacen("\"kind\":\"launch\"", "\"kind\":\"stop\"", 1);
        fs::write(place.path(RECORD), &changed).unwrap();
        let said = refusal(&place, &[]);
        let line = format!("line {}: it does not follow from the one before", launch + 1);
        assert!(said.contains(RECORD) && said.contains(&line), "{said}");
        let said: Value = serde_json::from_str(&call(&place, 3)).unwrap();
        let (message, hint) = (&said["error"]["message"], &said["error"]["hint"]);
        assert!(message.as_str().unwrap().contains("is not as it was written"), "{said}");
        assert!(hint.as_str().unwrap().contains("palisade audit verify"), "{said}");
        assert_eq!(text(&place), changed, "it was written to");

        fs::write(place.path(RECORD), "dear diary\n").unwrap();
        let said = refusal(&place, &[]);
        assert!(
            said.contains("line 1: no record") && said.contains("nothing in it is known"),
            "{said}"
        );
    }
}

#[test]
fn what_is_no_file_is_a_mistake_and_nothing_is_waited_for() {
    let place = recorded(Launcher::Me);
    let pipe = place.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for name in ["missing", "pipe", ".", "/dev/zero"] {
        let (status, out, err) = place.run(&["audit", "verify", name]);
        assert_eq!((status, out.as_str()), (2, ""), "{name}: {err}");
        assert!(err.contains(&format!("cannot read {name}: ")), "{err}");
    }
    let (status, _, err) = place.run(&["audit", "verify", RECORD, "--contains", "0xAB"]);
    assert!(status == 2 && err.contains("64 hexadecimal digits"), "{err}");
    fs::write(place.path("empty"), "").unwrap();
    let (status, out, _) = place.run(&["audit", "verify", "empty"]);
    assert_eq!((status, out.as_str()), (0, "empty: nothing is recorded yet\n"));
}

/// A line that follows another, as anybody can make it who can write the file.
fn forged(before: &str, line: &str) -> String {
    let chain: String =
        Sha256::digest(format!("{before}{line}")).iter().map(|b| format!("{b:02x}")).collect();
    format!("{},\"chain\":\"{chain}\"}}\n", line.strip_suffix('}').unwrap())
}

#[test]
fn what_a_forger_wrote_steers_no_terminal() {
    let place = recorded(Launcher::Me);
    let time = "\\u001b[2J\\u009b1m\\u202e";
    let line = format!("{{\"seq\":1,\"boot\":\"b\",\"time\":\"{time}\",\"kind\":\"exit\"}}");
    fs::write(place.path(RECORD), forged(&"0".repeat(64), &line)).unwrap();
    for args in [&["audit", "verify", RECORD][..], &["audit", "verify", RECORD, "--json"]] {
        let (status, out, err) = place.run(args);
        assert!(status == 0 && out.contains("[2J"), "{out}{err}");
        assert!(!out.contains(['\x1b', '\u{9b}', '\u{202e}']), "{out:?}");
    }
    // Half a line is said, and no more than a crash leaves is passed over.
    fs::write(place.path(RECORD), "{\"seq\":1,\"boot\":\"").unwrap();
    let (status, out, _) = place.run(&["audit", "verify", RECORD]);
    assert!(status == 0 && out.contains("nothing is recorded yet\nat its end 17 bytes"), "{out}");
    fs::write(place.path(RECORD), text(&recorded(Launcher::Me)).replace('\n', " ")).unwrap();
    assert!(refusal(&place, &[]).contains("line 1: no line break"));
}

#[test]
fn the_record_of_a_running_host_can_be_checked() {
    let place = recorded(Launcher::Me);
    let mut command = place.std_command();
    command.args(["run", "plugins/good", "--json", "--audit", RECORD]);
    let mut host = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(host.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("started"));
    let (status, seen) = verified(&place, &[]);
    host.kill().unwrap();
    host.wait().unwrap();
    assert_eq!((status, &seen["closed"]), (0, &false.into()), "{seen}");
    let (_, out, _) = place.run(&["audit", "verify", RECORD]);
    assert!(out.contains("not closed"), "{out}");
    // The next host goes on where that one ended.
    let noted = head(&place);
    call(&place, 0);
    assert_eq!(verified(&place, &["--contains", &noted]).0, 0);
}
