//! `palisade secret`: values go in through stdin and come out for plugins only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

fn secret(state: &std::path::Path, args: &[&str], stdin: &[u8]) -> Output {
    Command::new(assert_cmd::cargo::cargo_bin!("palisade"))
        .arg("secret")
        .args(args)
        .arg("--state-dir")
        .arg(state.join("state"))
        .arg("--audit")
        .arg(state.join("record.jsonl"))
        .write_stdin(stdin)
        .timeout(std::time::Duration::from_secs(60))
        .output()
        .unwrap()
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_secret_is_set_listed_and_removed_and_its_value_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let mut said = String::new();
    let mut done = |args: &[&str], stdin: &[u8]| {
        let output = secret(dir.path(), args, stdin);
        let (stdout, stderr) = text(&output);
        assert!(output.status.success(), "{stderr}");
        said.push_str(&stderr);
        said.push_str(&stdout);
        stdout
    };
    assert_eq!(done(&["list"], b""), "no secrets are set\n");
    assert_eq!(done(&["set", "db.PASSWORD"], b"hunter2\n"), "db.PASSWORD is set\n");
    assert_eq!(
        done(&["set", "db.PASSWORD"], "hunter2-é".as_bytes()),
        "db.PASSWORD has a new value\n"
    );
    assert!(done(&["list"], b"").starts_with("db.PASSWORD  set 2"));
    let listed: Value = serde_json::from_str(&done(&["list", "--json"], b"")).unwrap();
    assert_eq!(listed["secrets"][0]["name"], "db.PASSWORD");
    assert_eq!(listed["secrets"].as_array().unwrap().len(), 1);
    done(&["remove", "db.PASSWORD"], b"");
    assert!(!said.contains("hunter2"), "{said}");

    let record = std::fs::read_to_string(dir.path().join("record.jsonl")).unwrap();
    assert!(!record.contains("hunter2"), "{record}");
    let acts: Vec<Value> = record.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |detail: &str| {
        let is = |act: &&Value| act["kind"] == "secret" && act["detail"] == detail;
        acts.iter().filter(is).count()
    };
    assert!(count("set") >= 2 && count("remove") >= 1 && count("list") >= 3, "{record}");
}

#[test]
fn what_is_no_secret_is_refused_before_anything_happens() {
    let dir = tempfile::tempdir().unwrap();
    for (args, stdin, message) in [
        (["set", "a*"], b"x".as_slice(), "a pattern names no single secret"),
        (["set", "a b"], b"x", "is no name of a secret"),
        (["set", "a"], b"", "is empty"),
        (["set", "a"], b"hunter2\0", "NUL"),
        (["set", "a"], b"hunter2\xff", "UTF-8"),
        (["set", "a"], &[b'x'; 65537], "at most 65536"),
    ] {
        let output = secret(dir.path(), &args, stdin);
        let (_, stderr) = text(&output);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(message) && !stderr.contains("hunter2"), "{stderr}");
    }
    assert!(!dir.path().join("state").exists());
    let output = secret(dir.path(), &["remove", "a"], b"");
    assert_eq!(output.status.code(), Some(1));
    // The longest that fits.
    assert!(secret(dir.path(), &["set", "a"], &[b'x'; 65536]).status.success());
}
